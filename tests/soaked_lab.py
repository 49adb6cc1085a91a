"""The lab under `make soak`: its calls while the server is killed, and what its processes take."""

import contextlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import psutil
from botocore.config import Config
from botocore.exceptions import ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed
from urllib3.exceptions import HTTPError
from websocket import WebSocketException

from labkit import simulator
from labkit.simulator import Folder, State

AUDIENCE, BUCKET = "sts.amazonaws.com", "soak"
# A call fails like this if the server is killed meanwhile. boto3 takes half an answer for an empty one.
NO_ANSWER = (NoConnection, HTTPClientError, ResponseParserError, HTTPError, ConnectionError, WebSocketException)


# The lists of the kept services, which have to be complete and in their order after a kill.
LISTS = {
    "resourcegroupstaggingapi": ("get_resources", "ResourceTagMappingList"), "s3": ("list_buckets", "Buckets"),
    "iam": ("list_users", "Users"), "sns": ("list_topics", "Topics"), "sqs": ("list_queues", "QueueUrls"),
    "ssm": ("describe_parameters", "Parameters"), "dynamodb": ("list_tables", "TableNames"),
    "secretsmanager": ("list_secrets", "SecretList"), "kms": ("list_aliases", "Aliases"),
    "cloudtrail": ("list_trails", "Trails"), "organizations": ("list_accounts", "Accounts"),
    "s3control": ("list_access_points", "AccessPointList"),
    "eks": ("list_pod_identity_associations", "associations"),
}  # fmt: skip
EXISTS = ("Exists", "InUse")


@dataclass(frozen=True)
class Measure:
    """The resources that the server uses. `pods` counts the pods' folders."""

    processes: int
    descriptors: int
    memory: int
    pods: int

    @classmethod
    def of(cls, folder: Folder) -> "Measure":
        server, *children = processes(folder)
        return cls(
            processes=len(children),
            descriptors=server.num_fds(),
            memory=server.memory_info().rss >> 20,
            pods=len([*folder.pods.glob("*/pods/*")]),
        )

    def __str__(self) -> str:
        return f"{self.processes} processes, {self.descriptors} descriptors, {self.memory} MiB"


def processes(folder: Folder) -> list[psutil.Process]:
    """The server and every process that it started; an empty list if it has just been killed."""
    with contextlib.suppress(psutil.NoSuchProcess):
        if (state := State.read(folder)) and folder.is_running():
            server = psutil.Process(state.pid)
            return [server, *server.children(recursive=True)]
    return []


class TheLab:
    """Shared by the learners: the lab's AWS, its clock, and turns for changes that affect everybody."""

    def __init__(self, folder: Folder, kill: bool) -> None:
        self.folder = folder
        self.kill = kill
        self.state = simulator.start(folder)
        self.session = simulator.session(self.state, "us-east-1")
        self.account = self.state.account_id
        self.issuer = self.state.clusters["blue"]["issuer"]
        # One attempt, because a retry would hide an error.
        self.config = Config(retries={"total_max_attempts": 1}, max_pool_connections=64, read_timeout=120)
        self.iam, self.s3, self.sts = (self.session.client(name, config=self.config) for name in ("iam", "s3", "sts"))
        self.provider = self.iam.create_open_id_connect_provider(Url=self.issuer, ClientIDList=[AUDIENCE])[
            "OpenIDConnectProviderArn"
        ]
        self.s3.create_bucket(Bucket=BUCKET)
        self.clients = {service: self.session.client(service, config=self.config) for service in LISTS}
        self.written: list[str] = []
        """The names of what the writers made, once the lab has answered."""
        self._turns = threading.Condition()
        self._working = 0
        self._alone = False

    def client(self, service: str, credentials: dict[str, str]) -> Any:
        """A client with these credentials."""
        return boto3.session.Session().client(
            service,
            endpoint_url=self.state.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=credentials["AccessKeyId"],
            aws_secret_access_key=credentials["SecretAccessKey"],
            aws_session_token=credentials.get("SessionToken"),
            config=self.config,
        )

    def close(self) -> None:
        for shared in (self.iam, self.s3, self.sts, *self.clients.values()):
            shared.close()

    def write(self, writer: int, ends: threading.Event) -> None:
        """Make one thing after the other in each service, until the end."""
        for number in itertools.count(len(self.written)):
            if ends.is_set():
                return
            self._make(f"writer-{writer}-{number}")
            if number % 3 == 2:
                gone = f"writer-{writer}-{number - 1}"
                self._call("sns", "delete_topic", TopicArn=f"arn:aws:sns:us-east-1:{self.account}:{gone}")
                self._call("secretsmanager", "delete_secret", SecretId=gone, ForceDeleteWithoutRecovery=True)

    def _make(self, name: str) -> None:
        tags = [{"Key": "name", "Value": name}]
        self._call("s3", "create_bucket", Bucket=name)
        self._call("s3", "put_bucket_tagging", Bucket=name, Tagging={"TagSet": tags})
        self._call("iam", "create_user", UserName=name, Tags=tags)
        self._call("sns", "create_topic", Name=name, Tags=tags)
        self._call("sqs", "create_queue", QueueName=name, tags={"name": name})
        self._call("ssm", "put_parameter", Name=name, Value=name, Type="String")
        self._call(
            "dynamodb", "create_table",
            TableName=name, BillingMode="PAY_PER_REQUEST", KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        )  # fmt: skip
        self._call("secretsmanager", "create_secret", Name=name, SecretString=name, Tags=tags)
        self.written.append(name)

    def _call(self, service: str, operation: str, **parameters: Any) -> None:
        with self.together():
            try:
                self.settled(lambda: getattr(self.clients[service], operation)(**parameters))
            except ClientError as error:  # the killed server had carried out the call
                if is_cut_off(error) or not any(word in error.response["Error"]["Code"] for word in EXISTS):
                    raise

    def lists(self) -> dict[str, Any]:
        """Return every list of the kept services."""
        return {service: [*self._listed(service, *named)] for service, named in LISTS.items()}

    def _listed(self, service: str, operation: str, key: str) -> Iterator[Any]:
        client = self.clients[service]
        named = {"eks": {"clusterName": "blue"}, "s3control": {"AccountId": self.account}}.get(service, {})
        try:
            pages: Any = (
                client.get_paginator(operation).paginate(**named)
                if client.can_paginate(operation)
                else [getattr(client, operation)(**named)]
            )
            for page in pages:
                yield from page[key]
        except ClientError as error:
            yield error.response["Error"]["Code"]

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Work beside other learners, but not while somebody holds `alone`."""
        with self._turns:
            self._turns.wait_for(lambda: not self._alone)
            self._working += 1
        try:
            yield
        finally:
            with self._turns:
                self._working -= 1
                self._turns.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does."""
        with self._turns:
            self._turns.wait_for(lambda: not self._alone)
            self._alone = True
            self._turns.wait_for(lambda: not self._working)
        try:
            yield
        finally:
            with self._turns:
                self._alone = False
                self._turns.notify_all()

    def settled(self, call: Callable[[], Any]) -> Any:
        """Return the call's result. If the server is killed meanwhile, call again: the call must be safe to repeat."""
        if not self.kill:
            return call()
        again = retry_if_exception_type(NO_ANSWER)
        return Retrying(retry=again, stop=stop_after_delay(90), wait=wait_fixed(0.2), reraise=True)(call)


def is_cut_off(error: ClientError) -> bool:
    """Return whether S3's refusal announced a body that never came. boto3 then takes the HTTP status for the code."""
    announced = error.response["ResponseMetadata"]["HTTPHeaders"].get("content-length", "0")
    return error.response["Error"]["Code"].isdigit() and announced != "0"
