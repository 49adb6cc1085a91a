"""Tries at the exercises of notebook 08."""

import json

from labkit import Lab, terraform
from tests.course.attempts import KEY, Attempts, admit_account, annotate, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
REFUSED = "AccessDenied: Not authorized to perform sts:AssumeRoleWithWebIdentity"
RELEASE = "provider-aws-s3"


def policy(lab: Lab, name: str, *accounts: str, **more: str) -> str:
    this = {"provider_arn": lab.provider_arn, "namespace_service_accounts": [f"{name}:{each}" for each in accounts]}
    return json.dumps(terraform.rendered({"name": name, "oidc_providers": {"this": this}, **more}).trust_policy)


def apply(lab: Lab, name: str, *accounts: str, **more: str) -> None:
    update_trust(lab, name, policy(lab, name, *accounts, **more))


def existing(lab: Lab, name: str) -> dict[str, str]:
    return next(role for role in lab.aws.client("iam").list_roles()["Roles"] if role["RoleName"].startswith(name))


@wrong("08-a", "exercise-08-a:cart found admitted")
def the_whole_namespace(lab, name):
    apply(lab, name, "*", trust_condition_test="StringLike")


@wrong("08-a", f"exercise-08-a:{RELEASE}-6f461b0ba11f found {REFUSED}")
def a_pattern_with_string_equals(lab, name):
    apply(lab, name, f"{RELEASE}-*")


@wrong("08-a", f"exercise-08-a:{RELEASE}-b93e5a1c7d20 found {REFUSED}")
def only_the_releases_of_today(lab, name):
    apply(lab, name, f"{RELEASE}-6f461b0ba11f", f"{RELEASE}-0d81c27f44ae")


@wrong("08-a", "created just now found admitted")
def the_releases_of_every_namespace(lab, name):
    admitted = policy(lab, name, f"{RELEASE}-*", trust_condition_test="StringLike")
    everywhere = admitted.replace(f"serviceaccount:{name}:", "serviceaccount:*:")
    update_trust(lab, name, everywhere)


@right("08-a")
def their_common_beginning(lab, name):
    apply(lab, name, f"{RELEASE}-*", trust_condition_test="StringLike")


@right("08-a")
def twelve_letters_after_the_beginning(lab, name):
    apply(lab, name, f"{RELEASE}-{'?' * 12}", trust_condition_test="StringLike")


@wrong("08-b", f"a new pod of cart takes its role found {REFUSED}")
def the_prefix_itself(lab, name):
    annotate(lab, name, "cart", **{KEY: f"{lab.role_arn.rpartition('/')[0]}/{name}-"})


@wrong("08-b", "a new pod of cart takes its role found exercise-08-b-")
def the_name_in_the_place_of_the_arn(lab, name):
    annotate(lab, name, "cart", **{KEY: existing(lab, f"{name}-")["RoleName"]})


@wrong("08-b", "exercise-08-b:till found admitted")
def a_role_for_the_whole_namespace(lab, name):
    document = policy(lab, name, "*", trust_condition_test="StringLike")
    lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)


@right("08-b")
def the_arn_of_the_role_that_exists(lab, name):
    annotate(lab, name, "cart", **{KEY: existing(lab, f"{name}-")["Arn"]})


@right("08-b")
def a_role_without_the_prefix(lab, name):
    lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy(lab, name, "cart"))


def reannotate(lab: Lab, name: str, role: str) -> None:
    annotate(lab, name, "cart", **{KEY: role})


def arn(lab: Lab, name: str) -> str:
    return existing(lab, f"{name}-")["Arn"]


def like(lab: Lab, name: str, *accounts: str) -> None:
    apply(lab, name, *accounts, trust_condition_test="StringLike")


NEXT = f"exercise-08-a:{RELEASE}-b93e5a1c7d20 found {REFUSED}"
STAYS = f"a new pod of cart takes its role found {REFUSED}"
ATTEMPTS.more(
    "08-a",
    wrong={
        "nothing": (f"exercise-08-a:{RELEASE}-6f461b0ba11f found {REFUSED}", lambda lab, name: None),
        "a beginning of one letter": ("created just now found admitted", lambda lab, name: like(lab, name, "p*")),
        "the beginning and cart": (
            "exercise-08-a:cart found admitted",
            lambda lab, name: like(lab, name, f"{RELEASE}-*", "cart"),
        ),
        "the beginning and default": (
            "exercise-08-a:default found admitted",
            lambda lab, name: like(lab, name, f"{RELEASE}-*", "default"),
        ),
        "eleven letters after the beginning": (NEXT, lambda lab, name: like(lab, name, f"{RELEASE}-{'?' * 11}")),
        "the beginning without its last dash": (
            "created just now found admitted",
            lambda lab, name: like(lab, name, f"{RELEASE}*"),
        ),
        "one release": (NEXT, lambda lab, name: like(lab, name, f"{RELEASE}-6f461b0ba11f")),
    },
    right={
        "one letter at least": lambda lab, name: like(lab, name, f"{RELEASE}-?*"),
        "each of today and the pattern": lambda lab, name: like(
            lab, name, f"{RELEASE}-6f461b0ba11f", f"{RELEASE}-0d81c27f44ae", f"{RELEASE}-*"
        ),
        "written without the module": lambda lab, name: update_trust(
            lab, name, policy(lab, name, f"{RELEASE}-*").replace("StringEquals", "StringLike")
        ),
    },
)
ATTEMPTS.more(
    "08-b",
    wrong={
        "nothing": (STAYS, lambda lab, name: None),
        "the annotation taken away": (
            "a new pod of cart takes its role found no role",
            lambda lab, name: annotate(lab, name, "cart", **{KEY: None}),
        ),
        "an asterisk behind the prefix": (
            "found ValidationError: Request ARN is invalid",
            lambda lab, name: reannotate(lab, name, f"{lab.connection.role_arn(name)}-*"),
        ),
        "a role of another account": (
            "a new pod of cart takes its role found InvalidIdentityToken",
            lambda lab, name: reannotate(lab, name, arn(lab, name).replace("123456789012", "222222222222")),
        ),
        "its role opened to the account": (
            "someone without a token, for exercise-08-b-",
            lambda lab, name: (
                admit_account(lab, existing(lab, f"{name}-")["RoleName"]),
                reannotate(lab, name, arn(lab, name)),
            ),
        ),
        "every name that begins with c": (
            "created just now found admitted",
            lambda lab, name: lab.aws.client("iam").create_role(
                RoleName=name, AssumeRolePolicyDocument=policy(lab, name, "c*", trust_condition_test="StringLike")
            ),
        ),
        "a role that admits till alone": (
            STAYS,
            lambda lab, name: lab.aws.client("iam").create_role(
                RoleName=name, AssumeRolePolicyDocument=policy(lab, name, "till")
            ),
        ),
        "till annotated as well": (
            "a new pod of till found arn:aws:iam::",
            lambda lab, name: (
                reannotate(lab, name, arn(lab, name)),
                annotate(lab, name, "till", **{KEY: arn(lab, name)}),
            ),
        ),
        "cart and till admitted": (
            "exercise-08-b:till found admitted",
            lambda lab, name: lab.aws.client("iam").create_role(
                RoleName=name, AssumeRolePolicyDocument=policy(lab, name, "cart", "till")
            ),
        ),
    },
    right={
        "a new role under another name": lambda lab, name: reannotate(
            lab,
            name,
            lab.aws.client("iam").create_role(
                RoleName=f"{name}-mine", AssumeRolePolicyDocument=policy(lab, name, "cart")
            )["Role"]["Arn"],
        ),
        "the wrong one first": lambda lab, name: (
            reannotate(lab, name, existing(lab, f"{name}-")["RoleName"]),
            reannotate(lab, name, arn(lab, name)),
        ),
        "both roles": lambda lab, name: (
            lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=policy(lab, name, "cart")),
            reannotate(lab, name, arn(lab, name)),
        ),
    },
)
