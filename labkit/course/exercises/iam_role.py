"""Notebook 02: the trust policy decides who may become the role."""

from labkit import documents
from labkit.course.exercises.asking import admits, newcomers, only_cart, refuses
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.workspace import Workspace


def _role_for_the_wrong_namespace(place: Workspace) -> None:
    _accounts(place, "till")
    elsewhere = place.parameters.model_copy(update={"namespace": "default"})
    policy = documents.trust_policy(elsewhere, place.provider_arn)
    make_role(place, policy)


def _role_for_cart_alone(place: Workspace) -> None:
    _accounts(place, "till", "guest")
    make_role(place)


def _accounts(place: Workspace, *others: str) -> None:
    ensure_account(place)
    for name in others:
        make_account(place, name)


def _cart_and_till(place: Workspace) -> list[Comparison]:
    both = ("cart", "till")
    return [*(admits(place, name) for name in both), refuses(place, "guest"), *newcomers(place, *both)]


EXERCISES = (
    Exercise("02-a", _role_for_the_wrong_namespace, only_cart),
    Exercise("02-b", _role_for_cart_alone, _cart_and_till),
)
