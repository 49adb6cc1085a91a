"""What moto would do wrong in SSM."""

import pytest
from botocore.exceptions import ClientError


def test_a_parameter_that_is_missing_is_still_missing_after_a_call_about_it(aws):
    ssm = aws.client("ssm")
    ssm.put_parameter(Name="one", Value="1", Type="String")
    for call in (
        lambda: ssm.label_parameter_version(Name="two", Labels=["label"]),
        lambda: ssm.get_parameter_history(Name="two"),
        lambda: ssm.get_parameter(Name="two"),
    ):
        with pytest.raises(ClientError, match="ParameterNotFound"):
            call()
    assert [each["Name"] for each in ssm.describe_parameters()["Parameters"]] == ["one"]
    assert ssm.get_parameters(Names=["two"])["InvalidParameters"] == ["two"]
