"""Tries at the exercises of notebook 99."""

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
