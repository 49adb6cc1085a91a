"""EKS Pod Identity associations: AWS's other way of giving a service account a role.

What AWS does and this module does not:

- Credentials: an association is kept, listed and described. The lab has no Pod Identity agent, so its pods get
  neither variables nor credentials from one. Nobody can take it for IRSA: a role that trusts only
  ``pods.eks.amazonaws.com`` admits no web identity.
- Checks: the role need not exist, and its trust policy is not looked at.
- Session policies and target roles in another account: refused.
- TagResource: an association keeps the tags it was made with.

https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from labkit.emulator.aws.answers import respond
from labkit.emulator.aws.call import Asked, Response
from labkit.emulator.aws.errors import Refusal, invalid_parameter
from labkit.policy.arn import Arn

ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
NAMES = {
    "namespace": re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    "serviceAccount": re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
}
ID_LENGTH = 19
MOST_LISTED = 100
IN_LISTS = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
NOT_HERE = ("policy", "targetRoleArn")

# The id (`a-` and 17 characters) of a new association of this namespace and service account.
NewId = Callable[[str, str], str]


@dataclass
class Association:
    """The role of one service account."""

    id: str
    arn: str
    cluster_name: str
    namespace: str
    service_account: str
    role_arn: str
    session_tags_disabled: bool
    tags: dict[str, str]
    created_at: float
    modified_at: float

    def document(self) -> dict[str, Any]:
        return {
            "clusterName": self.cluster_name,
            "namespace": self.namespace,
            "serviceAccount": self.service_account,
            "roleArn": self.role_arn,
            "associationArn": self.arn,
            "associationId": self.id,
            "tags": self.tags,
            "createdAt": self.created_at,
            "modifiedAt": self.modified_at,
            "disableSessionTags": self.session_tags_disabled,
        }


class PodIdentityAssociations:
    """The associations of one cluster, by their ids."""

    def __init__(self) -> None:
        self._associations: dict[str, Association] = {}

    def tags(self, association_id: str) -> dict[str, str] | None:
        """The tags of an association; None where there is none."""
        found = self._associations.get(association_id)
        return found.tags if found else None

    def answer(self, asked: Asked, cluster_arn: str, new_id: NewId, now: float) -> Response:
        """The answer to one of EKS's operations on a cluster's associations. Raises ``Refusal``."""
        request = asked.call.json()
        if unknown := [name for name in NOT_HERE if request.get(name)]:
            raise Refusal(501, "NotImplemented", f"The lab has no Pod Identity associations with a {unknown[0]}")
        match asked.operation:
            case "CreatePodIdentityAssociation":
                return respond({"association": self._create(request, cluster_arn, new_id, now).document()})
            case "ListPodIdentityAssociations":
                return respond(self._list(asked.call.query))
        association = self._find(unquote(asked.call.raw_path.rpartition("/")[2]))
        match asked.operation:
            case "DeletePodIdentityAssociation":
                del self._associations[association.id]
            case "UpdatePodIdentityAssociation":
                if "roleArn" in request:
                    association.role_arn = _role(request, cluster_arn)
                if "disableSessionTags" in request:
                    association.session_tags_disabled = bool(request["disableSessionTags"])
                association.modified_at = now
        return respond({"association": association.document()})

    def _create(self, request: dict[str, Any], cluster_arn: str, new_id: NewId, now: float) -> Association:
        for name, pattern in NAMES.items():
            if not isinstance(given := request.get(name), str) or not pattern.fullmatch(given):
                raise invalid_parameter(f"The parameter {name} is invalid: {given or 'it is missing'}.")
        namespace, service_account = request["namespace"], request["serviceAccount"]
        role_arn = _role(request, cluster_arn)
        for known in self._associations.values():
            if (known.namespace, known.service_account) == (namespace, service_account):
                raise Refusal(409, "ResourceInUseException", f"Association already exists: {known.id}")
        made = Association(
            id=(identifier := new_id(namespace, service_account)),
            arn=association_arn(cluster_arn, identifier),
            cluster_name=cluster_arn.partition("cluster/")[2],
            namespace=namespace,
            service_account=service_account,
            role_arn=role_arn,
            session_tags_disabled=bool(request.get("disableSessionTags")),
            tags=dict(request.get("tags") or {}),
            created_at=now,
            modified_at=now,
        )
        self._associations[made.id] = made
        return made

    def _find(self, association_id: str) -> Association:
        if len(association_id) != ID_LENGTH:
            raise invalid_parameter(f"The parameter associationId should be {ID_LENGTH} characters long.")
        if association := self._associations.get(association_id):
            return association
        raise Refusal(404, "ResourceNotFoundException", f"Association not found: {association_id}")

    def _list(self, asked: dict[str, str]) -> dict[str, Any]:
        """One page of the associations that are asked for; the token is the last id of the page before."""
        most = asked.get("maxResults", str(MOST_LISTED))
        if not re.fullmatch(r"\d{1,3}", most, re.ASCII) or not 1 <= int(most) <= MOST_LISTED:
            raise invalid_parameter(f"The parameter maxResults is 1 to {MOST_LISTED}.")
        token = asked.get("nextToken", "")
        documents = [association.document() for association in self._associations.values()]
        found = [one for one in documents if all(one[name] == asked[name] for name in NAMES if name in asked)]
        if token:
            before = next((at for at, one in enumerate(found) if one["associationId"] == token), None)
            if before is None:
                raise invalid_parameter("The parameter nextToken is none that was given for this list.")
            found = found[before + 1 :]
        page = [{name: one[name] for name in IN_LISTS} for one in found[: int(most)]]
        return {"associations": page} | ({"nextToken": page[-1]["associationId"]} if len(found) > len(page) else {})


def association_arn(cluster_arn: str, association_id: str) -> str:
    """The ARN of a cluster's association with this id."""
    return f"{cluster_arn.replace(':cluster/', ':podidentityassociation/')}/{association_id}"


def _role(request: dict[str, Any], cluster_arn: str) -> str:
    role_arn = str(request.get("roleArn") or "")
    named = ROLE.fullmatch(role_arn)
    if named is None or named[1] != Arn.parse(cluster_arn).account:
        raise invalid_parameter(
            f"The parameter roleArn is no role of the cluster's account: {role_arn or 'it is missing'}."
        )
    return role_arn
