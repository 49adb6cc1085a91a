"""Faults of the SDK's settings in the pod: variables, profiles, files, and the address of STS."""

import base64
import json

from labkit.course.faults.fault import rows
from labkit.course.faults.situation import Situation
from labkit.doctor import API_MOUNT_PATH
from labkit.documents import AUDIENCE
from labkit.webhook.review import MOUNT_PATH

# The claims of a token that was valid on 1 January 2025, in seconds since 1970.
LAST_YEAR = {"iat": 1735689600, "exp": 1735776000}
# The access key of AWS's own examples.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


EDITS = rows(
    lambda run, variable: run.set_variable(*variable),
    {
        "profile-of-a-laptop": lambda _: ("AWS_PROFILE", "dev"),
        "region-left-empty": lambda _: ("AWS_REGION", ""),
        "region-under-one-name": lambda run: ("AWS_REGION", run.parameters.region),
        "proxy-without-exceptions": lambda _: ("HTTPS_PROXY", "http://proxy.example.com:3128"),
        "session-name-with-blanks": lambda _: ("AWS_ROLE_SESSION_NAME", "the reader of our bucket"),
        "endpoint-of-another-region": lambda run: ("AWS_ENDPOINT_URL_STS", _sts_elsewhere(run.parameters.region)),
    },
)


def keys_in_the_pod(situation: Situation) -> None:
    for name, value in KEYS.items():
        situation.set_variable(name, value)


def keys_in_a_config_map(situation: Situation) -> None:
    situation.add_config_map("my-settings", KEYS)
    others = [each for each in situation.container.get("envFrom") or [] if "configMapRef" not in each]
    situation.container["envFrom"] = [*others, {"configMapRef": {"name": "my-settings"}}]


def keys_in_a_secret(situation: Situation) -> None:
    situation.add_secret("my-passwords", KEYS)
    others = [each for each in situation.container.get("envFrom") or [] if "secretRef" not in each]
    situation.container["envFrom"] = [*others, {"secretRef": {"name": "my-passwords"}}]


def token_of_the_api_server(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn, file=f"{API_MOUNT_PATH}/token")


def token_file_of_another_mount(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn, file="/var/run/secrets/aws/token")


def token_of_last_year(situation: Situation) -> None:
    claims = {"iss": situation.issuer, "sub": situation.parameters.subject, "aud": [AUDIENCE], **LAST_YEAR}
    parts = ({"alg": "RS256", "kid": "key-1"}, claims, "signature")
    token = ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)
    situation.add_config_map("my-token", {"token": token})
    situation.mount("my-token", {"configMap": {"name": "my-token"}}, "/etc/my-token")
    situation.set_identity(role_arn=situation.role_arn, file="/etc/my-token/token")


def role_of_another_application_by_hand(situation: Situation) -> None:
    token = {"audience": AUDIENCE, "expirationSeconds": 86400, "path": "token"}
    situation.mount("token-for-aws", {"projected": {"sources": [{"serviceAccountToken": token}]}}, "/etc/token-for-aws")
    situation.set_identity(role_arn=f"{situation.role_arn}-of-payments", file="/etc/token-for-aws/token")


def session_of_twelve_hours(situation: Situation) -> None:
    _configure(
        situation,
        "[default]\n"
        f"role_arn = {situation.role_arn}\n"
        f"web_identity_token_file = {MOUNT_PATH}/token\n"
        "duration_seconds = 43200\n",
    )


def config_that_assumes_the_role_again(situation: Situation) -> None:
    _configure(
        situation,
        f"[default]\nrole_arn = {situation.role_arn}\nsource_profile = irsa\n\n"
        f"[profile irsa]\nrole_arn = {situation.role_arn}\nweb_identity_token_file = {MOUNT_PATH}/token\n",
    )


def region_that_is_not_on(situation: Situation) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        situation.set_variable(name, "af-south-1")


def _configure(situation: Situation, config: str) -> None:
    situation.add_config_map("my-aws-config", {"config": config})
    situation.mount("my-aws-config", {"configMap": {"name": "my-aws-config"}}, "/etc/aws")
    situation.set_variable("AWS_CONFIG_FILE", "/etc/aws/config")


def _sts_elsewhere(region: str) -> str:
    return f"https://sts.{'eu-west-1' if region != 'eu-west-1' else 'us-east-1'}.amazonaws.com"
