"""Other accounts of the organization, which only the embedded target has."""

from pathlib import Path

import pytest

import labkit

OTHER = "222222222222"
TRUST = (
    '{{"Version": "2012-10-17", "Statement": '
    '[{{"Effect": "Allow", "Principal": {{"AWS": "{}"}}, "Action": "sts:AssumeRole"}}]}}'
)


def test_the_administrator_enters_another_account_of_the_organization(home: Path):
    with labkit.Lab.open() as lab:
        theirs = lab.connection.account(OTHER)
        assert theirs.client("sts").get_caller_identity()["Account"] == OTHER
        assert theirs.region_name == lab.parameters.region
        iam = theirs.client("iam")
        with pytest.raises(iam.exceptions.NoSuchEntityException):
            iam.get_role(RoleName="my-role")
        assert lab.connection.account(lab.account_id) is lab.aws


def test_a_removal_in_another_account_deletes_only_the_runs_resources(home: Path):
    with labkit.Lab.open() as lab:
        theirs = lab.in_account(OTHER)
        iam, s3 = theirs.aws.client("iam"), theirs.aws.client("s3")
        for name, tags in {"ours": lab.tags, "not-ours": []}.items():
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST.format(lab.account_id), Tags=tags)
        iam.create_open_id_connect_provider(Url=lab.issuer, ClientIDList=["sts.amazonaws.com"], Tags=lab.tags)
        s3.create_bucket(Bucket="ours-of-222222222222")
        s3.put_bucket_tagging(Bucket="ours-of-222222222222", Tagging={"TagSet": lab.tags})
        lab.ready(before="oidc_provider", account=OTHER)
        assert {role["RoleName"] for role in iam.list_roles()["Roles"]} == {"not-ours", "OrganizationAccountAccessRole"}
        assert iam.list_open_id_connect_providers()["OpenIDConnectProviderList"] == []
        assert s3.list_buckets()["Buckets"] == []


def test_a_removal_deletes_the_runs_resources_in_the_second_account(home: Path, capsys: pytest.CaptureFixture[str]):
    with labkit.Lab.open() as lab:
        iam = lab.in_account(OTHER).aws.client("iam")
        for name, tags in {"mine": lab.tags, "theirs": []}.items():
            iam.create_role(RoleName=name, AssumeRolePolicyDocument=TRUST.format(lab.account_id), Tags=tags)
        lab.remove()
        assert "role mine of account 222222222222" in capsys.readouterr().out
        assert not any(role["RoleName"] == "mine" for role in iam.list_roles()["Roles"])
        iam.delete_role(RoleName="theirs")
