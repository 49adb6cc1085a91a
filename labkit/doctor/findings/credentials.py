"""The pod's credentials: does STS accept the pod's token, and as which identity does AWS know the pod?"""

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, accounts, kinds, known, missed_role
from labkit.doctor.evidence.cluster import AUDIENCE_KEY
from labkit.doctor.evidence.matches import matches
from labkit.doctor.evidence.objects import TokenProjection
from labkit.doctor.evidence.pod_spec import ROLE, TOKEN_FILE, Container
from labkit.doctor.evidence.probe import Exchange, ProbedToken
from labkit.doctor.evidence.reading import Document
from labkit.doctor.explanations import explain
from labkit.doctor.finding import Cause, Symptom, any_finding, cause, causes_of
from labkit.doctor.findings import containers
from labkit.doctor.repairs import advice, pod_commands
from labkit.doctor.repairs.manifest import containers_of
from labkit.doctor.repairs.repair import Repair
from labkit.doctor.repairs.words import listed, said
from labkit.documents import AUDIENCE
from labkit.policy import Policy
from labkit.policy.arn import Arn
from labkit.policy.matching import names
from labkit.policy.principals import Match
from labkit.tokens import NotAToken, read_jwt

LEARN = "05-verify.ipynb"
CALL = "kubectl exec … -- aws sts get-caller-identity"
CAT = "kubectl exec … -- cat TOKEN_FILE"
EXCHANGE = "sts:AssumeRoleWithWebIdentity with the pod's token"
# Seconds after which every part of AWS knows of a change in IAM.
SETTLED = 60
# If others need a volume's token, the volume gets a second one, for STS. This is added to the second token's path.
FOR_STS = "-for-sts"
EXPIRED = ("ExpiredTokenException", "ExpiredToken")
ASSUME = "AssumeRoleWithWebIdentity"


@cause(
    "token-audience-mismatch",
    stages.TOKEN,
    LEARN,
    reads=(kinds.PODS,),
    explained_by=("pod-volume-name-taken",),
)
def token_audience_mismatch(evidence: Evidence) -> Symptom | None:
    """https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken"""
    audience = _audience(evidence)
    if not audience or audience == evidence.expected.audience:
        return None
    # If the provider is missing, the repair creates it for the usual audience.
    audiences = evidence.aws.provider["ClientIDList"] if evidence.aws.provider else [AUDIENCE]
    if audience in audiences:
        return None
    return Symptom(
        summary="The pod's token is not meant for STS.",
        expected=", ".join(audiences),
        found=audience,
        source=f"kubectl get pod -o yaml, the projected volume of the token; the annotation {AUDIENCE_KEY}",
        repair=_made_for_sts(evidence, audience),
    )


@cause("token-malformed", stages.TOKEN, LEARN, reads=(kinds.CLAIMS,))
def token_malformed(evidence: Evidence) -> Symptom | None:
    """https://github.com/aws/amazon-eks-pod-identity-webhook/issues/232"""
    actual, source = _malformed(evidence)
    if not actual or any_finding(evidence, containers.token_copied):
        return None
    return Symptom(
        summary="The pod's token file does not contain a token.",
        expected="a JSON web token: header, claims and signature",
        found=actual,
        source=source,
        repair=pod_commands.replaced(evidence, pod_commands.without_identity),
    )


@cause("token-expired", stages.TOKEN, "06-inside-the-exchange.ipynb", reads=(kinds.EXCHANGE,))
def token_expired(evidence: Evidence) -> Symptom | None:
    """https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken"""
    exchange = _refused_exchange(evidence)
    if exchange is None or exchange.code not in EXPIRED or any_finding(evidence, containers.token_copied):
        return None
    return Symptom(
        summary="The token in the pod has expired, and the node has not replaced it.",
        expected="a token that the node renews after four fifths of its lifetime",
        found=f"{exchange.code}: {exchange.message}",
        source=EXCHANGE,
        repair=pod_commands.replaced(evidence),
    )


@cause("token-read-once", stages.TOKEN, "06-inside-the-exchange.ipynb", reads=(kinds.CLAIMS,))
def token_read_once(evidence: Evidence) -> Symptom | None:
    """The application still sends its first token, although the node has renewed the token in the file.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html
    """
    token = _token(evidence)
    if token is None or not token.claims or not _was_renewed(evidence, token.claims):
        return None
    late = [
        call
        for call in evidence.aws.account.calls(ASSUME)
        if call.get("errorCode") in EXPIRED
        and evidence.expected.role_arn in str(call.get("requestParameters"))
        and (call.get("eventTime") or "") >= missed_role.made_at(evidence)
    ]
    if not late:
        return None
    return Symptom(
        summary="The application sends an expired token, although the pod's token file has a fresh one.",
        expected=f"the application reads the file in {TOKEN_FILE} before each exchange, like SDKs do",
        found=f"{late[0]['errorCode']}: {late[0].get('errorMessage', '')} at {late[0].get('eventTime', '')}",
        source=f"cloudtrail:LookupEvents {ASSUME}; {CAT}",
        repair=Repair.of(
            "# let the application use the SDK's web identity provider, or read the token file before each exchange",
            "# as long as the application keeps its first token, a new pod works only until that token expires:",
            pod_commands.replaced(evidence),
        ),
    )


@cause("role-too-new", stages.ROLE, "02-iam-role.ipynb", reads=(kinds.ROLE,))
def too_new(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot.html#troubleshoot_general_eventual-consistency"""
    # Only a refusal needs an explanation, and only a probe shows one.
    if evidence.aws.role is None or not evidence.aws.trust.admits or not evidence.pod.probe_allowed:
        return None
    made = str(evidence.aws.role.get("CreateDate") or "")
    age = (datetime.now(UTC) - datetime.fromisoformat(made)).total_seconds() if made else SETTLED
    if age >= SETTLED:
        return None
    caller = evidence.pod.caller_if_known
    if caller is None or caller.arn or not {"(AccessDenied)", "AssumeRoleWithWebIdentity"} <= {*caller.error.split()}:
        return None
    # An error that names the denying policy shows that AWS knows the role.
    if any_finding(evidence, *DENIED_BY_OTHERS):
        return None
    # STS refuses another role, or another service account's token, however old the role is.
    if evidence.pod.role_arn != evidence.expected.role_arn or not any(
        pod == evidence.pod.document for pod in evidence.cluster.pods
    ):
        return None
    return Symptom(
        summary="STS does not know the role yet: the role is right, but less than a minute old.",
        expected=f"a role that is older than {SETTLED} seconds",
        found=f"made at {made}; {caller.error}",
        source="iam:GetRole, CreateDate",
        repair="# a program should retry by itself, with growing pauses. By hand, retry after a minute:\nsleep 60",
        severity="note",
    )


def denied_by(policy: str, summary: str, repair: Callable[[Evidence], str]) -> Cause:
    """Return a `Cause` that finds an AWS error about a policy of the type `policy`, e.g. a "VPC endpoint policy".

    https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
    """
    named = re.compile(rf"explicit deny in an? {policy}|no {policy} allows", re.IGNORECASE)

    def look(evidence: Evidence) -> Symptom | None:
        refusal = next(((text, source) for text, source in _refusals(evidence) if named.search(text)), None)
        if refusal is None:
            return None
        (actual, source), expected = refusal, f"no {policy} that denies the call"
        if policy.endswith("control policy"):
            actual = f"{actual}; {evidence.aws.control_policies(policy.upper().replace(' ', '_'))}"
        return Symptom(summary, expected, actual, source, repair=repair(evidence))

    name = policy.lower().replace(" ", "-")
    return cause(f"denied-by-{name}", stages.EXCHANGE, LEARN, reads=(kinds.CALLER,))(look)


denied_by_service_control_policy = denied_by(
    "service control policy",
    "A service control policy of the organization keeps the pod from its role.",
    lambda evidence: advice.organization_stays(evidence, "SERVICE_CONTROL_POLICY"),
)
denied_by_resource_control_policy = denied_by(
    "resource control policy",
    "A resource control policy of the organization keeps the pod from its role.",
    lambda evidence: advice.organization_stays(evidence, "RESOURCE_CONTROL_POLICY"),
)
denied_by_vpc_endpoint_policy = denied_by(
    "VPC endpoint policy",
    "The pod reaches STS through a VPC endpoint, and the endpoint's policy keeps the pod from its role.",
    lambda _: said(
        "only whoever runs the cluster's network can change the policy. This lists the endpoints and their policies:",
        "aws ec2 describe-vpc-endpoints --query 'VpcEndpoints[].[VpcEndpointId,ServiceName,PolicyDocument]'",
    ),
)

DENIED_BY_OTHERS = (denied_by_service_control_policy, denied_by_resource_control_policy, denied_by_vpc_endpoint_policy)


@cause("pod-role-arn-malformed", stages.EXCHANGE, "03-service-account.ipynb", reads=(kinds.CALLER,))
def role_arn_malformed(evidence: Evidence) -> Symptom | None:
    """A container takes AWS_ROLE_ARN from a Secret, and STS says that it isn't an ARN.

    Often the Secret's value ends with a line break: `echo ARN | base64` encodes one.
    """
    refusal = next(
        (
            (text, source)
            for text, source in _refusals(evidence)
            if any(each.family == "role-arn" for each in explain(text))
        ),
        None,
    )
    sources = {
        each.name: variable.source
        for each in evidence.pod.containers
        if (variable := each.variable(ROLE)) and variable.value is None
    }
    if refusal is None or not sources:
        return None
    kubectl, namespace = evidence.connection.kubectl, evidence.parameters.namespace
    secrets = sorted({source.rpartition(" ")[2] for source in sources.values()})
    return Symptom(
        f"STS says that the container's {ROLE} is not an ARN.",
        expected="a role's ARN, without a line break at its end",
        found=f"{listed([f'container {name}: {ROLE} of the {each}' for name, each in sources.items()])}: {refusal[0]}",
        source=refusal[1],
        repair=said(
            "Nothing is changed: the doctor doesn't read Secrets. With cat -A, a line break at the end shows as $:",
            *(
                f"  {kubectl} get secret {each} -n {namespace} -o 'jsonpath={{.data.KEY}}' | base64 -d | cat -A"
                for each in secrets
            ),
            f"Correct the value where the Secret is made (printf adds no line break, echo does). Or remove {ROLE} from",
            "the manifest, and let the webhook set it. Then create the pod again.",
        ),
    )


NOT_NAMED = (
    containers.role_session_too_long,
    containers.sts_endpoint_of_another_region,
    containers.region_not_activated,
    # In spite of these, the pod may have its role.
    containers.names_its_role,
    containers.proxied,
    containers.token_copied,
)
# These say more exactly why the pod has no credentials: they look at its variables and token.
NAMED = (
    token_audience_mismatch,
    token_malformed,
    token_expired,
    too_new,
    role_arn_malformed,
    *DENIED_BY_OTHERS,
    *(each for each in causes_of(containers) if each not in NOT_NAMED),
)


@cause(
    "credentials-refused",
    stages.EXCHANGE,
    LEARN,
    reads=(kinds.EXCHANGE,),
    follows_from=NAMED,
    explained_by=("role-lacks-permission",),
)
def refused(evidence: Evidence) -> Symptom | None:
    """STS refuses the pod's token, and no other finding explains why."""
    exchange, caller = _refused_exchange(evidence), evidence.pod.caller_if_known
    if accounts.uses_pod_identity(evidence):
        return None
    if exchange:
        actual, source = f"{exchange.code}: {exchange.message}", EXCHANGE
        said = f"STS refused the exchange: {actual.rstrip('.')}"
    elif caller and not caller.arn:
        actual, source = caller.error, CALL
        said = f"The pod gets no credentials: {actual.rstrip('.')}"
    else:
        return None
    means = _meaning(actual)
    return Symptom(
        summary=f"{said}. {means}" if means else f"{said}; nothing that the doctor read explains this.",
        expected=f"assumed-role/{evidence.expected.wanted_role_name}",
        found=actual,
        source=source,
        repair=advice.session_stays(evidence, str(pod_commands.replaced(evidence))),
    )


@cause("credentials-of-another-identity", stages.IDENTITY, LEARN, reads=(kinds.CALLER,), follows_from=NAMED)
def of_another_identity(evidence: Evidence) -> Symptom | None:
    """AWS knows the pod as an identity other than its role.

    Most often that's the node's role, because the pod didn't use IRSA at all.
    """
    caller = evidence.pod.caller
    if caller is None or not caller.arn or evidence.expected.role_is_assumed or accounts.uses_pod_identity(evidence):
        return None
    if _is_chained(evidence, caller.arn):
        return Symptom(
            summary=f"The pod uses its role to assume another one, {caller.role_name}, and acts as that.",
            expected=f"assumed-role/{evidence.expected.wanted_role_name}",
            found=caller.identity,
            source=f"{CALL}; iam:GetRole, AssumeRolePolicyDocument",
            repair=said(f"Nothing has to change: the trust policy of {caller.role_name} admits the pod's role."),
            severity="note",
        )
    return Symptom(
        summary="AWS knows the pod as another identity, not as its role.",
        expected=f"assumed-role/{evidence.expected.wanted_role_name}",
        found=caller.identity,
        source=CALL,
        repair=pod_commands.replaced(evidence),
    )


def _meaning(error: str) -> str:
    """Return the meaning of AWS's error if its text names one cause; otherwise empty."""
    return next((each.means for each in explain(error) if len(each.ids) == 1), "")


def _is_chained(evidence: Evidence, session_arn: str) -> bool:
    """Whether STS accepts the pod's token, and the trust policy of the pod's present role names the expected role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles.html#iam-term-role-chaining
    """
    session, exchange = Arn.parse(session_arn), known(lambda: evidence.pod.probe.exchange)
    if not session.session_role or exchange is None or exchange.code or known(lambda: evidence.aws.role) is None:
        return False
    other = known(lambda: evidence.aws.accounts.of(session.account).role(session.session_role))
    trust: Any = other["AssumeRolePolicyDocument"] if other else {}
    request = evidence.aws.request("sts:AssumeRole", session_arn)
    allowed = matches([Policy.read(trust, kind="trust", name=session.session_role)], request, allow=True)
    return any(names(statement, request) >= Match.ROLE for _, statement in allowed.applying)


def _audience(evidence: Evidence) -> str | None:
    for container in evidence.pod.containers:
        token = _sent(container)
        if token and token.get("audience"):
            return str(token["audience"])
    return evidence.pod.token_audience or evidence.cluster.annotations.get(AUDIENCE_KEY)


def _made_for_sts(evidence: Evidence, audience: str) -> Repair:
    shared = _shared_volumes(evidence, audience)

    def with_audience(_: Evidence, manifest: Document) -> None:
        for volume in manifest["spec"].get("volumes") or []:
            sources = (volume.get("projected") or {}).get("sources") or []
            for token in [source["serviceAccountToken"] for source in sources if "serviceAccountToken" in source]:
                if token.get("audience") != audience:
                    continue
                if volume["name"] not in shared:
                    token["audience"] = evidence.expected.audience
                    continue
                second = {
                    **token,
                    "audience": evidence.expected.audience,
                    "path": f"{token['path']}{FOR_STS}",
                }
                sources.append({"serviceAccountToken": second})
                _send(evidence, manifest, token["path"], volume["name"])

    kubectl, parameters = evidence.connection.kubectl, evidence.parameters
    account = f"serviceaccount {parameters.service_account} -n {parameters.namespace}"
    lines = []
    if evidence.cluster.annotations.get(AUDIENCE_KEY) == audience:
        lines.append(said(f"After this, new pods of {evidence.expected.account} get tokens for STS:"))
        lines.append(f"{kubectl} annotate {account} --overwrite {AUDIENCE_KEY}-")
    lines += [
        said(
            f"The volume {volume} keeps its token for {audience}: other containers may need it ({listed(names)}).",
            f"The new pod gets a second token, for {evidence.expected.audience}.",
        )
        for volume, names in shared.items()
    ]
    return Repair.of(
        *lines, pod_commands.replaced(evidence, with_audience) if evidence.pod.document is not None else ""
    )


def _shared_volumes(evidence: Evidence, audience: str) -> dict[str, list[str]]:
    """Return the containers that mount a volume with a token for this audience, but don't send STS such a token.

    The result has the names of these containers, by the volume's name. Volumes without such containers are left out.
    """
    senders = {each.name for each in evidence.pod.containers if (_sent(each) or {}).get("audience") == audience}
    volumes = evidence.pod.spec.volumes if evidence.pod.spec else {}
    containers_by_volume: dict[str, list[str]] = {}
    for container in evidence.pod.containers:
        for mount in container.mounts if container.name not in senders else []:
            sources = ((volumes.get(mount["name"]) or {}).get("projected") or {}).get("sources") or []
            if any((source.get("serviceAccountToken") or {}).get("audience") == audience for source in sources):
                containers_by_volume.setdefault(mount["name"], []).append(container.name)
    return containers_by_volume


def _sent(container: Container) -> TokenProjection | None:
    """Return the projected token that a container sends to STS."""
    return container.token_at(container.value(TOKEN_FILE)) if container.has_role else None


def _send(evidence: Evidence, manifest: Document, path: str, volume: str) -> None:
    """Make containers send STS the second token in `volume`, not the first token.

    The first token's path is `path`. The second token's path is `path` with `FOR_STS` at the end. Only containers that
    mount the volume and send the first token are changed.
    """
    senders = {each.name for each in evidence.pod.containers if (_sent(each) or {}).get("path") == path}
    for container in containers_of(manifest["spec"]):
        mounts_it = any(mount["name"] == volume for mount in container.get("volumeMounts") or [])
        for entry in container.get("env") or [] if mounts_it and container["name"] in senders else []:
            if entry["name"] == TOKEN_FILE and entry.get("value"):
                entry["value"] += FOR_STS


def _malformed(evidence: Evidence) -> tuple[str, str]:
    """Return the fault in a container's token file, and the command that prints the file."""
    for container in evidence.pod.containers:
        copied = container.copied_at(container.value(TOKEN_FILE)) if container.has_role else None
        if copied and copied[1] is not None:
            try:
                read_jwt(copied[1])
            except NotAToken as error:
                return str(error), f"kubectl get {copied[0].lower()} -o yaml"
    token = _token(evidence)
    return (token.malformed, CAT) if token else ("", "")


def _token(evidence: Evidence) -> ProbedToken | None:
    return evidence.pod.probe.token if evidence.pod.spec else None


def _refusals(evidence: Evidence) -> Iterator[tuple[str, str]]:
    """Yield AWS's errors about the pod's token, each with the call that got the error."""
    if evidence.expected.role_is_assumed:
        return
    if exchange := _refused_exchange(evidence):
        yield f"{exchange.code}: {exchange.message}", EXCHANGE
    # The pod may reach AWS in another way than the doctor, so its error may differ.
    caller = evidence.pod.caller
    if caller and caller.error:
        yield caller.error, CALL


def _refused_exchange(evidence: Evidence) -> Exchange | None:
    if evidence.expected.role_is_assumed:
        return None
    exchange = evidence.pod.probe.exchange
    return exchange if exchange and exchange.code else None


def _was_renewed(evidence: Evidence, claims: Document) -> bool:
    """Whether the node has renewed the pod's token, and the pod's first token has expired."""
    made = missed_role.made_at(evidence).replace("Z", "+00:00")
    issued, expires = claims.get("iat"), claims.get("exp")
    if not made or not isinstance(issued, int) or not isinstance(expires, int):
        return False
    return issued - datetime.fromisoformat(made).timestamp() >= expires - issued
