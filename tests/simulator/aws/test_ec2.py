"""EC2's calls about the nodes of clusters: who may make them, and what they answer."""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, REGION, code_of, permit

NODE = "i-0123456789abcdef0"
ARN = f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{NODE}"
MODIFY = "ec2:ModifyInstanceMetadataOptions"
WHO = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod"
REFUSED = f"You are not authorized to perform this operation. User: {WHO}"


@pytest.fixture
def ec2(aws, irsa):
    aws.client("eks").create_cluster(name="blue", roleArn=irsa.role_arn, resourcesVpcConfig={})
    return aws.client("ec2")


def described(ec2, *filters, **named):
    answer = ec2.describe_instances(Filters=[{"Name": name, "Values": values} for name, values in filters], **named)
    return [instance for reservation in answer["Reservations"] for instance in reservation["Instances"]]


def refusal(caught):
    answer = caught.value.response
    return answer["ResponseMetadata"]["HTTPStatusCode"], answer["Error"]["Code"], answer["Error"]["Message"]


def options(ec2):
    (node,) = described(ec2, InstanceIds=[NODE])
    return node["MetadataOptions"]


def test_describe_instances_shows_a_node_by_its_id_or_by_a_filter(ec2):
    (node,) = described(ec2)
    assert (node["InstanceId"], node["PrivateDnsName"], node["State"]["Name"]) == (NODE, "blue-node-1", "running")
    of_blue = ("tag:eks:cluster-name", ["green", "bl*"])
    for filters in ([of_blue], [("instance-id", [NODE]), of_blue], [("instance-state-name", ["running"])]):
        assert described(ec2, *filters) == [node]
    assert described(ec2, of_blue, ("instance-state-name", ["stopped"])) == described(ec2, ("tag:team", ["x"])) == []
    assert code_of(lambda: described(ec2, ("vpc-id", ["x"])))[1] == "NotImplemented"
    assert code_of(lambda: ec2.terminate_instances(InstanceIds=[NODE]))[1] == "NotImplemented"
    assert code_of(lambda: described(ec2, InstanceIds=["i-1"]))[1].startswith("InvalidInstanceID.")
    # Since that call, moto may have instances, too.
    assert described(ec2) == [node]


def test_the_hop_limit_of_a_node_can_be_changed(aws, ec2):
    assert (options(ec2)["HttpPutResponseHopLimit"], options(ec2)["HttpTokens"]) == (1, "required")
    changed = ec2.modify_instance_metadata_options(InstanceId=NODE, HttpPutResponseHopLimit=2)
    assert changed["InstanceMetadataOptions"]["State"] == "pending"
    assert aws.last()["requestParameters"] == {
        "ModifyInstanceMetadataOptionsRequest": {"InstanceId": NODE, "HttpPutResponseHopLimit": "2"}
    }
    for wrong, code in (
        ({"HttpPutResponseHopLimit": 65}, "InvalidParameterValue"),
        ({"HttpPutResponseHopLimit": "two"}, "InvalidParameterValue"),
        ({"HttpTokens": "optional", "HttpPutResponseHopLimit": 3}, "NotImplemented"),
        ({"HttpPutResponseHopLimit": 3, "DryRun": True}, "DryRunOperation"),
    ):
        assert code_of(lambda: ec2.modify_instance_metadata_options(InstanceId=NODE, **wrong))[1] == code
    assert options(ec2)["HttpPutResponseHopLimit"] == 2
    assert aws.gate.unkept == [], "the lab keeps the hop limit"


@pytest.mark.parametrize(("statement", "is_allowed"), [
    (permit(MODIFY, resource=ARN), True),
    (permit(MODIFY) | {"Condition": {"StringEquals": {"aws:ResourceTag/eks:cluster-name": "blue"}}}, True),
    (permit(MODIFY) | {"Condition": {"StringEquals": {"aws:ResourceTag/eks:cluster-name": "green"}}}, False),
    (permit(MODIFY, resource=ARN.replace(NODE, "i-1")), False),
    (permit("ec2:DescribeInstances"), False),
])  # fmt: skip
def test_a_role_changes_the_hop_limit_only_with_the_permission(aws, ec2, irsa, statement, is_allowed):
    irsa.permit(statement)
    client = aws.client("ec2", irsa.assume()["Credentials"])
    if is_allowed:
        client.modify_instance_metadata_options(InstanceId=NODE, HttpPutResponseHopLimit=2)
    else:
        with pytest.raises(ClientError) as caught:
            client.modify_instance_metadata_options(InstanceId=NODE, HttpPutResponseHopLimit=2)
        on = f"{MODIFY} on resource: {ARN} because no identity-based policy allows the {MODIFY} action"
        assert refusal(caught) == (403, "UnauthorizedOperation", f"{REFUSED} is not authorized to perform: {on}")
        assert aws.last()["errorCode"] == "Client.UnauthorizedOperation"
    assert options(ec2)["HttpPutResponseHopLimit"] == (2 if is_allowed else 1)


def test_a_refused_read_of_instances_names_no_resource(aws, ec2, irsa):
    with pytest.raises(ClientError) as caught:
        described(aws.client("ec2", irsa.assume()["Credentials"]))
    why = "because no identity-based policy allows the ec2:DescribeInstances action"
    message = f"{REFUSED} is not authorized to perform: ec2:DescribeInstances {why}"
    assert refusal(caught) == (403, "UnauthorizedOperation", message)
