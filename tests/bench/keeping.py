"""What keeping AWS's state adds to a call and to the lab's start, for each kept service, with few and many objects."""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moto.backends import get_backend

from tests.simulator.aws.conftest import ACCOUNT, MANAGEMENT, REGION, Aws

FEW, MANY, CALLS = 10, 10_000, 200
MANAGING = "111111111111"  # the account that manages the lab's organization
CONTACTS = "BILLING", "OPERATIONS", "SECURITY"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bench"
TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "pods.eks.amazonaws.com"},
            "Action": ["sts:AssumeRole", "sts:TagSession"],
        }
    ],
}


@dataclass(frozen=True)
class Kept:
    """A kept service: how moto gets one more object, and the measured call. ``most`` is AWS's own limit, if lower.

    ``account`` is the store's; the calls are those of its administrator.
    """

    fill: Callable[[Any, int], object]
    call: Callable[[Any, int], object]
    before: Callable[[Any], object] = lambda _: None
    region: str = REGION
    most: int = MANY
    account: str = ACCOUNT


def _table(client: Any) -> None:
    client.create_table(
        TableName="bench", BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )  # fmt: skip


def _cluster(client: Any) -> None:
    client.create_cluster(name="bench", roleArn=ROLE, resourcesVpcConfig={"subnetIds": ["subnet-1"]})


def _associate(associations: Any, at: int) -> None:
    associations.used[f"a-{at}"] = None
    associations._associations[f"a-{at}"] = {
        "clusterName": "bench", "namespace": "default", "serviceAccount": f"account-{at}", "roleArn": ROLE,
        "associationArn": f"arn:aws:eks:{REGION}:{ACCOUNT}:podidentityassociation/bench/a-{at}",
        "associationId": f"a-{at}", "tags": {}, "createdAt": 1.8e9, "modifiedAt": 1.8e9, "disableSessionTags": False,
    }  # fmt: skip


def _send(client: Any, at: int) -> None:
    client.send_message(QueueUrl=f"https://sqs.{REGION}.amazonaws.com/{ACCOUNT}/bench", MessageBody=str(at))


# Quotas: https://docs.aws.amazon.com/general/latest/gr/aws-service-information.html
SERVICES = {
    "account": Kept(  # 3 kinds of contacts
        lambda moto, at: moto.put_alternate_contact(CONTACTS[at], "a@example.com", "A", "1", "A"),
        lambda client, at: client.put_alternate_contact(
            AlternateContactType="BILLING", EmailAddress=f"{at}@example.com", Name="A", PhoneNumber="1", Title="A"
        ),
        region="aws",
        most=len(CONTACTS),
    ),
    "cloudtrail": Kept(  # 5 trails in a region
        lambda moto, at: moto.create_trail(f"trail-{at}", "bench", "", "", False, False, False, False, "", "", "", []),
        lambda client, at: client.stop_logging(Name="trail-0"),
        most=5,
    ),
    "dynamodb": Kept(
        lambda moto, at: moto.put_item("bench", {"id": {"S": str(at)}, "n": {"N": "1"}}),
        lambda client, at: client.put_item(TableName="bench", Item={"id": {"S": f"call-{at}"}}),
        _table,
    ),
    "eks": Kept(  # 5,000 associations of a cluster
        _associate,
        lambda client, at: client.create_pod_identity_association(
            clusterName="bench", namespace="default", serviceAccount=f"call-{at}", roleArn=ROLE
        ),
        _cluster,
        most=5_000,
    ),
    "iam": Kept(  # 5,000 users in an account
        lambda moto, at: moto.create_user("aws", f"user-{at}"),
        lambda client, at: client.create_user(UserName=f"call-{at}"),
        region="aws",
        most=5_000,
    ),
    "kms": Kept(  # moto generates an RSA key for each, so 10,000 would take many minutes
        lambda moto, at: moto.create_key(None, "ENCRYPT_DECRYPT", "SYMMETRIC_DEFAULT", str(at), []),
        lambda client, at: client.update_key_description(
            KeyId=client.list_keys(Limit=1)["Keys"][0]["KeyId"], Description=f"call-{at}"
        ),
        most=100,
    ),
    "organizations": Kept(  # 2,000 units; an organization has at most 10,000 accounts, by default 10
        lambda moto, at: moto.create_organizational_unit(ParentId=moto.ou[0].id, Name=f"unit-{at}"),
        lambda client, at: client.create_organizational_unit(
            ParentId=client.list_roots()["Roots"][0]["Id"], Name=f"call-{at}"
        ),
        lambda client: client.list_roots(),
        region="aws",
        account=MANAGING,
        most=2_000 - 250,  # room for the calls
    ),
    "s3": Kept(
        lambda moto, at: moto.put_object("bench", f"key-{at}", b"x"),
        lambda client, at: client.put_object(Bucket="bench", Key=f"call-{at}", Body=b"x"),
        region="aws",
    ),
    "s3control": Kept(  # 10,000 access points in a region
        lambda moto, at: moto.create_access_point(ACCOUNT, f"point-{at}", "bench", {}, {}),
        lambda client, at: client.create_access_point(AccountId=ACCOUNT, Name=f"call-{at}", Bucket="bench"),
        region="aws",
    ),
    "secretsmanager": Kept(
        lambda moto, at: moto.create_secret(f"secret-{at}", "x", None, None, [], None, None, [], False),
        lambda client, at: client.create_secret(Name=f"call-{at}", SecretString="x"),
    ),
    "sns": Kept(
        lambda moto, at: moto.create_topic(f"topic-{at}"),
        lambda client, at: client.create_topic(Name=f"call-{at}"),
    ),
    "sqs": Kept(  # a queue may have any number of messages; 120,000 of them in flight
        lambda moto, at: moto.send_message("bench", str(at)),
        _send,
        lambda client: client.create_queue(QueueName="bench"),
    ),
    "ssm": Kept(
        lambda moto, at: moto.put_parameter(
            f"parameter-{at}", "", "x", "String", "", "", False, [], "text", None, None
        ),
        lambda client, at: client.put_parameter(Name=f"call-{at}", Value="x", Type="String"),
    ),
}  # fmt: skip


def added() -> str:
    """Measure 200 calls of each service with and without keeping, then a start with what they made.

    In processor time of the gate and the client, so that the machine's other work doesn't count.
    """
    print()
    for service, kept in SERVICES.items():
        for count in sorted({min(FEW, kept.most), min(MANY, kept.most)}):
            on, off = (_measured(service, count, is_kept) for is_kept in (True, False))
            middle, high = (on[name] - off[name] for name in ("median", "p95"))
            said = f"  {service} {count}: +{middle:.2f} ms, 95 of 100 +{high:.2f} ms, start {on['start']:.2f} s"
            print(said, flush=True)
    return f"of {len(SERVICES)} services"


def _measured(service: str, count: int, is_kept: bool) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as place:
        measured: dict[str, float] = {}
        for part in ("calls", "start") if is_kept else ("calls",):
            arguments = [sys.executable, "-m", "tests.bench.keeping", part, service, str(count), place, str(is_kept)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False)
            if done.returncode:
                sys.exit(done.stderr)
            measured |= json.loads(done.stdout)
        return measured


def _calls(service: str, count: int, place: Path, is_kept: bool) -> dict[str, float]:
    kept, aws = SERVICES[service], Aws(place, state=place if is_kept else None)
    gate, client = aws.gate, aws.client(service)
    if kept.account == MANAGING:
        client = aws.new_client(service, MANAGEMENT.access_key_id, MANAGEMENT.secret_access_key)
    aws.client("s3").create_bucket(Bucket="bench")
    aws.client("iam").create_role(RoleName="bench", AssumeRolePolicyDocument=json.dumps(TRUST))
    kept.before(client)

    async def fill() -> None:
        store: Any = get_backend(service)[kept.account][kept.region]  # type: ignore[call-overload]  # any service
        if service == "eks":
            store = aws.clusters.known[REGION, "bench"].pod_identity
        async with gate._kept.keeping_all():
            await gate.backend.run(lambda: [kept.fill(store, at) for at in range(count)])

    asyncio.run_coroutine_threadsafe(fill(), aws.loop).result()
    times = []
    for at in range(20 + CALLS):
        began = time.process_time()
        kept.call(client, at)
        times.append((time.process_time() - began) * 1000)
    times = sorted(times[20:])
    aws.close()
    return {"median": statistics.median(times), "p95": times[CALLS * 95 // 100]}


def _start(service: str, count: int, place: Path, is_kept: bool) -> dict[str, float]:
    get_backend(service)  # type: ignore[call-overload]  # moto's modules load in the background of every start
    began = time.process_time()
    Aws(place, state=place)
    return {"start": time.process_time() - began}


if __name__ == "__main__":
    _, part, service, count, place, is_kept = sys.argv
    measure = {"calls": _calls, "start": _start}[part]
    print(json.dumps(measure(service, int(count), Path(place), is_kept == "True")))
    sys.stdout.flush()
    os._exit(0)
