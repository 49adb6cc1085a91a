"""Tags whose keys begin with `aws:`. Only AWS may set them.

https://docs.aws.amazon.com/tag-editor/latest/userguide/tagging.html
"""

import pytest

from tests.simulator.aws.conftest import ACCOUNT, REGION, refused

KEY = "AWS:cloudformation:stack-name"
TAGS = [{"Key": "team", "Value": "blue"}, {"Key": KEY, "Value": "x"}]
MAP = {"team": "blue", KEY: "x"}
TOPIC = f"arn:aws:sns:{REGION}:{ACCOUNT}:news"
TABLE = {
    "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
    "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
    "BillingMode": "PAY_PER_REQUEST",
}
SAID = "aws: prefixed tag key names are not allowed for external use."
SECRET_SAID = f"You can't modify system tags. Tag key: '{KEY}'."
ON_PARAMETER = {"ResourceType": "Parameter", "ResourceId": "/colour"}


@pytest.mark.parametrize(("service", "operation", "parameters", "code", "message"), [
    ("sqs", "create_queue", {"QueueName": "new", "tags": MAP}, "InvalidParameterValue", SAID),
    ("sqs", "tag_queue", {"QueueUrl": f"https://sqs/{ACCOUNT}/orders", "Tags": MAP}, "InvalidParameterValue", SAID),
    ("ssm", "put_parameter", {"Name": "/new", "Value": "1", "Type": "String", "Tags": TAGS},
     "ValidationException", SAID),
    ("ssm", "add_tags_to_resource", {**ON_PARAMETER, "Tags": TAGS}, "ValidationException", SAID),
    ("secretsmanager", "create_secret", {"Name": "new", "Tags": TAGS}, "InvalidParameterException", SECRET_SAID),
    ("secretsmanager", "tag_resource", {"SecretId": "till", "Tags": TAGS}, "InvalidParameterException", SECRET_SAID),
    ("sns", "create_topic", {"Name": "new", "Tags": TAGS}, "InvalidParameter", SAID),
    ("sns", "tag_resource", {"ResourceArn": TOPIC, "Tags": TAGS}, "InvalidParameter", SAID),
    ("dynamodb", "create_table", {"TableName": "new", **TABLE, "Tags": TAGS}, "ValidationException", SAID),
    ("kms", "create_key", {"Tags": [{"TagKey": KEY, "TagValue": "x"}]}, "TagException", SAID),
])  # fmt: skip
def test_a_tag_that_only_aws_may_set_is_refused(aws, service, operation, parameters, code, message):
    aws.client("sqs").create_queue(QueueName="orders")
    aws.client("ssm").put_parameter(Name="/colour", Value="blue", Type="String")
    aws.client("secretsmanager").create_secret(Name="till", SecretString="not-secret")
    aws.client("sns").create_topic(Name="news")
    refused(lambda: getattr(aws.client(service), operation)(**parameters), 400, code, message)
    assert aws.client("ssm").list_tags_for_resource(**ON_PARAMETER)["TagList"] == []
    assert len(aws.client("sqs").list_queues()["QueueUrls"]) == len(aws.client("sns").list_topics()["Topics"]) == 1
    assert not aws.client("secretsmanager").describe_secret(SecretId="till").get("Tags")
