"""Notebook 12: EKS Pod Identity gives a pod its role."""

import json

from labkit.connection import AGENT_URL
from labkit.course.exercises.asking import agent, pod_identity, without_a_token
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.doctor import Comparison
from labkit.policy.written import PolicyDocument
from labkit.workspace import Workspace

ASSUME, TAG = "sts:AssumeRole", "sts:TagSession"


def _association_of_another_name(place: Workspace) -> None:
    _role_and_accounts(place)
    _associate(place, "chart")


def _trust_policy_without_tags(place: Workspace) -> None:
    _role_and_accounts(place)
    _associate(place, "cart", "till")
    # EKS would refuse an association with a role that doesn't allow both actions.
    name = place.parameters.role_name
    place.aws.client("iam").update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(_trust_policy(ASSUME)))


def _trust_policy(actions: str | list[str]) -> PolicyDocument:
    principal: dict[str, str | list[str]] = {"Service": "pods.eks.amazonaws.com"}
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": actions}]}


def _role_and_accounts(place: Workspace) -> None:
    make_role(place, _trust_policy([ASSUME, TAG]))
    for name in ("cart", "till"):
        make_account(place, name, {})


def _associate(place: Workspace, *accounts: str) -> None:
    whose = {"clusterName": place.parameters.cluster, "namespace": place.parameters.namespace}
    for name in accounts:
        place.aws.client("eks").create_pod_identity_association(**whose, serviceAccount=name, roleArn=place.role_arn)


def _cart_is_the_role(place: Workspace) -> Comparison:
    return Comparison("the agent gives cart", f"assumed-role/{place.parameters.role_name}", pod_identity(place, "cart"))


def _till_is_refused(place: Workspace, code: str = "") -> Comparison:
    answer = pod_identity(place, "till")
    return Comparison(
        "the agent gives till", f"refused: {code}" if code else "refused", answer, "Exception: " in answer
    )


def _cart_alone_is_associated(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart asks", AGENT_URL, agent(place, "cart")),
        _cart_is_the_role(place),
        Comparison("a new pod of till asks", "no agent", agent(place, "till")),
        _till_is_refused(place, "ResourceNotFoundException"),
        Comparison("associated service accounts", "cart", ", ".join(_associated(place))),
        *without_a_token(place),
    ]


def _associated(place: Workspace) -> list[str]:
    whose = {"clusterName": place.parameters.cluster, "namespace": place.parameters.namespace}
    associations = place.aws.client("eks").list_pod_identity_associations(**whose)["associations"]
    return sorted(each["serviceAccount"] for each in associations)


def _cart_alone_is_trusted(place: Workspace) -> list[Comparison]:
    return [_cart_is_the_role(place), _till_is_refused(place), *without_a_token(place)]


EXERCISES = (
    Exercise("12-a", _association_of_another_name, _cart_alone_is_associated),
    Exercise("12-b", _trust_policy_without_tags, _cart_alone_is_trusted),
)
