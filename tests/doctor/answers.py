"""The answers that the API server, AWS and the issuer would give the doctor in a situation, without a lab."""

import base64
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from labkit.connection import Connection
from labkit.course.faults import Situation, admission
from labkit.course.faults.situation import Document
from labkit.doctor.evidence import Evidence, Reads
from labkit.doctor.evidence.reading import NotRead, Read
from labkit.policy import Policy, Principal, Request, evaluate, evaluate_trust
from labkit.tokens import NotAToken, read_jwt

ANSWERERS: list[tuple[re.Pattern[str], Callable[..., Any]]] = []
MADE = "2026-01-01T00:00:00Z"
FOR_NODES = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
NODE_TRUST = {"Version": "2012-10-17", "Statement": [FOR_NODES]}
# The API server mounts these into every pod, so that the pod can call it.
NAMESPACE = {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
OWN_SOURCES = [
    {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {"downwardAPI": {"items": [NAMESPACE]}},
]
ERRORS = {
    "MalformedPolicyDocument": ("MalformedPolicyDocumentException", "Condition can contain only one colon."),
    "LimitExceeded": ("LimitExceededException", "Cannot exceed quota for ACLSizePerRole: 2048"),
}


@dataclass(frozen=True)
class Facts:
    """Values that a lab has and a situation's documents lack: the certificate's thumbprint, the signing key's id."""

    thumbprint: str = "0123456789abcdef0123456789abcdef01234567"
    key_id: str = "key-1"


class Answers(Reads):
    """The answers of a situation. A call without an answer raises NotRead, like a call that fails."""

    def __init__(self, situation: Situation, facts: Facts | None = None):
        super().__init__({})
        self.situation = situation
        self.facts = facts or Facts()

    def once(self, read: Read, call: Callable[[], Any]) -> Any:
        what = str(read)
        if what not in self.answers:
            self.answers[what] = json.loads(json.dumps(self._answer(read)))
        return super().once(read, call)

    def _answer(self, read: Read) -> Any:
        for pattern, answerer in ANSWERERS:
            if match := pattern.fullmatch(str(read)):
                return answerer(self.situation, self.facts, **match.groupdict())
        raise NotRead(read, "no answer was written for it")


def evidence(
    situation: Situation, *, probe: bool = False, facts: Facts | None = None, pod_name: str | None = None
) -> Evidence:
    """The evidence that the doctor reads in a situation, about the situation's own pod unless a name is given."""
    connection = Connection(
        aws=None,
        kubernetes=None,
        issuer=situation.issuer,
        account_id=situation.account_id,
        image=situation.image,
        webhook_registration=lambda: situation.registration,
        webhook_restored_by='kubectl apply -f "$LABKIT_HOME/clusters/blue/webhook.json"',
        account=lambda account_id: object(),
    )
    return Evidence(
        situation.parameters,
        connection,
        pod_name=situation.pod["metadata"].get("name", "") if pod_name is None else pod_name,
        role_is_known=False,
        action="s3:ListBucket",
        resource=f"arn:aws:s3:::{situation.parameters.bucket}",
        probe=probe,
        reads=Answers(situation, facts),
    )


def answers(pattern: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register the decorated function as the answerer of the calls that match this pattern."""

    def registered(answerer: Callable[..., Any]) -> Callable[..., Any]:
        ANSWERERS.append((re.compile(pattern), answerer))
        return answerer

    return registered


ACCOUNT = r" \((?P<account>\d{12})\)"


# IAM.


@answers("iam:ListOpenIDConnectProviders" + ACCOUNT)
def list_providers(situation, facts, account):
    return [{"Arn": arn} for arn in situation.providers if arn.split(":")[4] == account]


@answers("iam:GetOpenIDConnectProvider (?P<name>.+)" + ACCOUNT)
def get_provider(situation, facts, name, account):
    provider = situation.providers.get(f"arn:aws:iam::{account}:oidc-provider/{name}")
    return provider and {**provider, "Url": provider["Url"].removeprefix("https://")}


@answers("iam:ListRoles" + ACCOUNT)
def list_roles(situation, facts, account):
    listed = ("RoleName", "Arn", "AssumeRolePolicyDocument", "MaxSessionDuration")
    if account != situation.account_id:
        return []
    node = f"{situation.parameters.cluster}-node-role"
    arn = situation.role_arn.replace(situation.parameters.role_name, node)
    nodes = {"RoleName": node, "Arn": arn, "AssumeRolePolicyDocument": NODE_TRUST, "MaxSessionDuration": 3600}
    mine = (_role(arn, role) for arn, role in situation.roles.items())
    return [nodes, *({key: role[key] for key in listed} for role in mine)]


@answers("iam:GetRole (?P<name>\\S+)" + ACCOUNT)
def get_role(situation, facts, name, account):
    role = situation.roles.get(_arn(name, account))
    return role and _role(_arn(name, account), role)


@answers("iam:GetAccountAuthorizationDetails" + ACCOUNT)
def authorization_details(situation, facts, account):
    mine = [_role(arn, role) for arn, role in situation.roles.items() if arn.split(":")[4] == account]
    return {"RoleDetailList": mine, "Policies": []}


@answers("iam:ListAttachedRolePolicies (?P<name>\\S+)" + ACCOUNT)
def list_attached(situation, facts, name, account):
    role = situation.roles.get(_arn(name, account))
    return role and [{"PolicyName": arn.rpartition("/")[2], "PolicyArn": arn} for arn in role["Attached"]]


@answers("iam:ListRolePolicies (?P<name>\\S+)" + ACCOUNT)
def list_inline(situation, facts, name, account):
    role = situation.roles.get(_arn(name, account))
    return role and [*role["Inline"]]


@answers("iam:GetRolePolicy (?P<name>\\S+) (?P<policy>\\S+)" + ACCOUNT)
def get_inline(situation, facts, name, policy, account):
    return situation.roles[_arn(name, account)]["Inline"][policy]


@answers("iam:GetPolicyVersion (?P<arn>\\S+)" + ACCOUNT)
def get_policy(situation, facts, arn, account):
    return _managed(arn)


@answers("iam:SimulatePrincipalPolicy (?P<arn>\\S+) (?P<action>\\S+) (?P<resource>\\S+)" + ACCOUNT)
def simulate(situation, facts, arn, action, resource, account):
    role = situation.roles[arn]
    session = f"{arn.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/simulated"
    request = Request(Principal.role_session(session, arn), action, resource, {})
    inline = [Policy.read(document, kind="identity", name=name) for name, document in role["Inline"].items()]
    attached = [Policy.read(_managed(each), kind="identity", name=each) for each in role["Attached"]]
    answer = {"EvalDecision": evaluate(request, identity=[*inline, *attached]).outcome}
    if boundary := role["PermissionsBoundary"]:
        bounding = Policy.read(_managed(boundary), kind="boundary", name=boundary)
        bounded = evaluate(request, identity=[bounding]).allowed
        answer |= {"PermissionsBoundaryDecisionDetail": {"AllowedByPermissionsBoundary": bounded}}
        answer["EvalDecision"] = answer["EvalDecision"] if bounded else "implicitDeny"
    return answer


def _arn(name: str, account: str) -> str:
    return f"arn:aws:iam::{account}:role/{name}"


def _role(arn: str, role: Document) -> Document:
    kept = {key: role[key] for key in ("AssumeRolePolicyDocument", "MaxSessionDuration", "Tags")}
    if arn_of_policy := role["PermissionsBoundary"]:
        of_type = {"PermissionsBoundaryType": "PermissionsBoundaryPolicy"}
        kept["PermissionsBoundary"] = of_type | {"PermissionsBoundaryArn": arn_of_policy}
    return {"RoleName": arn.rpartition("/")[2], "Arn": arn, "CreateDate": MADE, **kept}


@cache
def _managed(arn: str) -> Document | None:
    """The document of an AWS managed policy, or None."""
    from moto.iam.aws_managed_policies import aws_managed_policies_data

    start = f'\n "{arn.rpartition("/")[2]}":'
    at = aws_managed_policies_data.find(start)
    read = json.JSONDecoder().raw_decode
    return read(aws_managed_policies_data, at + len(start))[0]["Document"] if at >= 0 else None


# The other services.


@answers("s3:GetBucketPolicy (?P<bucket>\\S+)" + ACCOUNT)
def get_bucket_policy(situation, facts, bucket, account):
    return situation.bucket_policy and json.dumps(situation.bucket_policy)


@answers("cloudtrail:LookupEvents (?P<name>\\w+)" + ACCOUNT)
def look_up(situation, facts, name, account):
    calls = []
    for call in situation.refused:
        if call["operation"].replace("_", "") == name.lower():
            code, message = ERRORS[call["code"]]
            arguments = {key[0].lower() + key[1:]: value for key, value in call["arguments"].items() if key != "Tags"}
            error = {"errorCode": code, "errorMessage": message, "requestParameters": arguments}
            calls.append({"eventTime": "2026-01-01T00:02:00Z", "eventName": name, "caller": "", **error})
    return calls[::-1]


answers("eks:ListClusters" + ACCOUNT)(lambda situation, facts, account: [situation.parameters.cluster])


@answers("eks:DescribeCluster (?P<name>\\S+)" + ACCOUNT)
def describe_cluster(situation, facts, name, account):
    return {"name": name, "identity": {"oidc": {"issuer": situation.issuer}}}


@answers("eks:ListIdentityProviderConfigs (?P<cluster>\\S+)" + ACCOUNT)
def list_identity_provider_configs(situation, facts, cluster, account):
    names = [config["identityProviderConfigName"] for config in situation.identity_provider_configs]
    return [{"type": "oidc", "name": name} for name in names]


@answers("eks:DescribeIdentityProviderConfig (?P<cluster>\\S+) (?P<name>\\S+)" + ACCOUNT)
def describe_identity_provider_config(situation, facts, cluster, name, account):
    return situation.identity_provider_configs[0]


@answers("eks:ListPodIdentityAssociations (?P<cluster>\\S+)" + ACCOUNT)
def list_associations(situation, facts, cluster, account):
    of = situation.parameters
    subject = {"namespace": of.namespace, "serviceAccount": of.service_account}
    return [{"clusterName": cluster, **subject, "associationId": "a-1"} for _ in situation.associations]


@answers("ec2:DescribeRegions" + ACCOUNT)
def describe_regions(situation, facts, account):
    regions = {"us-east-1": "opt-in-not-required", "eu-west-1": "opt-in-not-required", "af-south-1": "not-opted-in"}
    return [{"RegionName": name, "OptInStatus": status} for name, status in regions.items()]


# The issuer.


@answers("https://(?P<name>.+)/.well-known/openid-configuration")
def discovery(situation, facts, name):
    url = f"https://{name}"
    own = {"issuer": url, "jwks_uri": f"{url}/keys"}
    return _published(situation, "openid-configuration", f"{url}/.well-known/openid-configuration", own)


@answers("https://(?P<name>.+)/keys")
def keys(situation, facts, name):
    return _published(situation, "keys", f"https://{name}/keys", {"keys": [{"kid": facts.key_id, "kty": "RSA"}]})


@answers("get --raw /openid/v1/jwks")
def cluster_keys(situation, facts):
    return {"keys": [{"kid": facts.key_id, "kty": "RSA"}]}


@answers("tls://.+")
def served(situation, facts):
    return facts.thumbprint


def _published(situation: Situation, document: str, url: str, own: Document) -> Document:
    answer = situation.published.get(document)
    if answer and answer["status"] != 200:
        return {"error": f"{url} answers {answer['status']}: {answer['body']}"}
    return {"document": json.loads(answer["body"]) if answer else own}


# Kubernetes.

KINDS = {each.lower(): each for each in ("Namespace", "ConfigMap", "MutatingWebhookConfiguration", "Deployment")}


@answers(f"get (?P<kind>{'|'.join(KINDS)}) (?P<name>\\S+)( -n (?P<namespace>\\S+))?")
def get_object(situation, facts, kind, name, namespace):
    return situation.objects.get(f"{KINDS[kind]} {namespace}/{name}" if namespace else f"{KINDS[kind]} {name}")


@answers("list serviceaccounts (-n (?P<namespace>\\S+)|--all-namespaces)")
def list_service_accounts(situation, facts, namespace):
    default = {"metadata": {"name": "default", "namespace": situation.parameters.namespace}}
    return [default, *_items(situation, "ServiceAccount ")]


@answers("list (?P<kind>namespaces|(cluster)?rolebindings) --all-namespaces")
def list_of_the_cluster(situation, facts, kind):
    return _items(situation, "Namespace ") if kind == "namespaces" else []


@answers("get (?P<url>https://\\S+)")
def handshake(situation, facts, url):
    return "" if url == situation.registration["webhooks"][0]["clientConfig"]["url"] else "Connection refused"


@answers("list pods (-n (?P<namespace>\\S+)|--all-namespaces)")
def list_pods(situation, facts, namespace):
    alone = [_pod(situation, situation.objects[key], situation.admitted[key]) for key in situation.pod_keys]
    return [_item(pod) for pod in (*alone, *(pod for pod, trouble in _deployed(situation) if not trouble))]


def _items(situation: Situation, prefix: str) -> list[Document]:
    return [_item(obj) for key, obj in situation.objects.items() if key.startswith(prefix)]


def _item(obj: Document) -> Document:
    """An object as an item of a list: without `apiVersion` and `kind`, which the list states itself."""
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}


@answers("list (?P<kind>deployment|(stateful|daemon|replica)set|(cron)?job)s (-n (?P<namespace>\\S+)|--all-namespaces)")
def list_workloads(situation, facts, kind, namespace):
    listed = _items(situation, f"Deployment {namespace}/" if namespace else "Deployment ")
    if kind == "replicaset":
        of = [each["metadata"] for each in listed]
        listed = [get_replica_set(situation, facts, each["name"], each["namespace"]) for each in of]
    # The lab's cluster has no other kinds.
    return [_item(obj) for obj in listed] if kind in ("deployment", "replicaset") else None


@answers("get replicaset (?P<name>\\S+)-1 -n (?P<namespace>\\S+)")
def get_replica_set(situation, facts, name, namespace):
    deployment = situation.objects[f"Deployment {namespace}/{name}"]
    owner = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "controller": True}
    metadata = {"name": f"{name}-1", "namespace": namespace, "ownerReferences": [owner]}
    return {"kind": "ReplicaSet", "metadata": metadata, "spec": {"template": deployment["spec"]["template"]}}


@answers("list events -n (?P<namespace>\\S+)")
def list_events(situation, facts, namespace):
    events = _items(situation, "Event ")
    for pod, trouble in _deployed(situation):
        if trouble:
            owner = pod["metadata"]["ownerReferences"][0]
            involved = {"kind": "ReplicaSet", "name": owner["name"], "namespace": namespace}
            failed = {"reason": "FailedCreate", "message": f"Error creating: {trouble}", "type": "Warning"}
            events.append({"metadata": {}, "involvedObject": involved, "lastTimestamp": MADE, **failed})
    return events


def _deployed(situation: Situation) -> Iterator[tuple[Document, str]]:
    """The pods of Deployments, each with the API server's reason to refuse it, or an empty text."""
    for key, deployment in situation.objects.items():
        if not key.startswith("Deployment "):
            continue
        metadata, template = deployment["metadata"], deployment["spec"]["template"]
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"{metadata['name']}-1", "controller": True}
        of_pod = {"name": f"{metadata['name']}-1-x", "namespace": metadata["namespace"], "ownerReferences": [owner]}
        manifest = {"kind": "Pod", "metadata": {**template["metadata"], **of_pod}, "spec": template["spec"]}
        spec = situation.model_copy(update={"made_with": None}).admission_of(admission.with_defaults(manifest))
        paths = [mount["mountPath"] for mount in spec["containers"][0].get("volumeMounts") or []]
        twice = next((path for path in paths if paths.count(path) > 1), "")
        field = "spec.containers[0].volumeMounts[1].mountPath"
        trouble = f'Pod "x" is invalid: {field}: Invalid value: "{twice}": must be unique' if twice else ""
        yield _pod(situation, manifest, spec), trouble


def _pod(situation: Situation, manifest: Document, spec: Document) -> Document:
    """A pod as the API server returns it, with the token for the API server mounted."""
    own = {"name": "kube-api-access-x", "projected": {"sources": OWN_SOURCES, "defaultMode": 420}}
    mount = {"name": own["name"], "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount", "readOnly": True}
    containers = []
    for container, applied in zip(spec["containers"], manifest["spec"]["containers"], strict=True):
        at = len(applied.get("volumeMounts") or [])
        mounts = container.get("volumeMounts") or []
        containers.append({**container, "volumeMounts": [*mounts[:at], mount, *mounts[at:]]})
    made = {**spec, "containers": containers, "volumes": [*(spec.get("volumes") or []), own]}
    metadata = {**manifest["metadata"], "creationTimestamp": MADE, "uid": "b"}
    return {"kind": "Pod", "metadata": metadata, "spec": made, "status": _status(situation, spec)}


def _status(situation: Situation, spec: Document) -> Document:
    name, image = spec["containers"][0]["name"], spec["containers"][0]["image"]
    waiting = {"reason": "ErrImagePull", "message": f'the node has no image "{image}"'}
    phase, state = ("Running", {"running": {}}) if image == situation.image else ("Pending", {"waiting": waiting})
    return {"phase": phase, "containerStatuses": [{"name": name, "state": state}]}


# The pod itself.

IN_POD = " in pod (?P<pod>\\S+) -n (?P<namespace>\\S+)"
answers(r"eks:DescribePodIdentityAssociation \S+ a-1" + ACCOUNT)(
    lambda situation, facts, account: next((each["roleArn"] for each in situation.associations), None)
)
answers("the processes' users" + IN_POD)(lambda *_, **__: {"users": [[0, 0], [1000, 1000]]})
answers("the AWS CLI's region" + IN_POD)(
    lambda situation, facts, **pod: {"region": _variables(situation, **pod).get("AWS_DEFAULT_REGION", "")}
)


@answers("the token's claims" + IN_POD)
def token_claims(situation, facts, pod, namespace):
    answer = {"header": {}, "claims": {}, "unreadable": "", "malformed": "", "no_program": False}
    source = _token_source(situation, pod, namespace)
    if source is None:
        return answer | {"unreadable": "cat: no such file or directory"}
    if isinstance(source, str):
        return answer | _claims_of_text(source)
    claims = {"iss": situation.issuer, "sub": situation.parameters.subject, "aud": [source["audience"]]}
    return answer | {"header": {"alg": "RS256", "kid": facts.key_id}, "claims": claims}


@answers("sts:AssumeRoleWithWebIdentity with the token" + IN_POD)
def exchange(situation, facts, pod, namespace):
    return dict(zip(("arn", "code", "message"), _exchanged(situation, facts, pod, namespace), strict=True))


@answers("sts:GetCallerIdentity" + IN_POD)
def caller(situation, facts, pod, namespace):
    variables = _variables(situation, pod, namespace)
    if variables.get("AWS_ACCESS_KEY_ID"):
        return {"arn": "", "error": "An error occurred (InvalidClientTokenId)"}
    if "AWS_PROFILE" in variables:
        return {"arn": "", "error": f"The config profile ({variables['AWS_PROFILE']}) could not be found"}
    if not variables.get("AWS_ROLE_ARN") or not variables.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return {"arn": "", "error": "Unable to locate credentials."}
    arn, code, message = _exchanged(situation, facts, pod, namespace)
    error = f"An error occurred ({code}) when calling the AssumeRoleWithWebIdentity operation: {message}"
    return {"arn": arn, "error": error if code else ""}


def _exchanged(situation: Situation, facts: Facts, pod: str, namespace: str) -> tuple[str, str, str]:
    """STS's answer to the pod's token: the session's ARN, or the error."""
    arn = _variables(situation, pod, namespace).get("AWS_ROLE_ARN", "")
    source = _token_source(situation, pod, namespace)
    invalid = ("", "InvalidIdentityToken", "The web identity token provided could not be validated.")
    if not re.fullmatch(r"arn:aws:iam::\d{12}:role/.+", arn):
        return "", "ValidationError", "Request ARN is invalid"
    provider_arn = situation.provider_arn.replace(situation.account_id, arn.split(":")[4])
    provider = situation.providers.get(provider_arn)
    if provider and isinstance(source, str) and "claims" in _claims_of_text(source):
        return "", "ExpiredTokenException", "Token expired"
    if provider is None or not isinstance(source, dict) or source["audience"] not in provider["ClientIDList"]:
        return invalid
    if situation.published:
        return invalid
    name = situation.provider_name
    context = {f"{name}:sub": situation.parameters.subject, f"{name}:aud": source["audience"]}
    document = situation.roles.get(arn, {}).get("AssumeRolePolicyDocument") or {"Statement": []}
    trust = Policy.read(document, kind="trust", name="trust policy")
    if not evaluate_trust(trust, provider_arn=provider_arn, context=context).allowed:
        return "", "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    return f"{arn.replace(':iam:', ':sts:').replace(':role/', ':assumed-role/')}/session", "", ""


def _claims_of_text(text: str) -> Document:
    try:
        header, claims = read_jwt(text)
    except NotAToken as error:
        return {"malformed": str(error)}
    return {"header": header, "claims": claims}


def _live_pod(situation: Situation, name: str, namespace: str) -> Document:
    return next(pod for pod in list_pods(situation, None, namespace) if pod["metadata"]["name"] == name)


def _variables(situation: Situation, pod: str, namespace: str) -> dict[str, str]:
    container = _live_pod(situation, pod, namespace)["spec"]["containers"][0]
    values: dict[str, str] = {}
    for source in container.get("envFrom") or []:
        if reference := source.get("secretRef"):
            data = situation.objects[f"Secret {namespace}/{reference['name']}"]["data"]
            values |= {key: base64.b64decode(value).decode() for key, value in data.items()}
        else:
            values |= situation.objects[f"ConfigMap {namespace}/{source['configMapRef']['name']}"]["data"]
    return values | {variable["name"]: variable.get("value", "") for variable in container.get("env") or []}


def _token_source(situation: Situation, pod: str, namespace: str) -> Document | str | None:
    """The token at the path that the pod's variables name: a projected token, a ConfigMap's text, or None."""
    spec = _live_pod(situation, pod, namespace)["spec"]
    file = _variables(situation, pod, namespace).get("AWS_WEB_IDENTITY_TOKEN_FILE", "")
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for mount in spec["containers"][0]["volumeMounts"]:
        if file == f"{mount['mountPath']}/token":
            volume = volumes[mount["name"]]
            for source in volume.get("projected", {}).get("sources", []):
                if token := source.get("serviceAccountToken"):
                    return {"audience": situation.issuer, **token}
            if reference := volume.get("configMap"):
                return situation.objects[f"ConfigMap {namespace}/{reference['name']}"]["data"]["token"]
    return None
