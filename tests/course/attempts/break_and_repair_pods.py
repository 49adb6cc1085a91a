"""Tries at the exercises of notebook 10. Each has the same result for every fault that can be drawn."""

import json
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.documents import SLEEP
from labkit.steps.iam_role import delete as delete_role
from tests.course.attempts import KEY, Attempts, admit_account, annotate, role_arn
from tests.course.attempts.break_and_repair_sts import policy, several

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def name_role(lab: Lab, name: str, account: str = "cart") -> None:
    annotate(lab, name, account, **{KEY: role_arn(lab, name)})


def start(lab: Lab, name: str, account: str = "cart") -> None:
    lab.delete_pod("my-pod", name)
    container = {"name": "aws", "image": lab.image, "command": SLEEP}
    spec = {"serviceAccountName": account, "containers": [container]}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, {"metadata": {"name": "my-pod"}, "spec": spec})
    lab.wait_until_running("my-pod", name)


@wrong("10-a", "AWS knows my-pod as found Unable to locate credentials")
def the_annotation_without_a_new_pod(lab, name):
    name_role(lab, name)


@wrong("10-a", "a new pod of cart found no role")
def a_new_pod_without_the_annotation(lab, name):
    start(lab, name)


@wrong("10-a", "a new pod of default found arn:aws:iam::")
def the_neighbour_annotated_as_well(lab, name):
    name_role(lab, name)
    name_role(lab, name, "default")
    start(lab, name)


@right("10-a")
def the_annotation_and_a_new_pod(lab, name):
    name_role(lab, name)
    start(lab, name)


@right("10-a")
def the_service_account_made_again(lab, name):
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account("cart", name)
    metadata = {"name": "cart", "annotations": {KEY: role_arn(lab, name)}}
    core.create_namespaced_service_account(name, {"metadata": metadata})
    start(lab, name)


def made_again(lab: Lab, name: str) -> None:
    delete_role(lab.aws.client("iam"), name)
    document = policy(lab, "StringEquals", f"system:serviceaccount:{name}:cart")
    lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)


NODE = "a new pod of cart found"
ATTEMPTS.more(
    "10-a",
    wrong={
        "nothing": (NODE, lambda lab, name: None),
        "the role's name": (
            "a new pod of cart found exercise-10-a",
            lambda lab, name: (annotate(lab, name, "cart", **{KEY: name}), start(lab, name)),
        ),
        "the pod first": (
            "AWS knows my-pod as found Unable to locate credentials",
            lambda lab, name: (start(lab, name), name_role(lab, name)),
        ),
        "the pod as default": (
            "AWS knows my-pod as found Unable to locate credentials",
            lambda lab, name: (name_role(lab, name), start(lab, name, "default")),
        ),
        "no pod": (
            "AWS knows my-pod as found",
            lambda lab, name: (name_role(lab, name), lab.delete_pod("my-pod", name)),
        ),
        "another role": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: (annotate(lab, name, "cart", **{KEY: f"{role_arn(lab, name)}-2"}), start(lab, name)),
        ),
        "default admitted as well": (
            "exercise-10-a:default found admitted",
            lambda lab, name: (
                name_role(lab, name),
                start(lab, name),
                several(lab, name, "StringEquals", f"{name}:cart", f"{name}:default"),
            ),
        ),
    },
    right={
        "the pod twice": lambda lab, name: (start(lab, name), name_role(lab, name), start(lab, name)),
        "with the life of the token": lambda lab, name: (
            annotate(lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/token-expiration": "3600"}),
            start(lab, name),
        ),
        "the role made again as well": lambda lab, name: (
            made_again(lab, name),
            name_role(lab, name),
            start(lab, name),
        ),
    },
)


READS = ["s3:ListBucket", "s3:GetObject"]
FULL = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
READING = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
NO_CREDENTIALS = "AWS knows my-pod as found Unable to locate credentials"
TILL_LISTS, CART_LISTS = "till lists the bucket found allowed", "cart lists the bucket found AccessDenied: User"


def deny(lab: Lab, name: str, principal: Any, action: Any = READS, **more: Any) -> None:
    """Let the bucket's policy deny these actions to this principal, and do nothing else."""
    statement = {"Effect": "Deny", "Principal": principal, "Action": action, **more}
    statement["Resource"] = [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    lab.aws.client("s3").put_bucket_policy(Bucket=name, Policy=document)


def of_till(lab: Lab, name: str) -> dict[str, str]:
    return {"AWS": lab.connection.role_arn(f"{name}-till")}


def without_policy(lab: Lab, name: str) -> None:
    lab.aws.client("s3").delete_bucket_policy(Bucket=name)


def both(lab: Lab, name: str) -> None:
    """Let the bucket's policy deny till alone, and create the pod again."""
    deny(lab, name, of_till(lab, name))
    start(lab, name)


@wrong("10-b", NO_CREDENTIALS)
def the_bucket_s_policy_alone(lab, name):
    deny(lab, name, of_till(lab, name))


@wrong("10-b", CART_LISTS)
def the_pod_alone(lab, name):
    start(lab, name)


@wrong("10-b", TILL_LISTS)
def the_bucket_s_policy_deleted(lab, name):
    without_policy(lab, name)
    start(lab, name)


@right("10-b")
def the_policy_and_the_pod(lab, name):
    both(lab, name)


@right("10-b")
def the_pod_first(lab, name):
    start(lab, name)
    deny(lab, name, of_till(lab, name))


ATTEMPTS.more(
    "10-b",
    wrong={
        "nothing": (NO_CREDENTIALS, lambda lab, name: None),
        "more permissions": (
            CART_LISTS,
            lambda lab, name: (
                start(lab, name),
                lab.aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=FULL),
            ),
        ),
        "all of S3": (
            "cart deletes an object found allowed",
            lambda lab, name: (
                both(lab, name),
                lab.aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=FULL),
            ),
        ),
        "everybody denied": (CART_LISTS, lambda lab, name: (deny(lab, name, "*"), start(lab, name))),
        "cart denied in the place of till": (
            TILL_LISTS,
            lambda lab, name: (deny(lab, name, {"AWS": role_arn(lab, name)}), start(lab, name)),
        ),
        "till may read": (
            "till reads an object found allowed",
            lambda lab, name: (deny(lab, name, of_till(lab, name), "s3:ListBucket"), start(lab, name)),
        ),
        "cart may not read": (
            "cart reads an object found AccessDenied",
            lambda lab, name: (
                deny(lab, name, {"AWS": [of_till(lab, name)["AWS"], role_arn(lab, name)]}, "s3:GetObject"),
                start(lab, name),
            ),
        ),
        "the role of till deleted": (
            "till asks for its own role found AccessDenied",
            lambda lab, name: (
                without_policy(lab, name),
                delete_role(lab.aws.client("iam"), f"{name}-till"),
                start(lab, name),
            ),
        ),
        "the pod as till": (
            "AWS knows my-pod as found assumed-role/exercise-10-b-till",
            lambda lab, name: (deny(lab, name, of_till(lab, name)), start(lab, name, "till")),
        ),
        "the account as well": (
            "someone without a token, for exercise-10-b found admitted",
            lambda lab, name: (both(lab, name), admit_account(lab, name)),
        ),
    },
    right={
        "till without permissions, and no policy": lambda lab, name: (
            without_policy(lab, name),
            lab.aws.client("iam").detach_role_policy(RoleName=f"{name}-till", PolicyArn=READING),
            start(lab, name),
        ),
        "every action denied to till": lambda lab, name: (
            deny(lab, name, of_till(lab, name), "s3:*"),
            start(lab, name),
        ),
        "everybody but cart denied": lambda lab, name: (
            deny(
                lab,
                name,
                "*",
                Condition={"ArnNotEquals": {"aws:PrincipalArn": role_arn(lab, name)}},
            ),
            start(lab, name),
        ),
    },
)
