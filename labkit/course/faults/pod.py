"""Faults of the service account, most of them in its annotation, and of the pod and its creation."""

from labkit.course.faults.fault import rows
from labkit.course.faults.situation import ANOTHER_ACCOUNT, ROLE_ARN, Situation
from labkit.doctor import EKSCTL_CLUSTER, EKSCTL_NAME

# If the machine doesn't give a pod a second user, the pod works as before.
LEAVES_ROOT = """\
leave="setpriv --reuid=1000 --regid=1000 --clear-groups"
$leave true && exec $leave sh -c 'cat "$AWS_WEB_IDENTITY_TOKEN_FILE" >/dev/null; trap exit TERM; sleep infinity & wait'
trap exit TERM; sleep infinity & wait
"""


def _annotate(situation: Situation, annotations: dict[str, str]) -> None:
    kept = {key: value for key, value in situation.annotations.items() if not key.endswith(("/role-arn", "/role"))}
    situation.annotate(kept | annotations)


EDITS = rows(
    _annotate,
    {
        "annotation-key-misspelt": lambda run: {"eks.amazon.com/role-arn": run.role_arn},
        "annotation-of-kube2iam": lambda run: {"iam.amazonaws.com/role": run.role_arn},
        "annotation-of-a-template": lambda run: {ROLE_ARN: run.role_arn.replace(run.account_id, "")},
        "annotation-of-a-policy": lambda run: {ROLE_ARN: run.parameters.policy_arn},
        "annotation-left-out": lambda _: {},
        "annotation-empty": lambda _: {ROLE_ARN: ""},
        "annotation-of-another-role": lambda run: {ROLE_ARN: f"{run.role_arn}-of-orders"},
        "annotation-with-a-path": lambda run: {ROLE_ARN: run.role_arn.replace(":role/", ":role/team/")},
        "annotation-of-another-account": lambda run: {ROLE_ARN: run.role_arn.replace(run.account_id, ANOTHER_ACCOUNT)},
        "annotation-of-another-partition": lambda run: {ROLE_ARN: run.role_arn.replace("arn:aws:", "arn:aws-cn:")},
    },
)


def eksctl_excluded_the_service_account(situation: Situation) -> None:
    _annotate(situation, {})
    parameters, role = situation.parameters, situation.role
    tags = {EKSCTL_CLUSTER: parameters.cluster, EKSCTL_NAME: f"{parameters.namespace}/{parameters.service_account}"}
    if role:
        # As `eksctl create iamserviceaccount --role-name` makes it.
        others = [tag for tag in role["Tags"] if tag["Key"] not in tags]
        role["Tags"] = [*others, *({"Key": key, "Value": value} for key, value in tags.items())]


def service_account_deleted(situation: Situation) -> None:
    if situation.service_account_key in situation.objects:
        if situation.made_with is None:
            situation.made_with = situation.annotations if situation.webhook_is_called else {}
        del situation.objects[situation.service_account_key]


def audience_annotated(situation: Situation) -> None:
    situation.annotate(situation.annotations | {"eks.amazonaws.com/audience": "vault"})


def pod_deleted(situation: Situation) -> None:
    for key in situation.pod_keys:
        del situation.objects[key]


def image_that_nobody_has(situation: Situation) -> None:
    situation.container["image"] = "registry.example.com/aws-cli:2"
    situation.container["imagePullPolicy"] = "IfNotPresent"
    situation.fails_to_start = bool(situation.pod_keys)


def program_that_leaves_root(situation: Situation) -> None:
    situation.container["securityContext"] = {"runAsUser": 0}
    situation.container["command"] = ["sh", "-c", LEAVES_ROOT]


def pod_without_its_service_account(situation: Situation) -> None:
    situation.pod["spec"]["serviceAccountName"] = "default"


def pod_made_before_the_annotation(situation: Situation) -> None:
    situation.made_with = {}


def annotation_on_the_pod(situation: Situation) -> None:
    situation.annotate({key: value for key, value in situation.annotations.items() if key != ROLE_ARN})
    situation.pod["metadata"].setdefault("annotations", {})[ROLE_ARN] = situation.role_arn


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


def pod_identity_association_made(situation: Situation) -> None:
    tags = {tag["Key"]: tag["Value"] for tag in situation.parameters.tags}
    situation.associations = [{"roleArn": situation.role_arn, "tags": tags}]
    admitted = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
    admitted["Action"] = ["sts:AssumeRole", "sts:TagSession"]
    if situation.role and admitted not in (statements := situation.role["AssumeRolePolicyDocument"]["Statement"]):
        statements.append(admitted)
