"""EKS Pod Identity associations. An association gives a role to a service account, as an alternative to IRSA.

What differs from AWS:

- Time: an association takes effect at once; on AWS it takes some seconds.
- The add-on: each node of the lab's own clusters has the agent (`pod_identity_agent`), without an add-on. On the
  target `kind`, clusters have no agent, and their webhook ignores associations.
- Session policies and target roles: the lab refuses associations that have them.

https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
"""

import re
from collections.abc import Callable, Iterable
from typing import Any

from labkit.policy.arn import Arn
from labkit.simulator.aws.answers import Refusal, invalid_parameter, resource_in_use, resource_not_found, respond
from labkit.simulator.aws.call import AwsRequest, Response

ROLE = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):role/[\w+=,.@/-]+")
NAMES = {
    "namespace": re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"),
    "serviceAccount": re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?"),
}
ID_LENGTH = 19
MOST_LISTED = 100
IN_LISTS = ("clusterName", "namespace", "serviceAccount", "associationArn", "associationId")
NOT_HERE = ("policy", "targetRoleArn")

SERVICE = "pods.eks.amazonaws.com"
"""The service that assumes the role. It's also the audience of the pods' tokens."""
Association = dict[str, Any]
"""An association, as EKS describes it."""
# Refuses the role with this ARN if EKS can't assume it with these actions.
RequireRole = Callable[[str, list[str]], None]
# The id (`a-` and 17 characters) of a new association of this namespace and service account.
NewId = Callable[[str, str], str]


class PodIdentityAssociations:
    """The associations of one cluster, as JSON can have them, by their ids."""

    def __init__(self, stored: dict[str, Association] | None = None, used: Iterable[str] = ()) -> None:
        self._associations = stored or {}
        self.used = dict.fromkeys(used)
        """The ids of the associations that may have changed since they were stored."""

    def find(self, association_id: str) -> object:
        """The association with this id; None if it doesn't exist."""
        return self._associations.get(association_id)

    def tags(self, association_id: str) -> dict[str, str] | None:
        """The tags of an association; None if it doesn't exist."""
        return self._associations.get(association_id, {}).get("tags")

    def tags_of(self, arn: str) -> dict[str, str] | None:
        """The tags of the association with this ARN; None if it doesn't exist."""
        one = next((one for one in self._associations.values() if one["associationArn"] == arn), None)
        if one is None:
            return None
        self.used[one["associationId"]] = None
        tags: dict[str, str] = one["tags"]
        return tags

    def of(self, namespace: str, service_account: str) -> dict[str, Any] | None:
        """The association of a service account; None if the service account doesn't have one."""
        whose = {"namespace": namespace, "serviceAccount": service_account}
        return next((one for one in self._associations.values() if whose.items() <= one.items()), None)

    def answer(
        self, request: AwsRequest, cluster_arn: str, new_id: NewId, require_role: RequireRole, now: float
    ) -> Response:
        """Answer one of EKS's operations on a cluster's associations. Raises ``Refusal``.

        ``new_id`` makes the id of a new association. ``require_role`` raises ``Refusal`` if EKS can't assume a role.
        """
        parameters = request.parameters
        if unknown := [name for name in NOT_HERE if parameters.get(name)]:
            raise Refusal(501, "NotImplemented", f"The lab does not support {unknown[0]} in a Pod Identity association")
        match request.operation:
            case "CreatePodIdentityAssociation":
                return respond({"association": self._create(parameters, cluster_arn, new_id, require_role, now)})
            case "ListPodIdentityAssociations":
                return respond(self._list(parameters))
        association = self._find(parameters["associationId"])
        match request.operation:
            case "DeletePodIdentityAssociation":
                del self._associations[association["associationId"]]
            case "UpdatePodIdentityAssociation":
                if "roleArn" in parameters:
                    require_role(role_arn := _role(parameters, cluster_arn), _actions(association | parameters))
                    association["roleArn"] = role_arn
                if "disableSessionTags" in parameters:
                    association["disableSessionTags"] = bool(parameters["disableSessionTags"])
                association["modifiedAt"] = now
        return respond({"association": association})

    def _create(
        self, parameters: dict[str, Any], cluster_arn: str, new_id: NewId, require_role: RequireRole, now: float
    ) -> dict[str, Any]:
        for name, pattern in NAMES.items():
            if not isinstance(given := parameters.get(name), str) or not pattern.fullmatch(given):
                raise invalid_parameter(f"The parameter {name} is invalid: {given or '(missing)'}.")
        whose = {name: parameters[name] for name in NAMES}
        require_role(role_arn := _role(parameters, cluster_arn), _actions(parameters))
        for identifier, known in self._associations.items():
            if whose.items() <= known.items():
                raise resource_in_use(f"Association already exists: {identifier}")
        identifier = new_id(*whose.values())
        self.used[identifier] = None
        self._associations[identifier] = made = {
            "clusterName": Arn.parse(cluster_arn).name,
            **whose,
            "roleArn": role_arn,
            "associationArn": association_arn(cluster_arn, identifier),
            "associationId": identifier,
            "tags": dict(parameters.get("tags") or {}),
            "createdAt": now,
            "modifiedAt": now,
            "disableSessionTags": bool(parameters.get("disableSessionTags")),
        }
        return made

    def _find(self, association_id: str) -> dict[str, Any]:
        if len(association_id) != ID_LENGTH:
            raise invalid_parameter(f"The parameter associationId should be {ID_LENGTH} characters long.")
        if association := self._associations.get(association_id):
            self.used[association_id] = None
            return association
        raise resource_not_found(f"Association not found: {association_id}")

    def _list(self, parameters: dict[str, Any]) -> dict[str, Any]:
        most: int = parameters.get("maxResults", MOST_LISTED)
        token = parameters.get("nextToken", "")
        wanted = {name: parameters[name] for name in NAMES if name in parameters}
        matches = [one for one in self._associations.values() if wanted.items() <= one.items()]
        if token:
            before = next((at for at, one in enumerate(matches) if one["associationId"] == token), None)
            if before is None:
                raise invalid_parameter("The parameter nextToken doesn't come from this list.")
            matches = matches[before + 1 :]
        page = [{name: one[name] for name in IN_LISTS} for one in matches[:most]]
        return {"associations": page} | ({"nextToken": page[-1]["associationId"]} if len(matches) > len(page) else {})


def association_arn(cluster_arn: str, association_id: str) -> str:
    """The ARN of a cluster's association with this id."""
    cluster = Arn.parse(cluster_arn)
    return str(cluster.sibling(f"podidentityassociation/{cluster.name}/{association_id}"))


def _actions(association: dict[str, Any]) -> list[str]:
    """The actions that EKS needs on the association's role.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
    """
    return ["sts:AssumeRole"] if association.get("disableSessionTags") else ["sts:AssumeRole", "sts:TagSession"]


def _role(parameters: dict[str, Any], cluster_arn: str) -> str:
    role_arn = str(parameters.get("roleArn") or "")
    named = ROLE.fullmatch(role_arn)
    if named is None or named[1] != Arn.parse(cluster_arn).account:
        message = "The parameter roleArn is not a role of the cluster's account"
        raise invalid_parameter(f"{message}: {role_arn or '(missing)'}.")
    return role_arn
