"""Tries at the exercises of notebook 09. Each has the same result for every fault that can be drawn."""

import json
from typing import Any

from labkit import Lab
from labkit.steps.iam_role import delete as delete_role
from tests.course.attempts import Attempts, admit_account, trust_policy, update_trust
from tests.course.attempts.oidc_provider import arn, audiences, issuer, register

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def policy(lab: Lab, operator: str, subject: str = "") -> str:
    issuer = lab.issuer.removeprefix("https://")
    conditions: dict[str, Any] = {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com"}}
    if subject:
        conditions.setdefault(operator, {})[f"{issuer}:sub"] = subject
    statement = {"Effect": "Allow", "Principal": {"Federated": lab.provider_arn}, "Condition": conditions}
    statement["Action"] = "sts:AssumeRoleWithWebIdentity"
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(lab: Lab, name: str, operator: str, subject: str = "") -> None:
    update_trust(lab, name, policy(lab, operator, subject))


@wrong("09-a", "exercise-09-a:cart found AccessDenied: Not authorized")
def more_permissions(lab, name):
    administrator = "arn:aws:iam::aws:policy/AdministratorAccess"
    lab.aws.client("iam").attach_role_policy(RoleName=name, PolicyArn=administrator)


@wrong("09-a", "exercise-09-a:till found admitted")
def the_whole_namespace(lab, name):
    trust(lab, name, "StringLike", f"system:serviceaccount:{name}:*")


@wrong("09-a", "default:default found admitted")
def no_subject(lab, name):
    trust(lab, name, "StringEquals")


@right("09-a")
def the_trust_policy_written_again(lab, name):
    trust(lab, name, "StringEquals", f"system:serviceaccount:{name}:cart")


@right("09-a")
def the_role_made_again(lab, name):
    iam = lab.aws.client("iam")
    delete_role(iam, name)
    document = policy(lab, "StringLike", f"system:serviceaccount:{name}:cart")
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)


def several(lab: Lab, name: str, operator: str, *names: str) -> None:
    """Let the role admit these service accounts, compared with this operator."""
    document = json.loads(policy(lab, operator, "?"))
    wanted = [f"system:serviceaccount:{each}" for each in names]
    document["Statement"][0]["Condition"][operator][f"{lab.issuer.removeprefix('https://')}:sub"] = wanted
    update_trust(lab, name, document)


CART_REFUSED, JUST_NOW = "exercise-09-a:cart found AccessDenied: Not authorized", "created just now found admitted"
ATTEMPTS.more(
    "09-a",
    wrong={
        "nothing": (CART_REFUSED, lambda lab, name: None),
        "till in place of cart": (
            "exercise-09-a:till found admitted",
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:till"),
        ),
        "cart and a name that doesn't exist": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart", f"{name}:orders"),
        ),
        "cart in two namespaces": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart", "staging:cart"),
        ),
        "every name that begins with cart": (
            JUST_NOW,
            lambda lab, name: several(lab, name, "StringLike", f"{name}:cart*"),
        ),
        "a pattern compared letter by letter": (
            CART_REFUSED,
            lambda lab, name: several(lab, name, "StringEquals", f"{name}:c*"),
        ),
        "the role deleted": (CART_REFUSED, lambda lab, name: delete_role(lab.aws.client("iam"), name)),
    },
    right={
        "a list of one": lambda lab, name: several(lab, name, "StringEquals", f"{name}:cart"),
        "StringLike without a wildcard": lambda lab, name: several(lab, name, "StringLike", f"{name}:cart"),
        "too wide first": lambda lab, name: (
            several(lab, name, "StringLike", f"{name}:*"),
            several(lab, name, "StringEquals", f"{name}:cart"),
        ),
    },
)


AWS, ENDPOINT = "sts.amazonaws.com", "sts.us-east-1.amazonaws.com"
TOKEN_REJECTED = "exercise-09-b:cart found InvalidIdentityToken"


def listed(lab: Lab, name: str, *more: str) -> None:
    """Let the provider list STS and these audiences alone."""
    audiences(lab, name, add=(AWS, *more), remove=(ENDPOINT,))


def admit(lab: Lab, name: str, *subjects: str, operator: str = "StringEquals", audience: str = AWS) -> None:
    """Let the role admit these service accounts of the exercise's own cluster."""
    document, of = trust_policy(lab, name), issuer(lab, name).removeprefix("https://")
    conditions: dict[str, Any] = {"StringEquals": {f"{of}:aud": audience}}
    wanted = [f"system:serviceaccount:{each}" for each in subjects]
    conditions.setdefault(operator, {})[f"{of}:sub"] = wanted
    document["Statement"] = [document["Statement"][0] | {"Condition": conditions}]
    update_trust(lab, name, document)


def both(lab: Lab, name: str, *subjects: str, **more: str) -> None:
    """Repair the provider, and let the role admit these service accounts."""
    listed(lab, name)
    admit(lab, name, *subjects, **more)


def registered_again(lab: Lab, name: str) -> None:
    lab.aws.client("iam").delete_open_id_connect_provider(**arn(lab, name))
    register(lab, issuer(lab, name), AWS)


@wrong("09-b", "exercise-09-b:cart found AccessDenied: Not authorized")
def the_provider_alone(lab, name):
    listed(lab, name)


@wrong("09-b", TOKEN_REJECTED)
def the_trust_policy_alone(lab, name):
    admit(lab, name, f"{name}:cart")


@wrong("09-b", "exercise-09-b:till found admitted")
def the_whole_namespace_of_the_incident(lab, name):
    both(lab, name, f"{name}:*", operator="StringLike")


@right("09-b")
def the_provider_and_the_trust_policy(lab, name):
    both(lab, name, f"{name}:cart")


@right("09-b")
def the_trust_policy_first(lab, name):
    admit(lab, name, f"{name}:cart")
    listed(lab, name)


ATTEMPTS.more(
    "09-b",
    wrong={
        "nothing": (TOKEN_REJECTED, lambda lab, name: None),
        "the right audience beside the wrong one": (
            "the provider's audiences found sts.amazonaws.com, sts.us-east-1.amazonaws.com",
            lambda lab, name: (audiences(lab, name, add=(AWS,)), admit(lab, name, f"{name}:cart")),
        ),
        "an audience too many": (
            "the provider's audiences found sts.amazonaws.com, vault",
            lambda lab, name: (listed(lab, name, "vault"), admit(lab, name, f"{name}:cart")),
        ),
        "staging as well": (JUST_NOW, lambda lab, name: both(lab, name, f"{name}:cart", "staging:cart")),
        "till as well": (
            "exercise-09-b:till found admitted",
            lambda lab, name: both(lab, name, f"{name}:cart", f"{name}:till"),
        ),
        "every name that begins with cart": (
            JUST_NOW,
            lambda lab, name: both(lab, name, f"{name}:cart*", operator="StringLike"),
        ),
        "the endpoint in the trust policy": (
            "exercise-09-b:cart found AccessDenied: Not authorized",
            lambda lab, name: both(lab, name, f"{name}:cart", audience=ENDPOINT),
        ),
        "the account as well": (
            "someone without a token, for exercise-09-b found admitted",
            lambda lab, name: (both(lab, name, f"{name}:cart"), admit_account(lab, name)),
        ),
        "no provider": (
            "the provider's audiences found no provider",
            lambda lab, name: (
                admit(lab, name, f"{name}:cart"),
                lab.aws.client("iam").delete_open_id_connect_provider(**arn(lab, name)),
            ),
        ),
    },
    right={
        "the provider made again": lambda lab, name: (registered_again(lab, name), admit(lab, name, f"{name}:cart")),
        "StringLike without a wildcard": lambda lab, name: both(lab, name, f"{name}:cart", operator="StringLike"),
        "too wide first": lambda lab, name: (
            both(lab, name, f"{name}:*", operator="StringLike"),
            admit(lab, name, f"{name}:cart"),
        ),
    },
)
