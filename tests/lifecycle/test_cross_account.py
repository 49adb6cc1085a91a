"""A pod in one account reads a bucket in another account, in each of the two ways that EKS's user guide gives.

https://docs.aws.amazon.com/eks/latest/userguide/cross-account-access.html
"""

import json
from collections.abc import Iterator

import pytest
from kubernetes.client import CoreV1Api
from kubernetes.watch import Watch

import labkit

NAMESPACE, BUCKET, OTHER = "across", "theirs-of-222222222222", "222222222222"
ENTRANCE = f"arn:aws:iam::{OTHER}:role/OrganizationAccountAccessRole"
PROVIDED, CHAINED = (f"arn:aws:iam::{OTHER}:role/{name}" for name in ("provided", "chained"))
ENDS_WITHIN = 120  # seconds; a pod's one command
# The guide's example, with the token's path that the webhook sets.
CONFIG = f"""[profile account_b_role]
source_profile = account_a_role
role_arn = {CHAINED}

[profile account_a_role]
web_identity_token_file = /var/run/secrets/eks.amazonaws.com/serviceaccount/token
role_arn = OURS
"""

pytestmark = pytest.mark.lab(namespace=NAMESPACE, service_account="first", role_name="ours", bucket="ours")


@pytest.fixture(scope="module", autouse=True)
def both_ways(lab: labkit.Lab) -> Iterator[None]:
    """Make a bucket in the other account and, for each of the two ways, its roles and a service account."""
    lab.ready(before="iam_role")
    entered = lab.aws.client("sts").assume_role(RoleArn=ENTRANCE, RoleSessionName="me")["Credentials"]
    keys = {
        "aws_access_key_id": entered["AccessKeyId"],
        "aws_secret_access_key": entered["SecretAccessKey"],
        "aws_session_token": entered["SessionToken"],
    }
    theirs, s3 = lab.aws.client("iam", **keys), lab.aws.client("s3", **keys)
    s3.create_bucket(Bucket=BUCKET)
    s3.put_object(Bucket=BUCKET, Key="hello.txt", Body=b"hello from the other account\n")
    reads = {"Action": "s3:GetObject", "Resource": f"arn:aws:s3:::{BUCKET}/*"}
    ours = lab.connection.role_arn("ours")

    provider = theirs.create_open_id_connect_provider(Url=lab.issuer, ClientIDList=["sts.amazonaws.com"])
    make_role(theirs, "provided", admitting("first", lab, provider["OpenIDConnectProviderArn"]), reads)
    make_role(lab.aws.client("iam"), "ours", admitting("second", lab, lab.provider_arn),
              {"Action": "sts:AssumeRole", "Resource": CHAINED})  # fmt: skip
    make_role(theirs, "chained", {"Action": "sts:AssumeRole", "Principal": {"AWS": ours}}, reads)

    core = CoreV1Api(lab.kubernetes)
    core.create_namespace({"metadata": {"name": NAMESPACE, "labels": lab.labels}})
    core.create_namespaced_config_map(
        NAMESPACE, {"metadata": {"name": "aws"}, "data": {"config": CONFIG.replace("OURS", ours)}}
    )
    for name, role in (("first", PROVIDED), ("second", ours)):
        metadata = {"name": name, "annotations": {"eks.amazonaws.com/role-arn": role}}
        core.create_namespaced_service_account(NAMESPACE, {"metadata": metadata})
    yield
    core.delete_namespace(NAMESPACE)
    lab.aws.client("iam").delete_role_policy(RoleName="ours", PolicyName="inline")
    lab.aws.client("iam").delete_role(RoleName="ours")


def make_role(iam, name: str, trust: dict, permitted: dict) -> None:
    iam.create_role(RoleName=name, AssumeRolePolicyDocument=policy(trust))
    iam.put_role_policy(RoleName=name, PolicyName="inline", PolicyDocument=policy(permitted))


def admitting(account: str, lab: labkit.Lab, provider_arn: str) -> dict:
    issuer = lab.issuer.removeprefix("https://")
    who = {f"{issuer}:sub": f"system:serviceaccount:{NAMESPACE}:{account}", f"{issuer}:aud": "sts.amazonaws.com"}
    return {
        "Action": "sts:AssumeRoleWithWebIdentity",
        "Principal": {"Federated": provider_arn},
        "Condition": {"StringEquals": who},
    }


def policy(statement: dict) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": [{"Effect": "Allow", **statement}]})


def run(lab: labkit.Lab, account: str, line: str) -> tuple[str, int]:
    """Run a shell line in a pod of this service account; return its output and exit code."""
    core = CoreV1Api(lab.kubernetes)
    container = {
        "name": "app",
        "image": "amazon/aws-cli",
        "command": ["sh", "-c", line],
        "env": [{"name": "AWS_CONFIG_FILE", "value": "/aws/config"}],
        "volumeMounts": [{"name": "aws", "mountPath": "/aws"}],
    }
    spec = {
        "serviceAccountName": account,
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [{"name": "aws", "configMap": {"name": "aws"}}],
    }
    made = core.create_namespaced_pod(NAMESPACE, {"metadata": {"generateName": f"{account}-"}, "spec": spec})
    selected = {"field_selector": f"metadata.name={made.metadata.name}", "timeout_seconds": ENDS_WITHIN}
    seen = (event["object"] for event in Watch().stream(core.list_namespaced_pod, NAMESPACE, **selected))
    pod = next(pod for pod in seen if pod.status.phase in ("Succeeded", "Failed"))
    output = core.read_namespaced_pod_log(made.metadata.name, NAMESPACE)
    return output, pod.status.container_statuses[0].state.terminated.exit_code


@pytest.mark.parametrize(
    ("account", "profile", "role"),
    [("first", "", "provided"), ("second", " --profile account_b_role", "chained")],
    ids=["the provider in the other account", "from role to role"],
)
def test_a_pod_reads_a_bucket_in_another_account(lab: labkit.Lab, account: str, profile: str, role: str):
    whoami = f"aws sts get-caller-identity --query Arn --output text{profile}"
    read = f"aws s3 cp s3://{BUCKET}/hello.txt -{profile}"
    output, exit_code = run(lab, account, f"{whoami} && {read}")
    assert exit_code == 0, output
    arn, body = output.splitlines()
    assert arn.startswith(f"arn:aws:sts::{OTHER}:assumed-role/{role}/")
    assert body == "hello from the other account"


def test_a_pod_with_only_its_own_account_s_role_cannot_read_the_other_s_bucket(lab: labkit.Lab):
    output, exit_code = run(lab, "second", f"aws s3 cp s3://{BUCKET}/hello.txt -")
    assert exit_code != 0
    # The AWS CLI sends a HEAD request first, and its answer has no body that could say why.
    assert "(403) when calling the HeadObject operation: Forbidden" in output
    head = next(call for call in reversed(lab.trail().records) if call["eventName"] == "HeadObject")
    assert "no identity-based policy allows s3:GetObject" in head["lab"]["reason"]


def test_sts_refuses_a_role_s_token_exchange_to_another_service_account(lab: labkit.Lab):
    output, exit_code = run(lab, "second", f"AWS_ROLE_ARN={PROVIDED} aws sts get-caller-identity")
    assert exit_code != 0
    assert "(AccessDenied) when calling the AssumeRoleWithWebIdentity operation" in output
    assert "Not authorized to perform sts:AssumeRoleWithWebIdentity" in output
