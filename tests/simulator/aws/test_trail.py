"""The trail: records as CloudTrail writes them, with the lab's reason beside them, and without secrets."""

import json
import logging
import string
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from labkit.simulator.aws.authorization import Grant
from labkit.simulator.aws.call import AwsRequest, Call, Response
from labkit.simulator.aws.records import Outcome, records
from labkit.simulator.aws.services.sts import Sts
from labkit.simulator.aws.sessions import Session
from labkit.simulator.aws.trail import HIDDEN, Trail, put_aside
from labkit.simulator.identifiers import Identifiers
from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, AUDIENCE, REGION, SUBJECT

LABKIT = Path(sys.executable).with_name("labkit")


# --- the record


def test_the_trail_records_an_exchange_as_cloudtrail_does(aws, irsa):
    answer = irsa.assume(RoleSessionName="my-pod", DurationSeconds=900)
    record = aws.last()
    assert record["userIdentity"] == {
        "type": "WebIdentityUser",
        "principalId": f"{irsa.provider_arn}:{AUDIENCE}:{SUBJECT}",
        "userName": SUBJECT,
        "identityProvider": irsa.provider_arn,
    }
    assert record["requestParameters"] == {
        "roleArn": irsa.role_arn,
        "roleSessionName": "my-pod",
        "durationSeconds": 900,
    }
    assert record["responseElements"] == {
        "credentials": {
            "accessKeyId": answer["Credentials"]["AccessKeyId"],
            "sessionToken": HIDDEN,
            "expiration": answer["Credentials"]["Expiration"].strftime("%b %-d, %Y, %-I:%M:%S %p"),
        },
        "assumedRoleUser": {
            "assumedRoleId": answer["AssumedRoleUser"]["AssumedRoleId"],
            "arn": f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod",
        },
        "subjectFromWebIdentityToken": SUBJECT,
        "provider": irsa.provider_arn,
        "audience": AUDIENCE,
    }
    assert record["additionalEventData"] == {"identityProviderConnectionVerificationMethod": "IAMTrustStore"}
    assert record["resources"] == [{"accountId": ACCOUNT, "type": "AWS::IAM::Role", "ARN": irsa.role_arn}]
    assert record["requestID"] == answer["ResponseMetadata"]["RequestId"]
    kind = ("eventSource", "eventType", "eventCategory", "managementEvent", "readOnly", "recipientAccountId")
    assert [record[name] for name in kind] == ["sts.amazonaws.com", "AwsApiCall", "Management", True, True, ACCOUNT]
    # There are no tlsDetails, because the endpoint is plain HTTP.
    assert not {"errorCode", "errorMessage", "tlsDetails", "sharedEventID"} & set(record)


def test_the_access_key_of_a_session_s_call_leads_back_to_the_exchange(aws, irsa):
    session = irsa.assume(RoleSessionName="my-pod")["Credentials"]
    aws.client("s3", session).get_object(Bucket=irsa.bucket, Key="hello.txt")
    exchange, call = aws.trail()[-2:]
    identity = call["userIdentity"]
    assert identity["type"] == "AssumedRole"
    assert identity["arn"] == exchange["responseElements"]["assumedRoleUser"]["arn"]
    assert identity["accessKeyId"] == exchange["responseElements"]["credentials"]["accessKeyId"]
    assert identity["sessionContext"]["sessionIssuer"]["userName"] == "my-role"
    assert identity["sessionContext"]["webIdFederationData"] == {
        "federatedProvider": irsa.provider_arn,
        "attributes": {},
    }
    # CloudTrail doesn't name the subject here; the lab does.
    assert call["lab"]["subject"] == SUBJECT


def test_the_trail_records_s3_data_events_as_cloudtrail_does(aws, irsa):
    s3 = aws.client("s3", irsa.assume()["Credentials"], signature_version="s3v4")
    answer = s3.get_object(Bucket=irsa.bucket, Key="hello.txt")
    record = aws.last()
    assert (record["eventName"], record["eventCategory"], record["managementEvent"]) == ("GetObject", "Data", False)
    parameters = record["requestParameters"]
    assert (parameters["bucketName"], parameters["key"]) == (irsa.bucket, "hello.txt")
    about = {"SignatureVersion": "SigV4", "AuthenticationMethod": "AuthHeader"}
    assert record["additionalEventData"] == about | {"bytesTransferredIn": 0, "bytesTransferredOut": 5}
    assert record["resources"] == [
        {"type": "AWS::S3::Object", "ARN": "arn:aws:s3:::irsa-lab/hello.txt"},
        {"accountId": ACCOUNT, "type": "AWS::S3::Bucket", "ARN": "arn:aws:s3:::irsa-lab"},
    ]
    assert record["requestID"] == answer["ResponseMetadata"]["RequestId"]

    httpx.get(s3.generate_presigned_url("get_object", Params={"Bucket": irsa.bucket, "Key": "hello.txt"}), timeout=60)
    presigned = aws.last()
    assert presigned["additionalEventData"]["AuthenticationMethod"] == "QueryString"
    assert {"X-Amz-Algorithm", "X-Amz-Date", "X-Amz-Expires"} < set(presigned["requestParameters"])

    s3.list_objects_v2(Bucket=irsa.bucket, Prefix="h")
    listed = aws.last()
    assert (listed["eventName"], listed["requestParameters"]["list-type"]) == ("ListObjects", "2")
    assert listed["requestParameters"]["prefix"] == "h"


def test_the_trail_spells_error_codes_as_cloudtrail_does(aws, irsa):
    session = irsa.assume()["Credentials"]
    for call, message, written in (
        (lambda: irsa.iam.get_role(RoleName="none"), "NoSuchEntity", "NoSuchEntityException"),
        (lambda: aws.client("secretsmanager", session).list_secrets(), "AccessDeniedException", "AccessDenied"),
        (lambda: aws.client("s3", session).put_object(Bucket="irsa-lab", Key="k"), "AccessDenied", "AccessDenied"),
        (lambda: aws.client("s3").head_object(Bucket="irsa-lab", Key="none"), "404", "NoSuchKey"),
        (lambda: aws.client("ec2", session).describe_vpcs(), "UnauthorizedOperation", "Client.UnauthorizedOperation"),
    ):
        with pytest.raises(ClientError) as caught:
            call()
        record = aws.last()
        assert caught.value.response["Error"]["Code"] == message
        # HEAD has no body: "404" is all that a client sees.
        assert (record["errorCode"], record["lab"]["code"]) == (written, message)


def test_the_trail_names_a_caller_only_if_its_identity_is_proven(aws, irsa):
    irsa.assume()
    session = irsa.assume()["Credentials"]
    forged = session | {"SecretAccessKey": "another"}
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        aws.client("s3", forged).list_buckets()
    assert aws.last()["userIdentity"] == {"type": "Unknown"}
    assert aws.last()["lab"]["keyOf"].endswith(":assumed-role/my-role/my-pod")
    header, _, signature = aws.issuer.token().split(".")
    claims = aws.issuer.token(sub="system:serviceaccount:kube-system:admin").split(".")[1]
    with pytest.raises(ClientError, match="InvalidIdentityToken"):
        irsa.assume(WebIdentityToken=f"{header}.{claims}.{signature}")
    assert aws.last()["userIdentity"] == {"type": "WebIdentityUser"}
    httpx.get(f"{aws.endpoint}/irsa-lab/hello.txt", trust_env=False, timeout=60)
    assert aws.last()["userIdentity"] == {"type": "AWSAccount", "principalId": "", "accountId": "ANONYMOUS_PRINCIPAL"}


def test_the_trail_shows_parameters_and_policies_but_hides_secrets_and_messages(aws, irsa):
    document = json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]})
    irsa.iam.put_role_policy(RoleName="my-role", PolicyName="none", PolicyDocument=document)
    assert aws.last()["requestParameters"] == {"roleName": "my-role", "policyName": "none", "policyDocument": document}
    aws.client("secretsmanager").create_secret(Name="s", SecretString="planted", Tags=[{"Key": "a", "Value": "b"}])
    kept = aws.last()["requestParameters"]
    assert (kept["name"], kept["secretString"]) == ("s", HIDDEN)
    assert kept["tags"] == [{"key": "a", "value": "b"}]
    sqs = aws.client("sqs")
    url = sqs.create_queue(QueueName="q")["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="a message's body")
    assert aws.last()["requestParameters"] == {"queueUrl": url, "messageBody": HIDDEN}
    assert aws.last()["eventCategory"] == "Data"


def test_assuming_a_role_of_another_account_is_recorded_in_both_accounts(aws, irsa):
    irsa.assume()
    ours = aws.gate.sessions.find(aws.last()["responseElements"]["credentials"]["accessKeyId"])
    arn, account = "arn:aws:iam::210987654321:role/theirs", "210987654321"
    theirs = Session(ours.credentials, arn, "AROATHEIRS", "theirs", account, "x", 0)
    request = AwsRequest(Call("POST", "/", "", [], b""), Sts.api, REGION, "AssumeRole", ACCOUNT)
    outcome = Outcome(request, Response(200, [], b""), ours, Grant(request, "allowed"), theirs)
    both, _ = records(outcome, now=0, account_id=ACCOUNT, identifiers=Identifiers("s"))
    assert [record["recipientAccountId"] for record in both] == [ACCOUNT, "210987654321"]
    assert both[0]["sharedEventID"] == both[1]["sharedEventID"]
    assert both[0]["eventID"] != both[1]["eventID"]
    assert both[0]["userIdentity"]["type"] == "AssumedRole"
    assert both[1]["userIdentity"] == {"type": "AWSAccount", "principalId": ours.principal_id, "accountId": ACCOUNT}


# --- the secrets


# They begin as no word of a record does, because hypothesis also draws texts that it finds in the code.
SECRETS = st.text(string.ascii_letters + string.digits + "+/=&\"'<é", min_size=12, max_size=60).map("é=".__add__)


@pytest.fixture(scope="module")
def logged():
    """The lines that the server would log."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(handler.format(record))
    logging.getLogger().addHandler(handler)
    yield lines
    logging.getLogger().removeHandler(handler)


def ignoring(call):
    try:
        return call()
    except ClientError:
        return None


# Each example makes some 40 calls, so there are only 8. Shrinking an example would show nothing more.
@settings(
    max_examples=8,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(planted=SECRETS)
def test_no_planted_secret_is_in_the_trail_or_in_the_log(aws, irsa, logged, planted):
    s3, iam, sts = aws.client("s3"), aws.client("iam"), aws.client("sts")
    bucket, role = irsa.bucket, irsa.role_arn
    token = aws.issuer.token(claim=planted)
    session = irsa.assume(WebIdentityToken=token)["Credentials"]
    url = aws.client("s3", session, signature_version="s3v4").generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": "hello.txt"}
    )
    iam_user = ignoring(lambda: iam.create_user(UserName="somebody"))
    assert iam_user is None or iam_user["User"]
    made = iam.create_access_key(UserName="somebody")["AccessKey"]
    iam.delete_access_key(UserName="somebody", AccessKeyId=made["AccessKeyId"])
    ssm, secrets, dynamodb = aws.client("ssm"), aws.client("secretsmanager"), aws.client("dynamodb")
    key = (planted * 32)[:32]
    for call in (
        lambda: irsa.assume(WebIdentityToken=planted),
        lambda: sts.assume_role(RoleArn=role, RoleSessionName="s", SerialNumber="m", TokenCode=planted),
        lambda: iam.create_login_profile(UserName="somebody", Password=planted),
        lambda: iam.update_login_profile(UserName=planted, Password=planted),
        lambda: aws.client("s3", session).get_object(Bucket=bucket, Key=session["SecretAccessKey"]),
        lambda: secrets.create_secret(Name=f"s-{abs(hash(planted))}", SecretString=planted),
        lambda: secrets.put_secret_value(SecretId="none", SecretString=planted),
        lambda: aws.client("secretsmanager", session).create_secret(Name="s", SecretString=planted),
        lambda: ssm.put_parameter(Name="/p", Value=planted, Type="SecureString", Overwrite=True),
        lambda: ssm.get_parameter(Name="/p", WithDecryption=True),
        lambda: aws.client("kms").encrypt(KeyId="none", Plaintext=planted.encode()),
        lambda: dynamodb.put_item(TableName="none", Item={"a": {"S": planted}}),
        lambda: dynamodb.query(TableName="none", ExpressionAttributeValues={":a": {"S": planted}}),
        lambda: aws.client("sqs").send_message(QueueUrl=f"{aws.endpoint}/{ACCOUNT}/none", MessageBody=planted),
        lambda: aws.client("sns").publish(TopicArn=f"arn:aws:sns:{REGION}:{ACCOUNT}:none", Message=planted),
        lambda: s3.put_object(Bucket=bucket, Key="k", Body=planted.encode()),
        lambda: s3.get_object(Bucket=bucket, Key="k"),
        lambda: s3.put_object(Bucket=bucket, Key="c", SSECustomerAlgorithm="AES256", SSECustomerKey=key.encode()),
        lambda: s3.get_object(Bucket=bucket, Key=token),
        lambda: s3.list_objects_v2(Bucket=bucket, Prefix=session["SessionToken"]),
        lambda: aws.new_client("s3", "AKIA", "x", planted).list_buckets(),
        lambda: aws.new_client("iam", "AKIA", "x", token).get_role(RoleName=token),
    ):
        ignoring(call)
    with httpx.Client(base_url=aws.endpoint, trust_env=False, timeout=60) as client:
        client.get(url)
        client.get(url.replace("X-Amz-Signature=", "X-Amz-Signature=0"))
        client.get("/", headers={"authorization": f"Bearer {quote(planted)}", "cookie": quote(planted)})
        client.get(f"/{token}/{session['SessionToken']}")
        client.get("/", params={"X-Amz-Security-Token": planted, "X-Amz-Signature": planted})
        client.post("/", params={"Action": "AssumeRoleWithWebIdentity", "WebIdentityToken": planted})
        client.post("/", data={"Action": "AssumeRoleWithWebIdentity", "WebIdentityToken": token, "RoleArn": token})
        client.post("/x", content=planted.encode(), headers={"content-type": "application/x-amz-json-1.1"})
    signature = url.partition("X-Amz-Signature=")[2].partition("&")[0]
    text = aws.trail_file.read_text() + "\n".join(logged)
    hidden = [planted, quote(planted, safe=""), json.dumps(planted)[1:-1], token, token.split(".")[2], signature]
    hidden += [session["SecretAccessKey"], session["SessionToken"], made["SecretAccessKey"]]
    for secret in (*hidden, ADMINISTRATOR.secret_access_key):
        assert secret not in text


# --- the file


def record(number):
    return {"eventName": "GetRole", "eventID": str(number), "lab": {"decision": "allowed", "reason": "x" * 500}}


def test_a_trail_that_is_too_large_is_put_aside_and_only_one_old_file_is_kept(tmp_path):
    file = tmp_path / "trail.jsonl"
    trail = Trail(file, largest=20_000)
    for number in range(200):
        trail.append(record(number))
    assert file.stat().st_size + put_aside(file).stat().st_size <= 40_000
    assert {path.name for path in tmp_path.iterdir()} == {"trail.jsonl", "trail.older.jsonl"}
    assert all(path.stat().st_mode & 0o777 == 0o600 for path in tmp_path.iterdir())
    kept = [int(entry["eventID"]) for entry in Trail.read(file)]
    assert kept == list(range(kept[0], 200))
    assert kept[0] < 180
    assert [entry["eventID"] for entry in Trail.read(file, last=2)] == ["198", "199"]


def test_a_half_written_record_does_not_spoil_the_others(tmp_path):
    file = tmp_path / "trail.jsonl"
    file.write_text('{"eventID":"0"}\n{"eventNa')
    assert [entry["eventID"] for entry in Trail.read(file)] == ["0"]
    Trail(file).append(record(1))
    assert [entry["eventID"] for entry in Trail.read(file)] == ["0", "1"]


def test_records_longer_than_a_block_are_read_whole(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    for number in range(5):
        trail.append({"eventID": str(number), "long": "é" * 100_000})
    assert [entry["eventID"] for entry in Trail.read(trail.file)] == ["0", "1", "2", "3", "4"]
    assert {len(entry["long"]) for entry in Trail.read(trail.file)} == {100_000}


def test_a_reader_of_the_trail_goes_on_after_the_file_is_put_aside(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl", largest=50_000)
    for number in range(300):
        trail.append(record(number))
        newest = next(Trail.newest(trail.file))
        assert newest["eventID"] == str(number)
    reader = Trail.newest(trail.file)
    first = next(reader)["eventID"]
    for number in range(300, 400):
        trail.append(record(number))
    # The reader goes on where it stopped, although the file was put aside in the meantime.
    assert [int(entry["eventID"]) for entry in reader][:50] == list(range(int(first) - 1, int(first) - 51, -1))


def test_a_call_is_answered_although_the_trail_cannot_be_written(aws, irsa, monkeypatch, caplog):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trail, "_write", full)
    assert irsa.iam.get_role(RoleName="my-role")
    assert "No space left on device" in caplog.text
    monkeypatch.undo()
    irsa.iam.get_role(RoleName="my-role")
    assert aws.last()["eventName"] == "GetRole"


# --- labkit trail


def labkit_trail(home, *arguments):
    done = subprocess.run(
        [LABKIT, "trail", *arguments], env={"LABKIT_HOME": str(home), "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_labkit_trail_filters_by_role_decision_and_event(aws, irsa):
    session = irsa.assume(RoleSessionName="my-pod")["Credentials"]
    ignoring(lambda: aws.client("s3", session).put_object(Bucket="irsa-lab", Key="k"))
    home = aws.trail_file.parent
    shown = labkit_trail(home, "--role", "my-role")
    assert "PutObject  my-role/my-pod  AccessDenied" in shown
    assert "administrator" not in shown
    assert "AssumeRole" not in shown
    refused = labkit_trail(home, "--refused", "--json").splitlines()
    assert [json.loads(line)["eventName"] for line in refused] == ["PutObject"]
    exchange = labkit_trail(home, "--event", "AssumeRoleWithWebIdentity")
    assert SUBJECT in exchange
    assert "[bold]" not in exchange
    assert "The trail has no such call." in labkit_trail(home, "--event", "DeleteRole")


def test_labkit_trail_says_that_no_lab_has_left_a_trail(tmp_path):
    command = [LABKIT, "trail"]
    environment = {"LABKIT_HOME": str(tmp_path / "none"), "PATH": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[0].endswith(f"No lab runs in {tmp_path}/none, and no lab has left a trail there.")
    assert "labkit up" in done.stderr


def test_labkit_trail_leaves_out_what_is_not_a_record(tmp_path):
    wrong = ({"eventName": ["x"]}, {"userIdentity": "me"}, {"lab": ["allowed"]}, {"eventTime": 5})
    lines = [json.dumps(record(0) | each) for each in wrong]
    lines += ["[" * 100_000, "1", '{"eventName"', "\x00", json.dumps(record(0) | {"userIdentity": {"arn": 7}})]
    (tmp_path / "trail.jsonl").write_text("\n".join([*lines, json.dumps(record(1))]) + "\n")
    assert len(labkit_trail(tmp_path, "--json").splitlines()) == 2
    assert len(labkit_trail(tmp_path).splitlines()) == 3  # and the table's header


def test_labkit_trail_shows_the_last_20_records_of_a_long_trail(tmp_path):
    file = tmp_path / "trail.jsonl"
    line = json.dumps(record(0) | {"requestParameters": {"x": "y" * 500}}) + "\n"
    file.write_text(line * 100_000)
    reads = []
    reader = Trail.newest(file)
    for _ in range(20):
        reads.append(next(reader))
    assert len(reads) == 20
    assert len(labkit_trail(tmp_path, "--json").splitlines()) == 20


def test_text_with_a_lone_surrogate_is_hidden_or_kept_like_any_other(tmp_path):
    trail = Trail(tmp_path / "trail.jsonl")
    trail.append({"secret": "planted\ud800planted", "said": "\ud800"}, ["planted\ud800planted"])
    assert Trail.read(trail.file) == [{"secret": HIDDEN, "said": "\ud800"}]
