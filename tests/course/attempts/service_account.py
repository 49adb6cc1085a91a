"""Tries at the exercises of notebook 03."""

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, annotate, role_arn, trust_policy, update_trust

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


def subject(lab: Lab, name: str, wanted: str, operator: str = "StringEquals") -> None:
    """Let the role admit this subject instead of its own, compared with this operator."""
    document = trust_policy(lab, name)
    conditions = document["Statement"][0]["Condition"]
    (key,) = [each for each in conditions["StringEquals"] if each.endswith(":sub")]
    del conditions["StringEquals"][key]
    conditions.setdefault(operator, {})[key] = wanted
    update_trust(lab, name, document)


def named(lab: Lab, name: str, **accounts: str) -> None:
    """Create the service accounts that don't exist, and annotate each with the text."""
    core = CoreV1Api(lab.kubernetes)
    taken = {each.metadata.name for each in core.list_namespaced_service_account(name).items}
    for account, text in accounts.items():
        (annotate if account in taken else create)(lab, name, account, **{KEY: text})


ATTEMPTS.more(
    "03-a",
    wrong={
        "a token for another program": (
            "with a token for vault",
            lambda lab, name: annotate(
                lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/audience": "vault"}
            ),
        ),
        "default as well": (
            "a new pod of default found arn:aws:iam::",
            lambda lab, name: named(lab, name, cart=role_arn(lab, name), default=role_arn(lab, name)),
        ),
        "nothing": ("a new pod of cart found no role", lambda lab, name: None),
        "a capital letter in the key": (
            "a new pod of cart found no role",
            lambda lab, name: annotate(lab, name, "cart", **{"eks.amazonaws.com/Role-Arn": role_arn(lab, name)}),
        ),
        "a label's worth of a role that doesn't exist": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: named(lab, name, cart=f"{role_arn(lab, name)}-2"),
        ),
        "an empty role": ("a new pod of cart found no role", lambda lab, name: named(lab, name, cart="")),
        "a space behind the ARN": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: named(lab, name, cart=f"{role_arn(lab, name)} "),
        ),
        "everybody in the trust policy as well": (
            "created just now found admitted",
            lambda lab, name: (
                named(lab, name, cart=role_arn(lab, name)),
                subject(lab, name, f"system:serviceaccount:{name}:*", "StringLike"),
            ),
        ),
    },
    right={
        "the service account made again": lambda lab, name: (
            CoreV1Api(lab.kubernetes).delete_namespaced_service_account("cart", name),
            named(lab, name, cart=role_arn(lab, name)),
        ),
        "first wrong, then right": lambda lab, name: (
            named(lab, name, cart=name),
            named(lab, name, cart=role_arn(lab, name)),
        ),
        "with the life of the token": lambda lab, name: annotate(
            lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/token-expiration": "3600"}
        ),
    },
)
ATTEMPTS.more(
    "03-b",
    wrong={
        "default as well": (
            "a new pod of default found arn:aws:iam::",
            lambda lab, name: named(lab, name, till=role_arn(lab, name), default=role_arn(lab, name)),
        ),
        "cart as well": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: named(lab, name, till=role_arn(lab, name), cart=role_arn(lab, name)),
        ),
        "nothing": ("till found", lambda lab, name: None),
        "the role's name": ("a new pod of till found exercise-03-b", lambda lab, name: named(lab, name, till=name)),
        "a misspelt key": (
            "a new pod of till found no role",
            lambda lab, name: create(lab, name, "till", **{"eks.amazonaws.com/role_arn": role_arn(lab, name)}),
        ),
        "cart admitted instead": (
            "exercise-03-b:cart found admitted",
            lambda lab, name: (
                named(lab, name, cart=role_arn(lab, name)),
                subject(lab, name, f"system:serviceaccount:{name}:cart"),
            ),
        ),
        "every name that begins with till": (
            "created just now found admitted",
            lambda lab, name: (
                named(lab, name, till=role_arn(lab, name)),
                subject(lab, name, f"system:serviceaccount:{name}:till*", "StringLike"),
            ),
        ),
    },
    right={
        "made twice": lambda lab, name: (
            create(lab, name, "till"),
            CoreV1Api(lab.kubernetes).delete_namespaced_service_account("till", name),
            named(lab, name, till=role_arn(lab, name)),
        ),
        "with the life of the token": lambda lab, name: create(
            lab, name, "till", **{KEY: role_arn(lab, name), "eks.amazonaws.com/token-expiration": "3600"}
        ),
        "the wrong role first": lambda lab, name: (
            named(lab, name, till=name),
            named(lab, name, till=role_arn(lab, name)),
        ),
    },
)
