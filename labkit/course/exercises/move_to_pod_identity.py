"""Notebook 13: a service account moves from IRSA to Pod Identity, and no pod is without its role on the way."""

import json
from functools import partial

from labkit import documents
from labkit.connection import AGENT_URL, core_api
from labkit.course.exercises.asking import ADMITTED, agent, exchange, newcomers, pod_identity, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps.ownership import existing
from labkit.workspace import Workspace


def _cart_with_irsa(place: Workspace) -> None:
    make_role(place)
    make_account(place, "cart")
    make_account(place, "till", {})


def _cart_with_both(place: Workspace) -> None:
    _cart_with_irsa(place)
    iam, name = place.aws.client("iam"), place.parameters.role_name
    policy = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    for_pods = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
    policy["Statement"].append({**for_pods, "Action": ["sts:AssumeRole", "sts:TagSession"]})
    iam.update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(policy))
    whose = {"clusterName": place.parameters.cluster, "namespace": place.parameters.namespace}
    place.aws.client("eks").create_pod_identity_association(**whose, serviceAccount="cart", roleArn=place.role_arn)


def _new_pods(place: Workspace) -> list[Comparison]:
    till = pod_identity(place, "till")
    return [
        Comparison("a new pod of cart asks", AGENT_URL, agent(place)),
        Comparison("the agent gives cart", f"assumed-role/{place.parameters.role_name}", pod_identity(place)),
        Comparison("the agent gives till", "refused", till, "Exception: " in till),
    ]


def _both_ways(place: Workspace) -> list[Comparison]:
    return [
        Comparison("STS, for a running pod of cart", ADMITTED, exchange(place)),
        *_new_pods(place),
        refuses(place, "till"),
        *newcomers(place),
    ]


def _pod_identity_alone(place: Workspace) -> list[Comparison]:
    read = core_api(place.kubernetes).read_namespaced_service_account
    account = existing(partial(read, "cart", place.parameters.namespace))
    annotations = (account and account.metadata.annotations) or {}
    return [
        *_new_pods(place),
        Comparison("cart's annotation", "none", annotations.get(documents.ROLE_ANNOTATION, "none")),
        refuses(place),
        refuses(place, "till"),
        *newcomers(place),
    ]


EXERCISES = (
    Exercise("13-a", _cart_with_irsa, _both_ways),
    Exercise("13-b", _cart_with_both, _pod_identity_alone),
)
