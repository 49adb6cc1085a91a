"""The gate's stages, web identity sessions, and the answers of IAM, EKS and the metadata service."""

import asyncio
import inspect
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from labkit.simulator.aws import issuers
from labkit.simulator.aws.gate import Gate
from labkit.simulator.aws.trail import Trail
from tests.simulator.aws.conftest import (
    ACCOUNT,
    ADMINISTRATOR,
    ADMINISTRATOR_CREDENTIALS,
    AUDIENCE,
    ISSUER,
    ISSUER_HOST,
    REGION,
    Irsa,
    by_hand,
    code_of,
    permit,
    trust_policy,
)

# --- the stages


def test_the_gate_answers_a_call_stage_by_stage():
    source = inspect.getsource(Gate.respond)
    stages = [f"self.{name}" for name in ("_address", "_authentication", "_parse", "_authorize", "_answer", "_record")]
    assert sorted(stages, key=source.index) == stages
    assert len(source.splitlines()) <= 50


# --- the web identity session


def test_an_accepted_token_gives_a_session_of_the_role_and_a_record(aws, irsa):
    token = aws.issuer.token()
    answer = irsa.assume(WebIdentityToken=token, DurationSeconds=900)
    role_id = irsa.iam.get_role(RoleName="my-role")["Role"]["RoleId"]
    assert answer["SubjectFromWebIdentityToken"] == "system:serviceaccount:default:my-service-account"
    assert (answer["Audience"], answer["Provider"]) == (AUDIENCE, irsa.provider_arn)
    assert answer["AssumedRoleUser"] == {
        "AssumedRoleId": f"{role_id}:my-pod",
        "Arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod",
    }
    assert abs(answer["Credentials"]["Expiration"].timestamp() - aws.clock.now() - 900) < 5
    record = next(r for r in reversed(aws.trail()) if r["eventName"] == "AssumeRoleWithWebIdentity")
    assert record["userIdentity"]["identityProvider"] == irsa.provider_arn
    assert record["lab"]["decision"] == "allowed"
    assert record["lab"]["roleSessionName"] == "my-pod"
    assert record["lab"]["token"]["expires"] - record["lab"]["token"]["issuedAt"] == 3600
    identity = aws.client("sts", answer["Credentials"]).get_caller_identity()
    assert identity["UserId"] == f"{role_id}:my-pod"
    assert aws.last()["userIdentity"]["sessionContext"]["webIdFederationData"]["federatedProvider"] == irsa.provider_arn


def test_sts_takes_a_token_in_a_url_and_the_trail_hides_it(aws, irsa):
    token = aws.issuer.token()
    parameters = {"Action": "AssumeRoleWithWebIdentity", "Version": "2011-06-15", "RoleArn": irsa.role_arn}
    parameters |= {"RoleSessionName": "my-pod", "WebIdentityToken": token}
    answer = httpx.get(aws.endpoint, params=parameters, trust_env=False, timeout=60)
    assert (answer.status_code, "<AccessKeyId>ASIA" in answer.text) == (200, True)
    assert aws.last()["lab"]["decision"] == "allowed"
    parameters |= {"WebIdentityToken": token + "AAAA"}
    answer = httpx.get(aws.endpoint, params=parameters, trust_env=False, timeout=60)
    assert (answer.status_code, "<Code>InvalidIdentityToken</Code>" in answer.text) == (400, True)
    assert token not in aws.trail_file.read_text()


def test_sts_reports_a_packed_policy_size_only_with_a_session_policy(irsa):
    document = {"Version": "2012-10-17", "Statement": [permit("s3:*")]}
    assert irsa.assume(Policy=json.dumps(document))["PackedPolicySize"] > 0
    assert "PackedPolicySize" not in irsa.assume()


@pytest.mark.parametrize("audience", [AUDIENCE, [AUDIENCE], ["another", AUDIENCE]])
def test_sts_takes_a_token_s_audience_as_a_string_or_a_list(aws, irsa, audience):
    irsa.trust(trust_policy(Condition=None))
    assert irsa.assume(WebIdentityToken=aws.issuer.token(aud=audience))["Audience"] == AUDIENCE


def test_sts_fetches_an_issuer_s_keys_once_and_again_for_a_new_key(aws, irsa):
    aws.issuer.fetched.clear()
    irsa.assume()
    irsa.assume()
    assert len(aws.issuer.fetched) == 2
    aws.issuer.publish(key_id="2")
    irsa.assume(WebIdentityToken=aws.issuer.token(headers={"kid": "2"}))
    assert len(aws.issuer.fetched) == 4


def test_the_labs_own_issuer_may_answer_late(aws, irsa, monkeypatch):
    """The issuer runs in the process that waits for it, which is slow when the pods of a whole class start at once."""
    monkeypatch.setattr(issuers, "TIMEOUT", 0.01)
    where = ISSUER_HOST, ("127.0.0.1", aws.issuer_port), aws.authority.certificate_pem

    def late(document):
        async def answer(send):
            await asyncio.sleep(0.1)
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": json.dumps(document).encode()})

        return answer

    aws.issuer.documents = {path: late(document) for path, document in aws.issuer.documents.items()}
    assert code_of(irsa.assume)[1] == "InvalidIdentityToken"
    aws.gate.issuers.map_host(*where, within=30.0)
    aws.gate.issuers.forget(ISSUER)
    irsa.assume()
    aws.gate.issuers.map_host(*where)


def test_many_callers_of_a_slow_issuer_share_its_answer(aws, irsa):
    async def slow(send):
        await asyncio.sleep(0.3)
        await send({"type": "http.response.start", "status": 503, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    aws.issuer.documents = dict.fromkeys(aws.issuer.documents, slow)
    aws.issuer.fetched.clear()
    with ThreadPoolExecutor(8) as callers:
        waiting = [callers.submit(code_of, irsa.assume) for _ in range(8)]
        assert {caller.result()[1] for caller in waiting} == {"InvalidIdentityToken"}
    assert len(aws.issuer.fetched) < 8


# --- IAM


def test_sts_goes_by_the_current_audiences_of_a_provider(aws, irsa):
    irsa.trust(trust_policy(Condition=None))
    change = {"OpenIDConnectProviderArn": irsa.provider_arn, "ClientID": "another"}
    token = aws.issuer.token(aud="another")
    assert code_of(lambda: irsa.assume(WebIdentityToken=token))[:2] == (400, "InvalidIdentityToken")
    for _ in range(2):
        irsa.iam.add_client_id_to_open_id_connect_provider(**change)
    irsa.assume(WebIdentityToken=token)
    for _ in range(2):
        irsa.iam.remove_client_id_from_open_id_connect_provider(**change)
    assert code_of(lambda: irsa.assume(WebIdentityToken=token))[:2] == (400, "InvalidIdentityToken")


def test_iam_attaches_an_aws_managed_policy_and_refuses_a_misspelled_one(irsa):
    csi = "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy"
    irsa.iam.attach_role_policy(RoleName="my-role", PolicyArn=csi)
    assert irsa.iam.get_policy(PolicyArn=csi)["Policy"]["AttachmentCount"] == 1
    missing = "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAcess"
    actual = code_of(lambda: irsa.iam.attach_role_policy(RoleName="my-role", PolicyArn=missing))
    assert actual == (404, "NoSuchEntity", f"Policy {missing} does not exist or is not attachable.")


def test_a_role_s_id_follows_from_its_name_but_changes_if_it_is_created_again(aws, irsa):
    def made(name):
        document = json.dumps(trust_policy())
        return irsa.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document)["Role"]["RoleId"]

    first = made("again")
    assert first == "AROA" + aws.identifiers.base32("roles", "again#0", 17)
    irsa.iam.delete_role(RoleName="again")
    assert made("again") not in (first, irsa.iam.get_role(RoleName="my-role")["Role"]["RoleId"])


# --- EKS


def test_eks_creates_describes_and_deletes_a_cluster(aws):
    eks = aws.client("eks")
    request = {"name": "blue", "roleArn": f"arn:aws:iam::{ACCOUNT}:role/eks", "resourcesVpcConfig": {}}
    created = eks.create_cluster(**request)["cluster"]
    described = eks.describe_cluster(name="blue")["cluster"]
    for cluster in (created, described):
        assert cluster["endpoint"] == "https://127.0.0.1:6443"
        assert cluster["identity"]["oidc"]["issuer"] == ISSUER
        assert (cluster["status"], cluster["version"]) == ("ACTIVE", "1.33")
    assert eks.list_clusters()["clusters"] == ["blue"]
    assert code_of(lambda: eks.create_cluster(**request))[:2] == (409, "ResourceInUseException")
    facts = aws.clusters.known.pop((REGION, "blue"))  # as if the cluster were still being created
    assert eks.describe_cluster(name="blue")["cluster"]["status"] == "CREATING"
    assert code_of(lambda: eks.delete_cluster(name="blue"))[:2] == (409, "ResourceInUseException")
    assert code_of(lambda: eks.delete_cluster(name="none"))[:2] == (404, "ResourceNotFoundException")
    aws.clusters.known[REGION, "blue"] = facts
    eks.delete_cluster(name="blue")
    assert not aws.clusters.known
    actual = code_of(lambda: eks.describe_cluster(name="blue"))
    assert actual == (404, "ResourceNotFoundException", "No cluster found for name: blue.")
    assert code_of(lambda: eks.create_cluster(**request | {"name": "no_/"}))[:2] == (400, "InvalidParameterException")


def test_a_session_reads_only_the_cluster_and_role_that_its_policies_allow(aws, irsa):
    request = {"name": "blue", "roleArn": f"arn:aws:iam::{ACCOUNT}:role/eks", "resourcesVpcConfig": {}}
    aws.client("eks").create_cluster(**request)
    cluster = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue"
    irsa.permit(permit("eks:DescribeCluster", resource=cluster), permit("iam:GetRole", resource=irsa.role_arn))
    session = irsa.assume()["Credentials"]
    eks, iam = aws.client("eks", session), aws.client("iam", session)
    assert eks.describe_cluster(name="blue")["cluster"]["arn"] == cluster
    assert iam.get_role(RoleName="my-role")["Role"]["Arn"] == irsa.role_arn
    assert code_of(lambda: eks.describe_cluster(name="green"))[:2] == (403, "AccessDeniedException")
    assert code_of(lambda: eks.delete_cluster(name="blue"))[:2] == (403, "AccessDeniedException")
    status, code, message = code_of(lambda: iam.delete_role(RoleName="my-role"))
    assert (status, code) == (403, "AccessDenied")
    assert message.endswith(
        "is not authorized to perform: iam:DeleteRole on resource: role my-role "
        "because no identity-based policy allows the iam:DeleteRole action"
    )


def test_an_unsupported_action_is_refused_with_a_reason(aws, irsa):
    irsa.permit(permit("*"))
    session = irsa.assume()["Credentials"]
    for path in ("/irsa-lab?acl&policy", "/irsa-lab?somethingNew", "/v20180820/tags/x", "/v20180820/jobs/x"):
        request = AWSRequest("GET", aws.endpoint + path)
        keys = Credentials(session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"])
        botocore.auth.S3SigV4Auth(keys, "s3", REGION).add_auth(request)
        answer = httpx.get(aws.endpoint + path, headers=dict(request.headers), trust_env=False, timeout=60)
        assert answer.status_code == 403, path
        assert re.search("the lab cannot yet authorize (the |this )?S3 ", answer.text)
    actual = code_of(lambda: aws.client("kms", session).list_keys())
    assert actual[:2] == (400, "AccessDeniedException")
    assert actual[2].endswith("the lab cannot yet authorize kms:ListKeys")


def test_moto_s_own_api_is_closed_and_its_headers_have_no_effect(aws, irsa):
    with httpx.Client(trust_env=False, timeout=60, base_url=aws.endpoint) as client:
        for path in ("/moto-api/", "/moto-api/reset", "/latest/meta-data/iam/", "/favicon.ico"):
            assert client.post(path).status_code == 403
            request = AWSRequest("POST", aws.endpoint + path)
            for service in ("sts", "events", "s3"):
                signer = botocore.auth.S3SigV4Auth if service == "s3" else botocore.auth.SigV4Auth
                signer(ADMINISTRATOR_CREDENTIALS, service, REGION).add_auth(request)
                assert client.post(path, headers=dict(request.headers)).status_code >= 400
    # The header would lead to another account's IAM, which doesn't have this role.
    iam = aws.new_client("iam", ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key)
    elsewhere = {"x-moto-account-id": "210987654321"}
    iam.meta.events.register("before-call.iam", lambda params, **_: params["headers"].update(elsewhere))
    assert iam.get_role(RoleName="my-role")["Role"]["Arn"] == irsa.role_arn


@pytest.mark.parametrize(
    "authorization", ["AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 Credential=a/b, Signature=", "AWS a:b", "x" * 9000]
)
@pytest.mark.parametrize("path", ["/", "/irsa-lab/hello.txt", "/clusters/blue", "/%ff%00", "/?Action=%ff"])
def test_a_nonsensical_authorization_or_path_is_a_client_error(aws, authorization, path):
    answer = httpx.get(aws.endpoint + path, headers={"Authorization": authorization}, trust_env=False, timeout=60)
    assert 400 <= answer.status_code < 500


# --- the AWS CLI, and the metadata service


def cli(aws, *arguments, **environment):
    settings = {
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "PATH": os.environ["PATH"],
    }
    command = [str(Path(sys.executable).with_name("aws")), *arguments]
    return subprocess.run(command, env=settings | environment, capture_output=True, text=True, timeout=30, check=False)


def test_the_aws_cli_uses_a_token_in_a_file_and_shows_a_denial(aws, irsa, tmp_path):
    file = tmp_path / "token"
    file.write_text(aws.issuer.token())
    pod = {"AWS_ROLE_ARN": irsa.role_arn, "AWS_WEB_IDENTITY_TOKEN_FILE": str(file), "AWS_ROLE_SESSION_NAME": "my-pod"}
    answer = cli(aws, "s3", "ls", "s3://irsa-lab", **pod)
    assert answer.stdout.split()[-1] == "hello.txt", answer.stderr
    (tmp_path / "new.txt").write_text("new")
    answer = cli(aws, "s3", "cp", str(tmp_path / "new.txt"), "s3://irsa-lab/new.txt", **pod)
    assert "because no identity-based policy allows the s3:PutObject action" in answer.stderr


def test_a_node_s_metadata_service_wants_a_token_of_its_own(aws, irsa):
    base = f"{aws.node_metadata(irsa.role_arn)}/latest"
    ttl = {"X-aws-ec2-metadata-token-ttl-seconds": "60"}
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert client.get(f"{base}/meta-data/instance-id").status_code == 401
        assert client.put(f"{base}/api/token").status_code == 400
        assert client.put(f"{base}/api/token", headers=ttl | {"X-Forwarded-For": "10.0.0.1"}).status_code == 403
        headers = {"X-aws-ec2-metadata-token": client.put(f"{base}/api/token", headers=ttl).text}
        actual = {
            path: client.get(f"{base}/{path}", headers=headers).text
            for path in ("meta-data/instance-id", "meta-data/placement/region", "meta-data/placement/availability-zone")
        }
        assert list(actual.values()) == ["i-0123456789abcdef0", REGION, "us-east-1a"]
        document = client.get(f"{base}/dynamic/instance-identity/document", headers=headers).json()
        assert (document["accountId"], document["region"]) == (ACCOUNT, REGION)
        assert client.get(f"{base}/meta-data/none", headers=headers).status_code == 404
        other = f"{aws.node_metadata(irsa.role_arn)}/latest/meta-data/instance-id"
        assert client.get(other, headers=headers).status_code == 401


def test_a_node_s_credentials_are_renewed_before_they_end(aws, irsa, monkeypatch):
    node = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"{aws.node_metadata(irsa.role_arn)}/"}
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", node["AWS_EC2_METADATA_SERVICE_ENDPOINT"])
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    credentials = boto3.Session(region_name=REGION).get_credentials()
    assert credentials.method == "iam-role"
    first = credentials.get_frozen_credentials()
    session = {"AccessKeyId": first.access_key, "SecretAccessKey": first.secret_key, "SessionToken": first.token}
    arn = aws.client("sts", session).get_caller_identity()["Arn"]
    assert arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/i-0123456789abcdef0"
    aws.clock.advance(hours=5, minutes=45)
    second = boto3.Session(region_name=REGION).get_credentials().get_frozen_credentials()
    assert second.access_key != first.access_key
    answer = cli(aws, "sts", "get-caller-identity", "--query", "Arn", "--output", "text", **node)
    assert answer.stdout.strip() == arn, answer.stderr


def test_the_trail_begins_again_when_its_file_is_deleted(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    trail.append({"eventName": "One"})
    trail.file.unlink()
    trail.append({"eventName": "Two"})
    assert [record["eventName"] for record in Trail.read(trail.file)] == ["Two"]
    assert Trail.read(tmp_path / "none") == []


def test_the_lab_s_own_parts_get_a_session_only_of_an_existing_role(aws, irsa):
    assert isinstance(irsa, Irsa)
    issued = aws.gate.sessions.issue(irsa.role_arn, "i-0123456789abcdef0", 3600)
    assert issued.assumed_role_arn == f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/i-0123456789abcdef0"
    with pytest.raises(LookupError, match="there is no role"):
        aws.gate.sessions.issue(f"arn:aws:iam::{ACCOUNT}:role/none", "i-0", 3600)


def test_eks_refuses_cluster_tags_that_are_not_an_object_of_strings(aws):
    for tags in ('"a"', "1", '["a"]', '{"a": {}}'):
        body = (
            f'{{"name": "c", "roleArn": "arn:aws:iam::{ACCOUNT}:role/r", "resourcesVpcConfig": {{}}, "tags": {tags}}}'
        )
        answer = by_hand(aws, "eks", "POST", "/clusters", body.encode(), Content_Type="application/json")
        message = (answer.status_code, answer.headers.get("x-amzn-errortype"))
        assert message == (400, "SerializationException"), answer.text
    assert aws.client("eks").list_clusters()["clusters"] == []
