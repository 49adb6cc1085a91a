"""Whether a repair is right, as the live lab judges it, and what the learner deleted for it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit.connection import core_api
from labkit.course.exercises import asking, surplus
from labkit.course.faults import Fault
from labkit.course.faults.report import mend_report
from labkit.doctor import Evidence, examine
from labkit.steps.bucket import KEY
from labkit.steps.ownership import existing

if TYPE_CHECKING:
    from labkit.workspace import Workspace


# What reading a bucket doesn't need. The simulation shows what no call may try: the learner's bucket has to stay.
ELSEWHERE = (
    "iam:CreateUser",
    "iam:ListRoles",
    "iam:PassRole",
    "sts:AssumeRole",
    "secretsmanager:GetSecretValue",
    "ssm:GetParameter",
    "kms:Decrypt",
    "dynamodb:GetItem",
    "sqs:SendMessage",
    "lambda:InvokeFunction",
    "ec2:RunInstances",
)


def is_mended(lab: "Workspace", *known: str) -> bool:
    """Return whether the pod has its role and its bucket again, and nobody else got anything.

    `known` has the principals that the task's faults left in the trust policy: the doctor's repairs keep them, too.
    """
    answers = (report := mend_report(lab, of_an_examination=True)).answers
    if not report or not answers:
        return False
    (_, identity), (_, bucket) = answers
    is_its_role = f":assumed-role/{lab.parameters.role_name}/" in identity
    # The doctor doesn't look for the bucket, and a learner may have deleted it.
    return is_its_role and "An error occurred (" not in bucket and not any(opened(lab, *known))


def ids(lab: "Workspace") -> dict[str, str]:
    """Return ids that change if the learner deletes a resource and creates it again."""
    iam, names = lab.aws.client("iam"), lab.parameters
    now: dict[str, Any] = {}
    with suppress(iam.exceptions.NoSuchEntityException):
        provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
        now["the OIDC provider"] = provider["CreateDate"]
    with suppress(iam.exceptions.NoSuchEntityException):
        now["the IAM role"] = iam.get_role(RoleName=names.role_name)["Role"]["RoleId"]
    read = partial(core_api(lab.kubernetes).read_namespaced_service_account, names.service_account, names.namespace)
    if account := existing(read):
        now["the service account"] = account.metadata.uid
    return {what: str(id) for what, id in now.items()}


def causes(lab: "Workspace", faults: Sequence[Fault]) -> list[str]:
    """Return the doctor's sentence about each fault; empty where it reports none."""
    bucket = f"arn:{lab.connection.partition}:s3:::{lab.parameters.bucket}"
    probe = any(fault.needs_probe for fault in faults)
    evidence = Evidence(lab.parameters, lab.connection, action="s3:ListBucket", resource=bucket, probe=probe)
    now = {each.id: each.summary for each in reversed(examine(evidence).findings)}
    return [next((now[id] for id in (fault.finding, *fault.seen_as) if id in now), "") for fault in faults]


def opened(lab: "Workspace", *known: str) -> Iterator[str]:
    """Yield what AWS allows and must refuse: to strangers who ask for the role, to the role, and to everybody."""
    yield from (row.what for row in (*asking.newcomers(lab, known=known), *asking.for_others(lab)))
    bucket, key = lab.parameters.bucket, "examination.txt"
    arn = f"arn:{lab.connection.partition}:s3:::{bucket}"
    for resource, actions in (
        (arn, asking.CHANGES_OF_BUCKET),
        (f"{arn}/{key}", asking.CHANGES_OF_OBJECT),
        ("*", ELSEWHERE),
    ):
        decided = surplus.simulated(lab, lab.role_arn, *actions, resource=resource)
        yield from (f"{action} on {resource}" for action, said in decided.items() if said == asking.ALLOWED)
    yield from surplus.allowed(lab, lab.role_arn, surplus.is_a_read, apart_from=lab.parameters.policy_arn)
    # The bucket's own policy counts only in calls.
    if not asking.denies(lab, "a write to the bucket", "s3", "put_object", Bucket=bucket, Key=key, Body=b"").right:
        yield "a write to the bucket"
    other = lab.in_account(str(lab.connection.other_account))
    for what, operation, more in (
        ("list of the bucket", "list_objects_v2", {}),
        ("read of an object", "get_object", {"Key": KEY}),
    ):
        if asking.call(other, "s3", operation, given={}, Bucket=bucket, **more) == asking.ALLOWED:
            yield f"another account's {what}"
