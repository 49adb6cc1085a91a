"""Notebook 14: a template gave every role the same trust policy; later, someone changed one run by hand."""

import random

from labkit import documents
from labkit.course.exercises.asking import ADMITTED, exchange, first_admitted, injected, named_by, without_a_token
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps import oidc_provider
from labkit.workspace import Workspace

ROWS = ("cart", "till", "reports")


def _rows_that_all_admit_cart(place: Workspace) -> None:
    _make(place, {name: ("cart", name) for name in ROWS})


def _rows_of_which_one_has_drifted(place: Workspace) -> None:
    drifted = random.choice(ROWS)  # noqa: S311 - nothing is kept secret by it
    _make(place, {name: (name, _next(name) if name == drifted else name) for name in ROWS})


def _make(place: Workspace, rows: dict[str, tuple[str, str]]) -> None:
    """Make the rows, each with the name that its role admits, and the name whose role its annotation has."""
    oidc_provider.ensure(place)
    for name, (admitted, annotated) in rows.items():
        parameters = place.parameters.model_copy(update={"service_account": admitted})
        make_role(place, documents.trust_policy(parameters, place.provider_arn), name=_role(place, name))
        make_account(place, name, {documents.ROLE_ANNOTATION: _arn(place, annotated)})


def _each_row_has_its_role(place: Workspace) -> list[Comparison]:
    pods = [Comparison(f"a new pod of {name}", _arn(place, name), injected(place, name)) for name in ROWS]
    own = [Comparison(f"{name} asks for its role", ADMITTED, _asks(place, name, name)) for name in ROWS]
    others = [(name, other, _asks(place, name, other)) for name in ROWS for other in ROWS if name != other]
    wrong = [Comparison(f"{name} asks for the role of {other}", "refused", said) for name, other, said in others
             if said == ADMITTED]  # fmt: skip
    strangers = (row for name in ROWS for row in (*_strangers(place, name), *without_a_token(place, _arn(place, name))))
    return [*pods, *own, *wrong, *strangers]


def _strangers(place: Workspace, name: str) -> list[Comparison]:
    """Return a row for the first service account beside the rows' own that a role admits."""
    arn, namespace = _arn(place, name), place.parameters.namespace
    named = [each for each in named_by(place, arn) if each not in {(row, namespace) for row in ROWS}]
    admitted = first_admitted(place, [*named, ("default", namespace), ("stranger", namespace)], arn)
    return [Comparison(f"{each.what}, for the role of {name}", each.expected, each.found) for each in admitted]


def _asks(place: Workspace, name: str, other: str) -> str:
    return exchange(place, name, role_arn=_arn(place, other))


def _next(name: str) -> str:
    return ROWS[ROWS.index(name) - 1]


def _role(place: Workspace, name: str) -> str:
    return f"{place.parameters.role_name}-{name}"


def _arn(place: Workspace, name: str) -> str:
    return place.connection.role_arn(_role(place, name))


EXERCISES = (
    Exercise("14-a", _rows_that_all_admit_cart, _each_row_has_its_role),
    Exercise("14-b", _rows_of_which_one_has_drifted, _each_row_has_its_role),
)
