"""The simulation "Who gets in?" says what STS answers, caller for caller, and why."""

import json

import pytest
from botocore.exceptions import ClientError

from labkit.course import WhoGetsIn, who_gets_in
from tests.simulator.aws.conftest import ACCOUNT, AUDIENCE, ISSUER, ISSUER_HOST, REGION, SUBJECT, trust_policy

SimulatedCaller = who_gets_in.SimulatedCaller
NAME = ISSUER.removeprefix("https://")
OTHER = f"https://{ISSUER_HOST}/id/{'F' * 32}"
CALLERS = [
    SimulatedCaller("this service account", ISSUER, SUBJECT, AUDIENCE),
    SimulatedCaller("another", ISSUER, "system:serviceaccount:default:default", AUDIENCE),
    SimulatedCaller("in another namespace", ISSUER, "system:serviceaccount:elsewhere:my-service-account", AUDIENCE),
    SimulatedCaller("in another cluster", OTHER, SUBJECT, AUDIENCE),
    SimulatedCaller("for another audience", ISSUER, SUBJECT, "https://kubernetes.default.svc"),
    SimulatedCaller("expired", ISSUER, SUBJECT, AUDIENCE, minutes=-60),
    SimulatedCaller("without a subject", ISSUER, "", AUDIENCE),
    SimulatedCaller("with an issuer that isn't a URL", NAME, SUBJECT, AUDIENCE),
    SimulatedCaller("with an http issuer", f"http://{NAME}", SUBJECT, AUDIENCE),
    SimulatedCaller("for ever", ISSUER, SUBJECT, AUDIENCE, minutes=1e13),
    SimulatedCaller("expired before the first year", ISSUER, SUBJECT, AUDIENCE, minutes=-1e13),
]
POLICIES = {
    "step 2's": trust_policy(),
    "a wildcard that admits nobody": trust_policy(Condition={"StringEquals": {f"{NAME}:sub": "system:*"}}),
    "a wildcard that admits the whole cluster": trust_policy(Condition={"StringLike": {f"{NAME}:sub": "system:*"}}),
    "no condition": trust_policy(Condition=None),
    "another action": trust_policy(Action="sts:TagSession"),
    "another provider": trust_policy(Principal={"Federated": f"arn:aws:iam::{ACCOUNT}:oidc-provider/accounts.example"}),
    "a denial": {"Version": "2012-10-17", "Statement": [trust_policy(Condition=None)["Statement"][0],
            trust_policy(Effect="Deny", Condition={"StringLike": {f"{NAME}:sub": "*:default:*"}})["Statement"][0]]},
    "conditions on the request": trust_policy(
        Condition={
            "StringEquals": {"aws:FederatedProvider": f"arn:aws:iam::{ACCOUNT}:oidc-provider/{NAME}"},
            "Bool": {"aws:SecureTransport": "true"},
            "DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"},
        }
    ),
    "a condition on the region": trust_policy(Condition={"StringEquals": {"aws:RequestedRegion": REGION}}),
    "a condition on another region": trust_policy(Condition={"StringEquals": {"aws:RequestedRegion": "eu-north-1"}}),
    "a condition on the role's account": trust_policy(Condition={"StringEquals": {"aws:ResourceAccount": ACCOUNT}}),
    "a condition on another account": trust_policy(Condition={"StringNotEquals": {"aws:ResourceAccount": ACCOUNT}}),
    "a condition on the role's tag": trust_policy(Condition={"StringEquals": {"aws:ResourceTag/team": "shop"}}),
    "a condition on another tag": trust_policy(Condition={"Null": {"iam:ResourceTag/team": "true"}}),
}  # fmt: skip


@pytest.fixture
def simulated(irsa):
    """A function that gives the role a trust policy, and returns the simulation of all callers with this policy."""

    irsa.iam.tag_role(RoleName=irsa.role_name, Tags=[{"Key": "team", "Value": "shop"}])

    def judge(policy):
        irsa.trust(policy)
        return WhoGetsIn(
            irsa.role_name,
            json.dumps(policy, indent=2),
            CALLERS,
            lambda issuer: f"arn:aws:iam::{ACCOUNT}:oidc-provider/{issuer.removeprefix('https://')}",
            lambda issuer: [AUDIENCE] if issuer.removeprefix("https://") == NAME else None,
            irsa.aws.clock.now,
            again=lambda: None,
            context=who_gets_in.of_region_and_role(REGION, {"team": "shop"}),
        )

    return judge


@pytest.mark.parametrize("name", POLICIES)
def test_sts_answers_each_caller_as_simulated(name, simulated, irsa):
    verdicts = simulated(POLICIES[name]).verdicts()
    for caller, verdict in zip(CALLERS, verdicts, strict=True):
        expires = int(irsa.aws.clock.now() + caller.minutes * 60)
        token = irsa.aws.issuer.token(iss=caller.iss, sub=caller.sub, aud=[caller.aud], exp=expires)
        try:
            irsa.assume(WebIdentityToken=token)
        except ClientError as error:
            code = error.response["Error"]["Code"]
        else:
            code = ""
        assert verdict.admitted == (not code), caller.name
        message = irsa.aws.last()["lab"]["reason"]
        # The simulation and STS's call ran in different seconds.
        said = verdict.reason.partition("current date/time")[0]
        assert f"{code}: {message}".startswith(said) if code else message.startswith(said), caller.name
