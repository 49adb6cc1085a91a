"""EC2. The lab answers the calls about regions and about the nodes of its clusters. moto answers every other call.

What differs from AWS:

- Nodes: only DescribeInstances and ModifyInstanceMetadataOptions know them. A node's hop limit can be changed, and
  takes effect at once. Its other metadata options can't be changed.
- Permissions: only administrators may make the other calls.
- Refusals: their messages have no encoded part.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Welcome.html
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-options.html
"""

import re
from dataclasses import replace
from fnmatch import fnmatchcase

from labkit.policy import resource_tags
from labkit.simulator.aws.answers import Refusal, ec2_answer, not_emulated, xml
from labkit.simulator.aws.call import Api, AwsRequest, CannotDerive, Context, ParsedRequest, Permission, Response
from labkit.simulator.aws.clusters import ClusterFacts, Instance
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller
from labkit.simulator.aws.trail_parameters import TrailParameters
from labkit.simulator.clock import rfc3339

DESCRIBE, MODIFY = "DescribeInstances", "ModifyInstanceMetadataOptions"
INSTANCE_ID = re.compile(r"InstanceId(\.\d+)?")
KNOWN = frozenset({"ec2:instanceid", "ec2:region"})
FARTHEST = 64  # the largest hop limit
# The other options of a node's metadata service, which can't be changed.
FIXED = {
    "HttpTokens": "required",
    "HttpEndpoint": "enabled",
    "HttpProtocolIpv6": "disabled",
    "InstanceMetadataTags": "disabled",
}
RESERVATIONS = re.compile(rb"<reservationSet ?/>|(<reservationSet>)")


class Ec2(Service):
    """EC2."""

    api = Api(
        "ec2",
        version="2016-11-15",
        protocol="ec2",
        denied="UnauthorizedOperation",
        denied_said="You are not authorized to perform this operation. ",
    )
    own_operations = (MODIFY,)

    def read(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Return ``request`` with the fields of its form.

        EC2's model takes as long to load as all other models together.
        """
        form = {name: value for name, value in request.call.form.items() if name not in ("Action", "Version")}
        parsed = ParsedRequest("ec2", request.operation, form, request.region, request.account_id, request.call)
        return replace(request, parsed=parsed)

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permission that a call about nodes needs."""
        action = f"ec2:{request.operation}"
        context: Context = {"ec2:Region": request.region}
        if request.operation == DESCRIBE:
            return [Permission(action, "*", context, KNOWN, shown="")]
        if request.operation != MODIFY:
            raise CannotDerive(action)
        instance_id = request.parameters["InstanceId"]
        arn = f"arn:aws:ec2:{request.region}:{request.account_id}:instance/{instance_id}"
        node = self.parts.clusters.nodes(request.region).get(instance_id)
        context |= {"ec2:InstanceID": instance_id} | (resource_tags(_tags(node)) if node else {})
        return [Permission(action, arn, context, KNOWN)]

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer calls about regions and nodes. moto answers other calls."""
        if request.operation == "DescribeRegions":
            return self.parts.regions.describe(request)
        form, nodes = request.call.form, self.parts.clusters.nodes(request.region)
        named = [value for name, value in form.items() if INSTANCE_ID.fullmatch(name)]
        if request.account_id != self.backend.account_id or (named and not nodes.keys() & named):
            return await self.backend.answer(request)
        if request.operation == MODIFY:
            return _modified(request, nodes[named[0]])
        if request.operation == DESCRIBE and nodes.keys() >= {*named}:
            described = [node for id, node in nodes.items() if not named or id in named]
            body = "".join(_described(node) for node in described if _passes(request, node))
            # moto's part of EC2 takes seconds and 100 MB to load. Until then, it has no instances.
            if named or not self.backend.has_loaded("ec2"):
                return ec2_answer(request, f"<reservationSet>{body}</reservationSet>")
            response = await self.backend.answer(request)
            full = b"<reservationSet>" + body.encode()
            response.body = RESERVATIONS.sub(
                lambda match: full if match[1] else full + b"</reservationSet>", response.body, count=1
            )
            return response
        if named:
            raise not_emulated(request, "the call names a node")
        return await self.backend.answer(request)

    def keep_own(self, request: AwsRequest) -> None:
        """Store the metadata options of the region's nodes."""
        if request.operation == MODIFY:
            for node in self.parts.clusters.nodes(request.region).values():
                node.keep(self.parts.own)
            self.parts.clusters.tell_clients()

    @classmethod
    def trail_parameters(cls, request: AwsRequest) -> TrailParameters:
        """Return the parameters as CloudTrail records them."""
        if request.operation != MODIFY:
            return TrailParameters()
        return TrailParameters({f"{MODIFY}Request": request.parameters})

    @classmethod
    def event_code(cls, request: AwsRequest, code: str) -> str:
        """Return the code with the prefix that CloudTrail shows."""
        return f"Client.{code}"


def _modified(request: AwsRequest, node: ClusterFacts) -> Response:
    """Set the node's hop limit, and return the answer.

    https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_ModifyInstanceMetadataOptions.html
    """
    form = request.call.form
    limit = form.get("HttpPutResponseHopLimit", str(node.metadata.hop_limit))
    if not (limit.isascii() and limit.isdecimal() and len(limit) < 3 and 1 <= int(limit) <= FARTHEST):
        message = f"Value ({limit}) for parameter HttpPutResponseHopLimit is invalid. It must be from 1 to {FARTHEST}."
        raise Refusal(400, "InvalidParameterValue", message)
    if wrong := [name for name, value in FIXED.items() if form.get(name, value) != value]:
        raise not_emulated(request, f"{wrong[0]} of a node can't be changed")
    if form.get("DryRun", "").lower() == "true":
        raise Refusal(412, "DryRunOperation", "Request would have succeeded, but DryRun flag is set.")
    node.metadata.hop_limit = int(limit)
    named = xml({"instanceId": form["InstanceId"]})
    return ec2_answer(request, f"{named}<instanceMetadataOptions>{_options(node, 'pending')}</instanceMetadataOptions>")


def _passes(request: AwsRequest, node: ClusterFacts) -> bool:
    """Whether the node passes all filters of the call."""
    form, instance = request.call.form, _instance(node)
    fields = {"instance-id": instance.id, "instance-state-name": "running", "private-dns-name": instance.name}
    fields |= {f"tag:{key}": value for key, value in _tags(node).items()}
    for name, field in form.items():
        if not (numbered := re.fullmatch(r"Filter\.(\d+)\.Name", name)):
            continue
        if field not in fields and not field.startswith("tag:"):
            raise not_emulated(request, f"the filter {field}")
        wanted = [value for key, value in form.items() if re.fullmatch(rf"Filter\.{numbered[1]}\.Value\.\d+", key)]
        if field not in fields or not any(fnmatchcase(fields[field], pattern) for pattern in wanted):
            return False
    return True


def _described(node: ClusterFacts) -> str:
    """Return the node's reservation, as DescribeInstances shows it."""
    instance = _instance(node)
    account_id = instance.role_arn.split(":")[4]
    tags = "".join(xml({"item": {"key": key, "value": value}}) for key, value in _tags(node).items())
    about = {
        "instanceId": instance.id,
        "imageId": instance.image_id,
        "instanceState": {"code": 16, "name": "running"},
        "privateDnsName": instance.name,
        "instanceType": instance.type,
        "launchTime": rfc3339(node.created_at),
        "placement": {"availabilityZone": instance.zone},
        "iamInstanceProfile": {"arn": instance.profile_arn},
    }
    body = f"{xml(about)}<tagSet>{tags}</tagSet><metadataOptions>{_options(node, 'applied')}</metadataOptions>"
    reservation = xml({"reservationId": f"r-{instance.id.removeprefix('i-')}", "ownerId": account_id})
    return f"<item>{reservation}<instancesSet><item>{body}</item></instancesSet></item>"


def _options(node: ClusterFacts, state: str) -> str:
    fixed = {name[0].lower() + name[1:]: value for name, value in FIXED.items()}
    return xml({"state": state, "httpPutResponseHopLimit": node.metadata.hop_limit, **fixed})


def _tags(node: ClusterFacts) -> dict[str, str]:
    """Return the tags that EKS sets on a node of a managed node group.

    https://docs.aws.amazon.com/eks/latest/userguide/eks-using-tags.html#tag-resources-for-billing
    """
    return {"eks:cluster-name": node.name, f"kubernetes.io/cluster/{node.name}": "owned"}


def _instance(node: ClusterFacts) -> Instance:
    assert node.instance is not None
    return node.instance
