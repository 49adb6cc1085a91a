"""Faults of the pod and of its creation."""

from labkit.course.faults.fault import fault
from labkit.course.faults.service_account import ANNOTATION, WITHOUT_ROLE_HIDES
from labkit.course.faults.situation import ROLE_ARN, Situation

PRESENT = ("whether there is a pod",)
AGE = ("when the pod was made",)
# The findings that need a pod.
ABSENT_HIDES = (
    "pod-not-running",
    "pod-uses-another-service-account",
    "pod-older-than-annotation",
    "pod-replaced-in-a-loop",
    "pod-token-variable-missing",
    "pod-role-variable-missing",
    "pod-variables-empty",
    "pod-static-keys",
    "pod-aws-profile",
    "pod-uses-the-api-server-token",
    "pod-token-file-missing",
    "pod-role-session-name-invalid",
    "pod-role-set-by-hand",
    "pod-region-empty",
    "pod-proxy-without-no-proxy",
    "pod-sts-endpoint-of-another-region",
    "region-not-activated",
    "role-session-too-long",
    "role-assumes-itself",
    "token-copied",
    "token-malformed",
    "credentials-*",
)


@fault(
    "A node was drained.",
    finding="pod-missing",
    hides=(
        *ABSENT_HIDES,
        "pod-opted-out-of-webhook",
        "webhook-not-asked-about-pod",
        "pod-container-skipped",
        "pod-volume-name-taken",
        "annotation-on-the-pod",
    ),
    changes=PRESENT,
)
def pod_deleted(situation: Situation) -> None:
    for key in situation.pod_keys:
        del situation.objects[key]


@fault(
    "A new version was rolled out.",
    finding="pod-not-running",
    hides=("keys-in-a-secret",),
    changes=("the pod's image",),
)
def image_that_nobody_has(situation: Situation) -> None:
    situation.container["image"] = "registry.example.com/aws-cli:2"
    situation.container["imagePullPolicy"] = "IfNotPresent"
    situation.fails_to_start = bool(situation.pod_keys)


@fault(
    "Someone shortened the pod's manifest.",
    finding="pod-uses-another-service-account",
    hides=("pod-older-than-annotation", "pod-mount-path-twice"),
    seen_as=("pod-missing",),
    changes=("the pod's service account",),
)
def pod_without_its_service_account(situation: Situation) -> None:
    situation.pod["spec"]["serviceAccountName"] = "default"


@fault(
    "The service account was repaired, and nothing else was touched.", finding="pod-older-than-annotation", changes=AGE
)
def pod_made_before_the_annotation(situation: Situation) -> None:
    situation.made_with = {}


@fault(
    "Someone moved the annotations closer to the application.",
    finding="annotation-on-the-pod",
    hides=WITHOUT_ROLE_HIDES,
    seen_as=("service-account-annotation-missing",),
    changes=ANNOTATION,
)
def annotation_on_the_pod(situation: Situation) -> None:
    situation.annotate({key: value for key, value in situation.annotations.items() if key != ROLE_ARN})
    situation.pod["metadata"].setdefault("annotations", {})[ROLE_ARN] = situation.role_arn


@fault(
    "The pod now belongs to a controller that undoes changes to its pods.", finding="pod-replaced-in-a-loop", works=True
)
def pod_replaced_again_and_again(situation: Situation) -> None:
    pod, namespace = situation.pod, situation.parameters.namespace
    if not situation.pod_keys:
        return
    owner = {"apiVersion": "actions.summerwind.dev/v1alpha1", "kind": "Runner", "name": "my-pod", "controller": True}
    pod["metadata"]["ownerReferences"] = [{**owner, "uid": "00000000-0000-4000-8000-000000000001"}]
    name = pod["metadata"]["name"]
    situation.add(
        {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name}.again", "namespace": namespace, "labels": situation.parameters.labels},
            "involvedObject": {"apiVersion": "v1", "kind": "Pod", "name": name, "namespace": namespace},
            "reason": "Killing",
            "message": f"Stopping container {situation.container['name']}",
            "source": {"component": "kubelet"},
            "count": 40,
            "firstTimestamp": "2026-01-01T00:00:00Z",
            "lastTimestamp": "2026-01-01T00:10:00Z",
            "type": "Normal",
        }
    )


@fault("The cluster was prepared for EKS Pod Identity.", finding="pod-identity-association-too", works=True)
def pod_identity_association_made(situation: Situation) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in situation.parameters.tags}
    situation.associations = [{"roleArn": situation.role_arn, "tags": tags}]
    admitted = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
    admitted["Action"] = ["sts:AssumeRole", "sts:TagSession"]
    if situation.role and admitted not in (statements := situation.role["AssumeRolePolicyDocument"]["Statement"]):
        statements.append(admitted)
