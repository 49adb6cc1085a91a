"""EKS. moto keeps the clusters' settings and refuses invalid calls. The lab itself runs the clusters.

What differs from AWS:

- Time: a cluster is ready when CreateCluster returns; on AWS it takes ten minutes.
- Settings: the settings for logging, networks and encryption are kept, but have no effect. The role and the subnets
  need not exist.
- Access: a cluster that is created without an authentication mode gets API; on AWS it gets CONFIG_MAP. The mode can't
  be changed later.
- Nodes: node groups and Fargate profiles are kept, but start no nodes. Each cluster has one node, which the lab starts.
- Add-ons, version updates, insights and encryption configs: moto has no such operations.
- Other accounts: only the lab's own account can have clusters.

https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
"""

import base64
import json
import re
from dataclasses import replace
from functools import partial
from typing import Any

from labkit.policy import names_service
from labkit.simulator.aws import access_entries
from labkit.simulator.aws.actions.eks import cluster_of, permissions, tags_of
from labkit.simulator.aws.answers import (
    Refusal,
    invalid_parameter,
    not_emulated,
    resource_in_use,
    resource_not_found,
    respond,
)
from labkit.simulator.aws.authorization import stored_policy
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import Api, AwsRequest, Call, ParsedRequest, Permission, Response
from labkit.simulator.aws.clusters import ClusterFacts
from labkit.simulator.aws.pod_identity import SERVICE
from labkit.simulator.aws.service import Parts, Service
from labkit.simulator.aws.sessions import Caller, Session
from labkit.simulator.names import CLUSTER_NAME

CONFIG_MAP = "CONFIG_MAP"
# Operations with one of these words in their names are on a part of a cluster. The last word is Pod Identity's.
OF_CLUSTER = re.compile("Access|IdentityProviderConfig|PodIdentityAssociation")


class Eks(Service):
    """EKS."""

    api = Api(
        "eks",
        paths="/clusters(/.*)?",
        is_checked=True,
        invalid="InvalidParameterException",
        reserved_tag="InvalidParameterException",
        is_rest=True,
    )
    stores = ("eks",)
    resource_types = {
        "clusterName": "AWS::EKS::Cluster",
        "name": "AWS::EKS::Cluster",
        "roleArn": "AWS::IAM::Role",
    }

    def __init__(self, parts: Parts):
        super().__init__(parts)
        self.clusters = parts.clusters

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permissions that an operation of EKS needs."""
        return permissions(request, self.backend)

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer a call of EKS. A cluster in the answer has its real endpoint, CA, issuer and version, not moto's."""
        _check_emulated(request)
        operation, name = request.require_parsed().operation, _cluster(request)
        if name and request.account_id != (own := self.backend.account_id):
            if operation == "CreateCluster":
                raise Refusal(501, "NotImplemented", f"The lab has clusters only in the account {own}")
            raise resource_not_found(f"No cluster found for name: {name}.")
        match operation:
            case "ListAccessPolicies":
                return access_entries.access_policies()
            case "CreateCluster":
                return await self._create(request, caller)
            case "DeleteCluster":
                return await self._delete(request, name)
            case "DescribeCluster":
                return self._filled(request, await self.backend.answer(request))
            case "ListTagsForResource" | "TagResource" | "UntagResource":
                return await self.backend.run(_tags, request, self.backend)
            case _ if part := OF_CLUSTER.search(operation):
                return self._of_cluster(request, part[0], name)
        return await self.backend.answer(request)

    def keep_own(self, request: AwsRequest) -> None:
        """Store the regions, and the data of the cluster that the call names: its `ClusterFacts.associated`."""
        facts, own = self.clusters.get(request.region, _cluster(request)), self.parts.own
        self.parts.regions.keep(own)
        if facts:
            facts.keep(own)
        elif request.operation in ("CreateCluster", "DeleteCluster"):
            own.keep_part(f"arn:aws:eks:{request.region}:{self.backend.account_id}:cluster/{_cluster(request)}", None)

    def forget_lost(self) -> None:
        """Delete moto's entry for each cluster that isn't in ``clusters``.

        After a restart of the lab, a cluster that had joined isn't in ``clusters`` until it joins again.
        """
        for region, store in self.backend.stores("eks", self.backend.account_id).items():
            for name in [name for name in store.clusters if not self.clusters.get(region, name)]:
                del store.clusters[name]

    async def know(self, region: str, name: str, parameters: dict[str, object]) -> ClusterFacts | None:
        """Add a running cluster to the clusters that moto knows. Return the facts of the added cluster.

        If moto already knows the cluster, change nothing, and return None. ``parameters`` are CreateCluster's.
        """
        call = Call("POST", "/clusters", "", [("content-type", "application/json")], json.dumps(parameters).encode())
        request = AwsRequest(call, self.api, region, "CreateCluster", self.backend.account_id)
        if (await self.backend.answer(_on(request, "GET", name))).status == 200:
            return None
        await self.backend.answer(request)
        if facts := self.clusters.get(region, name):
            self._admit_creator(facts, parameters, self.parts.administrator)
        return facts

    async def _delete(self, request: AwsRequest, name: str) -> Response:
        unfinished = not self.clusters.get(request.region, name)
        if unfinished and (await self.backend.answer(_on(request, "GET", name))).status == 200:
            raise resource_in_use(f"Cluster has CREATING operation in progress: {name}")
        response = await self.backend.answer(request)
        if response.status == 200:
            response = self._filled(request, response)
            # A cluster that was stopped can't be put back.
            await self.parts.write()
            await self.clusters.delete(request.region, name)
        return response

    async def _create(self, request: AwsRequest, caller: Caller) -> Response:
        parameters = request.parameters
        name = parameters["name"]
        if not CLUSTER_NAME.fullmatch(name):
            raise invalid_parameter(
                "The cluster name can contain only alphanumeric characters (case-sensitive), hyphens, and underscores. "
                "It must start with an alphanumeric character and can't be longer than 100 characters."
            )
        access = parameters.get("accessConfig") or {}
        admits_creator = access.get("bootstrapClusterCreatorAdminPermissions", True)
        if access.get("authenticationMode") == CONFIG_MAP and not admits_creator:
            message = "bootstrapClusterCreatorAdminPermissions must be true if cluster authentication mode is set to "
            raise invalid_parameter(f"{message}{CONFIG_MAP}")
        if self.clusters.get(request.region, name):
            raise resource_in_use(f"Cluster already exists with name: {name}")
        response = await self.backend.answer(request)
        if response.status != 200:
            return response
        try:
            facts = await self.clusters.create(request.region, name, parameters)
        except BaseException:
            await self.backend.answer(_on(request, "DELETE", name))
            raise
        try:
            await self.parts.write()
        except BaseException:
            await self.clusters.delete(request.region, name)
            raise
        # An account that has a cluster in a region must have enabled that region.
        self.parts.regions.enable(request.account_id, request.region)
        self._admit_creator(facts, parameters, caller)
        return self._filled(request, response)

    def _admit_creator(self, facts: ClusterFacts, parameters: dict[str, Any], creator: Caller) -> None:
        if (parameters.get("accessConfig") or {}).get("bootstrapClusterCreatorAdminPermissions", True):
            arn, identifier = (
                (creator.role_arn, creator.role_id)
                if isinstance(creator, Session)
                else (creator.arn, creator.principal_id)
            )
            facts.access.admit_creator(arn, identifier, self.parts.clock.now())

    def _of_cluster(self, request: AwsRequest, kind: str, name: str) -> Response:
        if not (facts := self.clusters.get(request.region, name)):
            raise resource_not_found(f"No cluster found for name: {name}.")
        now = self.parts.clock.now()
        match kind:
            case "Access" if facts.authentication_mode == CONFIG_MAP:
                message = "The cluster's authentication mode must be set to one of [API, API_AND_CONFIG_MAP] to"
                raise Refusal(400, "InvalidRequestException", f"{message} perform this operation.")
            case "Access":
                return facts.access.answer(request, facts.arn, self._principal_id, now)
            case "IdentityProviderConfig":
                return facts.identity_providers.answer(request, facts.arn, facts.issuer, now)
        new_id = partial(self._association_id, facts.arn)
        return facts.pod_identity.answer(request, facts.arn, new_id, self._require_role, now)

    def _require_role(self, role_arn: str, actions: list[str]) -> None:
        role = self.backend.role(role_arn)
        if role is None:
            raise invalid_parameter("Role provided in the request does not exist.")
        trust = stored_policy(role.assume_role_policy_document, "trust", role.name)
        if not all(names_service(trust, service=SERVICE, action=action) for action in actions):
            raise invalid_parameter("Trust policy of the role provided is invalid.")

    def _association_id(self, cluster_arn: str, namespace: str, service_account: str) -> str:
        name = f"{cluster_arn}/{namespace}/{service_account}"
        serial = self.parts.identifiers.serial("pod-identity-association", name)
        return "a-" + self.parts.identifiers.base32("pod-identity-association", f"{name}#{serial}", 17).lower()

    def _principal_id(self, arn: str) -> str | None:
        if arn == self.parts.administrator.arn:
            return self.parts.administrator.principal_id
        principal = self.backend.principal(arn)
        return principal.id if principal else None

    def _filled(self, request: AwsRequest, response: Response) -> Response:
        content = json.loads(response.body or b"{}")
        if response.status != 200 or not (cluster := content.get("cluster")):
            return response
        if facts := self.clusters.get(request.region, cluster["name"]):
            cluster |= _as_eks(facts)
        else:
            # moto has the cluster already, but with an endpoint and an issuer that it made up.
            for made_up in ("arn", "certificateAuthority", "endpoint", "identity"):
                cluster.pop(made_up, None)
            cluster["status"] = "CREATING"
        response.body = json.dumps(content).encode()
        return response


def _tags(request: AwsRequest, backend: Backend) -> Response:
    """Answer an operation on tags. Run this in moto's thread, because moto keeps some tags.

    https://docs.aws.amazon.com/eks/latest/userguide/eks-using-tags.html
    """
    parsed = request.require_parsed()
    parameters = parsed.parameters
    arn, removed = parameters["resourceArn"], parameters.get("tagKeys")
    if removed == []:
        raise invalid_parameter("tagKeys can't be empty")
    is_here = bool(cluster_of(arn, request.region, request.account_id))
    if not is_here or (tags := tags_of(arn, backend)) is None:
        raise Refusal(404, "NotFoundException", f"Resource not found: {arn}")
    if parsed.operation == "ListTagsForResource":
        return respond({"tags": tags})
    tags |= parameters.get("tags") or {}
    for key in removed or ():
        tags.pop(key, None)
    return respond({})


def _check_emulated(request: AwsRequest) -> None:
    if request.parsed is None:
        raise not_emulated(request, str(request.unread))
    if request.parsed.operation == "UpdateClusterConfig" and "accessConfig" in request.parsed.parameters:
        # moto would answer without doing anything.
        raise not_emulated(request, "The lab can't change a cluster's authentication mode.")


def _cluster(request: AwsRequest) -> str:
    parameters = request.parameters
    if "resourceArn" in parameters:
        return cluster_of(parameters["resourceArn"], request.region, request.account_id)
    return str(parameters.get("clusterName") or parameters.get("name", ""))


def _on(request: AwsRequest, method: str, name: str) -> AwsRequest:
    operation = "DescribeCluster" if method == "GET" else "DeleteCluster"
    return replace(request, operation=operation, call=Call(method, f"/clusters/{name}", "", [], b""))


def _as_eks(facts: ClusterFacts) -> dict[str, Any]:
    return {
        "arn": facts.arn,
        "certificateAuthority": {"data": base64.b64encode(facts.certificate_authority_pem).decode()},
        "createdAt": facts.created_at,
        "accessConfig": {"authenticationMode": facts.authentication_mode},
        "endpoint": facts.endpoint,
        "identity": {"oidc": {"issuer": facts.issuer}},
        "platformVersion": "eks.1",
        "status": "ACTIVE",
        "version": facts.version,
    }
