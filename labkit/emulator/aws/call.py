"""A call of the AWS API as it came in, and the answer to it."""

import json
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import parse_qsl, unquote

REST_JSON_ROUTES = {
    ("GET", r"/clusters/?"): "ListClusters",
    ("POST", r"/clusters/?"): "CreateCluster",
    ("GET", r"/clusters/[^/]+"): "DescribeCluster",
    ("DELETE", r"/clusters/[^/]+"): "DeleteCluster",
    ("GET", r"/clusters/[^/]+/identity-provider-configs"): "ListIdentityProviderConfigs",
    ("POST", r"/clusters/[^/]+/identity-provider-configs/associate"): "AssociateIdentityProviderConfig",
    ("POST", r"/clusters/[^/]+/identity-provider-configs/describe"): "DescribeIdentityProviderConfig",
    ("POST", r"/clusters/[^/]+/identity-provider-configs/disassociate"): "DisassociateIdentityProviderConfig",
    ("GET", r"/clusters/[^/]+/pod-identity-associations"): "ListPodIdentityAssociations",
    ("POST", r"/clusters/[^/]+/pod-identity-associations"): "CreatePodIdentityAssociation",
    ("GET", r"/clusters/[^/]+/pod-identity-associations/[^/]+"): "DescribePodIdentityAssociation",
    ("POST", r"/clusters/[^/]+/pod-identity-associations/[^/]+"): "UpdatePodIdentityAssociation",
    ("DELETE", r"/clusters/[^/]+/pod-identity-associations/[^/]+"): "DeletePodIdentityAssociation",
    ("GET", r"/access-policies"): "ListAccessPolicies",
    ("GET", r"/clusters/[^/]+/access-entries"): "ListAccessEntries",
    ("POST", r"/clusters/[^/]+/access-entries"): "CreateAccessEntry",
    ("GET", r"/clusters/[^/]+/access-entries/[^/]+"): "DescribeAccessEntry",
    ("POST", r"/clusters/[^/]+/access-entries/[^/]+"): "UpdateAccessEntry",
    ("DELETE", r"/clusters/[^/]+/access-entries/[^/]+"): "DeleteAccessEntry",
    ("GET", r"/clusters/[^/]+/access-entries/[^/]+/access-policies"): "ListAssociatedAccessPolicies",
    ("POST", r"/clusters/[^/]+/access-entries/[^/]+/access-policies"): "AssociateAccessPolicy",
    ("DELETE", r"/clusters/[^/]+/access-entries/[^/]+/access-policies/[^/]+"): "DisassociateAccessPolicy",
}
QUEUE_PATH = re.compile(r"/(\d{12}/[A-Za-z0-9._-]+)")


@dataclass
class Response:
    """What is answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def error_code(self) -> str | None:
        """The AWS error code in an answer of 400 and above; None for any other."""
        if self.status < 400:
            return None
        for name, value in self.headers:
            if name.lower() == "x-amzn-errortype":
                return value.split(":")[0].rpartition("#")[2]
        text = self.body[:4096].decode("utf-8", "replace")
        found = re.search(r"<Code>([^<]*)</Code>", text) or re.search(r'"__type"\s*:\s*"(?:[^"#]*#)?([^"]*)"', text)
        return found[1] if found else str(self.status)

    @property
    def error_message(self) -> str | None:
        """The message beside :attr:`error_code`."""
        text = self.body[:4096].decode("utf-8", "replace") if self.status >= 400 else ""
        found = re.search(r"<Message>([^<]*)</Message>", text) or re.search(r'"[mM]essage"\s*:\s*"([^"]*)"', text)
        return found[1] if found else None


@dataclass
class Call:
    """One request. ``service`` and ``region`` are what its signature is scoped to (or what its content says)."""

    method: str
    raw_path: str
    """The path as it was sent, percent-encoded."""
    query_string: str
    header_list: list[tuple[str, str]]
    """Names in lower case, in the order they came."""
    body: bytes
    source_ip: str = "127.0.0.1"
    service: str = ""
    region: str = ""
    account_id: str = ""
    """The account whose resources it is about: the caller's, but for what belongs to another."""
    notes: dict[str, Any] = field(default_factory=dict)
    """What the trail shall hold beside the call itself."""

    @cached_property
    def headers(self) -> dict[str, str]:
        """The values by lower-case name; those of a repeated header joined with a comma."""
        joined: dict[str, str] = {}
        for name, value in self.header_list:
            joined[name] = f"{joined[name]},{value}" if name in joined else value
        return joined

    @cached_property
    def query_pairs(self) -> list[tuple[str, str]]:
        """The query, percent-decoded (``+`` is a plus sign only in a form)."""
        pairs = (part.partition("=") for part in self.query_string.split("&") if part)
        return [(unquote(name), unquote(value)) for name, _, value in pairs]

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(self.query_pairs)

    @cached_property
    def form(self) -> dict[str, str]:
        """The parameters of a query-protocol call, from the query and the body; one to SQS may go to a queue's URL."""
        if self.raw_path != "/" and not QUEUE_PATH.fullmatch(self.raw_path):
            return {}
        parameters = dict(parse_qsl(self.query_string, keep_blank_values=True))
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            parameters |= parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True)
        return parameters

    @cached_property
    def path(self) -> str:
        """The path, percent-decoded."""
        return unquote(self.raw_path)

    @property
    def family(self) -> str:
        """The protocol, which decides how a refusal looks: s3, query, ec2, json or rest-json.

        https://smithy.io/2.0/aws/protocols/index.html
        """
        if self.service in ("s3", ""):
            return "s3"
        if "x-amz-target" in self.headers or "x-amz-json" in self.headers.get("content-type", ""):
            return "json"
        if self.service == "ec2":
            return "ec2"
        return "query" if "Action" in self.form else "rest-json"

    @property
    def operation(self) -> str:
        """The API operation's name; for S3 and unknown REST calls, what S3's own module or the request line says."""
        if "operation" in self.notes:
            return self.notes["operation"]
        if self.family == "json":
            return self.headers.get("x-amz-target", "").rpartition(".")[2]
        if self.family in ("query", "ec2"):
            return self.form.get("Action", "")
        if self.service == "eks":
            for (method, pattern), name in REST_JSON_ROUTES.items():
                if method == self.method and re.fullmatch(pattern, self.raw_path):
                    return name
        if self.service == "account" and self.method == "POST":
            # Its paths are the operations' names: /listRegions.
            return self.path[1:2].upper() + self.path[2:]
        return f"{self.method} {self.path}"

    def json(self) -> dict[str, Any]:
        """The body as a JSON object; empty where it is none."""
        try:
            content = json.loads(self.body or b"{}")
        except (ValueError, RecursionError):
            return {}
        return content if isinstance(content, dict) else {}
