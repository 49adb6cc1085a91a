"""A call of the AWS API, the operation that it requests, and the answer."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

Context = dict[str, str | list[str]]
"""Condition keys and their values."""
QUEUE_PATH = re.compile(r"/(\d{12}/[A-Za-z0-9._-]+)")
# The paths of S3 Control, whose calls are also signed for S3, start with its API version.
S3_CONTROL = "/v20180820/"
BUCKET_NAME = re.compile(r"[A-Za-z0-9._-]{3,255}")


@dataclass
class Response:
    """The answer to a call."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def error_code(self) -> str | None:
        """The AWS error code of an answer with status 400 or above; None for any other answer."""
        if self.status < 400:
            return None
        for name, value in self.headers:
            if name.lower() == "x-amzn-errortype":
                return value.split(":")[0].rpartition("#")[2]
        text = self.body[:4096].decode("utf-8", "replace")
        match = re.search(r"<Code>([^<]*)</Code>", text) or re.search(r'"__type"\s*:\s*"(?:[^"#]*#)?([^"]*)"', text)
        return match[1] if match else str(self.status)

    @property
    def error_message(self) -> str | None:
        """The error's message; None if the answer isn't an error, or has no message."""
        text = self.body[:4096].decode("utf-8", "replace") if self.status >= 400 else ""
        match = re.search(r"<Message>([^<]*)</Message>", text) or re.search(r'"[mM]essage"\s*:\s*"([^"]*)"', text)
        return match[1] if match else None


@dataclass(frozen=True)
class Call:
    """One HTTP request to the lab's AWS."""

    method: str
    raw_path: str
    """The path as sent, percent-encoded."""
    query_string: str
    header_list: list[tuple[str, str]]
    """The headers' names (in lower case) and values, in the order in which they were sent."""
    body: bytes
    """The body. Once the signature is verified, it has no ``aws-chunked`` framing any more."""
    source_ip: str = "127.0.0.1"
    trailers: dict[str, str] = field(default_factory=dict)
    """The trailing headers of a body that was sent in chunks."""

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers' values by lower-case name. The values of a repeated header are joined with a comma."""
        joined: dict[str, str] = {}
        for name, value in self.header_list:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
        return joined

    @cached_property
    def query_pairs(self) -> list[tuple[str, str]]:
        """The names and values in the query, percent-decoded. A ``+`` stays a plus sign; it's a space only in forms."""
        pairs = (part.partition("=") for part in self.query_string.split("&") if part)
        return [(unquote(name), unquote(value)) for name, _, value in pairs]

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(self.query_pairs)

    @property
    def is_form(self) -> bool:
        """Whether the body is a form with the operation and the parameters."""
        takes_form = self.raw_path == "/" or QUEUE_PATH.fullmatch(self.raw_path)
        return bool(takes_form) and self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded")

    @cached_property
    def form_pairs(self) -> list[tuple[str, str]]:
        """The parameters of a query-protocol call, from the query and the body.

        Empty unless the path is ``/`` or an SQS queue's path.
        """
        if self.raw_path != "/" and not QUEUE_PATH.fullmatch(self.raw_path):
            return []
        pairs = parse_qsl(self.query_string, keep_blank_values=True)
        if self.is_form:
            pairs += parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return pairs

    @cached_property
    def form(self) -> Mapping[str, str]:
        """The parameters in `form_pairs`, by name."""
        return dict(self.form_pairs)

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.raw_path)


@dataclass(frozen=True)
class Api:
    """How a service's calls and errors look.

    https://smithy.io/2.0/aws/protocols/index.html
    """

    name: str
    """The service's name in the scope of a signature."""
    version: str = ""
    """The version of the API in forms. It tells which service an unsigned form is for."""
    target: str = ""
    """The beginning of ``X-Amz-Target``. It tells which service an unsigned JSON call is for."""
    paths: str = ""
    """A regular expression of the paths that tell which service an unsigned REST call is for."""
    protocol: str = ""
    """s3, ec2 or rest-xml; empty if each call shows its own protocol."""
    namespace: str = ""
    """The XML namespace of answers; empty for the usual one."""
    is_query_compatible: bool = False
    """Whether JSON calls get the error codes of the query protocol.

    https://smithy.io/2.0/aws/protocols/aws-query-protocol.html#aws-protocols-awsquerycompatible-trait
    """
    takes_queue_paths: bool = False
    """Whether a call's path may name a queue: ``/ACCOUNT/QUEUE_NAME``."""
    is_checked: bool = False
    """Whether the lab checks each parameter against the service's model. Otherwise, only moto does."""
    invalid: str = "ValidationException"
    """The error code for an invalid parameter."""
    denied: str = ""
    """The error code for a call that policies don't allow; empty for the protocol's code."""
    denied_said: str = ""
    """The beginning of that error's message, before the caller and the action."""
    reserved_tag: str = ""
    """The error code for a tag that only AWS may set; empty if the lab doesn't check tags."""
    reserved_tag_said: str = "aws: prefixed tag key names are not allowed for external use."
    """The message of that error. ``{}`` in it stands for the tag's key."""
    reworded: Callable[[str], tuple[str, str] | None] = lambda _: None
    """Return the error code and message for a fault that the service describes in its own words; else None."""
    longest: int = 0
    """The longest body, in bytes; 0 for the usual limit."""
    longest_presigned: int = 0
    """The seconds for which any presigned URL is valid; 0 if the URL itself says it."""
    is_rest: bool = False
    """Whether a call's method and path name its operation, as in the service's model."""


S3 = Api("s3", protocol="s3")


@dataclass(frozen=True)
class ParsedRequest:
    """An operation of a service, with its parameters in the form that botocore's clients take."""

    service: str
    operation: str
    parameters: dict[str, Any]
    region: str
    account_id: str
    moto_call: Call
    """The call that moto gets. It has exactly this operation and these parameters."""


@dataclass(frozen=True)
class Permission:
    """An action on a resource, with the condition keys that the service adds."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)
    known: frozenset[str] | None = None
    """The service's own condition keys that the lab can evaluate; None means all of them.

    The keys are in lower case; a tag's key ends with ``/``. A known key that isn't in ``context`` is absent from the
    call. An Allow that depends on an unknown key of the service doesn't count.
    """
    doubted: frozenset[str] = frozenset()
    """Those of the keys in ``known`` whose value the lab can't tell in this call."""
    shown: str | None = None
    """The resource's name in the service's denial. None: the denial shows the ARN. Empty: it shows nothing."""
    resource_policy: str = ""
    """The document of the resource's own policy."""


@dataclass(frozen=True)
class AwsRequest:
    """The service, the operation and the parameters of a call."""

    call: Call
    api: Api = S3
    region: str = ""
    """The region in the signature's scope; the lab's region for an unsigned call; empty for a malformed signature."""
    operation: str = ""
    """The API operation's name; the method and the path if the lab doesn't know the operation."""
    account_id: str = ""
    """The account of the call's resources, usually the caller's account."""
    parsed: ParsedRequest | None = None
    """The operation and its parameters; None if they weren't read. Always None for S3, which uses the fields below."""
    unread: Exception | None = None
    """The error from reading the parameters or, for S3, the operation; None if there was no error."""
    bucket: str = ""
    key: str = ""
    version: str | None = None
    """The version id in the query. Only S3's calls have a bucket, a key and a version."""
    needed: tuple[Permission, ...] = ()
    """The permissions that an S3 call needs; for DeleteObjects, one for each key."""

    @property
    def service(self) -> str:
        """The service's name in the scope of a signature."""
        return self.api.name

    @property
    def family(self) -> str:
        """The call's protocol: s3, query, ec2, json, rest-xml or rest-json. It decides the format of a refusal.

        https://smithy.io/2.0/aws/protocols/index.html
        """
        return protocol(self.call, self.api)

    def require_parsed(self) -> ParsedRequest:
        """Return the operation with its parameters. If they could not be read, raise the error in ``unread``."""
        if self.parsed is None:
            raise self.unread or LookupError(f"the parameters of {self.operation} were not read")
        return self.parsed

    @property
    def parameters(self) -> dict[str, Any]:
        """The operation's parameters. If they could not be read, raise the error in ``unread``."""
        return self.require_parsed().parameters


def protocol(call: Call, api: Api) -> str:
    """Return a call's protocol: s3, query, ec2, json, rest-xml or rest-json."""
    says_json = "x-amz-target" in call.headers or "x-amz-json" in call.headers.get("content-type", "")
    if says_json and api.protocol != "s3":
        return "json"
    if api.protocol:
        return api.protocol
    return "query" if call.is_form or "Action" in call.form else "rest-json"


def no_number(name: str) -> None:
    """Raise ``ValueError``. `json.loads` calls this for NaN and Infinity, which are not JSON (RFC 8259)."""
    raise ValueError(f"{name} is not a JSON number")


def split_path(path: str) -> tuple[str, str]:
    """Return the bucket and the key in a decoded path of the form ``/BUCKET_NAME/KEY``."""
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key


def copy_source(header: str) -> tuple[str, str, str | None] | None:
    """Return the bucket, the key and the version id in an ``x-amz-copy-source``; None if it has another form."""
    path, _, query = header.partition("?")
    bucket, key = split_path(unquote(path))
    if not BUCKET_NAME.fullmatch(bucket) or not key:
        return None
    return bucket, key, dict(parse_qsl(query)).get("versionId")


class CannotDerive(Exception):
    """The lab doesn't know which permissions a call needs. The message names the call."""


def pass_role(role_arn: str, service: str, resource: str) -> Permission:
    """Return the permission to pass a role to a service. The service uses the role for ``resource``.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_use_passrole.html
    """
    context: Context = {"iam:PassedToService": service, "iam:AssociatedResourceArn": resource}
    # Not the role's tags: AWS says that a condition on them has no reliable results here.
    keys = frozenset({"iam:passedtoservice", "iam:associatedresourcearn"})
    return Permission("iam:PassRole", role_arn, context, keys)


def tag_keys(tags: dict[str, str] | None, removed: list[str] | None = None) -> Context:
    """Return the condition keys of a request that sets ``tags``, or removes the tags with the keys ``removed``.

    The condition keys are `aws:RequestTag/KEY` and `aws:TagKeys`.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/access_tags.html
    """
    if tags is None and removed is None:
        return {}
    context: Context = {f"aws:RequestTag/{name}": value for name, value in (tags or {}).items()}
    return context | {"aws:TagKeys": [*(tags or {}), *(removed or [])]}


def as_dict(tags: list[dict[str, str]] | None) -> dict[str, str] | None:
    """Return a dict of these tags, each with a ``Key`` and a ``Value``; None for None."""
    return None if tags is None else {tag.get("Key", ""): tag.get("Value", "") for tag in tags}


def as_text(value: object) -> str:
    """Return a parameter's value as the text that policy conditions compare: True becomes ``true``."""
    return str(value).lower() if isinstance(value, bool) else str(value)
