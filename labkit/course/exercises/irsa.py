"""The notebook irsa: all steps, for one service account more."""

from labkit import documents
from labkit.course.exercises.asking import injected, only_cart
from labkit.course.exercises.exercise import Exercise, make_role
from labkit.course.exercises.iam_role import list_sts_alone, make_accounts, only_these_read
from labkit.doctor import Comparison
from labkit.run_parameters import Parameters
from labkit.steps import bucket
from labkit.workspace import Workspace


def _role_of_the_default_names(place: Workspace) -> None:
    make_accounts(place, "till")
    make_role(place, documents.trust_policy(Parameters(), place.provider_arn))


def _bucket_without_reports(place: Workspace) -> None:
    make_accounts(place, "till")
    bucket.create(place.aws, place.parameters.namespace)


def _reports_reads(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of reports", place.role_arn, injected(place, "reports")),
        *only_these_read(place, "reports", refused_one="till"),
    ]


EXERCISES = (
    Exercise("irsa-a", _role_of_the_default_names, only_cart, restore=list_sts_alone),
    Exercise("irsa-b", _bucket_without_reports, _reports_reads, restore=list_sts_alone),
)
