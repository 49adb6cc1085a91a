"""Tries at the exercises of notebook 04."""

from kubernetes.client import AppsV1Api, CoreV1Api

from labkit import Lab
from labkit.documents import SLEEP
from tests.course.attempts import KEY, Attempts, annotate

ATTEMPTS = Attempts()
wrong, right = ATTEMPTS.wrong, ATTEMPTS.right
SKIP = "eks.amazonaws.com/skip-containers"


def create(lab: Lab, name: str, annotations: dict[str, str], account: str = "cart", **of_aws) -> None:
    each = {"image": lab.image, "command": SLEEP}
    containers = [{"name": "aws", **each, **of_aws}, {"name": "proxy", **each}]
    spec = {"serviceAccountName": account, "containers": containers}
    body = {"metadata": {"name": "cart", "annotations": annotations}, "spec": spec}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, body)


def restart(lab: Lab, name: str, **spec) -> None:
    AppsV1Api(lab.kubernetes).patch_namespaced_deployment("cart", name, {"spec": spec})


def delete_pods(lab: Lab, name: str) -> None:
    core = CoreV1Api(lab.kubernetes)
    for pod in core.list_namespaced_pod(name).items:
        core.delete_namespaced_pod(pod.metadata.name, name, grace_period_seconds=1)


def by_hand(name: str) -> list[dict[str, str]]:
    return [{"name": "AWS_ROLE_ARN", "value": f"arn:aws:iam::123456789012:role/{name}"}]


@wrong("04-a", "the pods of the Deployment cart found no role")
def the_annotation_written_again(lab, name):
    core = CoreV1Api(lab.kubernetes)
    annotations = core.read_namespaced_service_account("cart", name).metadata.annotations
    core.patch_namespaced_service_account("cart", name, {"metadata": {"annotations": {**annotations, "again": "yes"}}})


@wrong("04-a", "the pods of the Deployment cart found no role")
def the_deployment_labelled(lab, name):
    AppsV1Api(lab.kubernetes).patch_namespaced_deployment("cart", name, {"metadata": {"labels": {"again": "yes"}}})


@wrong("04-a", "the pods of the Deployment cart found arn:aws:iam::")
def a_second_pod_beside_the_old_one(lab, name):
    restart(lab, name, replicas=2)


@wrong("04-a", "the pods of the Deployment cart found no role")
def the_variable_set_by_hand(lab, name):
    account = {"serviceAccountName": "default", "containers": [{"name": "aws", "env": by_hand(name)}]}
    restart(lab, name, template={"spec": account})
    delete_pods(lab, name)


@wrong("04-a", "the pods of the Deployment cart found no Deployment cart")
def a_pod_in_the_place_of_the_deployment(lab, name):
    AppsV1Api(lab.kubernetes).delete_namespaced_deployment("cart", name)
    delete_pods(lab, name)
    create(lab, name, {})


@wrong("04-a", "the pods of the Deployment cart found no pod runs")
def a_pod_beside_an_empty_deployment(lab, name):
    restart(lab, name, replicas=0)
    delete_pods(lab, name)
    create(lab, name, {})


@right("04-a")
def the_pod_deleted(lab, name):
    delete_pods(lab, name)


@right("04-a")
def the_deployment_restarted(lab, name):
    annotations = {"kubectl.kubernetes.io/restartedAt": "now"}
    restart(lab, name, template={"metadata": {"annotations": annotations}})
    core = CoreV1Api(lab.kubernetes)
    for pod in core.list_namespaced_pod(name).items:
        if not pod.spec.containers[0].env:  # `sleep` ignores SIGTERM, so don't wait the usual 30 s
            core.delete_namespaced_pod(pod.metadata.name, name, grace_period_seconds=1)


@wrong("04-b", "the container proxy found arn:aws:iam::")
def nothing_skipped(lab, name):
    create(lab, name, {})


@wrong("04-b", "the container aws found no role")
def both_skipped(lab, name):
    create(lab, name, {SKIP: "aws,proxy"})


@wrong("04-b", "the container aws found no role")
def another_service_account(lab, name):
    create(lab, name, {SKIP: "proxy"}, account="default")


@wrong("04-b", "the container aws found no role")
def the_variable_set_by_hand_in_one_container(lab, name):
    create(lab, name, {}, account="default", env=by_hand(name))


@right("04-b")
def the_proxy_skipped(lab, name):
    create(lab, name, {SKIP: "proxy"})


@right("04-b")
def more_than_one_name_skipped(lab, name):
    create(lab, name, {SKIP: "proxy,metrics"})


def create_third(lab: Lab, name: str, skipped: str) -> None:
    """Create the pod with a third container."""
    each = {"image": lab.image, "command": SLEEP}
    spec = {"serviceAccountName": "cart", "containers": [{"name": n, **each} for n in ("aws", "proxy", "metrics")]}
    body = {"metadata": {"name": "cart", "annotations": {SKIP: skipped}}, "spec": spec}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, body)


def create_with(lab: Lab, name: str, **more: str | list[str]) -> None:
    """Create the pod with an init container, or with another image or command of both containers."""
    each = {"image": lab.image, "command": SLEEP, **more}
    spec = {"serviceAccountName": "cart", "containers": [{"name": n, **each} for n in ("aws", "proxy")]}
    if not more:
        spec["initContainers"] = [{**each, "name": "first", "command": ["true"]}]
    body = {"metadata": {"name": "cart", "annotations": {SKIP: "proxy"}}, "spec": {"restartPolicy": "Never", **spec}}
    CoreV1Api(lab.kubernetes).create_namespaced_pod(name, body)


def again(lab: Lab, name: str, annotations: dict[str, str]) -> None:
    """Delete the pod `cart`, and create it again."""
    lab.delete_pod("cart", name)
    create(lab, name, annotations)


def restarted(lab: Lab, name: str, at: str, **spec) -> None:
    """Restart the Deployment as `kubectl rollout restart` does, and end the pods without the role."""
    restart(lab, name, template={"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": at}}}, **spec)
    core = CoreV1Api(lab.kubernetes)
    for pod in core.list_namespaced_pod(name).items:
        if not pod.spec.containers[0].env:
            core.delete_namespaced_pod(pod.metadata.name, name, grace_period_seconds=1)


def unannotated(lab: Lab, name: str) -> None:
    annotate(lab, name, "cart", **{KEY: None})


NO_ROLE, AWS_NONE = "the pods of the Deployment cart found no role", "the container aws found no role"
ATTEMPTS.more(
    "04-a",
    wrong={
        "nothing": (NO_ROLE, lambda lab, name: None),
        "the annotation taken away": (
            "a new pod of cart found no role",
            lambda lab, name: (unannotated(lab, name), delete_pods(lab, name)),
        ),
        "another role": (
            "a new pod of cart found arn:aws:iam::",
            lambda lab, name: (
                annotate(lab, name, "cart", **{KEY: f"{lab.connection.role_arn(name)}-2"}),
                delete_pods(lab, name),
            ),
        ),
        "a pod beside the old one": (NO_ROLE, lambda lab, name: create(lab, name, {})),
    },
    right={
        "two replicas, the first pod deleted": lambda lab, name: (
            restart(lab, name, replicas=2),
            delete_pods(lab, name),
        ),
        "restarted twice": lambda lab, name: (restarted(lab, name, "first"), restarted(lab, name, "second")),
        "down to none, and up again": lambda lab, name: (
            restart(lab, name, replicas=0),
            delete_pods(lab, name),
            restart(lab, name, replicas=1),
        ),
    },
)
ATTEMPTS.more(
    "04-b",
    wrong={
        "nothing": ("the container aws found no pod cart", lambda lab, name: None),
        "the wrong one skipped": (AWS_NONE, lambda lab, name: create(lab, name, {SKIP: "aws"})),
        "an empty list": ("the container proxy found arn:aws:iam::", lambda lab, name: create(lab, name, {SKIP: ""})),
        "another key": (
            "the container proxy found arn:aws:iam::",
            lambda lab, name: create(lab, name, {"eks.amazonaws.com/skip-container": "proxy"}),
        ),
        "a third container with the role": (
            "the container metrics found arn:aws:iam::",
            lambda lab, name: create_third(lab, name, "proxy"),
        ),
        "an init container with the role": (
            "the container first found arn:aws:iam::",
            create_with,
        ),
        "an image that doesn't exist": (
            "the pod cart found Pending",
            lambda lab, name: create_with(lab, name, image="nobody/has-it"),
        ),
        "a command that ends": (
            "the pod cart found Failed",
            lambda lab, name: create_with(lab, name, command=["false"]),
        ),
        "another name": (
            "the container proxy found arn:aws:iam::",
            lambda lab, name: create(lab, name, {SKIP: "Proxy"}),
        ),
        "a space before the name": (
            "the container proxy found arn:aws:iam::",
            lambda lab, name: create(lab, name, {SKIP: " proxy"}),
        ),
        "two names with a semicolon": (
            "the container proxy found arn:aws:iam::",
            lambda lab, name: create(lab, name, {SKIP: "metrics;proxy"}),
        ),
    },
    right={
        "the name twice": lambda lab, name: create(lab, name, {SKIP: "proxy,proxy"}),
        "made again": lambda lab, name: (create(lab, name, {}), again(lab, name, {SKIP: "proxy"})),
        "a third container that is skipped as well": lambda lab, name: create_third(lab, name, "proxy,metrics"),
    },
)
