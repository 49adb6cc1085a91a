"""Whether a repair is right, as the live lab judges it, and what the learner deleted for it."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit.connection import core_api
from labkit.course.exercises import asking
from labkit.course.faults import Fault, report
from labkit.doctor import Evidence, examine
from labkit.steps.ownership import existing

if TYPE_CHECKING:
    from labkit.workspace import Workspace


def is_mended(lab: "Workspace") -> bool:
    """Return whether the pod has its role and its bucket again, and nobody else got anything."""
    return bool(report.mend_report(lab, of_an_examination=True)) and all(_still_refused(lab))


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


def _still_refused(lab: "Workspace") -> Iterator[bool]:
    """Yield whether AWS refuses a neighbour, the same name in another namespace, and a write to the bucket."""
    account, namespace = lab.parameters.service_account, lab.parameters.namespace
    yield asking.newcomer(lab, asking.lookalike(account), namespace) != asking.ADMITTED
    yield asking.newcomer(lab, account, asking.lookalike(namespace)) != asking.ADMITTED
    bucket, key = lab.parameters.bucket, "examination.txt"
    yield asking.denies(lab, "a write to the bucket", "s3", "put_object", Bucket=bucket, Key=key, Body=b"").right
