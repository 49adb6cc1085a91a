"""Tries at the exercises of notebook 07."""

import json
from typing import Any

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, annotate, put_policy, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def allow(actions: str | list[str], resource: str, **condition: Any) -> dict[str, Any]:
    statement = {"Effect": "Allow", "Action": actions, "Resource": f"arn:aws:s3:::{resource}"}
    return statement | ({"Condition": condition} if condition else {})


def listing(name: str) -> dict[str, Any]:
    return allow("s3:ListBucket", name, StringLike={"s3:prefix": "cart/*"})


@wrong("07-a", "cart: list till/ found allowed")
def only_the_objects_limited(lab, name):
    put_policy(lab, name, "reading", allow("s3:ListBucket", name), allow("s3:GetObject", f"{name}/cart/*"))


@wrong("07-a", "cart: list cart/ found AccessDenied")
def the_prefix_in_the_bucket_s_arn(lab, name):
    put_policy(lab, name, "reading", allow(["s3:ListBucket", "s3:GetObject"], f"{name}/cart/*"))


@wrong("07-a", "cart: write cart/1.txt found allowed")
def everything_under_the_prefix(lab, name):
    put_policy(lab, name, "reading", listing(name), allow("s3:*", f"{name}/cart/*"))


@wrong("07-a", "cart: list cart-old/ found allowed\ncart: read cart-old/1.txt found allowed")
def a_prefix_without_its_slash(lab, name):
    wide = allow("s3:ListBucket", name, StringLike={"s3:prefix": "cart*"})
    put_policy(lab, name, "reading", wide, allow("s3:GetObject", f"{name}/cart*"))


@wrong("07-a", "cart: read cart-old/1.txt found allowed")
def every_object_but_those_of_the_other_team(lab, name):
    statement = allow("s3:GetObject", f"{name}/till/*")
    statement["NotResource"] = statement.pop("Resource")
    put_policy(lab, name, "reading", listing(name), statement)


@wrong("07-a", "cart: delete cart/no-such-object found allowed")
def deleting_as_well(lab, name):
    put_policy(lab, name, "reading", listing(name), allow(["s3:GetObject", "s3:DeleteObject"], f"{name}/cart/*"))


@wrong("07-a", "cart: list an empty prefix found allowed")
def an_empty_prefix_beside_its_own(lab, name):
    both = allow("s3:ListBucket", name, StringLike={"s3:prefix": ["cart/*", ""]})
    put_policy(lab, name, "reading", both, allow("s3:GetObject", f"{name}/cart/*"))


@wrong("07-a", "cart: list cart, without a slash found allowed")
def its_prefix_with_and_without_the_slash(lab, name):
    both = allow("s3:ListBucket", name, StringLike={"s3:prefix": ["cart/*", "cart"]})
    put_policy(lab, name, "reading", both, allow("s3:GetObject", f"{name}/cart/*"))


@wrong("07-a", "s3:ListBucket on another-bucket found allowed\ns3:GetObject on another-bucket/cart/1.txt found allowed")
def its_prefix_in_every_bucket(lab, name):
    put_policy(lab, name, "reading", listing("*"), allow("s3:GetObject", "*/cart/*"))


@wrong("07-a", "s3:PutObjectTagging on exercise-07-a/cart/1.txt found allowed")
def everything_under_the_prefix_but_two_actions(lab, name):
    most = allow("s3:*", f"{name}/cart/*")
    put_policy(
        lab,
        name,
        "reading",
        listing(name),
        most,
        {**most, "Effect": "Deny", "Action": ["s3:PutObject", "s3:DeleteObject"]},
    )


@right("07-a")
def one_prefix(lab, name):
    put_policy(lab, name, "reading", listing(name), allow("s3:GetObject", f"{name}/cart/*"))


@right("07-a")
def one_listing_letter_by_letter(lab, name):
    own = allow("s3:ListBucket", name, StringEquals={"s3:prefix": "cart/"})
    put_policy(lab, name, "reading", own, allow("s3:Get*", f"{name}/cart/?.txt"))


def trust(lab: Lab, name: str, *accounts: str) -> dict[str, Any]:
    """The trust policy of the exercise's role, changed to admit these service accounts."""
    policy = trust_policy(lab, name)
    wanted = policy["Statement"][0]["Condition"]["StringEquals"]
    (key,) = [each for each in wanted if each.endswith(":sub")]
    wanted[key] = [f"system:serviceaccount:{name}:{account}" for account in accounts]
    return policy


def make(lab: Lab, name: str, *accounts: str) -> str:
    """Make a role for till that admits these service accounts; return its ARN."""
    policy = json.dumps(trust(lab, name, *accounts))
    made = lab.aws.client("iam").create_role(RoleName=f"{name}-till", AssumeRolePolicyDocument=policy)
    return str(made["Role"]["Arn"])


def admit(lab: Lab, name: str, *accounts: str) -> None:
    update_trust(lab, name, trust(lab, name, *accounts))


def compared(policy: dict[str, Any], operator: str) -> dict[str, Any]:
    """The trust policy with the subject compared by this operator instead of StringEquals."""
    conditions = policy["Statement"][0]["Condition"]
    (key,) = [each for each in conditions["StringEquals"] if each.endswith(":sub")]
    conditions[operator] = {key: conditions["StringEquals"].pop(key)}
    return policy


@wrong("07-b", "a new pod of till found arn:aws:iam::123456789012:role/exercise-07-b")
def a_role_that_nobody_names(lab, name):
    make(lab, name, "till")
    admit(lab, name, "cart")


@wrong("07-b", "till asks for exercise-07-b found admitted")
def the_old_role_left_open(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "till")})


@wrong("07-b", "cart asks for exercise-07-b-till found admitted")
def the_trust_policy_copied(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "cart", "till")})
    admit(lab, name, "cart")


@wrong("07-b", "created just now found admitted")
def everybody_but_the_other(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "till")})
    update_trust(lab, name, compared(trust(lab, name, "till"), "StringNotEquals"))


@wrong("07-b", "created just now found admitted")
def every_name_that_begins_with_cart(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "till")})
    update_trust(lab, name, compared(trust(lab, name, "cart*"), "StringLike"))


@wrong("07-b", "created just now found admitted")
def every_name_that_begins_with_t(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "till")})
    update_trust(lab, f"{name}-till", compared(trust(lab, name, "t*"), "StringLike"))
    admit(lab, name, "cart")


@right("07-b")
def one_role_each(lab, name):
    annotate(lab, name, "till", **{KEY: make(lab, name, "till")})
    admit(lab, name, "cart")


@right("07-b")
def a_new_service_account(lab, name):
    arn = make(lab, name, "till")
    admit(lab, name, "cart")
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account("till", name)
    till = {"name": "till", "annotations": {KEY: arn}}
    core.create_namespaced_service_account(name, {"metadata": till})


def give(lab: Lab, name: str, *of_till: str, cart: tuple[str, ...] = ("cart",)) -> None:
    """Make a role for till that admits these, annotate till, and let the shared role admit `cart`."""
    annotate(lab, name, "till", **{KEY: make(lab, name, *of_till)})
    admit(lab, name, *cart)


def trusted(lab: Lab, name: str, **principal: str) -> None:
    """Let the role also admit this principal."""
    policy = trust_policy(lab, name)
    policy["Statement"].append({"Effect": "Allow", "Principal": principal, "Action": "sts:AssumeRole"})
    update_trust(lab, name, policy)


OWN = {"s3:prefix": "cart/*"}
ATTEMPTS.more(
    "07-a",
    wrong={
        "a write to another bucket, by its name": (
            "s3:PutObject on arn:aws:s3:::shop-archive/",
            lambda lab, name: put_policy(
                lab,
                name,
                "reading",
                listing(name),
                allow("s3:GetObject", f"{name}/cart/*"),
                allow("s3:PutObject", "shop-archive/*"),
            ),
        ),
    },
    right={
        "two policies": lambda lab, name: (
            put_policy(lab, name, "reading", listing(name)),
            put_policy(lab, name, "objects", allow("s3:GetObject", f"{name}/cart/*")),
        ),
        "a deny of everything else": lambda lab, name: put_policy(
            lab,
            name,
            "reading",
            listing(name),
            allow("s3:GetObject", f"{name}/cart/*"),
            {"Effect": "Deny", "Action": "s3:GetObject", "NotResource": f"arn:aws:s3:::{name}/cart/*"},
        ),
        "the listing by two patterns": lambda lab, name: put_policy(
            lab,
            name,
            "reading",
            allow("s3:ListBucket", name, StringLike={"s3:prefix": ["cart/", "cart/?*"]}),
            allow("s3:GetObject", f"{name}/cart/*"),
        ),
    },
)
ATTEMPTS.more(
    "07-b",
    wrong={
        "nothing": ("till asks for exercise-07-b-till found AccessDenied", lambda lab, name: None),
        "only the shared role closed": (
            "till asks for exercise-07-b-till found AccessDenied",
            lambda lab, name: admit(lab, name, "cart"),
        ),
        "till's role may take cart's": (
            "a session of till asks for exercise-07-b found allowed",
            lambda lab, name: (
                give(lab, name, "till"),
                trusted(lab, name, AWS=lab.connection.role_arn(f"{name}-till")),
            ),
        ),
        "EC2 may assume the shared role, too": (
            "ec2.amazonaws.com, for exercise-07-b found admitted",
            lambda lab, name: (give(lab, name, "till"), trusted(lab, name, Service="ec2.amazonaws.com")),
        ),
        "a third name on till's role": (
            "created just now found admitted",
            lambda lab, name: give(lab, name, "till", "later"),
        ),
        "the roles swapped": (
            "till asks for exercise-07-b found admitted",
            lambda lab, name: give(lab, name, "cart", cart=("till",)),
        ),
    },
    right={
        "till's role in two steps": lambda lab, name: (
            give(lab, name, "cart", "till"),
            update_trust(lab, f"{name}-till", trust(lab, name, "till")),
        ),
        "compared by StringLike, without a wildcard": lambda lab, name: (
            give(lab, name, "till"),
            update_trust(lab, f"{name}-till", compared(trust(lab, name, "till"), "StringLike")),
        ),
        "compared by StringEqualsIgnoreCase": lambda lab, name: (
            give(lab, name, "till"),
            update_trust(lab, name, compared(trust(lab, name, "cart"), "StringEqualsIgnoreCase")),
        ),
    },
)
