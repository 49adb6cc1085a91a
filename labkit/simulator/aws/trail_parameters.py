"""The parameters of a request as CloudTrail's records show them, without secrets."""

import re
from collections.abc import Mapping
from typing import Any

from labkit.simulator.aws.backend import Shape, get_service_model
from labkit.simulator.aws.call import AwsRequest
from labkit.simulator.aws.trail import HIDDEN

LARGEST = 100 * 1024
LARGEST_READ = 1024 * 1024
STS_SECRETS = ("SAMLAssertion", "TokenCode", "WebIdentityToken")
STS = (
    "DurationSeconds", "ExternalId", "Name", "Policy", "ProviderId", "RoleArn", "RoleSessionName", "SerialNumber",
    "SourceIdentity",
)  # fmt: skip
S3_HEADERS = ("x-amz-acl", "x-amz-copy-source", "x-amz-server-side-encryption", "x-amz-storage-class")
# Parameters of S3's query that sign the request, or carry no information.
S3_NOT_KEPT = {
    "awsaccesskeyid", "signature", "x-amz-content-sha256", "x-amz-credential", "x-amz-security-token",
    "x-amz-signature", "x-id",
}  # fmt: skip
# The names of secret members. Binary members, and members that a service's model marks as sensitive, are secret, too.
SECRET_NAMES = re.compile(
    r"password|passphrase|private_?key|credential|secret(access_?key|string|binary|key|value|token)?$"
    r"|(session|security|identity|auth|access|refresh|rotation)_?token|(authentication|token)_?code"
    r"|(^|[a-z])(message|message_?body|payload|plaintext|subject|user_?data)$|message(system)?attributes$"
    r"|^(partiql)?statement$",
    re.IGNORECASE,
)
# DynamoDB's values are the contents of items.
SECRET_SHAPES = {"AttributeValue", "PartiQLStatement", "PreparedStatementParameters"}


def is_shown(request: AwsRequest) -> bool:
    """Return whether the lab reads this call's parameters for the trail.

    False for a call to EC2, and for a body of more than ``LARGEST_READ`` bytes. Don't use the result for a call to STS
    or S3: `TrailParameters` always reads these calls' parameters, and doesn't call this function for them.
    """
    # EC2's model takes as long to load as all other models together.
    return request.service != "ec2" and len(request.call.body) <= LARGEST_READ


class TrailParameters:
    """The parameters of a call for its record in the trail. ``secrets`` are the values that the trail must not show.

    ``parameters``: None if the call has no parameters, or if the lab doesn't know them.
    """

    def __init__(self, request: AwsRequest):
        self.secrets: list[str] = []
        self.parameters = self._of(request) or None
        if len(str(self.parameters)) > LARGEST:
            self.parameters = {"omitted": True, "reason": "Field size exceeds maximum limit of 100 KB"}

    def _of(self, request: AwsRequest) -> dict[str, Any]:
        if request.family == "s3":
            return _s3(request)
        form = request.call.form
        if request.service == "sts":
            self.secrets += [form[name] for name in STS_SECRETS if name in form]
            return _sts(form)
        if request.family == "query":
            self.secrets += [value for name, value in form.items() if SECRET_NAMES.search(name)]
        if request.parsed is None or not is_shown(request):
            return {}
        try:
            shape = get_service_model(request.service).operation_model(request.parsed.operation).input_shape
            shown: dict[str, Any] = self._shown(shape, request.parsed.parameters)
            return shown
        except Exception:
            # A call is answered even if its record can't be made.
            return {}

    def _shown(self, shape: Shape, value: Any, name: str = "") -> Any:
        kind = shape.type_name
        secret = shape.metadata.get("sensitive") or kind == "blob" or shape.name in SECRET_SHAPES
        if secret or SECRET_NAMES.search(name):
            self._hide(value)
            return HIDDEN
        match kind:
            case "structure" if isinstance(value, dict):
                return {
                    member[0].lower() + member[1:]: self._shown(shape.members[member], part, member)
                    for member, part in value.items()
                    if member in shape.members and part is not None
                }
            case "list" if isinstance(value, list):
                return [self._shown(shape.member, part, name) for part in value]
            case "map" if isinstance(value, dict):
                return {key: self._shown(shape.value, part, key) for key, part in value.items()}
        return value

    def _hide(self, value: Any) -> None:
        if isinstance(value, str):
            self.secrets.append(value)
        elif isinstance(value, dict | list):
            for part in value.values() if isinstance(value, dict) else value:
                self._hide(part)


def _sts(form: Mapping[str, str]) -> dict[str, Any]:
    kept: dict[str, Any] = {name[0].lower() + name[1:]: form[name] for name in STS if name in form}
    if re.fullmatch(r"\d{1,9}", kept.get("durationSeconds", ""), re.ASCII):
        kept["durationSeconds"] = int(kept["durationSeconds"])
    for name, value in form.items():
        if name.startswith("PolicyArns.member."):
            kept.setdefault("policyArns", []).append({"arn": value})
        elif name.startswith("TransitiveTagKeys.member."):
            kept.setdefault("transitiveTagKeys", []).append(value)
        elif name.startswith("Tags.member.") and name.endswith(".Key"):
            tag = {"key": value, "value": form.get(f"{name.removesuffix('Key')}Value", "")}
            kept.setdefault("tags", []).append(tag)
    return kept


def _s3(request: AwsRequest) -> dict[str, Any]:
    call = request.call
    named = {"bucketName": request.bucket, "Host": call.headers.get("host", ""), "key": request.key}
    query = {name: value for name, value in call.query_pairs if name.lower() not in S3_NOT_KEPT}
    headers = {name: call.headers[name] for name in S3_HEADERS if name in call.headers}
    return {name: value for name, value in named.items() if value} | query | headers
