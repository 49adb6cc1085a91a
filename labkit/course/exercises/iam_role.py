"""Notebook 02: the trust policy decides who may become the role."""

from contextlib import suppress
from typing import Any

from labkit import documents
from labkit.course.exercises.asking import (
    ALLOWED,
    call,
    denies,
    for_others,
    newcomers,
    only_cart,
    reads_only,
    refused,
)
from labkit.course.exercises.exercise import Exercise, ensure_account, make_account, make_role
from labkit.doctor import Comparison
from labkit.steps import bucket
from labkit.workspace import Workspace

ANOTHER_AUDIENCE = "vault"  # the provider lists it while an exercise is open


def _role_for_the_wrong_namespace(place: Workspace) -> None:
    make_accounts(place, "till")
    elsewhere = place.parameters.model_copy(update={"namespace": "default"})
    policy = documents.trust_policy(elsewhere, place.provider_arn)
    make_role(place, policy)


def _bucket_without_its_role(place: Workspace) -> None:
    make_accounts(place, "reports", "till")
    bucket.create(place.aws, place.parameters.namespace)


def make_accounts(place: Workspace, *others: str) -> None:
    """Create `cart` and these service accounts. Their cluster's OIDC provider lists a second audience, too."""
    ensure_account(place)
    # A trust policy without :aud then admits a token that isn't meant for AWS.
    place.aws.client("iam").add_client_id_to_open_id_connect_provider(
        OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
    )
    for name in others:
        make_account(place, name)


def _cart_and_reports_read(place: Workspace) -> list[Comparison]:
    return only_these_read(place, "cart", "reports", refused_one="till")


def only_these_read(place: Workspace, *names: str, refused_one: str) -> list[Comparison]:
    """Check that these service accounts may list the run's bucket, and do no more. Return rows with AWS's answers."""
    others = [row for name in names for row in for_others(place, name)]
    basket: dict[str, Any] = {"Bucket": place.parameters.namespace, "Key": "basket.txt"}
    first = _as_account(place, names[0])
    changes = [
        denies(first, f"{names[0]} calls {each}", "s3", each, **basket) for each in ("put_object", "delete_object")
    ]
    return [
        *(Comparison(f"{name} lists the bucket", ALLOWED, _listed_by(place, name)) for name in names),
        refused(f"{refused_one} lists the bucket", "AccessDenied", _listed_by(place, refused_one)),
        *newcomers(place, *names),
        *others,
        # Show the rows of changes only if they are wrong.
        *(row for row in changes if not row.right and row.found == ALLOWED),
        *reads_only(place, "basket.txt", elsewhere=True),
    ]


def _listed_by(place: Workspace, account: str) -> str:
    return call(_as_account(place, account), "s3", "list_objects_v2", Bucket=place.parameters.namespace)


def _as_account(place: Workspace, name: str) -> Workspace:
    return Workspace(place.parameters.model_copy(update={"service_account": name}), place.connection)


def list_sts_alone(place: Workspace) -> None:
    """Remove the second audience from the OIDC provider."""
    iam = place.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.remove_client_id_from_open_id_connect_provider(
            OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
        )


EXERCISES = (
    Exercise("02-a", _role_for_the_wrong_namespace, only_cart, restore=list_sts_alone),
    Exercise("02-b", _bucket_without_its_role, _cart_and_reports_read, restore=list_sts_alone),
)
