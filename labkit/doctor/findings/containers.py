"""A container's variables and AWS configs: does the SDK exchange the token, and does it call the right STS endpoint?

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, NotRead, kinds, known, variables, workloads
from labkit.doctor.evidence.objects import ObjectMeta, PodDocument, Workload
from labkit.doctor.evidence.pod_spec import REGIONS, ROLE, Container, PodSpec
from labkit.doctor.evidence.reading import NOBODY, Document, Read
from labkit.doctor.finding import Cause, Symptom, cause
from labkit.doctor.repairs import advice, pod_commands
from labkit.doctor.repairs.manifest import containers_of, set_list
from labkit.doctor.repairs.repair import Repair
from labkit.doctor.repairs.words import said
from labkit.doctor.stages import Stage
from labkit.policy.arn import Arn

LEARN = "04-pod.ipynb"
INSIDE = "06-inside-the-exchange.ipynb"
SOURCE = "kubectl get pod -o yaml, spec.containers[].env"
WHO = "kubectl exec … -- aws sts get-caller-identity"
ASSUME = "AssumeRoleWithWebIdentity"
NEVER_READ = "the doctor doesn't read Secrets"
KEYS_FIRST = "The container has its own access keys, and the SDK uses them instead of the role."
CHAINED_FOR = 3600  # seconds; chained sessions never last longer


def in_variables(id: str, stage: Stage, check: variables.VariableCheck, summary: str, *, learn: str = LEARN) -> Cause:
    """Return the `Cause` for a mistake in a container's variables. The function `check` finds the mistake."""
    return cause(id, stage, learn, reads=(kinds.PODS,))(lambda evidence: symptom(evidence, summary, check))


def symptom(
    evidence: Evidence,
    summary: str,
    check: variables.VariableCheck,
    *,
    source: str = SOURCE,
    hint: str = "",
    changes: tuple[pod_commands.Change, ...] = (),
) -> Symptom | None:
    """Return a symptom if `check` finds a mistake in a container of the pod; otherwise, return None.

    If each container with a mistake may still get its role, the symptom is a warning, and the repair is only `hint`.
    Otherwise, the symptom is an error. The repair is then `hint`, followed by the result of `pod_commands.replaced`
    for `changes`.
    """
    wrong = [(each.name, mistake) for each in evidence.pod.containers if (mistake := check(evidence, each))]
    if not wrong:
        return None
    may_work = all(each.may_work for _, each in wrong)
    return Symptom(
        summary=summary,
        expected=wrong[0][1].expected,
        found="; ".join(f"container {name}: {each.found}" for name, each in wrong),
        source=source,
        repair=hint if may_work else Repair.of(hint, pod_commands.replaced(evidence, *changes)),
        severity="warning" if may_work else "error",
    )


@cause("pod-static-keys", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def static_keys(evidence: Evidence) -> Symptom | None:
    """A container has access keys, and the SDK uses them instead of the role.

    The doctor doesn't read Secrets. Only AWS's answer to a call in the pod shows whether a Secret has access keys.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    hidden = {container.name: _hidden_keys(evidence, container) for container in evidence.pod.containers}
    finding = symptom(evidence, KEYS_FIRST, _static_keys_read)
    if finding or not any(hidden.values()):
        to_come = (_static_keys_of(evidence, each) for each in workloads.to_come(evidence))
        return finding or next(filter(None, to_come), None)
    probed = evidence.pod.probe.container if evidence.pod.probe_allowed else None
    if probed and hidden[probed.name]:
        if reason := _answer_to_keys(evidence):
            return _keys_not_read(evidence, probed, reason, hidden[probed.name])
        if evidence.expected.role_is_assumed:
            hidden[probed.name] = []
    for each in hidden.values():
        for unread in each:
            raise unread
    return None


@cause("pod-aws-profile", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def aws_profile(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html"""
    summary = "The container uses an AWS profile that nothing in the pod defines."
    finding = symptom(evidence, summary, variables.unknown_profile)
    for container in evidence.pod.containers if not finding else []:
        if container.hidden_config and any(container.value(name) for name in variables.PROFILES):
            read = _secret(evidence, container.hidden_config)
            raise NotRead(read, NEVER_READ, "check the AWS config in this Secret yourself")
    return finding


uses_the_api_server_token = in_variables(
    "pod-uses-the-api-server-token",
    stages.TOKEN,
    variables.api_server_token,
    "The container sends STS the wrong token: it is for the cluster's API server.",
)
token_variable_missing = in_variables(
    "pod-token-variable-missing",
    stages.WEBHOOK,
    variables.token_variable_missing,
    "The container already had AWS_ROLE_ARN, so the webhook did not give it a token file.",
)
role_variable_missing = in_variables(
    "pod-role-variable-missing",
    stages.WEBHOOK,
    variables.role_variable_missing,
    "The container already had AWS_WEB_IDENTITY_TOKEN_FILE, so the webhook did not give it the role.",
)
variables_empty = in_variables(
    "pod-variables-empty",
    stages.IDENTITY,
    variables.variables_empty,
    "The container's role and token variables are empty, so the SDK does not use the role.",
)
empty_region = in_variables(
    "pod-region-empty",
    stages.EXCHANGE,
    variables.empty_region,
    "The container's region variable is set but empty, so the webhook adds no region. SDKs that need AWS_REGION fail.",
)


@cause("pod-region-missing", stages.EXCHANGE, LEARN, reads=(kinds.PODS,))
def region_missing(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html"""
    return symptom(
        evidence,
        "The AWS CLI in the container knows no region, so it can call only services without one.",
        variables.missing_region,
        hint="# set both variables in the manifest, or neither: then the webhook sets both. SDKs for Python and the\n"
        "# AWS CLI 1 read only AWS_DEFAULT_REGION, and most other SDKs only AWS_REGION",
        changes=(_with_region,),
    )


role_by_hand = in_variables(
    "pod-role-set-by-hand",
    stages.WEBHOOK,
    variables.role_by_hand,
    "The pod's manifest sets a different role, so the webhook does not add the service account's role.",
)
token_file_missing = in_variables(
    "pod-token-file-missing",
    stages.TOKEN,
    variables.token_file_missing,
    "The container's AWS_WEB_IDENTITY_TOKEN_FILE names a file that does not exist.",
)


@cause("token-copied", stages.TOKEN, INSIDE, reads=(kinds.PODS,))
def token_copied(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html"""
    return symptom(
        evidence,
        "The container's token is a copy, and nothing renews a copy.",
        variables.copied_token,
        source=f"{SOURCE}, volumeMounts",
        hint="# let the webhook set AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, or mount a projected token yourself",
    )


@cause("pod-names-its-role", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def names_its_role(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/eks/latest/userguide/pod-configuration.html"""
    by_hand = variables.works_by_hand(evidence)
    if not by_hand:
        return None
    return Symptom(
        summary="The pod gets the role and the token from its own manifest, not from the annotation and the webhook.",
        expected="usually the role from the service account's annotation; the role from the pod's manifest works, too",
        found="; ".join(f"container {each.name}: {ROLE}={each.value(ROLE)}" for each in by_hand),
        source=SOURCE,
        repair="# nothing has to change; but if you change the annotation, this pod keeps the role in its manifest",
        severity="note",
    )


role_session_name_invalid = in_variables(
    "pod-role-session-name-invalid",
    stages.EXCHANGE,
    variables.invalid_session_name,
    "STS rejects the container's role session name.",
)


@cause("role-session-too-long", stages.EXCHANGE, INSIDE, reads=(kinds.PODS,))
def role_session_too_long(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use.html#id_roles_use_view-role-max-session"""
    for container in evidence.pod.containers:
        for config in container.aws_configs:
            for profile, settings in config.profiles.items():
                seconds = settings.get("duration_seconds", "").strip()
                longest = _longest(evidence, settings)
                if not seconds.isdigit() or int(seconds) <= longest:
                    continue
                return Symptom(
                    summary="An AWS config in the pod asks for longer sessions than the role allows.",
                    expected=f"duration_seconds of {longest} at most",
                    found=f"container {container.name}, {config.path}, {profile}: duration_seconds = {seconds}",
                    source=f"kubectl get configmap {config.config_map} -o yaml; iam:GetRole, MaxSessionDuration",
                    repair=_shortened(evidence, config.config_map, seconds, longest),
                )
    return None


# The connection to STS.

sts_endpoint_of_another_region = in_variables(
    "pod-sts-endpoint-of-another-region",
    stages.EXCHANGE,
    variables.endpoint_of_another_region,
    "The container calls the STS endpoint of another region.",
    learn=INSIDE,
)


@cause("pod-proxy-without-no-proxy", stages.EXCHANGE, LEARN, reads=(kinds.PODS,))
def proxied(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-proxy.html"""
    called = "STS"
    hint = "# let the proxy forward calls to STS; if pods can reach STS directly, add STS's host to NO_PROXY instead"
    wrong = next((each for each in evidence.pod.containers if variables.proxied(evidence, each)), None)
    if wrong and variables.asks_agent(wrong):
        called, host = "the Pod Identity Agent", variables.credentials_host(evidence, wrong)
        hint = f"# add {host} to NO_PROXY: the address exists only on the pod's node, where no proxy reaches it"
    return symptom(
        evidence,
        f"The container calls {called} through a proxy, because NO_PROXY does not list {called}.",
        variables.proxied,
        hint=hint,
        changes=(_past_the_proxy,),
    )


@cause("region-not-activated", stages.EXCHANGE, INSIDE, reads=(kinds.PODS,))
def region_not_activated(evidence: Evidence) -> Symptom | None:
    """The account hasn't enabled the container's region, so STS answers `RegionDisabledException`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
    """
    return symptom(
        evidence,
        "The account has not enabled the container's region.",
        variables.inactive_region,
        source=f"{evidence.connection.kubectl} get pod -o yaml, spec.containers[].env; ec2:DescribeRegions",
    )


def _static_keys_of(evidence: Evidence, workload: Workload) -> Symptom | None:
    """Return the symptom of access keys in a workload that has no pods yet."""
    template = workload["spec"]["template"]
    metadata: ObjectMeta = template.get("metadata") or ObjectMeta()
    pod: PodDocument = {"metadata": {**metadata, "namespace": evidence.parameters.namespace}, "spec": template["spec"]}
    spec = PodSpec(pod, evidence.cluster.api)
    wrong = {each.name: keys for each in spec.containers if (keys := _static_keys_read(evidence, each))}
    if not wrong:
        return None
    keys_by_container = "; ".join(f"container {name}: {keys.found}" for name, keys in wrong.items())
    return Symptom(
        KEYS_FIRST,
        expected=next(iter(wrong.values())).expected,
        found=f"{workloads.called(workload)}, {keys_by_container}",
        source=f"kubectl get {workloads.called(workload)} -o yaml, spec.template.spec.containers[].env",
        repair=pod_commands.of_workload(evidence, workload, _without_keys(wrong)),
        severity="warning",
    )


def _without_keys(wrong: dict[str, variables.Wrong]) -> pod_commands.Change:
    def change(_: Evidence, manifest: Document) -> None:
        for container in containers_of(manifest["spec"]):
            keys = wrong[container["name"]].variables if container["name"] in wrong else ()
            kept = [entry for entry in container.get("env") or [] if entry["name"] not in [key.name for key in keys]]
            # An empty variable in `env` hides a ConfigMap's key from the SDK.
            set_list(container, "env", [*kept, *({"name": key.name, "value": ""} for key in keys if key.config_map)])

    return change


def _static_keys_read(evidence: Evidence, container: Container) -> variables.Wrong | None:
    return known(lambda: variables.static_keys(evidence, container))


def _hidden_keys(evidence: Evidence, container: Container) -> list[NotRead]:
    """Return a `NotRead` for each unread object that may contain the container's access keys."""
    hidden = []
    try:
        variables.static_keys(evidence, container)
    except NotRead as unread:
        hidden.append(unread)
    if evidence.pod.spec is None or container.own_names.issuperset(variables.KEYS):
        return hidden
    references = [source.get("configMapRef") for source in container.document.get("envFrom") or []]
    for reference in filter(None, references):
        try:
            evidence.pod.spec.config_map(reference.get("name", ""))
        except NotRead as unread:
            hidden += [unread] if unread.read not in [each.read for each in hidden] else []
    for secret in container.secrets:
        read = _secret(evidence, secret)
        kubectl = f"{evidence.connection.kubectl} describe secret {secret} {read.where}"
        hidden.append(NotRead(read, NEVER_READ, kubectl))
    return hidden


def _answer_to_keys(evidence: Evidence) -> str:
    """Return AWS's answer to the pod's call, if the answer shows that access keys are in use."""
    caller = evidence.pod.caller_if_known
    if caller is None:
        return ""
    if not caller.arn:
        return caller.error if ASSUME not in caller.error and any(code in caller.error for code in NOBODY) else ""
    exchange = known(lambda: evidence.pod.probe.exchange)
    # STS accepts the token, but the SDK hasn't used the token.
    is_other = exchange is not None and bool(exchange.arn) and not evidence.expected.role_is_assumed
    return caller.arn if is_other or ":user/" in caller.arn else ""


def _keys_not_read(evidence: Evidence, container: Container, reason: str, hidden: list[NotRead]) -> Symptom:
    kinds_shown = {"get secret": "Secret", "get configmap": "ConfigMap"}
    names = ", ".join(f"{kinds_shown[unread.read.kind]} {unread.read.name}" for unread in hidden)
    kubectl, namespace = evidence.connection.kubectl, evidence.parameters.namespace
    shown = [f"#   {kubectl} describe {each.read.kind.split()[1]} {each.read.name} -n {namespace}" for each in hidden]

    def without_keys(_: Evidence, manifest: Document) -> None:
        for each in containers_of(manifest["spec"]):
            if each["name"] == container.name:
                others = [entry for entry in each.get("env") or [] if entry["name"] not in variables.KEYS]
                each["env"] = [*others, *({"name": name, "value": ""} for name in variables.KEYS)]

    return Symptom(
        summary=KEYS_FIRST,
        expected="no access keys, so that the SDK uses the role",
        found=f"container {container.name}: {reason}; sources of variables that the doctor did not read: {names}",
        source=f"{SOURCE}From; {WHO}",
        repair=Repair.of(
            f"# these commands list the variables in {names}. They do not show the values of a Secret:",
            *shown,
            "# the access keys are kept for other pods; in this container, empty variables override the keys:",
            pod_commands.replaced(evidence, without_keys),
        ),
    )


def _with_region(evidence: Evidence, manifest: Document) -> None:
    wrong = {each.name for each in evidence.pod.containers if variables.missing_region(evidence, each)}
    for container in containers_of(manifest["spec"]):
        if container["name"] in wrong:
            others = [entry for entry in container.get("env") or [] if entry["name"] not in REGIONS]
            container["env"] = others + [{"name": name, "value": evidence.expected.region} for name in REGIONS]


def _past_the_proxy(evidence: Evidence, manifest: Document) -> None:
    wrong = {each.name: each for each in evidence.pod.containers if variables.proxied(evidence, each)}
    for container in containers_of(manifest["spec"]):
        if mistake := wrong.get(container["name"]):
            names = [name for name in variables.NO_PROXIES if mistake.variable(name)] or list(variables.NO_PROXIES)
            others = [entry for entry in container.get("env") or [] if entry["name"] not in names]
            host = variables.credentials_host(evidence, mistake)
            values = {name: ",".join(filter(None, (mistake.value(name), host))) for name in names}
            # `env` wins over a ConfigMap in `envFrom`.
            container["env"] = [*others, *({"name": name, "value": value} for name, value in values.items())]


def _secret(evidence: Evidence, name: str) -> Read:
    return Read("get secret", name, f"-n {evidence.parameters.namespace}")


def _shortened(evidence: Evidence, config_map: str, seconds: str, longest: int) -> str | Repair:
    """Return commands that set `duration_seconds` to `longest` in a ConfigMap's AWS config."""
    if users := workloads.other_users(evidence, config_map):
        return advice.config_map_stays(evidence, config_map, ["duration_seconds"], users)
    # The commands don't print the AWS config, because it may contain access keys.
    kubectl, namespace = evidence.connection.kubectl, evidence.parameters.namespace
    shorter = f"s/duration_seconds *= *{seconds}/duration_seconds = {longest}/"
    return Repair.of(
        said(f"This sets duration_seconds to {longest} in the ConfigMap {config_map}.", advice.NO_OTHER_USER),
        f"{kubectl} get configmap {config_map} -n {namespace} -o yaml | sed '{shorter}' | {kubectl} replace -f -",
        pod_commands.replaced(evidence),
    )


def _longest(evidence: Evidence, settings: dict[str, str]) -> int:
    if "source_profile" in settings or "credential_source" in settings:
        return CHAINED_FOR
    arn = settings.get("role_arn") or evidence.expected.role_arn
    role, named = evidence.aws.role, Arn.find(arn)
    if arn != evidence.expected.role_arn:
        role = evidence.aws.account.role(named.name) if named else None
    return (role and role.get("MaxSessionDuration")) or CHAINED_FOR
