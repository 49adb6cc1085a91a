"""The user's own AWS account: the session that their profile gives, whose it is, and a sentence where it gives none."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
import botocore.exceptions as faults

from labkit.errors import DENIED, LabError, NotAllowed

# How AWS's services say that a caller's credentials are no longer good, and that they never were.
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "RequestExpired")
UNKNOWN = (
    "AuthFailure",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
)
# What the token, and not the signature, is refused for.
UNSIGNED = ("AssumeRoleWithWebIdentity",)


class NoCredentials(LabError):
    """AWS takes no credentials of this machine: there are none, they have expired, or AWS does not know them."""


class WrongAccount(LabError):
    """The account is not named, or the credentials belong to another."""


@dataclass(frozen=True)
class Identity:
    """Who the credentials say you are."""

    account_id: str
    """12 digits."""
    principal: str
    """`user/NAME`, `assumed-role/NAME` (without the session's name, which may be a person's) or `root`."""
    arn: str
    """The user's ARN; a role's as the shell finds it out, since a session does not tell the role's path."""
    arn_without_path: str = ""
    """As the ConfigMap `aws-auth` wants a role's."""


def open_session(region: str) -> boto3.Session:
    """The session that this machine's own AWS settings give, in a region. Raises `NoCredentials`.

    In every client of it, credentials that AWS does not take any more are a `NoCredentials`, too.
    https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
    """
    with explained():
        session = boto3.Session(region_name=region)
    session.events.register("after-call-error", _explain_error)
    session.events.register("after-call", lambda **answer: _explain_refusal(session.profile_name, **answer))
    return session


def identify(session: boto3.Session) -> Identity:
    """Whom AWS takes the session for (sts:GetCallerIdentity, which needs no permission). Raises `LabError`.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
    """
    with explained():
        caller = session.client("sts").get_caller_identity()
    name = caller["Arn"].rpartition(":")[2]
    kind, _, rest = name.partition("/")
    if kind != "assumed-role":
        return Identity(caller["Account"], name, caller["Arn"], caller["Arn"])
    role = rest.partition("/")[0]
    arn = f"$(aws iam get-role --role-name {role} --query Role.Arn --output text)"
    without_path = f"arn:{caller['Arn'].split(':')[1]}:iam::{caller['Account']}:role/{role}"
    return Identity(caller["Account"], f"{kind}/{role}", arn, without_path)


def require_account(wanted: str, found: Identity) -> None:
    """Raises `WrongAccount` where the account is not the one that was named."""
    if not wanted:
        raise WrongAccount(
            f"The account is not named; the credentials belong to {found.account_id} ({found.principal}).",
            where="parameter account_id; nothing was changed",
            next=f'if that is the account you mean, set account_id = "{found.account_id}", and run again',
        )
    if wanted != found.account_id:
        raise WrongAccount(
            f"The credentials belong to the account {found.account_id} ({found.principal}), and not to {wanted}.",
            where="parameter account_id; nothing was changed",
            next="export AWS_PROFILE=…, a profile of that account (aws configure list-profiles), and run again",
        )


@contextmanager
def explained(doing: str = "") -> Iterator[None]:
    """Raises `LabError` for what is wrong with the credentials, the permissions or the way to AWS in here."""
    try:
        yield
    except faults.ClientError as error:
        if error.response["Error"].get("Code") not in DENIED:
            raise
        raise NotAllowed.by_aws(error.response["Error"], doing or error.operation_name) from None
    except faults.BotoCoreError as error:
        raise _sentence(error) from None


def _sentence(error: Exception) -> LabError:
    text = " ".join(str(error).split())
    match error:
        case faults.ProfileNotFound():
            return NoCredentials(f"{text}.", where="AWS_PROFILE", next="aws configure list-profiles")
        case faults.NoCredentialsError() | faults.PartialCredentialsError():
            return NoCredentials(
                "There are no AWS credentials on this machine.",
                where="the environment, ~/.aws/config and ~/.aws/credentials",
                next="aws configure sso   (or, with a profile that is there: export AWS_PROFILE=…)",
            )
        case faults.SSOError() | faults.TokenRetrievalError() | faults.UnauthorizedSSOTokenError():
            return NoCredentials(f"The SSO credentials have expired: {text}", where="your profile", next=_log_in(""))
        case faults.LoginError() | faults.CredentialRetrievalError() | faults.MetadataRetrievalError():
            return NoCredentials(
                f"The credentials cannot be got: {text}", where="your profile", next="aws configure list"
            )
        case faults.ConnectionError() | faults.HTTPClientError():
            return LabError(
                f"AWS does not answer: {text}",
                where="the network, the region, or AWS_ENDPOINT_URL",
                next="aws sts get-caller-identity, until it answers",
            )
    return LabError(text, where="your AWS settings", next="aws configure list")


def _explain_error(exception: Exception, **_: Any) -> None:
    """What botocore could not even send: raised as a sentence instead."""
    said = _sentence(exception) if isinstance(exception, faults.BotoCoreError) else None
    if isinstance(said, NoCredentials):
        raise said from None


def _explain_refusal(profile: str, *, parsed: dict[str, Any], model: Any, **_: Any) -> None:
    refusal = parsed.get("Error") or {}
    code = refusal.get("Code")
    if model.name in UNSIGNED or code not in (*EXPIRED, *UNKNOWN):
        return
    said = "have expired" if code in EXPIRED else "are none that AWS knows"
    raise NoCredentials(
        f"The credentials {said}: {code}: {refusal.get('Message', '')}",
        where=f"profile {profile}",
        next=_log_in(profile),
    )


def _log_in(profile: str) -> str:
    chosen = f" --profile {profile}" if profile not in ("", "default") else ""
    return f"aws sso login{chosen}   (or get new keys, as you got these), and run again"
