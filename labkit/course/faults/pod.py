"""Faults of the service account, most of them in its annotation, and of the pod and its creation."""

from labkit.course.faults.fault import fault, faults
from labkit.course.faults.situation import ANOTHER_ACCOUNT, ROLE_ARN, Situation
from labkit.doctor.evidence.candidates import EKSCTL_CLUSTER, EKSCTL_NAME

ANNOTATION = ("the service account's annotation",)
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
# Without a role, the webhook adds nothing to the pod. So the pod can't have findings about the webhook's additions.
WITHOUT_ROLE_HIDES = (
    "pod-older-than-annotation",
    "pod-role-set-by-hand",
    "pod-mount-path-twice",
    "webhook-that-nobody-answers-for",
)
# If the service account is missing, only a trust policy or a tag tells which role it should have.
WITHOUT_ACCOUNT_HIDES = (
    *WITHOUT_ROLE_HIDES,
    "pod-identity-association-too",
    "token-audience-mismatch",
    "service-account-annotation-*",
    "eksctl-role-without-annotation",
    "annotation-on-the-pod",
    "pod-missing",
    "role-missing",
    "trust-policy-condition-key-with-scheme",
    "trust-policy-too-long",
)


def _annotate(situation: Situation, annotations: dict[str, str]) -> None:
    kept = {key: value for key, value in situation.annotations.items() if not key.endswith(("/role-arn", "/role"))}
    situation.annotate(kept | annotations)


ANNOTATIONS = faults(
    _annotate,
    (
        "annotation-key-misspelt",
        "The service account's manifest was typed again.",
        "service-account-annotation-key-typo",
        lambda situation: {"eks.amazon.com/role-arn": situation.role_arn},
        *WITHOUT_ROLE_HIDES,
    ),
    (
        "annotation-of-kube2iam",
        "The application came from a cluster that gives pods their roles in another way.",
        "service-account-annotation-key-typo",
        lambda situation: {"iam.amazonaws.com/role": situation.role_arn},
        *WITHOUT_ROLE_HIDES,
    ),
    (
        "annotation-of-a-template",
        "The service account's manifest was made from a template.",
        "service-account-annotation-arn-malformed",
        lambda situation: {ROLE_ARN: situation.role_arn.replace(situation.account_id, "")},
    ),
    (
        "annotation-of-a-policy",
        "The annotation's ARN was copied from the list of the role's policies.",
        "service-account-annotation-arn-malformed",
        lambda situation: {ROLE_ARN: situation.parameters.policy_arn},
    ),
    (
        "annotation-left-out",
        "The chart's values were tidied up.",
        "service-account-annotation-missing",
        lambda _: {},
        *WITHOUT_ROLE_HIDES,
    ),
    (
        "annotation-empty",
        "A variable of the deployment pipeline was renamed.",
        "service-account-annotation-missing",
        lambda _: {ROLE_ARN: ""},
        *WITHOUT_ROLE_HIDES,
    ),
    (
        "annotation-of-another-role",
        "The service account's manifest was copied from another application.",
        "service-account-annotation-role-mismatch",
        lambda situation: {ROLE_ARN: f"{situation.role_arn}-of-orders"},
    ),
    (
        "annotation-with-a-path",
        "The team planned to give its roles a path, and changed the manifests first.",
        "service-account-annotation-arn-differs",
        lambda situation: {ROLE_ARN: situation.role_arn.replace(":role/", ":role/team/")},
    ),
    (
        "annotation-of-another-account",
        "The service account's manifest came from another environment's cluster.",
        "service-account-annotation-arn-differs",
        lambda situation: {ROLE_ARN: situation.role_arn.replace(situation.account_id, ANOTHER_ACCOUNT)},
    ),
    (
        "annotation-of-another-partition",
        "A script for AWS's regions in China wrote the annotation's ARN.",
        "service-account-annotation-arn-differs",
        lambda situation: {ROLE_ARN: situation.role_arn.replace("arn:aws:", "arn:aws-cn:")},
    ),
    changes=ANNOTATION,
)


@fault(
    "The service account was created again. After that, eksctl said that it had nothing to do.",
    finding="eksctl-role-without-annotation",
    hides=WITHOUT_ROLE_HIDES,
    seen_as=("service-account-annotation-missing",),
    changes=ANNOTATION,
)
def eksctl_excluded_the_service_account(situation: Situation) -> None:
    _annotate(situation, {})
    parameters, role = situation.parameters, situation.role
    tags = {EKSCTL_CLUSTER: parameters.cluster, EKSCTL_NAME: f"{parameters.namespace}/{parameters.service_account}"}
    if role:
        # As `eksctl create iamserviceaccount --role-name` makes it.
        others = [tag for tag in role["Tags"] if tag["Key"] not in tags]
        role["Tags"] = [*others, *({"Key": key, "Value": value} for key, value in tags.items())]


@fault(
    "A service account that looked unused was deleted.",
    finding="service-account-missing",
    hides=WITHOUT_ACCOUNT_HIDES,
    changes=("whether there is a service account",),
)
def service_account_deleted(situation: Situation) -> None:
    if situation.service_account_key in situation.objects:
        if situation.made_with is None:
            situation.made_with = situation.annotations if situation.webhook_is_called else {}
        del situation.objects[situation.service_account_key]


@fault(
    "Someone wanted to use the service account's tokens for another service, too.",
    finding="token-audience-mismatch",
    changes=("the token's audience",),
)
def audience_annotated(situation: Situation) -> None:
    situation.annotate(situation.annotations | {"eks.amazonaws.com/audience": "vault"})


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
