"""Notebook 01: an account trusts the issuers that are registered in it."""

from labkit.course.exercises.asking import admits, audiences, exchange, refused
from labkit.course.exercises.exercise import Exercise, make_role
from labkit.doctor import Comparison
from labkit.documents import AUDIENCE
from labkit.steps import service_account
from labkit.workspace import Workspace


def _role_that_trusts_the_new_cluster(place: Workspace) -> None:
    service_account.ensure(place)
    make_role(place)


def _provider_for_another_audience(place: Workspace) -> None:
    _role_that_trusts_the_new_cluster(place)
    audiences = ["https://kubernetes.default.svc"]
    iam = place.aws.client("iam")
    iam.create_open_id_connect_provider(Url=place.issuer, ClientIDList=audiences, Tags=place.tags)


def _the_token_for_aws(place: Workspace) -> list[Comparison]:
    return [admits(place), _refused_as_token(place, "vault"), *_listed_too_many(place, "vault")]


def _the_token_for_aws_alone(place: Workspace) -> list[Comparison]:
    default = "https://kubernetes.default.svc"
    tried = [_refused_as_token(place, audience) for audience in ("vault", default)]
    return [admits(place), *tried, *_listed_too_many(place, "vault", default)]


def _listed_too_many(place: Workspace, *tried: str) -> list[Comparison]:
    """Return a row, marked as wrong, for each audience that the provider lists beside STS, but for those in `tried`."""
    return [_refused_as_token(place, each) for each in audiences(place) if each not in (AUDIENCE, *tried)]


def _refused_as_token(place: Workspace, audience: str) -> Comparison:
    return refused(f"a token for {audience}", "InvalidIdentityToken", exchange(place, audience=audience))


EXERCISES = (
    Exercise("01-a", _role_that_trusts_the_new_cluster, _the_token_for_aws, own_cluster=True),
    Exercise("01-b", _provider_for_another_audience, _the_token_for_aws_alone, own_cluster=True),
)
