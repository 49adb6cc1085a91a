"""SSM. moto answers the calls.

https://docs.aws.amazon.com/systems-manager/latest/APIReference/Welcome.html
"""

import json
from operator import itemgetter

from labkit.simulator.aws.call import Api, AwsRequest, Response
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller


class Ssm(Service):
    """Systems Manager. Only administrators may make calls."""

    api = Api("ssm", target="AmazonSSM", is_checked=True, reserved_tag="ValidationException")
    stores = ("ssm",)

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Return moto's answer, with parameters in the order of their names."""
        return await self.backend.run(self._answer, request)

    def _answer(self, request: AwsRequest) -> Response:
        try:
            response = self.backend.answer_in_thread(request)
        finally:
            # If a call names a missing parameter, moto stores an empty one. With it, DescribeParameters would fail.
            self.backend.forget_empty_parameters(request.region, request.account_id)
        if request.operation == "GetParameters" and response.status == 200:
            answer = json.loads(response.body)
            # moto's order differs after each start.
            answer["Parameters"].sort(key=itemgetter("Name"))
            response.body = json.dumps(answer).encode()
        return response
