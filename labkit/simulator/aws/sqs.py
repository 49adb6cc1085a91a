"""SQS. moto answers the calls. For long polls, the lab itself waits, so that other calls aren't blocked.

What differs from AWS:

- Queues of another account: refused. Queue policies only count for callers in the queue's own account.
- Encryption: its settings are kept, but nothing is encrypted.
- Message move tasks: moto doesn't have them.

https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html
"""

import asyncio
import json
import re
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.actions.sqs import queue_name
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import AwsRequest, CannotDerive, ParsedRequest, Response

LONGEST_WAIT = 20
BETWEEN_LOOKS = 0.1


@dataclass(frozen=True)
class Sqs:
    """SQS's operations."""

    backend: Backend

    async def answer(self, request: AwsRequest) -> Response:
        """Return moto's answer. For ReceiveMessage, first wait for a message or for the end of the waiting time."""
        if request.operation == "ListQueues" and request.parsed and "QueueNamePrefix" in request.parsed.parameters:
            # moto would use it as a regular expression, and matching could take years.
            prefix = re.escape(request.parsed.parameters["QueueNamePrefix"])
            request = replace(request, call=request.parsed.moto_call)
            return await self.backend.answer(_with(request, QueueNamePrefix=prefix))
        if request.operation != "ReceiveMessage":
            return await self.backend.answer(request)
        try:
            parsed = request.require_parsed()
            wait = self._wait(parsed)
        except (CannotDerive, KeyError):
            return await self.backend.answer(request)
        for_moto = replace(request, call=parsed.moto_call)
        if not 0 < wait <= LONGEST_WAIT:
            return await self.backend.answer(for_moto)
        # moto would wait in its only thread, so nobody could send a message meanwhile.
        look, end = _with(for_moto, WaitTimeSeconds=0), asyncio.get_running_loop().time() + wait
        while True:
            response = await self.backend.answer(look)
            if response.status != 200 or b"ReceiptHandle" in response.body or asyncio.get_running_loop().time() >= end:
                return response
            await asyncio.sleep(BETWEEN_LOOKS)

    def _wait(self, request: ParsedRequest) -> int:
        if "WaitTimeSeconds" in request.parameters:
            return int(request.parameters["WaitTimeSeconds"])
        name = queue_name(request.parameters["QueueUrl"], request.account_id)
        queue = self.backend.store("sqs", request.region, request.account_id).queues[name]
        return int(queue.receive_message_wait_time_seconds or 0)


def _with(request: AwsRequest, **changes: Any) -> AwsRequest:
    body = request.call.body
    if request.family == "json":
        body = requests.json_text(json.loads(body) | changes)
    else:
        body = urlencode(dict(parse_qsl(body.decode(), keep_blank_values=True)) | changes).encode()
    return replace(request, call=replace(request.call, body=body))
