"""Tries at the exercises of notebook 03."""

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, annotate, role_arn

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def create(lab: Lab, namespace: str, account: str, **annotations: str) -> None:
    metadata = {"name": account, "annotations": annotations}
    CoreV1Api(lab.kubernetes).create_namespaced_service_account(namespace, {"metadata": metadata})


@wrong("03-a", "a new pod of cart found no role")
def amazon_in_the_place_of_amazonaws(lab, name):
    annotate(lab, name, "cart", **{"eks.amazon.com/role-arn": role_arn(lab, name)})


@wrong("03-a", "a new pod of cart found exercise-03-a")
def the_name_in_the_place_of_the_arn(lab, name):
    annotate(lab, name, "cart", **{KEY: name})


@wrong("03-a", "a new pod of till found arn:aws:iam::")
def both_service_accounts(lab, name):
    annotate(lab, name, "cart", **{KEY: role_arn(lab, name)})
    annotate(lab, name, "till", **{KEY: role_arn(lab, name)})


@right("03-a")
def the_wrong_key_taken_away(lab, name):
    annotate(lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/role_arn": None})


@right("03-a")
def the_wrong_key_left(lab, name):
    annotate(lab, name, "cart", **{KEY: role_arn(lab, name)})


@wrong("03-b", "a new pod of till found no role")
def without_an_annotation(lab, name):
    create(lab, name, "till")


@wrong("03-b", "till found")
def in_the_namespace_default(lab, name):
    core = CoreV1Api(lab.kubernetes)
    create(lab, "default", "till", **{KEY: role_arn(lab, name)})
    core.delete_namespaced_service_account("till", "default")


@wrong("03-b", "a new pod of cart found arn:aws:iam::")
def cart_in_the_place_of_till(lab, name):
    annotate(lab, name, "cart", **{KEY: role_arn(lab, name)})


@right("03-b")
def annotated_at_once(lab, name):
    create(lab, name, "till", **{KEY: role_arn(lab, name)})


@right("03-b")
def annotated_later(lab, name):
    create(lab, name, "till")
    annotate(lab, name, "till", **{KEY: role_arn(lab, name)})
