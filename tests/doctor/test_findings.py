"""Each step's check finds its causes, with a repair for each, and finds nothing in a healthy lab."""

import copy
import json
import shlex

import pytest

from labkit import doctor, documents, steps
from labkit.doctor import checks
from tests.doctor import recording
from tests.doctor.recording import a_pod, healthy
from tests.doctor.recording import evidence as recorded
from tests.doctor.repairing import commands

OTHER = recording.NAME.replace("0123", "FFFF")
# The facts that the tests below change, and the call that returns each.
CALLS = {
    "provider_arns": recording.PROVIDERS,
    "provider": recording.PROVIDER,
    "role": recording.ROLE,
    "attached_policies": recording.ATTACHED,
    "service_accounts": recording.SERVICE_ACCOUNTS,
    "pods": recording.PODS,
    "webhook": recording.WEBHOOK,
    "caller": recording.CALLER,
}


def evidence(**facts):
    return recorded(healthy() | {CALLS[name]: fact for name, fact in facts.items()})


def check(step, **facts):
    return [finding.id for finding in checks.findings(step, evidence(**facts))]


def trusting(change):
    role = healthy()[recording.ROLE]
    change(role["AssumeRolePolicyDocument"]["Statement"][0])
    return {"role": role}


@pytest.mark.parametrize("step", steps.ORDER)
def test_a_step_finds_nothing_in_a_healthy_lab(step):
    assert check(step) == []
    assert all(row.right for row in checks.rows(step, evidence()))


def test_a_provider_without_an_audience_has_a_row_that_says_so():
    (issuer, audience) = checks.rows("oidc_provider", evidence(provider={"Url": recording.NAME, "ClientIDList": []}))
    assert issuer.right and not audience.right
    assert audience.found == "no client id"


def conditions(
    operator="StringEquals", sub=recording.PARAMETERS.subject, aud="sts.amazonaws.com", issuer=recording.NAME
):
    block = {f"{issuer}:sub": sub, f"{issuer}:aud": aud}
    return lambda statement: statement.update(Condition={operator: {k: v for k, v in block.items() if v is not None}})


@pytest.mark.parametrize(("id", "change"), [
    ("trust-policy-action-wrong", lambda s: s.update(Action="sts:AssumeRole")),
    ("trust-policy-of-a-service", lambda s: s.update(Principal={"Service": "ec2.amazonaws.com"})),
    ("trust-policy-provider-mismatch",
     lambda s: s.update(Principal={"Federated": f"arn:aws:iam::123456789012:oidc-provider/{OTHER}"})),
    ("trust-policy-condition-key-of-another-issuer", conditions(issuer=OTHER)),
    ("trust-policy-sub-of-another-namespace", conditions(sub="system:serviceaccount:other:my-service-account")),
    ("trust-policy-sub-of-another-namespace", conditions("StringLike", sub="system:serviceaccount:other:*")),
    ("trust-policy-sub-wildcard-under-string-equals", conditions(sub="system:serviceaccount:default:*")),
    ("trust-policy-aud-mismatch", conditions(aud="sts.eu-west-1.amazonaws.com")),
    ("trust-policy-refuses", lambda s: s.update(Effect="Deny")),
    ("trust-policy-sub-missing", conditions(sub=None)),
    ("trust-policy-sub-missing", conditions("StringLike", sub="system:serviceaccount:*")),
])  # fmt: skip
def test_a_fault_of_the_trust_policy_gives_one_finding_and_its_repair_mends_it(id, change):
    facts = trusting(change)
    assert check("iam_role", **facts) == [id]
    (finding,) = checks.findings("iam_role", evidence(**facts))
    assert finding.severity == ("warning" if id == "trust-policy-sub-missing" else "error")
    if id == "trust-policy-sub-missing":
        assert not commands(finding.repair)
        return
    command = shlex.split(commands(finding.repair)[0])
    assert command[:5] == ["aws", "iam", "update-assume-role-policy", "--role-name", "my-role"]
    repaired = {"role": healthy()[recording.ROLE] | {"AssumeRolePolicyDocument": json.loads(command[-1])}}
    assert check("iam_role", **repaired) == []


@pytest.mark.parametrize("change", [
    conditions("StringLike", sub="system:serviceaccount:default:my-*"),
    conditions(sub=["system:serviceaccount:a:b", recording.PARAMETERS.subject]),
    lambda s: s.update(Action=["sts:TagSession", "sts:AssumeRoleWithWebIdentity"]),
])  # fmt: skip
def test_an_unusual_trust_policy_that_admits_the_service_account_is_right(change):
    assert check("iam_role", **trusting(change)) == []
    assert all(row.right for row in checks.rows("iam_role", evidence(**trusting(change))))


def test_a_wildcard_for_every_service_account_makes_only_the_subjects_row_wrong():
    facts = trusting(conditions("StringLike", sub="system:serviceaccount:*"))
    assert [row.what for row in checks.rows("iam_role", evidence(**facts)) if not row.right] == ["subject"]


def test_the_rows_say_what_a_trust_policy_lacks():
    changed = evidence(
        **trusting(lambda s: s.update(Principal={"Service": "ec2.amazonaws.com"}, Action=[], Condition={}))
    )
    rows = {row.what: row.found for row in checks.rows("iam_role", changed)}
    assert rows["trusted provider"] == "no federated principal"
    assert rows["action"] == "no Action"
    assert rows["subject"] == rows["audience"] == "no condition"
    assert not any(
        row.right for row in checks.rows("iam_role", changed) if row.what in ("trusted provider", "action", "evaluated")
    )


def test_a_statement_with_the_wrong_action_does_not_matter_if_another_one_admits():
    role = copy.deepcopy(healthy()[recording.ROLE])
    statements = role["AssumeRolePolicyDocument"]["Statement"]
    statements.insert(0, copy.deepcopy(statements[0]) | {"Action": "sts:AssumeRole"})
    assert check("iam_role", role=role) == []


def account_with(annotations):
    account = documents.service_account(recording.PARAMETERS, recording.ROLE_ARN)
    account["metadata"]["annotations"] = annotations
    return {"service_accounts": [account]}


KEY = "eks.amazonaws.com/role-arn"


@pytest.mark.parametrize(("step", "id", "facts"), [
    ("oidc_provider", "oidc-provider-missing", {"provider": None, "provider_arns": []}),
    ("oidc_provider", "oidc-provider-audience-missing",
     {"provider": {"Url": recording.NAME, "ClientIDList": ["vault"], "ThumbprintList": []}}),
    ("iam_role", "role-missing", {"role": None}),
    ("iam_role", "role-policy-not-attached", {"attached_policies": []}),
    ("service_account", "service-account-missing", {"service_accounts": []}),
    ("service_account", "service-account-annotation-missing", account_with(None)),
    ("service_account", "service-account-annotation-missing", account_with({KEY: "", "team": "a"})),
    ("service_account", "service-account-annotation-key-typo",
     account_with({"eks.amazon.com/role-arn": recording.ROLE_ARN})),
    ("service_account", "service-account-annotation-key-typo", account_with({"iam.amazonaws.com/role": "my-role"})),
    ("service_account", "service-account-annotation-arn-malformed",
     account_with({KEY: "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"})),
    ("service_account", "service-account-annotation-arn-malformed", account_with({KEY: recording.ROLE_ARN + " "})),
    ("service_account", "service-account-annotation-role-mismatch",
     account_with({KEY: recording.ROLE_ARN.replace("my-role", "other")})),
    ("pod", "pod-missing", {"pods": []}),
    ("pod", "webhook-missing", {"webhook": None}),
    ("credentials", "credentials-refused", {"caller": {"arn": "", "error": "An error occurred (AccessDenied) …"}}),
    ("credentials", "credentials-of-another-identity",
     {"caller": {"arn": "arn:aws:sts::123456789012:assumed-role/blue-node/i-0123", "error": ""}}),
])  # fmt: skip
def test_a_fault_gives_one_finding_with_a_repair(step, id, facts):
    assert check(step, **facts) == [id]
    (finding,) = checks.findings(step, evidence(**facts))
    assert finding.expected != finding.found
    assert finding.repair
    assert all(shlex.split(line) for line in finding.repair.splitlines())


@pytest.mark.parametrize(("id", "change"), [
    ("pod-uses-another-service-account", lambda p: p["spec"].update(serviceAccountName="default")),
    ("pod-older-than-annotation", lambda p: p["spec"]["containers"][0].pop("env")),
    ("pod-not-running", lambda p: p.update(status={"phase": "Pending"})),
])  # fmt: skip
def test_a_fault_of_the_pod_gives_one_finding_and_its_repair_recreates_the_pod(id, change):
    broken = a_pod()
    change(broken)
    assert check("pod", pods=[broken]) == [id]
    (finding,) = checks.findings("pod", evidence(pods=[broken]))
    first, second = commands(finding.repair)
    assert first == "kubectl delete pod my-pod -n default --grace-period=1"
    assert json.loads(shlex.split(second)[1]) == documents.pod(recording.PARAMETERS)


def test_a_repair_makes_the_missing_service_account_before_it_deletes_the_pod():
    broken = a_pod()
    broken["spec"].update(serviceAccountName="default")
    acts_as_node = {"arn": "arn:aws:sts::123456789012:assumed-role/blue-node/i-0123", "error": ""}
    seen = evidence(service_accounts=[], pods=[broken], caller=acts_as_node)
    (finding,) = checks.findings("credentials", seen)
    # The API server refuses a pod whose service account doesn't exist.
    made, deleted, _ = commands(finding.repair)
    assert json.loads(shlex.split(made)[1])["kind"] == "ServiceAccount"
    assert deleted == "kubectl delete pod my-pod -n default --grace-period=1"
    # In the whole diagnosis, the finding about the service account makes it.
    repairs = [each.repair for each in doctor.examine(seen).findings]
    assert sum("ServiceAccount" in line for each in repairs for line in commands(each)) == 1


def test_a_token_with_the_wrong_audience_is_found():
    broken = a_pod()
    broken["spec"]["volumes"][0]["projected"]["sources"][0]["serviceAccountToken"]["audience"] = "vault"
    assert check("credentials", pods=[broken]) == ["token-audience-mismatch"]


def test_a_role_of_another_run_is_found_and_its_repair_shows_the_roles_tags():
    role = trusting(conditions(sub="system:serviceaccount:default:a"))["role"]
    role["Tags"] = [{"Key": "labkit:run", "Value": "green/default/a/my-role"}]
    (finding,) = checks.findings("iam_role", evidence(role=role))
    assert (finding.id, finding.found) == ("role-belongs-to-another-run", "labkit:run = green/default/a/my-role")
    assert "list-role-tags" in finding.repair


def test_the_repair_removes_a_misspelt_annotation_key():
    (finding,) = checks.findings(
        "service_account", evidence(**account_with({"eks.amazon.com/role-arn": recording.ROLE_ARN}))
    )
    assert "eks.amazon.com/role-arn- eks.amazonaws.com/role-arn=" in finding.repair


def test_the_doctor_reports_a_missing_role_but_not_the_refusal_that_follows_from_it():
    diagnosis = doctor.examine(evidence(role=None, caller={"arn": "", "error": "An error occurred (AccessDenied)"}))
    assert [finding.id for finding in diagnosis.findings] == ["role-missing"]
    assert not diagnosis
    assert "aws iam create-role --role-name my-role" in repr(diagnosis)
    assert repr(doctor.examine(evidence())).splitlines()[0] == ("✓ default/my-service-account: nothing is wrong")
