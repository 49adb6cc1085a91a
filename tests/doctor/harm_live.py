"""A second team in a running lab: its permissions, and everybody else's objects, before and after a repair."""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from botocore.exceptions import ClientError
from kubernetes.client import AdmissionregistrationV1Api, ApiException, AppsV1Api, CoreV1Api

from labkit import Lab
from labkit.cli import doctor_repair
from labkit.cli import lab as cli_lab
from labkit.course.faults import Fault, Situation, breaking, live
from labkit.doctor.examination import examine
from labkit.execution import execute
from labkit.simulator import environment, object_selector
from tests.doctor import second_team
from tests.doctor.examining import evidence

TEAM = {"namespace": "shop", "service_account": "web", "role_name": "web-role"}
TOKEN_FILE = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
# STS answers this if the provider or the issuer fails for everybody. A repair then restores only access that the
# policies allowed all the time.
BROKEN_FOR_ALL = ("InvalidIdentityToken", "IDPCommunicationError")
LATER = "amazon/aws-cli:2.99.0"
WEBHOOK = "pod-identity-webhook"
LABELS: tuple[dict[str, str], ...] = ({}, second_team.KEPT_OUT)
UNREGISTERED = "not registered"


@dataclass
class Outcome:
    """The result of some faults' repairs: how many ran or had only words, which failed, and the harm that they did."""

    ran: int = 0
    words: int = 0
    failed: list[str] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)


@dataclass
class Team:
    """The second team: its lab, and the token of its pod."""

    lab: Lab
    token: str

    @classmethod
    def beside(cls) -> "Team":
        """Make the team's service account, role and pod, and a webhook selector that leaves out its labelled pods."""
        lab = Lab.open(**TEAM)
        lab.ready(through="pod")
        webhooks = AdmissionregistrationV1Api(lab.kubernetes)
        registered = webhooks.read_mutating_webhook_configuration(WEBHOOK)
        kept = second_team.keeping_out(lab.kubernetes.sanitize_for_serialization(registered))
        webhooks.replace_mutating_webhook_configuration(WEBHOOK, kept)
        done = execute(lab.kubernetes, "my-pod", "shop", ["cat", TOKEN_FILE])
        return cls(lab, done.output.strip())


def outcome(
    lab: Lab,
    team: Team,
    healthy: Situation,
    faults: Sequence[Fault],
    *,
    in_one_statement: bool,
    is_changed_meanwhile: bool = False,
) -> Outcome:
    """Put the faults in, run each printed repair, compare others' permissions and objects, and mend the lab.

    `is_changed_meanwhile`: whether somebody changes the run's objects between the diagnosis and the first repair. A
    repair that rolls such a change back does harm.

    Raise `ClientError` if AWS rejects these faults together, such as a bucket policy for a deleted role.
    """
    came_to = Outcome()
    try:
        for fault in faults:
            breaking.break_lab(lab, fault)
        broken = live.read(lab, healthy, *(fault.put_into(healthy) for fault in faults))
        _admit_team(lab, broken, in_one_statement)
        findings = examine(evidence(lab, broken, probe=any(fault.needs_probe for fault in faults))).findings
        changed = dict(_changed_meanwhile(lab)) if is_changed_meanwhile else {}
        before = snapshot(lab, team)
        for finding in findings:
            if doctor_repair.why_not_run(finding.repair):
                came_to.words += 1
                continue
            came_to.ran += 1
            if said := doctor_repair.run(finding.repair, environment.closed(os.environ) | cli_lab.variables()):
                came_to.failed.append(f"{finding.id}: {said}")
            after = snapshot(lab, team)
            came_to.harm += (f"{finding.id}: {each}" for each in harm(before, after))
            before = after
            came_to.harm += (f"{finding.id}: {name} was rolled back" for name in _rolled_back(changed))
    finally:
        breaking.mend(lab)
    return came_to


def _changed_meanwhile(lab: Lab) -> Iterator[tuple[str, Callable[[], bool]]]:
    """Change each of the run's objects. Yield its name, and a function that returns whether the change is there."""
    core, apps, namespace = CoreV1Api(lab.kubernetes), AppsV1Api(lab.kubernetes), lab.parameters.namespace
    for pod in core.list_namespaced_pod(namespace).items:
        name, first = pod.metadata.name, {"name": pod.spec.containers[0].name, "image": LATER}
        if not pod.metadata.owner_references:
            core.patch_namespaced_pod(name, namespace, {"spec": {"containers": [first]}})
            yield f"pod/{name}", partial(_has_image, partial(core.read_namespaced_pod, name, namespace))
    for deployment in apps.list_namespaced_deployment(namespace).items:
        name, spec = deployment.metadata.name, deployment.spec.template.spec
        first = {"name": spec.containers[0].name, "image": LATER}
        apps.patch_namespaced_deployment(name, namespace, {"spec": {"template": {"spec": {"containers": [first]}}}})
        yield f"deployment/{name}", partial(_has_image, partial(apps.read_namespaced_deployment, name, namespace))
    for config_map in core.list_namespaced_config_map(namespace).items:
        name = config_map.metadata.name
        core.patch_namespaced_config_map(name, namespace, {"data": {"meanwhile": "kept"}})
        read = partial(core.read_namespaced_config_map, name, namespace)
        yield f"configmap/{name}", partial(_keeps_its_key, read)
    webhooks = AdmissionregistrationV1Api(lab.kubernetes)
    if webhooks.list_mutating_webhook_configuration(field_selector=f"metadata.name={WEBHOOK}").items:
        body = [{"op": "replace", "path": "/webhooks/0/timeoutSeconds", "value": 7}]
        webhooks.patch_mutating_webhook_configuration(WEBHOOK, body)
        yield f"webhook/{WEBHOOK}", lambda: _timeout(webhooks) == 7


def _has_image(read: Callable[[], Any]) -> bool:
    spec = read().spec
    template = getattr(spec, "template", None)
    return bool((template.spec if template else spec).containers[0].image == LATER)


def _keeps_its_key(read: Callable[[], Any]) -> bool:
    return "meanwhile" in (read().data or {})


def _timeout(webhooks: AdmissionregistrationV1Api) -> int:
    return int(webhooks.read_mutating_webhook_configuration(WEBHOOK).webhooks[0].timeout_seconds)


def _rolled_back(changed: dict[str, Callable[[], bool]]) -> Iterator[str]:
    for name, is_there in changed.items():
        try:
            if not is_there():
                yield name
        except ApiException as error:
            if error.status != 404:
                raise
            yield f"{name} is gone, and"


def _admit_team(lab: Lab, broken: Situation, in_one_statement: bool) -> None:
    if broken.role:
        trust_policy = second_team.admitting(broken, in_one_statement)
        if len(json.dumps(trust_policy, separators=(",", ":"))) <= 2048:
            lab.aws.client("iam").update_assume_role_policy(
                RoleName=lab.parameters.role_name, PolicyDocument=json.dumps(trust_policy)
            )


def harm(before: dict[str, Any], after: dict[str, Any]) -> Iterator[str]:
    """The differences from before, except for access that was broken for everybody and works again."""
    for what in before.keys() | after.keys():
        one, other = before.get(what), after.get(what)
        if (
            one != other
            and one not in (*BROKEN_FOR_ALL, "not tried", UNREGISTERED)
            and not _is_more_of_a_provider(what, one, other)
        ):
            yield f"{what}: {one} before, {other} after"


def _is_more_of_a_provider(what: str, before: Any, after: Any) -> bool:
    """Whether a provider is new or accepts more than before. Trust policies still decide who gets a role."""
    if not what.startswith("provider ") or after is None:
        return False
    return before is None or all(set(before[key]) <= set(after[key]) for key in ("audiences", "thumbprints"))


def snapshot(lab: Lab, team: Team) -> dict[str, Any]:
    """The second team's permissions, and every object that doesn't belong to the run."""
    values: dict[str, Any] = {}
    for name in (lab.parameters.role_name, TEAM["role_name"]):
        values |= _exchanged(lab, team, name)
    values |= dict(_by_webhook(lab))
    values |= dict(_in_iam(lab))
    values |= dict(_in_cluster(lab))
    return values


def _exchanged(lab: Lab, team: Team, role_name: str) -> dict[str, Any]:
    """STS's answer to the team's token for a role, and the calls that the session may make."""
    import boto3

    tried = {f"shop:web as {role_name}: {name}": "not tried" for name in ("lists", "reads", "writes", "users")}
    sts = lab.aws.client("sts")
    arn = lab.connection.role_arn(role_name)
    try:
        answer = sts.assume_role_with_web_identity(RoleArn=arn, RoleSessionName="web", WebIdentityToken=team.token)
    except ClientError as error:
        return {f"shop:web as {role_name}": error.response["Error"]["Code"], **tried}
    keys = answer["Credentials"]
    session = boto3.Session(keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], region_name="us-east-1")
    s3 = session.client("s3", endpoint_url=lab.aws.client("s3").meta.endpoint_url)
    iam = session.client("iam", endpoint_url=lab.aws.client("iam").meta.endpoint_url)
    bucket = lab.parameters.bucket
    calls = {
        "lists": lambda: s3.list_objects_v2(Bucket=bucket),
        "reads": lambda: s3.get_object(Bucket=bucket, Key="hello.txt"),
        "writes": lambda: s3.put_object(Bucket=bucket, Key="web", Body=b""),
        "users": iam.list_users,
    }
    return {
        f"shop:web as {role_name}": "allowed",
        **{f"shop:web as {role_name}: {name}": _said(call) for name, call in calls.items()},
    }


def _said(call: Any) -> str:
    try:
        call()
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "allowed"


def _by_webhook(lab: Lab) -> Iterator[tuple[str, Any]]:
    """Whether the registration's selectors match the team's pods, with and without the label."""
    try:
        registered = AdmissionregistrationV1Api(lab.kubernetes).read_mutating_webhook_configuration(WEBHOOK)
    except ApiException as error:
        if error.status != 404:
            raise
        yield from ((f"webhook on shop/web with {labels}", UNREGISTERED) for labels in LABELS)
        return
    webhook = lab.kubernetes.sanitize_for_serialization(registered)["webhooks"][0]
    namespace = CoreV1Api(lab.kubernetes).read_namespace("shop").metadata.labels or {}
    for labels in LABELS:
        is_selected = object_selector(webhook.get("objectSelector"))(labels)
        is_selected = is_selected and object_selector(webhook.get("namespaceSelector"))(namespace)
        yield f"webhook on shop/web with {labels}", is_selected


def _in_iam(lab: Lab) -> Iterator[tuple[str, Any]]:
    iam = lab.aws.client("iam")
    for role in iam.list_roles()["Roles"]:
        name = role["RoleName"]
        if name != lab.parameters.role_name:
            said = iam.get_role(RoleName=name)["Role"]
            inline = iam.list_role_policies(RoleName=name)["PolicyNames"]
            attached = iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]
            kept = {key: said.get(key) for key in ("AssumeRolePolicyDocument", "PermissionsBoundary", "Tags")}
            yield f"role {name}", {**kept, "inline": inline, "attached": attached}
    for user in iam.list_users()["Users"]:
        yield f"user {user['UserName']}", iam.list_user_policies(UserName=user["UserName"])["PolicyNames"]
    for each in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]:
        said = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=each["Arn"])
        yield (
            f"provider {each['Arn']}",
            {"audiences": said["ClientIDList"], "thumbprints": said["ThumbprintList"], "tags": said.get("Tags", [])},
        )
    eks, cluster = lab.aws.client("eks"), lab.parameters.cluster
    configs = eks.list_identity_provider_configs(clusterName=cluster)["identityProviderConfigs"]
    yield "identity provider configs", configs
    others = eks.list_pod_identity_associations(clusterName=cluster)["associations"]
    yield "associations", [each["associationId"] for each in others]


def _in_cluster(lab: Lab) -> Iterator[tuple[str, Any]]:
    core, own = CoreV1Api(lab.kubernetes), lab.parameters
    for namespace in core.list_namespace().items:
        # Nobody else uses the run's own namespace.
        if namespace.metadata.name != own.namespace:
            yield f"namespace {namespace.metadata.name}", namespace.metadata.labels
    for account in core.list_service_account_for_all_namespaces().items:
        metadata = account.metadata
        if (metadata.namespace, metadata.name) != (own.namespace, own.service_account):
            yield f"service account {metadata.namespace}/{metadata.name}", (metadata.uid, metadata.annotations)
    for pod in core.list_pod_for_all_namespaces().items:
        if pod.metadata.namespace != own.namespace:
            yield f"pod {pod.metadata.namespace}/{pod.metadata.name}", pod.metadata.uid
    for config_map in core.list_config_map_for_all_namespaces().items:
        if config_map.metadata.namespace != own.namespace:
            yield f"configmap {config_map.metadata.namespace}/{config_map.metadata.name}", config_map.data
