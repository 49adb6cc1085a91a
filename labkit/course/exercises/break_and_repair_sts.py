"""Notebook 09: STS refuses pods. One fault is drawn. In the incident, there are two, and the first hides the second."""

from labkit import documents
from labkit.course.exercises import drawn
from labkit.course.exercises.asking import audiences, only_cart
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.doctor import Comparison
from labkit.documents import AUDIENCE
from labkit.steps import service_account
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


def _incident(place: Workspace) -> None:
    service_account.ensure(place)
    make_account(place, "till")
    endpoint = f"sts.{place.parameters.region}.amazonaws.com"
    iam = place.aws.client("iam")
    iam.create_open_id_connect_provider(Url=place.issuer, ClientIDList=[endpoint], Tags=place.tags)
    staging = place.parameters.model_copy(update={"namespace": "staging"})
    make_role(place, documents.trust_policy(staging, place.provider_arn))


def _cart_opens_its_baskets(place: Workspace) -> list[Comparison]:
    listed = Comparison("the provider's audiences", AUDIENCE, ", ".join(sorted(audiences(place))) or "no provider")
    return [*only_cart(place), listed]


EXERCISES = (
    Exercise("09-a", _role_that_refuses, only_cart),
    Exercise("09-b", _incident, _cart_opens_its_baskets, own_cluster=True),
)
