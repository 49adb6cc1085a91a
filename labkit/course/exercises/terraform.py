"""Notebook 06: the role that a Terraform module makes."""

from typing import Any

from labkit import terraform
from labkit.connection import core_api
from labkit.course.exercises.asking import ADMITTED, admits, elsewhere, exchange, injected, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import oidc_provider, service_account
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

RELEASES = ("provider-aws-s3-6f461b0ba11f", "provider-aws-s3-0d81c27f44ae")
NEXT_RELEASE = "provider-aws-s3-b93e5a1c7d20"
# Terraform's AWS provider adds a time and a counter like these to a name's prefix.
ADDED = "20260114093122345600000001"


def _wildcard_that_admits_nobody(place: Workspace) -> None:
    for name in RELEASES:
        make_account(place, name)
    variables = terraform.variables(place.parameters, place.provider_arn)
    variables["oidc_providers"]["this"]["namespace_service_accounts"] = [f"{place.parameters.namespace}:*"]
    _role(place, variables)


def _role_whose_name_is_a_prefix(place: Workspace) -> None:
    make_account(place, "till", {})
    variables = terraform.variables(place.parameters, place.provider_arn)
    del variables["use_name_prefix"]
    _role(place, variables, ADDED)


def _role(place: Workspace, variables: dict[str, Any], added: str = "") -> None:
    oidc_provider.ensure(place)
    service_account.ensure(place)
    made = terraform.rendered(variables)
    make_role(place, made.trust_policy, name=made.name + added)


def _each_release_and_nobody_else(place: Workspace) -> list[Comparison]:
    core, namespace = core_api(place.kubernetes), place.parameters.namespace
    if existing(lambda: core.read_namespaced_service_account(NEXT_RELEASE, namespace)) is None:
        make_account(place, NEXT_RELEASE)
    admitted = [admits(place, name) for name in (*RELEASES, NEXT_RELEASE)]
    return [*admitted, refuses(place), refuses(place, "default"), *elsewhere(place, NEXT_RELEASE)]


def _the_role_that_exists(place: Workspace) -> list[Comparison]:
    role = injected(place)
    arn = role if role.startswith("arn:") else ""
    answer = exchange(place, role_arn=arn) if arn else role
    return [
        Comparison("a new pod of cart takes its role", ADMITTED, answer),
        Comparison("a new pod of till", "no role", injected(place, "till")),
        refuses(place, "till", role_arn=arn),
    ]


EXERCISES = (
    Exercise(
        "06-a",
        "let each release's service account in, and nobody else",
        _wildcard_that_admits_nobody,
        _each_release_and_nobody_else,
        "Two things are wrong in the trust policy's condition: the operator, and the value for the subject.",
        "The variable trust_condition_test sets the operator. The value should be a pattern that matches the names "
        "of all the releases' service accounts.",
        'Set trust_condition_test to "StringLike", and namespace_service_accounts to [f"{task}:provider-aws-s3-*"].',
    ),
    Exercise(
        "06-b",
        "let cart's pods take their role",
        _role_whose_name_is_a_prefix,
        _the_role_that_exists,
        "STS gives the same answer for a missing role as for a wrong trust policy. Which role does the annotation "
        "name, and which roles exist?",
        "The configuration doesn't set use_name_prefix. Look for a role with a name that begins with exercise-06-b-.",
        "Find the role's Arn with iam.list_roles(), and write it into cart's annotation eks.amazonaws.com/role-arn.",
    ),
)

PREDICTIONS = (
    Question(
        "06-1",
        "You applied \"default:*\", and didn't set the module's operator. What does STS answer?",
        Answer(
            "Credentials, for every service account of default.",
            "For that, you need StringLike. The module writes StringEquals by default.",
        ),
        Right("AccessDenied.", "StringEquals compares letter by letter, and no service account's name is an asterisk."),
        Answer(
            "The same as before: IAM rejected the policy.",
            "IAM accepted the policy. But no service account matches it.",
        ),
    ),
)

RECALL = (
    Question(
        "06-2",
        "Which variable of the module names the service account?",
        Answer("name", "It's the role's name."),
        Right(
            "namespace_service_accounts",
            "It holds NAMESPACE:NAME. The trust policy then names system:serviceaccount:NAMESPACE:NAME.",
        ),
        Answer("provider_arn", "It names the cluster's OIDC provider, not a service account."),
    ),
    Question(
        "06-3",
        "Your configuration says nothing about the audience. What does the trust policy say?",
        Answer("Nothing.", "The module always writes a condition on :aud."),
        Right(
            "sts.amazonaws.com",
            "The module itself writes this audience, and the webhook asks for tokens with the same audience.",
        ),
        Answer("The cluster's own audience.", "That's the audience of a pod's token for the Kubernetes API."),
    ),
    Question(
        "06-4",
        'namespace_service_accounts is ["shop:*"], and trust_condition_test isn\'t set. Who gets the role?',
        Answer("Every service account of shop.", "For that, trust_condition_test must be StringLike."),
        Right("Nobody.", "StringEquals takes the asterisk literally."),
        Answer(
            "Every service account of the cluster.",
            "With StringLike, the role would admit shop's service accounts, but no others.",
        ),
    ),
    Question(
        "06-5",
        'You set name to "reader", and don\'t set use_name_prefix. Which ARN belongs in the annotation?',
        Answer(
            "The one that ends in role/reader.",
            "No such role exists. The role's name begins with reader- and ends with a timestamp.",
        ),
        Answer("The one that ends in role/reader-.", "That's the prefix. The AWS provider adds a timestamp to it."),
        Right(
            "The value of module.irsa.arn.",
            "Let Terraform write this value into the annotation. The annotation then stays right when Terraform "
            "replaces the role.",
        ),
    ),
    Question(
        "06-6",
        'You set policies = {reader = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"}. What does the module create?',
        Answer("A policy with the name reader.", "The policy exists already. Only Terraform uses the name reader."),
        Right(
            "An attachment of AmazonS3ReadOnlyAccess to the role.",
            "The module attaches the policy, as attach-role-policy does in step 2.",
        ),
        Answer(
            "A statement in the trust policy.",
            "The trust policy says who may become the role, not what the role may do.",
        ),
    ),
)
