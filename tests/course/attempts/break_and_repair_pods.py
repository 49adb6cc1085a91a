"""Tries at the exercises of notebook 10. Each has the same result for every fault that can be drawn."""

from kubernetes.client import CoreV1Api

from labkit import Lab
from labkit.documents import SLEEP
from labkit.steps.iam_role import delete as delete_role
from tests.course.attempts import KEY, Attempts, annotate, role_arn
from tests.course.attempts.break_and_repair_sts import policy, several

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right


def name_role(lab: Lab, name: str, account: str = "cart") -> None:
    annotate(lab, name, account, **{KEY: role_arn(lab, name)})


def start(lab: Lab, name: str, account: str = "cart") -> None:
    lab.delete_pod("my-pod", name)
    container = {"name": "aws", "image": lab.image, "command": SLEEP}
    spec = {"serviceAccountName": account, "containers": [container]}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, {"metadata": {"name": "my-pod"}, "spec": spec})
    lab.wait_until_running("my-pod", name)


@wrong("10-a", "AWS knows my-pod as found Unable to locate credentials")
def the_annotation_without_a_new_pod(lab, name):
    name_role(lab, name)


@wrong("10-a", "a new pod of cart found no role")
def a_new_pod_without_the_annotation(lab, name):
    start(lab, name)


@wrong("10-a", "a new pod of default found arn:aws:iam::")
def the_neighbour_annotated_as_well(lab, name):
    name_role(lab, name)
    name_role(lab, name, "default")
    start(lab, name)


@right("10-a")
def the_annotation_and_a_new_pod(lab, name):
    name_role(lab, name)
    start(lab, name)


@right("10-a")
def the_service_account_made_again(lab, name):
    core = CoreV1Api(lab.kubernetes)
    core.delete_namespaced_service_account("cart", name)
    metadata = {"name": "cart", "annotations": {KEY: role_arn(lab, name)}}
    core.create_namespaced_service_account(name, {"metadata": metadata})
    start(lab, name)


def made_again(lab: Lab, name: str) -> None:
    delete_role(lab.aws.client("iam"), name)
    document = policy(lab, "StringEquals", f"system:serviceaccount:{name}:cart")
    lab.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)


NODE = "a new pod of cart found"
ATTEMPTS.more(
    "10-a",
    wrong={
        "nothing": (NODE, lambda lab, name: None),
        "the role's name": (
            "a new pod of cart found exercise-10-a",
            lambda lab, name: (annotate(lab, name, "cart", **{KEY: name}), start(lab, name)),
        ),
        "the pod first": (
            "AWS knows my-pod as found Unable to locate credentials",
            lambda lab, name: (start(lab, name), name_role(lab, name)),
        ),
        "the pod as default": (
            "AWS knows my-pod as found Unable to locate credentials",
            lambda lab, name: (name_role(lab, name), start(lab, name, "default")),
        ),
        "no pod": (
            "AWS knows my-pod as found",
            lambda lab, name: (name_role(lab, name), lab.delete_pod("my-pod", name)),
        ),
        "another role": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: (annotate(lab, name, "cart", **{KEY: f"{role_arn(lab, name)}-2"}), start(lab, name)),
        ),
        "default admitted as well": (
            "exercise-10-a:default found admitted",
            lambda lab, name: (
                name_role(lab, name),
                start(lab, name),
                several(lab, name, "StringEquals", f"{name}:cart", f"{name}:default"),
            ),
        ),
    },
    right={
        "the pod twice": lambda lab, name: (start(lab, name), name_role(lab, name), start(lab, name)),
        "with the life of the token": lambda lab, name: (
            annotate(lab, name, "cart", **{KEY: role_arn(lab, name), "eks.amazonaws.com/token-expiration": "3600"}),
            start(lab, name),
        ),
        "the role made again as well": lambda lab, name: (
            made_again(lab, name),
            name_role(lab, name),
            start(lab, name),
        ),
    },
)
