"""The service account: is it there, and does its annotation lead to the role?"""

import re
from difflib import SequenceMatcher
from typing import TYPE_CHECKING

from labkit.findings import Finding

if TYPE_CHECKING:
    from labkit.evidence import Evidence

KEY = "eks.amazonaws.com/role-arn"
LEARN = "03-service-account.ipynb"
SOURCE = "kubectl get serviceaccount -o yaml, metadata.annotations"
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[\x21-\x7e]+", re.ASCII)
# Keys of the tools that did this before IRSA (kiam, kube2iam), which people bring along.
OLDER_KEYS = ("iam.amazonaws.com/role", "iam.amazonaws.com/role-arn")


def missing(evidence: "Evidence") -> Finding | None:
    """No service account of this name in the namespace."""
    if evidence.service_account is not None:
        return None
    return _finding(
        evidence,
        "service-account-missing",
        "The service account does not exist.",
        expected=evidence.subject,
        found=", ".join(evidence.service_accounts) or f"none in namespace {evidence.parameters.namespace}",
        source="kubectl get serviceaccounts",
        repair=evidence.commands.create_service_account(),
    )


def annotation_missing(evidence: "Evidence") -> Finding | None:
    """It bears no annotation with the role, and none that looks like one."""
    if evidence.service_account is None or evidence.annotation or _misspelt(evidence):
        return None
    return _finding(
        evidence,
        "service-account-annotation-missing",
        "The service account does not say which role its pods get.",
        expected=f"{KEY}: {evidence.role_arn}",
        found="no annotation with a role" if KEY not in evidence.annotations else f"{KEY}: (empty)",
    )


def annotation_key_typo(evidence: "Evidence") -> Finding | None:
    """The role stands under a key that the webhook does not read."""
    key = _misspelt(evidence)
    if key is None:
        return None
    return _finding(
        evidence,
        "service-account-annotation-key-typo",
        "The role stands under a key that the pod identity webhook does not read.",
        expected=KEY,
        found=key,
        repair=evidence.commands.annotate(without=key),
    )


def annotation_arn_malformed(evidence: "Evidence") -> Finding | None:
    """What the annotation holds is no role's ARN: STS answers `Request ARN is invalid`."""
    arn = evidence.annotation
    if not arn or ROLE_ARN.fullmatch(arn):
        return None
    return _finding(
        evidence,
        "service-account-annotation-arn-malformed",
        "The annotation holds something that is no role's ARN.",
        expected=evidence.role_arn,
        # repr shows what is invisible in print.
        found=repr(arn),
    )


def annotation_role_mismatch(evidence: "Evidence") -> Finding | None:
    """The annotation names another role than this run's."""
    arn = evidence.annotation
    if not arn or not ROLE_ARN.fullmatch(arn) or arn == evidence.role_arn:
        return None
    return _finding(
        evidence,
        "service-account-annotation-role-mismatch",
        "The annotation names another role.",
        expected=evidence.role_arn,
        found=arn,
    )


CAUSES = (missing, annotation_missing, annotation_key_typo, annotation_arn_malformed, annotation_role_mismatch)


def _misspelt(evidence: "Evidence") -> str | None:
    if evidence.annotation:
        return None
    for key in evidence.annotations:
        if key != KEY and (key in OLDER_KEYS or SequenceMatcher(None, key.lower(), KEY).ratio() > 0.85):
            return key
    return None


def _finding(
    evidence: "Evidence", id: str, summary: str, *, expected: str, found: str, source: str = SOURCE, repair: str = ""
) -> Finding:
    return Finding(
        id=id,
        summary=summary,
        expected=expected,
        found=found,
        source=source,
        repair=repair or evidence.commands.annotate(),
        learn=LEARN,
    )
