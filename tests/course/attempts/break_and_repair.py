"""Tries at the exercises of notebook 09. Each has the same result for every fault that can be drawn."""

import json
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.documents import SLEEP
from labkit.steps.iam_role import delete as delete_role
from tests.course.attempts import KEY, Attempts, annotate, role_arn, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def policy(lab: Lab, operator: str, subject: str = "") -> str:
    issuer = lab.issuer.removeprefix("https://")
    conditions: dict[str, Any] = {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com"}}
    if subject:
        conditions.setdefault(operator, {})[f"{issuer}:sub"] = subject
    statement = {"Effect": "Allow", "Principal": {"Federated": lab.provider_arn}, "Condition": conditions}
    statement["Action"] = "sts:AssumeRoleWithWebIdentity"
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(lab: Lab, name: str, operator: str, subject: str = "") -> None:
    update_trust(lab, name, policy(lab, operator, subject))


@wrong("09-a", "exercise-09-a:cart found AccessDenied: Not authorized")
def more_permissions(lab, name):
    administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
    lab.aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=administrator)


@wrong("09-a", "exercise-09-a:till found admitted")
def the_whole_namespace(lab, name):
    trust(lab, name, "StringLike", f"system:serviceaccount:{name}:*")


@wrong("09-a", "default:default found admitted")
def no_subject(lab, name):
    trust(lab, name, "StringEquals")


@right("09-a")
def the_trust_policy_written_again(lab, name):
    trust(lab, name, "StringEquals", f"system:serviceaccount:{name}:cart")


@right("09-a")
def the_role_made_again(lab, name):
    iam = lab.aws.client("iam")
    delete_role(iam, name)
    document = policy(lab, "StringLike", f"system:serviceaccount:{name}:cart")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)


def name_role(lab: Lab, name: str, account: str = "cart") -> None:
    annotate(lab, name, account, **{KEY: role_arn(lab, name)})


def start(lab: Lab, name: str, account: str = "cart") -> None:
    lab.delete_pod("my-pod", name)
    container = {"name": "aws", "image": lab.image, "command": SLEEP}
    spec = {"serviceAccountName": account, "containers": [container]}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, {"metadata": {"name": "my-pod"}, "spec": spec})
    lab.wait_until_running("my-pod", name)


@wrong("09-b", "AWS knows my-pod as found Unable to locate credentials")
def the_annotation_without_a_new_pod(lab, name):
    name_role(lab, name)


@wrong("09-b", "a new pod of cart found no role")
def a_new_pod_without_the_annotation(lab, name):
    start(lab, name)


@wrong("09-b", "a new pod of default found arn:aws:iam::")
def the_neighbour_annotated_as_well(lab, name):
    name_role(lab, name)
    name_role(lab, name, "default")
    start(lab, name)


@right("09-b")
def the_annotation_and_a_new_pod(lab, name):
    name_role(lab, name)
    start(lab, name)


@right("09-b")
def the_service_account_made_again(lab, name):
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account("cart", name)
    metadata = {"name": "cart", "annotations": {KEY: role_arn(lab, name)}}
    core.create_namespaced_service_account(name, {"metadata": metadata})
    start(lab, name)


def several(lab: Lab, name: str, operator: str, *names: str) -> None:
    """Let the role admit these service accounts, compared with this operator."""
    document = json.loads(policy(lab, operator, "?"))
    wanted = [f"system:serviceaccount:{each}" for each in names]
    document["Statement"][0]["Condition"][operator][f"{lab.issuer.removeprefix('https://')}:sub"] = wanted
    update_trust(lab, name, document)


def made_again(lab: Lab, name: str) -> None:
    delete_role(lab.aws.client("iam"), name)
    document = policy(lab, "StringEquals", f"system:serviceaccount:{name}:cart")
    lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)


CART_REFUSED, JUST_NOW = "exercise-09-a:cart found AccessDenied: Not authorized", "created just now found admitted"
ATTEMPTS.more(
    "09-a",
    wrong={
        "nothing": (CART_REFUSED, lambda lab, name: None),
        "till in place of cart": (
            "exercise-09-a:till found admitted",
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:till"),
        ),
        "cart and a name that doesn't exist": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart", f"{name}:orders"),
        ),
        "cart in two namespaces": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart", "staging:cart"),
        ),
        "every name that begins with cart": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringLike", f"{name}:cart*"),
        ),
        "a pattern compared letter by letter": (
            CART_REFUSED,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:c*"),
        ),
        "the role deleted": (CART_REFUSED, lambda lab, name: delete_role(lab.aws.client("iam"), name)),
    },
    right={
        "a list of one": lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart"),
        "StringLike without a wildcard": lambda lab, name: several(lab, name, "StringLike", f"{name}:cart"),
        "too wide first": lambda lab, name: (
            several(lab, name, "StringLike", f"{name}:*"),
            several(lab, name, "StringEquals", f"{name}:cart"),
        ),
    },
)
NODE = "a new pod of cart found"
ATTEMPTS.more(
    "09-b",
    wrong={
        "nothing": (NODE, lambda lab, name: None),
        "the role's name": (
            "a new pod of cart found exercise-09-b",
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
            "exercise-09-b:default found admitted",
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
