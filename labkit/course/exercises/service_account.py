"""Notebook 03: a service account's annotation names its role."""

from labkit import documents
from labkit.course.exercises.asking import admits, injected, refuses
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.steps import oidc_provider
from labkit.workspace import Workspace

MISSPELT = "eks.amazonaws.com/role_arn"


def _misspelt_annotation(place: Workspace) -> None:
    oidc_provider.ensure(place)
    make_role(place)
    make_account(place, "cart", {MISSPELT: place.role_arn})
    make_account(place, "till", {})


def _role_without_its_service_account(place: Workspace) -> None:
    oidc_provider.ensure(place)
    till = place.parameters.model_copy(update={"service_account": "till"})
    make_role(place, documents.trust_policy(till, place.provider_arn))
    make_account(place, "cart", {})


def _a_new_pod_of_cart(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("a new pod of till", "no role", injected(place, "till")),
        admits(place),
    ]


def _a_new_pod_of_till(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of till", place.role_arn, injected(place, "till")),
        Comparison("a new pod of cart", "no role", injected(place)),
        admits(place, "till"),
        refuses(place),
    ]


EXERCISES = (
    Exercise(
        "03-a",
        "give new pods of cart their role",
        _misspelt_annotation,
        _a_new_pod_of_cart,
        "Read cart's annotations, and compare the key with the one in this notebook, letter by letter.",
        "The webhook knows exactly one key for the role. It ignores all other keys.",
        'Patch the service account cart with {"metadata": {"annotations": {"eks.amazonaws.com/role-arn": "…"}}}. '
        "Replace … with the value of the annotation whose key is wrong.",
    ),
    Exercise(
        "03-b",
        "create the service account that the role admits",
        _role_without_its_service_account,
        _a_new_pod_of_till,
        "The role's trust policy says which service account it admits. Does that service account exist?",
        "The service account doesn't exist. Create it in the namespace that the trust policy names, and annotate "
        "it with the role's ARN.",
        'Call core.create_namespaced_service_account with the name "till" and the annotation '
        '{"eks.amazonaws.com/role-arn": role ARN}.',
    ),
)

PREDICTIONS = (
    Question(
        "03-1",
        "The annotation is gone. Does STS still admit a token of this service account?",
        Answer("No: nothing names the role any more.", "STS never sees the annotation. It reads the trust policy."),
        Right(
            "Yes: the trust policy hasn't changed.",
            "You name the role yourself in the call, and the trust policy admits the token's subject.",
        ),
        Answer(
            "Only until the token expires.",
            "STS would admit a new token as well: the annotation isn't part of a token.",
        ),
    ),
)

RECALL = (
    Question(
        "03-2",
        "What does the annotation eks.amazonaws.com/role-arn do?",
        Answer("It lets the service account use the role.", "Only the role's trust policy does that."),
        Right(
            "It tells the webhook which role to write into new pods.",
            "The webhook reads the annotation when a pod is created. Existing pods don't change.",
        ),
        Answer("It makes the role.", "Kubernetes creates nothing in AWS here. You have to create the role."),
    ),
    Question(
        "03-3",
        "Someone misspells the annotation's key. Who complains?",
        Answer("kubectl.", "Kubernetes accepts any well-formed annotation."),
        Answer("STS.", "STS never sees annotations."),
        Right("Nobody.", "Pods start without a role. You notice it only when a program in a pod calls AWS."),
    ),
    Question(
        "03-4",
        "Which three claims of the token does AWS compare?",
        Right(
            "iss, aud and sub.",
            "AWS compares them with the provider's URL, its client IDs, and the subject in the trust policy.",
        ),
        Answer("iat, exp and jti.", "AWS checks the times iat and exp against its clock. It ignores jti."),
        Answer(
            "The namespace, the pod and the node.",
            "A pod's token names them in the claim kubernetes.io, which AWS doesn't compare. The namespace counts "
            "only as part of sub.",
        ),
    ),
    Question(
        "03-5",
        "STS answers ValidationError: Request ARN is invalid. What is wrong?",
        Right(
            "The text after role-arn isn't a role's ARN.",
            "The error is about the form of the request, not about the token or the role.",
        ),
        Answer("The role doesn't exist.", "Then STS would answer AccessDenied, as for a role that doesn't trust you."),
        Answer("The token is for another audience.", "Then STS would answer InvalidIdentityToken."),
    ),
    Question(
        "03-6",
        "A role admits system:serviceaccount:shop:cart. What do you create in the cluster?",
        Right(
            "A service account cart in the namespace shop, annotated with the role's ARN.",
            "The subject names the namespace and the service account. The annotation names the role.",
        ),
        Answer(
            "A service account with the role's name.",
            "The two names can differ: the annotation connects the service account with the role.",
        ),
        Answer("A service account cart in any namespace.", "The namespace is part of the subject."),
    ),
)
