"""A container's variables and AWS configs: does its SDK exchange the token, and at the right STS endpoint?

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

from labkit.diagnosis import stages
from labkit.diagnosis.evidence import Evidence, NotRead, kinds, variables
from labkit.diagnosis.evidence.reading import Read
from labkit.diagnosis.finding import Cause, Symptom, cause
from labkit.diagnosis.repairs import pod_commands
from labkit.diagnosis.stages import Stage

LEARN = "04-pod.ipynb"
INSIDE = "07-inside-the-exchange.ipynb"
SOURCE = "kubectl get pod -o yaml, spec.containers[].env"
CHAINED_FOR = 3600  # seconds; no chained session lasts longer


def in_variables(id: str, stage: Stage, check: variables.Check, summary: str, *, learn: str = LEARN) -> Cause:
    """The cause that a check of a container's variables looks for."""
    return cause(id, stage, learn, reads=(kinds.PODS,))(lambda evidence: symptom(evidence, summary, check))


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


@cause("pod-static-keys", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def static_keys(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html"""
    summary = "The container has access keys of its own, which go before the role."
    found = symptom(evidence, summary, variables.static_keys)
    for container in evidence.containers if not found else []:
        for secret in container.secrets:
            read = _secret(evidence, secret)
            kubectl = f"{evidence.connection.kubectl} describe secret {secret} {read.where}"
            raise NotRead(read, "Secrets are not read", kubectl)
    return found


@cause("pod-aws-profile", stages.IDENTITY, LEARN, reads=(kinds.PODS,))
def aws_profile(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html"""
    summary = "The container asks for a profile that nothing in the pod defines."
    found = symptom(evidence, summary, variables.unknown_profile)
    for container in evidence.containers if not found else []:
        if container.hidden_config and any(container.value(name) for name in variables.PROFILES):
            read = _secret(evidence, container.hidden_config)
            raise NotRead(read, "Secrets are not read", "a look at the AWS config in it")
    return found


uses_the_api_server_token = in_variables(
    "pod-uses-the-api-server-token",
    stages.TOKEN,
    variables.api_server_token,
    "The container sends STS the token that is made for the cluster's API server.",
)
token_variable_missing = in_variables(
    "pod-token-variable-missing",
    stages.WEBHOOK,
    variables.token_variable_missing,
    "The container has AWS_ROLE_ARN from elsewhere, so the webhook did not give it the token's file.",
)
role_variable_missing = in_variables(
    "pod-role-variable-missing",
    stages.WEBHOOK,
    variables.role_variable_missing,
    "The container has AWS_WEB_IDENTITY_TOKEN_FILE from elsewhere, so the webhook did not give it the role.",
)
variables_empty = in_variables(
    "pod-variables-empty",
    stages.IDENTITY,
    variables.variables_empty,
    "The container's role and token variables are empty, so the SDK goes on to the node's role.",
)
token_file_missing = in_variables(
    "pod-token-file-missing",
    stages.TOKEN,
    variables.token_file_missing,
    "The container's token variable names a file that is not there.",
)
role_session_name_invalid = in_variables(
    "pod-role-session-name-invalid",
    stages.EXCHANGE,
    variables.invalid_session_name,
    "The name that the container gives its sessions is none that STS takes.",
)


@cause("role-session-too-long", stages.EXCHANGE, INSIDE, reads=(kinds.PODS,))
def role_session_too_long(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use.html#id_roles_use_view-role-max-session"""
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


# The way to STS.

sts_endpoint_of_another_region = in_variables(
    "pod-sts-endpoint-of-another-region",
    stages.EXCHANGE,
    variables.endpoint_of_another_region,
    "The container asks the STS endpoint of another region than its own.",
    learn=INSIDE,
)


@cause("region-not-activated", stages.EXCHANGE, INSIDE, reads=(kinds.PODS,))
def region_not_activated(evidence: Evidence) -> Symptom | None:
    """STS answers RegionDisabledException.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_temp_enable-regions.html
    """
    return symptom(
        evidence,
        "The container's region is not one that the account has enabled.",
        variables.inactive_region,
        source=f"{evidence.connection.kubectl} get pod -o yaml, spec.containers[].env; ec2:DescribeRegions",
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
