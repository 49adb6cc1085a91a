"""Tries at the exercises of notebook 00."""

import json
from base64 import b64decode

from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.course.exercises.the_problem import TOO_MUCH
from tests.course.attempts import Attempts, put_policy, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
ROLE = "exercise-00-a-node-role"


def detach(lab: Lab, *policies: str) -> None:
    for policy in policies:
        lab.aws.client("iam").detach_role_policy(RoleName=ROLE, PolicyArn=policy)


def attached(lab: Lab) -> list[str]:
    listed = lab.aws.client("iam").list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]
    return [policy["PolicyArn"] for policy in listed]


def deny(lab: Lab, action: str | list[str]) -> None:
    lab.aws.client("iam").put_role_policy(RoleName=ROLE, PolicyName="deny", PolicyDocument=denial(action))


def denial(action: str | list[str]) -> str:
    statement = {"Effect": "Deny", "Action": action, "Resource": "*"}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def key(lab: Lab, name: str, secret: str) -> dict[str, str]:
    held = CoreV1Api(lab.kubernetes).read_namespaced_secret(secret, name).data["AWS_ACCESS_KEY_ID"]
    return {"UserName": name, "AccessKeyId": b64decode(held).decode()}


def delete_secret(lab: Lab, name: str, secret: str) -> None:
    CoreV1Api(lab.kubernetes).delete_namespaced_secret(secret, name)


@wrong("00-a", "the node itself: ecr:GetAuthorizationToken found implicitDeny")
def every_policy_detached(lab, name):
    detach(lab, *attached(lab))


@wrong("00-a", "a pod of the node: dynamodb:ListTables found allowed")
def the_policy_for_images_detached(lab, name):
    detach(lab, *(policy for policy in attached(lab) if "ContainerRegistry" in policy))


@wrong("00-a", "a pod of the node: dynamodb:ListTables found allowed")
def one_action_denied_that_is_not_the_one(lab, name):
    deny(lab, "dynamodb:Scan")


@wrong("00-a", "a pod of the node: dynamodb:GetItem found allowed")
def only_the_listing_denied(lab, name):
    deny(lab, "dynamodb:ListTables")


@wrong("00-a", "the node itself: ec2:DescribeInstances found implicitDeny")
def all_but_the_images_detached(lab, name):
    detach(lab, *(policy for policy in attached(lab) if "ContainerRegistry" not in policy))


@wrong("00-a", "the node itself: ec2:AssignPrivateIpAddresses found implicitDeny")
def the_policy_for_the_network_detached_as_well(lab, name):
    detach(lab, *(policy for policy in attached(lab) if policy == TOO_MUCH or "CNI" in policy))


@right("00-a")
def the_policy_detached(lab, name):
    detach(lab, TOO_MUCH)


@right("00-a")
def denied_explicitly(lab, name):
    deny(lab, "dynamodb:*")


@wrong("00-b", "AWS's answer to the key in use found InvalidClientTokenId")
def both_keys_deleted(lab, name):
    for secret in ("leaked", "in-use"):
        lab.aws.client("iam").delete_access_key(**key(lab, name, secret))


@wrong("00-b", "AWS's answer to the leaked key found arn:aws:iam::")
def the_wrong_key(lab, name):
    lab.aws.client("iam").update_access_key(**key(lab, name, "in-use"), Status="Inactive")


@wrong("00-b", "AWS's answer to the leaked key found arn:aws:iam::")
def only_the_permissions_taken_away(lab, name):
    lab.aws.client("iam").put_user_policy(UserName=name, PolicyName="deny", PolicyDocument=denial("*"))


@wrong("00-b", "AWS's answer to the leaked key found Active in IAM")
def only_the_secret_deleted(lab, name):
    delete_secret(lab, name, "leaked")


@wrong("00-b", "AWS's answer to the leaked key found Active in IAM")
def other_letters_in_the_secret(lab, name):
    other = {"AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE"}
    CoreV1Api(lab.kubernetes).patch_namespaced_secret("leaked", name, {"stringData": other})


@wrong("00-b", "AWS's answer to the key in use found no key in the Secret in-use")
def both_secrets_deleted(lab, name):
    lab.aws.client("iam").delete_access_key(**key(lab, name, "leaked"))
    for secret in ("leaked", "in-use"):
        delete_secret(lab, name, secret)


@right("00-b")
def the_key_and_the_secret_deleted(lab, name):
    lab.aws.client("iam").delete_access_key(**key(lab, name, "leaked"))
    delete_secret(lab, name, "leaked")


@right("00-b")
def inactive_and_the_secret_deleted(lab, name):
    lab.aws.client("iam").update_access_key(**key(lab, name, "leaked"), Status="Inactive")
    delete_secret(lab, name, "leaked")


@right("00-b")
def inactive(lab, name):
    lab.aws.client("iam").update_access_key(**key(lab, name, "leaked"), Status="Inactive")


@right("00-b")
def deleted(lab, name):
    lab.aws.client("iam").delete_access_key(**key(lab, name, "leaked"))


def iam(lab: Lab):
    return lab.aws.client("iam")


def images(lab: Lab) -> str:
    return next(policy for policy in attached(lab) if "ContainerRegistry" in policy)


def update(lab: Lab, name: str, secret: str, status: str) -> None:
    iam(lab).update_access_key(**key(lab, name, secret), Status=status)


def close(lab: Lab) -> None:
    """Let the node's role admit nobody."""
    document = trust_policy(lab, ROLE)
    document["Statement"][0]["Effect"] = "Deny"
    update_trust(lab, ROLE, document)


ALL_TABLES = {"Effect": "Deny", "Action": "dynamodb:*", "Resource": "*"}
ADMINISTRATOR = "arn:aws:iam::aws:policy/AdministratorAccess"
READS_TABLES = "a pod of the node: dynamodb:ListTables found allowed"
LEAKED = "AWS's answer to the leaked key found arn:aws:iam::"
ATTEMPTS.more(
    "00-a",
    wrong={
        "nothing": (READS_TABLES, lambda lab, name: None),
        "replaced by more": (
            READS_TABLES,
            lambda lab, name: (
                detach(lab, TOO_MUCH),
                iam(lab).attach_role_policy(RoleName=ROLE, PolicyArn=ADMINISTRATOR),
            ),
        ),
        "every action denied": (
            "the node itself: ecr:GetAuthorizationToken found explicitDeny",
            lambda lab, name: deny(lab, "*"),
        ),
        "all denied but the reading in batches": (
            "a pod of the node: dynamodb:BatchGetItem found allowed",
            lambda lab, name: deny(
                lab, [f"dynamodb:{each}" for each in ("List*", "Describe*", "Get*", "Query", "Scan")]
            ),
        ),
        "denied only in other regions": (
            READS_TABLES,
            lambda lab, name: put_policy(
                lab, ROLE, "deny", ALL_TABLES | {"Condition": {"StringNotEquals": {"aws:RequestedRegion": "us-east-1"}}}
            ),
        ),
        "pulling an image denied as well": (
            "the node itself: ecr:BatchGetImage found explicitDeny",
            lambda lab, name: (detach(lab, TOO_MUCH), deny(lab, "ecr:BatchGetImage")),
        ),
        "describing the cluster denied as well": (
            "the node itself: eks:DescribeCluster found explicitDeny",
            lambda lab, name: (detach(lab, TOO_MUCH), deny(lab, "eks:*")),
        ),
        "the role closed to machines": (
            "the role trusts found nobody",
            lambda lab, name: (detach(lab, TOO_MUCH), close(lab)),
        ),
        "only the reading of items denied": (READS_TABLES, lambda lab, name: deny(lab, "dynamodb:GetItem")),
    },
    right={
        "denied, and detached": lambda lab, name: (deny(lab, "dynamodb:*"), detach(lab, TOO_MUCH)),
        "denied on every table and stream": lambda lab, name: put_policy(
            lab,
            ROLE,
            "deny",
            ALL_TABLES | {"Resource": "arn:aws:dynamodb:*:*:*"},
            ALL_TABLES | {"Action": ["dynamodb:List*", "dynamodb:Describe*"]},
        ),
        "all but the needed ones detached": lambda lab, name: detach(
            lab, *(each for each in attached(lab) if "DynamoDB" in each)
        ),
        "the policy for images replaced by a smaller one": lambda lab, name: (
            detach(lab, TOO_MUCH, images(lab)),
            iam(lab).attach_role_policy(
                RoleName=ROLE, PolicyArn="arn:aws:iam::aws:policy/AmazonEC2ContainerRegistryPullOnly"
            ),
        ),
    },
)
ATTEMPTS.more(
    "00-b",
    wrong={
        "nothing": (LEAKED, lambda lab, name: None),
        "inactive, and active again": (
            LEAKED,
            lambda lab, name: (update(lab, name, "leaked", "Inactive"), update(lab, name, "leaked", "Active")),
        ),
        "both inactive": (
            "AWS's answer to the key in use found InvalidClientTokenId",
            lambda lab, name: (update(lab, name, "leaked", "Inactive"), update(lab, name, "in-use", "Inactive")),
        ),
        "the Secret in use deleted": (
            "AWS's answer to the key in use found no key in the Secret in-use",
            lambda lab, name: (update(lab, name, "leaked", "Inactive"), delete_secret(lab, name, "in-use")),
        ),
    },
    right={
        "inactive, then deleted": lambda lab, name: (
            update(lab, name, "leaked", "Inactive"),
            iam(lab).delete_access_key(**key(lab, name, "leaked")),
        ),
    },
)
