"""Organizations. The lab's one organization, in aws/organizations.py, answers the calls.

https://docs.aws.amazon.com/organizations/latest/APIReference/Welcome.html
"""

import re

from labkit.simulator.aws.call import Api, AwsRequest, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller

MISFIT = re.compile(r"Value '.*' at '\w+' failed to .* pattern: .*", re.DOTALL)


def _reworded(fault: str) -> tuple[str, str] | None:
    message = "You provided a value that does not match the required pattern."
    return ("InvalidInputException", message) if MISFIT.fullmatch(fault) else None


class Organizations(Service):
    """Organizations. Only administrators may make calls."""

    api = Api("organizations", is_checked=True, invalid="InvalidInputException", reworded=_reworded)
    stores = ("organizations",)

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Return the organization's answer."""
        return await self.parts.organization.answer(request, caller)
