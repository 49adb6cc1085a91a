"""A container's variables and AWS configs: does the SDK in it get to exchange the token, or does something else win?

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

from labkit.diagnosis.evidence import Evidence, NotRead, variables
from labkit.diagnosis.finding import Finding
from labkit.diagnosis.repairs import pod_commands

LEARN = "04-pod.ipynb"
SOURCE = "kubectl get pod -o yaml, spec.containers[].env"
CHAINED_FOR = 3600  # seconds; no chained session lasts longer


def static_keys(evidence: Evidence) -> Finding | None:
    """Access keys in the container's variables: every SDK takes them before it looks for a token.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    found = finding(
        evidence,
        "pod-static-keys",
        "The container has access keys of its own, which go before the role.",
        variables.static_keys,
    )
    for container in evidence.containers if not found else []:
        for secret in container.secrets:
            kubectl = f"{evidence.connection.kubectl} describe secret {secret} -n {evidence.parameters.namespace}"
            raise NotRead(f"get secret {secret} -n {evidence.parameters.namespace}", "Secrets are not read", kubectl)
    return found


def aws_profile(evidence: Evidence) -> Finding | None:
    """A profile is asked for that no config in the pod defines: the SDK stops there.

    https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """
    found = finding(
        evidence,
        "pod-aws-profile",
        "The container asks for a profile that nothing in the pod defines.",
        variables.unknown_profile,
    )
    for container in evidence.containers if not found else []:
        if container.hidden_config and any(container.value(name) for name in variables.PROFILES):
            what = f"get secret {container.hidden_config} -n {evidence.parameters.namespace}"
            raise NotRead(what, "Secrets are not read", "a look at the AWS config in it")
    return found


def uses_the_api_server_token(evidence: Evidence) -> Finding | None:
    """The token for the API server is sent to STS, which it is not made for.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    return finding(
        evidence,
        "pod-uses-the-api-server-token",
        "The container sends STS the token that is made for the cluster's API server.",
        variables.api_server_token,
    )


def token_variable_missing(evidence: Evidence) -> Finding | None:
    """`AWS_ROLE_ARN` stands in the manifest, alone: the webhook then adds neither of the two variables."""
    return finding(
        evidence,
        "pod-token-variable-missing",
        "The container has AWS_ROLE_ARN from elsewhere, so the webhook did not give it the token's file.",
        variables.token_variable_missing,
    )


def role_variable_missing(evidence: Evidence) -> Finding | None:
    """`AWS_WEB_IDENTITY_TOKEN_FILE` stands in the manifest, alone: the webhook then adds neither."""
    return finding(
        evidence,
        "pod-role-variable-missing",
        "The container has AWS_WEB_IDENTITY_TOKEN_FILE from elsewhere, so the webhook did not give it the role.",
        variables.role_variable_missing,
    )


def variables_empty(evidence: Evidence) -> Finding | None:
    """The variables are there and empty: the webhook adds none, and SDKs go on to the node's role, silently."""
    return finding(
        evidence,
        "pod-variables-empty",
        "The container's role and token variables are empty, so the SDK goes on to the node's role.",
        variables.variables_empty,
    )


def token_file_missing(evidence: Evidence) -> Finding | None:
    """The variable names a file where nothing is mounted."""
    return finding(
        evidence,
        "pod-token-file-missing",
        "The container's token variable names a file that is not there.",
        variables.token_file_missing,
    )


def role_session_name_invalid(evidence: Evidence) -> Finding | None:
    """STS takes 2 to 64 letters, digits and `+=,.@-_` as a session's name."""
    return finding(
        evidence,
        "pod-role-session-name-invalid",
        "The name that the container gives its sessions is none that STS takes.",
        variables.invalid_session_name,
    )


def role_session_too_long(evidence: Evidence) -> Finding | None:
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
                return Finding(
                    id="role-session-too-long",
                    summary="An AWS config in the pod asks for longer sessions than the role can have.",
                    expected=f"duration_seconds of {longest} at most",
                    found=f"container {container.name}, {config.path}, {profile}: duration_seconds = {seconds}",
                    source=f"kubectl get configmap {config.config_map} -o yaml; iam:GetRole, MaxSessionDuration",
                    repair=f"{kubectl} get configmap {config.config_map} -n {namespace} -o yaml | sed '{shorter}' | "
                    f"{kubectl} replace -f -\n{pod_commands.replaced(evidence)}",
                    learn="07-inside-the-exchange.ipynb",
                )
    return None


CAUSES = (
    static_keys,
    aws_profile,
    uses_the_api_server_token,
    token_variable_missing,
    role_variable_missing,
    variables_empty,
    token_file_missing,
    role_session_name_invalid,
    role_session_too_long,
)


def finding(
    evidence: Evidence, id: str, summary: str, check: variables.Check, *, source: str = SOURCE, learn: str = LEARN
) -> Finding | None:
    """What is wrong with the pod's containers in one respect; None where nothing is, or without a pod."""
    wrong = [(container.name, found) for container in evidence.containers if (found := check(evidence, container))]
    if not wrong:
        return None
    return Finding(
        id=id,
        summary=summary,
        expected=wrong[0][1].expected,
        found="; ".join(f"container {name}: {each.found}" for name, each in wrong),
        source=source,
        repair=pod_commands.replaced(evidence),
        learn=learn,
    )


def _longest(evidence: Evidence, settings: dict[str, str]) -> int:
    """How long sessions of a profile's role can last, in seconds."""
    if "source_profile" in settings or "credential_source" in settings:
        return CHAINED_FOR
    arn = settings.get("role_arn") or evidence.role_arn
    role = evidence.role if arn == evidence.role_arn else evidence.account.role(arn.rpartition("/")[2])
    return (role or {}).get("MaxSessionDuration") or CHAINED_FOR
