"""A container's variables and AWS configs: does the SDK in it get to exchange the token, or does something else win?

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, NotRead, kinds, variables
from labkit.diagnosis.evidence.reading import Read
from labkit.diagnosis.finding import Symptom, cause
from labkit.diagnosis.repairs import pod_commands

LEARN = "04-pod.ipynb"
SOURCE = "kubectl get pod -o yaml, spec.containers[].env"
CHAINED_FOR = 3600  # seconds; no chained session lasts longer


@cause("pod-static-keys", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def static_keys(evidence: Evidence) -> Symptom | None:
    """Access keys in the container's variables: every SDK takes them before it looks for a token.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    found = symptom(
        evidence,
        "The container has access keys of its own, which go before the role.",
        variables.static_keys,
    )
    for container in evidence.containers if not found else []:
        for secret in container.secrets:
            read = _secret(evidence, secret)
            raise NotRead(
                read, "Secrets are not read", f"{evidence.connection.kubectl} describe secret {secret} {read.where}"
            )
    return found


@cause("pod-aws-profile", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def aws_profile(evidence: Evidence) -> Symptom | None:
    """A profile is asked for that no config in the pod defines: the SDK stops there.

    https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """
    found = symptom(
        evidence,
        "The container asks for a profile that nothing in the pod defines.",
        variables.unknown_profile,
    )
    for container in evidence.containers if not found else []:
        if container.hidden_config and any(container.value(name) for name in variables.PROFILES):
            read = _secret(evidence, container.hidden_config)
            raise NotRead(read, "Secrets are not read", "a look at the AWS config in it")
    return found


@cause("pod-uses-the-api-server-token", stages.TOKEN, LEARN, reads=(kinds.PODS,))
def uses_the_api_server_token(evidence: Evidence) -> Symptom | None:
    """The token for the API server is sent to STS, which it is not made for.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    return symptom(
        evidence,
        "The container sends STS the token that is made for the cluster's API server.",
        variables.api_server_token,
    )


@cause("pod-token-variable-missing", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def token_variable_missing(evidence: Evidence) -> Symptom | None:
    """`AWS_ROLE_ARN` stands in the manifest, alone: the webhook then adds neither of the two variables."""
    return symptom(
        evidence,
        "The container has AWS_ROLE_ARN from elsewhere, so the webhook did not give it the token's file.",
        variables.token_variable_missing,
    )


@cause("pod-role-variable-missing", stages.WEBHOOK, LEARN, reads=(kinds.PODS,))
def role_variable_missing(evidence: Evidence) -> Symptom | None:
    """`AWS_WEB_IDENTITY_TOKEN_FILE` stands in the manifest, alone: the webhook then adds neither."""
    return symptom(
        evidence,
        "The container has AWS_WEB_IDENTITY_TOKEN_FILE from elsewhere, so the webhook did not give it the role.",
        variables.role_variable_missing,
    )


@cause("pod-variables-empty", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def variables_empty(evidence: Evidence) -> Symptom | None:
    """The variables are there and empty: the webhook adds none, and SDKs go on to the node's role, silently."""
    return symptom(
        evidence,
        "The container's role and token variables are empty, so the SDK goes on to the node's role.",
        variables.variables_empty,
    )


@cause("pod-token-file-missing", stages.TOKEN, LEARN, reads=(kinds.PODS,))
def token_file_missing(evidence: Evidence) -> Symptom | None:
    """The variable names a file where nothing is mounted."""
    return symptom(
        evidence,
        "The container's token variable names a file that is not there.",
        variables.token_file_missing,
    )


@cause("pod-role-session-name-invalid", stages.EXCHANGE, LEARN, reads=(kinds.PODS,))
def role_session_name_invalid(evidence: Evidence) -> Symptom | None:
    """STS takes 2 to 64 letters, digits and `+=,.@-_` as a session's name."""
    return symptom(
        evidence,
        "The name that the container gives its sessions is none that STS takes.",
        variables.invalid_session_name,
    )


@cause("role-session-too-long", stages.EXCHANGE, "07-inside-the-exchange.ipynb", reads=(kinds.PODS,))
def role_session_too_long(evidence: Evidence) -> Symptom | None:
    """An AWS config asks for longer sessions than the role has, or than a chained role can have.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use.html#id_roles_use_view-role-max-session
    """
    for container in evidence.containers:
        for config in container.aws_configs:
            for profile, settings in config.profiles.items():
                seconds = settings.get("duration_seconds", "").strip()
                longest = _longest(evidence, settings)
                if not seconds.isdigit() or int(seconds) <= longest:
                    continue
                kubectl, namespace = evidence.connection.kubectl, evidence.parameters.namespace
                shorter = f"s/duration_seconds *= *{seconds}/duration_seconds = {longest}/"
                return Symptom(
                    summary="An AWS config in the pod asks for longer sessions than the role can have.",
                    expected=f"duration_seconds of {longest} at most",
                    found=f"container {container.name}, {config.path}, {profile}: duration_seconds = {seconds}",
                    source=f"kubectl get configmap {config.config_map} -o yaml; iam:GetRole, MaxSessionDuration",
                    repair=f"{kubectl} get configmap {config.config_map} -n {namespace} -o yaml | sed '{shorter}' | "
                    f"{kubectl} replace -f -\n{pod_commands.replaced(evidence)}",
                )
    return None


def symptom(evidence: Evidence, summary: str, check: variables.Check, *, source: str = SOURCE) -> Symptom | None:
    """What is wrong with the pod's containers in one respect; None where nothing is, or without a pod."""
    wrong = [(container.name, found) for container in evidence.containers if (found := check(evidence, container))]
    if not wrong:
        return None
    return Symptom(
        summary=summary,
        expected=wrong[0][1].expected,
        found="; ".join(f"container {name}: {each.found}" for name, each in wrong),
        source=source,
        repair=pod_commands.replaced(evidence),
    )


def _secret(evidence: Evidence, name: str) -> Read:
    return Read("get secret", name, f"-n {evidence.parameters.namespace}")


def _longest(evidence: Evidence, settings: dict[str, str]) -> int:
    """How long sessions of a profile's role can last, in seconds."""
    if "source_profile" in settings or "credential_source" in settings:
        return CHAINED_FOR
    arn = settings.get("role_arn") or evidence.role_arn
    role = evidence.role if arn == evidence.role_arn else evidence.account.role(arn.rpartition("/")[2])
    return (role or {}).get("MaxSessionDuration") or CHAINED_FOR
