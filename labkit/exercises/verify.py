"""Notebook 05: a role's permissions, and how to end its sessions."""

import json
from base64 import b64decode
from functools import partial
from typing import Any

from labkit.connection import awaited, core_api
from labkit.exercises import making
from labkit.exercises.asking import allows, call, credentials, denies
from labkit.exercises.exercise import Exercise
from labkit.steps import bucket, oidc_provider, service_account
from labkit.steps.row import Row
from labkit.widgets.question import Answer, Question
from labkit.workspace import Workspace

COPIED = "copied-credentials"
NOTE = "note.txt"


def _role_for_another_bucket(place: Workspace) -> None:
    _bucket(place)
    _role(place, _reading("another-bucket"))


def _session_that_somebody_copied(place: Workspace) -> None:
    _bucket(place)
    _role(place, _reading(place.parameters.namespace))
    document = {"metadata": {"name": COPIED, "labels": place.labels}, "stringData": credentials(place)}
    core_api(place.kubernetes).create_namespaced_secret(place.parameters.namespace, document)


def _bucket(place: Workspace) -> None:
    bucket.create(place.aws, place.parameters.namespace)
    place.aws.client("s3").put_object(Bucket=place.parameters.namespace, Key=NOTE, Body=b"hello")


def _role(place: Workspace, permissions: dict[str, Any]) -> None:
    oidc_provider.ensure(place)
    service_account.ensure(place)
    iam, name = place.aws.client("iam"), place.parameters.role_name
    making.role(place)
    iam.put_role_policy(RoleName=name, PolicyName="reading", PolicyDocument=json.dumps(permissions))


def _reading(bucket: str) -> dict[str, Any]:
    resources = [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]
    statement = {"Effect": "Allow", "Action": ["s3:ListBucket", "s3:GetObject"], "Resource": resources}
    return {"Version": "2012-10-17", "Statement": [statement]}


def _reads_and_no_more(place: Workspace) -> list[Row]:
    own: dict[str, Any] = {"Bucket": place.parameters.namespace}
    other: dict[str, Any] = {"Bucket": place.parameters.bucket}
    # A role that may not list another bucket may still read in it. Only then this is a row, too.
    read_elsewhere = denies(place, "read an object in another bucket", "s3", "get_object", **other, Key=bucket.KEY)
    return [
        allows(place, "list its bucket", "s3", "list_objects_v2", **own),
        allows(place, "read an object in it", "s3", "get_object", **own, Key=NOTE),
        denies(place, "write an object in it", "s3", "put_object", **own, Key="written.txt", Body=b"hello"),
        denies(place, "delete an object in it", "s3", "delete_object", **own, Key=NOTE),
        denies(place, "list another bucket", "s3", "list_objects_v2", **other),
        *([] if read_elsewhere.right else [read_elsewhere]),
    ]


def _only_fresh_sessions_read(place: Workspace) -> list[Row]:
    held = core_api(place.kubernetes).read_namespaced_secret(COPIED, place.parameters.namespace)
    copied = {name: _decoded(value) for name, value in held.data.items()}
    read: dict[str, Any] = {"Bucket": place.parameters.namespace, "Key": NOTE}
    old = denies(place, "the copied credentials read", "s3", "get_object", given=copied, **read)
    # Sessions begin at whole seconds. So the policy also refuses sessions from the second in which it was written.
    fresh = awaited(
        partial(call, place, "s3", "get_object", **read),
        lambda found: not found.startswith("AccessDenied"),
        within=2,
        every=0.5,
    )
    return [old, Row("a fresh session reads", "allowed", fresh)]


def _decoded(value: str) -> str:
    return b64decode(value).decode()


EXERCISES = (
    Exercise(
        "05-a",
        "a role that reads its bucket, and does no more",
        _role_for_another_bucket,
        _reads_and_no_more,
        (
            "The error names the action and the resource. Which bucket does the role's policy allow?",
            'Read it: iam.get_role_policy(RoleName=task, PolicyName="reading"). Listing is about the bucket, reading '
            "about the objects in it.",
            "Put the policy again with arn:aws:s3:::exercise-05-a and arn:aws:s3:::exercise-05-a/* as Resource.",
        ),
    ),
    Exercise(
        "05-b",
        "end the sessions that exist, and leave the role to new ones",
        _session_that_somebody_copied,
        _only_fresh_sessions_read,
        (
            "AWS judges each call by all the policies that the role has then. A Deny in one outweighs an Allow in "
            "another.",
            "Deny everything if aws:TokenIssueTime is earlier than now. That is what the console's button "
            "“Revoke active sessions” writes. The lab's clock may be ahead: lab.now() follows it.",
            'Call iam.put_role_policy with another PolicyName: Effect Deny, Action "*", Resource "*", Condition '
            '{"DateLessThan": {"aws:TokenIssueTime": now}}.',
        ),
    ),
)

PREDICTIONS = (
    Question(
        "05-1",
        "You detach the policy from the role while the pod runs. What does the pod's next call get?",
        (
            Answer(
                "The same as before, until its credentials expire.",
                "Credentials say who calls. AWS looks up at each call what that role may do.",
            ),
            Answer("AccessDenied.", "Permissions count for sessions that are open, too.", right=True),
            Answer("ExpiredToken.", "The session is still valid. It just isn't allowed to do this."),
        ),
    ),
)

RECALL = (
    Question(
        "05-2",
        "Which command shows who a pod is in AWS, without any permission?",
        (
            Answer("aws sts get-caller-identity", "AWS always answers it.", right=True),
            Answer("aws iam get-role", "It needs iam:GetRole, and tells nothing about the caller."),
            Answer("aws s3 ls", "It needs a permission. Its refusal names the caller, though."),
        ),
    ),
    Question(
        "05-3",
        "AccessDenied: User: …assumed-role/my-role/… is not authorized to perform: s3:PutObject. What decided?",
        (
            Answer("The trust policy.", "The pod is the role already. The trust policy has done its part."),
            Answer("The role's permissions.", "IRSA works; the role just isn't allowed to do this.", right=True),
            Answer("The OIDC provider.", "It decides about tokens, and no token is in this error."),
        ),
    ),
    Question(
        "05-4",
        "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity. Where do you look?",
        (
            Answer("At the role's permissions.", "You aren't the role yet."),
            Answer(
                "At the role's trust policy, and at the role's name.",
                "The token was accepted. This role doesn't admit its subject, or doesn't exist.",
                right=True,
            ),
            Answer("At the bucket's policy.", "No bucket was asked."),
        ),
    ),
    Question(
        "05-5",
        "Somebody makes a service account my-service-account in a namespace of their own. Do they get your role?",
        (
            Answer("Yes, the name is the same.", "sub holds the namespace as well."),
            Answer("No, sub holds the namespace and the name.", "The trust policy names both.", right=True),
            Answer("Only with the annotation.", "The annotation isn't a permission."),
        ),
    ),
    Question(
        "05-6",
        "A token has the right subject, and STS answers InvalidIdentityToken. What may be wrong?",
        (
            Answer("The role's name.", "That would be AccessDenied."),
            Answer("The token's audience.", "The provider doesn't list it, so STS rejects the token.", right=True),
            Answer("The annotation.", "STS never sees it."),
        ),
    ),
)
