import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.policy import MalformedPolicy, Policy, Principal, Request, decode_document, evaluate

ALLOW = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "*"}
ANYBODY = ALLOW | {"Principal": "*"}
VENDOR = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
TOO_LARGE = ("ConstraintViolationException", "You have exceeded the maximum policy size.")
GET = Request(Principal.aws("arn:aws:iam::123456789012:user/ann"), "s3:GetObject", "arn:aws:s3:::b/k")


def refusal(document, kind):
    with pytest.raises(MalformedPolicy) as refused:
        Policy.parse(document, kind=kind, name="under-test")
    assert str(refused.value) == refused.value.message
    return refused.value.code, refused.value.message


def wrapped(*statements, **fields):
    return {"Version": "2012-10-17", "Statement": list(statements)} | fields


@pytest.mark.parametrize(("changes", "message"), [
    ({"Condition": {"StringEquals": {"https://oidc.eks.us-east-1.amazonaws.com/id/A:sub": "x"}}},
     "Condition can contain only one colon."),
    *[
        (
            {"Principal": {"Federated": federated}},
            "Federated principals must be valid domain names or SAML metadata ARNs",
        )
        for federated in (
            "https://oidc.eks.us-east-1.amazonaws.com/id/A",
            "oidc.eks.us-east-1.amazonaws.com/id/A",
            "arn:aws:iam::123456789012:role/cluster-role",
            "arn:aws:iam::12345:oidc-provider/oidc.eks.us-east-1.amazonaws.com/id/A",
            "",
            "*",
        )
    ],
    ({"Action": "s3:GetObject"}, "AssumeRole policy may only specify STS AssumeRole actions."),
    ({"Action": ["sts:AssumeRole", "*"]}, "AssumeRole policy may only specify STS AssumeRole actions."),
    *(({"Action": action},
       "AssumeRole policy may only specify STS AssumeRole actions.") for action in ("sts:TagSessions",
            "sts:AssumeRoleWithWebIdendity", "sts:GetCallerIdentity", "sts:Get*")),
    ({"Principal": "*"}, 'AssumeRolepolicy contained an invalid principal: "STAR":"*".'),
    ({"Effect": "Deny", "Principal": "*"}, 'AssumeRolepolicy contained an invalid principal: "STAR":"*".'),
    ({"Resource": "*"}, "Has prohibited field Resource"),
    ({"Principal": None}, "Missing required field Principal"),
    ({"Principal": None, "NotPrincipal": {"AWS": "*"}}, "Has prohibited field NotPrincipal"),
    ({"Action": None}, "Missing required field Action"),
    ({"Effect": None}, "Missing required field Effect"),
    ({"Effect": "allow"}, "Invalid effect: allow"),
    ({"Efect": "Allow"}, "Unknown field Efect"),
    ({"Principal": {"AWS": "my-user"}}, 'Invalid principal in policy: "AWS":"my-user"'),
    ({"Principal": {"AWS": "arn:aws:iam::123456789012:role/*"}},
     'Invalid principal in policy: "AWS":"arn:aws:iam::123456789012:role/*"'),
    ({"Principal": {"Service": "ec2"}}, 'Invalid principal in policy: "SERVICE":"ec2"'),
    ({"Principal": {"Service": "pods.eks"}}, 'Invalid principal in policy: "SERVICE":"pods.eks"'),
    ({"Condition": {"StringMatches": {"aws:x": "y"}}}, "Unknown condition operator StringMatches"),
    ({"Condition": {"StringEquals": {"sub": "x"}}}, VENDOR),
    ({"Condition": {"StringEquals": {"aws:x": {"deep": "er"}}}}, "The values of condition aws:x must be strings."),
    ({"Sid": "with spaces"}, "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the "
     "regular expression [0-9A-Za-z]*"),
])  # fmt: skip
def test_iam_refuses_a_malformed_trust_policy(web_identity, changes, message):
    assert refusal(web_identity(**changes), "trust") == ("MalformedPolicyDocument", message)


@pytest.mark.parametrize("changes", [
    {},
    {"Principal": {"Federated": "cognito-identity.amazonaws.com"}},
    {
        "Principal": {
            "Federated": "arn:aws-cn:iam::123456789012:oidc-provider/oidc.eks.cn-north-1.amazonaws.com.cn/id/A"
        }
    },
    {"Principal": {"Federated": "arn:aws:iam::123456789012:saml-provider/corp"}, "Action": "sts:AssumeRoleWithSAML"},
    {"Principal": {"Service": ["ec2.amazonaws.com", "pods.eks.amazonaws.com"]},
     "Action": ["sts:AssumeRole", "sts:TagSession"]},
    {"Principal": {"AWS": ["123456789012", "arn:aws:iam::123456789012:root", "arn:aws:iam::123456789012:role/a/b"]}},
    {"Principal": {"AWS": "*"}, "Action": "STS:assumerole*"},
    {"Action": ["sts:*", "sts:Assume*", "sts:SetSourceIdentity", "sts:SetContext"]},
    {"Condition": {"StringEquals": {"aws:RequestTag/labkit:run": "x"}}},
    {"Condition": {"StringEquals": {"localhost:6443/id/A:sub": "x", "localhost:6443:aud": "y"}}},
    {"Condition": {"Bool": {"aws:MultiFactorAuthPresent": True}, "NumericLessThan": {"aws:MultiFactorAuthAge": 3600}}},
    {"Condition": {}},
    {"Sid": ""},
])  # fmt: skip
def test_iam_accepts_a_valid_trust_policy(web_identity, changes):
    assert Policy.parse(web_identity(**changes), kind="trust", name="trust").statements[0].fault is None


@pytest.mark.parametrize(("statement", "message"), [
    ({"Effect": "Allow", "Resource": "*"}, "Policy statement must contain actions."),
    ({"Effect": "Allow", "Action": [], "Resource": "*"}, "Policy statement must contain actions."),
    ({"Effect": "Allow", "Action": "s3:*"}, "Policy statement must contain resources."),
    (ALLOW | {"Principal": "*"}, "Policy document should not specify a principal."),
    (ALLOW | {"Action": "GetObject"}, VENDOR),
    (ALLOW | {"Action": "s3:Get:Object"}, "Actions/Condition can contain only one colon."),
    (ALLOW | {"Action": "s 3:Get"}, "Vendor s 3 is not valid"),
    (ALLOW | {"Resource": "my-bucket"}, 'Resource my-bucket must be in ARN format or "*".'),
    (ALLOW | {"NotAction": "s3:Put*"}, "Syntax errors in policy."),
    (ALLOW | {"NotResource": "*"}, "Syntax errors in policy."),
    (ALLOW | {"Effect": "Maybe"}, "Syntax errors in policy."),
    (ALLOW | {"Condition": {"StringMatches": {"aws:x": "y"}}}, "Syntax errors in policy."),
    (ALLOW | {"Condition": ["aws:x"]}, "Syntax errors in policy."),
    (ALLOW | {"Action": {"s3": "Get"}}, "Syntax errors in policy."),
    ("Allow", "Syntax errors in policy."),
])  # fmt: skip
@pytest.mark.parametrize("kind", ["identity", "boundary", "session"])
def test_iam_refuses_a_malformed_identity_boundary_or_session_policy(statement, message, kind):
    assert refusal(wrapped(statement), kind) == ("MalformedPolicyDocument", message)


@pytest.mark.parametrize(("statement", "message"), [
    (ALLOW, "Missing required field Principal"),
    ({"Effect": "Allow", "Principal": "*", "Action": "s3:*"}, "Missing required field Resource"),
    (ALLOW | {"NotPrincipal": {"AWS": "123456789012"}}, "Allow with NotPrincipal is not allowed."),
    (ALLOW | {"Principal": {"AWS": "nobody"}}, 'Invalid principal in policy: "AWS":"nobody"'),
    (ALLOW | {"Principal": "nobody"}, 'Invalid principal in policy: "AWS":"nobody"'),
    (ALLOW | {"Principal": {"Aws": "*"}}, 'Invalid principal in policy: "Aws": "*"'),
    (ALLOW | {"Principal": {"AWS": 7}}, 'Invalid principal in policy: "AWS": 7'),
    (ALLOW | {"Principal": ["x" * 300]}, f'Invalid principal in policy: "AWS":["{"x" * 198}'),
    (ALLOW | {"Principal": {"x" * 300: "*"}}, f'Invalid principal in policy: "{"x" * 199}'),
    (ANYBODY | {"Sid": 7}, "Sid must be a string."),
    (ANYBODY | {"Action": "GetObject"}, VENDOR),
    (ANYBODY | {"NotAction": "s3:Put*"}, "Action and NotAction are mutually exclusive."),
    (ANYBODY | {"Condition": {"StringMatches": {"aws:x": "y"}}}, "Invalid Condition type : StringMatches"),
    (ANYBODY | {"Condition": {"StringEquals": "x"}}, "Condition StringEquals must be a JSON object."),
    (ANYBODY | {"Resource": []}, "Missing required field Resource"),
    (ANYBODY | {"Resource": [7]}, "Resource must be a string or a list of strings."),
])  # fmt: skip
def test_s3_refuses_a_malformed_bucket_policy(statement, message):
    assert refusal(wrapped(statement), "resource") == ("MalformedPolicy", message)


@pytest.mark.parametrize("statement", [
    ANYBODY | {"Sid": "with spaces: ü"},
    ANYBODY | {"Resource": "my-bucket"},
    ANYBODY | {"Condition": {"StringEquals": {"kms:EncryptionContext:a:b": "x"}}},
    {"Effect": "Deny", "NotPrincipal": {"AWS": "123456789012"}, "NotAction": "s3:*", "NotResource": "*"},
])  # fmt: skip
def test_s3_accepts_a_valid_bucket_policy(statement):
    assert Policy.parse(wrapped(statement), kind="resource", name="bucket").statements[0].fault is None


RCP = ANYBODY | {"Effect": "Deny"}
WRONG_POLICY_TYPE = "The provided policy document does not meet the requirements of the specified policy type."


@pytest.mark.parametrize(("kind", "document"), [
    ("service control", "no JSON"),
    ("service control", {"Statement": [ALLOW]}),
    ("service control", {"Version": "2008-10-17", "Statement": [ALLOW]}),
    ("service control", wrapped(ANYBODY)),
    ("service control", wrapped(ALLOW | {"Resource": "my-bucket"})),
    ("resource control", {"Statement": [RCP]}),
    ("resource control", wrapped(ANYBODY)),
    ("resource control", wrapped(ALLOW | {"Effect": "Deny"})),
    ("resource control", wrapped(RCP | {"Principal": {"AWS": "123456789012"}})),
    ("resource control", wrapped(RCP | {"Action": "*"})),
    ("resource control", wrapped(RCP | {"Action": ["s3:*", "ec2:*"]})),
    ("resource control", wrapped({name: RCP[name] for name in RCP if name != "Action"} | {"NotAction": "s3:*"})),
])  # fmt: skip
def test_organizations_refuses_a_control_policy_that_breaks_its_rules(kind, document):
    assert refusal(document, kind) == ("MalformedPolicyDocumentException", WRONG_POLICY_TYPE)


@pytest.mark.parametrize(("kind", "statement"), [
    ("service control", ALLOW),
    ("service control", {"Effect": "Deny", "NotAction": ["iam:*", "sts:*"], "Resource": "*"}),
    ("resource control", RCP),
    ("resource control", RCP | {"Action": ["S3:Get*", "sts:AssumeRole"], "Resource": "arn:aws:s3:::b/*"}),
])  # fmt: skip
def test_organizations_accepts_a_valid_control_policy(kind, statement):
    assert Policy.parse(wrapped(statement), kind=kind, name="control").statements[0].fault is None


@pytest.mark.parametrize(("kind", "statement", "limit", "refused"), [
    ("identity", ALLOW, 10240, ("LimitExceeded", "Maximum policy size of 10240 bytes exceeded.")),
    ("boundary", ALLOW, 6144, ("LimitExceeded", "Cannot exceed quota for PolicySize: 6144")),
    ("session", ALLOW, 2048, ("ValidationError",
            "1 validation error detected: Value at 'policy' failed to satisfy constraint: "
            "Member must have length less than or equal to 2048")),
    ("resource", ANYBODY, 20480, ("PolicyTooLarge", "Policy exceeds the maximum allowed document size.")),
    ("service control", ALLOW, 10240, TOO_LARGE),
    ("resource control", RCP, 5120, TOO_LARGE),
])  # fmt: skip
def test_a_policy_one_character_over_its_kind_s_limit_is_refused(kind, statement, limit, refused):
    def sized(length):
        document = wrapped(statement, Id="")
        document["Id"] = "x" * (length - len(json.dumps(document)))
        return json.dumps(document)

    # Organizations counts white space, too.
    spaces = 0 if kind.endswith("control") else sized(limit).count(" ")
    assert Policy.parse(sized(limit + spaces), kind=kind, name="large")
    assert refusal(sized(limit + spaces + 1), kind) == refused


@pytest.mark.parametrize(("kind", "message"), [
    ("trust", "This policy contains invalid Json"),
    ("identity", "Syntax errors in policy."),
    ("session", "The policy is not in the valid JSON format."),
])  # fmt: skip
@pytest.mark.parametrize("document", [
    "",
    "{",
    "[]",
    "7",
    "{'Version': '2012-10-17'}",
    '{"Statement": NaN}',
    '{"Version": "2012-10-17", "Statement": {"Effect": "Deny", "Effect": "Allow"}}',
    "[" * 100_000,
    '{"Statement":' * 1000,
    "1" * 5000,
])  # fmt: skip
def test_a_document_that_is_not_a_json_policy_is_refused(document, kind, message):
    assert refusal(document, kind) == ("MalformedPolicyDocument", message)


@pytest.mark.parametrize("depth", [10, 1000, 100_000])
def test_a_deeply_nested_document_is_refused(depth):
    document = '{"Statement":' * depth + "{}" + "}" * depth
    assert refusal(document, "trust")[0] == "MalformedPolicyDocument"
    assert Policy.read(document, kind="trust", name="deep").statements[0].fault


def test_a_document_nested_one_level_too_deep_is_refused():
    assert Policy.parse(wrapped(ALLOW, Id=json.loads("[" * 15 + "]" * 15)), kind="identity", name="deep")
    assert refusal(wrapped(ALLOW, Id=json.loads("[" * 16 + "]" * 16)), "identity")


def test_a_dict_nested_too_deeply_is_refused():
    deep = {}
    for _ in range(100_000):
        deep = {"Statement": deep}
    assert refusal(deep, "identity")[0] == "MalformedPolicyDocument"


def test_duplicate_statement_ids_and_unknown_versions_are_refused():
    assert refusal(wrapped(ALLOW | {"Sid": "A"}, ALLOW | {"Sid": "A"}), "identity") == (
        "MalformedPolicyDocument",
        "Statement IDs (SID) in a single policy must be unique.",
    )
    assert refusal(wrapped(ALLOW, Version="2013-01-01"), "identity") == (
        "MalformedPolicyDocument",
        "Policy document must be version 2012-10-17 or greater.",
    )


def test_a_trust_policy_is_limited_to_2048_characters_not_counting_white_space(web_identity):
    def sized(length):
        document = web_identity(Sid="")
        document["Statement"][0]["Sid"] = "x" * (length - len(json.dumps(document, separators=(",", ":"))))
        return json.dumps(document, indent=4)

    assert Policy.parse(sized(2048), kind="trust", name="trust").size == 2048
    assert refusal(sized(2049), "trust") == ("LimitExceeded", "Cannot exceed quota for ACLSizePerRole: 2048")


def test_a_single_statement_needs_no_list_and_a_policy_may_be_text_or_a_dict(web_identity):
    document = web_identity()
    document["Statement"] = document["Statement"][0]
    for form in (document, json.dumps(document), json.dumps(document, indent=2)):
        policy = Policy.parse(form, kind="trust", name="trust")
        assert len(policy.statements) == 1
        assert policy.size == len(json.dumps(document, separators=(",", ":")))


def test_numbers_and_booleans_in_a_condition_need_no_quotation_marks():
    condition = {"Bool": {"a:b": True}, "NumericLessThan": {"a:b": 3600}, "StringEquals": {"a:b": ["aBc", False]}}
    (statement,) = Policy.parse(wrapped(ALLOW | {"Condition": condition}), kind="identity", name="x").statements
    assert [compiled.wanted for compiled in statement.conditions] == [("true",), ("3600",), ("aBc", "false")]


def test_only_decode_document_accepts_a_url_encoded_document(web_identity):
    text = json.dumps(web_identity())
    assert decode_document(quote(text, safe="")) == text
    assert refusal(quote(text, safe=""), "trust")[1] == "This policy contains invalid Json"


@pytest.mark.parametrize("broken", [
    "no JSON",
    {"Version": "2012-10-17"},
    {"Version": "2013-01-01", "Statement": [ALLOW | {"Action": "*"}]},
    wrapped("Allow"),
    wrapped(ALLOW | {"Action": 7}),
    wrapped(ALLOW | {"Principal": "*"}),
    wrapped(ALLOW | {"Unknown": "field"}),
    wrapped(ALLOW | {"Condition": {"StringMatches": {"aws:x": "y"}}}),
    wrapped(ALLOW | {"Resource": "arn:aws:s3:::${aws:username"}),
])  # fmt: skip
def test_a_broken_stored_policy_never_allows_and_the_decision_says_why(broken):
    policy = Policy.read(broken, kind="identity", name="broken")
    decision = evaluate(GET, identity=[policy])
    assert not decision.allowed
    assert 'statement 1 of "broken" cannot be evaluated' in decision.reason


@pytest.mark.parametrize(("statement", "outcome"), [
    ({"Effect": "Deny", "Action": 7}, "explicitDeny"),
    ({"Efect": "Deny"}, "explicitDeny"),
    ({"Effect": "Allow", "Action": 7}, "allowed"),
])  # fmt: skip
def test_a_broken_stored_statement_denies_unless_its_effect_is_allow(statement, outcome):
    policy = Policy.read(wrapped(ALLOW, statement), kind="identity", name="broken")
    decision = evaluate(GET, identity=[policy])
    assert decision.outcome == outcome
    assert decision.statement.position == (1 if decision.allowed else 2)


def test_an_operator_without_keys_always_matches():
    policy = Policy.read(wrapped(ALLOW | {"Condition": {"StringEquals": {}}}), kind="identity", name="empty")
    assert evaluate(GET, identity=[policy]).allowed


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.sampled_from(["Allow", "Deny", "*", "s3:*", "2012-10-17"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["Version", "Statement", "Effect", "Action", "Resource", "Principal", "Condition", "AWS"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_every_document_is_either_parsed_or_refused(document):
    for kind in ("identity", "trust", "resource", "session", "boundary"):
        try:
            Policy.parse(document, kind=kind, name="any")
        except MalformedPolicy as refused:
            assert refused.code and refused.message
        stored = Policy.read(document, kind=kind, name="any")
        evaluate(GET, identity=[stored])
