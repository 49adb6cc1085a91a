"""EKS access entries. An access entry lets one IAM principal into a cluster, with a user name, groups and policies.

What differs from AWS:

- Types: the lab only has entries of the type STANDARD, for users and roles that exist.
- Policies: the lab only has four of EKS's access policies (admin, cluster admin, edit, view).
- Paging: every list has a single page.
- The ConfigMap `aws-auth`: the lab never reads it, whatever the cluster's authentication mode is.

https://docs.aws.amazon.com/eks/latest/userguide/access-entries.html
"""

import re
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.answers import invalid_parameter, resource_in_use, resource_not_found, respond
from labkit.simulator.aws.call import AwsRequest, Response

POLICIES = tuple(f"AmazonEKS{name}Policy" for name in ("Admin", "ClusterAdmin", "Edit", "View"))
POLICY_ARN = "arn:aws:eks::aws:cluster-access-policy/"
PRINCIPAL = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):(role|user)/(?:[\w+=,.@/-]*/)?([\w+=,.@-]+)")
SERVICE_LINKED = ":role/aws-service-role/"
RAW = "{{SessionNameRaw}}"
# A placeholder, and any text before it without a colon.
NO_COLON = re.compile(r"[^:]*\{\{SessionName(Raw)?\}\}.*", re.DOTALL)
NOT_FOUND = (
    "The specified principalArn could not be found. "
    "You can view your available access entries with 'list-access-entries'."
)

# The unique id (AROA…, AIDA…) of the principal with this ARN; None if it doesn't exist.
PrincipalId = Callable[[str], str | None]


@dataclass
class Association:
    """An access policy of an access entry. The policy holds in the whole cluster or only in some namespaces."""

    name: str
    scope: dict[str, Any]
    associated_at: float
    modified_at: float

    @property
    def namespaces(self) -> list[str] | None:
        """The namespaces in which the policy holds (``*`` is a wildcard); None if it holds in the whole cluster."""
        return self.scope.get("namespaces") or [] if self.scope["type"] == "namespace" else None

    def document(self) -> dict[str, object]:
        return {
            "policyArn": POLICY_ARN + self.name,
            "accessScope": {"type": self.scope["type"], "namespaces": self.namespaces or []},
            "associatedAt": self.associated_at,
            "modifiedAt": self.modified_at,
        }


@dataclass
class AccessEntry:
    """One IAM principal that a cluster lets in."""

    principal_arn: str
    principal_id: str
    username: str
    groups: list[str]
    tags: dict[str, str]
    created_at: float
    modified_at: float
    policies: dict[str, Association] = field(default_factory=dict)

    def username_of(self, session_name: str) -> str:
        """Return the caller's user name in Kubernetes. ``session_name`` is the name of the caller's role session."""
        for placeholder, name in (("{{SessionName}}", session_name.replace("@", "-")), (RAW, session_name)):
            if placeholder in self.username:
                return self.username.replace(placeholder, name)
        return self.username

    def document(self, cluster_arn: str) -> dict[str, object]:
        return {
            "clusterName": Arn.parse(cluster_arn).name,
            "principalArn": self.principal_arn,
            "kubernetesGroups": self.groups,
            "accessEntryArn": entry_arn(cluster_arn, self.principal_arn),
            "createdAt": self.created_at,
            "modifiedAt": self.modified_at,
            "tags": self.tags,
            "username": self.username,
            "type": "STANDARD",
        }


class AccessEntries:
    """The access entries of one cluster. ``stored`` is what `stored` returned before."""

    def __init__(self, stored: object = ()) -> None:
        self._entries = _entries(stored)

    @property
    def stored(self) -> list[dict[str, object]]:
        """The entries, as JSON can have them."""
        return [asdict(entry) for entry in self._entries.values()]

    def find(self, principal_id: str) -> AccessEntry | None:
        """Return the entry of the principal with this unique id.

        A principal that was deleted and created again has the same ARN, but another id.
        """
        return next((entry for entry in self._entries.values() if entry.principal_id == principal_id), None)

    def get(self, principal_arn: str) -> AccessEntry | None:
        """Return the entry that was created for the principal with this ARN; None if it doesn't exist."""
        return self._entries.get(principal_arn)

    def of_arn(self, arn: str, cluster_arn: str) -> AccessEntry | None:
        """Return the entry whose own ARN (not its principal's) is ``arn``; None if the entry doesn't exist."""
        entries = self._entries.values()
        return next((each for each in entries if entry_arn(cluster_arn, each.principal_arn) == arn), None)

    def admit_creator(self, principal_arn: str, principal_id: str, now: float) -> None:
        """Create an entry that makes the cluster's creator an administrator of the cluster."""
        entry = _entry(principal_arn, principal_id, {}, now)
        _associate(entry, {"policyArn": "AmazonEKSClusterAdminPolicy", "accessScope": {"type": "cluster"}}, now)
        self._entries[principal_arn] = entry

    def answer(self, request: AwsRequest, cluster_arn: str, principal_id: PrincipalId, now: float) -> Response:
        """Answer one of EKS's operations on access entries. Raises ``Refusal``."""
        parameters = request.parameters
        principal_arn = parameters.get("principalArn", "")
        match request.operation:
            case "CreateAccessEntry":
                self._create(principal_arn, parameters, principal_id, now)
            case "ListAccessEntries":
                wanted = parameters.get("associatedPolicyArn", "").removeprefix(POLICY_ARN)
                arns = [arn for arn, entry in self._entries.items() if not wanted or wanted in entry.policies]
                return respond({"accessEntries": arns})
        entry = self._entries.get(principal_arn)
        if entry is None:
            raise resource_not_found(NOT_FOUND)
        whose = {"clusterName": Arn.parse(cluster_arn).name, "principalArn": principal_arn}
        match request.operation:
            case "DeleteAccessEntry":
                del self._entries[principal_arn]
                return respond({})
            case "UpdateAccessEntry":
                _update(entry, parameters, now)
            case "ListAssociatedAccessPolicies":
                return respond(whose | {"associatedAccessPolicies": [p.document() for p in entry.policies.values()]})
            case "AssociateAccessPolicy":
                associated = _associate(entry, parameters, now)
                return respond(whose | {"associatedAccessPolicy": associated.document()})
            case "DisassociateAccessPolicy":
                if entry.policies.pop(parameters["policyArn"].removeprefix(POLICY_ARN), None) is None:
                    message = "The specified policyArn could not be found among the associated access policies."
                    raise resource_not_found(message)
                return respond({})
        return respond({"accessEntry": entry.document(cluster_arn)})

    def _create(self, principal_arn: str, parameters: dict[str, Any], principal_id: PrincipalId, now: float) -> None:
        identifier = principal_id(principal_arn) if PRINCIPAL.fullmatch(principal_arn) else None
        if identifier is None or SERVICE_LINKED in principal_arn:
            raise invalid_parameter("The specified principalArn is invalid: invalid principal.")
        if parameters.get("type", "STANDARD") != "STANDARD":
            raise invalid_parameter("The lab only has access entries of the type STANDARD. Nodes don't need entries.")
        if principal_arn in self._entries:
            raise resource_in_use("The specified access entry resource is already in use on this cluster.")
        self._entries[principal_arn] = _entry(principal_arn, identifier, parameters, now)


def entry_arn(cluster_arn: str, principal_arn: str) -> str | None:
    """Return the ARN of a principal's entry in a cluster; None if ``principal_arn`` isn't the ARN of a user or role."""
    if not (principal := PRINCIPAL.fullmatch(principal_arn)):
        return None
    account, kind, name = principal.groups()
    made = uuid.uuid5(uuid.NAMESPACE_URL, f"{cluster_arn}/{principal_arn}")
    cluster = Arn.parse(cluster_arn)
    return str(cluster.sibling(f"access-entry/{cluster.name}/{kind}/{account}/{name}/{made}"))


def access_policies() -> Response:
    """Answer ListAccessPolicies with the policies that the lab knows.

    https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html
    """
    return respond({"accessPolicies": [{"name": name, "arn": POLICY_ARN + name} for name in POLICIES]})


def _entries(stored: Any) -> dict[str, AccessEntry]:
    entries = {}
    for each in stored:
        policies = {name: Association(**policy) for name, policy in each["policies"].items()}
        entries[each["principal_arn"]] = AccessEntry(**{**each, "policies": policies})
    return entries


def _entry(principal_arn: str, identifier: str, parameters: dict[str, Any], now: float) -> AccessEntry:
    principal = PRINCIPAL.fullmatch(principal_arn)
    account, kind, name = principal.groups() if principal else ("", "", "")
    usual = f"arn:aws:sts::{account}:assumed-role/{name}/{{{{SessionName}}}}" if kind == "role" else principal_arn
    entry = AccessEntry(principal_arn, identifier, usual, [], dict(parameters.get("tags") or {}), now, now)
    _update(entry, parameters, now)
    return entry


def _update(entry: AccessEntry, parameters: dict[str, Any], now: float) -> None:
    groups = parameters.get("kubernetesGroups")
    for group in groups or ():
        if str(group).startswith("system:"):
            raise invalid_parameter(f"The kubernetes group name {group} is invalid, it cannot start with system:")
    username = parameters.get("username") or entry.username
    if username.startswith(("system:", "eks:", "aws:", "amazon:", "iam:")):
        prefix = username.partition(":")[0] + ":"
        raise invalid_parameter(f"The username {username} is invalid, it cannot start with {prefix}")
    if NO_COLON.fullmatch(username):
        raise invalid_parameter(f"The username {username} is invalid, it must have a colon before {{{{SessionName}}}}")
    entry.username, entry.modified_at = username, now
    if groups is not None:
        entry.groups = list(groups)


def _associate(entry: AccessEntry, parameters: dict[str, Any], now: float) -> Association:
    name = str(parameters.get("policyArn", "")).removeprefix(POLICY_ARN)
    if name not in POLICIES:
        message = f"The policyArn {parameters.get('policyArn')} is invalid."
        raise invalid_parameter(f"{message} The lab only has the policies {', '.join(POLICIES)}.")
    scope = parameters.get("accessScope") or {}
    if scope.get("type") not in ("cluster", "namespace"):
        raise invalid_parameter("The accessScope type must be cluster or namespace.")
    if (scope["type"] == "namespace") != bool(scope.get("namespaces")):
        raise invalid_parameter("Pass namespaces if the accessScope type is namespace. Omit them if it is cluster.")
    since = entry.policies[name].associated_at if name in entry.policies else now
    entry.policies[name] = Association(name, scope, since, now)
    return entry.policies[name]
