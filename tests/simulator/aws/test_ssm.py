"""SSM's answers where moto's own would be wrong."""

import random
import string

import pytest
from botocore.exceptions import ClientError


def test_a_call_about_a_missing_parameter_does_not_create_it(aws):
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


def test_get_parameters_returns_parameters_in_the_order_of_their_names(aws):
    """moto's own order changes with each start of the lab."""
    ssm, names = aws.client("ssm"), list(string.ascii_lowercase[:10])
    for name in names:
        ssm.put_parameter(Name=name, Value=name, Type="String")
    shuffled = random.Random(1).sample(names, len(names))
    assert [each["Name"] for each in ssm.get_parameters(Names=shuffled)["Parameters"]] == names
