"""``aws cloudtrail lookup-events`` answers from the trail, as CloudTrail's event history does."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, ISSUER, REGION, SUBJECT, refused, trust_policy

LOOKUP = {"Effect": "Allow", "Action": "cloudtrail:LookupEvents", "Resource": "*"}


def names(answer):
    return [event["EventName"] for event in answer["Events"]]


def by(key, value):
    return [{"AttributeKey": key, "AttributeValue": value}]


@pytest.fixture
def cloudtrail(aws):
    return aws.client("cloudtrail")


def test_lookup_events_returns_the_newest_first_without_the_lab_s_own_fields(aws, irsa, cloudtrail):
    session = irsa.assume(RoleSessionName="my-pod")
    key = session["Credentials"]["AccessKeyId"]
    answer = cloudtrail.lookup_events(MaxResults=2)
    assert names(answer) == ["AssumeRoleWithWebIdentity", "CreateBucket"]
    event = answer["Events"][0]
    assert event["Username"] == SUBJECT
    assert (event["EventSource"], event["ReadOnly"]) == ("sts.amazonaws.com", "true")
    assert {"ResourceType": "AWS::IAM::Role", "ResourceName": irsa.role_arn} in event["Resources"]
    assert {"ResourceType": "AWS::IAM::AccessKey", "ResourceName": key} in event["Resources"]
    assert abs(event["EventTime"] - datetime.now(UTC)) < timedelta(seconds=10)
    record = json.loads(event["CloudTrailEvent"])
    assert "lab" not in record
    (stored,) = [entry for entry in aws.trail() if entry["eventID"] == event["EventId"]]
    assert record == {name: value for name, value in stored.items() if name != "lab"}
    assert session["ResponseMetadata"]["RequestId"] == record["requestID"]


def test_get_trail_status_of_a_logging_trail_shows_no_delivery(aws, irsa, cloudtrail):
    cloudtrail.create_trail(Name="trail", S3BucketName=irsa.bucket)
    cloudtrail.start_logging(Name="trail")
    status = cloudtrail.get_trail_status(Name="trail")
    assert (status["IsLogging"], status["LatestDeliveryAttemptTime"]) == (True, "")
    assert "LatestDeliveryTime" not in status
    assert abs(status["StartLoggingTime"] - datetime.now(UTC)) < timedelta(seconds=60)
    refused(
        lambda: cloudtrail.get_trail_status(Name="other"),
        400, "TrailNotFoundException",
        f"Unknown trail: arn:aws:cloudtrail:{REGION}:{ACCOUNT}:trail/other for the user: {ACCOUNT}",
    )  # fmt: skip


def test_one_attribute_narrows_the_lookup(aws, irsa, cloudtrail):
    session = irsa.assume(RoleSessionName="my-pod")["Credentials"]
    aws.client("sts", session).get_caller_identity()
    (exchange,) = cloudtrail.lookup_events(LookupAttributes=by("EventName", "AssumeRoleWithWebIdentity"))["Events"]
    for key, value, expected in (
        ("EventId", exchange["EventId"], ["AssumeRoleWithWebIdentity"]),
        ("EventSource", "sts.amazonaws.com", ["GetCallerIdentity", "AssumeRoleWithWebIdentity"]),
        ("AccessKeyId", session["AccessKeyId"], ["GetCallerIdentity"]),
        ("Username", "my-pod", ["GetCallerIdentity"]),
        ("Username", SUBJECT, ["AssumeRoleWithWebIdentity"]),
        ("ResourceName", "my-role", ["AttachRolePolicy", "CreateRole"]),
        ("ResourceName", irsa.role_arn, ["AssumeRoleWithWebIdentity"]),
        ("ResourceType", "AWS::S3::Bucket", ["CreateBucket"]),
        ("EventName", "my-role", []),
        ("EventName", "Assume", []),
    ):
        assert names(cloudtrail.lookup_events(LookupAttributes=by(key, value))) == expected, (key, value)
    writes = names(cloudtrail.lookup_events(LookupAttributes=by("ReadOnly", "false")))
    assert writes == ["CreateBucket", "AttachRolePolicy", "CreateRole", "CreateOpenIDConnectProvider"]
    assert "AssumeRoleWithWebIdentity" in names(cloudtrail.lookup_events(LookupAttributes=by("ReadOnly", "true")))


def test_data_events_and_unauthenticated_calls_are_not_in_the_history(aws, irsa, cloudtrail):
    session = irsa.assume()["Credentials"]
    aws.client("s3", session).get_object(Bucket=irsa.bucket, Key="hello.txt")
    refused(
        lambda: aws.client("s3", session).put_object(Bucket=irsa.bucket, Key="mine", Body=b""),
        403, "AccessDenied",
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: s3:PutObject "
        f'on resource: "arn:aws:s3:::irsa-lab/mine" because no identity-based policy allows the s3:PutObject action',
    )  # fmt: skip
    with pytest.raises(cloudtrail.exceptions.ClientError, match="InvalidIdentityToken"):
        irsa.assume(WebIdentityToken="not.a.token")
    with pytest.raises(cloudtrail.exceptions.ClientError, match="SignatureDoesNotMatch"):
        aws.new_client("iam", ADMINISTRATOR.access_key_id, "another secret").list_roles()
    assert [record["eventName"] for record in aws.trail()][-4:] == [
        "GetObject",
        "PutObject",
        "AssumeRoleWithWebIdentity",
        "ListRoles",
    ]
    assert names(cloudtrail.lookup_events(MaxResults=2)) == ["AssumeRoleWithWebIdentity", "CreateBucket"]


def test_the_event_history_says_as_little_about_a_denied_exchange_as_aws_does(aws, irsa, cloudtrail):
    token = aws.issuer.token(sub="system:serviceaccount:default:other")
    with pytest.raises(cloudtrail.exceptions.ClientError, match="AccessDenied"):
        irsa.assume(WebIdentityToken=token)
    (event,) = cloudtrail.lookup_events(MaxResults=1)["Events"]
    record = json.loads(event["CloudTrailEvent"])
    assert (record["errorCode"], record["errorMessage"]) == ("AccessDenied", "An unknown error occurred")
    assert event["Username"] == record["userIdentity"]["userName"] == "system:serviceaccount:default:other"
    assert "StringEquals" in aws.trail()[-2]["lab"]["reason"]


def test_the_event_history_goes_by_the_lab_s_clock_and_ends_after_90_days(aws, irsa, cloudtrail):
    now = datetime.now(UTC)
    assert names(cloudtrail.lookup_events(StartTime=now + timedelta(hours=1))) == []
    assert names(cloudtrail.lookup_events(EndTime=now - timedelta(hours=1))) == []
    aws.clock.advance(hours=2)
    irsa.iam.get_role(RoleName="my-role")
    later = cloudtrail.lookup_events(StartTime=now + timedelta(hours=1))
    assert names(later) == ["GetRole"]
    assert "CreateRole" in names(cloudtrail.lookup_events(EndTime=now + timedelta(hours=1)))
    aws.clock.advance(days=90)
    assert "CreateRole" not in names(cloudtrail.lookup_events())


def test_the_pages_of_a_lookup_stay_the_same_while_calls_come_in(aws, irsa, cloudtrail):
    for number in range(7):
        irsa.iam.tag_role(RoleName="my-role", Tags=[{"Key": "n", "Value": str(number)}])
    attributes = by("EventName", "TagRole")
    first = cloudtrail.lookup_events(LookupAttributes=attributes, MaxResults=3)
    irsa.iam.tag_role(RoleName="my-role", Tags=[{"Key": "n", "Value": "late"}])
    token = first["NextToken"]
    second = cloudtrail.lookup_events(LookupAttributes=attributes, MaxResults=3, NextToken=token)
    third = cloudtrail.lookup_events(LookupAttributes=attributes, MaxResults=3, NextToken=second["NextToken"])
    events = [*first["Events"], *second["Events"], *third["Events"]]
    tags = [json.loads(event["CloudTrailEvent"])["requestParameters"]["tags"][0]["value"] for event in events]
    assert tags == ["6", "5", "4", "3", "2", "1", "0"]
    assert "NextToken" not in third

    paginator = cloudtrail.get_paginator("lookup_events")
    pages = paginator.paginate(LookupAttributes=attributes, PaginationConfig={"PageSize": 3})
    assert [len(page["Events"]) for page in pages] == [3, 3, 2]

    message = "The token comes from a lookup with other parameters."
    refused(lambda: cloudtrail.lookup_events(NextToken=token), 400, "InvalidNextTokenException", message)
    aws.trail_file.unlink()
    message = "The event that the token names is no longer kept."
    refused(
        lambda: cloudtrail.lookup_events(LookupAttributes=attributes, MaxResults=3, NextToken=token),
        400, "InvalidNextTokenException", message,
    )  # fmt: skip


@pytest.mark.parametrize(("request_", "code", "message"), [
    ({"MaxResults": 51}, "InvalidMaxResults", "MaxResults is 51. It must be from 1 to 50."),
    ({"MaxResults": 0}, "InvalidMaxResults", "MaxResults is 0. It must be from 1 to 50."),
    ({"NextToken": "x"}, "InvalidNextToken", "LookupEvents didn't return this token."),
    ({"NextToken": "é"}, "InvalidNextToken", "LookupEvents didn't return this token."),
    ({"StartTime": 2, "EndTime": 1}, "InvalidTimeRange", "The start time is after the end time."),
    ({"EventCategory": "data"}, "InvalidEventCategory", "Unknown event category data. Use insight."),
    ({"LookupAttributes": by("EventName", "a") * 2}, "InvalidLookupAttributes",
     "A lookup can have only one attribute beside the time range."),
    ({"LookupAttributes": by("Color", "a")}, "InvalidLookupAttributes",
     "Unknown lookup attribute Color. Use one of AccessKeyId, EventId, EventName, EventSource, ReadOnly, "
     "ResourceName, ResourceType, Username."),
    ({"LookupAttributes": by("EventName", "")}, "InvalidLookupAttributes",
     "The value of EventName must have 1 to 2000 characters."),
    ({"LookupAttributes": by("ReadOnly", "yes")}, "InvalidLookupAttributes",
     "ReadOnly must be true or false, not yes."),
])  # fmt: skip
def test_lookup_events_refuses_an_invalid_request(cloudtrail, request_, code, message):
    refused(lambda: cloudtrail.lookup_events(**request_), 400, f"{code}Exception", message)


def test_a_lookup_finds_no_insights_and_no_events_of_another_region(aws, irsa, cloudtrail):
    assert cloudtrail.lookup_events(EventCategory="insight")["Events"] == []
    keys = {"aws_access_key_id": ADMINISTRATOR.access_key_id, "aws_secret_access_key": ADMINISTRATOR.secret_access_key}
    elsewhere = aws.session.client("cloudtrail", endpoint_url=aws.endpoint, region_name="eu-west-1", **keys)
    assert names(elsewhere.lookup_events()) == []
    assert names(elsewhere.lookup_events()) == ["LookupEvents"]


def test_a_role_session_needs_permission_to_look_up_events(aws, irsa):
    session = aws.client("cloudtrail", irsa.assume()["Credentials"])
    message = (
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: "
        "cloudtrail:LookupEvents because no identity-based policy allows the cloudtrail:LookupEvents action"
    )
    refused(session.lookup_events, 400, "AccessDeniedException", message)
    # The record has CloudTrail's spelling. The lab's own part has the code that the caller got.
    assert (aws.last()["errorCode"], aws.last()["lab"]["code"]) == ("AccessDenied", "AccessDeniedException")
    irsa.permit(LOOKUP)
    assert names(session.lookup_events(MaxResults=1)) == ["PutRolePolicy"]


def test_the_aws_cli_looks_up_events(aws, irsa, tmp_path):
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "AWS_ACCESS_KEY_ID": ADMINISTRATOR.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR.secret_access_key,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "NO_PROXY": "*",
    }
    program = Path(sys.executable).parent / "aws"
    arguments = ["cloudtrail", "lookup-events", "--endpoint-url", aws.endpoint, "--output", "json", "--no-paginate"]
    arguments += ["--lookup-attributes", "AttributeKey=EventName,AttributeValue=CreateRole"]
    done = subprocess.run([program, *arguments], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (event,) = json.loads(done.stdout)["Events"]
    assert event["Username"] == "administrator"
    assert event["Resources"] == [{"ResourceType": "AWS::IAM::Role", "ResourceName": "my-role"}]


def test_the_event_history_shows_a_refused_trust_policy_with_its_error(aws, irsa):
    with_scheme = json.dumps(trust_policy(Condition={"StringEquals": {f"{ISSUER}:sub": SUBJECT}}))
    refused(
        lambda: irsa.iam.update_assume_role_policy(RoleName=irsa.role_name, PolicyDocument=with_scheme),
        400, "MalformedPolicyDocument", "Condition can contain only one colon.",
    )  # fmt: skip
    for key, value in (("ResourceName", irsa.role_name), ("EventName", "UpdateAssumeRolePolicy")):
        wanted = [{"AttributeKey": key, "AttributeValue": value}]
        event = aws.client("cloudtrail").lookup_events(LookupAttributes=wanted)["Events"][0]
        assert event["EventName"] == "UpdateAssumeRolePolicy"
        record = json.loads(event["CloudTrailEvent"])
        assert record["errorCode"] == "MalformedPolicyDocumentException"
        assert record["errorMessage"] == "Condition can contain only one colon."
        assert record["requestParameters"] == {"roleName": irsa.role_name, "policyDocument": with_scheme}
