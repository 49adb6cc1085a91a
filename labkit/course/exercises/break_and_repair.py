"""Notebook 09: each exercise draws a random fault. The learner sees only the fault's symptom."""

import random
from collections.abc import Sequence

from labkit import documents, steps
from labkit.course import faults
from labkit.course.exercises.asking import caller, injected, only_cart, refuses
from labkit.course.exercises.exercise import Exercise, make_account
from labkit.course.faults import live
from labkit.doctor import Comparison
from labkit.workspace import Workspace

# With each of these, STS answers: Not authorized to perform sts:AssumeRoleWithWebIdentity.
REFUSED = (
    "trust-policy-names-another-service-account",
    "trust-policy-names-another-namespace",
    "service-account-renamed-by-a-chart",
    "wildcard-is-compared-letter-by-letter",
    "condition-keys-of-another-cluster",
    "trust-policy-allows-another-action",
    "trust-policy-wants-an-endpoint-for-audience",
    "trust-policy-denies",
)
# With each of these, a pod acts as its node.
WITHOUT_ROLE = (
    "annotation-key-misspelt",
    "annotation-of-kube2iam",
    "annotation-left-out",
    "annotation-empty",
    "annotation-on-the-pod",
)


def _role_that_refuses(place: Workspace) -> None:
    _made(place)
    make_account(place, "till")
    _break(place, REFUSED)


def _pod_that_is_its_node(place: Workspace) -> None:
    _made(place)
    _break(place, WITHOUT_ROLE, documents.pod(place.parameters, place.image))


def _made(place: Workspace) -> None:
    for _ in steps.ready_through(place, "service_account"):
        pass


def _break(place: Workspace, names: Sequence[str], *pods: documents.Pod) -> None:
    fault = faults.named(random.choice(names))  # noqa: S311 - nothing is kept secret by it
    now = live.read(place)
    wanted = now.model_copy(deep=True)
    for pod in pods:
        wanted.add(dict(pod))
    live.make(place, now, fault.put_into(wanted))


def _pods_of_cart_alone(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("AWS knows my-pod as", f"assumed-role/{place.parameters.role_name}", caller(place)),
        Comparison("a new pod of default", "no role", injected(place, "default")),
        refuses(place, "default"),
    ]


EXERCISES = (
    Exercise("09-a", _role_that_refuses, only_cart),
    Exercise("09-b", _pod_that_is_its_node, _pods_of_cart_alone),
)
