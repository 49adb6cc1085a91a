"""Put a row's AWS credentials into this process's environment. A row can name an AWS profile or a role to assume."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from shlex import quote

from labkit.errors import LabError
from labkit.runs.fleet.rows import Row

SESSION = "labkit-fleet"
# boto3 uses these variables before AWS_PROFILE: access keys, and a web identity.
# https://docs.aws.amazon.com/boto3/latest/guide/credentials.html#configuring-credentials
BEFORE_PROFILE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
)
# With these, botocore slows down when AWS throttles it: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
PATIENT = {"AWS_RETRY_MODE": "adaptive", "AWS_MAX_ATTEMPTS": "8"}


@contextmanager
def credentials(row: Row) -> Iterator[None]:
    """Use the row's credentials in this block. Raises `LabError` if the caller can't assume the row's role."""
    before = dict(os.environ)
    try:
        if row.is_in_an_account:
            for name, value in PATIENT.items():
                os.environ.setdefault(name, value)
        if row.profile:
            for name in BEFORE_PROFILE:
                os.environ.pop(name, None)
            os.environ["AWS_PROFILE"] = row.profile
        if row.assume_role:
            os.environ.update(_assumed(row.assume_role, row.parameters.region))
            os.environ.pop("AWS_PROFILE", None)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _assumed(role_arn: str, region: str) -> dict[str, str]:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""
    from botocore.exceptions import ClientError

    from labkit.targets.eks.account import explained, open_session

    try:
        with explained():
            sts = open_session(region).client("sts")
            taken = sts.assume_role(RoleArn=role_arn, RoleSessionName=SESSION)["Credentials"]
    except ClientError as error:
        raise LabError(
            f"The role {role_arn} could not be assumed: {error}",
            where="assume_role, in the fleet file",
            next=f"aws sts assume-role --role-arn {quote(role_arn)} --role-session-name {SESSION}",
        ) from None
    return {
        "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
        "AWS_SESSION_TOKEN": taken["SessionToken"],
    }
