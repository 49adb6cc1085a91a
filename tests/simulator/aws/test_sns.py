"""Who may call SNS: identity-based policies and topic policies, on topics and on nothing."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, REGION, refused

SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
ACCOUNT_ARN = f"arn:aws:sns:{REGION}:{ACCOUNT}:"
TOPIC = f"{ACCOUNT_ARN}orders"
QUEUE = f"arn:aws:sqs:{REGION}:{ACCOUNT}:queue"
BLUE = [{"Key": "team", "Value": "blue"}]
ENTRIES = [{"Id": "1", "Message": "hello"}]
# A call, the actions that it needs (a denial names the last) and their resource.
CALLS = [
    ("list_topics", {}, ["SNS:ListTopics"], f"{ACCOUNT_ARN}*"),
    ("list_subscriptions", {}, ["SNS:ListSubscriptions"], f"{ACCOUNT_ARN}*"),
    ("create_topic", {"Name": "new"}, ["SNS:CreateTopic"], f"{ACCOUNT_ARN}new"),
    ("create_topic", {"Name": "new", "Tags": BLUE}, ["SNS:CreateTopic", "SNS:TagResource"], f"{ACCOUNT_ARN}new"),
    ("publish", {"TopicArn": TOPIC, "Message": "hello"}, ["SNS:Publish"], TOPIC),
    ("publish", {"TargetArn": TOPIC, "Message": "hello"}, ["SNS:Publish"], TOPIC),
    ("publish", {"PhoneNumber": "+15005550006", "Message": "hello"}, ["SNS:Publish"], "+15005550006"),
    ("publish_batch", {"TopicArn": TOPIC, "PublishBatchRequestEntries": ENTRIES}, ["SNS:Publish"], TOPIC),
    ("subscribe", {"TopicArn": TOPIC, "Protocol": "sqs", "Endpoint": QUEUE}, ["SNS:Subscribe"], TOPIC),
    ("list_subscriptions_by_topic", {"TopicArn": TOPIC}, ["SNS:ListSubscriptionsByTopic"], TOPIC),
    ("get_subscription_attributes", {"SubscriptionArn": "SUBSCRIPTION"}, ["SNS:GetSubscriptionAttributes"], TOPIC),
    ("unsubscribe", {"SubscriptionArn": "SUBSCRIPTION"}, ["SNS:Unsubscribe"], TOPIC),
    ("tag_resource", {"ResourceArn": TOPIC, "Tags": BLUE}, ["SNS:TagResource"], TOPIC),
    ("list_tags_for_resource", {"ResourceArn": TOPIC}, ["SNS:ListTagsForResource"], TOPIC),
    ("delete_topic", {"TopicArn": TOPIC}, ["SNS:DeleteTopic"], TOPIC),
]


@pytest.fixture
def orders(aws, irsa):
    """A topic with a tag, and a queue's subscription to it; return the subscription's ARN."""
    sns = aws.client("sns")
    aws.client("sqs").create_queue(QueueName="queue")
    sns.create_topic(Name="orders", Tags=BLUE)
    return sns.subscribe(TopicArn=TOPIC, Protocol="sqs", Endpoint=QUEUE)["SubscriptionArn"]


def allow(action, resource="*", **more):
    return {"Effect": "Allow", "Action": action, "Resource": resource, **more}


@pytest.mark.parametrize(("method", "parameters", "actions", "resource"), CALLS)
def test_each_call_needs_exactly_the_listed_permissions(aws, irsa, orders, method, parameters, actions, resource):
    given = {name: orders if value == "SUBSCRIPTION" else value for name, value in parameters.items()}
    call = getattr(aws.client("sns", irsa.assume()["Credentials"]), method)
    # Only `*` covers a phone number, which isn't an ARN.
    named = resource if resource.startswith("arn:") else "*"
    irsa.permit(*(allow(action, named) for action in actions[:-1]), allow(actions[-1], f"{ACCOUNT_ARN}another"))
    message = f"User: {SESSION} is not authorized to perform: {actions[-1]} on resource: {resource} "
    message += f"because no identity-based policy allows the {actions[-1]} action"
    refused(lambda: call(**given), 403, "AuthorizationError", message)
    irsa.permit(*(allow(action, named) for action in actions))
    assert call(**given)["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert aws.last()["lab"]["decision"] == "allowed"


@pytest.mark.parametrize(("condition", "method", "parameters", "allowed"), [
    ({"StringEquals": {"sns:Protocol": "sqs"}}, "subscribe", {"Protocol": "sqs", "Endpoint": QUEUE}, True),
    ({"StringEquals": {"sns:Protocol": "https"}}, "subscribe", {"Protocol": "sqs", "Endpoint": QUEUE}, False),
    ({"StringLike": {"sns:Endpoint": "*:queue"}}, "subscribe", {"Protocol": "sqs", "Endpoint": QUEUE}, True),
    ({"StringLike": {"sns:Endpoint": "*:other"}}, "subscribe", {"Protocol": "sqs", "Endpoint": QUEUE}, False),
    # AWS's reference lists the key only for Subscribe.
    ({"StringEquals": {"sns:Protocol": "sqs"}}, "get_topic_attributes", {}, False),
    ({"Null": {"sns:Protocol": "true"}}, "get_topic_attributes", {}, True),
    ({"StringEquals": {"aws:ResourceTag/team": "blue"}}, "publish", {"Message": "hello"}, True),
    ({"StringEquals": {"aws:ResourceTag/team": "red"}}, "publish", {"Message": "hello"}, False),
])  # fmt: skip
def test_a_policy_s_condition_decides(aws, irsa, orders, condition, method, parameters, allowed):
    irsa.permit(allow("sns:*", Condition=condition))
    call = getattr(aws.client("sns", irsa.assume()["Credentials"]), method)
    if allowed:
        call(TopicArn=TOPIC, **parameters)
    else:
        with pytest.raises(ClientError, match="is not authorized to perform"):
            call(TopicArn=TOPIC, **parameters)


@pytest.mark.parametrize(("effect", "permitted", "allowed"), [("Allow", [], True), ("Deny", [allow("sns:*")], False)])
def test_a_topic_s_policy_counts(aws, irsa, orders, effect, permitted, allowed):
    role = {"AWS": irsa.role_arn}
    statement = {"Effect": effect, "Principal": role, "Action": "sns:Publish", "Resource": TOPIC}
    policy = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    aws.client("sns").set_topic_attributes(TopicArn=TOPIC, AttributeName="Policy", AttributeValue=policy)
    irsa.permit(*permitted or [allow("s3:*")])
    sns = aws.client("sns", irsa.assume()["Credentials"])
    if allowed:
        sns.publish(TopicArn=TOPIC, Message="hello")
        return
    with pytest.raises(ClientError, match="with an explicit deny in a resource-based policy"):
        sns.publish(TopicArn=TOPIC, Message="hello")


def test_a_topic_of_another_account_is_out_of_reach(aws, irsa, orders):
    irsa.permit(allow("*"))
    arn = TOPIC.replace(ACCOUNT, "222222222222")
    with pytest.raises(ClientError, match="the lab cannot yet authorize sns:Publish on something that is not a topic"):
        aws.client("sns", irsa.assume()["Credentials"]).publish(TopicArn=arn, Message="hello")
