"""Notebook 05: a role's permissions, and how to end its sessions."""

from base64 import b64decode
from functools import partial
from typing import Any

from labkit.connection import awaited, core_api
from labkit.course.exercises.asking import ALLOWED, allows, call, credentials, denies, reads_only
from labkit.course.exercises.exercise import Exercise, allow, ensure_account, make_role
from labkit.course.exercises.surplus import simulated
from labkit.doctor import Comparison
from labkit.steps import bucket
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

COPIED = "copied-credentials"
NOTE = "note.txt"


def _role_for_another_bucket(place: Workspace) -> None:
    _bucket(place)
    _role_that_reads(place, "another-bucket")


def _session_that_somebody_copied(place: Workspace) -> None:
    _bucket(place)
    _role_that_reads(place, place.parameters.namespace)
    allow(place, "looking-up", ("iam:GetRole", place.role_arn))
    document = {"metadata": {"name": COPIED, "labels": place.labels}, "stringData": credentials(place)}
    core_api(place.kubernetes).create_namespaced_secret(place.parameters.namespace, document)


def _bucket(place: Workspace) -> None:
    bucket.create(place.aws, place.parameters.namespace)
    place.aws.client("s3").put_object(Bucket=place.parameters.namespace, Key=NOTE, Body=b"hello")


def _role_that_reads(place: Workspace, bucket: str) -> None:
    ensure_account(place)
    make_role(place)
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    allow(place, "reading", (["s3:ListBucket", "s3:GetObject"], resources))


def _reads_and_no_more(place: Workspace) -> list[Comparison]:
    own: dict[str, Any] = {"Bucket": place.parameters.namespace}
    other: dict[str, Any] = {"Bucket": place.parameters.bucket}
    # A role that may not list the other bucket may still be able to read the objects in it. Only then show this row.
    read_elsewhere = denies(place, "read an object in another bucket", "s3", "get_object", **other, Key=bucket.KEY)
    return [
        allows(place, "list its bucket", "s3", "list_objects_v2", **own),
        allows(place, "read an object in it", "s3", "get_object", **own, Key=NOTE),
        denies(place, "write an object in it", "s3", "put_object", **own, Key="written.txt", Body=b"hello"),
        denies(place, "delete an object in it", "s3", "delete_object", **own, Key=NOTE),
        denies(place, "list another bucket", "s3", "list_objects_v2", **other),
        *([] if read_elsewhere.right else [read_elsewhere]),
        *reads_only(place, NOTE),
    ]


def _only_fresh_sessions_read(place: Workspace) -> list[Comparison]:
    own: dict[str, Any] = {"Bucket": place.parameters.namespace}
    role, bucket = place.role_arn, f"arn:{place.connection.partition}:s3:::{place.parameters.namespace}"
    itself = {"RoleName": place.parameters.role_name}
    # Sessions begin at whole seconds. So the policy also refuses sessions from the second in which it was written.
    fresh = awaited(
        partial(call, place, "s3", "get_object", **own, Key=NOTE),
        lambda answer: not answer.startswith("AccessDenied"),
        within=2,
        every=0.5,
    )
    # Only now, because a policy that refuses every call for a moment refuses the copied credentials, too.
    read = _copied(place, "read", "s3:GetObject", f"{bucket}/{NOTE}", "get_object", **own, Key=NOTE)
    listed = _copied(place, "list", "s3:ListBucket", bucket, "list_objects_v2", **own)
    looked_up = _copied(place, "look up the role", "iam:GetRole", role, "get_role", **itself)
    fresh_list = allows(place, "list in a fresh session", "s3", "list_objects_v2", **own)
    fresh_look = allows(place, "look up the role in a fresh session", "iam", "get_role", **itself)
    # Show the other rows only if they are wrong.
    hidden = [row for row in (listed, looked_up, fresh_list, fresh_look) if not row.right]
    return [read, Comparison("read in a fresh session", ALLOWED, fresh), *hidden]


def _copied(place: Workspace, what: str, action: str, resource: str, operation: str, **more: object) -> Comparison:
    """Call AWS with the copied credentials. Without them, simulate the call of a session that began with the exercise.

    `resource` is an ARN.
    """
    service = action.partition(":")[0]
    what, core, name = f"{what} with the copied credentials", core_api(place.kubernetes), place.parameters.namespace
    held = existing(partial(core.read_namespaced_secret, COPIED, name))
    if held is not None and (data := held.data):
        copied = {name: b64decode(value).decode() for name, value in data.items()}
        answer = call(place, service, operation, given=copied, **more)
        # AWS no longer knows the credentials of a role that was deleted.
        return Comparison(what, "refused: AccessDenied", answer, answer.startswith(("AccessDenied", "Invalid")))
    # The credentials are valid without the Secret. Their session began just after the namespace was created.
    began = core.read_namespace(name).metadata.creation_timestamp.strftime("%Y-%m-%dT%H:%M:%SZ")
    context = {"aws:TokenIssueTime": ("date", began)}
    decision = simulated(place, place.role_arn, action, resource=resource, **context)[action]
    answer = f"{decision}: IAM's simulation, because the Secret is gone"
    return Comparison(what, "refused: AccessDenied", answer, decision != ALLOWED)


EXERCISES = (
    Exercise("05-a", _role_for_another_bucket, _reads_and_no_more),
    Exercise("05-b", _session_that_somebody_copied, _only_fresh_sessions_read),
)
