"""Find the mistakes in a container's environment variables that keep its SDK from using the role.

Each check looks for one mistake in one container. None means that the container doesn't have the mistake.

https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import SplitResult, urlsplit

from labkit.doctor.evidence import pod_spec
from labkit.doctor.evidence.evidence import Evidence
from labkit.doctor.evidence.probe import ProbedToken
from labkit.doctor.evidence.reading import Document, NotRead, known
from labkit.tokens import NotAToken, read_jwt

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
PROFILES = ("AWS_PROFILE", "AWS_DEFAULT_PROFILE")
SESSION_NAME = "AWS_ROLE_SESSION_NAME"
RENEWED = "a projected token, which the node renews"
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
VALID_SESSION_NAME = re.compile(r"[\w+=,.@-]{2,64}", re.ASCII)
WEB_IDENTITY = "AWS_ROLE_ARN and AWS_WEB_IDENTITY_TOKEN_FILE, both set by the webhook"
PROXIES = {"https": ("HTTPS_PROXY", "https_proxy"), "http": ("HTTP_PROXY", "http_proxy")}
NO_PROXIES = ("NO_PROXY", "no_proxy")
ENDPOINTS = ("AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL")
# https://docs.aws.amazon.com/general/latest/gr/sts.html
STS_HOST = re.compile(r"https?://sts(?:-fips)?(?:\.(?P<region>[a-z0-9-]+))?\.amazonaws\.com(?:\.cn)?(?:[:/].*)?")
GLOBAL_REGION = "us-east-1"
PASSWORD = re.compile(r"//[^/@]*@")  # of a URL
# An SDK's words for an endpoint that doesn't answer, or for a proxy's answer.
LOST = re.compile(r"prox|connect|tim(ed? ?out|eout)|certificate|ssl|closed", re.IGNORECASE)
NO_REGION = "specify a region"  # the AWS CLI's words
ON = ("opt-in-not-required", "opted-in")


@dataclass(frozen=True)
class Wrong:
    """A mistake in a container's variables. A repair removes `variables`; the finding shows `expected` and `found`."""

    variables: tuple[pod_spec.EnvVariable, ...]
    expected: str
    found: str
    may_work: bool = False
    """Whether the container may get its role in spite of the mistake."""


VariableCheck = Callable[[Evidence, pod_spec.Container], Wrong | None]


def superfluous(evidence: Evidence, container_name: str) -> set[str]:
    """Return the names of the variables that should be removed from the container `container_name`."""
    return {variable.name for name, variable in _superfluous(evidence) if name == container_name}


def superfluous_keys(evidence: Evidence) -> dict[str, set[str]]:
    """Return ConfigMap keys by ConfigMap name. Each key sets a variable that should be removed from a container."""
    keys: dict[str, set[str]] = {}
    for _, variable in _superfluous(evidence):
        if variable.config_map:
            keys.setdefault(variable.config_map, set()).add(variable.key)
    return keys


def has_wrong_identity(evidence: Evidence, container: pod_spec.Container) -> bool:
    """Whether a check in `IDENTITY` finds a mistake in the container's role and token variables."""
    return any(check(evidence, container) for check in IDENTITY)


def static_keys(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The container has access keys. Every SDK uses them before it looks for a token."""
    keys = _set_ones(container, KEYS)
    if not keys:
        return None
    session = _set_ones(container, ("AWS_SESSION_TOKEN",))
    return Wrong((*keys, *session), "no access keys, so that the SDK uses the role", _named(keys))


def unknown_profile(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The container's AWS profile isn't defined in the pod, or it needs access keys that the container lacks."""
    selected = _set_ones(container, PROFILES)
    if not selected or selected[0].value is None or container.hidden_config:
        return None
    profile, profiles = selected[0].value, container.profiles
    if profile not in profiles:
        others = f", or a profile that the pod defines: {', '.join(profiles)}" if profiles else ""
        return Wrong(selected, f"{selected[0].name} not set{others}", f"{selected[0].name}={profile}")
    if profiles[profile].get("credential_source") == "Environment" and not _set_ones(container, KEYS):
        # With this setting, an SDK looks for access keys in the environment, not for a token.
        setting = "credential_source = Environment"
        return Wrong(selected, "web_identity_token_file in the profile, or no profile", f"{profile}: {setting}")
    return None


def api_server_token(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The container uses the token for the API server instead of the token for STS.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/
    """
    if not (_is_set(container, pod_spec.ROLE) and (file := container.value(pod_spec.TOKEN_FILE))):
        return None
    token = container.token_at(file)
    is_of_api = pod_spec.normal(file).startswith(f"{pod_spec.API_MOUNT_PATH}/")
    if not (is_of_api or (token is not None and not token.get("audience"))):
        return None
    return Wrong(_identity(container), "the webhook's own token file", f"{pod_spec.TOKEN_FILE}={file}")


def token_variable_missing(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The manifest sets the role variable, but not the token variable.

    The webhook then doesn't add the token variable.
    """
    return _alone(container, pod_spec.ROLE, without=pod_spec.TOKEN_FILE)


def role_variable_missing(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The manifest sets the token variable, but not the role variable.

    The webhook then doesn't add the role variable.
    """
    return _alone(container, pod_spec.TOKEN_FILE, without=pod_spec.ROLE)


def variables_empty(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The role and token variables are set, but empty. The webhook doesn't change them, so SDKs exchange no token."""
    variables = _identity(container)
    if not variables or any(variable.value != "" for variable in variables):
        return None
    return Wrong(variables, WEB_IDENTITY, f"{_named(variables)}: empty")


def token_file_missing(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The token variable names a file, but nothing is mounted there."""
    file = container.value(pod_spec.TOKEN_FILE)
    if not file or not _is_set(container, pod_spec.ROLE) or api_server_token(evidence, container):
        return None
    volumes = evidence.pod.spec.volumes if evidence.pod.spec else {}
    mount = container.mount_of(file)
    volume = volumes.get(mount["name"]) if mount else None
    taken = volumes.get(pod_spec.TOKEN_VOLUME)
    if taken and not pod_spec.is_token_volume(taken) and file == f"{pod_spec.MOUNT_PATH}/token":
        return None  # another cause reports that the volume's name is taken
    # The spec doesn't show which files a volume of another kind holds.
    if volume and ("projected" not in volume or container.token_at(file)):
        return None
    seen = _seen_token(evidence, container)
    if seen and not seen.unreadable:
        return None  # the image contains the file
    return Wrong(_identity(container), "a file in a mounted volume", f"{pod_spec.TOKEN_FILE}={file}")


def copied_token(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """Someone copied the token into a ConfigMap, a Secret or the image. The node doesn't renew such a copy.

    https://kubernetes.io/docs/concepts/storage/projected-volumes/#serviceaccounttoken
    """
    copy = _copy(evidence, container)
    if copy is None:
        return None
    place, claims = copy
    actual, expires = f"{pod_spec.TOKEN_FILE}={container.value(pod_spec.TOKEN_FILE)} ({place})", claims.get("exp")
    if not isinstance(expires, int | float):
        return Wrong(_identity(container), RENEWED, actual, may_work=True)
    until = f"{datetime.fromtimestamp(expires, UTC):%Y-%m-%dT%H:%MZ}"
    actual += f": a token of {claims.get('sub')}, good until {until}"
    return Wrong(_identity(container), RENEWED, actual, may_work=expires > evidence.connection.now())


def role_by_hand(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The manifest and the service account's annotation name different roles. The webhook keeps the manifest's role.

    https://github.com/aws/amazon-eks-pod-identity-webhook#eks-pod-identity-webhook
    """
    if (
        not container.has_role
        or not evidence.cluster.annotation
        or container.value(pod_spec.ROLE) == evidence.cluster.annotation
    ):
        return None
    token = container.token_at(container.value(pod_spec.TOKEN_FILE)) or {}
    if not token.get("audience") or not (container.is_by_hand or container.declares_role):
        return None
    variable = container.variable(pod_spec.ROLE)
    source = f" ({variable.source} of the manifest)" if variable else ""
    return Wrong(
        _identity(container),
        f"{pod_spec.ROLE}={evidence.cluster.annotation}",
        f"{pod_spec.ROLE}={container.value(pod_spec.ROLE)}{source}",
    )


def empty_region(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """A region variable is set but empty. So the webhook adds no region to the container."""
    empty = tuple(each for name in pod_spec.REGIONS if (each := container.variable(name)) and each.value == "")
    if not empty:
        return None
    return Wrong(empty, f"{empty[0].name}={evidence.expected.region}", f"{_named(empty)}: empty")


def missing_region(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The AWS CLI in the container knows no region: no variable says it, or only the one that this CLI doesn't read.

    Only a probe shows this. The webhook adds both variables to a container that has neither.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-region.html
    """
    present = [name for name in pod_spec.REGIONS if container.variable(name)]
    is_probed = evidence.pod.probe_allowed and evidence.pod.probe.container is container
    # Without a role, the webhook adds no region, and the pod's other findings matter more.
    if not is_probed or len(present) == len(pod_spec.REGIONS) or not (present or container.has_role):
        return None
    if empty_region(evidence, container) or known(lambda: evidence.pod.probe.cli_region) != "":
        return None
    caller = evidence.pod.caller_if_known
    return Wrong(
        (),
        f"{' and '.join(pod_spec.REGIONS)}, as the webhook sets them",
        f"only {present[0]}" if present else f"neither {' nor '.join(pod_spec.REGIONS)}",
        # Calls to STS, S3 and IAM may work without a region.
        may_work=not (caller and NO_REGION in caller.error),
    )


def proxied(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The container gets credentials only through a proxy: NO_PROXY lists neither STS nor the Pod Identity Agent.

    https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-proxy.html
    https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html#pod-id-considerations
    """
    if not any(_set_ones(container, names) for names in PROXIES.values()):
        return None
    url, host = _credentials_url(evidence, container), credentials_host(evidence, container)
    proxy = _set_ones(container, PROXIES.get(url.scheme, ()))
    if not proxy or _is_excepted(container, url.hostname or ""):
        return None
    is_probed = evidence.pod.probe_allowed and evidence.pod.probe.container is container
    caller = evidence.pod.caller_if_known if is_probed else None
    # The AWS CLI, with which the doctor probes, asks the agent without a proxy. Go's SDK uses the proxy.
    if caller and caller.arn and not asks_agent(container):
        return None
    lines = [f"{each.name}={re.sub(PASSWORD, '//…@', each.value or '…')} ({each.source})" for each in proxy]
    excepted = _set_ones(container, NO_PROXIES)
    lines += [f"{each.name}={each.value}" for each in excepted] or [f"no {NO_PROXIES[0]}"]
    or_else = "" if asks_agent(container) else ", or a proxy that lets requests to STS through"
    return Wrong(
        proxy,
        f"{NO_PROXIES[0]} with {host}{or_else}",
        ", ".join(lines),
        may_work=not (caller and LOST.search(caller.error)),
    )


def asks_agent(container: pod_spec.Container) -> bool:
    """Whether the container's SDK asks the Pod Identity Agent for credentials, because it has no role for STS."""
    return bool(container.value(pod_spec.POD_IDENTITY[0])) and not container.has_role


def credentials_host(evidence: Evidence, container: pod_spec.Container) -> str:
    """Return the host that the container's SDK asks for credentials, as NO_PROXY lists it."""
    host = _credentials_url(evidence, container).hostname or ""
    return f"[{host}]" if ":" in host else host


def works_by_hand(evidence: Evidence) -> list[pod_spec.Container]:
    """Return the containers with a role, if all of them can use it without the annotation and the webhook.

    A container can do so if its manifest has the role's variables and a projected token for STS, and if the role
    admits the service account.

    Return [] if one of the containers with a role can't do so, or if something can't be read. Containers without a
    role don't count.
    """
    with_role = known(lambda: [container for container in evidence.pod.containers if container.has_role]) or []
    return with_role if known(lambda: all(_works_by_hand(evidence, each) for each in with_role), False) else []


def hidden_role(evidence: Evidence) -> list[str]:
    """Return where containers get an AWS_ROLE_ARN whose value the doctor can't read, such as `Secret aws`."""
    roles = known(lambda: [each.variable(pod_spec.ROLE) for each in evidence.pod.containers]) or []
    return [role.source for role in roles if role and role.value is None]


def invalid_session_name(_: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The container sets a session name that STS doesn't accept."""
    variable = container.variable(SESSION_NAME)
    if variable is None or not variable.value or VALID_SESSION_NAME.fullmatch(variable.value):
        return None
    length = len(variable.value)
    shown = variable.value if length <= 80 else f"{variable.value[:70]}… ({length} characters)"
    return Wrong((variable,), "2 to 64 letters, digits and any of + = , . @ - _", f"{SESSION_NAME}={shown!r}")


def endpoint_of_another_region(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The SDK signs for one region, but calls another region's STS endpoint. STS answers SignatureDoesNotMatch.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    variable = next((v for name in ENDPOINTS if (v := container.variable(name)) and v.value), None)
    if variable is None:
        return None
    host, region = STS_HOST.fullmatch(variable.value or ""), _region_of(container) or evidence.expected.region
    if host is None or (host["region"] or GLOBAL_REGION) == region:
        return None
    return Wrong((variable,), f"https://sts.{region}.amazonaws.com, or no {variable.name}", f"{variable.value}")


def inactive_region(evidence: Evidence, container: pod_spec.Container) -> Wrong | None:
    """The role's account hasn't enabled the container's region."""
    region = _region_of(container)
    # The account has enabled the cluster's own region.
    if not region or region == evidence.expected.region:
        return None
    status = evidence.aws.role_account.regions.get(region, "no such region")
    if status in ON:
        return None
    variables = tuple(variable for name in pod_spec.REGIONS if (variable := container.variable(name)))
    return Wrong(variables, evidence.expected.region, f"{region}: {status}")


IDENTITY: tuple[VariableCheck, ...] = (
    api_server_token,
    token_variable_missing,
    role_variable_missing,
    variables_empty,
    token_file_missing,
    copied_token,
    role_by_hand,
)
CHECKS: tuple[VariableCheck, ...] = (
    static_keys,
    unknown_profile,
    *IDENTITY,
    empty_region,
    invalid_session_name,
    endpoint_of_another_region,
    inactive_region,
)


def _superfluous(evidence: Evidence) -> list[tuple[str, pod_spec.EnvVariable]]:
    superfluous = []
    for container in evidence.pod.containers:
        for check in CHECKS:
            try:
                wrong = check(evidence, container)
            except NotRead:
                continue
            if wrong and not wrong.may_work:
                superfluous += [(container.name, variable) for variable in wrong.variables]
    return superfluous


def _region_of(container: pod_spec.Container) -> str:
    return next(filter(None, map(container.value, pod_spec.REGIONS)), "")


def _credentials_url(evidence: Evidence, container: pod_spec.Container) -> SplitResult:
    if asks_agent(container):
        return urlsplit(container.value(pod_spec.POD_IDENTITY[0]))
    return _sts_url(evidence, container)


def _sts_url(evidence: Evidence, container: pod_spec.Container) -> SplitResult:
    url = next((v.value for name in ENDPOINTS if (v := container.variable(name)) and v.value), "")
    return urlsplit(url or f"https://sts.{_region_of(container) or evidence.expected.region}.amazonaws.com")


def _is_excepted(container: pod_spec.Container, host: str) -> bool:
    """Whether NO_PROXY excepts the host from the proxy.

    https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
    """
    excepted = _set_ones(container, NO_PROXIES)
    # A value that can't be read, such as a Secret's, may list the host.
    if any(each.value is None for each in excepted):
        return True
    names = [
        name.strip().lstrip("*").lstrip(".").strip("[]") for each in excepted for name in (each.value or "").split(",")
    ]
    return any("*" in (each.value or "").split(",") for each in excepted) or any(
        name and f".{host}".endswith(f".{name}") for name in names
    )


def _works_by_hand(evidence: Evidence, container: pod_spec.Container) -> bool:
    # If the service account has an annotation, the pod's owner needn't be read.
    by_hand = container.is_by_hand or (not evidence.cluster.annotation and container.declares_role)
    if not by_hand or container.value(pod_spec.ROLE) != evidence.expected.role_arn:
        return False
    token = container.token_at(container.value(pod_spec.TOKEN_FILE)) or {}
    return (
        token.get("audience") == evidence.expected.audience
        and evidence.aws.role is not None
        and evidence.aws.trust.admits
    )


def _seen_token(evidence: Evidence, container: pod_spec.Container) -> ProbedToken | None:
    is_probed = evidence.pod.probe_allowed and evidence.pod.probe.container is container
    return known(lambda: evidence.pod.probe.token) if is_probed else None


def _copy(evidence: Evidence, container: pod_spec.Container) -> tuple[str, Document] | None:
    """Return the source of the container's copied token, and the token's claims; None if the token isn't a copy."""
    file = container.value(pod_spec.TOKEN_FILE)
    if (
        not file
        or not _is_set(container, pod_spec.ROLE)
        or container.token_at(file)
        or api_server_token(evidence, container)
    ):
        return None
    place, text = container.copied_at(file) or ("", None)
    seen = _seen_token(evidence, container)
    claims = seen.claims if seen else _claims(text)
    if place:
        # Another cause reports a malformed token.
        is_token = claims or (text is None and not (seen and seen.malformed))
        return (place, claims) if is_token else None
    return ("the image", claims) if claims and not container.mount_of(file) else None


def _claims(text: str | None) -> Document:
    try:
        return read_jwt(text.strip())[1] if text else {}
    except NotAToken:
        return {}


def _identity(container: pod_spec.Container) -> tuple[pod_spec.EnvVariable, ...]:
    return tuple(variable for name in (pod_spec.ROLE, pod_spec.TOKEN_FILE) if (variable := container.variable(name)))


def _alone(container: pod_spec.Container, name: str, *, without: str) -> Wrong | None:
    variable = container.variable(name)
    if variable is None or variable.value == "" or _is_set(container, without):
        return None
    return Wrong(_identity(container), WEB_IDENTITY, f"{name} alone ({variable.source})")


def _set_ones(container: pod_spec.Container, names: tuple[str, ...]) -> tuple[pod_spec.EnvVariable, ...]:
    return tuple(each for name in names if (each := container.variable(name)) and each.value != "")


def _is_set(container: pod_spec.Container, name: str) -> bool:
    return bool(_set_ones(container, (name,)))


def _named(variables: tuple[pod_spec.EnvVariable, ...]) -> str:
    """List the variables without their values, which may be secret."""
    return ", ".join(f"{variable.name} ({variable.source})" for variable in variables)
