"""Tries at the exercises of notebook 02."""

import json
from typing import Any

from labkit import Lab
from tests.course.attempts import Attempts, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
REFUSED = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"


READING = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"
AUD = {"aud": "sts.amazonaws.com"}


def trust(lab: Lab, role: str, *conditions: dict[str, Any], others: str = "", aud: bool = True, **more: Any) -> None:
    """Give the role a trust policy with a statement for each condition. Their keys come without the issuer's name.

    Without the role, create it, and let it read S3.

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
    document, iam = json.dumps({"Version": "2012-10-17", "Statement": statements}), lab.aws.client("iam")
    try:
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=document)
    except iam.exceptions.NoSuchEntityException:
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)
        iam.attach_role_policy(RoleName=role, PolicyArn=READING)


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


CART, BOTH = (lambda name: subject(name, "cart")), (lambda name: subject(name, "cart", "reports"))


def permit(lab: Lab, role: str, *, attached: str = "", detached: str = "", allowed: str = "") -> None:
    """Create the right role of 02-b, then change its permissions: attach and detach a policy, and allow an action."""
    trust(lab, role, {"StringEquals": {"sub": BOTH(role)}})
    iam = lab.aws.client("iam")
    if attached:
        iam.attach_role_policy(RoleName=role, PolicyArn=attached)
    if detached:
        iam.detach_role_policy(RoleName=role, PolicyArn=detached)
    if allowed:
        statement = {"Effect": "Allow", "Action": allowed, "Resource": f"arn:aws:s3:::{role}"}
        document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
        iam.put_role_policy(RoleName=role, PolicyName="more", PolicyDocument=document)


ATTEMPTS.more(
    "02-a",
    wrong={
        "the second account as well": (
            "someone without a token, for exercise-02-a found admitted",
            lambda lab, name: trust(
                lab, name, {"StringEquals": {"sub": CART(name)}}, others=str(lab.connection.other_account)
            ),
        ),
    },
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
        "no role at all": (f"reports lists the bucket found {REFUSED}", lambda lab, name: None),
        "a third name that exists": (
            "till lists the bucket found allowed",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": subject(name, "cart", "reports", "till")}}),
        ),
        "a third name that doesn't exist": (
            "created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": subject(name, "cart", "reports", "later")}}),
        ),
        "the names in a namespace too many": (
            "default:cart, created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": [*BOTH(name), *subject("default", "cart")]}}),
        ),
        "everybody but till": (
            "created just now found admitted",
            lambda lab, name: trust(lab, name, {"StringNotEquals": {"sub": subject(name, "till")}}),
        ),
        "a role that may do nothing": (
            "cart lists the bucket found AccessDenied: User",
            lambda lab, name: permit(lab, name, detached=READING),
        ),
        "a role that may do everything with S3": (
            "cart calls delete_object found allowed",
            lambda lab, name: permit(lab, name, attached="arn:aws:iam::aws:policy/AmazonS3FullAccess"),
        ),
        "a role that may delete the bucket": (
            "s3:DeleteBucket on exercise-02-b found allowed",
            lambda lab, name: permit(lab, name, allowed="s3:DeleteBucket"),
        ),
        "the action of AWS's own services": (
            f"cart lists the bucket found {REFUSED}",
            lambda lab, name: trust(lab, name, {"StringEquals": {"sub": BOTH(name)}}, Action="sts:AssumeRole"),
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
        "a policy for this bucket alone": lambda lab, name: permit(
            lab, name, detached=READING, allowed="s3:ListBucket"
        ),
        "without the case": lambda lab, name: trust(lab, name, {"StringEqualsIgnoreCase": {"sub": BOTH(name)}}),
        "two conditions that both hold": lambda lab, name: trust(
            lab,
            name,
            {"StringEquals": {"sub": BOTH(name)}, "StringLike": {"sub": f"system:serviceaccount:{name}:*"}},
        ),
    },
)


@wrong("02-b", "till lists the bucket found allowed")
def any_of_the_namespace(lab, name):
    trust(lab, name, {"StringLike": {"sub": f"system:serviceaccount:{name}:*"}})


@wrong("02-b", f"cart lists the bucket found {REFUSED}")
def reports_in_the_place_of_cart(lab, name):
    trust(lab, name, {"StringEquals": {"sub": subject(name, "reports")}})


@wrong("02-b", f"reports lists the bucket found {REFUSED}")
def both_names_in_one_text(lab, name):
    trust(lab, name, {"StringEquals": {"sub": f"system:serviceaccount:{name}:cart,reports"}})


@right("02-b")
def two_statements(lab, name):
    trust(lab, name, *({"StringEquals": {"sub": one}} for one in subject(name, "cart", "reports")))


@right("02-b")
def two_names_of_string_like(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "cart", "reports")}})


@wrong("02-b", "created just now found admitted")
def wildcards_that_fit_only_the_two_that_exist(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "ca*", "repor??")}})


@wrong("02-b", "created just now found admitted")
def wildcards_between_the_first_and_the_last_letter(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "c*t", "r*s")}})


@wrong("02-b", "created just now found admitted")
def a_wildcard_for_one_letter(lab, name):
    trust(lab, name, {"StringLike": {"sub": subject(name, "c?rt", "reports")}})
