"""AWS's lists after a killed server: complete, and in their order."""

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from labkit.simulator.folder import Folder
from tests.lifecycle.test_aws_state import ACCOUNT, Aws


@pytest.fixture(scope="module")
def aws(home):
    return Aws(Folder(home))


def test_a_deleted_message_of_a_long_queue_does_not_come_back_after_a_kill(aws):
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="long")["QueueUrl"]
    send(sqs, url, range(100))
    delete(sqs, url, {"0"})
    send(sqs, url, range(100, 120))
    delete(sqs, url, {"50", *(str(number) for number in range(110, 120))})
    aws.kill()
    kept = [message["Body"] for message in received(aws.client("sqs"), url)]
    assert kept == [str(number) for number in range(1, 110) if number != 50]


def send(sqs: Any, url: str, numbers: range) -> None:
    for start in numbers[::10]:
        sent = [{"Id": str(number), "MessageBody": str(number)} for number in range(start, start + 10)]
        sqs.send_message_batch(QueueUrl=url, Entries=sent)


def delete(sqs: Any, url: str, bodies: set[str]) -> None:
    """Delete these messages, and let the queue show the others again."""
    for message in received(sqs, url):
        named = {"QueueUrl": url, "ReceiptHandle": message["ReceiptHandle"]}
        if message["Body"] in bodies:
            sqs.delete_message(**named)
        else:
            sqs.change_message_visibility(**named, VisibilityTimeout=0)


def received(sqs: Any, url: str) -> list[dict[str, Any]]:
    messages = []
    while some := sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=600).get("Messages"):
        messages += some
    return messages


def test_every_list_keeps_its_order_after_four_writers_and_a_kill(aws):
    lists = {
        "resourcegroupstaggingapi": ("get_resources", "ResourceTagMappingList"),
        "s3": ("list_buckets", "Buckets"),
        "iam": ("list_users", "Users"),
        "sns": ("list_topics", "Topics"),
        "sqs": ("list_queues", "QueueUrls"),
        "ssm": ("describe_parameters", "Parameters"),
        "dynamodb": ("list_tables", "TableNames"),
        "secretsmanager": ("list_secrets", "SecretList"),
    }

    def write(writer: int) -> None:
        for number in range(writer, 40, 4):
            name, tags = f"ordered-{number}", [{"Key": "number", "Value": str(number)}]
            aws.client("s3").create_bucket(Bucket=name)
            aws.client("s3").put_bucket_tagging(Bucket=name, Tagging={"TagSet": tags})
            aws.client("iam").create_user(UserName=name, Tags=tags)
            aws.client("sns").create_topic(Name=name, Tags=tags)
            aws.client("sqs").create_queue(QueueName=name, tags={"number": str(number)})
            aws.client("ssm").put_parameter(Name=name, Value=name, Type="String", Tags=tags)
            aws.client("secretsmanager").create_secret(Name=name, SecretString=name, Tags=tags)
            if number % 3 == 0:
                aws.client("sns").delete_topic(TopicArn=f"arn:aws:sns:us-east-1:{ACCOUNT}:{name}")
                aws.client("s3").delete_bucket(Bucket=name)

    def listed() -> dict[str, list[Any]]:
        clients = {service: aws.client(service) for service in lists}
        answers = {
            service: [page[key] for page in clients[service].get_paginator(operation).paginate()]
            if clients[service].can_paginate(operation)
            else getattr(clients[service], operation)()[key]
            for service, (operation, key) in lists.items()
        }
        return json.loads(json.dumps(answers, default=str))

    for service in lists:
        aws.client(service)  # made in one thread
    with ThreadPoolExecutor(4) as writers:
        list(writers.map(write, range(4)))
    before = listed()
    aws.kill()
    assert listed() == before
