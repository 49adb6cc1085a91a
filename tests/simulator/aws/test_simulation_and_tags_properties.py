"""Any parameters of a simulation, and any tags in a token, get an answer or a client error."""

from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.policy import Principal, Request, evaluate
from labkit.simulator.aws import session_tags, simulation
from labkit.simulator.aws.actions import requests
from labkit.simulator.aws.answers import Refusal
from labkit.simulator.aws.call import AwsRequest, Call
from labkit.simulator.aws.organizations import Organization
from labkit.simulator.aws.services.iam import Iam
from tests.policy.test_properties import read
from tests.simulator.aws.conftest import ACCOUNT

POLICY = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "${aws:x, \'*\'}"}}'
NAMES = [
    "ActionNames.member.1", "ActionNames.member.x", "ActionNames", "CallerArn", "ContextEntries.member.1",
    "ContextEntries.member.1.ContextKeyName", "ContextEntries.member.1.ContextKeyType",
    "ContextEntries.member.1.ContextKeyValues.member.1", "ContextEntries.member.2.ContextKeyValues.member.1", "Marker",
    "MaxItems", "PermissionsBoundaryPolicyInputList.member.1", "PolicyInputList.member.1", "PolicyInputList.member.2",
    "PolicySourceArn", "ResourceArns.member.1", "ResourceHandlingOption", "ResourceOwner", "ResourcePolicy",
]  # fmt: skip
VALUES = [
    "", "0", "-1", "1", "5000", "s3:GetObject", "*", "arn:aws:s3:::b/k", "arn:::::", POLICY, "{}", "[", "string",
    "dateList", "ip", "2026-01-01", "aws:SourceIp", f"arn:aws:iam::{ACCOUNT}:user/ann", f"arn:aws:iam::{ACCOUNT}:root",
    f"arn:aws:iam::{ACCOUNT}:role/my-role", "999999999999",
]  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(sorted(simulation.OPERATIONS)),
    st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES) | st.text(max_size=6), max_size=8),
)
def test_a_simulation_answers_any_parameters_or_refuses_them_as_a_client_error(irsa, operation, parameters):
    good = {"Action": operation, "Version": "2010-05-08", "ActionNames.member.1": "s3:GetObject"}
    good |= {"PolicyInputList.member.1": POLICY, "PolicySourceArn": irsa.role_arn}
    body = urlencode(good | parameters, errors="replace").encode()
    headers = [("content-type", "application/x-www-form-urlencoded")]
    request = requests.with_parameters(
        AwsRequest(Call("POST", "/", "", headers, body), Iam.api, "us-east-1", operation)
    )
    try:
        answer = simulation.answer(
            request, irsa.aws.gate.backend, Organization(irsa.aws.gate.backend, irsa.aws.identifiers)
        )
    except Refusal as refusal:
        assert refusal.status < 500
        refusal.message.encode()
    else:
        assert answer.status == 200


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["principal_tags", "transitive_tag_keys", "Team", "team"]) | st.text(max_size=3),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)
CLAIMS = ["", "/principal_tags/Team", "/principal_tags/", "/transitive_tag_keys"]


@given(st.dictionaries(st.sampled_from([session_tags.CLAIM + end for end in CLAIMS]), anything))
def test_any_claims_become_tags_within_the_limits_or_are_refused(claims):
    try:
        tags = session_tags.of_token(claims)
    except Refusal as refusal:
        assert (refusal.status, refusal.code) == (400, "ValidationError")
        return
    assert len(tags.passed) <= session_tags.MOST
    assert len({key.lower() for key in tags.passed}) == len(tags.passed)
    assert set(tags.transitive) <= set(tags.passed)
    assert all(1 <= len(key) <= 128 and len(value) <= 256 for key, value in tags.passed.items())


@pytest.mark.parametrize("tag", ["*", "b*", "?", "${*}", "b/../x", "${aws:username}"])
def test_a_tag_s_value_is_never_a_wildcard_nor_a_variable(tag):
    policy = read(
        [{"Effect": "Allow", "Action": "*", "Resource": "arn:aws:s3:::b/${aws:PrincipalTag/Team}"}], "identity"
    )
    me = Principal.role_session(f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/x")
    context = session_tags.SessionTags({"Team": tag}).of_session()
    assert not evaluate(Request(me, "s3:GetObject", "arn:aws:s3:::b/blue", context), identity=[policy])
    assert evaluate(Request(me, "s3:GetObject", f"arn:aws:s3:::b/{tag}", context), identity=[policy])
