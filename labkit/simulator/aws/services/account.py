"""The Account Management API. aws/regions.py has the regions that an account may use.

https://docs.aws.amazon.com/accounts/latest/reference/API_Operations.html
"""

from labkit.simulator.aws.call import Api, AwsRequest, Call, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller


def _operation_at(call: Call) -> str:
    # The paths are the operations' names: /listRegions.
    return call.path[1:2].upper() + call.path[2:] if call.method == "POST" else ""


class AccountManagement(Service):
    """Account Management. Only administrators may make calls."""

    api = Api("account", operation_at=_operation_at)
    stores = ("account",)

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Answer the calls about regions. moto answers the others."""
        return await self.parts.regions.answer(request)

    def keep_own(self, request: AwsRequest) -> None:
        """Store the enabled regions."""
        self.parts.regions.keep(self.parts.own)
