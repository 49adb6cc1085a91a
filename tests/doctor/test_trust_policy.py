"""The trust policy: each fault gives one finding, two give two, and an unusual policy that works gives no finding."""

import copy
import json
import re
from urllib.parse import quote

import pytest

from labkit.policy import Policy, evaluate_trust
from tests.doctor.recording import (
    ACCOUNT_ID,
    ALL_SERVICE_ACCOUNTS,
    CALLER,
    EXCHANGE,
    NAME,
    PARAMETERS,
    PROVIDER,
    ROLE,
    ROLE_ARN,
    healthy,
)
from tests.doctor.repairing import commands, repaired
from tests.doctor.trusting import arn, document, examine, found, principal, sub, trusting, wants

OTHER = "oidc.eks.us-east-1.amazonaws.com/id/FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF"
ACTION = "sts:AssumeRoleWithWebIdentity"


def action(value):
    return lambda statement: statement.update(Action=value)


def named_by(issuer):
    """Return a change after which both condition keys begin with this issuer."""

    def change(statement):
        text = json.dumps(statement["Condition"])
        statement["Condition"] = json.loads(text.replace(f"{NAME}:", f"{issuer}:"))

    return change


REGION, SWAPPED = NAME.replace("us-east-1", "us-west-2"), NAME.replace("oidc.eks.us-east-1", "oidc.us-east-1.eks")
FAULTS = {
    "trust-policy-sub-mismatch": [sub("default:another"), wants("sub", "default:my-service-account"),
        wants("sub", ["system:serviceaccount:pay:*", "system:serviceaccount:default:another"], "StringLike")],
    "trust-policy-sub-of-another-namespace": [sub("kube-system:my-service-account"), sub("kube-system:*", "StringLike"),
        wants("sub", ["system:serviceaccount:a:b", "system:serviceaccount:c:my-service-account"]),
        wants("sub", ["system:serviceaccount:default:another", "system:serviceaccount:c:my-service-account"])],
    "trust-policy-sub-renamed": [
        sub("default:release-my-service-account"),
        sub("default:my-service-account-v2"),
        sub("default:service-account"),
        # The pattern for all service accounts of another namespace isn't the mistake.
        wants(
            "sub", ["system:serviceaccount:default:my-service-account-*", "system:serviceaccount:pay:*"], "StringLike"
        ),
    ],
    "trust-policy-sub-wildcard-under-string-equals": [sub("default:*"), sub("*"),
        sub("default:my-service-accoun?", "ForAnyValue:StringEquals")],
    "trust-policy-issuer-host-wrong": [principal(Federated=arn(REGION)), principal(Federated=arn(SWAPPED)),
        named_by(REGION), wants("sub", PARAMETERS.subject, issuer=SWAPPED)],
    "trust-policy-condition-key-of-another-issuer": [named_by(OTHER), wants("aud", "sts.amazonaws.com", issuer=OTHER)],
    "trust-policy-provider-mismatch": [principal(Federated=arn("idp.example.com"))],
    "trust-policy-principal-not-a-provider": [principal(Federated=NAME), principal(Federated=""),
        principal(Federated=ROLE_ARN), principal(Federated=f"arn:aws:iam::{ACCOUNT_ID}:saml-provider/a"),
        principal(AWS=f"arn:aws:iam::{ACCOUNT_ID}:root")],
    "trust-policy-of-a-service": [lambda s: (s.update(Principal={"Service": "ec2.amazonaws.com"},
            Action="sts:AssumeRole"), s.pop("Condition")),
        principal(Service=["lambda.amazonaws.com", "ec2.amazonaws.com"])],
    "trust-policy-of-pod-identity": [lambda s: (s.update(Principal={"Service": "pods.eks.amazonaws.com"},
            Action=["sts:AssumeRole", "sts:TagSession"]), s.pop("Condition"))],
    "trust-policy-action-wrong": [action("sts:AssumeRole"), action(["sts:TagSession", "sts:AssumeRoleWithSAML"]),
        lambda s: (s.pop("Action"), s.update(NotAction="sts:*"))],
    "trust-policy-aud-mismatch": [wants("aud", "sts.us-east-1.amazonaws.com"),
        wants("aud", ["sts.amazonaws.com.cn", "vault"], "StringLike")],
    "trust-policy-refuses": [lambda s: s.update(Effect="Deny"),
        lambda s: s["Condition"].update({"StringLike": {"sts:ExternalId": "x"}}), lambda s: s.update(Unknown="field")],
    "trust-policy-sub-missing": [wants("sub", None), sub("*", "StringLike"), wants("sub", "*", "StringLike")],
    "trust-policy-aud-missing": [wants("aud", None), wants("aud", "*", "StringLike")],
    "trust-policy-admits-others": [sub("default:*", "StringLike"), sub("*:*", "StringLike")],
    "trust-policy-near-size-limit": [lambda s: s.update(Sid="A" * 1600)],
}  # fmt: skip
CASES = [(id, change) for id, changes in FAULTS.items() for change in changes]
WARNINGS = (
    "trust-policy-sub-missing",
    "trust-policy-aud-missing",
    "trust-policy-admits-others",
    "trust-policy-near-size-limit",
)


# Somebody may have meant these or need them, so the repairs have no command.
WORDS = ("trust-policy-sub-missing", "trust-policy-admits-others", "trust-policy-near-size-limit")


@pytest.mark.parametrize(("id", "change"), CASES, ids=[f"{id}-{number}" for number, (id, _) in enumerate(CASES)])
def test_a_fault_of_the_trust_policy_gives_one_finding_and_its_repair_mends_it(id, change):
    answers = trusting(change)
    if id == "trust-policy-admits-others" and "*:*" in str(document(answers)):
        # A pattern that matches every service account counts as a missing condition.
        id = "trust-policy-sub-missing"
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == (id, "warning" if id in WARNINGS else "error")
    assert finding.expected != finding.found
    is_restricted = any(text in str(document(answers)) for text in ("sts:ExternalId",))
    if id in WORDS or is_restricted:
        assert not commands(finding.repair)
        said = "Nothing is changed|Someone wrote the restriction on purpose, so no command removes it"
        assert re.search(said, finding.repair)
    else:
        assert found(repaired(answers, finding.repair)) == []


def besides(operator, key, value):
    """Return a change that adds a condition to the statement's other conditions."""
    return lambda statement: statement["Condition"].setdefault(operator, {}).update({key: value})


PATTERN = sub("def*:*", "StringLike")


@pytest.mark.parametrize("changes", [
    # The author left out the service account, by name or by a pattern.
    [wants("sub", PARAMETERS.subject, "StringNotEquals")],
    [wants("sub", "system:serviceaccount:default:*", "StringNotLike"), wants("aud", "vault")],
    [PATTERN, besides("StringNotLike", f"{NAME}:sub", "system:serviceaccount:default:*")],
    [PATTERN, besides("StringNotEquals", f"{NAME}:sub", [PARAMETERS.subject, "system:serviceaccount:a:b"])],
    [PATTERN, besides("ForAllValues:StringNotEquals", f"{NAME}:sub", PARAMETERS.subject)],
    [PATTERN, besides("Null", f"{NAME}:sub", "true")],
    [besides("StringNotLike", f"{NAME}:sub", "system:serviceaccount:default:*")],
    [besides("StringNotEquals", f"{NAME}:aud", "sts.amazonaws.com")],
    # A pattern admits the service account, and a condition about something else doesn't.
    [PATTERN, besides("StringLike", "sts:ExternalId", "x")],
    [PATTERN, besides("StringEquals", "aws:ResourceTag/team", "x"), wants("aud", "vault")],
])  # fmt: skip
def test_no_command_admits_a_service_account_that_the_author_left_out(changes):
    answers = trusting(*changes)
    findings = examine(answers).findings
    assert findings
    for finding in findings:
        assert not commands(finding.repair)
    assert "Someone wrote the restriction on purpose, so no command removes it" in findings[0].repair
    assert "AttributeValue=UpdateAssumeRolePolicy" in findings[0].repair


def test_the_doctor_names_the_service_accounts_that_a_trust_policy_leaves_out():
    left_out = wants("sub", "system:serviceaccount:shop:cart", "StringNotEquals")
    (finding,) = examine(trusting(left_out)).findings
    everybody = "every service account of the cluster except shop:cart"
    assert finding.summary == f"The trust policy of my-role admits {everybody}."
    answers = trusting(left_out, wants("aud", "vault"))
    answers[PROVIDER]["ClientIDList"].append("vault")
    (finding,) = examine(answers).findings
    assert finding.repair.splitlines()[1] == f"# {everybody} keeps its access."


@pytest.mark.parametrize(("change", "named"), [
    (lambda d: d["Statement"][0]["Condition"].update({"IpAddress": {"aws:SourceIp": "127.0.0.0/8"}}), "aws:SourceIp"),
    (lambda d: d["Statement"][0]["Condition"].update({"StringLike": {"sts:RoleSessionName": "cart-*"}}),
     "sts:RoleSessionName"),
    (lambda d: d["Statement"][0]["Condition"].update({"StringLike": {"aws:ResourceOrgID": "o-*"}}),
     "aws:ResourceOrgID"),
    (lambda d: d["Statement"].append({"Effect": "Deny", "Principal": "*", "Action": ACTION,
            "Condition": {"NotIpAddress": {"aws:SourceIp": "10.0.0.0/8"}}}), "aws:SourceIp"),
])  # fmt: skip
def test_a_condition_on_the_request_stays_a_warning_until_sts_answers(change, named):
    answers = healthy()
    change(document(answers))
    assert found(answers) == []
    (finding,) = examine(answers, probe=False).findings
    assert (finding.id, finding.severity) == ("trust-policy-refuses", "warning")
    assert f"{named} (" in finding.summary
    assert "can't see the pod's request" in finding.summary
    assert "--probe shows" in finding.repair
    assert not commands(finding.repair)
    answers[CALLER] |= {"arn": "", "error": "(AccessDenied) when calling AssumeRoleWithWebIdentity"}
    answers[EXCHANGE] |= {"arn": "", "code": "AccessDenied"}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("trust-policy-refuses", "error")
    assert "has no" not in finding.summary
    # A wrong subject makes the refusal certain, so nothing is only a warning.
    sub("default:another")(document(answers)["Statement"][0])
    assert "warning" not in {each.severity for each in examine(answers, probe=False).findings}


@pytest.mark.parametrize(("limits", "admits"), [
    ({"DateLessThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}}, False),
    ({"NumericGreaterThan": {"aws:EpochTime": "1577836800"}, "DateLessThan": {"aws:CurrentTime": "2999-01-01"}}, True),
])  # fmt: skip
def test_the_time_is_known_before_sts_has_said_anything(limits, admits):
    answers = trusting(lambda statement: statement["Condition"].update(limits))
    findings = examine(answers, probe=False).findings
    if admits:
        assert findings == []
        return
    (finding,) = findings
    assert (finding.id, finding.severity) == ("trust-policy-refuses", "error")
    assert 'aws:CurrentTime DateLessThan "2020-01-01T00:00:00Z"' in finding.summary
    assert "Someone wrote the restriction on purpose" in finding.repair and not commands(finding.repair)


@pytest.mark.parametrize("key", ["aws:ResourceTag/team", "iam:ResourceTag/team"])
def test_the_roles_tags_are_known_before_sts_has_said_anything(key):
    answers = trusting(lambda statement: statement["Condition"].update({"StringLike": {key: "shop-*"}}))
    (finding,) = examine(answers, probe=False).findings
    assert (finding.id, finding.severity) == ("trust-policy-refuses", "error")
    answers[ROLE]["Tags"] = [*answers[ROLE].get("Tags", []), {"Key": "team", "Value": "shop-cart"}]
    assert found(answers) == [] == examine(answers, probe=False).findings


@pytest.mark.parametrize("changes", [
    {"trust-policy-sub-mismatch": sub("default:another"), "trust-policy-aud-mismatch": wants("aud", "vault")},
    {"trust-policy-sub-mismatch": sub("default:another"), "trust-policy-action-wrong": action("sts:AssumeRole")},
    {"trust-policy-sub-mismatch": sub("default:another"),
     "trust-policy-condition-key-of-another-issuer": named_by(OTHER)},
    {"trust-policy-provider-mismatch": principal(Federated=arn("idp.example.com")),
     "trust-policy-sub-of-another-namespace": sub("a:my-service-account")},
    {"trust-policy-issuer-host-wrong": named_by(REGION),
     "trust-policy-sub-wildcard-under-string-equals": sub("default:*")},
    {"trust-policy-principal-not-a-provider": principal(Federated=NAME),
     "trust-policy-aud-mismatch": wants("aud", "vault")},
    {"trust-policy-sub-missing": wants("sub", None), "trust-policy-aud-missing": wants("aud", None)},
    {"trust-policy-sub-mismatch": sub("default:another"), "trust-policy-aud-missing": wants("aud", None)},
    {"trust-policy-action-wrong": action("sts:AssumeRole"), "trust-policy-aud-missing": wants("aud", None)},
])  # fmt: skip
def test_two_faults_of_one_statement_are_both_found(changes):
    answers = trusting(*changes.values())
    assert set(found(answers)) == set(changes)
    for finding in examine(answers).findings:
        answers = repaired(answers, finding.repair)
    assert found(answers) == [id for id in changes if id in WORDS]


@pytest.mark.parametrize("change", [
    lambda d: d.update(Statement=d["Statement"][0]),
    lambda d: d["Statement"][0].update(Principal={"Federated": [arn(OTHER), arn(NAME)]}),
    lambda d: d["Statement"][0].update(Action=[ACTION, "sts:TagSession"]),
    lambda d: d["Statement"][0].update(Action="sts:assumerolewithweb*"),
    lambda d: wants("sub", [PARAMETERS.subject])(d["Statement"][0]),
    lambda d: wants("sub", PARAMETERS.subject, "StringLike")(d["Statement"][0]),
    lambda d: sub("default:my-service-*", "StringLike")(d["Statement"][0]),
    lambda d: (
        sub("kube-system:[a-z]", "StringLike")(d["Statement"][0])
        or wants("sub", [PARAMETERS.subject, "system:serviceaccount:nowhere:nobody"])(d["Statement"][0])
    ),
    lambda d: named_by(NAME.upper().replace("OIDC", "oidc"))(d["Statement"][0]),
    lambda d: d.pop("Version"),
    lambda d: d.update(Id="hand-written"),
])  # fmt: skip
def test_an_unusual_policy_that_admits_only_this_service_account_is_right(change):
    answers = healthy()
    change(document(answers))
    assert found(answers) == []


def test_the_doctor_reads_a_policy_that_iam_sends_as_json_text_or_url_encoded():
    for text in (json.dumps, lambda value: quote(json.dumps(value))):
        answers = healthy()
        answers[ROLE]["AssumeRolePolicyDocument"] = text(document(answers))
        assert found(answers) == []
        answers = trusting(action("sts:AssumeRole"))
        answers[ROLE]["AssumeRolePolicyDocument"] = text(document(answers))
        assert found(answers) == ["trust-policy-action-wrong"]


@pytest.mark.parametrize("document", ["{", [], {}, {"Statement": "all"}, {"Statement": [1, None]}])
def test_a_malformed_policy_is_found_and_its_repair_mends_it(document):
    answers = healthy()
    answers[ROLE]["AssumeRolePolicyDocument"] = document
    (finding,) = examine(answers).findings
    assert finding.id == "trust-policy-refuses"
    assert found(repaired(answers, finding.repair)) == []


def test_the_repair_changes_only_the_statement_for_the_cluster():
    answers = trusting(action("sts:AssumeRole"))
    github = {
        "Sid": "Deployment",
        "Effect": "Allow",
        "Principal": {"Federated": arn("token.actions.githubusercontent.com")},
        "Action": ACTION,
        "Condition": {"StringEquals": {"token.actions.githubusercontent.com:sub": "repo:example/shop:*"}},
    }
    document(answers)["Statement"].insert(0, github)
    (finding,) = examine(answers).findings
    assert finding.id == "trust-policy-action-wrong"
    after = repaired(answers, finding.repair)
    assert document(after)["Statement"] == [github, document(healthy())["Statement"][0]]


MINE, WEB, API = (f"system:serviceaccount:{name}" for name in ("default:my-service-account", "shop:web", "shop:api"))


@pytest.mark.parametrize(("values", "operator", "after"), [
    ([WEB, API], "StringEquals", [WEB, API, MINE]),
    (WEB, "StringEquals", [WEB, MINE]),
    (["system:serviceaccount:shop:*", API], "StringLike", ["system:serviceaccount:shop:*", API, MINE]),
    ([WEB, API], "ForAnyValue:StringEquals", [WEB, API, MINE]),
    ([WEB], "StringEqualsIgnoreCase", [WEB, MINE]),
])  # fmt: skip
def test_the_repair_adds_the_subject_to_those_that_the_trust_policy_names(values, operator, after):
    answers = trusting(wants("sub", values, operator))
    (finding,) = examine(answers).findings
    assert finding.id.startswith("trust-policy-sub-")
    (statement,) = document(repaired(answers, finding.repair))["Statement"]
    assert statement["Condition"][operator][f"{NAME}:sub"] == after
    said, kept, *diff = [line for line in finding.repair.splitlines() if line.startswith("#")]
    assert said == "# This adds default:my-service-account to the trust policy of my-role."
    assert kept.startswith("# shop:") and kept.endswith(("keeps its access.", "keep their access."))
    assert f'"{MINE}"' in next(line for line in diff if line.startswith("#   +") and MINE in line)


@pytest.mark.parametrize(("change", "kept"), [
    (sub("*"), "# The policy admits nobody else."),
    (sub("shop:*", "StringLike"), "# shop:* keeps its access."),
    (sub("*", "StringLike"), "# every service account of the cluster keeps its access."),
])  # fmt: skip
def test_the_repair_says_who_keeps_the_role(change, kept):
    answers = trusting(change, wants("aud", "vault"))
    answers[PROVIDER]["ClientIDList"].append("vault")
    finding, *more = examine(answers).findings
    assert finding.repair.splitlines()[1] == kept
    # One change of the trust policy mends all its faults.
    assert [each.repair for each in more] == [f"# done already by the repair of {finding.id}"] * len(more)


def test_nobody_keeps_a_role_whose_trust_policy_wants_an_audience_that_the_provider_refuses():
    # https://github.com/external-secrets/kubernetes-external-secrets/issues/287: the subject stands in place of `aud`.
    answers = trusting(wants("sub", None), wants("aud", MINE))
    (finding,) = examine(answers).findings
    assert finding.id == "trust-policy-aud-mismatch"
    assert finding.repair.splitlines()[1] == "# The policy admits nobody else."


def admitted(answers, subject):
    """Whether a service account gets the role, as STS decides."""
    policy = Policy.read(document(answers), kind="trust", name="my-role")
    context = {f"{NAME}:sub": subject, f"{NAME}:aud": "sts.amazonaws.com"}
    return evaluate_trust(policy, provider_arn=arn(NAME), context=context).allowed


def also(*changes):
    """Return a change that adds a second statement, itself changed like this."""

    def change(answers):
        second = copy.deepcopy(document(healthy())["Statement"][0])
        for each in changes:
            each(second)
        document(answers)["Statement"].append(second)

    return change


@pytest.mark.parametrize("changes", [
    # A second statement: for another account, another cluster or another audience, or a Deny.
    [also(sub("shop:api"))],
    [also(principal(Federated=arn(OTHER)), named_by(OTHER))],
    [also(sub("shop:api", "StringLike"), wants("aud", "vault"))],
    [also(lambda s: s.update(Effect="Deny", Principal="*"), wants("sub", [MINE, API], "StringLike"))],
    [lambda answers: document(answers)["Statement"][0].update(Action="sts:AssumeRole")],
    [lambda answers: wants("aud", None)(document(answers)["Statement"][0])],
    [lambda answers: wants("aud", "vault")(document(answers)["Statement"][0])],
    [lambda answers: document(answers)["Statement"][0].update(Principal={"Federated": [arn(OTHER), arn(NAME)]})],
])  # fmt: skip
def test_the_repair_admits_the_pod_and_changes_nothing_for_other_service_accounts(changes):
    answers = trusting(sub("shop:web"))
    for change in changes:
        change(answers)
    after = answers
    for finding in examine(answers).findings:
        after = repaired(after, finding.repair)
    assert admitted(after, MINE)
    for subject in (WEB, API, "system:serviceaccount:a:b"):
        assert admitted(after, subject) is admitted(answers, subject), subject
    kept = [each for each in document(answers)["Statement"] if each not in document(after)["Statement"]]
    # Only a Deny and the statement that names shop:web may change.
    assert all(each["Effect"] == "Deny" or WEB in str(each) for each in kept)


def test_the_repair_leaves_a_trust_policy_that_would_become_too_long():
    answers = trusting(sub("shop:web"), lambda s: s.update(Sid="A" * 1550))
    finding = next(each for each in examine(answers).findings if each.id == "trust-policy-sub-mismatch")
    assert not commands(finding.repair)
    assert "characters. IAM allows 2048." in finding.repair


def test_the_repair_keeps_the_service_that_the_role_trusts():
    answers = trusting(*FAULTS["trust-policy-of-pod-identity"])
    (finding,) = examine(answers).findings
    services = [each["Principal"] for each in document(repaired(answers, finding.repair))["Statement"]]
    assert services == [{"Service": "pods.eks.amazonaws.com"}, {"Federated": arn(NAME)}]


def test_the_repair_keeps_a_statements_sid_and_its_other_actions():
    answers = trusting(
        sub("a:b"), lambda s: s.update(Sid="Pods"), action(["sts:AssumeRoleWithWebIdentity", "sts:TagSession"])
    )
    (finding,) = examine(answers).findings
    (statement,) = document(repaired(answers, finding.repair))["Statement"]
    assert (statement["Sid"], statement["Action"]) == ("Pods", [ACTION, "sts:TagSession"])


def test_the_doctor_names_another_existing_service_account_that_the_policy_admits():
    answers = trusting(wants("sub", [PARAMETERS.subject, "system:serviceaccount:shop:cart"]))
    assert found(answers) == []
    answers[ALL_SERVICE_ACCOUNTS].append({"metadata": {"name": "cart", "namespace": "shop"}})
    (finding,) = examine(answers).findings
    assert (finding.id, finding.found) == ("trust-policy-admits-others", "system:serviceaccount:shop:cart")


def test_the_doctor_lists_no_other_service_accounts_if_the_policy_names_only_one():
    assert ALL_SERVICE_ACCOUNTS not in examine(healthy()).looked
