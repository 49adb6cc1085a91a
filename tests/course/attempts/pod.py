"""Tries at the exercises of notebook 04."""

from kubernetes.client import AppsV1Api, CoreV1Api

from labkit import Lab
from labkit.documents import SLEEP
from tests.course.attempts import Attempts

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
