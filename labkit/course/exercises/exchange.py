"""Notebook 07: the life of a token and of a session."""

from labkit.connection import core_api
from labkit.course.exercises.asking import ADMITTED, HOUR, exchange, refuses, token_life
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import oidc_provider, service_account
from labkit.workspace import Workspace

DAY = 24 * HOUR
LIFE = "eks.amazonaws.com/token-expiration"


def _life_that_is_not_a_number(place: Workspace) -> None:
    _role_and_till(place)
    metadata = {"metadata": {"annotations": {LIFE: "1h"}}}
    core_api(place.kubernetes).patch_namespaced_service_account("cart", place.parameters.namespace, metadata)


def _role_and_till(place: Workspace) -> None:
    oidc_provider.ensure(place)
    service_account.ensure(place)
    make_role(place)
    make_account(place, "till")


def _tokens_of_an_hour_for_cart_alone(place: Workspace) -> list[Comparison]:
    cart, till = token_life(place), token_life(place, "till")
    return [
        Comparison("token lifetime in a new pod of cart", f"at most {HOUR} s", f"{cart} s", 0 < cart <= HOUR),
        Comparison("token lifetime in a new pod of till", f"{DAY} s", f"{till} s"),
    ]


def _sessions_of_four_hours(place: Workspace) -> list[Comparison]:
    code = "ValidationError"
    four, longer, twelve = (exchange(place, seconds=seconds) for seconds in (4 * HOUR, 4 * HOUR + 1, 12 * HOUR))
    return [
        Comparison("cart, a session of 4 hours", ADMITTED, four),
        # Show this row only if the limit is above 4 hours.
        *([Comparison("cart, a session of 4 hours and 1 second", "refused", longer)] if longer == ADMITTED else []),
        Comparison("cart, a session of 12 hours", f"refused: {code}", twelve, twelve.startswith(code)),
        refuses(place, "till"),
    ]


EXERCISES = (
    Exercise(
        "07-a",
        "let cart's tokens live for an hour at most",
        _life_that_is_not_a_number,
        _tokens_of_an_hour_for_cart_alone,
        "Read cart's annotations. The webhook ignores a value that it can't read, and says nothing.",
        "The webhook expects a number of seconds. Write the number in quotes, because annotations are strings.",
        'Patch the service account cart with the annotation {"eks.amazonaws.com/token-expiration": "3600"}.',
    ),
    Exercise(
        "07-b",
        "let cart's sessions live for 4 hours",
        _role_and_till,
        _sessions_of_four_hours,
        "The trust policy admits cart. Which property of the role limits how long its sessions live?",
        "The property is MaxSessionDuration, in seconds. The default is 3600, and you can change it at any time.",
        "Call iam.update_role(RoleName=task, MaxSessionDuration=14400).",
    ),
)

PREDICTIONS = (
    Question(
        "07-1",
        "You change sub in the claims, but not the signature. What does STS answer?",
        Answer(
            "AccessDenied: the trust policy doesn't admit this subject.",
            "That's the answer for a genuine token that the trust policy doesn't admit. This token isn't genuine.",
        ),
        Right(
            "InvalidIdentityToken: the token isn't genuine.",
            "The signature covers the claims. If you change one letter of them, the signature no longer fits.",
        ),
        Answer("It admits the new subject.", "If it did, anybody could become any service account."),
    ),
    Question(
        "07-2",
        "The program's credentials live for an hour. Two hours pass. What does its next call get?",
        Answer(
            "ExpiredToken.", "The client that you made yourself gets that error, because its credentials are fixed."
        ),
        Answer("The objects, with the same credentials.", "They expired an hour ago. S3 would refuse them."),
        Right(
            "The objects, with new credentials.",
            "Before each call, the SDK checks its credentials. If they have expired, or expire soon, the SDK gets "
            "new ones.",
        ),
    ),
)

RECALL = (
    Question(
        "07-3",
        "What does STS need from the cluster to verify a token?",
        Answer("The key that signed the token.", "That key never leaves the cluster."),
        Right("The issuer's public keys.", "STS fetches them from the issuer's URL over HTTPS."),
        Answer("The cluster's API server.", "STS never asks the API server, not even whether the pod still exists."),
    ),
    Question(
        "07-4",
        "Which claim does STS compare with the provider's client ids?",
        Answer("sub", "STS compares sub with a condition of the trust policy."),
        Answer("iss", "STS compares iss with the provider's URL."),
        Right("aud", "aud says who the token is for, here sts.amazonaws.com."),
    ),
    Question(
        "07-5",
        "Which AWS key signs the call AssumeRoleWithWebIdentity?",
        Answer("The node's.", "The call works from anywhere, without any AWS credentials."),
        Answer("The role's.", "You don't have the role's credentials yet: this call returns them."),
        Right("None.", "The token is the proof. For STS, whoever holds it is the service account."),
    ),
    Question(
        "07-6",
        "A program works for a day. After that, it always gets ExpiredTokenException. What is wrong?",
        Answer("The node doesn't renew the token.", "The node does renew it: a fresh token is in the file."),
        Right(
            "The program read the token once and kept it.",
            "An SDK that supports web identity reads the file again for each exchange.",
        ),
        Answer(
            "The role's sessions are too short.",
            "The SDK starts a new session when a call needs one. Here the token has expired.",
        ),
    ),
    Question(
        "07-7",
        "Who renews what in a pod that runs for a month?",
        Right(
            "The node renews the token, and the SDK renews the credentials.",
            "The node renews the token before it expires, and the SDK gets new credentials when a call needs them.",
        ),
        Answer("The SDK renews both.", "The SDK can't ask the cluster for a token. It only reads the file."),
        Answer("The webhook renews both.", "The API server asks the webhook only once, when the pod is created."),
    ),
)
