"""Faults of the pod identity webhook, and faults of a pod's spec that keep the webhook from giving the pod its role."""

import copy

from labkit.course.faults.fault import fault
from labkit.course.faults.pod import ABSENT_HIDES, AGE, PRESENT
from labkit.course.faults.situation import WEBHOOK, Situation
from labkit.doctor.evidence.pod_spec import MOUNT_PATH

REGISTRATION = ("the webhook's registration",)
VARIABLES = ("the pod's web identity variables",)
VOLUME = ("the pod's token volume",)
# A pod without a role can't have findings about its role.
UNTOUCHED_HIDES = ("pod-older-than-annotation", "pod-mount-path-twice")
# A pod that names its role itself doesn't need the annotation. So the doctor doesn't ask which of the two is older.
BY_HAND_HIDES = ("pod-older-than-annotation",)


@fault(
    "The cluster's admission webhooks were tidied up.",
    finding="webhook-missing",
    hides=UNTOUCHED_HIDES,
    changes=REGISTRATION,
)
def webhook_registration_deleted(situation: Situation) -> None:
    situation.objects.pop(WEBHOOK, None)


@fault(
    "The webhook's manifest was applied unchanged, and nothing filled in its missing values.",
    finding="webhook-unreachable",
    hides=UNTOUCHED_HIDES,
    changes=REGISTRATION,
)
def webhook_without_a_ca_bundle(situation: Situation) -> None:
    situation.webhook["clientConfig"].pop("caBundle", None)


@fault("The webhook's address was changed.", finding="webhook-unreachable", hides=UNTOUCHED_HIDES, changes=REGISTRATION)
def webhook_that_nobody_answers_for(situation: Situation) -> None:
    situation.webhook["clientConfig"]["url"] = "https://127.0.0.1:9/mutate"


@fault(
    "The team that looks after the admission webhooks tidied them up.",
    finding="webhook-not-asked-about-pod",
    hides=UNTOUCHED_HIDES,
    changes=REGISTRATION,
)
def webhook_of_one_team(situation: Situation) -> None:
    situation.webhook["namespaceSelector"] = {"matchLabels": {"team": "platform"}}


@fault(
    "The webhook's registration was copied from another cluster.",
    finding="webhook-not-asked-about-pod",
    hides=UNTOUCHED_HIDES,
    changes=REGISTRATION,
)
def webhook_of_marked_pods(situation: Situation) -> None:
    marked = {"key": "irsa", "operator": "In", "values": ["enabled"]}
    expressions = situation.webhook.get("objectSelector", {}).get("matchExpressions") or []
    situation.webhook["objectSelector"] = {"matchExpressions": [*expressions, marked]}


@fault(
    "Someone added a label while looking for the cause of another problem.",
    finding="pod-opted-out-of-webhook",
    hides=UNTOUCHED_HIDES,
    changes=("the pod's labels",),
)
def pod_opted_out(situation: Situation) -> None:
    situation.pod["metadata"].setdefault("labels", {})["eks.amazonaws.com/skip-pod-identity-webhook"] = "true"


@fault(
    "Someone wanted the pod's sidecars to stay unchanged.",
    finding="pod-container-skipped",
    hides=("pod-older-than-annotation", "pod-mount-path-twice"),
    changes=("the containers that are skipped",),
)
def container_skipped(situation: Situation) -> None:
    annotations = situation.pod["metadata"].setdefault("annotations", {})
    annotations["eks.amazonaws.com/skip-containers"] = situation.container["name"]


@fault(
    "Someone wrote the role into the pod, for safety.",
    finding="pod-token-variable-missing",
    hides=BY_HAND_HIDES,
    changes=VARIABLES,
)
def role_variable_given_by_hand(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn)


@fault(
    "Someone wrote the token's path into the pod, for safety.",
    finding="pod-role-variable-missing",
    hides=BY_HAND_HIDES,
    changes=VARIABLES,
)
def token_variable_given_by_hand(situation: Situation) -> None:
    situation.set_identity(file=f"{MOUNT_PATH}/token")


@fault(
    "The pod's variables came from a template.", finding="pod-variables-empty", hides=BY_HAND_HIDES, changes=VARIABLES
)
def variables_left_empty(situation: Situation) -> None:
    situation.set_identity(role_arn="", file="")


@fault(
    "The pod got its own volume for downloads.",
    finding="pod-volume-name-taken",
    hides=("pod-mount-path-twice",),
    changes=VOLUME,
)
def volume_of_the_same_name(situation: Situation) -> None:
    situation.mount("aws-iam-token", {"emptyDir": {}}, "/cache")


# Without a pod, the Deployment's template still shows static keys, but not those in a Secret.
NO_POD_HIDES = (*(each for each in ABSENT_HIDES if each != "pod-static-keys"), "keys-in-a-secret")


@fault(
    "Someone turned the pod into a Deployment, and added a mount from another webhook's guide.",
    finding="pod-mount-path-twice",
    hides=NO_POD_HIDES,
    changes=(*PRESENT, *AGE),
)
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


@fault(
    "The pod's token was written by a script that logs its steps.",
    finding="token-malformed",
    hides=(*BY_HAND_HIDES, "pod-container-skipped"),
    changes=(*VARIABLES, *VOLUME),
)
def token_written_by_a_script(situation: Situation) -> None:
    situation.add_config_map("my-token", {"token": "11:11:49 the token is: EOF\n"})
    situation.mount("my-token", {"configMap": {"name": "my-token"}}, "/etc/my-token")
    situation.set_identity(role_arn=situation.role_arn, file="/etc/my-token/token")
