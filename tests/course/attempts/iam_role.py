"""Tries at the exercises of notebook 02."""

import json
from typing import Any

from labkit import Lab
from tests.course.attempts import Attempts, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
REFUSED = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"


AUD = {"aud": "sts.amazonaws.com"}


def trust(lab: Lab, role: str, *conditions: dict[str, Any], others: str = "", aud: bool = True, **more: Any) -> None:
    """Give the role a trust policy with a statement for each condition. Their keys come without the issuer's name.

    Each statement also wants the audience of STS, unless `aud` is false. `more` replaces keys of the statements, and
    `others` are AWS principals that may assume the role without a token.
    """
    provider = lab.issuer.removeprefix("https://")
    if aud:
        conditions = tuple({**each, "StringEquals": {**AUD, **each.get("StringEquals", {})}} for each in conditions)
    statements = [
        {
            "Effect": "Allow",
            "Principal": {"Federated": lab.provider_arn},
            "Action": "sts:AssumeRoleWithWebIdentity",
            **more,
            "Condition": {
                operator: {f"{provider}:{key}": value for key, value in keys.items()}
                for operator, keys in condition.items()
            },
        }
        for condition in conditions
    ]
    if others:
        statements.append({"Effect": "Allow", "Principal": {"AWS": others}, "Action": "sts:AssumeRole"})
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    lab.aws.client("iam").update_assume_role_policy(RoleName=role, PolicyDocument=document)


def subject(namespace: str, *names: str) -> list[str]:
    return [f"system:serviceaccount:{namespace}:{name}" for name in names]


@wrong("02-a", "exercise-02-a:till found admitted")
def the_whole_namespace(lab, name):
    trust(lab, name, {"StringLike": {"sub": f"system:serviceaccount:{name}:*"}})


@wrong("02-a", f"exercise-02-a:cart found {REFUSED}")
def an_asterisk_with_string_equals(lab, name):
    trust(lab, name, {"StringEquals": {"sub": f"system:serviceaccount:{name}:*"}})


@wrong("02-a", f"exercise-02-a:cart found {REFUSED}")
def the_subject_without_its_prefix(lab, name):
    trust(lab, name, {"StringEquals": {"sub": f"{name}:cart"}})


@wrong("02-a", "created just now found admitted")
def the_same_name_in_any_namespace_that_begins_alike(lab, name):
    trust(lab, name, {"StringLike": {"sub": "system:serviceaccount:exercise-*:cart"}})


@wrong("02-a", "created just now found admitted")
def any_name_that_begins_alike(lab, name):
    trust(lab, name, {"StringLike": {"sub": f"system:serviceaccount:{name}:c*"}})


@wrong("02-a", "created just now found admitted")
def all_but_the_neighbour_that_exists(lab, name):
    others = {"StringNotEquals": {"sub": subject(name, "till")}}
    trust(lab, name, {**others, "StringLike": {"sub": f"system:serviceaccount:{name}:*"}})


@wrong("02-a", "created just now found admitted")
def a_wildcard_for_the_last_letter(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "car?")}})


@wrong("02-a", "created just now found admitted")
def the_same_name_in_any_namespace_of_the_same_length(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(f"{name[:-1]}?", "cart")}})


@wrong("02-a", "someone without a token, for exercise-02-a found admitted")
def a_second_statement_for_everybody(lab, name):
    trust(lab, name, {"StringEquals": {"sub": subject(name, "cart")}}, others="*")


@right("02-a")
def string_like_without_an_asterisk(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "cart")}, "StringEquals": {"aud": "sts.amazonaws.com"}})


@wrong("02-a", "default:cart, created just now found admitted")
def both_namespaces_but_only_one_exists(lab, name):
    trust(lab, name, {"StringEquals": {"sub": [*subject(name, "cart"), *subject("default", "cart")]}})


@right("02-a")
def the_subject_alone_corrected(lab, name):
    document = trust_policy(lab, name)
    corrected = json.dumps(document).replace("serviceaccount:default:", f"serviceaccount:{name}:")
    update_trust(lab, name, corrected)


@wrong("02-a", "exercise-02-a:cart, audience vault found admitted")
def no_audience(lab, name):
    trust(lab, name, {"StringEquals": {"sub": subject(name, "cart")}}, aud=False)


@wrong("02-a", "default:cart, created just now found admitted")
def a_second_statement_beside_the_planted_one(lab, name):
    both = ({"StringEquals": {"sub": subject(namespace, "cart")}} for namespace in ("default", name))
    trust(lab, name, *both)


CART, BOTH = (lambda name: subject(name, "cart")), (lambda name: subject(name, "cart", "till"))
ATTEMPTS.more(
    "02-a",
    wrong={},
    right={
        "operators that ignore the case": lambda lab, name: trust(
            lab, name, {"StringEqualsIgnoreCase": {"sub": CART(name)}}
        ),
        "a list of one, and a statement that denies the neighbour": lambda lab, name: trust(
            lab,
            name,
            {"StringEquals": {"sub": CART(name)}, "StringNotEquals": {"sub": subject(name, "till")}},
        ),
        "the issuer's condition with a list of audiences": lambda lab, name: trust(
            lab, name, {"StringEquals": {"sub": CART(name), "aud": ["sts.amazonaws.com", "nobody"]}}
        ),
    },
)
ATTEMPTS.more(
    "02-b",
    wrong={
        "no audience": (
            "audience vault found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": BOTH(name)}}, aud=False),
        ),
        "the planted subject unchanged": (f"exercise-02-b:till found {REFUSED}", lambda lab, name: None),
        "a third name that exists": (
            "exercise-02-b:guest found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": subject(name, "cart", "till", "guest")}}),
        ),
        "a third name that doesn't exist": (
            "created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": subject(name, "cart", "till", "later")}}),
        ),
        "the names in a namespace too many": (
            "default:cart, created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": [*BOTH(name), *subject("default", "cart")]}}),
        ),
        "everybody but guest": (
            "created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringNotEquals": {"sub": subject(name, "guest")}}),
        ),
        "everybody of the account": (
            "someone without a token, for exercise-02-b found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": BOTH(name)}}, others=lab.account_id),
        ),
    },
    right={
        "one statement each, in the other order": lambda lab, name: trust(
            lab, name, *({"StringLike": {"sub": one}} for one in reversed(BOTH(name)))
        ),
        "without the case": lambda lab, name: trust(lab, name, {"StringEqualsIgnoreCase": {"sub": BOTH(name)}}),
        "two conditions that both hold": lambda lab, name: trust(
            lab,
            name,
            {"StringEquals": {"sub": BOTH(name)}, "StringLike": {"sub": f"system:serviceaccount:{name}:*"}},
        ),
    },
)


@wrong("02-b", "exercise-02-b:guest found admitted")
def any_of_the_namespace(lab, name):
    trust(lab, name, {"StringLike": {"sub": f"system:serviceaccount:{name}:*"}})


@wrong("02-b", f"exercise-02-b:cart found {REFUSED}")
def till_in_the_place_of_cart(lab, name):
    trust(lab, name, {"StringEquals": {"sub": subject(name, "till")}})


@wrong("02-b", f"exercise-02-b:till found {REFUSED}")
def both_names_in_one_text(lab, name):
    trust(lab, name, {"StringEquals": {"sub": f"system:serviceaccount:{name}:cart,till"}})


@right("02-b")
def two_statements(lab, name):
    trust(lab, name, *({"StringEquals": {"sub": one}} for one in subject(name, "cart", "till")))


@right("02-b")
def two_names_of_string_like(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "cart", "till")}})


@wrong("02-b", "created just now found admitted")
def wildcards_that_fit_only_the_two_that_exist(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "ca*", "ti??")}})


@wrong("02-b", "created just now found admitted")
def wildcards_between_the_first_and_the_last_letter(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "c*t", "t*l")}})


@wrong("02-b", "created just now found admitted")
def a_wildcard_for_one_letter(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "c?rt", "till")}})
