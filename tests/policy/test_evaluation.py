import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.policy import NO_CONTROL, Control, Policy, Principal, Request, evaluate, matching, verdict
from labkit.policy.conditions import known_operator

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/my-role"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/my-role/my-session"
ME = Principal.role_session(SESSION)
ANN = Principal.aws(f"arn:aws:iam::{ACCOUNT}:user/team/ann")
EC2 = Principal.service("ec2.amazonaws.com")
PROVIDER = f"arn:aws:iam::{ACCOUNT}:oidc-provider/example.com"
OBJECT = "arn:aws:s3:::irsa-lab/key"


def allow(action="s3:GetObject", resource="*", **fields):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | fields


def deny(action="s3:GetObject", resource="*", **fields):
    return allow(action, resource, **fields) | {"Effect": "Deny"}


def read(*statements, kind="identity", version="2012-10-17"):
    return Policy.read({"Version": version, "Statement": list(statements)}, kind=kind, name=f"my-{kind}")


def bucket(principal, *, effect="Allow", field="Principal", **fields):
    return read(allow(**{field: principal, "Effect": effect}, **fields), kind="resource")


def get(principal=ME, action="s3:GetObject", resource=OBJECT, **context):
    return Request(principal, action, resource, {key.replace("_", ":"): value for key, value in context.items()})


@pytest.mark.parametrize(("statement", "allowed"), [
    (allow(), True),
    (allow("S3:getOBJECT"), True),  # actions are case-insensitive
    (allow("s3:Get*"), True),
    (allow("*"), True),
    (allow(["s3:Put*", "s3:*Object"]), True),
    (allow("s3:PutObject"), False),
    (allow("s3:GetObjec?"), True),
    (allow("s3:Get?"), False),
    (allow(resource="arn:aws:s3:::irsa-lab/*"), True),
    (allow(resource="arn:aws:s3:::irsa-lab"), False),
    (allow(resource="arn:aws:s3:::IRSA-lab/*"), False),  # ARNs are case-sensitive
    (allow(resource=["arn:aws:s3:::other", OBJECT]), True),
    (allow(resource="arn:aws:s3"), True),  # completed: arn:aws:s3:*:*:*
    (allow(resource="arn:aws:sqs"), False),
    ({"Effect": "Allow", "NotAction": "s3:Put*", "Resource": "*"}, True),
    ({"Effect": "Allow", "NotAction": "s3:Get*", "Resource": "*"}, False),
    ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::other/*"}, True),
    ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::irsa-lab/*"}, False),
    (allow(resource="arn:aws:s3:::irsa-lab/${aws:PrincipalTag/key}"), False),
    (allow(resource="arn:aws:s3:::irsa-lab/${aws:PrincipalTag/key, 'key'}"), True),
    ({"Effect": "Allow", "Action": "s3:*", "NotResource": "arn:aws:s3:::${aws:PrincipalTag/key}"}, False),
])  # fmt: skip
def test_a_statement_covers_matching_actions_and_resources(statement, allowed):
    assert evaluate(get(), identity=[read(statement)]).allowed is allowed


@pytest.mark.parametrize(("pattern", "resource", "allowed"), [
    ("arn:aws:s*:::irsa-lab", "arn:aws:s3:::irsa-lab", True),
    ("arn:aws:s*3:::irsa-lab", "arn:aws:s3:::irsa-lab", True),
    ("arn:aws:sq?:us-*-1:1234*9012:queue", "arn:aws:sqs:us-east-1:123456789012:queue", True),
    # A wildcard inside a segment matches no colon. A * at a segment's end does.
    ("arn:aws:sqs:us-*-1:1:queue", "arn:aws:sqs:us-east:1:2-1:1:queue", False),
    ("arn:aws:sqs:us-?:1:queue", "arn:aws:sqs:us-:1:1:queue", False),
    ("arn:aws:sqs:us-east-1:1*2:queue", "arn:aws:sqs:us-east-1:1:2:queue", False),
    ("arn:aws:sqs:us-east-1:1?:queue", "arn:aws:sqs:us-east-1:1::queue", False),
    ("arn:aws:sqs:us-*:1:queue", "arn:aws:sqs:us-east:1:1:queue", True),
    ("arn:aws:sqs:*:queue", "arn:aws:sqs:us-east-1:123456789012:queue", False),  # completed: …:*:queue:*
    # In the last segment, a colon is an ordinary character.
    ("arn:aws:logs:us-*t-1:1:log-group:/aws/*:x", "arn:aws:logs:us-east-1:1:log-group:/aws/a:b:x", True),
    ("arn:aws:s3:::irsa-*b/a?b", "arn:aws:s3:::irsa-lab/a:b", True),
    ("*", "*", True),
    ("arn:aws:s3:::*", "*", False),
])  # fmt: skip
def test_wildcards_match_within_the_segments_of_an_arn(pattern, resource, allowed):
    assert evaluate(get(resource=resource), identity=[read(allow(resource=pattern))]).allowed is allowed


def test_an_action_that_no_policy_allows_is_denied():
    decision = evaluate(get(action="s3:PutObject"), identity=[read(allow())])
    assert not decision.allowed
    assert decision.denial == "because no identity-based policy allows the s3:PutObject action"
    assert decision.reason == (
        f"no identity-based policy allows s3:PutObject on {OBJECT}; "
        'statement 1 of "my-identity" is nearest, but it allows s3:GetObject and not s3:PutObject'
    )
    nothing = evaluate(get(action="sqs:SendMessage"), identity=[read(allow())])
    assert nothing.reason == f"no identity-based policy allows sqs:SendMessage on {OBJECT}"
    assert not evaluate(get(), identity=[]).allowed


def test_an_allow_names_its_policy_and_statement():
    policy = read(allow("s3:Put*"), allow(Sid="Reading"))
    decision = evaluate(get(), identity=[policy])
    assert decision.reason == f'statement "Reading" of "my-identity" allows s3:GetObject on {OBJECT}'
    assert (decision.policy, decision.statement, decision.denial) == (policy, policy.statements[1], None)


def test_the_first_of_two_allowing_statements_is_named():
    assert evaluate(get(), identity=[read(allow("s3:Put*"), allow("s3:Get*"), allow())]).statement.position == 2


UNREADABLE = {"Condition": {"StringMatches": {"aws:SourceIp": "x"}}}


@pytest.mark.parametrize(("statement", "outcome"), [
    (allow(), "allowed"),
    (allow("s3:Put*"), "implicitDeny"),
    (deny(), "explicitDeny"),
    (deny("s3:Put*"), "implicitDeny"),
    (allow(**UNREADABLE), "implicitDeny"),
    (deny(**UNREADABLE), "explicitDeny"),
])  # fmt: skip
def test_verdict_and_matching_find_the_statement_that_decides(statement, outcome):
    policy = read(statement)
    assert verdict([policy], get()) == outcome
    found = [(policy, policy.statements[0])]
    assert matching([policy], get(), allow=True) == (found if outcome == "allowed" else [])
    assert matching([policy], get(), allow=False) == (found if outcome == "explicitDeny" else [])


@pytest.mark.parametrize(("limits", "outcome"), [({}, "implicitDeny"), ({"bounded": True}, "explicitDeny")])
def test_verdict_and_matching_let_not_principal_deny_an_exempt_role_with_a_boundary(limits, outcome):
    policy = bucket({"AWS": [ACCOUNT, ROLE]}, effect="Deny", field="NotPrincipal")
    assert verdict([policy], get(), **limits) == outcome
    assert bool(matching([policy], get(), allow=False, **limits)) is (outcome == "explicitDeny")


def test_an_unmet_condition_is_reported_with_the_value_found():
    policy = read(
        allow(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "Bool": {"aws:SecureTransport": "true"}})
    )
    assert evaluate(get(aws_SourceIp="10.1.2.3", aws_SecureTransport="true"), identity=[policy]).allowed
    decision = evaluate(get(aws_sourceip="192.0.2.1", aws_SecureTransport="true"), identity=[policy])
    assert decision.denial == "because no identity-based policy allows the s3:GetObject action"
    assert decision.reason == (
        f'no identity-based policy allows s3:GetObject on {OBJECT}; statement 1 of "my-identity" would allow '
        'the request, but it wants aws:SourceIp IpAddress "10.0.0.0/8" and the request has "192.0.2.1"'
    )
    (failed,) = decision.failed
    assert (failed.operator, failed.key, failed.actual) == ("IpAddress", "aws:SourceIp", ("192.0.2.1",))


GRANT, REFUSE, SILENT = allow("s3:*"), deny("s3:*"), allow("sqs:*")


@pytest.mark.parametrize(("boundary", "session", "denial"), [
    (None, None, None),
    (GRANT, None, None),
    (None, GRANT, None),
    (GRANT, GRANT, None),
    (SILENT, None, "because no permissions boundary allows the s3:GetObject action"),
    (None, SILENT, "because no session policy allows the s3:GetObject action"),
    (GRANT, SILENT, "because no session policy allows the s3:GetObject action"),
    (REFUSE, None, "with an explicit deny in a permissions boundary"),
    (None, REFUSE, "with an explicit deny in a session policy"),
])  # fmt: skip
def test_boundary_and_session_policies_narrow_what_identity_policies_allow(boundary, session, denial):
    decision = evaluate(
        get(),
        identity=[read(GRANT)],
        boundary=boundary and read(boundary, kind="boundary"),
        session=[read(session, kind="session")] if session else (),
    )
    assert (decision.allowed, decision.denial) == (denial is None, denial)


def test_a_bucket_policy_is_not_near_if_a_boundary_does_not_allow():
    near = bucket({"AWS": ANN.arn})
    decision = evaluate(get(), identity=[read(GRANT)], boundary=read(SILENT, kind="boundary"), resource=[near])
    assert decision.near == ()
    assert evaluate(get(), identity=[], resource=[near]).near[0].policy == near


@pytest.mark.parametrize(
    ("kind", "which"),
    [("identity", '"my-identity"'), ("service control", 'the service control policy "my-service control"')],
)
def test_a_denial_by_a_service_control_policy_names_that_kind(kind, which):
    policy = read(REFUSE, kind=kind)
    control = Control(service=((policy,),)) if kind == "service control" else NO_CONTROL
    decision = evaluate(get(), identity=[policy] if control is NO_CONTROL else [], control=control)
    assert decision.reason == f"an explicit Deny, statement 1 of {which}, refuses s3:GetObject on {OBJECT}"


def test_boundary_and_session_policies_grant_nothing():
    decision = evaluate(
        get(), identity=[], boundary=read(GRANT, kind="boundary"), session=[read(GRANT, kind="session")]
    )
    assert decision.denial == "because no identity-based policy allows the s3:GetObject action"


def test_one_of_several_session_policies_is_enough_to_allow():
    sessions = [read(SILENT, kind="session"), read(GRANT, kind="session")]
    assert evaluate(get(), identity=[read(GRANT)], session=sessions).allowed


@pytest.mark.parametrize(("principal", "who", "limited", "unlimited"), [
    # The bucket policy's principal, the caller, and whether it gets in: with a silent boundary, and without.
    ({"AWS": SESSION}, ME, True, True),
    ({"AWS": ROLE}, ME, False, True),
    ("*", ME, False, True),
    ({"AWS": "*"}, ME, False, True),
    ({"AWS": ACCOUNT}, ME, False, False),  # delegates to the account's own policies
    ({"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, ME, False, False),
    ({"AWS": ROLE}, ANN, False, False),
    ({"AWS": ANN.arn}, ANN, True, True),
    ({"AWS": ACCOUNT}, Principal.aws(f"arn:aws:iam::{ACCOUNT}:root"), True, True),
    ({"Service": "ec2.amazonaws.com"}, Principal.service("ec2.amazonaws.com"), True, True),
    ({"Service": "ec2.amazonaws.com"}, ME, False, False),
    ({"Federated": ROLE}, ME, False, False),
    ({"AWS": "arn:aws:iam::999999999999:role/my-role"}, ME, False, False),
])  # fmt: skip
def test_within_one_account_a_bucket_policy_alone_admits_the_principals_it_names(principal, who, limited, unlimited):
    silent = read(SILENT, kind="boundary")
    assert evaluate(get(who), identity=[], resource=[bucket(principal)]).allowed is unlimited
    assert evaluate(get(who), identity=[], boundary=silent, resource=[bucket(principal)]).allowed is limited
    session = [read(SILENT, kind="session")]
    assert evaluate(get(who), identity=[], session=session, resource=[bucket(principal)]).allowed is limited
    # A Deny wins, whatever principal the bucket policy names.
    for kind in ("boundary", "session"):
        refusing = read(REFUSE, kind=kind)
        limits = {"boundary": refusing} if kind == "boundary" else {"session": [refusing]}
        assert not evaluate(get(who), identity=[], resource=[bucket(principal)], **limits).allowed


@pytest.mark.parametrize("key", ["aws:PrincipalArn", "aws:principalarn"])
def test_a_star_principal_with_a_principal_arn_condition_bypasses_a_boundary(key):
    granted = bucket("*", Condition={"ArnLike": {key: ROLE}})
    silent = read(SILENT, kind="boundary")
    limited = {"boundary": silent, "session": [read(SILENT, kind="session")]}
    assert evaluate(get(), identity=[], resource=[granted], **limited).allowed
    named = bucket({"AWS": ROLE}, Condition={"ArnLike": {key: ROLE}})
    assert not evaluate(get(), identity=[], resource=[named], **limited).allowed


@pytest.mark.parametrize(("identity", "resource", "denial"), [
    ([GRANT], ROLE, None),
    ([GRANT], ACCOUNT, None),
    ([], ROLE, "because no identity-based policy allows the s3:GetObject action"),
    ([GRANT], "999999999999", "because no resource-based policy allows the s3:GetObject action"),
    ([GRANT], None, "because no resource-based policy allows the s3:GetObject action"),
])  # fmt: skip
def test_across_accounts_both_the_identity_and_the_bucket_policy_must_allow(identity, resource, denial):
    decision = evaluate(
        get(), identity=[read(*identity)], resource=[bucket({"AWS": resource})] if resource else [], same_account=False
    )
    assert (decision.allowed, decision.denial) == (denial is None, denial)


def test_across_accounts_a_boundary_always_counts():
    decision = evaluate(
        get(),
        identity=[read(GRANT)],
        boundary=read(SILENT, kind="boundary"),
        resource=[bucket({"AWS": SESSION})],
        same_account=False,
    )
    assert decision.denial == "because no permissions boundary allows the s3:GetObject action"


@pytest.mark.parametrize(("exempt", "denied"), [
    ([ACCOUNT, ROLE], False),
    ([ACCOUNT, SESSION], False),
    ([ACCOUNT], False),
    ([ROLE], True),  # without its account
    ([ACCOUNT, ANN.arn], True),
    (["999999999999"], True),
])  # fmt: skip
def test_a_deny_with_not_principal_spares_only_the_callers_it_exempts(exempt, denied):
    policy = bucket({"AWS": exempt}, effect="Deny", field="NotPrincipal")
    decision = evaluate(get(), identity=[read(GRANT)], resource=[policy])
    assert decision.allowed is not denied
    assert decision.denial == ("with an explicit deny in a resource-based policy" if denied else None)


@pytest.mark.parametrize(("exempt", "who", "denied"), [
    ("*", ME, False),
    ({"AWS": "*"}, ME, False),
    ({"AWS": [ACCOUNT, ROLE, ANN.arn]}, ME, False),
    ({"AWS": [ACCOUNT, "arn:aws:iam::999999999999:role/my-role"]}, ME, False),
    ("*", EC2, False),
    ({"Service": EC2.arn}, EC2, False),
    ({"Service": "s3.amazonaws.com"}, EC2, True),
    ({"AWS": "*"}, EC2, True),  # names no service
    ({"Federated": PROVIDER}, Principal.federated(PROVIDER), False),
    ({"Federated": PROVIDER}, Principal.federated(PROVIDER + "0"), True),
])  # fmt: skip
def test_not_principal_exempts_each_kind_of_principal(exempt, who, denied):
    policy = bucket(exempt, effect="Deny", field="NotPrincipal")
    assert verdict([policy], get(who)) == ("explicitDeny" if denied else "implicitDeny")


def test_not_principal_always_denies_a_principal_with_a_boundary():
    policy = bucket({"AWS": [ACCOUNT, ROLE]}, effect="Deny", field="NotPrincipal")
    boundary = read(GRANT, kind="boundary")
    assert not evaluate(get(), identity=[read(GRANT)], boundary=boundary, resource=[policy]).allowed


@pytest.mark.parametrize(("trusted", "identity", "denial"), [
    (ACCOUNT, [allow("sts:AssumeRole")], None),
    (ROLE, [], None),
    (ACCOUNT, [], "because no identity-based policy allows the sts:AssumeRole action"),
    ("999999999999", [allow("sts:*")], "because no role trust policy allows the sts:AssumeRole action"),
])  # fmt: skip
def test_a_trust_policy_must_allow_even_within_one_account(trusted, identity, denial):
    statement = {"Effect": "Allow", "Principal": {"AWS": trusted}, "Action": "sts:AssumeRole"}
    request = get(action="sts:AssumeRole", resource=f"arn:aws:iam::{ACCOUNT}:role/other")
    decision = evaluate(request, identity=[read(*identity)], resource=[read(statement, kind="trust")])
    assert decision.denial == denial


@pytest.mark.parametrize(("who", "key", "value"), [
    (ME, "aws:PrincipalArn", ROLE),  # the role's ARN, not the session's
    (ME, "aws:PrincipalAccount", ACCOUNT),
    (ME, "aws:PrincipalType", "AssumedRole"),
    (ME, "aws:ViaAWSService", "false"),
    (ANN, "aws:PrincipalArn", ANN.arn),
    (ANN, "aws:username", "ann"),
    (ANN, "aws:PrincipalType", "User"),
    (ANN, "aws:PrincipalIsAWSService", "false"),
    (Principal.aws(f"arn:aws:iam::{ACCOUNT}:root"), "aws:PrincipalType", "Account"),
    (EC2, "aws:PrincipalIsAWSService", "true"),
    (EC2, "aws:PrincipalServiceName", "ec2.amazonaws.com"),
    (Principal.role_session(SESSION, f"arn:aws:iam::{ACCOUNT}:role/a/my-role"), "aws:PrincipalArn",
     f"arn:aws:iam::{ACCOUNT}:role/a/my-role"),
])  # fmt: skip
def test_the_context_describes_the_principal(who, key, value):
    policy = read(allow(Condition={"StringEquals": {key: value}}))
    assert evaluate(get(who), identity=[policy]).allowed


@pytest.mark.parametrize("key", ["aws:PrincipalArn", "aws:PrincipalAccount", "aws:PrincipalIsAWSService"])
@pytest.mark.parametrize(
    "who", [Principal("group", f"arn:aws:iam::{ACCOUNT}:group/g", ACCOUNT), Principal.federated(PROVIDER)]
)
def test_a_group_or_a_provider_adds_nothing_to_the_context(who, key):
    assert evaluate(get(who), identity=[read(allow(Condition={"Null": {key: "true"}}))]).allowed


def test_context_values_are_turned_into_strings():
    context = {"A": True, "b": False, "c": 7, "d": None, "e": ["x", 1, None, True], "f": ()}
    values = Request(EC2, "s3:GetObject", OBJECT, context).values
    assert [values[key] for key in "abcdef"] == [("true",), ("false",), ("7",), (), ("x", "1", "true"), ()]


def test_a_role_session_has_no_user_name():
    policy = read(allow(resource="arn:aws:s3:::irsa-lab/${aws:username}"))
    assert not evaluate(get(resource="arn:aws:s3:::irsa-lab/"), identity=[policy]).allowed
    ann = get(ANN, resource="arn:aws:s3:::irsa-lab/ann")
    assert evaluate(ann, identity=[policy]).allowed


def test_policy_version_2008_takes_variables_literally():
    policy = read(allow(resource="arn:aws:s3:::irsa-lab/${aws:username}"), version="2008-10-17")
    assert not evaluate(get(ANN, resource="arn:aws:s3:::irsa-lab/ann"), identity=[policy]).allowed


@pytest.mark.parametrize("arn", ["", "arn:aws:iam::1:user/x", ROLE, SESSION])
def test_principal_aws_refuses_an_arn_that_is_not_a_user(arn):
    with pytest.raises(ValueError, match="is not an ARN of a user"):
        Principal.aws(arn)


NO_SESSIONS = {
    "a role": ROLE,
    "without the session's name": "arn:aws:sts::123456789012:assumed-role/my-role",
    "of no account": "arn:aws:sts::1:assumed-role/my-role/my-session",
    "of another service": "arn:aws:iam::123456789012:assumed-role/my-role/my-session",
}


@pytest.mark.parametrize("arn", NO_SESSIONS.values(), ids=NO_SESSIONS)
def test_role_session_refuses_an_arn_that_is_not_a_session(arn):
    with pytest.raises(ValueError, match="is not an ARN of a role session"):
        Principal.role_session(arn)


def test_a_role_session_knows_its_role_s_arn():
    assert Principal.role_session("arn:aws-cn:sts::123456789012:assumed-role/r/s").role_arn == (
        "arn:aws-cn:iam::123456789012:role/r"
    )


statements = st.builds(
    lambda effect, action, resource, condition: {
        "Effect": effect,
        "Action": action,
        "Resource": resource,
        "Condition": condition,
    },
    st.sampled_from(["Allow", "Deny"]),
    st.sampled_from(["*", "s3:*", "s3:GetObject", "s3:PutObject"]),
    st.sampled_from(["*", OBJECT, "arn:aws:s3:::other"]),
    st.sampled_from([{}, {"Bool": {"aws:SecureTransport": "true"}}, {"Null": {"aws:SourceIp": "true"}}]),
)
documents = st.lists(statements, max_size=4)


@given(documents, documents, documents, st.integers(0, 2), st.integers(0, 4))
def test_an_explicit_deny_always_wins(identity, session, resource, place, position):
    layers = [identity, session, [statement | {"Principal": "*"} for statement in resource]]
    layers[place].insert(position, deny("s3:*", **({"Principal": "*"} if place == 2 else {})))
    decision = evaluate(
        get(aws_SecureTransport="true"),
        identity=[read(*layers[0])],
        session=[read(*layers[1], kind="session")],
        resource=[read(*layers[2], kind="resource")],
    )
    assert not decision.allowed
    assert decision.denial.startswith("with an explicit deny in a")


@given(st.text().filter(lambda name: not known_operator(name)), st.text(), st.sampled_from(["Allow", "Deny"]))
def test_an_unknown_operator_never_allows(operator, value, effect):
    unknown = allow(Effect=effect, Condition={operator: {"aws:Key": value}})
    policies = [read(unknown)] if effect == "Allow" else [read(unknown), read(allow())]
    decision = evaluate(get(aws_Key=value), identity=policies)
    assert not decision.allowed
    assert "cannot be evaluated" in decision.reason


@given(documents, documents)
def test_one_more_allow_never_turns_an_allow_into_a_denial(identity, session):
    def decide(*more):
        return evaluate(
            get(), identity=[read(*identity, *more)], session=[read(*session, kind="session")] if session else ()
        )

    if decide().allowed:
        assert decide(allow("*")).allowed
