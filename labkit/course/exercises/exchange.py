"""Notebook 06: the life of a token and of a session."""

from labkit.connection import core_api
from labkit.course.exercises.asking import ADMITTED, HOUR, exchange, injected, newcomers, refused, refuses, token_life
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.workspace import Workspace

DAY = 24 * HOUR
LIFE = "eks.amazonaws.com/token-expiration"


def _life_that_is_not_a_number(place: Workspace) -> None:
    _role_and_till(place)
    metadata = {"metadata": {"annotations": {LIFE: "1h"}}}
    core_api(place.kubernetes).patch_namespaced_service_account("cart", place.parameters.namespace, metadata)


def _role_and_till(place: Workspace) -> None:
    ensure_account(place)
    make_role(place)
    make_account(place, "till")


def _tokens_of_an_hour_for_cart_alone(place: Workspace) -> list[Comparison]:
    cart, till, role = token_life(place), token_life(place, "till"), injected(place)
    return [
        Comparison("token lifetime in a new pod of cart", f"at most {HOUR} s", f"{cart} s", 0 < cart <= HOUR),
        Comparison("token lifetime in a new pod of till", f"{DAY} s", f"{till} s"),
        # Show this row only if the pod gets another role.
        *([Comparison("a new pod of cart", place.role_arn, role)] if role != place.role_arn else []),
    ]


def _sessions_of_four_hours(place: Workspace) -> list[Comparison]:
    four, longer, twelve = (exchange(place, seconds=seconds) for seconds in (4 * HOUR, 4 * HOUR + 1, 12 * HOUR))
    return [
        Comparison("cart, a session of 4 hours", ADMITTED, four),
        # Show this row only if the limit is above 4 hours.
        *([Comparison("cart, a session of 4 hours and 1 second", "refused", longer)] if longer == ADMITTED else []),
        refused("cart, a session of 12 hours", "ValidationError", twelve),
        refuses(place, "till"),
        *newcomers(place),
    ]


EXERCISES = (
    Exercise("06-a", _life_that_is_not_a_number, _tokens_of_an_hour_for_cart_alone),
    Exercise("06-b", _role_and_till, _sessions_of_four_hours),
)
