"""Tries at the exercises of notebook 06."""

import json

from labkit import Lab
from tests.course.attempts import KEY, Attempts, annotate, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
LIFE = "eks.amazonaws.com/token-expiration"


def sessions(lab: Lab, name: str, seconds: int) -> None:
    lab.aws.client("iam").update_role(RoleName=name, MaxSessionDuration=seconds)


@wrong("06-a", "a new pod of cart found 86400 s")
def minutes_with_their_unit(lab, name):
    annotate(lab, name, "cart", **{LIFE: "60m"})


@wrong("06-a", "a new pod of cart found 7200 s")
def two_hours(lab, name):
    annotate(lab, name, "cart", **{LIFE: "7200"})


@wrong("06-a", "a new pod of till found 3600 s")
def the_neighbour_as_well(lab, name):
    for account in ("cart", "till"):
        annotate(lab, name, account, **{LIFE: "3600"})


@right("06-a")
def an_hour(lab, name):
    annotate(lab, name, "cart", **{LIFE: "3600"})


@right("06-a")
def less_than_the_shortest_life(lab, name):
    annotate(lab, name, "cart", **{LIFE: "60"})


@wrong("06-b", "cart, a session of 12 hours found admitted")
def as_long_as_iam_allows(lab, name):
    sessions(lab, name, 43200)


@wrong("06-b", "cart, a session of 4 hours and 1 second found admitted")
def five_hours(lab, name):
    sessions(lab, name, 18000)


@wrong("06-b", "cart, a session of 4 hours found ValidationError")
def two_hours_are_too_few(lab, name):
    sessions(lab, name, 7200)


@wrong("06-b", "exercise-06-b:till found admitted")
def a_policy_without_its_subject(lab, name):
    sessions(lab, name, 14400)
    document = trust_policy(lab, name)
    del document["Statement"][0]["Condition"]
    update_trust(lab, name, document)


@right("06-b")
def four_hours(lab, name):
    sessions(lab, name, 14400)


@right("06-b")
def the_role_made_again(lab, name):
    iam, document = lab.aws.client("iam"), json.dumps(trust_policy(lab, name))
    iam.delete_role(RoleName=name)
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document, MaxSessionDuration=14400)


def life(lab: Lab, name: str, text: str | None, account: str = "cart") -> None:
    annotate(lab, name, account, **{LIFE: text})


def admit(lab: Lab, name: str, *accounts: str) -> None:
    """Let the role's sessions live for four hours, and let it admit these service accounts."""
    sessions(lab, name, 14400)
    document = trust_policy(lab, name)
    wanted = document["Statement"][0]["Condition"]["StringEquals"]
    (key,) = [each for each in wanted if each.endswith(":sub")]
    wanted[key] = [f"system:serviceaccount:{name}:{account}" for account in accounts]
    update_trust(lab, name, document)


ANOTHER = "arn:aws:iam::123456789012:role/another"
DAY = "a new pod of cart found 86400 s"
SHORT = "cart, a session of 4 hours found ValidationError"
ATTEMPTS.more(
    "06-a",
    wrong={
        "nothing": (DAY, lambda lab, name: None),
        "the annotation taken away": (DAY, lambda lab, name: life(lab, name, None)),
        "a second too many": ("a new pod of cart found 3601 s", lambda lab, name: life(lab, name, "3601")),
        "seconds with their unit": (DAY, lambda lab, name: life(lab, name, "3600s")),
        "only till": (
            "a new pod of till found 3600 s",
            lambda lab, name: life(lab, name, "3600", "till"),
        ),
        "a fraction": (DAY, lambda lab, name: life(lab, name, "3600.0")),
        "another role as well": (
            "a new pod of cart found arn:aws:iam::123456789012:role/another",
            lambda lab, name: (life(lab, name, "3600"), annotate(lab, name, "cart", **{KEY: ANOTHER})),
        ),
        "another key": (
            DAY,
            lambda lab, name: annotate(lab, name, "cart", **{"eks.amazonaws.com/token-expiry": "3600"}),
        ),
    },
    right={
        "half an hour": lambda lab, name: life(lab, name, "1800"),
        "ten minutes": lambda lab, name: life(lab, name, "600"),
        "first too long": lambda lab, name: (life(lab, name, "7200"), life(lab, name, "3600")),
    },
)
ATTEMPTS.more(
    "06-b",
    wrong={
        "nothing": (SHORT, lambda lab, name: None),
        "a second too few": (SHORT, lambda lab, name: sessions(lab, name, 14399)),
        "a second too many": (
            "cart, a session of 4 hours and 1 second found admitted",
            lambda lab, name: sessions(lab, name, 14401),
        ),
        "four hours, and back": (
            SHORT,
            lambda lab, name: (sessions(lab, name, 14400), sessions(lab, name, 3600)),
        ),
        "till admitted as well": (
            "exercise-06-b:till found admitted",
            lambda lab, name: admit(lab, name, "cart", "till"),
        ),
        "default admitted as well": (
            "exercise-06-b:default, created just now found admitted",
            lambda lab, name: (sessions(lab, name, 14400), admit(lab, name, "cart", "default")),
        ),
        "till in place of cart": (
            "cart, a session of 4 hours found AccessDenied",
            lambda lab, name: admit(lab, name, "till"),
        ),
    },
    right={
        "too long first": lambda lab, name: (sessions(lab, name, 43200), sessions(lab, name, 14400)),
        "with a description": lambda lab, name: lab.aws.client("iam").update_role(
            RoleName=name, MaxSessionDuration=14400, Description="the backup"
        ),
        "the subject as a list": lambda lab, name: admit(lab, name, "cart"),
    },
)
