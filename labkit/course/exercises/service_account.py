"""Notebook 03: a service account's annotation names its role."""

from labkit import documents
from labkit.course.exercises.asking import admits, injected, newcomers, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps import oidc_provider
from labkit.workspace import Workspace

MISSPELT = "eks.amazonaws.com/role_arn"


def _misspelt_annotation(place: Workspace) -> None:
    oidc_provider.ensure(place)
    make_role(place)
    make_account(place, "cart", {MISSPELT: place.role_arn})
    make_account(place, "till", {})


def _role_without_its_service_account(place: Workspace) -> None:
    oidc_provider.ensure(place)
    till = place.parameters.model_copy(update={"service_account": "till"})
    make_role(place, documents.trust_policy(till, place.provider_arn))
    make_account(place, "cart", {})


def a_new_pod_of_cart(place: Workspace) -> list[Comparison]:
    """Check that new pods of `cart`, and no others, get the role. Return rows with the lab's answers."""
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("a new pod of till", "no role", injected(place, "till")),
        admits(place),
        *_for_default(place),
        *newcomers(place),
    ]


def _a_new_pod_of_till(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of till", place.role_arn, injected(place, "till")),
        Comparison("a new pod of cart", "no role", injected(place)),
        admits(place, "till"),
        refuses(place),
        *_for_default(place),
        *newcomers(place, "till"),
    ]


def _for_default(place: Workspace) -> list[Comparison]:
    """Return a row, marked as wrong, if new pods of the service account `default` get a role as well."""
    role = injected(place, "default")
    return [Comparison("a new pod of default", "no role", role)] if role != "no role" else []


EXERCISES = (
    Exercise("03-a", _misspelt_annotation, a_new_pod_of_cart),
    Exercise("03-b", _role_without_its_service_account, _a_new_pod_of_till),
)
