"""EC2. moto answers every call but DescribeRegions.

https://docs.aws.amazon.com/AWSEC2/latest/APIReference/Welcome.html
"""

from labkit.simulator.aws.call import Api, AwsRequest, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller


class Ec2(Service):
    """EC2. Only administrators may make calls."""

    api = Api("ec2", version="2016-11-15", protocol="ec2")

    def read(self, request: AwsRequest, caller: Caller) -> AwsRequest:
        """Return ``request`` unread: EC2's model takes as long to load as all other models together."""
        return request

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer DescribeRegions with the account's regions. moto answers other calls."""
        if request.operation == "DescribeRegions":
            return self.parts.regions.describe(request)
        return await self.backend.answer(request)

    @classmethod
    def event_code(cls, request: AwsRequest, code: str) -> str:
        """Return the code with the prefix that CloudTrail shows."""
        return "Client.UnauthorizedOperation" if code == "AccessDenied" else f"Client.{code}"
