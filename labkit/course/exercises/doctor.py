"""The notebook doctor: a report names the cause, and the learner repairs it."""

from typing import Any

from labkit import documents
from labkit.course.exercises.asking import ALLOWED, allows, denies, reads_only
from labkit.course.exercises.exercise import Exercise, as_till, make_account, make_role
from labkit.course.exercises.least_privilege import each_has_its_own_role
from labkit.course.exercises.service_account import a_new_pod_of_cart
from labkit.doctor import Comparison
from labkit.steps import bucket, oidc_provider
from labkit.workspace import Workspace


def _annotation_of_a_role_that_is_gone(place: Workspace) -> None:
    oidc_provider.ensure(place)
    make_role(place)
    place.aws.client("iam").attach_role_policy(
        RoleName=place.parameters.role_name, PolicyArn=place.parameters.policy_arn
    )
    make_account(place, "cart", {documents.ROLE_ANNOTATION: f"{place.role_arn}-old"})
    make_account(place, "till", {})


def _role_of_the_neighbour_and_no_policy(place: Workspace) -> None:
    oidc_provider.ensure(place)
    bucket.create(place.aws, place.parameters.namespace)
    till = as_till(place)
    make_role(place)
    make_role(till, documents.trust_policy(till.parameters, place.provider_arn))
    for name in ("cart", "till"):
        make_account(place, name, {documents.ROLE_ANNOTATION: till.role_arn})


def _cart_reads_as_itself(place: Workspace) -> list[Comparison]:
    own: dict[str, Any] = {"Bucket": place.parameters.namespace}
    written = denies(place, "cart writes into the bucket", "s3", "put_object", **own, Key="basket.txt")
    return [
        *each_has_its_own_role(place),
        allows(place, "cart lists the bucket", "s3", "list_objects_v2", **own),
        denies(as_till(place), "till lists the bucket", "s3", "list_objects_v2", **own),
        # Show this row only if it's wrong.
        *([written] if written.found == ALLOWED else []),
        *reads_only(place, "basket.txt", elsewhere=True),
    ]


EXERCISES = (
    Exercise("doctor-a", _annotation_of_a_role_that_is_gone, a_new_pod_of_cart),
    Exercise("doctor-b", _role_of_the_neighbour_and_no_policy, _cart_reads_as_itself),
)
