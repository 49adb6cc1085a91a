"""Tries at the exercises of notebook 99."""

import json

from labkit import Lab
from labkit.course.exercises.clean_up import ATTACHED, TEAMS
from labkit.steps import iam_role
from tests.course.attempts import Attempts

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def delete(lab: Lab, name: str, *workloads: str) -> None:
    for workload in workloads:
        lab.aws.client("iam").delete_role(RoleName=f"{name}-{workload}")


@wrong("99-a", "IAM's answer for exercise-99-a found exists")
def one_policy_detached(lab, name):
    lab.aws.client("iam").detach_role_policy(RoleName=name, PolicyArn=ATTACHED)


@wrong("99-a", "IAM's answer for exercise-99-a-till found NoSuchEntity")
def both_roles(lab, name):
    for role in (name, f"{name}-till"):
        iam_role.delete(lab.aws.client("iam"), role)


@wrong("99-a", "IAM's answer for exercise-99-a found exists")
def the_other_role(lab, name):
    delete(lab, name, "till")


@right("99-a")
def both_kinds_of_policies_first(lab, name):
    iam = lab.aws.client("iam")
    iam.detach_role_policy(RoleName=name, PolicyArn=ATTACHED)
    iam.delete_role_policy(RoleName=name, PolicyName="writing")
    iam.delete_role(RoleName=name)


@right("99-a")
def whatever_the_lists_have(lab, name):
    iam_role.delete(lab.aws.client("iam"), name)


@wrong("99-b", "IAM's answer for exercise-99-b-till found NoSuchEntity")
def all_that_begin_alike(lab, name):
    delete(lab, name, *TEAMS)


@wrong("99-b", "IAM's answer for exercise-99-b-vault found exists")
def the_first_alone(lab, name):
    delete(lab, name, "cart")


@wrong("99-b", "IAM's answer for exercise-99-b-cart found exists")
def none(lab, name):
    pass


@right("99-b")
def by_the_tag(lab, name):
    iam = lab.aws.client("iam")
    for workload in TEAMS:
        if {"Key": "team", "Value": "shop"} in iam.list_role_tags(RoleName=f"{name}-{workload}")["Tags"]:
            delete(lab, name, workload)


@right("99-b")
def by_the_names_that_were_looked_up(lab, name):
    delete(lab, name, "cart", "vault")


def iam(lab: Lab):
    return lab.aws.client("iam")


def emptied(lab: Lab, name: str) -> None:
    iam(lab).detach_role_policy(RoleName=name, PolicyArn=ATTACHED)
    iam(lab).delete_role_policy(RoleName=name, PolicyName="writing")


def trusting(lab: Lab, name: str, role: str) -> None:
    """Create a role, with the trust policy of the exercise's first role."""
    policy = json.dumps(iam(lab).get_role(RoleName=f"{name}-till")["Role"]["AssumeRolePolicyDocument"])
    iam(lab).create_role(RoleName=role, AssumeRolePolicyDocument=policy)


FIRST, TILL = "IAM's answer for exercise-99-a found exists", "IAM's answer for exercise-99-a-till found NoSuchEntity"
CART, BANK = (
    "IAM's answer for exercise-99-b-cart found exists",
    "IAM's answer for exercise-99-b-till found NoSuchEntity",
)
VAULT = "IAM's answer for exercise-99-b-vault found exists"
ATTEMPTS.more(
    "99-a",
    wrong={
        "nothing": (FIRST, lambda lab, name: None),
        "emptied": (FIRST, emptied),
        "the inline policy deleted": (
            FIRST,
            lambda lab, name: iam(lab).delete_role_policy(RoleName=name, PolicyName="writing"),
        ),
        "made again": (FIRST, lambda lab, name: (iam_role.delete(iam(lab), name), trusting(lab, name, name))),
        "tagged as deleted": (
            FIRST,
            lambda lab, name: iam(lab).tag_role(RoleName=name, Tags=[{"Key": "deleted", "Value": "yes"}]),
        ),
        "the other role, and this one emptied": (
            TILL,
            lambda lab, name: (emptied(lab, name), delete(lab, name, "till")),
        ),
        "its boundary alone": (
            FIRST,
            lambda lab, name: iam(lab).put_role_permissions_boundary(RoleName=name, PermissionsBoundary=ATTACHED),
        ),
    },
    right={
        "the inline policy first": lambda lab, name: (
            iam(lab).delete_role_policy(RoleName=name, PolicyName="writing"),
            iam(lab).detach_role_policy(RoleName=name, PolicyArn=ATTACHED),
            iam(lab).delete_role(RoleName=name),
        ),
        "with a policy given to the other one": lambda lab, name: (
            iam(lab).attach_role_policy(RoleName=f"{name}-till", PolicyArn=ATTACHED),
            iam_role.delete(iam(lab), name),
        ),
        "made again, and deleted": lambda lab, name: (
            iam_role.delete(iam(lab), name),
            trusting(lab, name, name),
            iam(lab).delete_role(RoleName=name),
        ),
    },
)
ATTEMPTS.more(
    "99-b",
    wrong={
        "the last alone": (CART, lambda lab, name: delete(lab, name, "vault")),
        "the wrong team": (BANK, lambda lab, name: delete(lab, name, "till")),
        "one of each team": (BANK, lambda lab, name: delete(lab, name, "cart", "till")),
        "vault and till": (CART, lambda lab, name: delete(lab, name, "vault", "till")),
        "the tags alone": (
            CART,
            lambda lab, name: [iam(lab).untag_role(RoleName=f"{name}-{each}", TagKeys=["team"]) for each in TEAMS],
        ),
        "the tag changed": (
            VAULT,
            lambda lab, name: (
                delete(lab, name, "cart"),
                iam(lab).tag_role(RoleName=f"{name}-vault", Tags=[{"Key": "team", "Value": "bank"}]),
            ),
        ),
        "made again": (
            CART,
            lambda lab, name: (delete(lab, name, "cart", "vault"), trusting(lab, name, f"{name}-cart")),
        ),
    },
    right={
        "in the other order": lambda lab, name: delete(lab, name, "vault", "cart"),
        "one by one, through the steps": lambda lab, name: [
            iam_role.delete(iam(lab), f"{name}-{each}") for each in ("cart", "vault")
        ],
        "all but the team bank": lambda lab, name: delete(
            lab, name, *(workload for workload, team in TEAMS.items() if team != "bank")
        ),
    },
)
