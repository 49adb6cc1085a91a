"""SNS. moto answers the calls.

What differs from AWS:

- Topics of another account: refused. Topic policies only count for callers in the topic's own account.
- Delivery: a message reaches queues of the lab, but no address outside the lab.
- Encryption: its settings are kept, but nothing is encrypted.

https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonsns.html
https://docs.aws.amazon.com/sns/latest/dg/sns-using-identity-based-policies.html
"""

import re

from labkit.policy import resource_tags
from labkit.policy.reference import actions_on
from labkit.simulator.aws.call import Api, CannotDerive, Context, ParsedRequest, Permission, as_dict, tag_keys
from labkit.simulator.aws.service import Service

# A topic, or a subscription to it, in an ARN without its beginning.
NAMED = re.compile(r"([A-Za-z0-9_-]{1,256}(?:\.fifo)?)(:[0-9a-f-]{36})?")


class Sns(Service):
    """SNS."""

    api = Api(
        "sns",
        version="2010-03-31",
        namespace="http://sns.amazonaws.com/doc/2010-03-31/",
        is_checked=True,
        invalid="ValidationError",
        reserved_tag="InvalidParameter",
        denied="AuthorizationError",
    )
    stores = ("sns",)
    resource_types = {"topicArn": "AWS::SNS::Topic"}
    data_events = re.compile("Publish")

    def permissions(self, request: ParsedRequest) -> list[Permission]:
        """Return the permissions that an operation of SNS needs, on a topic or on nothing."""
        # A batch needs the permission of the single operation.
        action, given = request.operation.removesuffix("Batch"), request.parameters
        account = f"arn:aws:sns:{request.region}:{request.account_id}:"
        if action in actions_on("sns", ""):
            return [_permission(action, f"{account}*")]
        if "PhoneNumber" in given:
            return [_permission(action, given["PhoneNumber"])]
        arn = account + given["Name"] if action == "CreateTopic" else given[_named_by(given)]
        if not arn.startswith(account) or not (named := NAMED.fullmatch(arn.removeprefix(account))):
            raise CannotDerive(f"sns:{action} on something that is not a topic of this account and region")
        arn, store = account + named[1], self.backend.store("sns", request.region, request.account_id)
        topic = store.topics.get(arn)
        context = tag_keys(as_dict(given.get("Tags")), given.get("TagKeys"))
        context |= {f"sns:{name}": given[name] for name in ("Endpoint", "Protocol") if name in given}
        if topic:
            context |= resource_tags(dict(store.list_tags_for_resource(arn)))
        policy = topic.policy if topic else ""
        actions = [action, "TagResource"] if action == "CreateTopic" and given.get("Tags") else [action]
        return [_permission(each, arn, context, policy) for each in actions]


def _named_by(given: dict[str, object]) -> str:
    names = ("TopicArn", "TargetArn", "ResourceArn", "SubscriptionArn")
    return next((name for name in names if name in given), "TopicArn")


def _permission(action: str, resource: str, context: Context | None = None, policy: str = "") -> Permission:
    # SNS names itself in upper case when it refuses an action.
    known = frozenset({"sns:endpoint", "sns:protocol"})
    return Permission(f"SNS:{action}", resource, context or {}, known, resource_policy=policy)
