"""Opt-in regions: STS refuses calls there until the account enables the region, and all APIs show the same status."""

import pytest
from botocore.config import Config

from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, refused

OFF = "ap-east-1"
OTHER = "111122223333"


@pytest.fixture
def account(aws):
    """A client of the Account Management API. Afterwards, no opt-in region is enabled."""
    client = aws.client("account")
    yield client
    for region in client.list_regions(RegionOptStatusContains=["ENABLED"])["Regions"]:
        client.disable_region(RegionName=region["RegionName"])


def in_region(aws, service, region, credentials=None):
    keys = (ADMINISTRATOR.access_key_id, ADMINISTRATOR.secret_access_key, None)
    if credentials:
        keys = (credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"])
    return aws.session.client(
        service,
        region_name=region,
        endpoint_url=aws.endpoint,
        config=Config(retries={"total_max_attempts": 1}),
        aws_access_key_id=keys[0],
        aws_secret_access_key=keys[1],
        aws_session_token=keys[2],
    )


def disabled(call, account_id=ACCOUNT):
    refused(
        call,
        403, "RegionDisabledException",
        f"STS is not activated in this region for account:{account_id}. "
        "Your account administrator can activate STS in this region using the IAM Console.",
    )  # fmt: skip


def status(account, region=OFF):
    return account.get_region_opt_status(RegionName=region)["RegionOptStatus"]


def test_sts_refuses_calls_in_a_region_until_the_account_enables_it(aws, account, irsa):
    session = irsa.assume()["Credentials"]
    for sts in (in_region(aws, "sts", OFF), in_region(aws, "sts", OFF, session)):
        disabled(sts.get_caller_identity)
        disabled(lambda sts=sts: sts.assume_role(RoleArn=irsa.role_arn, RoleSessionName="name"))
    assert aws.last()["errorCode"] == "RegionDisabledException"
    account.enable_region(RegionName=OFF)
    assert status(account) == "ENABLED"
    for sts in (in_region(aws, "sts", OFF), in_region(aws, "sts", OFF, session)):
        assert sts.get_caller_identity()["Account"] == ACCOUNT
    account.disable_region(RegionName=OFF)
    assert status(account) == "DISABLED"
    disabled(in_region(aws, "sts", OFF).get_caller_identity)


def test_a_wrong_signature_is_refused_before_the_region_is_checked(aws):
    wrong = {"AccessKeyId": ADMINISTRATOR.access_key_id, "SecretAccessKey": "wrong", "SessionToken": None}
    with pytest.raises(aws.client("sts").exceptions.ClientError, match="SignatureDoesNotMatch"):
        in_region(aws, "sts", OFF, wrong).get_caller_identity()


@pytest.mark.parametrize("region", ["us-east-1", "eu-central-1", "ap-northeast-3"])
def test_a_region_that_is_on_by_default_stays_on(aws, account, region):
    assert in_region(aws, "sts", region).get_caller_identity()["Account"] == ACCOUNT
    assert status(account, region) == "ENABLED_BY_DEFAULT"
    for call in (account.enable_region, account.disable_region):
        refused(
            lambda call=call: call(RegionName=region),
            400, "ValidationException",
            f"The region {region} is enabled by default, and can be neither enabled nor disabled.",
        )  # fmt: skip


def test_creating_a_cluster_in_a_region_enables_the_region(aws, account, irsa):
    eks = in_region(aws, "eks", OFF)
    eks.create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    assert status(account) == "ENABLED"
    assert in_region(aws, "sts", OFF).get_caller_identity()["Account"] == ACCOUNT


def test_each_account_has_its_own_regions_and_the_management_account_sees_all(aws, account):
    entrance = f"arn:aws:iam::{OTHER}:role/OrganizationAccountAccessRole"
    session = aws.client("sts").assume_role(RoleArn=entrance, RoleSessionName="admin")["Credentials"]
    account.enable_region(RegionName=OFF)
    disabled(in_region(aws, "sts", OFF, session).get_caller_identity, OTHER)
    theirs = in_region(aws, "account", "us-east-1", session)
    theirs.enable_region(RegionName="me-south-1")
    assert status(account, "me-south-1") == "DISABLED"
    named = {"AccountId": OTHER, "RegionName": "me-south-1"}
    assert account.get_region_opt_status(**named)["RegionOptStatus"] == "ENABLED"
    account.disable_region(**named)
    assert status(theirs, "me-south-1") == "DISABLED"
    with pytest.raises(theirs.exceptions.ValidationException):
        theirs.get_region_opt_status(AccountId=ACCOUNT, RegionName=OFF)


def test_regions_are_listed_by_status_a_page_at_a_time(account):
    account.enable_region(RegionName=OFF)

    def listed(**wanted):
        pages = account.get_paginator("list_regions").paginate(**wanted)
        return {one["RegionName"]: one["RegionOptStatus"] for page in pages for one in page["Regions"]}

    everything = listed()
    assert listed(PaginationConfig={"PageSize": 5}) == everything
    assert listed(RegionOptStatusContains=["ENABLED"]) == {OFF: "ENABLED"}
    assert "us-gov-west-1" not in everything
    assert len(listed(RegionOptStatusContains=["ENABLED_BY_DEFAULT"])) == 17
    refused(
        lambda: account.enable_region(RegionName="mars-north-1"),
        400, "ValidationException", "The region mars-north-1 does not exist.",
    )  # fmt: skip


def test_ec2_and_the_account_api_describe_the_same_regions(aws, account):
    account.enable_region(RegionName=OFF)
    ec2 = aws.client("ec2")

    def described(**wanted):
        return {one["RegionName"]: one["OptInStatus"] for one in ec2.describe_regions(**wanted)["Regions"]}

    same = {"ENABLED_BY_DEFAULT": "opt-in-not-required", "ENABLED": "opted-in", "DISABLED": "not-opted-in"}
    listed = {one["RegionName"]: same[one["RegionOptStatus"]] for one in account.list_regions()["Regions"]}
    assert described(AllRegions=True) == listed
    assert described() == {region: status for region, status in listed.items() if status != "not-opted-in"}
    assert described(RegionNames=["af-south-1"]) == {"af-south-1": "not-opted-in"}
    opted_in = [{"Name": "opt-in-status", "Values": ["opted-in"]}]
    assert described(AllRegions=True, Filters=opted_in) == {OFF: "opted-in"}
    by_name = [{"Name": "region-name", "Values": ["eu-north-*", "us-east-1"]}]
    assert set(described(Filters=by_name)) == {"eu-north-1", "us-east-1"}
    (one,) = ec2.describe_regions(RegionNames=[OFF])["Regions"]
    assert one["Endpoint"] == f"ec2.{OFF}.amazonaws.com"
    for wrong in ({"RegionNames": ["mars-north-1"]}, {"Filters": [{"Name": "planet", "Values": ["mars"]}]}):
        with pytest.raises(ec2.exceptions.ClientError, match="InvalidParameterValue"):
            ec2.describe_regions(**wrong)


def test_assume_role_with_web_identity_works_in_a_region_that_is_not_enabled(aws, irsa):
    """The call isn't signed, so it names no region."""
    sts = in_region(aws, "sts", OFF)
    assert sts.assume_role_with_web_identity(
        RoleArn=irsa.role_arn, RoleSessionName="my-pod", WebIdentityToken=aws.issuer.token()
    )["Credentials"]
