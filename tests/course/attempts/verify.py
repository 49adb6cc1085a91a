"""Tries at the exercises of notebook 05."""

import json
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.steps.iam_role import delete as delete_role
from tests.course.attempts import Attempts, put_policy, trust_policy

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
REFUSED = "AccessDenied: User: arn:aws:sts::123456789012:assumed-role/"


def allow(actions: str | list[str], *resources: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": [*resources]}


def deny(**condition: Any) -> dict[str, Any]:
    return {"Effect": "Deny", "Action": "*", "Resource": "*", "Condition": condition}


def now(lab: Lab) -> str:
    return lab.now().isoformat().replace("+00:00", "Z")


def delete_secret(lab: Lab, name: str) -> None:
    CoreV1Api(lab.kubernetes).delete_namespaced_secret("copied-credentials", name)


READ = ["s3:ListBucket", "s3:GetObject"]


@wrong("05-a", f"list its bucket found {REFUSED}exercise-05-a/<session name> is not authorized to perform: ")
def the_objects_without_the_bucket(lab, name):
    put_policy(lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}/*"))


@wrong("05-a", "delete an object in it found allowed")
def everything_in_its_bucket(lab, name):
    put_policy(lab, name, "reading", allow("s3:*", f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"))


@wrong("05-a", "write an object in it found allowed")
def writing_as_well(lab, name):
    put_policy(lab, name, "reading", allow([*READ, "s3:PutObject"], f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"))


@wrong("05-a", "list another bucket found allowed")
def every_bucket(lab, name):
    put_policy(lab, name, "reading", allow(READ, "*"))


@wrong("05-a", "read an object in another bucket found allowed")
def the_objects_of_every_bucket(lab, name):
    put_policy(
        lab, name, "reading", allow("s3:ListBucket", f"arn:aws:s3:::{name}"), allow("s3:GetObject", "arn:aws:s3:::*/*")
    )


@wrong("05-a", "s3:ListBucket on another-bucket found allowed\ns3:GetObject on another-bucket/note.txt found allowed")
def a_second_policy_beside_the_wrong_one(lab, name):
    put_policy(lab, name, "own", allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"))


@wrong("05-a", "s3:ListBucket on exercise-05-a-other found allowed")
def every_bucket_that_begins_alike(lab, name):
    put_policy(lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}*"))


@wrong("05-a", "s3:DeleteBucket on exercise-05-a found allowed")
def everything_but_two_actions(lab, name):
    own = f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"
    changes = {**allow(["s3:PutObject", "s3:DeleteObject"], *own), "Effect": "Deny"}
    put_policy(lab, name, "reading", allow("s3:*", *own), changes)


@right("05-a")
def its_bucket(lab, name):
    put_policy(lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"))


@right("05-a")
def two_statements_in_a_policy_of_their_own(lab, name):
    lab.aws.client("iam").delete_role_policy(RoleName=name, PolicyName="reading")
    own = allow("s3:List*", f"arn:aws:s3:::{name}"), allow("s3:Get*", f"arn:aws:s3:::{name}/*")
    put_policy(lab, name, "own", *own)


@wrong("05-b", f"read in a fresh session found {REFUSED}exercise-05-b/<session name> is not authorized to perform: ")
def the_permissions_taken_away(lab, name):
    lab.aws.client("iam").delete_role_policy(RoleName=name, PolicyName="reading")


@wrong("05-b", "read with the copied credentials found allowed")
def later_sessions_denied(lab, name):
    tomorrow = "2099-01-01T00:00:00Z"
    put_policy(lab, name, "revoke", deny(DateGreaterThan={"aws:TokenIssueTime": tomorrow}))


@wrong("05-b", "read with the copied credentials found allowed")
def the_trust_policy_closed_and_opened(lab, name):
    iam = lab.aws.client("iam")
    before = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    closed = json.loads(json.dumps(before).replace(":cart", ":nobody"))
    for document in (closed, before):
        iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(document))


@wrong("05-b", "list with the copied credentials found allowed")
def only_the_reading_denied(lab, name):
    older = deny(DateLessThanEquals={"aws:TokenIssueTime": now(lab)})
    put_policy(lab, name, "revoke", {**older, "Action": "s3:GetObject"})


@wrong("05-b", "list in a fresh session found AccessDenied")
def listing_denied_to_every_session(lab, name):
    older = deny(DateLessThan={"aws:TokenIssueTime": now(lab)})
    listing = {"Effect": "Deny", "Action": "s3:ListBucket", "Resource": "*"}
    put_policy(lab, name, "revoke", {**older, "Action": "s3:GetObject"}, listing)


@wrong("05-b", "read with the copied credentials found allowed: ")
def only_the_secret_deleted(lab, name):
    delete_secret(lab, name)


@right("05-b")
def revoked_and_the_secret_deleted(lab, name):
    put_policy(lab, name, "AWSRevokeOlderSessions", deny(DateLessThan={"aws:TokenIssueTime": now(lab)}))
    delete_secret(lab, name)


@right("05-b")
def revoked_as_the_console_does(lab, name):
    put_policy(lab, name, "AWSRevokeOlderSessions", deny(DateLessThan={"aws:TokenIssueTime": now(lab)}))


@wrong("05-b", "look up the role with the copied credentials found allowed")
def only_s3_denied(lab, name):
    older = deny(DateLessThanEquals={"aws:TokenIssueTime": now(lab)})
    put_policy(lab, name, "revoke", {**older, "Action": "s3:*"})


def revoke(lab: Lab, name: str, statement: dict[str, Any], policy: str = "revoke") -> None:
    put_policy(lab, name, policy, statement)


def older(lab: Lab, operator: str = "DateLessThan", **more: Any) -> dict[str, Any]:
    return {**deny(**{operator: {"aws:TokenIssueTime": now(lab)}}), **more}


def made_again(lab: Lab, name: str) -> None:
    """Delete the role, and create it again with the same policies: AWS then refuses the old role's sessions."""
    iam, trust = lab.aws.client("iam"), trust_policy(lab, name)
    written = [iam.get_role_policy(RoleName=name, PolicyName=each) for each in ("reading", "looking-up")]
    delete_role(iam, name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    for each in written:
        put_policy(lab, name, each["PolicyName"], *each["PolicyDocument"]["Statement"])


ROLE = "arn:aws:iam::123456789012:role/exercise-05-b"
ATTEMPTS.more(
    "05-b",
    wrong={
        "every session denied": (
            "read in a fresh session found AccessDenied",
            lambda lab, name: revoke(lab, name, {"Effect": "Deny", "Action": "*", "Resource": "*"}),
        ),
        "an allow in place of the deny": (
            "read with the copied credentials found allowed",
            lambda lab, name: revoke(lab, name, older(lab, Effect="Allow")),
        ),
        "every call until now": (
            "read with the copied credentials found allowed",
            lambda lab, name: revoke(lab, name, deny(DateLessThan={"aws:CurrentTime": now(lab)})),
        ),
        "only the bucket": (
            "look up the role with the copied credentials found allowed",
            lambda lab, name: revoke(
                lab, name, older(lab, Resource=[f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"])
            ),
        ),
        "everything but IAM": (
            "look up the role with the copied credentials found allowed",
            lambda lab, name: revoke(
                lab, name, {**{k: v for k, v in older(lab).items() if k != "Action"}, "NotAction": "iam:*"}
            ),
        ),
        "only looking up": (
            "read with the copied credentials found allowed",
            lambda lab, name: revoke(lab, name, older(lab, Action="iam:*")),
        ),
    },
    right={
        "in the policy that reads": lambda lab, name: put_policy(
            lab,
            name,
            "reading",
            allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"),
            older(lab),
        ),
        "up to now": lambda lab, name: revoke(lab, name, older(lab, "DateLessThanEquals")),
        "the role made again": made_again,
        "each action by its name": lambda lab, name: revoke(lab, name, older(lab, Action=[*READ, "iam:GetRole"])),
    },
)
ATTEMPTS.more(
    "05-a",
    wrong={
        "another service as well": (
            "dynamodb:ListTables found allowed",
            lambda lab, name: put_policy(
                lab,
                name,
                "reading",
                allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"),
                allow("dynamodb:*", "*"),
            ),
        ),
        "the names of all buckets as well": (
            "s3:ListAllMyBuckets found allowed",
            lambda lab, name: put_policy(
                lab,
                name,
                "reading",
                allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"),
                allow("s3:ListAllMyBuckets", "*"),
            ),
        ),
        "the bucket without the objects": (
            "read an object in it found AccessDenied",
            lambda lab, name: put_policy(lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}")),
        ),
        "a slash, but no asterisk": (
            "read an object in it found AccessDenied",
            lambda lab, name: put_policy(
                lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/")
            ),
        ),
    },
    right={
        "a second policy, and the first one emptied of other buckets": lambda lab, name: (
            put_policy(lab, name, "reading", allow("s3:ListBucket", f"arn:aws:s3:::{name}")),
            put_policy(lab, name, "objects", allow("s3:GetObject", f"arn:aws:s3:::{name}/*")),
        ),
        "one object by its name": lambda lab, name: put_policy(
            lab, name, "reading", allow(READ, f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/note.txt")
        ),
        "all that reads, in one pattern": lambda lab, name: put_policy(
            lab,
            name,
            "reading",
            allow(["s3:GetObject*", "s3:ListBucket*"], f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"),
        ),
    },
)
