"""Any parameters for a service that speaks JSON: never a 500, and always a refusal without permissions."""

import json

import botocore.auth
import httpx
import pytest
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulator.aws.conftest import REGION, Irsa, trust_policy

SERVICES = ("cloudtrail", "dynamodb", "secretsmanager", "sqs")
TEXTS = ["", "table", "queue", "&Action=DeleteTable", "*", "é", "\ud800", "../x", "1e300", "AA", "k = :k", "SET k = :k"]
ATOMS = st.one_of(st.sampled_from(TEXTS), st.none(), st.booleans(), st.sampled_from([0, -1, 10**30, 1.5, 1e300]))
JUNK = st.recursive(
    ATOMS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["S", "N", "B", "k", "Key", "Value"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def sessions(running):
    """The lab; a session that may do nothing and one that may do everything; the services' models; an HTTP client."""
    running.begin_anew()
    irsa = Irsa(running)
    irsa.permit({"Effect": "Allow", "Action": "*", "Resource": "*"})
    irsa.iam.create_role(RoleName="nobody", AssumeRolePolicyDocument=json.dumps(trust_policy()))
    issued = {
        "nobody": running.gate.sessions.issue(irsa.role_arn.replace("my-role", "nobody"), "any", 3600),
        "everybody": running.gate.sessions.issue(irsa.role_arn, "any", 3600),
    }
    models = {service: running.client(service).meta.service_model for service in SERVICES}
    with httpx.Client(trust_env=False, timeout=60) as client:
        yield running, issued, models, client


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
@pytest.mark.parametrize("who", ["nobody", "everybody"])
def test_no_parameters_cause_a_500_or_get_past_a_missing_permission(sessions, who, data):
    aws, issued, models, client = sessions
    model = models[data.draw(st.sampled_from(SERVICES))]
    operation = model.operation_model(data.draw(st.sampled_from(model.operation_names)))
    members = list(operation.input_shape.members) if operation.input_shape else []
    names = st.sampled_from([*members, "Unknown"])
    body = json.dumps(data.draw(st.dictionaries(names, JUNK, max_size=6))).encode()
    version, prefix = model.metadata["jsonVersion"], model.metadata["targetPrefix"]
    headers = {"Content-Type": f"application/x-amz-json-{version}", "X-Amz-Target": f"{prefix}.{operation.name}"}
    request = AWSRequest("POST", aws.endpoint + "/", data=body, headers=headers)
    keys = issued[who]
    signer = botocore.auth.SigV4Auth(
        Credentials(keys.access_key_id, keys.secret_access_key, keys.session_token), model.signing_name, REGION
    )
    signer.add_auth(request)
    answer = client.post(aws.endpoint + "/", content=body, headers={n: str(v) for n, v in request.headers.items()})
    assert answer.status_code != 500, answer.text
    if who == "nobody":
        assert 400 <= answer.status_code < 500, answer.text
