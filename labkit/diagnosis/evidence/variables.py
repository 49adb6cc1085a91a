"""A container's variables that keep its SDK from the role: one check a mistake, of one container.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from labkit.diagnosis.evidence.evidence import Evidence
from labkit.diagnosis.evidence.pod_spec import (
    API_MOUNT_PATH,
    MOUNT_PATH,
    REGIONS,
    ROLE,
    TOKEN_FILE,
    TOKEN_VOLUME,
    Container,
    Variable,
    is_token_volume,
)
from labkit.diagnosis.evidence.reading import NotRead

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
SESSION_NAME = "AWS_ROLE_SESSION_NAME"
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
VALID_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
WEB_IDENTITY = "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, both of the webhook"
ENDPOINTS = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL")
# https://docs.aws.amazon.com/general/latest/gr/sts.html
STS_HOST = re.compile(r"https?://sts(?:-fips)?(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?(?:[:/].*)?")
GLOBAL_REGION = "us-east-1"
ON = ("opt-in-not-required", "opted-in")


@dataclass(frozen=True)
class Wrong:
    """What is wrong with a container: the variables that are to go, and expected beside found."""

    variables: tuple[Variable, ...]
    expected: str
    found: str


Check = Callable[[Evidence, Container], Wrong | None]


def superfluous(evidence: Evidence, container_name: str) -> set[str]:
    """The variables that a container of this name is better without."""
    return {variable.name for name, variable in _superfluous(evidence) if name == container_name}


def superfluous_keys(evidence: Evidence) -> dict[str, set[str]]:
    """The keys of ConfigMaps that become such variables by `envFrom`."""
    keys: dict[str, set[str]] = {}
    for _, variable in _superfluous(evidence):
        if variable.config_map:
            keys.setdefault(variable.config_map, set()).add(variable.key)
    return keys


def has_wrong_identity(evidence: Evidence, container: Container) -> bool:
    """Whether the container's role and token variables are wrong in a way that has a name of its own."""
    return any(check(evidence, container) for check in IDENTITY)


def static_keys(_: Evidence, container: Container) -> Wrong | None:
    """Access keys, which every SDK takes before it looks for a token."""
    found = _set_ones(container, KEYS)
    if not found:
        return None
    beside = _set_ones(container, ("AWS_SESSION_TOKEN",))
    return Wrong((*found, *beside), "no access keys: the SDK takes the role", _named(found))


def unknown_profile(_: Evidence, container: Container) -> Wrong | None:
    """A profile that no config in the pod defines, or that wants keys from the environment."""
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


def api_server_token(_: Evidence, container: Container) -> Wrong | None:
    """The token for the API server in the place of the one for STS.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    if not (_is_set(container, ROLE) and (file := container.value(TOKEN_FILE))):
        return None
    token = container.token_at(file)
    if not (file.startswith(f"{API_MOUNT_PATH}/") or (token is not None and not token.get("audience"))):
        return None
    return Wrong(_identity(container), "the webhook's own token file", f"{TOKEN_FILE}={file}")


def token_variable_missing(_: Evidence, container: Container) -> Wrong | None:
    """The role's variable without the token's, in the manifest: the webhook then adds neither."""
    return _alone(container, ROLE, without=TOKEN_FILE)


def role_variable_missing(_: Evidence, container: Container) -> Wrong | None:
    """The token's variable without the role's, in the manifest: the webhook then adds neither."""
    return _alone(container, TOKEN_FILE, without=ROLE)


def variables_empty(_: Evidence, container: Container) -> Wrong | None:
    """Role and token variables that are there and empty: the webhook adds none, and SDKs take the node's role."""
    found = _identity(container)
    if not found or any(variable.value != "" for variable in found):
        return None
    return Wrong(found, WEB_IDENTITY, f"{_named(found)}: empty")


def token_file_missing(evidence: Evidence, container: Container) -> Wrong | None:
    """A token's variable that names a file where nothing is mounted."""
    file = container.value(TOKEN_FILE)
    if not file or not _is_set(container, ROLE) or api_server_token(evidence, container):
        return None
    volumes = evidence.pod_spec.volumes if evidence.pod_spec else {}
    mount = container.mount_of(file)
    volume = volumes.get(mount["name"]) if mount else None
    taken = volumes.get(TOKEN_VOLUME)
    if taken and not is_token_volume(taken) and file == f"{MOUNT_PATH}/token":
        return None  # that the volume's name is taken says it already
    # What lies in a volume of another kind is known to nobody here.
    if volume and ("projected" not in volume or container.token_at(file)):
        return None
    return Wrong(_identity(container), "a file in a mounted volume", f"{TOKEN_FILE}={file}")


def invalid_session_name(_: Evidence, container: Container) -> Wrong | None:
    """A session's name that STS does not take."""
    variable = container.variable(SESSION_NAME)
    if variable is None or not variable.value or VALID_SESSION_NAME.fullmatch(variable.value):
        return None
    length = len(variable.value)
    shown = variable.value if length <= 80 else f"{variable.value[:70]}… ({length} characters)"
    return Wrong((variable,), "2 to 64 letters, digits and any of + = , . @ - _", f"{SESSION_NAME}={shown!r}")


def endpoint_of_another_region(evidence: Evidence, container: Container) -> Wrong | None:
    """The STS endpoint of another region than the one that credentials are signed for: SignatureDoesNotMatch.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    variable = next((v for name in ENDPOINTS if (v := container.variable(name)) and v.value), None)
    if variable is None:
        return None
    host, region = STS_HOST.fullmatch(variable.value or ""), _region_of(container) or evidence.region
    if host is None or (host["region"] or GLOBAL_REGION) == region:
        return None
    return Wrong((variable,), f"https://sts.{region}.amazonaws.com, or no {variable.name}", f"{variable.value}")


def inactive_region(evidence: Evidence, container: Container) -> Wrong | None:
    """A region that the account has not enabled."""
    region = _region_of(container)
    # The region in which the cluster runs is on.
    if not region or region == evidence.region:
        return None
    status = evidence.role_account.regions.get(region, "no such region")
    if status in ON:
        return None
    variables = tuple(variable for name in REGIONS if (variable := container.variable(name)))
    return Wrong(variables, evidence.region, f"{region}: {status}")


IDENTITY: tuple[Check, ...] = (
    api_server_token,
    token_variable_missing,
    role_variable_missing,
    variables_empty,
    token_file_missing,
)
CHECKS: tuple[Check, ...] = (
    static_keys,
    unknown_profile,
    *IDENTITY,
    invalid_session_name,
    endpoint_of_another_region,
    inactive_region,
)


def _superfluous(evidence: Evidence) -> list[tuple[str, Variable]]:
    found = []
    for container in evidence.containers:
        for check in CHECKS:
            try:
                wrong = check(evidence, container)
            except NotRead:
                continue
            found += [(container.name, variable) for variable in wrong.variables] if wrong else []
    return found


def _region_of(container: Container) -> str:
    return next(filter(None, map(container.value, REGIONS)), "")


def _identity(container: Container) -> tuple[Variable, ...]:
    return tuple(variable for name in (ROLE, TOKEN_FILE) if (variable := container.variable(name)))


def _alone(container: Container, name: str, *, without: str) -> Wrong | None:
    """One of the two variables, set where the other is not."""
    variable = container.variable(name)
    if variable is None or variable.value == "" or _is_set(container, without):
        return None
    return Wrong(_identity(container), WEB_IDENTITY, f"{name} alone ({variable.source})")


def _set_ones(container: Container, names: tuple[str, ...]) -> tuple[Variable, ...]:
    """Those of these variables that are set and not empty; what lies in a Secret is taken for not empty."""
    return tuple(each for name in names if (each := container.variable(name)) and each.value != "")


def _is_set(container: Container, name: str) -> bool:
    return bool(_set_ones(container, (name,)))


def _named(variables: tuple[Variable, ...]) -> str:
    """Names and where they come from, never the values."""
    return ", ".join(f"{variable.name} ({variable.source})" for variable in variables)
