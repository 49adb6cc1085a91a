"""Notebook 09: STS refuses a pod because of a random fault. The learner sees only the fault's symptom."""

from labkit.course.exercises import drawn
from labkit.course.exercises.asking import only_cart
from labkit.course.exercises.exercise import Exercise, make_account
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


def _role_that_refuses(place: Workspace) -> None:
    drawn.ready(place)
    make_account(place, "till")
    drawn.broken(place, REFUSED)


EXERCISES = (Exercise("09-a", _role_that_refuses, only_cart),)
