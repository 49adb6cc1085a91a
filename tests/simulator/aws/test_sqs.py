"""SQS's long polls and prefixes of queue names, which the lab doesn't leave to moto alone."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.simulator.aws.conftest import ADMINISTRATOR


@pytest.fixture(params=["session", "administrator"])
def sqs(request, aws, irsa):
    if request.param == "administrator":
        return aws.client("sqs")
    irsa.permit({"Effect": "Allow", "Action": "sqs:*", "Resource": "*"})
    return aws.client("sqs", irsa.assume()["Credentials"])


@pytest.mark.parametrize("attributes", [{}, {"ReceiveMessageWaitTimeSeconds": "20"}])
def test_a_long_poll_ends_when_a_message_arrives_and_blocks_no_other_caller(aws, irsa, sqs, attributes):
    url = sqs.create_queue(QueueName="queue", Attributes=attributes)["QueueUrl"]
    given = {} if attributes else {"WaitTimeSeconds": 20}
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(sqs.receive_message, QueueUrl=url, **given)
        sender = aws.new_client("sqs", ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
        sender.send_message(QueueUrl=url, MessageBody=json.dumps({"a": "b&c=d"}))
        assert poll.result(15)["Messages"][0]["Body"] == '{"a": "b&c=d"}'


def test_a_poll_without_a_message_ends_empty(sqs):
    url = sqs.create_queue(QueueName="queue")["QueueUrl"]
    assert not sqs.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages")
    assert not sqs.receive_message(QueueUrl=url).get("Messages")


@pytest.mark.parametrize("prefix", ["a.", "a+", "(a+)+$", "[", "a|.*", "a\\"])
def test_a_prefix_of_queue_names_is_not_a_regular_expression(sqs, prefix):
    sqs.create_queue(QueueName="aa-queue")
    assert "QueueUrls" not in sqs.list_queues(QueueNamePrefix=prefix)
    assert len(sqs.list_queues(QueueNamePrefix="aa-")["QueueUrls"]) == 1
