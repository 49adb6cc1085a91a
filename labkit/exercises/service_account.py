"""Notebook 03: a service account's annotation names its role."""

from labkit import documents
from labkit.exercises import making
from labkit.exercises.asking import admits, injected, refuses
from labkit.exercises.exercise import Exercise
from labkit.steps import oidc_provider
from labkit.steps.row import Row
from labkit.widgets.question import Answer, Question
from labkit.workspace import Workspace

MISSPELT = "eks.amazonaws.com/role_arn"


def _misspelt_annotation(place: Workspace) -> None:
    oidc_provider.ensure(place)
    making.role(place)
    making.account(place, "cart", {MISSPELT: place.role_arn})
    making.account(place, "till", {})


def _role_without_its_service_account(place: Workspace) -> None:
    oidc_provider.ensure(place)
    till = place.parameters.model_copy(update={"service_account": "till"})
    making.role(place, documents.trust_policy(till, place.provider_arn))
    making.account(place, "cart", {})


def _a_new_pod_of_cart(place: Workspace) -> list[Row]:
    return [
        Row("a new pod of cart", place.role_arn, injected(place)),
        Row("a new pod of till", "no role", injected(place, "till")),
        admits(place),
    ]


def _a_new_pod_of_till(place: Workspace) -> list[Row]:
    return [
        Row("a new pod of till", place.role_arn, injected(place, "till")),
        Row("a new pod of cart", "no role", injected(place)),
        admits(place, "till"),
        refuses(place),
    ]


EXERCISES = (
    Exercise(
        "03-a",
        "give new pods of cart their role",
        _misspelt_annotation,
        _a_new_pod_of_cart,
        (
            "Read cart's annotations, and compare the key with the one in this notebook, letter by letter.",
            "The webhook knows exactly one key for the role. Anything else is a note to it.",
            'Patch cart: {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "…"}}}, with the value that is '
            "there under the wrong key.",
        ),
    ),
    Exercise(
        "03-b",
        "make the service account that the role waits for",
        _role_without_its_service_account,
        _a_new_pod_of_till,
        (
            "The role's trust policy says which service account it admits. Does that one exist?",
            "It doesn't: make it, in the namespace that the trust policy names, with the role's ARN as annotation.",
            'create_namespaced_service_account with the name "till" and {"eks.amazonaws.com/role-arn": role ARN}.',
        ),
    ),
)

PREDICTIONS = (
    Question(
        "03-1",
        "The annotation is gone. Does STS still admit a token of this service account?",
        (
            Answer("No: nothing names the role any more.", "STS never sees the annotation. It reads the trust policy."),
            Answer(
                "Yes: the trust policy hasn't changed.",
                "You name the role yourself in the call, and the trust policy admits the token's subject.",
                right=True,
            ),
            Answer(
                "Only until the token expires.",
                "A new token would be admitted as well: the annotation isn't part of it.",
            ),
        ),
    ),
)

RECALL = (
    Question(
        "03-2",
        "What does the annotation eks.amazonaws.com/role-arn do?",
        (
            Answer("It lets the service account use the role.", "Only the role's trust policy does that."),
            Answer(
                "It tells the webhook which role to write into new pods.",
                "It's only the role's ARN. Pods that exist already don't change.",
                right=True,
            ),
            Answer("It makes the role.", "Kubernetes makes nothing in AWS here. The role must exist."),
        ),
    ),
    Question(
        "03-3",
        "Somebody misspells the annotation's key. Who complains?",
        (
            Answer("kubectl.", "Kubernetes accepts any well-formed annotation."),
            Answer("STS.", "STS never sees annotations."),
            Answer("Nobody.", "The pods just start without a role, until something in them needs AWS.", right=True),
        ),
    ),
    Question(
        "03-4",
        "Which three claims of the token does AWS compare?",
        (
            Answer(
                "iss, aud and sub.",
                "The provider's URL, its client IDs, and the trust policy's subject.",
                right=True,
            ),
            Answer("iat, exp and jti.", "iat and exp are checked as times; jti is compared with nothing."),
            Answer(
                "The namespace, the pod and the node.",
                "A pod's token names them in the claim kubernetes.io, which AWS doesn't compare. The namespace counts "
                "only as part of sub.",
            ),
        ),
    ),
    Question(
        "03-5",
        "STS answers ValidationError: Request ARN is invalid. What is wrong?",
        (
            Answer(
                "The text after role-arn isn't a role's ARN.",
                "The error is about the form of the request, not about the token or the role.",
                right=True,
            ),
            Answer("The role doesn't exist.", "That would be AccessDenied, as for a role that doesn't trust you."),
            Answer("The token is for another audience.", "That would be InvalidIdentityToken."),
        ),
    ),
    Question(
        "03-6",
        "A role admits system:serviceaccount:shop:cart. What do you make in the cluster?",
        (
            Answer(
                "A service account cart in the namespace shop, annotated with the role's ARN.",
                "The subject names both, and the annotation names the role.",
                right=True,
            ),
            Answer(
                "A service account with the role's name.",
                "The two names needn't be alike. The annotation connects them.",
            ),
            Answer("A service account cart in any namespace.", "The namespace is part of the subject."),
        ),
    ),
)
