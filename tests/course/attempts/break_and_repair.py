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
