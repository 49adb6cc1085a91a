"""Nothing that moto would send leaves the process: not by HTTP, not to Docker, not by a program."""

import socket

import pytest
from botocore.exceptions import ClientError

from labkit.simulator.aws import moto_guard
from tests.simulator.aws.conftest import ACCOUNT

SENTENCE = "The lab's AWS opens no connections and starts no processes"
# The ways out of the process that moto's modules could take.
WAYS = {
    "a connection": "import socket; socket.create_connection(('127.0.0.1', port), 5)",
    "a datagram": "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', port))",
    "a name": "import socket; socket.getaddrinfo('localhost', port)",
    "Docker": "import socket; socket.socket(socket.AF_UNIX).connect('/var/run/docker.sock')",
    "requests": "import requests; requests.post(f'http://127.0.0.1:{port}/', timeout=5)",
    "an SDK": "import boto3; boto3.client('sqs', region_name='us-east-1', endpoint_url=f'http://127.0.0.1:{port}',"
    " aws_access_key_id='a', aws_secret_access_key='b').list_queues()",
    "a program": "import subprocess; subprocess.run(['true'])",
    "a shell": "import os; os.system('true')",
    "a fork": "import os; os.fork() or os._exit(0)",
}


@pytest.fixture
def outside():
    """A server outside the lab. Afterwards, nobody may have connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        yield server
        with pytest.raises(BlockingIOError):
            server.accept()


def sns(aws, url):
    topic = aws.client("sns").create_topic(Name="orders")["TopicArn"]
    aws.client("sns").subscribe(TopicArn=topic, Protocol="http", Endpoint=url)
    aws.client("sns").publish(TopicArn=topic, Message="hello")


def firehose(aws, url):
    to = {"EndpointConfiguration": {"Url": url}}
    to["S3Configuration"] = {"RoleARN": f"arn:aws:iam::{ACCOUNT}:role/r", "BucketARN": "arn:aws:s3:::bucket"}
    aws.client("firehose").create_delivery_stream(DeliveryStreamName="stream", HttpEndpointDestinationConfiguration=to)
    aws.client("firehose").put_record(DeliveryStreamName="stream", Record={"Data": b"hello"})


@pytest.mark.parametrize("send", [sns, firehose])
def test_sns_and_firehose_post_to_no_url_and_say_so(aws, outside, send):
    with pytest.raises(ClientError) as caught:
        send(aws, f"http://127.0.0.1:{outside.getsockname()[1]}/hook")
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 501
    assert SENTENCE in answer["Error"]["Message"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("threaded", [False, True], ids=["its thread", "a thread of its own"])
def test_every_way_out_is_closed_for_moto(aws, outside, way, threaded):
    errors = []
    code = f"def leave(port):\n {WAYS[way]}\ndef try_to(port):\n"
    code += " try: leave(port)\n except Exception as error: errors.append(error)\n else: errors.append(None)\n"
    code += "def in_a_thread(port):\n import threading\n one = threading.Thread(target=try_to, args=(port,))\n"
    code += " one.start(); one.join()\n"
    module = {"__name__": "moto.some.models", "errors": errors}
    exec(code, module)
    module["in_a_thread" if threaded else "try_to"](outside.getsockname()[1])
    assert moto_guard.closed(errors[0]).strerror.startswith(SENTENCE)


def test_the_lab_itself_may_open_connections():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 5).close()
