"""Tries at the exercises of the notebook irsa."""

import json
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, admit_account, annotate, role_arn
from tests.course.attempts.iam_role import READING, REFUSED, subject, trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
JUST_NOW = "created just now found admitted"
FULL = "arn:aws:iam::aws:policy/AmazonS3FullAccess"


def let(lab: Lab, name: str, *names: str, operator: str = "StringEquals", **more: Any) -> None:
    trust(lab, name, {operator: {"sub": subject(name, *names)}}, **more)


@wrong("irsa-a", f"exercise-irsa-a:cart found {REFUSED}")
def the_name_in_the_default_namespace(lab, name):
    trust(lab, name, {"StringEquals": {"sub": subject("default", "cart")}})


@wrong("irsa-a", "exercise-irsa-a:till found admitted")
def the_whole_namespace(lab, name):
    let(lab, name, "*", operator="StringLike")


@right("irsa-a")
def the_subject_of_cart(lab, name):
    let(lab, name, "cart")


@right("irsa-a")
def string_like_without_a_wildcard(lab, name):
    let(lab, name, "cart", operator="StringLike")


ATTEMPTS.more(
    "irsa-a",
    wrong={
        "nothing": (f"exercise-irsa-a:cart found {REFUSED}", lambda lab, name: None),
        "the subject without its prefix": (
            f"exercise-irsa-a:cart found {REFUSED}",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": f"{name}:cart"}}),
        ),
        "an asterisk compared letter by letter": (
            f"exercise-irsa-a:cart found {REFUSED}",
            lambda lab, name: let(lab, name, "*"),
        ),
        "the planted subject kept": (
            "default:my-service-account, created just now found admitted",
            lambda lab, name: trust(
                lab,
                name,
                {"StringEquals": {"sub": [*subject(name, "cart"), *subject("default", "my-service-account")]}},
            ),
        ),
        "no audience": ("audience vault found admitted", lambda lab, name: let(lab, name, "cart", aud=False)),
        "till as well": ("exercise-irsa-a:till found admitted", lambda lab, name: let(lab, name, "cart", "till")),
        "cart of every namespace": (
            JUST_NOW,
            lambda lab, name: trust(lab, name, {"StringLike": {"sub": "system:serviceaccount:*:cart"}}),
        ),
        "every name that begins with cart": (
            JUST_NOW,
            lambda lab, name: let(lab, name, "cart*", operator="StringLike"),
        ),
        "the account as well": (
            "someone without a token, for exercise-irsa-a found admitted",
            lambda lab, name: (let(lab, name, "cart"), admit_account(lab, name)),
        ),
    },
    right={
        "a list of one": lambda lab, name: trust(lab, name, {"StringEquals": {"sub": subject(name, "cart")}}),
        "without the case": lambda lab, name: let(lab, name, "cart", operator="StringEqualsIgnoreCase"),
        "too wide first": lambda lab, name: (let(lab, name, "*", operator="StringLike"), let(lab, name, "cart")),
    },
)


def account(lab: Lab, name: str, service_account: str = "reports", namespace: str = "", **annotations: str) -> None:
    metadata = {"name": service_account, "annotations": annotations or {KEY: lab.connection.role_arn(name)}}
    CoreV1Api(lab.kubernetes).create_namespaced_service_account(namespace or name, {"metadata": metadata})


def steps(lab: Lab, name: str, *names: str, **more: Any) -> None:
    """Make the role, which admits these service accounts and may read S3, and the service account reports."""
    let(lab, name, *(names or ("reports",)), **more)
    account(lab, name)


def permit(lab: Lab, name: str, actions: str | list[str]) -> None:
    """Take the policy that reads S3 from the role, and allow these actions on the exercise's bucket."""
    iam = lab.aws.client("iam")
    iam.detach_role_policy(RoleName=name, PolicyArn=READING)
    statement = {"Effect": "Allow", "Action": actions, "Resource": [f"arn:aws:s3:::{name}", f"arn:aws:s3:::{name}/*"]}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=name, PolicyName="listing", PolicyDocument=document)


@wrong("irsa-b", "till lists the bucket found allowed")
def the_namespace(lab, name):
    steps(lab, name, "*", operator="StringLike")


@wrong("irsa-b", "a new pod of reports found no role")
def no_annotation(lab, name):
    let(lab, name, "reports")
    account(lab, name, **{"eks.amazonaws.com/role_arn": role_arn(lab, name)})


@right("irsa-b")
def role_and_service_account(lab, name):
    steps(lab, name)


@right("irsa-b")
def the_service_account_first(lab, name):
    account(lab, name)
    let(lab, name, "reports")


ATTEMPTS.more(
    "irsa-b",
    wrong={
        "nothing": ("a new pod of reports found pods", lambda lab, name: None),
        "no service account": ("a new pod of reports found pods", lambda lab, name: let(lab, name, "reports")),
        "no role": (f"reports lists the bucket found {REFUSED}", account),
        "cart in the place of reports": (
            f"reports lists the bucket found {REFUSED}",
            lambda lab, name: steps(lab, name, "cart"),
        ),
        "cart as well": (
            "exercise-irsa-b:cart, created just now found admitted",
            lambda lab, name: steps(lab, name, "cart", "reports"),
        ),
        "no audience": ("audience vault found admitted", lambda lab, name: steps(lab, name, aud=False)),
        "no permissions": (
            "reports lists the bucket found AccessDenied: User",
            lambda lab, name: (
                steps(lab, name),
                lab.aws.client("iam").detach_role_policy(RoleName=name, PolicyArn=READING),
            ),
        ),
        "all of S3": (
            "reports calls delete_object found allowed",
            lambda lab, name: (
                steps(lab, name),
                lab.aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=FULL),
            ),
        ),
        "the account as well": (
            "someone without a token, for exercise-irsa-b found admitted",
            lambda lab, name: (steps(lab, name), admit_account(lab, name)),
        ),
        "the role's name in the annotation": (
            "a new pod of reports found exercise-irsa-b",
            lambda lab, name: (steps(lab, name), annotate(lab, name, "reports", **{KEY: name})),
        ),
    },
    right={
        "a policy for this bucket alone": lambda lab, name: (
            steps(lab, name),
            permit(lab, name, ["s3:ListBucket", "s3:GetObject"]),
        ),
        "only to list": lambda lab, name: (steps(lab, name), permit(lab, name, "s3:ListBucket")),
        "annotated later": lambda lab, name: (
            account(lab, name, **{"team": "reports"}),
            let(lab, name, "reports"),
            annotate(lab, name, "reports", **{KEY: role_arn(lab, name)}),
        ),
    },
)
