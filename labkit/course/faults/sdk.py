"""Faults of the SDK's settings in the pod: variables, profiles, files, and the address of STS."""

import base64
import json

from labkit.course.faults.fault import fault
from labkit.course.faults.situation import Situation
from labkit.course.faults.webhook import BY_HAND_HIDES, VARIABLES, VOLUME
from labkit.doctor.evidence.pod_spec import API_MOUNT_PATH, MOUNT_PATH
from labkit.documents import AUDIENCE

# A pod with its own token doesn't need the webhook.
OWN_TOKEN_HIDES = (*BY_HAND_HIDES, "pod-container-skipped")
CONFIG = ("the pod's AWS config",)
REGION = ("the pod's region",)
# The claims of a token that was valid on 1 January 2025, in seconds since 1970.
LAST_YEAR = {"iat": 1735689600, "exp": 1735776000}
# The access key of AWS's own examples.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_credentials_access-keys.html
KEYS = {
    "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
    "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
}


@fault("Someone was in a hurry to make the pod work.", finding="pod-static-keys", changes=("the pod's keys",))
def keys_in_the_pod(situation: Situation) -> None:
    for name, value in KEYS.items():
        situation.set_variable(name, value)


@fault("The pod's settings come from a sample's ConfigMap.", finding="pod-static-keys", changes=("the pod's keys",))
def keys_in_a_config_map(situation: Situation) -> None:
    situation.add_config_map("my-settings", KEYS)
    others = [each for each in situation.container.get("envFrom") or [] if "configMapRef" not in each]
    situation.container["envFrom"] = [*others, {"configMapRef": {"name": "my-settings"}}]


@fault(
    "The pod's passwords come from a Secret.", finding="pod-static-keys", changes=("the pod's keys",), needs_probe=True
)
def keys_in_a_secret(situation: Situation) -> None:
    situation.add_secret("my-passwords", KEYS)
    others = [each for each in situation.container.get("envFrom") or [] if "secretRef" not in each]
    situation.container["envFrom"] = [*others, {"secretRef": {"name": "my-passwords"}}]


@fault(
    "The pod got its environment variables from a developer's laptop.",
    finding="pod-aws-profile",
    changes=("the pod's profile",),
)
def profile_of_a_laptop(situation: Situation) -> None:
    situation.set_variable("AWS_PROFILE", "dev")


@fault(
    "Someone configured the pod to use a token that it already had.",
    finding="pod-uses-the-api-server-token",
    hides=OWN_TOKEN_HIDES,
    changes=VARIABLES,
)
def token_of_the_api_server(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn, file=f"{API_MOUNT_PATH}/token")


@fault(
    "The pod's variables were written for another cluster.",
    finding="pod-token-file-missing",
    hides=OWN_TOKEN_HIDES,
    changes=VARIABLES,
)
def token_file_of_another_mount(situation: Situation) -> None:
    situation.set_identity(role_arn=situation.role_arn, file="/var/run/secrets/aws/token")


@fault(
    "Someone saved a token for the pod, so that the pod never needs a new one.",
    finding="token-copied",
    hides=OWN_TOKEN_HIDES,
    changes=(*VARIABLES, *VOLUME),
)
def token_of_last_year(situation: Situation) -> None:
    claims = {"iss": situation.issuer, "sub": situation.parameters.subject, "aud": [AUDIENCE], **LAST_YEAR}
    parts = ({"alg": "RS256", "kid": "key-1"}, claims, "signature")
    token = ".".join(base64.urlsafe_b64encode(json.dumps(each).encode()).decode().rstrip("=") for each in parts)
    situation.add_config_map("my-token", {"token": token})
    situation.mount("my-token", {"configMap": {"name": "my-token"}}, "/etc/my-token")
    situation.set_identity(role_arn=situation.role_arn, file="/etc/my-token/token")


@fault(
    "The pod's manifest was copied from another application, which ran in a cluster without webhooks.",
    finding="pod-role-set-by-hand",
    hides=(*OWN_TOKEN_HIDES, "token-audience-mismatch"),
    changes=VARIABLES,
)
def role_of_another_application_by_hand(situation: Situation) -> None:
    token = {"audience": AUDIENCE, "expirationSeconds": 86400, "path": "token"}
    situation.mount("token-for-aws", {"projected": {"sources": [{"serviceAccountToken": token}]}}, "/etc/token-for-aws")
    situation.set_identity(role_arn=f"{situation.role_arn}-of-payments", file="/etc/token-for-aws/token")


@fault("A script filled in the pod's manifest.", finding="pod-region-empty", changes=REGION, works=True)
def region_left_empty(situation: Situation) -> None:
    situation.set_variable("AWS_REGION", "")


@fault(
    "The pod got the settings for the company's network.",
    finding="pod-proxy-without-no-proxy",
    changes=("the pod's proxy",),
    works=True,
)
def proxy_without_exceptions(situation: Situation) -> None:
    situation.set_variable("HTTPS_PROXY", "http://proxy.example.com:3128")


@fault(
    "Someone gave the pod's sessions a name that people can read.",
    finding="pod-role-session-name-invalid",
    changes=("the pod's session name",),
)
def session_name_with_blanks(situation: Situation) -> None:
    situation.set_variable("AWS_ROLE_SESSION_NAME", "the reader of our bucket")


@fault(
    "Someone wanted the pod's sessions to last through the night.",
    finding="role-session-too-long",
    changes=CONFIG,
    works=True,
)
def session_of_twelve_hours(situation: Situation) -> None:
    _configure(
        situation,
        "[default]\n"
        f"role_arn = {situation.role_arn}\n"
        f"web_identity_token_file = {MOUNT_PATH}/token\n"
        "duration_seconds = 43200\n",
    )


@fault("Someone configured the pod's role a second time.", finding="role-assumes-itself", changes=CONFIG)
def config_that_assumes_the_role_again(situation: Situation) -> None:
    _configure(
        situation,
        f"[default]\nrole_arn = {situation.role_arn}\nsource_profile = irsa\n\n"
        f"[profile irsa]\nrole_arn = {situation.role_arn}\nweb_identity_token_file = {MOUNT_PATH}/token\n",
    )


@fault(
    "The pod's manifest came from a cluster in another region.",
    finding="pod-sts-endpoint-of-another-region",
    changes=("the pod's STS endpoint",),
    works=True,
)
def endpoint_of_another_region(situation: Situation) -> None:
    other = "eu-west-1" if situation.parameters.region != "eu-west-1" else "us-east-1"
    situation.set_variable("AWS_ENDPOINT_URL_STS", f"https://sts.{other}.amazonaws.com")


@fault(
    "Someone wanted the pod to store its data on another continent.",
    finding="region-not-activated",
    changes=REGION,
    works=True,
)
def region_that_is_not_on(situation: Situation) -> None:
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        situation.set_variable(name, "af-south-1")


def _configure(situation: Situation, config: str) -> None:
    situation.add_config_map("my-aws-config", {"config": config})
    situation.mount("my-aws-config", {"configMap": {"name": "my-aws-config"}}, "/etc/aws")
    situation.set_variable("AWS_CONFIG_FILE", "/etc/aws/config")
