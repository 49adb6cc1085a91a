"""Notebook 11: a pod of one account reads a bucket of another account."""

from uuid import uuid4

from labkit import documents
from labkit.course.exercises.asking import ALLOWED, admits, call, credentials, newcomers, refuses
from labkit.course.exercises.exercise import Exercise, allow, as_till, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps import bucket, iam_role, oidc_provider
from labkit.workspace import Workspace

KEY = "hello.txt"


def _role_over_there_without_its_provider(place: Workspace) -> None:
    other = _other(place)
    make_role(other)
    for name in ("cart", "till"):
        make_account(place, name, {documents.ROLE_ANNOTATION: other.role_arn})


def _bucket_over_there_without_a_policy(place: Workspace) -> None:
    oidc_provider.ensure(place)
    other, name = _other(place).aws, place.parameters.namespace
    bucket.create(other, name)
    other.client("s3").put_object(Bucket=name, Key=KEY, Body=b"hello")
    for each in (place, as_till(place)):
        _role_that_may_use_the_bucket(each, name)
        make_account(place, each.parameters.service_account, {documents.ROLE_ANNOTATION: each.role_arn})


def _other(place: Workspace) -> Workspace:
    return place.in_account(str(place.connection.other_account))


def _role_that_may_use_the_bucket(place: Workspace, name: str) -> None:
    make_role(place)
    objects = f"arn:{place.connection.partition}:s3:::{name}/*"
    allow(place, "bucket", (["s3:GetObject", "s3:PutObject"], objects))


def _cart_is_admitted_over_there(place: Workspace) -> list[Comparison]:
    arn = _other(place).role_arn
    return [
        admits(place, role_arn=arn),
        refuses(place, "till", role_arn=arn),
        refuses(place, audience="vault", role_arn=arn, code="InvalidIdentityToken"),
        *newcomers(place, role_arn=arn),
    ]


def _cart_alone_reads(place: Workspace) -> list[Comparison]:
    till, name = as_till(place), place.parameters.namespace

    def row(who: Workspace, what: str, operation: str, expected: str) -> Comparison:
        answer = call(who, "s3", operation, given=credentials(who), Bucket=name, Key=KEY)
        return Comparison(f"{who.parameters.service_account}: {what}", expected, answer, answer.startswith(expected))

    return [
        row(place, "read", "get_object", ALLOWED),
        row(place, "write", "put_object", "AccessDenied"),
        row(till, "read", "get_object", "AccessDenied"),
        *_read_by_a_new_role(place, name),
    ]


def _read_by_a_new_role(place: Workspace, name: str) -> list[Comparison]:
    """Return a row, marked as wrong, if the bucket's policy also lets a new role of this account read."""
    role = f"{place.parameters.role_name}-{uuid4().hex[:4]}"
    new = Workspace(place.parameters.model_copy(update={"role_name": role}), place.connection)
    _role_that_may_use_the_bucket(new, name)
    try:
        answer = call(new, "s3", "get_object", given=credentials(new), Bucket=name, Key=KEY)
    finally:
        iam_role.delete(new.aws.client("iam"), role)
    what = "a role of this account, created just now: read"
    return [Comparison(what, "AccessDenied", answer, False)] if answer == ALLOWED else []


EXERCISES = (
    Exercise("11-a", _role_over_there_without_its_provider, _cart_is_admitted_over_there, in_two_accounts=True),
    Exercise("11-b", _bucket_over_there_without_a_policy, _cart_alone_reads, in_two_accounts=True),
)
