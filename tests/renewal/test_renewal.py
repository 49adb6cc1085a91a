"""A process with one boto3 session works past the end of its credentials and its token. Nothing else does."""

import json
from itertools import count

import pytest
from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api

from labkit import simulator
from labkit.execution import execute
from labkit.simulator import State
from labkit.steps.pod import wait_until_running
from labkit.tokens import Claims

POD = "renewal"
TOKEN = "/var/run/secrets/eks.amazonaws.com/serviceaccount/token"
# It lists the bucket whenever a file appears in its inbox, and prints the access key that it used.
PROGRAM = """
import itertools, json, os, time, boto3
session = boto3.Session()
s3 = session.client("s3")
for call in itertools.count(1):
    while not os.path.exists(f"/inbox/{call}"):
        time.sleep(0.02)
    objects = s3.list_objects_v2(Bucket="irsa-renewal")["KeyCount"]
    key = session.get_credentials().access_key
    print(json.dumps({"objects": objects, "key": key, "process": os.getpid(), "day": time.time() // 86400}), flush=True)
"""


pytestmark = pytest.mark.lab(service_account=POD, role_name=POD, bucket="irsa-renewal")


@pytest.fixture(scope="module")
def irsa_lab():
    """A lab of this module's own, because its clock goes ahead by days."""
    with simulator.in_tests.running() as lab:
        yield lab


@pytest.fixture(autouse=True)
def on_time(lab, irsa_lab):
    if not State.read(irsa_lab.folder).pod_clock:
        pytest.skip("needs libfaketime (Linux on x86-64), by which pods see the lab's clock")
    lab.clock.reset()
    lab.ready(before="pod")
    yield
    lab.clock.reset()


class Program:
    """PROGRAM, running in a pod."""

    def __init__(self, lab):
        self.lab = lab
        self.namespace = lab.parameters.namespace
        core = CoreV1Api(lab.kubernetes)
        container = {
            "name": "python",
            "image": "python",
            "command": ["python", "-c", PROGRAM],
            "volumeMounts": [{"name": "inbox", "mountPath": "/inbox"}],
        }
        spec = {
            "serviceAccountName": lab.parameters.service_account,
            "containers": [container],
            "volumes": [{"name": "inbox", "emptyDir": {}}],
        }
        core.create_namespaced_pod(self.namespace, {"metadata": {"name": POD, "labels": lab.labels}, "spec": spec})
        wait_until_running(lab, POD)
        self.earlier = len(self._exchanges())
        self.log = iter(core.read_namespaced_pod_log(POD, self.namespace, follow=True, _preload_content=False))
        self.calls = count(1)

    def call(self):
        """Let the process make its next call; return what it prints. Fail if it has ended."""
        execute(self.lab.kubernetes, POD, self.namespace, ["touch", f"/inbox/{next(self.calls)}"])
        line = next(self.log, b"").decode()
        assert line.startswith("{"), f"the process ended: {line}{b''.join(self.log).decode()}"
        return json.loads(line)

    def token(self):
        """The token that the pod's file holds now."""
        return execute(self.lab.kubernetes, POD, self.namespace, ["cat", TOKEN]).output

    def token_after(self, old):
        """Wait until the node replaces the token `old`; return the new one."""
        for _ in range(200):
            if (token := self.token()) != old:
                return token
        raise AssertionError("the node did not renew the token")

    def exchanges(self):
        """The tokens that this program has exchanged, from the trail."""
        return self._exchanges()[self.earlier :]

    def _exchanges(self):
        subject = self.lab.parameters.subject
        calls = self.lab.trail(event="AssumeRoleWithWebIdentity", who=subject, decision="allowed")
        return [record["lab"]["token"] for record in calls.records]


def test_a_boto3_session_works_past_the_end_of_its_credentials_and_token(lab):
    program = Program(lab)
    first, token = program.call(), program.token()
    assert program.call() == first
    assert len(program.exchanges()) == 1

    lab.clock.advance(hours=2)
    second = program.call()
    assert second["key"] != first["key"]
    assert [exchange["issuedAt"] for exchange in program.exchanges()] == [Claims.parse(token).raw["iat"]] * 2

    # 80 % of the token's day is over: the node writes a new one while the old one is still valid.
    lab.clock.advance(hours=18)
    fresh = program.token_after(token)
    lab.clock.advance(hours=5)
    third = program.call()
    assert third["key"] not in (first["key"], second["key"])
    assert third["day"] > first["day"]
    assert {answer["process"] for answer in (first, second, third)} == {first["process"]}
    *_, last = program.exchanges()
    assert last["issuedAt"] == Claims.parse(fresh).raw["iat"] > Claims.parse(token).raw["iat"]

    assert refused(lab, token) == "ExpiredTokenException"
    assert refused(lab, fresh) == ""


def test_a_boto3_session_works_after_two_days_without_a_call(lab):
    program = Program(lab)
    first, token = program.call(), program.token()
    lab.clock.advance(days=2)
    fresh = program.token_after(token)
    assert program.call()["key"] != first["key"]
    assert [exchange["issuedAt"] for exchange in program.exchanges()] == [
        Claims.parse(token).raw["iat"],
        Claims.parse(fresh).raw["iat"],
    ]


def test_s3_refuses_credentials_as_soon_as_they_have_expired(lab):
    token = CoreV1Api(lab.kubernetes).create_namespaced_service_account_token(
        POD, lab.parameters.namespace, {"spec": {"audiences": ["sts.amazonaws.com"]}}
    )
    given = exchange(lab, token.status.token, DurationSeconds=900)["Credentials"]
    s3 = lab.aws.client(
        "s3",
        aws_access_key_id=given["AccessKeyId"],
        aws_secret_access_key=given["SecretAccessKey"],
        aws_session_token=given["SessionToken"],
    )
    lab.clock.advance(minutes=14)
    assert s3.list_objects_v2(Bucket="irsa-renewal")["KeyCount"] == 1
    lab.clock.advance(minutes=1)
    with pytest.raises(ClientError, match=r"\(ExpiredToken\).*The provided token has expired\."):
        s3.list_objects_v2(Bucket="irsa-renewal")


def exchange(lab, token, **options):
    request = {"RoleArn": lab.role_arn, "RoleSessionName": "by-hand", "WebIdentityToken": token, **options}
    return lab.aws.client("sts").assume_role_with_web_identity(**request)


def refused(lab, token):
    """Return the error code with which STS refuses the token, or an empty text if it accepts it."""
    try:
        exchange(lab, token)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""
