"""Faults of the role, of its trust policy and of its permissions."""

import json
from typing import Any

from labkit.course.faults.fault import fault, faults
from labkit.course.faults.situation import Situation

ISSUER = ("the trust policy's issuer",)
SUBJECT = ("the trust policy's subject",)
AUDIENCE = ("the trust policy's audience",)
ACTION = ("the trust policy's action",)
LENGTH = ("the trust policy's length",)
WHOLE = (*ISSUER, *SUBJECT, *AUDIENCE, *ACTION, *LENGTH)
REFUSED = ("what IAM refused last",)
ATTACHED = ("the role's policies",)
# A policy that refuses the caller hides these: findings about admitting too much, and the general refusal.
ADMITTED_TOO_MUCH = ("trust-policy-sub-missing", "trust-policy-aud-missing", "trust-policy-admits-others")
REFUSED_HIDES = (*ADMITTED_TOO_MUCH, "trust-policy-refuses")
ABSENT_HIDES = (
    *REFUSED_HIDES,
    "trust-policy-[!ct]*",
    "trust-policy-condition-key-of-another-issuer",
    "role-missing",
    "role-policy-not-attached",
    "role-lacks-permission",
    "role-denied-by-*",
    "role-is-administrator",
    "role-assumes-itself",
    "cluster-rebuilt",
    "oidc-provider-in-another-account",
    "eksctl-role-without-annotation",
)
ANOTHER_ID = "E" * 32
LIMIT = 2048  # characters of a trust policy


@fault("An IAM role that looked unused was deleted.", finding="role-missing", hides=ABSENT_HIDES)
def role_deleted(situation: Situation) -> None:
    situation.roles.pop(situation.role_arn, None)


@fault(
    "A script tried to create the role again, with a trust policy that it built from the issuer's URL.",
    finding="trust-policy-condition-key-with-scheme",
    hides=ABSENT_HIDES,
    changes=REFUSED,
)
def role_made_anew_with_the_issuers_url(situation: Situation) -> None:
    trust_policy = _trust_policy(situation, f"{situation.issuer}:sub", situation.parameters.subject)
    _rejected_by_iam(situation, trust_policy, "MalformedPolicyDocument")


@fault(
    "A script tried to create the role again, with a trust policy that lists every service account of the cluster.",
    finding="trust-policy-too-long",
    hides=ABSENT_HIDES,
    changes=REFUSED,
)
def role_made_anew_for_everybody(situation: Situation) -> None:
    subjects = [f"{situation.parameters.subject}-{number}" for number in range(50)]
    _rejected_by_iam(situation, _trust_policy(situation, f"{situation.provider_name}:sub", subjects), "LimitExceeded")


SUBJECTS = faults(
    lambda situation, subject: situation.require("sub", f"system:serviceaccount:{subject}"),
    (
        "trust-policy-names-another-service-account",
        "The trust policy was copied from another application's role.",
        "trust-policy-sub-mismatch",
        lambda situation: f"{situation.parameters.namespace}:orders",
    ),
    (
        "trust-policy-names-another-namespace",
        "The application moved to another namespace.",
        "trust-policy-sub-of-another-namespace",
        lambda situation: f"staging:{situation.parameters.service_account}",
    ),
    (
        "service-account-renamed-by-a-chart",
        "A chart was installed under another release name.",
        "trust-policy-sub-renamed",
        lambda situation: f"{situation.parameters.namespace}:prod-{situation.parameters.service_account}",
    ),
    (
        "wildcard-is-compared-letter-by-letter",
        "The trust policy was widened to the whole namespace.",
        "trust-policy-sub-wildcard-under-string-equals",
        lambda situation: f"{situation.parameters.namespace}:*",
    ),
    hides=REFUSED_HIDES,
    changes=SUBJECT,
)


@fault(
    "The trust policy was copied from a guide that uses another region.",
    finding="trust-policy-issuer-host-wrong",
    hides=REFUSED_HIDES,
    changes=ISSUER,
)
def trust_policy_of_another_region(situation: Situation) -> None:
    region = situation.parameters.region
    here, there = f"oidc.eks.{region}.", f"oidc.eks.{'us-west-2' if region != 'us-west-2' else 'us-east-1'}."
    situation.trust(situation.provider_arn.replace(here, there), situation.provider_name.replace(here, there))


@fault(
    "The trust policy's conditions were typed from memory.",
    finding="trust-policy-issuer-host-wrong",
    hides=REFUSED_HIDES,
    changes=ISSUER,
)
def condition_keys_with_swapped_host(situation: Situation) -> None:
    region = situation.parameters.region
    host = situation.provider_name.replace(f"oidc.eks.{region}.", f"oidc.{region}.eks.")
    situation.trust(situation.provider_arn, host)


@fault(
    "The trust policy's principal was brought up to date after the cluster was replaced.",
    finding="trust-policy-condition-key-of-another-issuer",
    hides=REFUSED_HIDES,
    changes=ISSUER,
)
def condition_keys_of_another_cluster(situation: Situation) -> None:
    other = situation.provider_name.replace(situation.issuer_id, ANOTHER_ID)
    situation.trust(situation.provider_arn, other)


@fault(
    "The trust policy's principal was copied from another cluster's role.",
    finding="trust-policy-provider-mismatch",
    hides=REFUSED_HIDES,
    changes=ISSUER,
)
def trust_policy_trusts_another_cluster(situation: Situation) -> None:
    other = situation.provider_arn.replace(situation.issuer_id, ANOTHER_ID)
    situation.trust(other, situation.provider_name)


@fault(
    "The trust policy's principal was shortened until IAM accepted it.",
    finding="trust-policy-principal-not-a-provider",
    hides=REFUSED_HIDES,
    changes=ISSUER,
)
def trust_policy_trusts_a_host(situation: Situation) -> None:
    situation.trust(situation.provider_name.partition("/")[0], situation.provider_name)


@fault(
    "The trust policy's action was copied from a role that people assume.",
    finding="trust-policy-action-wrong",
    hides=REFUSED_HIDES,
    changes=ACTION,
)
def trust_policy_allows_another_action(situation: Situation) -> None:
    situation.statement["Action"] = "sts:AssumeRole"


@fault(
    "Someone wanted pods to use the region's own STS, and changed the trust policy.",
    finding="trust-policy-aud-mismatch",
    hides=REFUSED_HIDES,
    changes=AUDIENCE,
)
def trust_policy_wants_an_endpoint_for_audience(situation: Situation) -> None:
    situation.require("aud", f"sts.{situation.parameters.region}.amazonaws.com")


@fault(
    "The role was created again in the console, for the first use case that the console offers.",
    finding="trust-policy-of-a-service",
    hides=REFUSED_HIDES,
    changes=WHOLE,
)
def trust_policy_of_an_instance(situation: Situation) -> None:
    _replace_statement(situation, {"Service": "ec2.amazonaws.com"}, "sts:AssumeRole")


@fault(
    "The role was moved to EKS Pod Identity.",
    finding="trust-policy-of-pod-identity",
    hides=REFUSED_HIDES,
    changes=WHOLE,
)
def trust_policy_for_pod_identity(situation: Situation) -> None:
    _replace_statement(situation, {"Service": "pods.eks.amazonaws.com"}, ["sts:AssumeRole", "sts:TagSession"])


@fault(
    "A statement was added to the trust policy after an audit.", finding="trust-policy-refuses", hides=ADMITTED_TOO_MUCH
)
def trust_policy_denies(situation: Situation) -> None:
    denied = {"Effect": "Deny", "Principal": {"AWS": "*"}, "Action": "sts:AssumeRoleWithWebIdentity"}
    if situation.role and denied not in situation.role["AssumeRolePolicyDocument"]["Statement"]:
        situation.role["AssumeRolePolicyDocument"]["Statement"].append(denied)


@fault(
    "Someone shortened the trust policy.",
    finding="trust-policy-sub-missing",
    hides=("trust-policy-admits-others",),
    changes=SUBJECT,
    works=True,
)
def trust_policy_without_a_subject(situation: Situation) -> None:
    situation.require("sub", None)


@fault(
    "The trust policy was widened until it worked.",
    finding="trust-policy-sub-missing",
    hides=("trust-policy-admits-others",),
    changes=SUBJECT,
    works=True,
)
def trust_policy_for_every_service_account(situation: Situation) -> None:
    situation.require("sub", "system:serviceaccount:*", operator="StringLike")


@fault(
    "Someone thought that one condition in the trust policy was enough.",
    finding="trust-policy-aud-missing",
    changes=AUDIENCE,
    works=True,
)
def trust_policy_without_an_audience(situation: Situation) -> None:
    situation.require("aud", None)


@fault(
    "The trust policy was widened to the namespace.", finding="trust-policy-admits-others", changes=SUBJECT, works=True
)
def trust_policy_for_the_whole_namespace(situation: Situation) -> None:
    situation.require("sub", f"system:serviceaccount:{situation.parameters.namespace}:*", operator="StringLike")


@fault(
    "More and more applications were admitted to the role.",
    finding="trust-policy-near-size-limit",
    changes=LENGTH,
    works=True,
)
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


@fault(
    "The role's permissions were reviewed.",
    finding="role-policy-not-attached",
    hides=("role-lacks-permission",),
    changes=ATTACHED,
)
def policy_detached(situation: Situation) -> None:
    attached = situation.role.get("Attached", [])
    situation.role["Attached"] = [arn for arn in attached if arn != situation.parameters.policy_arn]


@fault("Someone added another policy to the role, for safety.", finding="role-lacks-permission")
def permission_denied_by_an_inline_policy(situation: Situation) -> None:
    denied = {"Effect": "Deny", "Action": "s3:List*", "Resource": "*"}
    situation.role.setdefault("Inline", {})["no-lists"] = {"Version": "2012-10-17", "Statement": [denied]}


@fault("The company's rules for roles were applied to all roles.", finding="role-denied-by-boundary")
def boundary_without_the_permission(situation: Situation) -> None:
    situation.role["PermissionsBoundary"] = f"arn:{situation.partition}:iam::aws:policy/CloudWatchReadOnlyAccess"


@fault("The bucket got a policy.", finding="role-denied-by-bucket-policy")
def bucket_policy_denies_the_role(situation: Situation) -> None:
    bucket = f"arn:{situation.partition}:s3:::{situation.parameters.bucket}"
    denied = {
        "Effect": "Deny",
        "Principal": {"AWS": situation.role_arn},
        "Action": "s3:*",
        "Resource": [bucket, f"{bucket}/*"],
    }
    situation.bucket_policy = {"Version": "2012-10-17", "Statement": [denied]}


@fault(
    "The role got more and more permissions, until the pod worked.",
    finding="role-is-administrator",
    changes=(),
    works=True,
)
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


def _replace_statement(situation: Situation, principal: Any, action: Any) -> None:
    if statement := situation.statement:
        statement.pop("Condition", None)
        statement |= {"Principal": principal, "Action": action}


def _size(document: Any) -> int:
    """Return the document's length without white space, as IAM counts it.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
    """
    return len(json.dumps(document, separators=(",", ":")))
