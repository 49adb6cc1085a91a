"""What the embedded target has that the others lack."""

from pathlib import Path

import pytest

import labkit

OTHER = "222222222222"


def test_the_administrator_enters_another_account_of_the_organization(home: Path):
    with labkit.Lab.open() as lab:
        theirs = lab.connection.account(OTHER)
        assert theirs.client("sts").get_caller_identity()["Account"] == OTHER
        assert theirs.region_name == lab.parameters.region
        iam = theirs.client("iam")
        with pytest.raises(iam.exceptions.NoSuchEntityException):
            iam.get_role(RoleName="my-role")
        assert lab.connection.account(lab.account_id) is lab.aws
