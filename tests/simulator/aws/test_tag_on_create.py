"""A caller who creates a resource with tags also needs permission to tag it.

https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
"""

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ISSUER

TRUST = (
    '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"},'
    ' "Action": "sts:AssumeRole"}]}'
)
POLICY = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
TAGS = [{"Key": "team", "Value": "blue"}]


@pytest.mark.parametrize(("method", "creates", "tags", "parameters"), [
    ("create_role", "iam:CreateRole", "iam:TagRole", {"RoleName": "new", "AssumeRolePolicyDocument": TRUST}),
    ("create_open_id_connect_provider", "iam:CreateOpenIDConnectProvider", "iam:TagOpenIDConnectProvider",
     {"Url": f"{ISSUER}/other", "ClientIDList": ["sts.amazonaws.com"]}),
    ("create_policy", "iam:CreatePolicy", "iam:TagPolicy", {"PolicyName": "new", "PolicyDocument": POLICY}),
])  # fmt: skip
def test_creating_an_iam_resource_with_tags_needs_permission_to_tag_it(aws, irsa, method, creates, tags, parameters):
    irsa.permit({"Effect": "Allow", "Action": creates, "Resource": "*"})
    iam = aws.client("iam", irsa.assume()["Credentials"])
    with pytest.raises(ClientError) as refused:
        getattr(iam, method)(**parameters, Tags=TAGS)
    assert f"is not authorized to perform: {tags} on resource" in refused.value.response["Error"]["Message"]
    irsa.permit({"Effect": "Allow", "Action": [creates, tags], "Resource": "*"})
    assert getattr(iam, method)(**parameters, Tags=TAGS)
