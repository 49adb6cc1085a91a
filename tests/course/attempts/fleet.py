"""Tries at the exercises of notebook 14. Each has the same result for every row that can drift."""

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, admit_account, annotate, trust_policy, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
ROWS = ("cart", "till", "reports")


def arn(lab: Lab, name: str, row: str) -> str:
    return lab.connection.role_arn(f"{name}-{row}")


def name_roles(lab: Lab, name: str, **roles: str) -> None:
    """Annotate each service account with the role of its own name, or of another row."""
    for row in ROWS:
        annotate(lab, name, row, **{KEY: arn(lab, name, roles.get(row, row))})


def drifted(lab: Lab, name: str) -> str:
    accounts = CoreV1Api(lab.kubernetes).list_namespaced_service_account(name).items
    found = {each.metadata.name: (each.metadata.annotations or {}).get(KEY) for each in accounts}
    return next(row for row in ROWS if found[row] != arn(lab, name, row))


def admit(lab: Lab, name: str, row: str, *subjects: str, operator: str = "StringEquals") -> None:
    policy, issuer = trust_policy(lab, f"{name}-{row}"), lab.issuer.removeprefix("https://")
    conditions = {"StringEquals": {f"{issuer}:aud": "sts.amazonaws.com"}}
    conditions.setdefault(operator, {})[f"{issuer}:sub"] = [f"system:serviceaccount:{name}:{each}" for each in subjects]
    policy["Statement"][0]["Condition"] = conditions
    update_trust(lab, f"{name}-{row}", policy)


@wrong("14-b", "a new pod of")
def every_row_takes_one_role(lab, name):
    for row in ROWS:
        annotate(lab, name, row, **{KEY: arn(lab, name, "cart")})


@wrong("14-b", "cart asks for the role of till found admitted")
def a_role_that_admits_two(lab, name):
    name_roles(lab, name)
    admit(lab, name, "till", "till", "cart")


@right("14-b")
def the_drifted_annotation(lab, name):
    row = drifted(lab, name)
    annotate(lab, name, row, **{KEY: arn(lab, name, row)})


@right("14-b")
def every_annotation(lab, name):
    name_roles(lab, name)


def made_again(lab: Lab, name: str, row: str) -> None:
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account(row, name)
    core.create_namespaced_service_account(name, {"metadata": {"name": row, "annotations": {KEY: arn(lab, name, row)}}})


def without(lab: Lab, name: str) -> None:
    annotate(lab, name, drifted(lab, name), **{KEY: None})


ATTEMPTS.more(
    "14-b",
    wrong={
        "nothing": ("a new pod of", lambda lab, name: None),
        "no annotation": ("found no role", without),
        "the other two": (
            "a new pod of",
            lambda lab, name: [annotate(lab, name, each, **{KEY: None}) for each in ROWS if each != drifted(lab, name)],
        ),
        "the role's name": (
            "a new pod of",
            lambda lab, name: [annotate(lab, name, each, **{KEY: f"{name}-{each}"}) for each in ROWS],
        ),
        "two swapped": ("a new pod of cart", lambda lab, name: name_roles(lab, name, cart="till", till="cart")),
        "the whole namespace": (
            "for the role of cart found admitted",
            lambda lab, name: (name_roles(lab, name), admit(lab, name, "cart", "*", operator="StringLike")),
        ),
        "a name that doesn't exist": (
            "exercise-14-b:orders, created just now, for the role of reports found admitted",
            lambda lab, name: (name_roles(lab, name), admit(lab, name, "reports", "reports", "orders")),
        ),
        "the account as well": (
            "someone without a token, for exercise-14-b-cart found admitted",
            lambda lab, name: (name_roles(lab, name), admit_account(lab, f"{name}-cart")),
        ),
        "a role that admits nobody": (
            "reports asks for its role found AccessDenied",
            lambda lab, name: (name_roles(lab, name), admit(lab, name, "reports", "report")),
        ),
    },
    right={
        "each service account made again": lambda lab, name: [made_again(lab, name, each) for each in ROWS],
        "each trust policy written again": lambda lab, name: (
            name_roles(lab, name),
            [admit(lab, name, each, each) for each in ROWS],
        ),
        "wrong first": lambda lab, name: (name_roles(lab, name, cart="till"), name_roles(lab, name)),
    },
)


def subjects(lab: Lab, name: str, **others: str) -> None:
    """Let each role admit the service account of its own name, or another one."""
    for row in ROWS:
        admit(lab, name, row, others.get(row, row))


@wrong("14-a", "till asks for its role found AccessDenied")
def the_name_of_the_role_as_subject(lab, name):
    for row in ROWS:
        admit(lab, name, row, f"{name}-{row}")


@wrong("14-a", "created just now, for the role of cart found admitted")
def the_whole_namespace(lab, name):
    for row in ROWS:
        admit(lab, name, row, row, "*", operator="StringLike")


@right("14-a")
def each_its_own(lab, name):
    subjects(lab, name)


@right("14-a")
def with_another_operator(lab, name):
    for row in ROWS:
        admit(lab, name, row, row, operator="StringLike")


ATTEMPTS.more(
    "14-a",
    wrong={
        "nothing": ("cart asks for the role of till found admitted", lambda lab, name: None),
        "only till": (
            "cart asks for the role of reports found admitted",
            lambda lab, name: admit(lab, name, "till", "till"),
        ),
        "till for every role": (
            "reports asks for its role found AccessDenied",
            lambda lab, name: [admit(lab, name, each, "till") for each in ROWS],
        ),
        "all three for every role": (
            "reports asks for the role of cart found admitted",
            lambda lab, name: [admit(lab, name, each, *ROWS) for each in ROWS],
        ),
        "cart as well": (
            "cart asks for the role of till found admitted",
            lambda lab, name: [admit(lab, name, each, each, "cart") for each in ROWS],
        ),
        "two swapped": (
            "till asks for its role found AccessDenied",
            lambda lab, name: subjects(lab, name, till="reports", reports="till"),
        ),
        "the annotations in the place of the trust policies": (
            "a new pod of till found arn:aws:iam::",
            lambda lab, name: name_roles(lab, name, till="cart", reports="cart"),
        ),
        "another namespace": (
            "cart asks for its role found AccessDenied",
            lambda lab, name: [admit(lab, name, each, f"staging:{each}") for each in ROWS],
        ),
        "a name that doesn't exist": (
            "exercise-14-a:orders, created just now, for the role of reports found admitted",
            lambda lab, name: (subjects(lab, name), admit(lab, name, "reports", "reports", "orders")),
        ),
        "the account as well": (
            "someone without a token, for exercise-14-a-cart found admitted",
            lambda lab, name: (subjects(lab, name), admit_account(lab, f"{name}-cart")),
        ),
    },
    right={
        "only the two that are wrong": lambda lab, name: [admit(lab, name, each, each) for each in ("till", "reports")],
        "wrong first": lambda lab, name: (subjects(lab, name, cart="till"), subjects(lab, name)),
        "each service account made again, too": lambda lab, name: (
            subjects(lab, name),
            [made_again(lab, name, each) for each in ROWS],
        ),
    },
)
