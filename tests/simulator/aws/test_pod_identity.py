"""EKS Pod Identity: the agent takes a pod's token to EKS Auth, and the association and the trust policy decide."""

import time
from datetime import datetime

import httpx
import pytest
from botocore.exceptions import ClientError

from labkit.simulator.aws.metadata import InstanceMetadata
from labkit.simulator.aws.pod_identity_agent import PodIdentityAgent
from tests.simulator.aws.conftest import ACCOUNT, AUDIENCE, REGION, document, key_pair, node, refused

FOR_PODS = {"Effect": "Allow", "Principal": {"Service": "pods.eks.amazonaws.com"}}
BOTH = ["sts:AssumeRole", "sts:TagSession"]
CLUSTER = f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/blue"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/app"
UNAUTHORIZED = "Unauthorized Exception! EKS does not have permissions to assume the associated role."
INVALID = "The specified Kubernetes service account token is invalid."
ANOTHER = "https://oidc.eks.us-east-1.amazonaws.com/id/ANOTHER"
SIX_HOURS = 6 * 3600


class Place:
    """A cluster with a node, the node's agent, and a role that is associated with default/cart."""

    def __init__(self, aws):
        self.aws = aws
        self.iam, self.eks = aws.client("iam"), aws.client("eks")
        ec2 = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
        self.iam.create_role(RoleName="node", AssumeRolePolicyDocument=document(ec2))
        self.iam.attach_role_policy(RoleName="node", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy")
        self.iam.create_role(RoleName="app", AssumeRolePolicyDocument=document({**FOR_PODS, "Action": BOTH}))
        self.eks.create_cluster(name="blue", roleArn=ROLE, resourcesVpcConfig={})
        whose = {"clusterName": "blue", "namespace": "default", "serviceAccount": "cart"}
        made = self.eks.create_pod_identity_association(**whose, roleArn=ROLE)["association"]
        self.association = {"clusterName": "blue", "associationId": made["associationId"]}
        credentials = InstanceMetadata(aws.gate, aws.clock, node()).role_session
        agent = PodIdentityAgent(aws.gate, aws.clock, cluster="blue", region=REGION, node_credentials=credentials)
        self.url = f"http://127.0.0.1:{aws.listen(agent)}/v1/credentials"

    def token(self, account="cart", pod="cart-1", **changes):
        about = {"namespace": "default", "serviceaccount": {"name": account, "uid": "1"}}
        about |= {"pod": {"name": pod, "uid": f"uid-of-{pod}"}} if pod else {}
        given = {"aud": ["pods.eks.amazonaws.com"], "kubernetes.io": about, **changes}
        return self.aws.issuer.token(sub=f"system:serviceaccount:default:{account}", **given)

    def ask(self, token):
        headers = {"Authorization": token} if token is not None else {}
        return httpx.get(self.url, headers=headers, trust_env=False, timeout=60)

    def trust(self, *statements):
        self.iam.update_assume_role_policy(RoleName="app", PolicyDocument=document(*statements))


@pytest.fixture
def place(aws):
    return Place(aws)


def client(aws, service, answer):
    given = answer.json()
    return aws.new_client(service, given["AccessKeyId"], given["SecretAccessKey"], given["Token"])


def test_an_associated_service_account_gets_credentials_that_expire(aws, place):
    answer = place.ask(place.token())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert set(answer.json()) == {"AccessKeyId", "SecretAccessKey", "Token", "AccountId", "Expiration"}
    assert answer.json()["AccountId"] == ACCOUNT
    sts = client(aws, "sts", answer)
    arn = sts.get_caller_identity()["Arn"]
    assert arn.startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/eks-blue-cart-1-")
    ends = datetime.fromisoformat(answer.json()["Expiration"]).timestamp()
    assert abs(ends - aws.clock.now() - SIX_HOURS) < 60
    aws.clock.advance(hours=7)
    with pytest.raises(ClientError, match="ExpiredToken"):
        sts.get_caller_identity()
    now = int(aws.clock.now())
    fresh = place.ask(place.token(iat=now, nbf=now, exp=now + 3600))
    assert client(aws, "sts", fresh).get_caller_identity()["Arn"] != arn


def test_the_trail_records_the_node_s_call_and_why_it_was_allowed(aws, place):
    place.ask(place.token())
    record = aws.last()
    assert (record["eventSource"], record["eventName"]) == ("eks-auth.amazonaws.com", "AssumeRoleForPodIdentity")
    assert record["userIdentity"]["sessionContext"]["sessionIssuer"]["userName"] == "node"
    assert record["requestParameters"]["token"] == "HIDDEN_DUE_TO_SECURITY_REASONS"
    assert "the association of default/cart; statement 1 of the trust policy allows" in record["lab"]["reason"]
    assert place.token().split(".")[2] not in aws.trail_file.read_text()


def test_the_session_has_six_tags_for_policies_and_the_next_role_inherits_them(aws, place):
    tags = {
        "eks-cluster-arn": CLUSTER,
        "eks-cluster-name": "blue",
        "kubernetes-namespace": "default",
        "kubernetes-service-account": "cart",
        "kubernetes-pod-name": "cart-1",
        "kubernetes-pod-uid": "uid-of-cart-1",
    }
    required = {f"aws:PrincipalTag/{name}": value for name, value in tags.items()}
    allowed = {"Effect": "Allow", "Action": ["s3:ListAllMyBuckets", "sts:AssumeRole", "sts:TagSession"]}
    allowed |= {"Resource": "*", "Condition": {"StringEquals": required}}
    place.iam.put_role_policy(RoleName="app", PolicyName="tagged", PolicyDocument=document(allowed))
    answer = place.ask(place.token())
    assert client(aws, "s3", answer).list_buckets()["Buckets"] == []
    another = place.ask(place.token(pod="cart-2"))
    with pytest.raises(ClientError, match="no identity-based policy allows the s3:ListAllMyBuckets action"):
        client(aws, "s3", another).list_buckets()
    # Role chaining needs sts:TagSession, too: the tags are transitive.
    next_arn = f"arn:aws:iam::{ACCOUNT}:role/next"
    trusting = {"Effect": "Allow", "Principal": {"AWS": ROLE}, "Action": "sts:AssumeRole"}
    place.iam.create_role(RoleName="next", AssumeRolePolicyDocument=document(trusting))
    sts = client(aws, "sts", answer)
    with pytest.raises(ClientError, match="is not authorized to perform: sts:TagSession on resource"):
        sts.assume_role(RoleArn=next_arn, RoleSessionName="next")
    tagging = {**trusting, "Action": ["sts:AssumeRole", "sts:TagSession"]}
    place.iam.update_assume_role_policy(RoleName="next", PolicyDocument=document(tagging))
    assert sts.assume_role(RoleArn=next_arn, RoleSessionName="next")["Credentials"]


@pytest.mark.parametrize(("statement", "reason"), [
    ({"Action": "sts:AssumeRole"}, "the trust policy lets the service do sts:AssumeRole, and not sts:TagSession"),
    ({"Action": BOTH, "Condition": {"StringEquals": {"aws:RequestTag/kubernetes-namespace": "shop"}}},
     'the trust policy wants aws:RequestTag/kubernetes-namespace StringEquals "shop" ' 'and the request has "default"'),
    ({"Action": BOTH, "Condition": {"ArnEquals": {"aws:SourceArn": CLUSTER.replace("blue", "green")}}}, None),
    ({"Action": BOTH, "Principal": {"Service": "ec2.amazonaws.com"}}, "the trust policy doesn't name pods.eks"),
], ids=["without TagSession", "another namespace", "another cluster", "another service"])  # fmt: skip
def test_eks_auth_refuses_credentials_that_the_trust_policy_does_not_allow(aws, place, statement, reason):
    place.trust({**FOR_PODS, **statement})
    answer = place.ask(place.token())
    assert answer.status_code == 400
    assert answer.text.partition("]: ")[2] == f"(AccessDeniedException): {UNAUTHORIZED}, fault: client\n"
    assert (reason or "aws:SourceArn") in aws.last()["lab"]["reason"]


@pytest.mark.parametrize("condition", [
    {"StringEquals": {"aws:RequestTag/kubernetes-service-account": "cart", "aws:SourceAccount": ACCOUNT}},
    {"ArnEquals": {"aws:SourceArn": CLUSTER}},
])  # fmt: skip
def test_a_trust_policy_can_name_the_cluster_and_the_service_account(place, condition):
    place.trust({**FOR_PODS, "Action": BOTH, "Condition": condition})
    assert place.ask(place.token()).status_code == 200


def test_without_session_tags_the_trust_policy_needs_only_sts_assume_role(aws, place):
    place.trust({**FOR_PODS, "Action": "sts:AssumeRole"})
    place.eks.update_pod_identity_association(**place.association, disableSessionTags=True)
    assert place.ask(place.token()).status_code == 200


def test_eks_auth_gives_credentials_only_to_an_associated_service_account(place):
    assert place.ask(place.token()).status_code == 200
    for answer in (place.ask(place.token("till")), place.eks.delete_pod_identity_association(**place.association)
                   and place.ask(place.token())):  # fmt: skip
        assert answer.status_code == 404
        message = "(ResourceNotFoundException): The specified resource could not be found., fault: client\n"
        assert answer.text.partition("]: ")[2] == message


@pytest.mark.parametrize(
    ("token", "status", "said"),
    [
        (None, 400, "Service account token cannot be empty"),
        ("none", 400, "Service account token cannot be parsed: token is malformed: Not enough segments"),
        ({"exp": int(time.time()) - 1}, 400, "failed basic claim validations: token has invalid claims"),
        ({"aud": [AUDIENCE]}, 400, f"(InvalidTokenException): {INVALID}"),
        ({"iss": ANOTHER}, 400, f"(InvalidTokenException): {INVALID}"),
        ({"key": key_pair()}, 400, f"(InvalidTokenException): {INVALID}"),
        ({"pod": ""}, 400, f"(InvalidTokenException): {INVALID}"),
        ({"kubernetes.io": "none"}, 400, f"(InvalidTokenException): {INVALID}"),
    ],
    ids=["none", "no token", "expired", "for STS", "of another cluster", "forged", "of no pod", "not the cluster's"],
)
def test_the_agent_refuses_a_wrong_token_as_aws_s_agent_does(place, token, status, said):
    answer = place.ask(place.token(**token) if isinstance(token, dict) else token)
    assert answer.status_code == status
    assert said in answer.text
    assert answer.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize(
    ("token", "reason"),
    [
        ({"aud": [AUDIENCE]}, "the token is for sts.amazonaws.com; EKS takes only tokens for pods.eks.amazonaws.com"),
        ({"aud": None}, "the token is for nobody; EKS takes only tokens for pods.eks.amazonaws.com"),
        ({"iss": ANOTHER}, f"the token is from {ANOTHER}; the issuer of blue is ISSUER"),
        ({"iss": None}, "the token is from nobody; the issuer of blue is ISSUER"),
        ({"headers": {"kid": "none"}}, "none of the keys of ISSUER has the id 'none'"),
        ({"headers": {"crit": ["exp"]}}, "The token's header has critical extensions, which AWS doesn't accept"),
        (
            {"key": "a secret of enough length for it", "algorithm": "HS256"},
            "The token is signed with HS256, but must be signed with RS256, RS384, RS512, ES256, ES384 or ES512",
        ),
    ],
    ids=["for STS", "for nobody", "of another cluster", "of nobody", "another key", "critical", "another algorithm"],
)
def test_the_trail_says_why_eks_auth_refuses_a_token(aws, place, token, reason):
    # Without the agent, which refuses some of these tokens before it calls EKS Auth.
    with pytest.raises(ClientError, match=INVALID):
        aws.client("eks-auth").assume_role_for_pod_identity(clusterName="blue", token=place.token(**token))
    assert aws.last()["lab"]["reason"] == reason.replace("ISSUER", aws.issuer.url)


def test_the_node_needs_permission_to_call_eks_auth(aws, place):
    place.iam.detach_role_policy(RoleName="node", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSWorkerNodePolicy")
    answer = place.ask(place.token())
    assert (answer.status_code, "eks-auth:AssumeRoleForPodIdentity" in answer.text) == (403, True)


def test_eks_auth_can_be_called_without_the_agent(aws, place):
    auth = aws.client("eks-auth")
    answer = auth.assume_role_for_pod_identity(clusterName="blue", token=place.token())
    assert answer["subject"] == {"namespace": "default", "serviceAccount": "cart"}
    assert answer["audience"] == "pods.eks.amazonaws.com"
    assert answer["podIdentityAssociation"]["associationId"] == place.association["associationId"]
    assert answer["assumedRoleUser"]["arn"].startswith(f"arn:aws:sts::{ACCOUNT}:assumed-role/app/")
    assert answer["credentials"]["expiration"].timestamp() > aws.clock.now()
    refused(
        lambda: auth.assume_role_for_pod_identity(clusterName="none", token=place.token()),
        404, "ResourceNotFoundException", "No cluster found for name: none.",
    )  # fmt: skip
    expired = place.token(exp=int(time.time()) - 1)
    refused(
        lambda: auth.assume_role_for_pod_identity(clusterName="blue", token=expired),
        400, "ExpiredTokenException", "The specified Kubernetes service account token is expired.",
    )  # fmt: skip
