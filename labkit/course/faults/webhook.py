"""Faults of the pod identity webhook, and faults of a pod's spec that keep the webhook from giving the pod its role."""

import copy

from labkit.course.faults.situation import WEBHOOK, Situation
from labkit.webhook.review import MOUNT_PATH


def webhook_registration_deleted(situation: Situation) -> None:
    situation.objects.pop(WEBHOOK, None)


def webhook_without_a_ca_bundle(situation: Situation) -> None:
    situation.webhook["clientConfig"].pop("caBundle", None)


def webhook_that_nobody_answers_for(situation: Situation) -> None:
    situation.webhook["clientConfig"]["url"] = "https://127.0.0.1:9/mutate"


def webhook_of_one_team(situation: Situation) -> None:
    situation.webhook["namespaceSelector"] = {"matchLabels": {"team": "platform"}}


def webhook_of_marked_pods(situation: Situation) -> None:
    marked = {"key": "irsa", "operator": "In", "values": ["enabled"]}
    expressions = situation.webhook.get("objectSelector", {}).get("matchExpressions") or []
    situation.webhook["objectSelector"] = {"matchExpressions": [*expressions, marked]}


def pod_opted_out(situation: Situation) -> None:
    situation.pod["metadata"].setdefault("labels", {})["eks.amazonaws.com/skip-pod-identity-webhook"] = "true"


def container_skipped(situation: Situation) -> None:
    annotations = situation.pod["metadata"].setdefault("annotations", {})
    annotations["eks.amazonaws.com/skip-containers"] = situation.container["name"]


def role_variable_given_by_hand(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn)


def token_variable_given_by_hand(situation: Situation) -> None:
    situation.set_identity(file=f"{MOUNT_PATH}/token")


def variables_left_empty(situation: Situation) -> None:
    situation.set_identity(role_arn="", file="")


def volume_of_the_same_name(situation: Situation) -> None:
    situation.mount("aws-iam-token", {"emptyDir": {}}, "/cache")


def mount_at_the_tokens_path(situation: Situation) -> None:
    if not situation.pod_keys:
        return
    situation.mount("own-token", {"emptyDir": {}}, MOUNT_PATH)
    pod = copy.deepcopy(situation.pod)
    metadata, labels = pod["metadata"], {**pod["metadata"].get("labels", {}), "app": "my-pod"}
    template = {"metadata": {key: metadata[key] for key in ("annotations",) if key in metadata} | {"labels": labels}}
    spec = {**pod["spec"], "terminationGracePeriodSeconds": 1}
    for key in situation.pod_keys:
        del situation.objects[key]
    situation.add(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": "my-pod", "namespace": metadata["namespace"], "labels": situation.parameters.labels},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": {"app": "my-pod"}},
                "template": {**template, "spec": spec},
            },
        }
    )


def token_written_by_a_script(situation: Situation) -> None:
    situation.add_config_map("my-token", {"token": "11:11:49 the token is: EOF\n"})
    situation.mount("my-token", {"configMap": {"name": "my-token"}}, "/etc/my-token")
    situation.set_identity(role_arn=situation.role_arn, file="/etc/my-token/token")
