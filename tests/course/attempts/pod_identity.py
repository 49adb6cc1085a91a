"""Tries at the exercises of notebook 12."""

import json

from kubernetes.client import CoreV1Api

from labkit import Lab
from tests.course.attempts import KEY, Attempts, admit_account, annotate, update_trust

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
BOTH = ["sts:AssumeRole", "sts:TagSession"]
ACCOUNT = "aws:RequestTag/kubernetes-service-account"


def associate(lab: Lab, name: str, account: str, role: str = "", **more: bool) -> None:
    arn = lab.connection.role_arn(role or name)
    whose = {"clusterName": lab.parameters.cluster, "namespace": name, "serviceAccount": account}
    lab.aws.client("eks").create_pod_identity_association(**whose, roleArn=arn, **more)


def association(lab: Lab, name: str, account: str) -> dict[str, str]:
    whose = {"clusterName": lab.parameters.cluster, "namespace": name, "serviceAccount": account}
    (found,) = lab.aws.client("eks").list_pod_identity_associations(**whose)["associations"]
    return {"clusterName": lab.parameters.cluster, "associationId": found["associationId"]}


def policy(actions: str | list[str], **claims: str) -> str:
    statement = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}, "Action": actions}
    if claims:
        statement["Condition"] = {"StringEquals": claims}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


@wrong("12-a", "a new pod of cart asks found no agent")
def the_annotation_of_irsa(lab, name):
    annotate(lab, name, "cart", **{KEY: lab.connection.role_arn(name)})


@wrong("12-a", "a new pod of till asks found http://169.254.170.23")
def the_neighbour_as_well(lab, name):
    for account in ("cart", "till"):
        associate(lab, name, account)


@wrong("12-a", "the agent gives cart found assumed-role/exercise-12-a-mine")
def a_role_of_another_name(lab, name):
    lab.aws.client("iam").create_role(RoleName=f"{name}-mine", AssumeRolePolicyDocument=policy(BOTH))
    associate(lab, name, "cart", f"{name}-mine")


@wrong("12-a", "associated service accounts found cart, chart")
def an_association_beside_the_wrong_one(lab, name):
    associate(lab, name, "cart")


@right("12-a")
def an_association_in_place_of_the_wrong_one(lab, name):
    associate(lab, name, "cart")
    lab.aws.client("eks").delete_pod_identity_association(**association(lab, name, "chart"))


@right("12-a")
def one_without_tags(lab, name):
    lab.aws.client("eks").delete_pod_identity_association(**association(lab, name, "chart"))
    associate(lab, name, "cart", disableSessionTags=True)


@wrong("12-b", "the agent gives till found assumed-role/exercise-12-b")
def tags_for_everybody(lab, name):
    update_trust(lab, name, policy(BOTH))


@wrong("12-b", "the agent gives till found assumed-role/exercise-12-b")
def the_whole_namespace(lab, name):
    update_trust(lab, name, policy(BOTH, **{"aws:RequestTag/kubernetes-namespace": name}))


@wrong("12-b", "the agent gives cart found AccessDeniedException")
def the_tag_of_a_caller(lab, name):
    update_trust(lab, name, policy(BOTH, **{"aws:PrincipalTag/kubernetes-service-account": "cart"}))


@right("12-b")
def cart_by_its_tag(lab, name):
    update_trust(lab, name, policy(BOTH, **{ACCOUNT: "cart"}))


@right("12-b")
def no_association_for_the_neighbour(lab, name):
    update_trust(lab, name, policy(BOTH))
    lab.aws.client("eks").delete_pod_identity_association(**association(lab, name, "till"))


def eks(lab: Lab):
    return lab.aws.client("eks")


def end(lab: Lab, name: str, account: str) -> None:
    eks(lab).delete_pod_identity_association(**association(lab, name, account))


def tags(lab: Lab, name: str, operator: str = "StringEquals", **claims: str | list[str]) -> None:
    """Let the role admit Pod Identity, if the tags of the request compare with these claims."""
    document = json.loads(policy(BOTH))
    found = {f"aws:RequestTag/{key.replace('_', '-')}": value for key, value in claims.items()}
    document["Statement"][0]["Condition"] = {operator: found}
    update_trust(lab, name, json.dumps(document))


WITHOUT_TOKEN = "someone without a token, for {} found admitted"
CART_FAILS, GIVEN = "the agent gives cart found", "the agent gives till found assumed-role/exercise-12-b"
ATTEMPTS.more(
    "12-a",
    wrong={
        "the account as well": (
            WITHOUT_TOKEN.format("exercise-12-a"),
            lambda lab, name: (end(lab, name, "chart"), associate(lab, name, "cart"), admit_account(lab, name)),
        ),
        "nothing": ("a new pod of cart asks found no agent", lambda lab, name: None),
        "the wrong one deleted": ("a new pod of cart asks found no agent", lambda lab, name: end(lab, name, "chart")),
        "till in place of cart": (
            "a new pod of till asks found http://",
            lambda lab, name: (end(lab, name, "chart"), associate(lab, name, "till")),
        ),
        "the default account as well": (
            "associated service accounts found cart, default",
            lambda lab, name: (end(lab, name, "chart"), associate(lab, name, "cart"), associate(lab, name, "default")),
        ),
        "a letter too many": (
            "a new pod of cart asks found no agent",
            lambda lab, name: (end(lab, name, "chart"), associate(lab, name, "carts")),
        ),
        "made, and deleted": (
            "a new pod of cart asks found no agent",
            lambda lab, name: (associate(lab, name, "cart"), end(lab, name, "cart"), end(lab, name, "chart")),
        ),
    },
    right={
        "the wrong one deleted first": lambda lab, name: (end(lab, name, "chart"), associate(lab, name, "cart")),
        "made twice": lambda lab, name: (
            end(lab, name, "chart"),
            associate(lab, name, "cart"),
            end(lab, name, "cart"),
            associate(lab, name, "cart"),
        ),
        "till too, and then not": lambda lab, name: (
            end(lab, name, "chart"),
            associate(lab, name, "cart"),
            associate(lab, name, "till"),
            end(lab, name, "till"),
        ),
    },
)
ATTEMPTS.more(
    "12-b",
    wrong={
        "the account as well": (
            WITHOUT_TOKEN.format("exercise-12-b"),
            lambda lab, name: (tags(lab, name, kubernetes_service_account="cart"), admit_account(lab, name)),
        ),
        "nothing": (CART_FAILS, lambda lab, name: None),
        "only tagging": (CART_FAILS, lambda lab, name: update_trust(lab, name, policy("sts:TagSession"))),
        "till by its tag": (GIVEN, lambda lab, name: tags(lab, name, kubernetes_service_account="till")),
        "both by their tags": (
            GIVEN,
            lambda lab, name: tags(lab, name, kubernetes_service_account=["cart", "till"]),
        ),
        "everybody but cart": (
            GIVEN,
            lambda lab, name: tags(lab, name, "StringNotEquals", kubernetes_service_account="cart"),
        ),
        "a pattern compared letter by letter": (
            CART_FAILS,
            lambda lab, name: tags(lab, name, kubernetes_service_account="c*"),
        ),
        "no service account": (
            CART_FAILS,
            lambda lab, name: CoreV1Api(lab.kubernetes).delete_namespaced_service_account("cart", name),
        ),
        "no association for cart": (
            CART_FAILS,
            lambda lab, name: (
                tags(lab, name, kubernetes_service_account="cart"),
                end(lab, name, "cart"),
            ),
        ),
    },
    right={
        "its tag and its namespace": lambda lab, name: tags(
            lab, name, kubernetes_service_account="cart", kubernetes_namespace=name
        ),
        "everybody but till": lambda lab, name: tags(lab, name, "StringNotEquals", kubernetes_service_account="till"),
        "a pattern": lambda lab, name: tags(lab, name, "StringLike", kubernetes_service_account="car?"),
    },
)
