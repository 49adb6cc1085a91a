"""Notebook 02: the trust policy decides who may become the role."""

from labkit import documents
from labkit.course.exercises.asking import admits, newcomers, only_cart, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import oidc_provider, service_account
from labkit.workspace import Workspace


def _role_for_the_wrong_namespace(place: Workspace) -> None:
    _accounts(place, "till")
    elsewhere = place.parameters.model_copy(update={"namespace": "default"})
    policy = documents.trust_policy(elsewhere, place.provider_arn)
    make_role(place, policy)


def _role_for_cart_alone(place: Workspace) -> None:
    _accounts(place, "till", "guest")
    make_role(place)


def _accounts(place: Workspace, *others: str) -> None:
    oidc_provider.ensure(place)
    service_account.ensure(place)
    for name in others:
        make_account(place, name)


def _cart_and_till(place: Workspace) -> list[Comparison]:
    both = ("cart", "till")
    return [*(admits(place, name) for name in both), refuses(place, "guest"), *newcomers(place, *both)]


EXERCISES = (
    Exercise(
        "02-a",
        "let cart in, and nobody else",
        _role_for_the_wrong_namespace,
        only_cart,
        "Read the role's trust policy: which service account does it admit, and in which namespace?",
        "The subject is system:serviceaccount:NAMESPACE:NAME. One of its parts is wrong.",
        'The condition key that ends in :sub needs the value "system:serviceaccount:exercise-02-a:cart".',
    ),
    Exercise(
        "02-b",
        "let cart and till in, and nobody else",
        _role_for_cart_alone,
        _cart_and_till,
        "Which condition key holds the subject? That key can have two values.",
        "StringEquals with a list matches if one value of the list is equal. A wildcard would also admit guest.",
        "Set the condition key that ends in :sub to a list of two subjects: one for cart, and one for till.",
    ),
)

PREDICTIONS = (
    Question(
        "02-1",
        'The trust policy says StringEquals, and sub is now "system:serviceaccount:*". Who gets in?',
        Answer(
            "Every service account of the cluster.",
            "For that, the policy needs StringLike. StringEquals compares letter by letter.",
        ),
        Right("Nobody.", "StringEquals takes the asterisk literally, and no service account's subject is this text."),
        Answer(
            "Only my-service-account, as before.",
            "StringEquals takes the asterisk literally, and this text isn't my-service-account's subject.",
        ),
    ),
)

RECALL = (
    Question(
        "02-2",
        "Which condition key limits a role to one service account?",
        Answer("aud", "aud says who the token is for. It's the same in every service account's token for AWS."),
        Right("sub", "sub holds the namespace and the name of the service account."),
        Answer("iss", "iss is the same for all service accounts of the cluster: it names the cluster's issuer."),
    ),
    Question(
        "02-3",
        "A role has two kinds of policies. Which kind does STS read when a pod asks for the role?",
        Right("The trust policy.", "It says who may become the role."),
        Answer("The permissions policies.", "AWS reads them later, when someone uses the role's credentials."),
        Answer("Both.", "A pod can also become a role without permissions. That role just can't do anything."),
    ),
    Question(
        "02-4",
        "You want every service account of the namespace shop to get the role. What do you write?",
        Answer(
            'StringEquals, "system:serviceaccount:shop:*"',
            "StringEquals takes the asterisk literally, so this admits nobody.",
        ),
        Right(
            'StringLike, "system:serviceaccount:shop:*"',
            "StringLike matches wildcards. Anyone who may create a pod or a token in shop can now get the role.",
        ),
        Answer(
            'StringLike, "system:serviceaccount:*"',
            "This admits every service account of the cluster, in every namespace.",
        ),
    ),
    Question(
        "02-5",
        "The trust policy has no condition on sub. Who gets the role?",
        Answer("Nobody.", "A missing condition excludes nobody."),
        Right(
            "Every service account of the cluster.",
            "Each of them can get a token with the right issuer and the right audience.",
        ),
        Answer("Only service accounts with the annotation.", "STS never sees the annotation."),
    ),
    Question(
        "02-6",
        "Why do the condition keys begin with the issuer without https://?",
        Right(
            "IAM names a provider's condition keys after the provider's host and path.",
            "For a key with https://, IAM answers: Condition can contain only one colon.",
        ),
        Answer("To save space.", "Space doesn't matter. IAM rejects a policy with https:// in a condition key."),
        Answer("Because STS uses HTTP here.", "STS fetches the keys over HTTPS."),
    ),
)
