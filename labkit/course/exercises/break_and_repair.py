"""Notebook 09: each exercise draws a random fault. The learner sees only the fault's symptom."""

import random
from collections.abc import Sequence

from labkit import documents, steps
from labkit.course import faults
from labkit.course.exercises.asking import caller, injected, only_cart, refuses
from labkit.course.exercises.exercise import Exercise, make_account
from labkit.course.faults import live
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.workspace import Workspace

# With each of these, STS answers: Not authorized to perform sts:AssumeRoleWithWebIdentity.
REFUSED = (
    "trust-policy-names-another-service-account",
    "trust-policy-names-another-namespace",
    "service-account-renamed-by-a-chart",
    "wildcard-is-compared-letter-by-letter",
    "condition-keys-of-another-cluster",
    "trust-policy-allows-another-action",
    "trust-policy-wants-an-endpoint-for-audience",
    "trust-policy-denies",
)
# With each of these, a pod acts as its node.
WITHOUT_ROLE = (
    "annotation-key-misspelt",
    "annotation-of-kube2iam",
    "annotation-left-out",
    "annotation-empty",
    "annotation-on-the-pod",
)


def _role_that_refuses(place: Workspace) -> None:
    _made(place)
    make_account(place, "till")
    _break(place, REFUSED)


def _pod_that_is_its_node(place: Workspace) -> None:
    _made(place)
    _break(place, WITHOUT_ROLE, documents.pod(place.parameters, place.image))


def _made(place: Workspace) -> None:
    for _ in steps.ready_through(place, "service_account"):
        pass


def _break(place: Workspace, names: Sequence[str], *pods: documents.Pod) -> None:
    fault = faults.named(random.choice(names))  # noqa: S311 - nothing is kept secret by it
    now = live.read(place)
    wanted = now.model_copy(deep=True)
    for pod in pods:
        wanted.add(dict(pod))
    live.make(place, now, fault.put_into(wanted))


def _pods_of_cart_alone(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart", place.role_arn, injected(place)),
        Comparison("AWS knows my-pod as", f"assumed-role/{place.parameters.role_name}", caller(place)),
        Comparison("a new pod of default", "no role", injected(place, "default")),
        refuses(place, "default"),
    ]


EXERCISES = (
    Exercise(
        "09-a",
        "let STS admit cart again, and nobody else",
        _role_that_refuses,
        only_cart,
        "STS answers Not authorized to perform sts:AssumeRoleWithWebIdentity. "
        "Which policy decides who may assume a role?",
        "Read the role's trust policy, and compare its principal, its action and each condition with cart's "
        "token. A Deny wins over every Allow.",
        "Write the whole trust policy again, with the principal lab.provider_arn and the action "
        'sts:AssumeRoleWithWebIdentity. StringEquals compares :aud with "sts.amazonaws.com", and :sub with '
        '"system:serviceaccount:exercise-09-a:cart".',
    ),
    Exercise(
        "09-b",
        "give my-pod its role again",
        _pod_that_is_its_node,
        _pods_of_cart_alone,
        "The pod acts as the node, so no token was exchanged. What tells the webhook which role a pod gets?",
        "Read the keys and the values of cart's annotations. At which moment does the webhook change a pod?",
        "Give cart the annotation eks.amazonaws.com/role-arn with the ARN of the role exercise-09-b. Then delete "
        "my-pod, and create it again with serviceAccountName cart.",
    ),
)

PREDICTIONS = (
    Question(
        "09-1",
        "You repair the annotation. Which role does the running pod have now?",
        Answer("Its own role, at once.", "The API server asks the webhook only about new pods."),
        Answer("Its own role, after the next renewal.", "The pod has no token for AWS that could be renewed."),
        Right("Still its node's.", "The webhook changes a pod only when it's created."),
    ),
    Question(
        "09-2",
        "The role's policy allows s3:ListBucket. The bucket's policy denies it to the role. What does the pod get?",
        Answer("The list: the role's policy allows it.", "An Allow never wins over a Deny."),
        Right("AccessDenied.", "A Deny in any of the policies wins."),
        Answer(
            "The list: a bucket's policy applies only to other accounts.",
            "A bucket's policy also applies to the account that owns the bucket.",
        ),
    ),
)

RECALL = (
    Question(
        "09-3",
        "An error begins with InvalidIdentityToken. What do you look at?",
        Answer(
            "The trust policy.",
            "If the trust policy refuses the pod, STS answers AccessDenied. Here STS rejects the token.",
        ),
        Right(
            "The provider: does it exist, and does it list the token's audience?",
            "STS compares the token with the provider.",
        ),
        Answer("The role's permissions.", "The pod doesn't have the role yet."),
    ),
    Question(
        "09-4",
        "An error says User: …assumed-role/blue-node-role/… is not authorized. What's wrong?",
        Answer("The node's role needs more permissions.", "Every pod on the node would get these permissions."),
        Right("The pod doesn't use IRSA.", "Look at the pod, its service account and the annotation."),
        Answer("The trust policy refuses the pod.", "Then the error would name sts:AssumeRoleWithWebIdentity."),
    ),
    Question(
        "09-5",
        "A pod on Fargate says Unable to locate credentials. What does that mean?",
        Right(
            "The pod doesn't use IRSA, and can't reach the node's credentials.",
            "On an EC2 node that gives pods its credentials, this pod would act as its node. Look at the pod, its "
            "service account and the annotation.",
        ),
        Answer("The trust policy refuses the pod.", "Then STS would answer AccessDenied."),
        Answer("The role has no permissions.", "Then the pod would have credentials, and get AccessDenied."),
    ),
    Question(
        "09-6",
        "You have little access. Where do you look first?",
        Answer("The role's trust policy.", "That needs the permission iam:GetRole, which few developers have."),
        Answer("CloudTrail.", "That needs access to the account, and the events arrive minutes late."),
        Right("The pod's service account and its annotation.", "Anyone who may read the namespace can look there."),
    ),
    Question(
        "09-7",
        "Which of these repairs needs a new pod?",
        Answer("The provider's audience.", "The same pod sends its token again, and STS accepts it."),
        Right("The service account's annotation.", "The webhook reads the annotation only when a pod is created."),
        Answer("The bucket's policy.", "S3 reads the bucket's policy at each call."),
    ),
    Question(
        "09-8",
        "You've repaired a trust policy, and your pod gets in. Are you done?",
        Answer("Yes: the pod works.", "The pod would also work with a wildcard, which lets other service accounts in."),
        Right(
            "Not yet: check that AWS still refuses other service accounts, and that nothing is left behind.",
            "A repair that lets others in is another fault.",
        ),
        Answer(
            "Not yet: the pod has to be created again.",
            "STS reads the trust policy at the next exchange. The same pod gets in.",
        ),
    ),
)
