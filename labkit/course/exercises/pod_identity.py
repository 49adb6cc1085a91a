"""Notebook 11: EKS Pod Identity gives a pod its role."""

import json

from labkit.connection import AGENT_URL
from labkit.course.exercises.asking import agent, pod_identity
from labkit.course.exercises.exercise import Exercise, make_account, make_role
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.policy.written import PolicyDocument
from labkit.workspace import Workspace

ASSUME, TAG = "sts:AssumeRole", "sts:TagSession"


def _association_of_another_name(place: Workspace) -> None:
    _role_and_accounts(place)
    _associate(place, "chart")


def _trust_policy_without_tags(place: Workspace) -> None:
    _role_and_accounts(place)
    _associate(place, "cart", "till")
    # EKS would refuse an association with a role that doesn't allow both actions.
    name = place.parameters.role_name
    place.aws.client("iam").update_assume_role_policy(RoleName=name, PolicyDocument=json.dumps(_trust_policy(ASSUME)))


def _trust_policy(actions: str | list[str]) -> PolicyDocument:
    principal: dict[str, str | list[str]] = {"Service": "pods.eks.amazonaws.com"}
    return {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": principal, "Action": actions}]}


def _role_and_accounts(place: Workspace) -> None:
    make_role(place, _trust_policy([ASSUME, TAG]))
    for name in ("cart", "till"):
        make_account(place, name, {})


def _associate(place: Workspace, *accounts: str) -> None:
    whose = {"clusterName": place.parameters.cluster, "namespace": place.parameters.namespace}
    for name in accounts:
        place.aws.client("eks").create_pod_identity_association(**whose, serviceAccount=name, roleArn=place.role_arn)


def _cart_is_the_role(place: Workspace) -> Comparison:
    return Comparison("the agent gives cart", f"assumed-role/{place.parameters.role_name}", pod_identity(place, "cart"))


def _till_is_refused(place: Workspace, code: str = "") -> Comparison:
    answer = pod_identity(place, "till")
    return Comparison(
        "the agent gives till", f"refused: {code}" if code else "refused", answer, "Exception: " in answer
    )


def _cart_alone_is_associated(place: Workspace) -> list[Comparison]:
    return [
        Comparison("a new pod of cart asks", AGENT_URL, agent(place, "cart")),
        _cart_is_the_role(place),
        Comparison("a new pod of till asks", "no agent", agent(place, "till")),
        _till_is_refused(place, "ResourceNotFoundException"),
        Comparison("associated service accounts", "cart", ", ".join(_associated(place))),
    ]


def _associated(place: Workspace) -> list[str]:
    whose = {"clusterName": place.parameters.cluster, "namespace": place.parameters.namespace}
    associations = place.aws.client("eks").list_pod_identity_associations(**whose)["associations"]
    return sorted(each["serviceAccount"] for each in associations)


def _cart_alone_is_trusted(place: Workspace) -> list[Comparison]:
    return [_cart_is_the_role(place), _till_is_refused(place)]


EXERCISES = (
    Exercise(
        "11-a",
        "give cart its role with Pod Identity",
        _association_of_another_name,
        _cart_alone_is_associated,
        "Nothing is wrong in IAM. Which service account is the association for?",
        "An association can't move to another service account. Create a new association, and delete the wrong one.",
        "Call eks.create_pod_identity_association(clusterName=cluster, namespace=task, serviceAccount="
        '"cart", roleArn=…) with the ARN of the role exercise-11-a. Then call '
        "eks.delete_pod_identity_association(clusterName=cluster, associationId=…) with the id of chart's "
        "association.",
    ),
    Exercise(
        "11-b",
        "let cart in, and keep till out",
        _trust_policy_without_tags,
        _cart_alone_is_trusted,
        "The association is right. EKS needs two actions on the role. Which one does the trust policy not allow?",
        "EKS also needs sts:TagSession. With it, EKS sends tags that say which service account asks.",
        "In the trust policy, set Action to a list of sts:AssumeRole and sts:TagSession, and Condition to "
        '{"StringEquals": {"aws:RequestTag/kubernetes-service-account": "cart"}}.',
    ),
)

PREDICTIONS = (
    Question(
        "11-1",
        "The service account orders has an association and no annotation. What does a new pod of orders get?",
        Answer("AWS_ROLE_ARN and a token for STS.", "A pod gets these with IRSA, because of the annotation."),
        Right(
            "The agent's address and a token for EKS.",
            "The webhook knows the associations, and adds variables for the agent instead of IRSA's variables.",
        ),
        Answer("Nothing: there's no annotation.", "With an association, the pod doesn't need the annotation."),
    ),
    Question(
        "11-2",
        "You take sts:TagSession out of the trust policy. What does the pod's next command say?",
        Answer(
            "Not authorized to perform sts:TagSession.",
            "It's EKS that calls STS, and the pod gets only EKS's own message.",
        ),
        Answer(
            "Nothing new: the session just has no tags.",
            "EKS sends the tags by default, so the trust policy has to allow them.",
        ),
        Right(
            "EKS does not have permissions to assume the associated role.",
            "EKS says this whenever the trust policy refuses. The message doesn't name the action.",
        ),
    ),
)

RECALL = (
    Question(
        "11-3",
        "With Pod Identity, what connects a service account with its role?",
        Answer("The service account's annotation.", "Pod Identity doesn't read the annotation."),
        Right(
            "The association, in EKS.", "In one cluster, it maps a namespace and a service account's name to a role."
        ),
        Answer(
            "The trust policy, by its subject.",
            "This trust policy has no subject. It names the service that may assume the role.",
        ),
    ),
    Question(
        "11-4",
        "A pod uses Pod Identity. Who calls STS to get the pod's role?",
        Answer("The pod's SDK.", "The SDK gets the credentials from the agent on its node."),
        Answer("The node, with its own role.", "The node's role only lets the agent call EKS Auth."),
        Right("EKS.", "In the trust policy, EKS is the service pods.eks.amazonaws.com."),
    ),
    Question(
        "11-5",
        "The agent answers 404, ResourceNotFoundException. What do you look at?",
        Right("The association.", "This namespace and service account have no association in EKS."),
        Answer("The trust policy.", "If it refuses, the agent answers 400, AccessDeniedException."),
        Answer("The OIDC provider.", "Pod Identity needs no OIDC provider."),
    ),
    Question(
        "11-6",
        "A service account has an annotation, and now it gets an association. What do its running pods do?",
        Answer("They use the association at once.", "A pod keeps the variables that it was created with."),
        Answer("They lose their role.", "They still ask STS with their token, and the role still admits it."),
        Right(
            "They go on with IRSA until they're created again.",
            "That's why you can move to Pod Identity without downtime: both ways work side by side.",
        ),
    ),
    Question(
        "11-7",
        "Your pods run on Fargate. Do you use IRSA or Pod Identity?",
        Right("IRSA.", "Pod Identity's agent doesn't run on Fargate."),
        Answer("Pod Identity.", "AWS doesn't support Pod Identity on Fargate: its agent doesn't run there."),
        Answer("Either.", "Only IRSA works on Fargate."),
    ),
)
