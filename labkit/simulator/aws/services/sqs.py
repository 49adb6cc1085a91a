"""SQS. moto answers the calls. For long polls, the lab itself waits, so that other calls aren't blocked.

What differs from AWS:

- Queues of another account: refused. Queue policies only count for callers in the queue's own account.
- Encryption: its settings are kept, but nothing is encrypted.
- Message move tasks: moto doesn't have them.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-short-and-long-polling.html
"""

import asyncio
import json
import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, urlencode

from labkit.policy import resource_tags
from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.call import (
    Api,
    AwsRequest,
    CannotDerive,
    Context,
    ParsedRequest,
    Permission,
    Response,
    tag_keys,
)
from labkit.simulator.aws.service import Service
from labkit.simulator.aws.sessions import Caller

LONGEST_WAIT = 20
BETWEEN_LOOKS = 0.1
BY_NAME = {"CreateQueue", "GetQueueUrl"}
BY_SOURCE = {"ListMessageMoveTasks", "StartMessageMoveTask"}
QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?")
MISSING = re.compile(r"Value null at '(\w+)' .*", re.DOTALL)


def _missing(fault: str) -> tuple[str, str] | None:
    if not (name := MISSING.match(fault)):
        return None
    return "MissingParameter", f"The request must contain the parameter {name[1][0].upper()}{name[1][1:]}."


class Sqs(Service):
    """SQS."""

    api = Api(
        "sqs",
        version="2012-11-05",
        target="AmazonSQS",
        namespace="http://queue.amazonaws.com/doc/2012-11-05/",
        is_query_compatible=True,
        takes_queue_paths=True,
        is_checked=True,
        invalid="InvalidParameterValue",
        reserved_tag="InvalidParameterValue",
        reworded=_missing,
    )
    stores = ("sqs",)
    resource_types = {"queueName": "AWS::SQS::Queue", "queueUrl": "AWS::SQS::Queue"}
    data_events = re.compile("ChangeMessageVisibility|DeleteMessage|ReceiveMessage|SendMessage")

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permissions that an operation of SQS needs."""
        # A batch needs the permission of the single operation.
        action, parameters = request.operation.removesuffix("Batch"), request.parameters
        arn = f"arn:aws:sqs:{request.region}:{request.account_id}:"
        if action == "ListQueues":
            return [_permission(action, arn)]
        if action == "CancelMessageMoveTask":
            raise CannotDerive("sqs:CancelMessageMoveTask")
        if action in BY_NAME:
            name = parameters["QueueName"]
            if parameters.get("QueueOwnerAWSAccountId", request.account_id) != request.account_id:
                raise CannotDerive("sqs:GetQueueUrl in another account")
        elif action in BY_SOURCE:
            name = parameters["SourceArn"].removeprefix(arn)
        else:
            name = _queue_name(parameters["QueueUrl"], request.account_id)
        if not QUEUE_NAME.fullmatch(name):
            raise CannotDerive(f"sqs:{action} on something that is not a queue of this account and region")
        queue = self.backend.store("sqs", request.region, request.account_id).queues.get(name)
        context = resource_tags(dict(queue.tags)) if queue else {}
        given = parameters.get("tags", parameters.get("Tags"))
        context |= tag_keys(given, parameters.get("TagKeys"))
        policy = queue.policy if queue else ""
        needed = [_permission(action, arn + name, context, policy or "")]
        if action == "CreateQueue" and given:
            needed.append(_permission("TagQueue", arn + name, context))
        return needed

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
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
        name = _queue_name(request.parameters["QueueUrl"], request.account_id)
        queue = self.backend.store("sqs", request.region, request.account_id).queues[name]
        return int(queue.receive_message_wait_time_seconds or 0)


def _with(request: AwsRequest, **changes: Any) -> AwsRequest:
    body = request.call.body
    if request.family == "json":
        body = requests.json_text(json.loads(body) | changes)
    else:
        body = urlencode(dict(parse_qsl(body.decode(), keep_blank_values=True)) | changes).encode()
    return replace(request, call=replace(request.call, body=body))


def _permission(action: str, resource: str, context: Context | None = None, policy: str = "") -> Permission:
    # SQS names its actions in lower case when it refuses one.
    return Permission(f"sqs:{action.lower()}", resource, context or {}, frozenset(), resource_policy=policy)


def _queue_name(url: str, account_id: str) -> str:
    """Return the queue's name in ``url``; ``url`` itself if it isn't a queue's URL.

    Raises `CannotDerive` for a queue of another account.
    """
    match = re.fullmatch(r"https?://[^/?#]+/(\d{12})/([^/?#]+)", url)
    if not match:
        return url
    if match[1] != account_id:
        raise CannotDerive("SQS calls on a queue of another account")
    return match[2]
