"""IAM's policy simulator answers as AWS's does, and evaluates policies exactly as the gate does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labkit.policy import Principal
from labkit.simulator.aws.call import S3, AwsRequest, Call, Permission
from tests.simulator.aws.conftest import ACCOUNT, ADMINISTRATOR, REGION, refused

ROLE = f"arn:aws:iam::{ACCOUNT}:role/my-role"
OBJECT = "arn:aws:s3:::irsa-lab/hello.txt"


def policy(*statements):
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def allow(action="s3:GetObject", resource="*", **fields):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | fields


def deny(action="s3:GetObject", resource="*", **fields):
    return allow(action, resource, **fields) | {"Effect": "Deny"}


def entry(name, *values, kind="string"):
    return {"ContextKeyName": name, "ContextKeyValues": list(values), "ContextKeyType": kind}


def custom(aws, *documents, actions=("s3:GetObject",), **others):
    given = {"PolicyInputList": list(documents), "ActionNames": list(actions)}
    answer = aws.client("iam").simulate_custom_policy(**given, **others)
    return answer["EvaluationResults"]


def of_role(aws, *actions, **others):
    answer = aws.client("iam").simulate_principal_policy(
        PolicySourceArn=ROLE, ActionNames=list(actions) or ["s3:GetObject"], **others
    )
    return answer["EvaluationResults"]


def decisions(results):
    return [result["EvalDecision"] for result in results]


def test_the_simulator_answers_the_example_in_aws_s_documentation(aws):
    document = (
        '{"Version":"2012-10-17","Statement":{"Effect":"Allow","Action":"dynamodb:*","Resource":"*",'
        '"Condition":{"DateGreaterThan":{"aws:CurrentTime":"2018-08-16T12:00:00Z"}}}}'
    )

    def at(time):
        entries = [entry("aws:CurrentTime", time, kind="date")]
        return custom(aws, document, actions=["dynamodb:CreateBackup"], ContextEntries=entries)

    assert at("2019-04-25T11:00:00Z") == [
        {
            "EvalActionName": "dynamodb:CreateBackup",
            "EvalResourceName": "*",
            "EvalDecision": "allowed",
            "MatchedStatements": [
                {
                    "SourcePolicyId": "PolicyInputList.1",
                    "SourcePolicyType": "IAM Policy",
                    "StartPosition": {"Line": 1, "Column": 38},
                    "EndPosition": {"Line": 1, "Column": 167},
                }
            ],
            "MissingContextValues": [],
        }
    ]
    (early,) = at("2014-04-25T11:00:00Z")
    assert (early["EvalDecision"], early["MatchedStatements"]) == ("implicitDeny", [])


def test_the_simulator_names_a_role_s_policies_as_aws_does(aws, irsa):
    irsa.permit(allow("s3:PutObject"))
    document = json.dumps({"Version": "2012-10-17", "Statement": [allow("s3:GetObject"), allow("s3:*")]}, indent=4)
    arn = irsa.iam.create_policy(PolicyName="mine", PolicyDocument=document)["Policy"]["Arn"]
    irsa.iam.attach_role_policy(RoleName="my-role", PolicyArn=arn)
    irsa.iam.attach_role_policy(RoleName="my-role", PolicyArn=irsa.policy_arn)
    put, get, other = of_role(aws, "s3:PutObject", "s3:GetObject", "sqs:SendMessage", ResourceArns=[OBJECT])
    assert decisions([put, get, other]) == ["allowed", "allowed", "implicitDeny"]
    assert [s["SourcePolicyId"] for s in put["MatchedStatements"]] == ["role_my-role_inline", "mine"]
    first, second, _ = get["MatchedStatements"]
    assert first == {
        "SourcePolicyId": "mine",
        "SourcePolicyType": "IAM Policy",
        "StartPosition": {"Line": 3, "Column": 19},
        "EndPosition": {"Line": 8, "Column": 10},
    }
    assert second["StartPosition"] == {"Line": 8, "Column": 10}
    assert get["MatchedStatements"][2]["SourcePolicyId"] == "AmazonS3ReadOnlyAccess"
    assert (other["EvalResourceName"], other["EvalDecisionDetails"]) == (OBJECT, {})


def test_the_simulator_uses_a_policy_s_default_version(aws, irsa):
    arn = irsa.iam.create_policy(PolicyName="mine", PolicyDocument=policy(allow("sqs:*")))["Policy"]["Arn"]
    irsa.iam.attach_role_policy(RoleName="my-role", PolicyArn=arn)
    assert decisions(of_role(aws, "sqs:SendMessage")) == ["allowed"]
    irsa.iam.create_policy_version(PolicyArn=arn, PolicyDocument=policy(deny("sqs:*")), SetAsDefault=True)
    assert decisions(of_role(aws, "sqs:SendMessage")) == ["explicitDeny"]
    irsa.iam.set_default_policy_version(PolicyArn=arn, VersionId="v1")
    assert decisions(of_role(aws, "sqs:SendMessage")) == ["allowed"]


def test_several_resources_make_one_result_with_the_strictest_decision(aws):
    documents = [policy(allow(resource="arn:aws:s3:::a/*"), deny(resource="arn:aws:s3:::b/*"))]
    (result,) = custom(aws, *documents, ResourceArns=["arn:aws:s3:::a/1", "arn:aws:s3:::b/1", "arn:aws:s3:::c/1"])
    assert result["EvalResourceName"] == "arn:${Partition}:s3:::${BucketName}/${KeyName}"
    assert result["EvalDecision"] == "explicitDeny"
    assert len(result["MatchedStatements"]) == 1
    each = {r["EvalResourceName"]: r["EvalResourceDecision"] for r in result["ResourceSpecificResults"]}
    assert each == {
        "arn:aws:s3:::a/1": "allowed",
        "arn:aws:s3:::b/1": "explicitDeny",
        "arn:aws:s3:::c/1": "implicitDeny",
    }
    (listing,) = custom(aws, *documents, actions=["s3:ListBucket"], ResourceArns=["arn:aws:s3:::a", "arn:aws:s3:::b"])
    assert listing["EvalResourceName"] == "arn:${Partition}:s3:::${BucketName}"


def test_the_simulator_lists_the_missing_context_keys(aws):
    document = policy(
        allow(resource="arn:aws:s3:::${aws:PrincipalTag/team}/*", Condition={"Bool": {"aws:SecureTransport": "true"}}),
        allow("sqs:*", Condition={"Bool": {"aws:MultiFactorAuthPresent": "true"}}),
    )
    (result,) = custom(aws, document, ResourceArns=["arn:aws:s3:::blue/x"])
    assert result["EvalDecision"] == "implicitDeny"
    assert sorted(result["MissingContextValues"]) == ["aws:PrincipalTag/team", "aws:SecureTransport"]
    given_ones = [entry("aws:principaltag/TEAM", "blue"), entry("aws:SecureTransport", "true", kind="boolean")]
    (result,) = custom(aws, document, ResourceArns=["arn:aws:s3:::blue/x"], ContextEntries=given_ones)
    assert (result["EvalDecision"], result["MissingContextValues"]) == ("allowed", [])


@pytest.mark.parametrize(("kind", "operator", "wanted", "values", "decision"), [
    ("stringList", "ForAllValues:StringEquals", ["a", "b"], ["a", "b"], "allowed"),
    ("stringList", "ForAllValues:StringEquals", ["a", "b"], ["a", "c"], "implicitDeny"),
    ("numeric", "NumericLessThan", "10", ["9"], "allowed"),
    ("numericList", "ForAnyValue:NumericLessThan", "10", ["11", "9"], "allowed"),
    ("boolean", "Bool", "true", ["false"], "implicitDeny"),
    ("ip", "IpAddress", "2001:db8::/32", ["2001:db8::1"], "allowed"),
    ("ipList", "ForAllValues:NotIpAddress", "10.0.0.0/8", ["192.0.2.1", "10.0.0.1"], "implicitDeny"),
    ("binary", "BinaryEquals", "YWJj", ["YWJj"], "allowed"),
    ("date", "DateLessThan", "2030-01-01T00:00:00Z", ["2026-01-01T00:00:00Z"], "allowed"),
    ("dateList", "ForAnyValue:DateLessThan", "2020-01-01T00:00:00Z", ["2026-01-01T00:00:00Z"], "implicitDeny"),
    ("booleanList", "ForAllValues:Bool", "true", [], "allowed"),
])  # fmt: skip
def test_the_simulator_takes_every_type_of_context_entry(aws, kind, operator, wanted, values, decision):
    document = policy(allow(Condition={operator: {"my:ExampleKey": wanted}}))
    results = custom(aws, document, ContextEntries=[entry("my:ExampleKey", *values, kind=kind)])
    assert decisions(results) == [decision]


def test_the_simulator_applies_a_permissions_boundary(aws, irsa):
    boundary = policy(allow("s3:Get*"), deny("s3:GetObjectAcl"))
    arn = irsa.iam.create_policy(PolicyName="limit", PolicyDocument=boundary)["Policy"]["Arn"]
    irsa.permit(allow("s3:*"))
    irsa.iam.put_role_permissions_boundary(RoleName="my-role", PermissionsBoundary=arn)
    get, put, acl = of_role(aws, "s3:GetObject", "s3:PutObject", "s3:GetObjectAcl")
    assert decisions([get, put, acl]) == ["allowed", "implicitDeny", "explicitDeny"]
    by_boundary = [r["PermissionsBoundaryDecisionDetail"]["AllowedByPermissionsBoundary"] for r in (get, put, acl)]
    assert by_boundary == [True, False, False]
    (matched,) = acl["MatchedStatements"]
    assert (matched["SourcePolicyId"], matched["SourcePolicyType"]) == ("limit", "Permissions Boundary Policy")
    # A boundary in the request replaces the role's own.
    other = {"PermissionsBoundaryPolicyInputList": [policy(allow("s3:PutObject"))]}
    assert decisions(of_role(aws, "s3:GetObject", "s3:PutObject", **other)) == ["implicitDeny", "allowed"]
    (given_one,) = custom(aws, policy(allow()), PermissionsBoundaryPolicyInputList=[policy(deny())])
    assert given_one["MatchedStatements"][0]["SourcePolicyId"] == "PermissionsBoundaryPolicyInputList.1"


def test_the_simulator_adds_the_request_s_policies_to_the_role_s_own(aws, irsa):
    irsa.permit(allow("s3:GetObject"))
    assert decisions(of_role(aws, "s3:GetObject", PolicyInputList=[policy(deny())])) == ["explicitDeny"]
    assert decisions(of_role(aws, "sqs:SendMessage", PolicyInputList=[policy(allow("sqs:*"))])) == ["allowed"]


def test_the_simulator_applies_a_user_s_own_and_its_groups_policies(aws):
    iam = aws.client("iam")
    iam.create_user(UserName="ann", Path="/team/")
    iam.create_group(GroupName="readers")
    iam.add_user_to_group(UserName="ann", GroupName="readers")
    document = policy(allow(resource="arn:aws:s3:::home/${aws:username}"))
    iam.put_group_policy(GroupName="readers", PolicyName="home", PolicyDocument=document)
    iam.put_user_policy(UserName="ann", PolicyName="own", PolicyDocument=policy(allow("sqs:*")))
    ann = f"arn:aws:iam::{ACCOUNT}:user/team/ann"

    def simulate(source, *actions, **others):
        answer = iam.simulate_principal_policy(PolicySourceArn=source, ActionNames=list(actions), **others)
        return answer["EvaluationResults"]

    home, queue = simulate(ann, "s3:GetObject", "sqs:SendMessage", ResourceArns=["arn:aws:s3:::home/ann"])
    assert decisions([home, queue]) == ["allowed", "allowed"]
    assert home["MatchedStatements"][0]["SourcePolicyId"] == "group_readers_home"
    assert queue["MatchedStatements"][0]["SourcePolicyId"] == "user_ann_own"
    group = f"arn:aws:iam::{ACCOUNT}:group/readers"
    (of_group,) = simulate(group, "s3:GetObject", ResourceArns=["arn:aws:s3:::home/ann"])
    assert (of_group["EvalDecision"], of_group["MissingContextValues"]) == ("implicitDeny", ["aws:username"])
    (as_ann,) = simulate(group, "s3:GetObject", ResourceArns=["arn:aws:s3:::home/ann"], CallerArn=ann)
    assert as_ann["EvalDecision"] == "allowed"


ANN = f"arn:aws:iam::{ACCOUNT}:user/ann"


@pytest.mark.parametrize(("identity", "principal", "owner", "decision", "details"), [
    (deny("sqs:*"), ANN, None, "allowed", {}),  # the bucket's policy is enough in one account
    (allow(), ANN, None, "allowed", {}),
    (allow(), ANN, "999999999999", "allowed", {"IAM Policy": "allowed", "Resource Policy": "allowed"}),
    (allow("sqs:*"), ANN, "arn:aws:iam::999999999999:root", "implicitDeny",
     {"IAM Policy": "implicitDeny", "Resource Policy": "allowed"}),
    (allow(), f"{ANN}-other", "999999999999", "implicitDeny",
     {"IAM Policy": "allowed", "Resource Policy": "implicitDeny"}),
])  # fmt: skip
def test_the_simulator_applies_a_resource_policy(aws, identity, principal, owner, decision, details):
    bucket = policy(allow(resource=OBJECT, Principal={"AWS": principal}))
    others = {"ResourceOwner": owner} if owner else {}
    (result,) = custom(aws, policy(identity), ResourcePolicy=bucket, CallerArn=ANN, ResourceArns=[OBJECT], **others)
    assert (result["EvalDecision"], result["EvalDecisionDetails"]) == (decision, details)
    types = {statement["SourcePolicyType"] for statement in result["MatchedStatements"]}
    assert ("Resource Policy" in types) is (decision == "allowed")


@pytest.mark.parametrize(("changes", "status", "code", "message"), [
    ({"PolicySourceArn": f"{ROLE}-none"}, 404, "NoSuchEntity", "The role with name my-role-none cannot be found."),
    ({"PolicySourceArn": f"arn:aws:iam::{ACCOUNT}:user/a/bob"}, 404, "NoSuchEntity",
     "The user with name bob cannot be found."),
    ({"PolicySourceArn": f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/x"}, 400, "InvalidInput",
     f"Invalid Entity Arn: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/x does not clearly define entity type "
     "and name."),
    ({"ActionNames": ["s3:*"]}, 400, "InvalidInput", "Invalid action name: s3:*"),
    ({"ActionNames": ["GetObject"]}, 400, "InvalidInput", "Invalid action name: GetObject"),
    ({"ResourceArns": ["irsa-lab"]}, 400, "InvalidInput", "Invalid resource ARN: irsa-lab"),
    ({"PolicyInputList": ["{"]}, 400, "InvalidInput", "PolicyInputList.1: Syntax errors in policy."),
    ({"PolicyInputList": [policy(allow()), policy({"Effect": "Allow", "Action": "s3:*"})]}, 400, "InvalidInput",
     "PolicyInputList.2: Policy statement must contain resources."),
    ({"PermissionsBoundaryPolicyInputList": [policy(allow()), policy(deny())]}, 400, "InvalidInput",
     "Only one permissions boundary policy can be given"),
    ({"ResourcePolicy": policy(allow(Principal="*"))}, 400, "InvalidInput",
     "Invalid caller - Caller must be an IAM user in this context."),
    ({"CallerArn": "ann"}, 400, "InvalidInput",
     "Invalid Entity Arn: ann does not clearly define entity type and name."),
    ({"ResourceOwner": "me"}, 400, "InvalidInput", "Invalid resource owner: me"),
    ({"ContextEntries": [entry("my:Key", "x", kind="numeric")]}, 400, "InvalidInput",
     "Invalid context entry: a value of my:Key is not of the type numeric"),
    ({"ContextEntries": [entry("my:Key", "1", "2", kind="numeric")]}, 400, "InvalidInput",
     "Invalid context entry: my:Key has 2 values, and its type is numeric"),
    ({"ContextEntries": [entry("my:Key", "1", kind="number")]}, 400, "InvalidInput",
     "Invalid context entry: my:Key of the type number"),
    ({"PolicyExclusionList": [{"PolicyType": "inline"}]}, 400, "InvalidInput",
     "The lab's policy simulator does not support PolicyExclusionList"),
    ({"Marker": "x"}, 400, "InvalidInput", "Invalid Marker."),
    ({"Marker": "99"}, 400, "InvalidInput", "Invalid Marker."),
    ({"MaxItems": 1001}, 400, "ValidationError",
     "1 validation error detected: Value '1001' at 'maxItems' failed to satisfy constraint: "
     "Member must have value less than or equal to 1000"),
    ({"ActionNames": None}, 400, "ValidationError",
     "1 validation error detected: Value null at 'actionNames' failed to satisfy constraint: "
     "Member must not be null"),
])  # fmt: skip
def test_the_simulator_refuses_an_invalid_request(aws, irsa, changes, status, code, message):
    request = {"PolicySourceArn": ROLE, "ActionNames": ["s3:GetObject"]} | changes
    request = {name: value for name, value in request.items() if value is not None}
    refused(lambda: aws.client("iam").simulate_principal_policy(**request), status, code, message)


def test_the_simulator_refuses_a_resource_policy_without_a_caller(aws):
    refused(
        lambda: custom(aws, policy(allow()), ResourcePolicy=policy(allow(Principal="*"))),
        400, "InvalidInput", "CallerArn must be given with a resource policy",
    )  # fmt: skip


def test_the_simulator_names_a_stored_policy_that_cannot_be_read(aws, irsa):
    aws.gate.backend.role(ROLE).policies["broken"] = "no JSON"
    message = "The policy role_my-role_broken could not be evaluated: it cannot be read"
    refused(lambda: of_role(aws), 500, "PolicyEvaluation", message)


def test_the_simulator_returns_its_results_in_pages(aws):
    actions = [f"s3:Action{number}" for number in range(250)]
    request = {"PolicyInputList": [policy(allow("s3:Action1*"))], "ActionNames": actions}
    first = aws.client("iam").simulate_custom_policy(**request)
    assert (len(first["EvaluationResults"]), first["IsTruncated"]) == (100, True)
    pages = aws.client("iam").get_paginator("simulate_custom_policy").paginate(**request, MaxItems=60)
    results = [result for page in pages for result in page["EvaluationResults"]]
    assert [result["EvalActionName"] for result in results] == actions
    assert decisions(results).count("allowed") == 111


def test_iam_lists_the_context_keys_that_policies_ask_for(aws, irsa):
    irsa.permit(allow(resource="arn:aws:s3:::${aws:PrincipalTag/team, 'x'}/*", Condition={"Bool": {"a:b": "true"}}))
    iam = aws.client("iam")
    keys = iam.get_context_keys_for_principal_policy(PolicySourceArn=ROLE)["ContextKeyNames"]
    assert sorted(keys) == ["a:b", "aws:PrincipalTag/team"]
    document = policy(allow(Condition={"StringEquals": {"aws:RequestTag/x": "${aws:username}"}}))
    keys = iam.get_context_keys_for_custom_policy(PolicyInputList=[document])["ContextKeyNames"]
    assert sorted(keys) == ["aws:RequestTag/x", "aws:username"]


def test_the_simulator_s_answer_is_valid_xml_whatever_characters_it_contains(aws):
    document = policy(allow(Condition={"StringEquals": {"my:\x01<Key>": "x"}}))
    (result,) = custom(aws, document, ResourceArns=["arn:aws:s3:::a\x02&<b>"])
    assert result["EvalResourceName"] == "arn:aws:s3:::a?&<b>"
    assert result["MissingContextValues"] == ["my:?<Key>"]


def test_a_session_needs_permission_to_simulate(aws, irsa):
    session = aws.client("iam", irsa.assume()["Credentials"])
    refused(
        lambda: session.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"]),
        403, "AccessDenied",
        f"User: arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-pod is not authorized to perform: "
        f"iam:SimulatePrincipalPolicy on resource: {ROLE} because no identity-based policy allows the "
        "iam:SimulatePrincipalPolicy action",
    )  # fmt: skip
    irsa.permit(allow("iam:Simulate*"), allow("s3:GetObject"))
    answer = session.simulate_principal_policy(PolicySourceArn=ROLE, ActionNames=["s3:GetObject"])
    assert decisions(answer["EvaluationResults"]) == ["allowed"]


def test_the_aws_cli_simulates_a_role_s_policies(aws, irsa):
    command = [
        Path(sys.executable).parent / "aws", "iam", "simulate-principal-policy", "--policy-source-arn", ROLE,
        "--action-names", "s3:GetObject", "s3:PutObject", "--resource-arns", OBJECT, "--output", "json",
    ]  # fmt: skip
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
        "AWS_ACCESS_KEY_ID": ADMINISTRATOR.access_key_id,
        "AWS_SECRET_ACCESS_KEY": ADMINISTRATOR.secret_access_key,
        "AWS_ENDPOINT_URL": aws.endpoint,
        "AWS_DEFAULT_REGION": REGION,
    }
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)["EvaluationResults"]
    assert decisions(results) == ["allowed", "implicitDeny"]
    assert results[0]["MatchedStatements"][0]["SourcePolicyId"] == "AmazonS3ReadOnlyAccess"


statements = st.lists(
    st.builds(
        lambda effect, action, resource, condition: {
            "Effect": effect,
            "Action": action,
            "Resource": resource,
            "Condition": condition,
        },
        st.sampled_from(["Allow", "Allow", "Deny"]),
        st.sampled_from(["s3:*", "s3:GetObject", "s3:PutObject", "*"]),
        st.sampled_from(["*", OBJECT, "arn:aws:s3:::other/*", "arn:aws:s3:::${aws:PrincipalTag/bucket}/*"]),
        st.sampled_from(
            [
                {},
                {"Bool": {"aws:SecureTransport": "true"}},
                {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
                {"StringEquals": {"aws:PrincipalTag/bucket": "irsa-lab"}},
                {"ForAllValues:StringEquals": {"aws:TagKeys": "a"}},
                {"Null": {"aws:SourceIp": "false"}},
            ]
        ),
    ),
    min_size=1,
    max_size=4,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(statements, statements, st.none() | statements, st.sampled_from(["s3:GetObject", "s3:PutObject"]),
       st.sampled_from([OBJECT, "arn:aws:s3:::other/x"]), st.sampled_from(["10.1.2.3", "192.0.2.1"]),
       st.sampled_from([[], [{"Key": "Bucket", "Value": "irsa-lab"}]]))  # fmt: skip
def test_simulation_and_gate_never_disagree(aws, inline, managed, boundary, action, resource, source_ip, tags):
    aws.forget_everything()
    iam = aws.client("iam")
    iam.create_role(RoleName="my-role", AssumeRolePolicyDocument=policy({"Effect": "Allow", "Principal": {"AWS": "*"},
                    "Action": "sts:AssumeRole"}), Tags=tags)  # fmt: skip
    role = aws.gate.backend.role(ROLE)
    role.policies["inline"] = policy(*inline)
    documents = {"mine": managed} | ({"limit": boundary} if boundary is not None else {})
    for name, content in documents.items():
        arn = iam.create_policy(PolicyName=name, PolicyDocument=policy(allow()))["Policy"]["Arn"]
        aws.gate.backend.iam(ACCOUNT).managed_policies[arn].versions[0].document = policy(*content)
        if name == "mine":
            iam.attach_role_policy(RoleName="my-role", PolicyArn=arn)
        else:
            iam.put_role_permissions_boundary(RoleName="my-role", PermissionsBoundary=arn)
    request = AwsRequest(Call("GET", "/", "", [], b"", source_ip=source_ip), S3, REGION)
    session = aws.gate.sessions.open(role, "simulation", 900)
    decision = aws.gate._authorization.decide(session, request, Permission(action, resource))
    entries = [entry(name, value) for name, value in aws.gate._authorization.context(request).items() if value]
    (result,) = of_role(aws, action, ResourceArns=[resource], ContextEntries=entries)
    assert result["EvalDecision"] == decision.outcome
    assert decision.request.principal == Principal.role_session(session.arn, ROLE)
