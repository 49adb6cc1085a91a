"""A container's variables and AWS configs: does the SDK in it get to exchange the token, or does something else win?

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.diagnosis.evidence.pod_spec import (
    API_MOUNT_PATH,
    MOUNT_PATH,
    ROLE,
    TOKEN_FILE,
    TOKEN_VOLUME,
    Container,
    Variable,
    is_token_volume,
)
from labkit.diagnosis.findings import Finding, pod_commands

if TYPE_CHECKING:
    from labkit.diagnosis.evidence import Evidence

LEARN = "04-pod.ipynb"
SOURCE = "kubectl get pod -o yaml, spec.containers[].env"
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
SESSION_NAME = "AWS_ROLE_SESSION_NAME"
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
VALID_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
CHAINED_FOR = 3600  # seconds; no chained session lasts longer
WEB_IDENTITY = "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, both of the webhook"


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a container: the variables that are to go, and expected beside found."""

    variables: tuple[Variable, ...]
    expected: str
    found: str


Check = Callable[["Evidence", Container], Wrong | None]


def static_keys(evidence: "Evidence") -> Finding | None:
    """Access keys in the container's variables: every SDK takes them before it looks for a token.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    from labkit.diagnosis.evidence import NotRead

    found = finding(
        evidence,
        "pod-static-keys",
        "The container has access keys of its own, which go before the role.",
        _static_keys,
    )
    for container in evidence.pod_spec.containers if evidence.pod_spec and not found else []:
        for secret in container.secrets:
            kubectl = f"{evidence.connection.kubectl} describe secret {secret} -n {evidence.parameters.namespace}"
            raise NotRead(f"get secret {secret} -n {evidence.parameters.namespace}", "Secrets are not read", kubectl)
    return found


def aws_profile(evidence: "Evidence") -> Finding | None:
    """A profile is asked for that no config in the pod defines: the SDK stops there.

    https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
    """
    from labkit.diagnosis.evidence import NotRead

    found = finding(
        evidence, "pod-aws-profile", "The container asks for a profile that nothing in the pod defines.", _profile
    )
    for container in evidence.pod_spec.containers if evidence.pod_spec and not found else []:
        if container.hidden_config and any(container.value(name) for name in PROFILES):
            what = f"get secret {container.hidden_config} -n {evidence.parameters.namespace}"
            raise NotRead(what, "Secrets are not read", "a look at the AWS config in it")
    return found


def uses_the_api_server_token(evidence: "Evidence") -> Finding | None:
    """The token for the API server is sent to STS, which it is not made for.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    return finding(
        evidence,
        "pod-uses-the-api-server-token",
        "The container sends STS the token that is made for the cluster's API server.",
        _api_server_token,
    )


def token_variable_missing(evidence: "Evidence") -> Finding | None:
    """`AWS_ROLE_ARN` stands in the manifest, alone: the webhook then adds neither of the two variables."""
    return finding(
        evidence,
        "pod-token-variable-missing",
        "The container has AWS_ROLE_ARN from elsewhere, so the webhook did not give it the token's file.",
        _token_variable_missing,
    )


def role_variable_missing(evidence: "Evidence") -> Finding | None:
    """`AWS_WEB_IDENTITY_TOKEN_FILE` stands in the manifest, alone: the webhook then adds neither."""
    return finding(
        evidence,
        "pod-role-variable-missing",
        "The container has AWS_WEB_IDENTITY_TOKEN_FILE from elsewhere, so the webhook did not give it the role.",
        _role_variable_missing,
    )


def variables_empty(evidence: "Evidence") -> Finding | None:
    """The variables are there and empty: the webhook adds none, and SDKs go on to the node's role, silently."""
    return finding(
        evidence,
        "pod-variables-empty",
        "The container's role and token variables are empty, so the SDK goes on to the node's role.",
        _variables_empty,
    )


def token_file_missing(evidence: "Evidence") -> Finding | None:
    """The variable names a file where nothing is mounted."""
    return finding(
        evidence,
        "pod-token-file-missing",
        "The container's token variable names a file that is not there.",
        _token_file_missing,
    )


def role_session_name_invalid(evidence: "Evidence") -> Finding | None:
    """STS takes 2 to 64 letters, digits and `+=,.@-_` as a session's name."""
    return finding(
        evidence,
        "pod-role-session-name-invalid",
        "The name that the container gives its sessions is none that STS takes.",
        _session_name,
    )


def role_session_too_long(evidence: "Evidence") -> Finding | None:
    """An AWS config asks for longer sessions than the role has, or than a chained role can have.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use.html#id_roles_use_view-role-max-session
    """
    for container in evidence.pod_spec.containers if evidence.pod_spec else []:
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


# What the repairs take off.


def superfluous(evidence: "Evidence", container_name: str) -> set[str]:
    """The variables that a container of this name is better without."""
    return {variable.name for name, variable in _superfluous(evidence) if name == container_name}


def superfluous_keys(evidence: "Evidence") -> dict[str, set[str]]:
    """The keys of ConfigMaps that become such variables by `envFrom`."""
    keys: dict[str, set[str]] = {}
    for _, variable in _superfluous(evidence):
        if variable.config_map:
            keys.setdefault(variable.config_map, set()).add(variable.key)
    return keys


def finding(
    evidence: "Evidence", id: str, summary: str, check: Check, *, source: str = SOURCE, learn: str = LEARN
) -> Finding | None:
    """What is wrong with the pod's containers in one respect; None where nothing is, or without a pod."""
    containers = evidence.pod_spec.containers if evidence.pod_spec else []
    wrong = [(container.name, found) for container in containers if (found := check(evidence, container))]
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


def has_wrong_identity(evidence: "Evidence", container: Container) -> bool:
    """Whether the container's role and token variables are wrong in a way that has a name of its own."""
    return any(check(evidence, container) for check in IDENTITY)


# The checks of one container.


def _static_keys(evidence: "Evidence", container: Container) -> Wrong | None:
    found = _set_ones(container, KEYS)
    if not found:
        return None
    beside = _set_ones(container, ("AWS_SESSION_TOKEN",))
    return Wrong((*found, *beside), "no access keys: the SDK takes the role", _named(found))


def _profile(evidence: "Evidence", container: Container) -> Wrong | None:
    found = _set_ones(container, PROFILES)
    if not found or found[0].value is None or container.hidden_config:
        return None
    profile, profiles = found[0].value, container.profiles
    if profile not in profiles:
        there = ", ".join(profiles) or "no AWS config in the pod"
        return Wrong(found, f"no {found[0].name}, or one of: {there}", f"{found[0].name}={profile}")
    if profiles[profile].get("credential_source") == "Environment" and not _set_ones(container, KEYS):
        # It means access keys in the environment, and no token.
        told = "credential_source = Environment"
        return Wrong(found, "web_identity_token_file in the profile, or no profile", f"{profile}: {told}")
    return None


def _api_server_token(evidence: "Evidence", container: Container) -> Wrong | None:
    if not (_is_set(container, ROLE) and (file := container.value(TOKEN_FILE))):
        return None
    token = container.token_at(file)
    if not (file.startswith(f"{API_MOUNT_PATH}/") or (token is not None and not token.get("audience"))):
        return None
    return Wrong(_identity(container), "the webhook's own token file", f"{TOKEN_FILE}={file}")


def _token_variable_missing(evidence: "Evidence", container: Container) -> Wrong | None:
    if not _is_set(container, ROLE) or _is_set(container, TOKEN_FILE):
        return None
    return Wrong(_identity(container), WEB_IDENTITY, f"{ROLE} alone ({container.variable(ROLE).source})")


def _role_variable_missing(evidence: "Evidence", container: Container) -> Wrong | None:
    if not _is_set(container, TOKEN_FILE) or _is_set(container, ROLE):
        return None
    return Wrong(_identity(container), WEB_IDENTITY, f"{TOKEN_FILE} alone ({container.variable(TOKEN_FILE).source})")


def _variables_empty(evidence: "Evidence", container: Container) -> Wrong | None:
    found = _identity(container)
    if not found or any(variable.value != "" for variable in found):
        return None
    return Wrong(found, WEB_IDENTITY, f"{_named(found)}: empty")


def _token_file_missing(evidence: "Evidence", container: Container) -> Wrong | None:
    file = container.value(TOKEN_FILE)
    if not file or not _is_set(container, ROLE) or _api_server_token(evidence, container):
        return None
    mount = container.mount_of(file)
    volume = evidence.pod_spec.volumes.get(mount["name"]) if mount else None
    taken = evidence.pod_spec.volumes.get(TOKEN_VOLUME)
    if taken and not is_token_volume(taken) and file == f"{MOUNT_PATH}/token":
        return None  # that the volume's name is taken says it already
    # What lies in a volume of another kind is known to nobody here.
    if volume and ("projected" not in volume or container.token_at(file)):
        return None
    return Wrong(_identity(container), "a file in a mounted volume", f"{TOKEN_FILE}={file}")


def _session_name(evidence: "Evidence", container: Container) -> Wrong | None:
    variable = container.variable(SESSION_NAME)
    if variable is None or not variable.value or VALID_SESSION_NAME.fullmatch(variable.value):
        return None
    length = len(variable.value)
    shown = variable.value if length <= 80 else f"{variable.value[:70]}… ({length} characters)"
    return Wrong((variable,), "2 to 64 letters, digits and any of + = , . @ - _", f"{SESSION_NAME}={shown!r}")


IDENTITY: tuple[Check, ...] = (
    _api_server_token,
    _token_variable_missing,
    _role_variable_missing,
    _variables_empty,
    _token_file_missing,
)
CHECKS: tuple[Check, ...] = (_static_keys, _profile, *IDENTITY, _session_name)


def _superfluous(evidence: "Evidence") -> list[tuple[str, Variable]]:
    from labkit.diagnosis.evidence import NotRead
    from labkit.diagnosis.findings import network

    found = []
    for container in evidence.pod_spec.containers if evidence.pod_spec else []:
        for check in (*CHECKS, *network.CHECKS):
            try:
                wrong = check(evidence, container)
            except NotRead:
                continue
            found += [(container.name, variable) for variable in wrong.variables] if wrong else []
    return found


def _longest(evidence: "Evidence", settings: dict[str, str]) -> int:
    """How long sessions of a profile's role can last, in seconds."""
    if "source_profile" in settings or "credential_source" in settings:
        return CHAINED_FOR
    arn = settings.get("role_arn") or evidence.role_arn
    role = evidence.role if arn == evidence.role_arn else evidence.account.role(arn.rpartition("/")[2])
    return (role or {}).get("MaxSessionDuration") or CHAINED_FOR


def _identity(container: Container) -> tuple[Variable, ...]:
    return tuple(variable for name in (ROLE, TOKEN_FILE) if (variable := container.variable(name)))


def _set_ones(container: Container, names: tuple[str, ...]) -> tuple[Variable, ...]:
    """Those of these variables that are set and not empty; what lies in a Secret is taken for not empty."""
    return tuple(container.variable(name) for name in names if _is_set(container, name))


def _is_set(container: Container, name: str) -> bool:
    variable = container.variable(name)
    return variable is not None and variable.value != ""


def _named(variables: tuple[Variable, ...]) -> str:
    """Names and where they come from, never the values."""
    return ", ".join(f"{variable.name} ({variable.source})" for variable in variables)
