"""Faults of the role, of its trust policy and of its permissions."""

import json
from typing import Any

from labkit.course.faults.fault import rows
from labkit.course.faults.situation import Situation

ANOTHER_ID = "E" * 32
LIMIT = 2048  # characters of a trust policy


SUBJECTS = rows(
    lambda run, subject: run.require("sub", f"system:serviceaccount:{subject}"),
    {
        "trust-policy-names-another-service-account": lambda run: f"{run.parameters.namespace}:orders",
        "trust-policy-names-another-namespace": lambda run: f"staging:{run.parameters.service_account}",
        "service-account-renamed-by-a-chart": lambda run: (
            f"{run.parameters.namespace}:prod-{run.parameters.service_account}"
        ),
        "wildcard-is-compared-letter-by-letter": lambda run: f"{run.parameters.namespace}:*",
    },
)
PATTERNS = rows(
    lambda run, subject: run.require("sub", f"system:serviceaccount:{subject}", operator="StringLike"),
    {
        "trust-policy-for-every-service-account": lambda _: "*",
        "trust-policy-for-the-whole-namespace": lambda run: f"{run.parameters.namespace}:*",
    },
)
CLAIMS = rows(
    lambda run, claim: run.require(*claim),
    {
        "trust-policy-without-a-subject": lambda _: ("sub", None),
        "trust-policy-without-an-audience": lambda _: ("aud", None),
        "trust-policy-wants-an-endpoint-for-audience": lambda run: (
            "aud",
            f"sts.{run.parameters.region}.amazonaws.com",
        ),
    },
)
# The principal, and the issuer in the condition keys.
ISSUERS = rows(
    lambda run, trusted: run.trust(*trusted),
    {
        "trust-policy-of-another-region": lambda run: (
            _in_another_region(run.provider_arn, run.parameters.region),
            _in_another_region(run.provider_name, run.parameters.region),
        ),
        "condition-keys-with-swapped-host": lambda run: (
            run.provider_arn,
            run.provider_name.replace(f"oidc.eks.{run.parameters.region}.", f"oidc.{run.parameters.region}.eks."),
        ),
        "condition-keys-of-another-cluster": lambda run: (
            run.provider_arn,
            run.provider_name.replace(run.issuer_id, ANOTHER_ID),
        ),
        "trust-policy-trusts-another-cluster": lambda run: (
            run.provider_arn.replace(run.issuer_id, ANOTHER_ID),
            run.provider_name,
        ),
        "trust-policy-trusts-a-host": lambda run: (run.provider_name.partition("/")[0], run.provider_name),
    },
)
EDITS = SUBJECTS | PATTERNS | CLAIMS | ISSUERS


def role_deleted(situation: Situation) -> None:
    situation.roles.pop(situation.role_arn, None)


def role_made_anew_with_the_issuers_url(situation: Situation) -> None:
    trust_policy = _trust_policy(situation, f"{situation.issuer}:sub", situation.parameters.subject)
    _rejected_by_iam(situation, trust_policy, "MalformedPolicyDocument")


def role_made_anew_for_everybody(situation: Situation) -> None:
    subjects = [f"{situation.parameters.subject}-{number}" for number in range(50)]
    _rejected_by_iam(situation, _trust_policy(situation, f"{situation.provider_name}:sub", subjects), "LimitExceeded")


def trust_policy_allows_another_action(situation: Situation) -> None:
    situation.statement["Action"] = "sts:AssumeRole"


def trust_policy_of_an_instance(situation: Situation) -> None:
    _replace_statement(situation, "ec2.amazonaws.com", "sts:AssumeRole")


def trust_policy_for_pod_identity(situation: Situation) -> None:
    _replace_statement(situation, "pods.eks.amazonaws.com", ["sts:AssumeRole", "sts:TagSession"])


def trust_policy_denies(situation: Situation) -> None:
    denied = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRoleWithWebIdentity"}
    if situation.role and denied not in situation.role["AssumeRolePolicyDocument"]["Statement"]:
        situation.role["AssumeRolePolicyDocument"]["Statement"].append(denied)


def trust_policy_has_grown(situation: Situation) -> None:
    if not situation.role:
        return
    principal = {"AWS": f"arn:aws:iam::{situation.account_id}:root"}
    statement = {"Sid": "Application", "Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"}
    document = situation.role["AssumeRolePolicyDocument"]
    while (room := LIMIT - _size(document) - _size(statement) - 2) > 0:
        number = len(document["Statement"])
        # The last statement's Sid fills the rest of the limit.
        sid = f"Application{number}" if room > 2 * _size(statement) else f"Application{number}".ljust(room, "x")
        document["Statement"].append({**statement, "Sid": sid})


def policy_detached(situation: Situation) -> None:
    attached = situation.role.get("Attached", [])
    situation.role["Attached"] = [arn for arn in attached if arn != situation.parameters.policy_arn]


def permission_denied_by_an_inline_policy(situation: Situation) -> None:
    denied = {"Effect": "Deny", "Action": "s3:List*", "Resource": "*"}
    situation.role.setdefault("Inline", {})["no-lists"] = {"Version": "2012-10-17", "Statement": [denied]}


def boundary_without_the_permission(situation: Situation) -> None:
    situation.role["PermissionsBoundary"] = f"arn:{situation.partition}:iam::aws:policy/CloudWatchReadOnlyAccess"


def bucket_policy_denies_the_role(situation: Situation) -> None:
    bucket = f"arn:{situation.partition}:s3:::{situation.parameters.bucket}"
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": situation.role_arn},
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
    }
    situation.bucket_policy = {"Version": "2012-10-17", "Statement": [denied]}


def administrator_attached(situation: Situation) -> None:
    arn = f"arn:{situation.partition}:iam::aws:policy/AdministratorAccess"
    situation.role["Attached"] = sorted({*situation.role.get("Attached", []), arn})


def _rejected_by_iam(situation: Situation, trust_policy: dict[str, Any], code: str) -> None:
    situation.roles.pop(situation.role_arn, None)
    arguments = {
        "RoleName": situation.parameters.role_name,
        "AssumeRolePolicyDocument": json.dumps(trust_policy),
        "Tags": situation.parameters.tags,
    }
    situation.refused.append({"operation": "create_role", "arguments": arguments, "code": code})


def _trust_policy(situation: Situation, key: str, value: Any) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": {"Federated": situation.provider_arn},
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Condition": {"StringEquals": {key: value}},
    }
    return {"Version": "2012-10-17", "Statement": [statement]}


def _replace_statement(situation: Situation, service: str, actions: Any) -> None:
    if statement := situation.statement:
        statement.pop("Condition", None)
        statement |= {"Principal": {"Service": service}, "Action": actions}


def _in_another_region(name: str, region: str) -> str:
    other = "us-west-2" if region != "us-west-2" else "us-east-1"
    return name.replace(f"oidc.eks.{region}.", f"oidc.eks.{other}.")


def _size(document: Any) -> int:
    """Return the document's length without white space, as IAM counts it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    """
    return len(json.dumps(document, separators=(",", ":")))
