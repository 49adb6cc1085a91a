"""Your own AWS account: a session with your profile, the session's identity, and errors in plain words."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from shlex import quote
from typing import Any

import boto3
import botocore.exceptions as faults
import botocore.session
from botocore.config import Config
from urllib3.exceptions import URLSchemeUnknown

from labkit.errors import DENIED, LabError, NoCredentials, NotAllowed, in_a_terminal
from labkit.policy.arn import Arn

# The error codes for credentials that have expired, and for credentials that AWS doesn't know.
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
UNKNOWN = (
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
# AWS answers within moments, even from the other side of the world. Other endpoints get a few short tries.
PATIENT = Config(connect_timeout=5, read_timeout=15)
TRIES = Config(retries={"mode": "standard", "total_max_attempts": 5})
# A user or a fleet that sets one of these has chosen the number of attempts.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
CHOSEN_TRIES = ("AWS_RETRY_MODE", "AWS_MAX_ATTEMPTS")
# The settings for the first call, which shows whether AWS answers at all.
FIRST = Config(read_timeout=10, retries={"mode": "standard", "total_max_attempts": 2})
# The variables with credentials. They override every profile.
# https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# Operations that send a token. For them, the codes above are about that token, not about your credentials.
UNSIGNED = ("AssumeRoleWithWebIdentity",)


class WrongAccount(LabError):
    """The parameters name no account, or the credentials belong to another account."""


@dataclass(frozen=True)
class Identity:
    """The caller that the credentials belong to."""

    account_id: str
    """12 digits."""
    principal: str
    """`user/NAME`, `assumed-role/NAME` (without the session's name, which may be a person's) or `root`."""
    arn: str
    """The user's ARN. For a role, a shell command that prints its ARN: the session's ARN lacks the role's path."""
    arn_without_path: str = ""
    """The ARN without a role's path, as the ConfigMap `aws-auth` wants it."""


def open_session(region: str) -> boto3.Session:
    """Return a session with this machine's own AWS settings, in a region. Raises `NoCredentials`.

    The session's clients also raise `NoCredentials` if AWS doesn't accept the credentials any more.
    https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
    """
    with explained():
        session = boto3.Session(region_name=region)
    chosen = any(os.environ.get(name) for name in CHOSEN_TRIES)
    session._session.set_default_client_config(PATIENT if chosen else PATIENT.merge(TRIES))
    session.events.register("after-call-error", _explain_error)
    session.events.register("after-call", _explain_refusal)
    return session


def identify(session: boto3.Session) -> Identity:
    """Return the session's caller (sts:GetCallerIdentity, which needs no permission). Raises `LabError`.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
    """
    try:
        with explained():
            caller = session.client("sts", config=FIRST).get_caller_identity()
    except (OSError, ValueError) as error:
        # The process or file with the credentials is missing, or its output isn't credentials.
        raise NoCredentials(
            f"The credentials could not be loaded: {error}",
            where=_source(),
            next="aws configure list   (once the credentials are right, it shows an access key)",
        ) from None
    named = Arn.parse(caller["Arn"])
    if not (role := named.session_role):
        return Identity(caller["Account"], named.resource, caller["Arn"], caller["Arn"])
    arn = f"$(aws iam get-role --role-name {role} --query Role.Arn --output text)"
    without_path = f"arn:{named.partition}:iam::{named.account}:role/{role}"
    return Identity(caller["Account"], f"assumed-role/{role}", arn, without_path)


def require_account(wanted: str, identity: Identity) -> None:
    """Raise `WrongAccount` if `wanted` is empty, or if the credentials belong to another account."""
    if not wanted:
        raise WrongAccount(
            f"You did not name the account. Your credentials belong to {identity.account_id} ({identity.principal}).",
            where="parameter account_id; nothing was changed",
            next=f'if that is the account you mean, set account_id = "{identity.account_id}", and run again'
            + in_a_terminal("account_id", identity.account_id),
        )
    if wanted != identity.account_id:
        raise WrongAccount(
            f"The credentials belong to the account {identity.account_id} ({identity.principal}), and not to {wanted}.",
            where="parameter account_id; nothing was changed",
            next=f"set AWS_PROFILE to a profile of the account {wanted}, and run again\n"
            "       To list your profiles:  aws configure list-profiles",
        )


@contextmanager
def explained(doing: str = "") -> Iterator[None]:
    """Turn errors about credentials, permissions or the connection to AWS into `LabError`.

    `doing` says what the calls do, for example `reading the run's role`. If AWS denies a call, the error says that
    this isn't allowed. Without `doing`, the error names the denied operation instead.
    """
    try:
        yield
    except faults.ClientError as error:
        if error.response["Error"].get("Code") not in DENIED:
            raise
        raise NotAllowed.by_aws(error.response["Error"], doing or error.operation_name) from None
    except faults.BotoCoreError as error:
        raise _sentence(error) from None
    except ValueError as error:
        if not str(error).startswith("Invalid endpoint"):
            raise
        raise _no_endpoint(f"{error}") from None


def _no_endpoint(why: str) -> LabError:
    return LabError(
        f"The endpoint is not a URL: {why}",
        where="AWS_ENDPOINT_URL, or endpoint_url in ~/.aws/config",
        next="to call another endpoint, set its https URL; to call AWS itself:  unset AWS_ENDPOINT_URL",
    )


def _sentence(error: Exception) -> LabError:
    text = " ".join(str(error).split())
    cause = getattr(error, "kwargs", {}).get("error")
    match error:
        case faults.ProfileNotFound():
            return NoCredentials(f"{text}.", where="AWS_PROFILE", next="aws configure list-profiles")
        case faults.NoCredentialsError() | faults.PartialCredentialsError():
            return NoCredentials(
                "There are no AWS credentials on this machine.",
                where="the environment, ~/.aws/config and ~/.aws/credentials",
                next="aws configure sso   (or, if you have a profile: export AWS_PROFILE=…)",
            )
        case faults.SSOError() | faults.TokenRetrievalError() | faults.UnauthorizedSSOTokenError():
            profile = _signing_in()
            return NoCredentials(
                f"The SSO credentials have expired: {text}", where=f"profile {profile}", next=_log_in(profile)
            )
        case faults.LoginError() | faults.CredentialRetrievalError() | faults.MetadataRetrievalError():
            return NoCredentials(
                f"The credentials could not be loaded: {text}", where="your profile", next="aws configure list"
            )
        case faults.HTTPClientError() if isinstance(cause, URLSchemeUnknown):
            return _no_endpoint(f"{cause}")
        case faults.ConnectionError() | faults.HTTPClientError():
            where = _trusted() if isinstance(error, faults.SSLError) else "the network, the region, or AWS_ENDPOINT_URL"
            return LabError(
                f"AWS does not answer: {text}",
                where=where,
                next="correct the cause; then this command answers:  aws sts get-caller-identity",
            )
    return LabError(text, where="your AWS settings", next="aws configure list")


def _explain_error(exception: Exception, **_: Any) -> None:
    said = _sentence(exception) if isinstance(exception, faults.BotoCoreError) else None
    if isinstance(said, NoCredentials):
        raise said from None


def _explain_refusal(*, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    refusal = parsed.get("Error") or {}
    code = refusal.get("Code")
    if model.name in UNSIGNED or code not in (*EXPIRED, *UNKNOWN):
        return
    said = "have expired" if code in EXPIRED else "are not known to AWS"
    what = f"The credentials {said}: {code}: {refusal.get('Message', '')}"
    if given := [name for name in KEYS if os.environ.get(KEYS[0]) and os.environ.get(name)]:
        raise NoCredentials(
            what,
            where=f"the environment: {', '.join(given)}",
            next="get new keys where you got the old ones, and run again   "
            f"(or, to use a profile instead, first: unset {' '.join(given)})",
        )
    profile = _signing_in()
    raise NoCredentials(what, where=f"profile {profile}", next=_log_in(profile))


def _source() -> str:
    """Return the setting that makes the SDK get credentials from a process or a file.

    https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
    """
    session, name = botocore.session.Session(), _signing_in()
    # The variable overrides the profile's own settings. It has no effect if another profile has the credentials.
    if name == (session.profile or "default") and os.environ.get("AWS_WEB_IDENTITY_TOKEN_FILE"):
        return "AWS_WEB_IDENTITY_TOKEN_FILE"
    profile = session.full_config.get("profiles", {}).get(name, {})
    given = next((f"{key} of the " for key in ("web_identity_token_file", "credential_process") if key in profile), "")
    return f"{given}profile {name} in ~/.aws/config"


def _trusted() -> str:
    """Return a text that tells the user where to look for the cause of a TLS error.

    If an environment variable names a file of trusted certificates, the text is this variable with its value.
    https://docs.aws.amazon.com/sdkref/latest/guide/feature-gen-config.html
    """
    given = next((name for name in ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE") if os.environ.get(name)), "")
    return f"{given} = {os.environ[given]}" if given else "ca_bundle in ~/.aws/config, the network, or AWS_ENDPOINT_URL"


def _signing_in() -> str:
    """Return the name of the AWS profile whose credentials sign in to AWS.

    The current profile may name another profile in `source_profile`, and the other profile may name a third one. The
    last profile of this chain has the credentials. Without `source_profile`, the current profile has them.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-assume-role-credentials.html
    """
    session = botocore.session.Session()
    name, profiles = session.profile or "default", session.full_config.get("profiles", {})
    for _ in profiles:  # bounded: a profile may name itself
        name = profiles.get(name, {}).get("source_profile", name)
    return name


def _log_in(profile: str) -> str:
    chosen = f" --profile {quote(profile)}" if profile != "default" else ""
    return (
        f"log in with SSO, or get new keys where you got the old ones. Then run again. To log in: aws sso login{chosen}"
    )
