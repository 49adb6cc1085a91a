"""The permissions that SQS's operations need.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsqs.html
https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-api-permissions-reference.html
"""

import re

from labkit.policy import resource_tags
from labkit.simulator.aws.backend import Backend
from labkit.simulator.aws.call import CannotDerive, Context, ParsedRequest, Permission, tag_keys

BY_NAME = {"CreateQueue", "GetQueueUrl"}
BY_SOURCE = {"ListMessageMoveTasks", "StartMessageMoveTask"}
QUEUE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}(\.fifo)?")


def permissions(request: ParsedRequest, backend: Backend) -> list[Permission]:
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
        name = queue_name(parameters["QueueUrl"], request.account_id)
    if not QUEUE_NAME.fullmatch(name):
        raise CannotDerive(f"sqs:{action} on something that is not a queue of this account and region")
    queue = backend.store("sqs", request.region, request.account_id).queues.get(name)
    context = resource_tags(dict(queue.tags)) if queue else {}
    given = parameters.get("tags", parameters.get("Tags"))
    context |= tag_keys(given, parameters.get("TagKeys"))
    policy = queue.policy if queue else ""
    needed = [_permission(action, arn + name, context, policy or "")]
    if action == "CreateQueue" and given:
        needed.append(_permission("TagQueue", arn + name, context))
    return needed


def _permission(action: str, resource: str, context: Context | None = None, policy: str = "") -> Permission:
    # SQS names its actions in lower case when it refuses one.
    return Permission(f"sqs:{action.lower()}", resource, context or {}, frozenset(), resource_policy=policy)


def queue_name(url: str, account_id: str) -> str:
    """Return the queue's name in ``url``; ``url`` itself if it isn't a queue's URL.

    Raises `CannotDerive` for a queue of another account.
    """
    match = re.fullmatch(r"https?://[^/?#]+/(\d{12})/([^/?#]+)", url)
    if not match:
        return url
    if match[1] != account_id:
        raise CannotDerive("SQS calls on a queue of another account")
    return match[2]
