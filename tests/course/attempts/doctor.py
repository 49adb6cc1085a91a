"""Tries at the exercises of the notebook doctor."""

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, admit_account, annotate, role_arn
from tests.course.attempts.iam_role import READING, subject, trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
FULL = "arn:aws:iam::aws:policy/AmazonS3FullAccess"
JUST_NOW = "created just now found admitted"


def named(lab: Lab, name: str, role: str = "", *accounts: str) -> None:
    """Annotate these service accounts, by default cart, with the ARN of a role, by default the exercise's."""
    for account in accounts or ("cart",):
        annotate(lab, name, account, **{KEY: role_arn(lab, role or name)})


def attach(lab: Lab, role: str, policy: str = READING) -> None:
    lab.aws.client("iam").attach_role_policy(RoleName=role, PolicyArn=policy)


def made_again(lab: Lab, name: str) -> None:
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account("cart", name)
    core.create_namespaced_service_account(name, {"metadata": {"name": "cart"}})
    named(lab, name)


def let(lab: Lab, name: str, role: str, *names: str, operator: str = "StringEquals") -> None:
    trust(lab, role, {operator: {"sub": subject(name, *names)}})


@wrong("doctor-a", "a new pod of till found arn:aws:iam::")
def the_neighbour_as_well(lab, name):
    named(lab, name, "", "cart", "till")


@wrong("doctor-a", "a new pod of cart found exercise-doctor-a")
def the_role_s_name(lab, name):
    annotate(lab, name, "cart", **{KEY: name})


@right("doctor-a")
def the_annotation(lab, name):
    named(lab, name)


@right("doctor-a")
def the_service_account_made_again(lab, name):
    made_again(lab, name)


ATTEMPTS.more(
    "doctor-a",
    wrong={
        "nothing": ("a new pod of cart found arn:aws:iam::", lambda lab, name: None),
        "no annotation": (
            "a new pod of cart found no role",
            lambda lab, name: annotate(lab, name, "cart", **{KEY: None}),
        ),
        "another key": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: annotate(lab, name, "cart", **{"eks.amazonaws.com/role": role_arn(lab, name)}),
        ),
        "the role that the annotation names": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: let(lab, name, f"{name}-old", "cart"),
        ),
        "default as well": (
            "a new pod of default found arn:aws:iam::",
            lambda lab, name: named(lab, name, "", "cart", "default"),
        ),
        "till in the place of cart": (
            "a new pod of till found arn:aws:iam::",
            lambda lab, name: named(lab, name, "", "till"),
        ),
        "a token for another program": (
            "with a token for vault",
            lambda lab, name: (
                named(lab, name),
                annotate(lab, name, "cart", **{"eks.amazonaws.com/audience": "vault"}),
            ),
        ),
        "the whole namespace": (
            JUST_NOW,
            lambda lab, name: (named(lab, name), let(lab, name, name, "*", operator="StringLike")),
        ),
        "the account as well": (
            "someone without a token, for exercise-doctor-a found admitted",
            lambda lab, name: (named(lab, name), admit_account(lab, name)),
        ),
    },
    right={
        "wrong first": lambda lab, name: (annotate(lab, name, "cart", **{KEY: name}), named(lab, name)),
        "with the life of the token": lambda lab, name: annotate(
            lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/token-expiration": "3600"}
        ),
        "the trust policy written again": lambda lab, name: (named(lab, name), let(lab, name, name, "cart")),
    },
)


def both(lab: Lab, name: str) -> None:
    """Repair the two causes of doctor-b."""
    named(lab, name)
    attach(lab, name)


@wrong("doctor-b", "cart lists the bucket found AccessDenied: User")
def the_annotation_alone(lab, name):
    named(lab, name)


@wrong("doctor-b", "a new pod of cart found arn:aws:iam::")
def the_policy_alone(lab, name):
    attach(lab, name)


@right("doctor-b")
def the_annotation_and_the_policy(lab, name):
    both(lab, name)


@right("doctor-b")
def the_policy_first(lab, name):
    attach(lab, name)
    named(lab, name)


ATTEMPTS.more(
    "doctor-b",
    wrong={
        "nothing": ("a new pod of cart found arn:aws:iam::", lambda lab, name: None),
        "the role of till for both": (
            "cart asks for exercise-doctor-b-till found admitted",
            lambda lab, name: (let(lab, name, f"{name}-till", "cart", "till"), attach(lab, f"{name}-till")),
        ),
        "till may list as well": (
            "till lists the bucket found allowed",
            lambda lab, name: (both(lab, name), attach(lab, f"{name}-till")),
        ),
        "swapped": (
            "a new pod of till found arn:aws:iam::",
            lambda lab, name: (both(lab, name), named(lab, name, name, "till")),
        ),
        "the role of cart admits till": (
            "till asks for exercise-doctor-b found admitted",
            lambda lab, name: (both(lab, name), let(lab, name, name, "cart", "till")),
        ),
        "the whole namespace": (
            "till asks for exercise-doctor-b found admitted",
            lambda lab, name: (both(lab, name), let(lab, name, name, "*", operator="StringLike")),
        ),
        "all of S3": (
            "cart writes into the bucket found allowed",
            lambda lab, name: (named(lab, name), attach(lab, name, FULL)),
        ),
        "the account as well": (
            "someone without a token, for exercise-doctor-b found admitted",
            lambda lab, name: (both(lab, name), admit_account(lab, name)),
        ),
        "till without its annotation": (
            "a new pod of till found no role",
            lambda lab, name: (both(lab, name), annotate(lab, name, "till", **{KEY: None})),
        ),
    },
    right={
        "the service account made again": lambda lab, name: (made_again(lab, name), attach(lab, name)),
        "each trust policy written again": lambda lab, name: (
            both(lab, name),
            let(lab, name, name, "cart"),
            let(lab, name, f"{name}-till", "till"),
        ),
        "till may list first, and then not": lambda lab, name: (
            both(lab, name),
            attach(lab, f"{name}-till"),
            lab.aws.client("iam").detach_role_policy(RoleName=f"{name}-till", PolicyArn=READING),
        ),
    },
)
