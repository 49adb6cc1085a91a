"""Notebook 07: each workload gets its own role, with only the permissions that it needs."""

from typing import Any

from botocore.exceptions import ClientError
from kubernetes.client.exceptions import ApiException

from labkit import documents
from labkit.course.exercises.asking import (
    ADMITTED,
    ALLOWED,
    call,
    credentials,
    exchange,
    injected,
    newcomers,
    reads_only,
)
from labkit.course.exercises.exercise import Exercise, allow, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.policy.arn import Arn
from labkit.steps import bucket
from labkit.workspace import Workspace

REFUSED = "AccessDenied"


def _role_that_reads_the_whole_bucket(place: Workspace) -> None:
    s3, name = place.aws.client("s3"), place.parameters.namespace
    bucket.create(place.aws, name)
    for team in ("cart", "till", "cart-old"):
        s3.put_object(Bucket=name, Key=f"{team}/1.txt", Body=b"hello")
    ensure_account(place)
    make_role(place)
    whole = f"arn:{place.connection.partition}:s3:::{name}"
    allow(place, "reading", ("s3:ListBucket", whole), ("s3:GetObject", f"{whole}/*"))


def _role_that_two_share(place: Workspace) -> None:
    policy = documents.trust_policy(place.parameters, place.provider_arn)
    issuer = place.issuer.removeprefix("https://")
    policy["Statement"][0]["Condition"]["StringEquals"][f"{issuer}:sub"] = [
        f"system:serviceaccount:{place.parameters.namespace}:{name}" for name in ("cart", "till")
    ]
    ensure_account(place)
    make_role(place, policy)
    make_account(place, "till")


def _reads_its_own_prefix(place: Workspace) -> list[Comparison]:
    def row(what: str, operation: str, expected: str, **more: Any) -> Comparison:
        answer = call(place, "s3", operation, Bucket=place.parameters.namespace, **more)
        return Comparison(f"cart: {what}", expected, answer, answer.startswith(expected))

    wide = [
        row("list an empty prefix", "list_objects_v2", REFUSED, Prefix=""),
        row("list cart, without a slash", "list_objects_v2", REFUSED, Prefix="cart"),
    ]
    return [
        row("list cart/", "list_objects_v2", ALLOWED, Prefix="cart/"),
        row("read cart/1.txt", "get_object", ALLOWED, Key="cart/1.txt"),
        row("write cart/1.txt", "put_object", REFUSED, Key="cart/1.txt"),
        # The key doesn't exist: if S3 deletes it, nothing is lost.
        row("delete cart/no-such-object", "delete_object", REFUSED, Key="cart/no-such-object"),
        row("list till/", "list_objects_v2", REFUSED, Prefix="till/"),
        row("list the whole bucket", "list_objects_v2", REFUSED),
        row("read till/1.txt", "get_object", REFUSED, Key="till/1.txt"),
        row("list cart-old/", "list_objects_v2", REFUSED, Prefix="cart-old/"),
        row("read cart-old/1.txt", "get_object", REFUSED, Key="cart-old/1.txt"),
        # Show these rows only if they are wrong.
        *(each for each in wide if not each.right),
        *reads_only(place, "cart/1.txt"),
    ]


def each_has_its_own_role(place: Workspace) -> list[Comparison]:
    """Check that `cart` and `till` get a role each, and not the other's. Return rows with the lab's answers."""
    shared = place.parameters.role_name
    own = f"{shared}-till"
    arns = {name: place.connection.role_arn(name) for name in (shared, own)}

    def row(account: str, role: str, expected: str) -> Comparison:
        answer = exchange(place, account, role_arn=arns[role])
        return Comparison(f"{account} asks for {role}", expected, answer, answer.startswith(expected))

    return [
        Comparison("a new pod of cart", arns[shared], injected(place, "cart")),
        Comparison("a new pod of till", arns[own], injected(place, "till")),
        row("cart", shared, ADMITTED),
        row("till", own, ADMITTED),
        row("till", shared, REFUSED),
        row("cart", own, REFUSED),
        *_by_a_session(place, "till", arns[own], arns[shared]),
        *_by_a_session(place, "cart", arns[shared], arns[own]),
        *newcomers(place, "cart", role_arn=arns[shared]),
        *newcomers(place, "till", role_arn=arns[own]),
    ]


def _by_a_session(place: Workspace, account: str, role: str, wanted: str) -> list[Comparison]:
    """Return a row, marked as wrong, if a session that the account has of `role` may take the role `wanted`."""
    try:
        given = credentials(place, account, role_arn=role)
    except (ClientError, ApiException):  # another row says so
        return []
    answer = call(place, "sts", "assume_role", given=given, RoleArn=wanted, RoleSessionName="exercise")
    what = f"a session of {account} asks for {Arn.parse(wanted).name}"
    return [Comparison(what, REFUSED, answer)] if answer == ALLOWED else []


EXERCISES = (
    Exercise("07-a", _role_that_reads_the_whole_bucket, _reads_its_own_prefix),
    Exercise("07-b", _role_that_two_share, each_has_its_own_role),
)
