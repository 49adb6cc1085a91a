"""EKS: moto keeps the clusters' settings and refuses what EKS refuses; what runs is the lab's own, and true.

https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
"""

import base64
import json
import re
from typing import Any

from labkit.emulator.aws.backend import Backend
from labkit.emulator.aws.call import Call, Response
from labkit.emulator.aws.clusters import ClusterFacts, Clusters
from labkit.emulator.aws.errors import Refusal

NAME = re.compile(r"[0-9A-Za-z][A-Za-z0-9_-]{0,99}")


class Eks:
    """EKS's cluster operations."""

    def __init__(self, backend: Backend, clusters: Clusters):
        self._backend = backend
        self._clusters = clusters

    async def answer(self, call: Call) -> Response:
        """moto's answer, with the cluster's endpoint, CA, issuer and version as they are."""
        match call.operation:
            case "CreateCluster":
                return await self._create(call)
            case "DeleteCluster":
                if not self._clusters.get(call.region, name := _name(call)) and await self._is_known(call, name):
                    raise Refusal(409, "ResourceInUseException", f"Cluster has CREATING operation in progress: {name}")
                response = await self._backend.answer(call)
                if response.status == 200:
                    response = self._filled(call, response)
                    await self._clusters.delete(call.region, name)
                return response
            case "DescribeCluster":
                return self._filled(call, await self._backend.answer(call))
        return await self._backend.answer(call)

    async def _is_known(self, call: Call, name: str) -> bool:
        describe = Call("GET", f"/clusters/{name}", "", [], b"", service="eks", region=call.region)
        return (await self._backend.answer(describe)).status == 200

    async def _create(self, call: Call) -> Response:
        request = call.json()
        name = request.get("name")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise Refusal(
                400,
                "InvalidParameterException",
                "The cluster name can contain only alphanumeric characters (case-sensitive), hyphens, and underscores. "
                "It must start with an alphanumeric character and can't be longer than 100 characters.",
            )
        if self._clusters.get(call.region, name):
            raise Refusal(409, "ResourceInUseException", f"Cluster already exists with name: {name}")
        response = await self._backend.answer(call)
        if response.status != 200:
            return response
        try:
            await self._clusters.create(call.region, name, request)
        except BaseException:
            await self._backend.answer(
                Call("DELETE", f"/clusters/{name}", "", [], b"", service="eks", region=call.region)
            )
            raise
        return self._filled(call, response)

    def _filled(self, call: Call, response: Response) -> Response:
        content = json.loads(response.body or b"{}")
        if response.status != 200 or not (cluster := content.get("cluster")):
            return response
        if facts := self._clusters.get(call.region, cluster["name"]):
            cluster |= _as_eks(facts)
        else:
            # moto has it already; what it makes up of an endpoint and an issuer is not what will be.
            for made_up in ("arn", "certificateAuthority", "endpoint", "identity"):
                cluster.pop(made_up, None)
            cluster["status"] = "CREATING"
        response.body = json.dumps(content).encode()
        return response


def _name(call: Call) -> str:
    return call.path.removeprefix("/clusters/")


def _as_eks(facts: ClusterFacts) -> dict[str, Any]:
    return {
        "arn": facts.arn,
        "certificateAuthority": {"data": base64.b64encode(facts.certificate_authority_pem).decode()},
        "createdAt": facts.created_at,
        "endpoint": facts.endpoint,
        "identity": {"oidc": {"issuer": facts.issuer}},
        "platformVersion": "eks.1",
        "status": "ACTIVE",
        "version": facts.version,
    }
