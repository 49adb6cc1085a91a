"""Notebook 10: a random fault leaves a pod without its role. The learner sees only the fault's symptom."""

from labkit import documents
from labkit.course.exercises import drawn
from labkit.course.exercises.asking import caller, injected, refuses
from labkit.course.exercises.exercise import Exercise
from labkit.doctor import Comparison
from labkit.workspace import Workspace

# With each of these, a pod acts as its node.
WITHOUT_ROLE = (
    "annotation-key-misspelt",
    "annotation-of-kube2iam",
    "annotation-left-out",
    "annotation-empty",
    "annotation-on-the-pod",
)


def _pod_that_is_its_node(place: Workspace) -> None:
    drawn.ready(place)
    drawn.broken(place, WITHOUT_ROLE, documents.pod(place.parameters, place.image))


def _pods_of_cart_alone(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("AWS knows my-pod as", f"assumed-role/{place.parameters.role_name}", caller(place)),
        Comparison("a new pod of default", "no role", injected(place, "default")),
        refuses(place, "default"),
    ]


EXERCISES = (Exercise("10-a", _pod_that_is_its_node, _pods_of_cart_alone),)
