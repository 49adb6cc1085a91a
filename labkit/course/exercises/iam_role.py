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
    _accounts(place, "till")
    elsewhere = place.parameters.model_copy(update={"namespace": "default"})
    policy = documents.trust_policy(elsewhere, place.provider_arn)
    make_role(place, policy)


def _bucket_without_its_role(place: Workspace) -> None:
    _accounts(place, "reports", "till")
    bucket.create(place.aws, place.parameters.namespace)


def _accounts(place: Workspace, *others: str) -> None:
    ensure_account(place)
    # A trust policy without :aud then admits a token that isn't meant for AWS.
    place.aws.client("iam").add_client_id_to_open_id_connect_provider(
        OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
    )
    for name in others:
        make_account(place, name)


def _cart_and_reports_read(place: Workspace) -> list[Comparison]:
    both = ("cart", "reports")
    others = [row for name in both for row in for_others(place, name)]
    basket: dict[str, Any] = {"Bucket": place.parameters.namespace, "Key": "basket.txt"}
    changes = [denies(place, f"cart calls {each}", "s3", each, **basket) for each in ("put_object", "delete_object")]
    return [
        *(Comparison(f"{name} lists the bucket", ALLOWED, _listed_by(place, name)) for name in both),
        refused("till lists the bucket", "AccessDenied", _listed_by(place, "till")),
        *newcomers(place, *both),
        *others,
        # Show the rows of changes only if they are wrong.
        *(row for row in changes if not row.right and row.found == ALLOWED),
        *reads_only(place, "basket.txt", elsewhere=True),
    ]


def _listed_by(place: Workspace, account: str) -> str:
    as_account = place.parameters.model_copy(update={"service_account": account})
    bucket = place.parameters.namespace
    return call(Workspace(as_account, place.connection), "s3", "list_objects_v2", Bucket=bucket)


def _list_sts_alone(place: Workspace) -> None:
    iam = place.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.remove_client_id_from_open_id_connect_provider(
            OpenIDConnectProviderArn=place.provider_arn, ClientID=ANOTHER_AUDIENCE
        )


EXERCISES = (
    Exercise("02-a", _role_for_the_wrong_namespace, only_cart, restore=_list_sts_alone),
    Exercise("02-b", _bucket_without_its_role, _cart_and_reports_read, restore=_list_sts_alone),
)
