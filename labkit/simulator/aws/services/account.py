"""The Account Management API. aws/regions.py has the regions that an account may use.

https://docs.aws.amazon.com/accounts/latest/reference/API_Operations.html
"""

from labkit.simulator.aws.call import Api, AwsRequest, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller


class AccountManagement(Service):
    """Account Management. Only administrators may make calls."""

    api = Api("account", is_rest=True)
    stores = ("account",)

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer the calls about regions. moto answers the others."""
        return await self.parts.regions.answer(request)

    def keep_own(self, request: AwsRequest) -> None:
        """Store the enabled regions."""
        self.parts.regions.keep(self.parts.own)
