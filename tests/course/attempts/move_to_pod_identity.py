"""Tries at the exercises of notebook 13."""

from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, annotate, trust_policy, update_trust
from tests.course.attempts.pod_identity import BOTH, associate, end

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
Statement = dict[str, Any]


def for_pods(**condition: dict[str, str]) -> Statement:
    statement = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": BOTH}
    return statement | ({"Condition": condition} if condition else {})


def for_irsa(lab: Lab, name: str) -> Statement:
    (found,) = [each for each in trust_policy(lab, name)["Statement"] if "Federated" in each["Principal"]]
    return dict(found)


def trust(lab: Lab, name: str, *statements: Statement) -> None:
    update_trust(lab, name, {"Version": "2012-10-17", "Statement": [*statements]})


def add(lab: Lab, name: str, **condition: dict[str, str]) -> None:
    trust(lab, name, for_irsa(lab, name), for_pods(**condition))


def forget(lab: Lab, name: str) -> None:
    annotate(lab, name, "cart", **{KEY: None})


def pods_alone(lab: Lab, name: str, **condition: dict[str, str]) -> None:
    trust(lab, name, for_pods(**condition))


def wide(lab: Lab, name: str) -> Statement:
    """IRSA's statement for the whole namespace."""
    statement = for_irsa(lab, name)
    issuer = lab.issuer.removeprefix("https://")
    pattern = {f"{issuer}:sub": f"system:serviceaccount:{name}:*"}
    return statement | {"Condition": {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com"}, "StringLike": pattern}}


CART = {"StringEquals": {"aws:RequestTag/kubernetes-service-account": "cart"}}
NO_AGENT, RUNNING = "a new pod of cart asks found no agent", "STS, for a running pod of cart found AccessDenied"
TILL = "the agent gives till found assumed-role/"


@wrong("13-a", NO_AGENT)
def the_statement_without_an_association(lab, name):
    add(lab, name)


@wrong("13-a", RUNNING)
def pod_identity_in_place_of_irsa(lab, name):
    pods_alone(lab, name)
    associate(lab, name, "cart")


@right("13-a")
def both_statements_and_the_association(lab, name):
    add(lab, name)
    associate(lab, name, "cart")


@right("13-a")
def a_condition_on_the_tag(lab, name):
    add(lab, name, **CART)
    associate(lab, name, "cart")


ATTEMPTS.more(
    "13-a",
    wrong={
        "nothing": (NO_AGENT, lambda lab, name: None),
        "till in place of cart": (TILL, lambda lab, name: (add(lab, name), associate(lab, name, "till"))),
        "till as well": (
            TILL,
            lambda lab, name: (add(lab, name), associate(lab, name, "cart"), associate(lab, name, "till")),
        ),
        "the association deleted again": (
            NO_AGENT,
            lambda lab, name: (add(lab, name), associate(lab, name, "cart"), end(lab, name, "cart")),
        ),
        "IRSA's statement taken away afterwards": (
            RUNNING,
            lambda lab, name: (add(lab, name), associate(lab, name, "cart"), pods_alone(lab, name)),
        ),
        "tags forgotten afterwards": (
            "the agent gives cart found AccessDeniedException",
            lambda lab, name: (
                add(lab, name),
                associate(lab, name, "cart"),
                trust(lab, name, for_irsa(lab, name), {**for_pods(), "Action": "sts:AssumeRole"}),
            ),
        ),
        "the tag of till": (
            "the agent gives cart found AccessDeniedException",
            lambda lab, name: (
                add(lab, name),
                associate(lab, name, "cart"),
                add(lab, name, StringEquals={"aws:RequestTag/kubernetes-service-account": "till"}),
            ),
        ),
        "the whole namespace by IRSA": (
            "exercise-13-a:till found admitted",
            lambda lab, name: (trust(lab, name, wide(lab, name), for_pods()), associate(lab, name, "cart")),
        ),
    },
    right={
        "the other order of the statements": lambda lab, name: (
            trust(lab, name, for_pods(), for_irsa(lab, name)),
            associate(lab, name, "cart"),
        ),
        "an association without tags": lambda lab, name: (
            add(lab, name),
            associate(lab, name, "cart", disableSessionTags=True),
        ),
        "the annotation taken away, too": lambda lab, name: (
            add(lab, name),
            associate(lab, name, "cart"),
            forget(lab, name),
        ),
    },
)


@wrong("13-b", "cart's annotation found arn:aws:iam::")
def the_trust_policy_alone(lab, name):
    pods_alone(lab, name)


@wrong("13-b", "exercise-13-b:cart found admitted")
def the_annotation_alone(lab, name):
    forget(lab, name)


@right("13-b")
def the_annotation_and_the_statement(lab, name):
    forget(lab, name)
    pods_alone(lab, name)


@right("13-b")
def the_statement_first_and_a_condition(lab, name):
    pods_alone(lab, name, **CART)
    forget(lab, name)


ATTEMPTS.more(
    "13-b",
    wrong={
        "nothing": ("cart's annotation found arn:aws:iam::", lambda lab, name: None),
        "the association, too": (
            NO_AGENT,
            lambda lab, name: (forget(lab, name), pods_alone(lab, name), end(lab, name, "cart")),
        ),
        "the statement for EKS": (
            "the agent gives cart found AccessDeniedException",
            lambda lab, name: (forget(lab, name), trust(lab, name, for_irsa(lab, name))),
        ),
        "an empty annotation": (
            "cart's annotation found",
            lambda lab, name: (annotate(lab, name, "cart", **{KEY: ""}), pods_alone(lab, name)),
        ),
        "till associated": (
            TILL,
            lambda lab, name: (forget(lab, name), pods_alone(lab, name), associate(lab, name, "till")),
        ),
        "IRSA for the whole namespace": (
            "exercise-13-b:cart found admitted",
            lambda lab, name: (forget(lab, name), trust(lab, name, wide(lab, name), for_pods())),
        ),
        "sts:TagSession as well": (
            "the agent gives cart found AccessDeniedException",
            lambda lab, name: (forget(lab, name), trust(lab, name, {**for_pods(), "Action": "sts:AssumeRole"})),
        ),
        "the service account of another name": (
            "cart's annotation found arn:aws:iam::",
            lambda lab, name: (annotate(lab, name, "till", **{KEY: None}), pods_alone(lab, name)),
        ),
    },
    right={
        "another association": lambda lab, name: (
            end(lab, name, "cart"),
            pods_alone(lab, name),
            associate(lab, name, "cart"),
            forget(lab, name),
        ),
        "the service account made again": lambda lab, name: (
            CoreV1Api(lab.kubernetes).delete_namespaced_service_account("cart", name),
            CoreV1Api(lab.kubernetes).create_namespaced_service_account(name, {"metadata": {"name": "cart"}}),
            pods_alone(lab, name),
        ),
        "a Deny of the token's call": lambda lab, name: (
            forget(lab, name),
            trust(lab, name, for_irsa(lab, name), for_pods(), for_irsa(lab, name) | {"Effect": "Deny"}),
        ),
    },
)
