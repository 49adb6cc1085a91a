"""Session tags at AssumeRole and in web identity tokens: who may pass them, what they do, how they are refused."""

import json

import pytest
from botocore.exceptions import ClientError

from tests.simulator.aws.conftest import ACCOUNT, ISSUER, refused, trust_policy

CLAIM = "https://aws.amazon.com/tags"
TAGGER = f"arn:aws:iam::{ACCOUNT}:role/tagger"
CHAINED = f"arn:aws:iam::{ACCOUNT}:role/chained"
BOTH = ["sts:AssumeRoleWithWebIdentity", "sts:TagSession"]
GENERIC_PATTERN = r"Member must satisfy regular expression pattern: [\p{L}\p{Z}\p{N}_.:/=+\-@]"


def trusting(principal=ACCOUNT, action=("sts:AssumeRole", "sts:TagSession"), **fields):
    statement = {"Effect": "Allow", "Principal": {"AWS": principal}, "Action": action} | fields
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def may(action, resource="*", **fields):
    return {"Effect": "Allow", "Action": action, "Resource": resource} | fields


@pytest.fixture
def tagger(aws):
    """A role that the administrator assumes with tags. It may read the objects under its team's name."""
    iam = aws.client("iam")
    tags = [{"Key": "Team", "Value": "of-role"}, {"Key": "Site", "Value": "west"}]
    iam.create_role(RoleName="tagger", AssumeRolePolicyDocument=trusting(), Tags=tags)
    statements = [
        may("s3:GetObject", "arn:aws:s3:::irsa-lab/${aws:PrincipalTag/Team}/*"),
        may("s3:GetObject", "arn:aws:s3:::irsa-lab/sites/${aws:PrincipalTag/Site, 'none'}"),
        may("sts:*"),
    ]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_role_policy(RoleName="tagger", PolicyName="inline", PolicyDocument=document)
    s3 = aws.client("s3")
    s3.create_bucket(Bucket="irsa-lab")
    for key in ("of-role/x", "blue/x", "sites/west"):
        s3.put_object(Bucket="irsa-lab", Key=key, Body=key.encode())


def assume(aws, credentials=None, role=TAGGER, transitive=None, **tags):
    request = {"RoleArn": role, "RoleSessionName": "tagged"}
    if tags:
        request["Tags"] = [{"Key": key, "Value": value} for key, value in tags.items()]
    if transitive is not None:
        request["TransitiveTagKeys"] = transitive
    return aws.client("sts", credentials).assume_role(**request)


def reads(aws, credentials):
    """The objects that a session may read."""
    s3 = aws.client("s3", credentials)
    seen = set()
    for key in ("of-role/x", "blue/x", "sites/west"):
        try:
            s3.get_object(Bucket="irsa-lab", Key=key)
        except s3.exceptions.ClientError:
            continue
        seen.add(key)
    return seen


def test_a_session_tag_hides_the_role_s_tag_of_the_same_key_whatever_its_case(aws, tagger):
    assert reads(aws, assume(aws)["Credentials"]) == {"of-role/x", "sites/west"}
    assert reads(aws, assume(aws, Team="blue")["Credentials"]) == {"blue/x", "sites/west"}
    assert reads(aws, assume(aws, TEAM="blue")["Credentials"]) == {"blue/x", "sites/west"}


def test_session_tags_count_in_the_packed_policy_size(aws, tagger):
    assert "PackedPolicySize" not in assume(aws)
    small, large = assume(aws, Team="blue"), assume(aws, Team="b" * 256)
    assert 0 < small["PackedPolicySize"] < large["PackedPolicySize"] <= 100
    tags = {f"T{number}": "a" * 250 for number in range(9)}
    message = "Packed size of session tags consumes 498% of allotted space."
    refused(lambda: assume(aws, **tags), 400, "PackedPolicyTooLarge", message)
    policy = json.dumps({"Version": "2012-10-17", "Statement": [may(f"s3:{'Get' * 650}")]})
    request = {"RoleArn": TAGGER, "RoleSessionName": "tagged", "Policy": policy}
    assert 90 < aws.client("sts").assume_role(**request)["PackedPolicySize"] <= 100
    request["Tags"] = [{"Key": "Team", "Value": "b" * 200}]
    message = "Packed policy consumes 145% of allotted space, please use smaller policy."
    refused(lambda: aws.client("sts").assume_role(**request), 400, "PackedPolicyTooLarge", message)


def test_passing_tags_needs_sts_tag_session_in_the_trust_policy(aws, tagger):
    iam = aws.client("iam")
    iam.update_assume_role_policy(RoleName="tagger", PolicyDocument=trusting(action="sts:AssumeRole"))
    assume(aws)
    message = f"User: arn:aws:iam::{ACCOUNT}:user/administrator is not authorized to perform: sts:TagSession "
    refused(lambda: assume(aws, Team="blue"), 403, "AccessDenied", f"{message}on resource: {TAGGER}")
    assert "no role trust policy allows sts:TagSession" in aws.last()["lab"]["reason"]


@pytest.mark.parametrize(("condition", "tags", "transitive", "admitted"), [
    ({"StringEquals": {"aws:RequestTag/Team": "blue"}}, {"Team": "blue"}, None, True),
    ({"StringEquals": {"aws:RequestTag/team": "blue"}}, {"TEAM": "blue"}, None, True),
    ({"StringEquals": {"aws:RequestTag/Team": "blue"}}, {"Team": "red"}, None, False),
    ({"StringEquals": {"aws:RequestTag/Team": "blue"}}, {"Site": "west"}, None, False),
    ({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}, {"Team": "x"}, None, True),
    ({"ForAllValues:StringEquals": {"aws:TagKeys": ["Team"]}}, {"Team": "x", "Site": "y"}, None, False),
    ({"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["Team"]}}, {"Team": "x"}, ["Team"], True),
    ({"ForAllValues:StringEquals": {"sts:TransitiveTagKeys": ["Team"]}}, {"Site": "x"}, ["Site"], False),
    ({"Null": {"sts:TransitiveTagKeys": "true"}}, {"Team": "x"}, None, True),
    ({"Null": {"sts:TransitiveTagKeys": "true"}}, {"Team": "x"}, ["Team"], False),
])  # fmt: skip
def test_a_trust_policy_s_conditions_limit_which_tags_may_be_passed(aws, tagger, condition, tags, transitive, admitted):
    iam = aws.client("iam")
    iam.update_assume_role_policy(RoleName="tagger", PolicyDocument=trusting(Condition=condition))
    if admitted:
        assume(aws, transitive=transitive, **tags)
    else:
        message = f"User: arn:aws:iam::{ACCOUNT}:user/administrator is not authorized to perform: sts:AssumeRole "
        refused(
            lambda: assume(aws, transitive=transitive, **tags), 403, "AccessDenied", f"{message}on resource: {TAGGER}"
        )


def test_the_next_role_inherits_transitive_tags_and_cannot_replace_them(aws, tagger):
    iam = aws.client("iam")
    iam.create_role(RoleName="chained", AssumeRolePolicyDocument=trusting())
    statements = [may("s3:GetObject", "arn:aws:s3:::irsa-lab/${aws:PrincipalTag/Team}/*"), may("sts:*")]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_role_policy(RoleName="chained", PolicyName="inline", PolicyDocument=document)

    plain = assume(aws, Team="blue")["Credentials"]
    assert reads(aws, assume(aws, plain, role=CHAINED)["Credentials"]) == set()
    first = assume(aws, transitive=["team"], Team="blue", Site="west")["Credentials"]
    answer = assume(aws, first, role=CHAINED)
    assert answer["PackedPolicySize"] > 0
    assert reads(aws, answer["Credentials"]) == {"blue/x"}
    conflict = (
        "One of the specified transitive tag keys can't be set because it conflicts with a transitive tag key "
        "from the calling session."
    )
    refused(lambda: assume(aws, first, role=CHAINED, TEAM="red"), 400, "InvalidParameterValue", conflict)
    # The third session has the tag that the second one inherited, but not the second one's own tag.
    second = assume(aws, first, role=CHAINED, Site="east")["Credentials"]
    third = assume(aws, second, role=CHAINED)["Credentials"]
    assert reads(aws, third) == {"blue/x"}
    refused(lambda: assume(aws, third, role=CHAINED, Team="red"), 400, "InvalidParameterValue", conflict)
    assume(aws, third, role=CHAINED, Site="north")


def test_inheriting_transitive_tags_needs_sts_tag_session_too(aws, tagger):
    iam = aws.client("iam")
    iam.create_role(RoleName="chained", AssumeRolePolicyDocument=trusting(action="sts:AssumeRole"))
    assume(aws, assume(aws, Team="blue")["Credentials"], role=CHAINED)
    session = assume(aws, transitive=["Team"], Team="blue")["Credentials"]
    message = f"User: arn:aws:sts::{ACCOUNT}:assumed-role/tagger/tagged is not authorized to perform: sts:TagSession "
    refused(lambda: assume(aws, session, role=CHAINED), 403, "AccessDenied", f"{message}on resource: {CHAINED}")


@pytest.mark.parametrize(("tags", "transitive", "code", "message"), [
    ([("Team", "a"), ("team", "b")], [], "InvalidParameterValue",
     "Duplicate tag keys found. Please note that Tag keys are case insensitive."),
    ([("Team", "a")], ["Site"], "InvalidParameterValue",
     "The specified transitive tag key must be included in the requested tags."),
    ([], ["Site"], "InvalidParameterValue", "The specified transitive tag key must be included in the requested tags."),
    ([("aws:team", "a")], [], "InvalidParameterValue", "Tag keys that begin with aws: are reserved for AWS."),
    ([("", "a")], [], "ValidationError",
     "1 validation error detected: Value '' at 'tags.1.member.key' failed to satisfy constraint: "
     "Member must have length greater than or equal to 1"),
    ([("k" * 129, "a")], [], "ValidationError",
     f"1 validation error detected: Value '{'k' * 129}' at 'tags.1.member.key' failed to satisfy constraint: "
     "Member must have length less than or equal to 128"),
    ([("k", "v" * 257)], [], "ValidationError",
     f"1 validation error detected: Value '{'v' * 257}' at 'tags.1.member.value' failed to satisfy constraint: "
     "Member must have length less than or equal to 256"),
    ([("ok", "a"), ("bad*key", "a")], [], "ValidationError",
     "1 validation error detected: Value 'bad*key' at 'tags.2.member.key' failed to satisfy constraint: "
     f"{GENERIC_PATTERN}+"),
    ([("k", "a;b")], [], "ValidationError",
     "1 validation error detected: Value 'a;b' at 'tags.1.member.value' failed to satisfy constraint: "
     f"{GENERIC_PATTERN}*"),
    ([(f"k{number}", "") for number in range(51)], [], "ValidationError",
     "1 validation error detected: Value at 'tags' failed to satisfy constraint: "
     "Member must have length less than or equal to 50"),
])  # fmt: skip
def test_assume_role_refuses_invalid_session_tags(aws, tagger, tags, transitive, code, message):
    request = {"RoleArn": TAGGER, "RoleSessionName": "tagged"}
    request["Tags"] = [{"Key": key, "Value": value} for key, value in tags]
    request["TransitiveTagKeys"] = transitive
    refused(lambda: aws.client("sts").assume_role(**request), 400, code, message)


def test_assume_role_takes_fifty_tags_and_letters_of_any_script(aws, tagger):
    aws.client("sts").assume_role(
        RoleArn=TAGGER,
        RoleSessionName="tagged",
        Tags=[{"Key": f"k{number}", "Value": ""} for number in range(49)] + [{"Key": "Größe", "Value": "日 本"}],
    )


def nested(transitive=None, **tags):
    return {CLAIM: {"principal_tags": tags} | ({"transitive_tag_keys": transitive} if transitive else {})}


@pytest.mark.parametrize("claims", [
    nested(Team=["blue"], transitive=["Team"]),
    nested(Team="blue", transitive=["team"]),
    {f"{CLAIM}/principal_tags/Team": "blue", f"{CLAIM}/transitive_tag_keys": ["Team"]},
])  # fmt: skip
def test_a_token_s_tags_become_session_tags_that_the_next_role_inherits(aws, irsa, claims):
    irsa.trust(trust_policy(Action=BOTH))
    irsa.permit(may("s3:GetObject", "arn:aws:s3:::irsa-lab/${aws:PrincipalTag/Team}/*"), may("sts:*"))
    aws.client("s3").put_object(Bucket="irsa-lab", Key="blue/x", Body=b"x")
    answer = irsa.assume(WebIdentityToken=aws.issuer.token(**claims))
    assert answer["PackedPolicySize"] > 0
    assert reads(aws, answer["Credentials"]) == {"blue/x"}
    irsa.iam.create_role(RoleName="chained", AssumeRolePolicyDocument=trusting())
    document = json.dumps({"Version": "2012-10-17", "Statement": [may("s3:*", "*", Condition={
        "StringEquals": {"aws:PrincipalTag/Team": "blue"}})]})  # fmt: skip
    irsa.iam.put_role_policy(RoleName="chained", PolicyName="inline", PolicyDocument=document)
    assert reads(aws, assume(aws, answer["Credentials"], role=CHAINED)["Credentials"]) == {"blue/x"}


def test_a_token_with_tags_needs_sts_tag_session_in_the_trust_policy(aws, irsa):
    token = aws.issuer.token(**nested(Team="blue"))
    message = "Not authorized to perform sts:TagSession"
    refused(lambda: irsa.assume(WebIdentityToken=token), 403, "AccessDenied", message)
    reason = aws.last()["lab"]["reason"]
    assert reason.startswith("the token has session tags; the trust policy lets the provider do")
    name = ISSUER.removeprefix("https://")
    only = {"StringEquals": {f"{name}:sub": "system:serviceaccount:default:my-service-account"}}
    irsa.trust(trust_policy(Action=BOTH, Condition=only | {"StringLike": {"aws:RequestTag/Team": "b*"}}))
    irsa.assume(WebIdentityToken=token)
    message = "Not authorized to perform sts:AssumeRoleWithWebIdentity"
    other = aws.issuer.token(**nested(Team="red"))
    refused(lambda: irsa.assume(WebIdentityToken=other), 403, "AccessDenied", message)


@pytest.mark.parametrize(("claims", "reason"), [
    ({CLAIM: [{"principal_tags": {}}]}, f"{CLAIM} is not an object"),
    ({CLAIM: {"principal_tags": ["Team"]}}, "principal_tags is not an object"),
    (nested(Team=["a", "b"]), "the tag 'Team' must have exactly one value, which must be a string"),
    (nested(Team=7), "the tag 'Team' must have exactly one value, which must be a string"),
    (nested(Team=[]), "the tag 'Team' must have exactly one value, which must be a string"),
    (nested(Team="a", team="b"), "two tags have the same key; keys are case insensitive"),
    (nested(Team="a", transitive=["Site"]), "a transitive tag key belongs to no tag"),
    (nested(Team="a", transitive=[1]), "transitive_tag_keys is not a list of keys"),
    (nested(Team="a", transitive={"x": 1}), "transitive_tag_keys is not a list of keys"),
    (nested(**{f"k{n}": "" for n in range(51)}), "there are 51 tags; at most 50 are allowed"),
    (nested(**{"aws:x": "a"}), "tag keys that begin with aws: are reserved for AWS"),
    (nested(Team="v" * 257), f"Value '{'v' * 257}' at the tag 'Team' failed to satisfy constraint: "
     "Member must have length less than or equal to 256"),
    ({f"{CLAIM}/principal_tags/": "x"}, "Value '' at the tag's key '' failed to satisfy constraint: "
     "Member must have length greater than or equal to 1"),
])  # fmt: skip
def test_sts_refuses_a_token_with_invalid_tags(aws, irsa, claims, reason):
    irsa.trust(trust_policy(Action=BOTH))
    token = aws.issuer.token(**claims)
    refused(lambda: irsa.assume(WebIdentityToken=token), 400, "ValidationError", "Unable to validate tags")
    assert aws.last()["lab"]["reason"] == f"Unable to validate tags: {reason}"


def test_a_token_without_tags_does_not_need_sts_tag_session(aws, irsa):
    assert "PackedPolicySize" not in irsa.assume()
    assert "PackedPolicySize" not in irsa.assume(WebIdentityToken=aws.issuer.token(**{CLAIM: {}}))


SOURCE = "sts:SetSourceIdentity"
SOURCE_CLAIM = "https://aws.amazon.com/source_identity"


def test_a_source_identity_needs_sts_set_source_identity(aws, tagger, irsa):
    request = {"RoleArn": TAGGER, "RoleSessionName": "tagged", "SourceIdentity": "ann"}
    message = f"User: arn:aws:iam::{ACCOUNT}:user/administrator is not authorized to perform: {SOURCE} "
    message += f"on resource: {TAGGER}"
    refused(lambda: aws.client("sts").assume_role(**request), 403, "AccessDenied", message)
    token = aws.issuer.token(**{SOURCE_CLAIM: "ann"})
    refused(lambda: irsa.assume(WebIdentityToken=token), 403, "AccessDenied", f"Not authorized to perform {SOURCE}")


def test_a_source_identity_stays_with_the_session_and_the_next_role(aws, irsa):
    irsa.trust(trust_policy(Action=["sts:AssumeRoleWithWebIdentity", SOURCE]))
    irsa.permit(
        {"Effect": "Allow", "Action": ["sts:AssumeRole", SOURCE], "Resource": "*"},
        {"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*",
         "Condition": {"StringEquals": {"aws:SourceIdentity": "ann"}}},
    )  # fmt: skip
    answer = irsa.assume(WebIdentityToken=aws.issuer.token(**{SOURCE_CLAIM: "ann"}))
    assert answer["SourceIdentity"] == "ann"
    aws.client("s3", answer["Credentials"]).list_buckets()
    assert aws.last()["userIdentity"]["sessionContext"]["sourceIdentity"] == "ann"
    trust = {
        "Effect": "Allow",
        "Principal": {"AWS": irsa.role_arn},
        "Action": ["sts:AssumeRole", SOURCE],
        "Condition": {"StringEquals": {"sts:SourceIdentity": "ann"}},
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": trust})
    irsa.iam.create_role(RoleName="next", AssumeRolePolicyDocument=policy)
    chained = aws.client("sts", answer["Credentials"])
    request = {"RoleArn": f"arn:aws:iam::{ACCOUNT}:role/next", "RoleSessionName": "chained"}
    assert chained.assume_role(**request)["SourceIdentity"] == "ann"
    with pytest.raises(ClientError, match=f"not authorized to perform: {SOURCE}"):
        chained.assume_role(**request, SourceIdentity="bob")


@pytest.mark.parametrize("claim", [["ann"], 1, "a", "a b", "x" * 65])
def test_sts_refuses_a_token_with_an_invalid_source_identity(aws, irsa, claim):
    irsa.trust(trust_policy(Action=["sts:AssumeRoleWithWebIdentity", SOURCE]))
    token = aws.issuer.token(**{SOURCE_CLAIM: claim})
    refused(lambda: irsa.assume(WebIdentityToken=token), 400, "ValidationError", "Unable to validate source identity")


@pytest.mark.parametrize("key", ["aws:ResourceTag/env", "iam:ResourceTag/env"])
def test_a_policy_can_ask_for_the_tags_of_the_role_to_assume(aws, irsa, key):
    to_any = {"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": "*"}
    only = {"Condition": {"StringEquals": {key: "prod"}}}
    session = aws.client("sts", irsa.assume()["Credentials"])
    trust = {"Effect": "Allow", "Principal": {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}, "Action": "sts:AssumeRole"}
    document = json.dumps({"Version": "2012-10-17", "Statement": trust})
    for name in ("prod", "test"):
        irsa.iam.create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=[{"Key": "env", "Value": name}])

    def assumed(name):
        try:
            return bool(session.assume_role(RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{name}", RoleSessionName="me"))
        except ClientError as refused:
            assert refused.response["Error"]["Code"] == "AccessDenied"
            return False

    irsa.permit(to_any | only)
    assert (assumed("prod"), assumed("test")) == (True, False)
    irsa.permit(to_any, to_any | only | {"Effect": "Deny"})
    assert (assumed("prod"), assumed("test")) == (False, True)
    irsa.iam.tag_role(RoleName="my-role", Tags=[{"Key": "env", "Value": "prod"}])
    statement = trust_policy()["Statement"][0]
    irsa.trust(trust_policy(Condition=only["Condition"]))
    assert irsa.assume()["Credentials"]
    irsa.trust({"Version": "2012-10-17", "Statement": [statement, statement | only | {"Effect": "Deny"}]})
    with pytest.raises(ClientError, match="AccessDenied"):
        irsa.assume()
