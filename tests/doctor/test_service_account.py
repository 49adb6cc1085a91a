"""The service account: each fault gives one finding, and its repair, which also replaces the pod, mends it."""

import dataclasses
import json
import subprocess

import pytest

from labkit import doctor
from labkit.doctor.evidence import Evidence, Reads
from labkit.doctor.examination import is_named
from labkit.steps import pod, service_account
from tests.doctor.applying import applied, made
from tests.doctor.pods import examine, found
from tests.doctor.recording import (
    ALL_SERVICE_ACCOUNTS,
    ASSOCIATIONS,
    CALLER,
    CONNECTION,
    DETAILS,
    EVENTS,
    EXCHANGE,
    NAME,
    NAMESPACE,
    PARAMETERS,
    PODS,
    PROVIDER,
    PROVIDERS,
    ROLE,
    ROLE_ARN,
    ROLES,
    SERVICE_ACCOUNTS,
    evidence,
    healthy,
)
from tests.doctor.repairing import commands

KEY = "eks.amazonaws.com/role-arn"
EKSCTL = "arn:aws:iam::123456789012:role/eksctl-blue-addon-iamserviceaccount-default-Role1-1ABCDEFGHIJKL"


def annotated(annotations, pod_annotations=None):
    """A healthy lab with these annotations on the service account, and the pod that results from them."""
    answers, manifest = healthy(), pod.build(PARAMETERS)
    account = service_account.build(PARAMETERS, ROLE_ARN)
    account["metadata"]["annotations"] = annotations
    answers[SERVICE_ACCOUNTS] = [account]
    if pod_annotations:
        manifest["metadata"]["annotations"] = pod_annotations
    answers[PODS] = [made(manifest, answers)]
    return answers


@pytest.mark.parametrize("malformed", [
    "arn:aws:iam:123456789012:role/my-role", "my-role", "role/my-role", f'"{ROLE_ARN}"', f"{ROLE_ARN}\n",
    "arn:aws:iam::123456789012:role:my-role",
])  # fmt: skip
def test_a_malformed_arn_tells_the_name_of_the_role(malformed):
    answers = annotated({KEY: malformed})
    del answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"]
    # No trust policy and no tag names the service account.
    text = json.dumps(answers[ROLE]["AssumeRolePolicyDocument"]).replace(":my-service-account", ":*")
    answers[ROLE] |= {"AssumeRolePolicyDocument": json.loads(text.replace("StringEquals", "StringLike")), "Tags": []}
    answers[ROLES] = [answers[ROLE]]
    answers[DETAILS] = {"RoleDetailList": [answers[ROLE]], "Policies": []}
    finding = next(iter(examine(answers).findings))
    assert finding.id == "service-account-annotation-arn-malformed"
    assert f"{KEY}={ROLE_ARN}" in finding.repair and "<ROLE_NAME>" not in finding.repair


def made_by_eksctl(arn):
    """A lab whose service account lost its annotation. eksctl made the role with this ARN for the service account."""
    answers, name = annotated({}), arn.rpartition("/")[2]
    tags = {
        "alpha.eksctl.io/cluster-name": "blue",
        "alpha.eksctl.io/iamserviceaccount-name": "default/my-service-account",
    }
    role = {**answers[ROLE], "RoleName": name, "Arn": arn}
    if arn != ROLE_ARN:
        answers[ROLES].append(role)
    answers[ROLE.replace("my-role", name)] = role | {"Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
    return answers


def taken_away(manager):
    """A lab whose pod has its role, but whose service account lost the annotation when this manager wrote it."""
    answers = healthy()
    metadata = answers[SERVICE_ACCOUNTS][0]["metadata"]
    del metadata["annotations"]
    metadata["managedFields"] = [
        {"manager": "kubectl-client-side-apply", "operation": "Update", "time": "2026-01-01T00:00:30Z"},
        {"manager": manager, "operation": "Apply", "time": "2026-01-01T09:00:00Z"},
    ]
    return answers


def test_an_annotation_on_the_pod_that_is_not_an_arn_is_repaired_with_the_role_that_trusts_the_account():
    answers = annotated({}, {KEY: "my-role"})
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"] = {}
    (finding,) = examine(answers, role_is_known=False).findings
    assert finding.id == "annotation-on-the-pod" and f"{KEY}={ROLE_ARN}" in finding.repair


def test_a_role_that_kube2iam_reads_on_the_pod_is_the_role_to_annotate():
    answers = annotated({}, {"iam.amazonaws.com/role": "my-role"})
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"] = {}
    trust = answers[ROLE]["AssumeRolePolicyDocument"]["Statement"][0]
    trust.update(Principal={"AWS": ROLE_ARN.replace("my-role", "node")}, Action="sts:AssumeRole", Condition={})
    answers[ROLES][0]["AssumeRolePolicyDocument"] = answers[ROLE]["AssumeRolePolicyDocument"]
    finding = examine(answers, role_is_known=False).findings[0]
    assert finding.id == "annotation-on-the-pod" and f"{KEY}={ROLE_ARN}" in finding.repair
    assert finding.found == "iam.amazonaws.com/role: my-role on the pod"


@pytest.mark.parametrize(("id", "answers"), [
    ("service-account-annotation-key-typo", annotated({"eks.amazon.com/role-arn": ROLE_ARN})),
    ("service-account-annotation-key-typo", annotated({"eks.amazonaws.com/role_arn": ROLE_ARN})),
    ("service-account-annotation-key-typo", annotated({"iam.amazonaws.com/role": "my-role"})),
    ("service-account-annotation-key-typo", annotated({"example.com/role": ROLE_ARN})),
    ("service-account-annotation-arn-malformed", annotated({KEY: "arn:aws:iam::aws:policy/ReadOnlyAccess"})),
    ("service-account-annotation-arn-malformed", annotated({KEY: "arn:aws:iam:::role/my-role"})),
    ("service-account-annotation-arn-malformed", annotated({KEY: f"{ROLE_ARN}\u200b"})),
    ("service-account-annotation-missing", annotated({})),
    ("service-account-annotation-missing", annotated({KEY: "", "team": "a"})),
    ("service-account-annotation-missing", annotated({"example.com/role": "admin"})),
    ("service-account-annotation-role-mismatch", annotated({KEY: f"{ROLE_ARN}-of-orders"})),
    ("annotation-on-the-pod", annotated({}, {KEY: ROLE_ARN})),
    ("eksctl-role-without-annotation", made_by_eksctl(ROLE_ARN)),
    ("service-account-annotation-missing", made_by_eksctl(EKSCTL)),
    ("service-account-annotation-taken-away", taken_away("argocd-controller")),
    ("service-account-annotation-missing", taken_away("kubectl-annotate")),
    ("service-account-missing", healthy() | {SERVICE_ACCOUNTS: []}),
    ("namespace-missing", healthy() | {SERVICE_ACCOUNTS: [], PODS: [], NAMESPACE: None}),
])  # fmt: skip
def test_a_fault_of_the_service_account_gives_one_finding_and_its_repair_mends_it(id, answers):
    diagnosis = examine(answers)
    assert [finding.id for finding in diagnosis.findings] == [id]
    (finding,) = diagnosis.findings
    assert finding.expected != finding.found
    after = applied(answers, finding.repair)
    # The repair creates the missing namespace, but not its pod.
    assert found(after) == (["pod-missing"] if id == "namespace-missing" else [])


def test_the_role_that_eksctl_made_is_the_one_to_annotate_if_nobody_named_another():
    answers = made_by_eksctl(EKSCTL)
    del answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"]
    (finding,) = examine(answers, role_is_known=False).findings
    assert (finding.id, finding.expected) == ("eksctl-role-without-annotation", f"{KEY}: {EKSCTL}")
    assert f"{KEY}={EKSCTL}" in finding.repair


def test_the_pods_role_is_the_expected_one_if_a_controller_took_the_annotation_away():
    answers = taken_away("argocd-controller")
    del answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"]
    (variable,) = [each for each in answers[PODS][0]["spec"]["containers"][0]["env"] if each["name"] == "AWS_ROLE_ARN"]
    variable["value"] = EKSCTL
    findings = {finding.id: finding for finding in examine(answers, role_is_known=False).findings}
    finding = findings["service-account-annotation-taken-away"]
    assert finding.expected == f"{KEY}: {EKSCTL}" and f"{KEY}={EKSCTL}" in finding.repair


def test_a_pod_identity_association_beside_the_annotation_is_a_warning():
    subject = {"namespace": "default", "serviceAccount": "my-service-account"}
    answers = healthy() | {ASSOCIATIONS: [{**subject, "associationId": "a-1"}]}
    (finding,) = examine(answers).findings
    assert (finding.id, finding.severity) == ("pod-identity-association-too", "warning")
    # Pods may use the association's role.
    assert not commands(finding.repair)
    assert "#   aws eks delete-pod-identity-association --cluster-name blue --association-id a-1" in finding.repair
    assert found(healthy() | {ASSOCIATIONS: [{**subject, "serviceAccount": "other", "associationId": "a-1"}]}) == []


def assert_no_shell_runs(command):
    """Assert that bash refuses the command, even if a file has the placeholder's name."""
    done = subprocess.run(
        ["bash", "-c", f"cd /tmp; touch ROLE_NAME; kubectl() {{ echo ran; }}; {command}"],
        capture_output=True,
        check=False,
    )
    assert done.returncode != 0 and b"ran" not in done.stdout


def test_the_repair_has_a_placeholder_if_nothing_says_which_role_is_meant():
    answers = annotated({KEY: "tbd"}) | {ROLES: [], PODS: []}
    answers[SERVICE_ACCOUNTS][0]["metadata"].pop("labels")
    findings = {finding.id: finding for finding in examine(answers, role_is_known=False, pod_name="").findings}
    finding = findings["service-account-annotation-arn-malformed"]
    comment, command = finding.repair.splitlines()
    assert comment.startswith("# nothing says which role default/my-service-account should have")
    assert command.endswith(f"{KEY}=arn:aws:iam::{CONNECTION.account_id}:role/<ROLE_NAME>")
    assert_no_shell_runs(command)


def test_a_service_account_outside_any_run_is_made_without_the_labs_labels_and_role():
    answers = healthy() | {SERVICE_ACCOUNTS: [], ROLES: [], PODS: []}
    findings = {finding.id: finding for finding in examine(answers, role_is_known=False, pod_name="").findings}
    lines, manifest, comment, command = findings["service-account-missing"].repair.splitlines()
    assert lines == "# This creates the service account default:my-service-account without a role."
    assert comment.startswith("# nothing says which role default/my-service-account should have")
    assert f"arn:aws:iam::{CONNECTION.account_id}:role/<ROLE_NAME>" in command
    assert_no_shell_runs(command)
    assert "labkit/" not in manifest and "annotations" not in manifest


def test_a_role_that_the_user_names_may_have_a_path():
    right = ROLE_ARN.replace("role/", "role/team/")
    answers = annotated({KEY: right})
    answers[ROLE]["Arn"] = right
    assert found(answers, role_is_known=True) == []


def test_the_repair_names_the_program_that_manages_the_service_account():
    answers = annotated({KEY: ROLE_ARN.replace("role/", "role/team/")})
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"]["app.kubernetes.io/managed-by"] = "Helm"
    (finding,) = examine(answers).findings
    managed, command = finding.repair.splitlines()[1:3]
    said = "# Helm manages this object: make this change in the source of the object, too, or Helm may undo the change."
    assert managed == said
    assert command.startswith("kubectl annotate serviceaccount")


def test_the_repair_adds_no_tag_of_the_lab_if_the_user_named_the_role():
    answers = annotated({KEY: ROLE_ARN}) | {ROLE: None, ROLES: [], PROVIDERS: [], PROVIDER: None}
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"] = {}
    named = {"role_is_known": True, "is_of_run": False}
    repairs = "\n".join(finding.repair for finding in examine(answers, **named).findings)
    assert "aws iam create-role" in repairs and "aws iam create-open-id-connect-provider" in repairs
    assert "labkit:run" not in repairs


def test_the_repair_keeps_the_pods_image_if_the_user_named_the_role():
    answers = annotated({KEY: ROLE_ARN})
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"] = {}
    manifest = pod.build(PARAMETERS)
    manifest["spec"]["containers"][0]["image"] = "shop/cart:9"
    answers[PODS] = [made(manifest, answers)]
    waiting = {"name": "aws", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}}
    answers[PODS][0]["status"] = {"phase": "Pending", "containerStatuses": [waiting]}
    (finding,) = examine(answers, role_is_known=True, is_of_run=False).findings
    assert finding.id == "pod-not-running"
    assert "shop/cart:9" in finding.repair and CONNECTION.image not in finding.repair


OTHER_ACCOUNT = ROLE_ARN.replace(CONNECTION.account_id, "210987654321")


def of_another_account():
    """A healthy lab whose annotation names an account that the doctor cannot read, as on EKS."""
    answers = annotated({KEY: OTHER_ACCOUNT})
    answers[SERVICE_ACCOUNTS][0]["metadata"]["labels"] = {}
    return answers


def test_a_role_in_an_unreadable_account_is_a_warning_without_a_command():
    diagnosis = examine(of_another_account(), role_is_known=False, probe=False)
    (finding,) = diagnosis.findings
    assert (finding.id, finding.severity) == ("service-account-annotation-arn-differs", "warning")
    assert finding.summary == f"The role's ARN is {ROLE_ARN}, but the annotation says {OTHER_ACCOUNT}."
    assert all(line.startswith("#") for line in finding.repair.splitlines())
    assert diagnosis.exit_code == 2
    assert "credentials of the account 210987654321" in {error.needs for error in diagnosis.unread}


def test_a_role_in_an_unreadable_account_is_an_error_if_sts_refuses_the_token():
    answers = of_another_account()
    answers[EXCHANGE] = {"arn": "", "code": "InvalidIdentityToken", "message": "…"}
    answers[CALLER] = {"arn": "", "error": "An error occurred (InvalidIdentityToken)"}
    (finding,) = doctor.examine(evidence(answers, role_is_known=False)).findings
    assert (finding.id, finding.severity) == ("service-account-annotation-arn-differs", "error")
    assert f"{KEY}={ROLE_ARN}" in finding.repair


def test_a_role_in_an_unreadable_account_is_right_if_the_pod_acts_as_that_role():
    answers = of_another_account()
    answers[CALLER]["arn"] = answers[CALLER]["arn"].replace(CONNECTION.account_id, "210987654321")
    assert not doctor.examine(evidence(answers, role_is_known=False)).findings
    # A role of the same name in another account is another role.
    answers[CALLER]["arn"] = healthy()[CALLER]["arn"]
    findings = doctor.examine(evidence(answers, role_is_known=False)).findings
    assert "credentials-of-another-identity" in {finding.id for finding in findings}


def test_an_event_of_a_workload_names_the_missing_service_account():
    text = 'Error creating: pods "cart-1-" is forbidden: error looking up service account default/my-service-account: '
    event = {"reason": "FailedCreate", "message": text + 'serviceaccount "my-service-account" not found'}
    answers = healthy() | {SERVICE_ACCOUNTS: [], PODS: [], ROLES: [], DETAILS: {"RoleDetailList": []}}
    named = evidence(answers | {EVENTS: [event]}, role_is_known=False, pod_name="")
    assert is_named(named)
    assert not is_named(evidence(answers, role_is_known=False, pod_name=""))


def test_the_doctor_does_not_propose_the_role_of_a_run_on_another_cluster():
    answers = healthy() | {SERVICE_ACCOUNTS: [], PODS: []}
    answers[ROLE]["Tags"] = PARAMETERS.model_copy(update={"cluster": "green"}).tags
    (finding,) = examine(answers, role_is_known=False, pod_name="").findings
    assert finding.id == "service-account-missing"
    assert "role/<ROLE_NAME>" in finding.repair


def test_the_repair_moves_the_role_from_a_misspelt_key_to_the_right_one():
    answers = annotated({"eks.amazon.com/role-arn": ROLE_ARN})
    answers[SERVICE_ACCOUNTS][0]["metadata"].pop("labels")
    (finding,) = examine(answers, role_is_known=False).findings
    assert f"eks.amazon.com/role-arn- {KEY}={ROLE_ARN}" in finding.repair


# A role that belongs to somebody else.

WEB_ROLE, TWO = ROLE_ARN.replace("my-role", "web-role"), f"{ROLE_ARN}-2"


def admitting(role_arn, subject, *, operator="StringEquals"):
    """A role of the account, which admits this subject."""
    text = json.dumps(healthy()[ROLE]["AssumeRolePolicyDocument"])
    trust = json.loads(text.replace(PARAMETERS.subject, subject))
    condition = trust["Statement"][0]["Condition"]
    condition[operator] = {**condition.get(operator, {}), f"{NAME}:sub": condition["StringEquals"].pop(f"{NAME}:sub")}
    name = role_arn.rpartition("/")[2]
    return {"Arn": role_arn, "RoleName": name, "AssumeRolePolicyDocument": trust, "MaxSessionDuration": 3600}


def of_web(*others, tags=()):
    """A service account outside any run, annotated with shop:web's role, in an account with these other roles."""
    answers = annotated({KEY: WEB_ROLE})
    answers[SERVICE_ACCOUNTS][0]["metadata"].pop("labels")
    web = {"name": "web", "namespace": "shop", "annotations": {KEY: WEB_ROLE}}
    answers[ALL_SERVICE_ACCOUNTS] = [*answers[SERVICE_ACCOUNTS], {"metadata": web}]
    answers[ROLES] = [admitting(WEB_ROLE, "system:serviceaccount:shop:web"), *others]
    for role in answers[ROLES]:
        answers[ROLE.replace("my-role", role["RoleName"])] = role | {"Tags": []}
    answers[ROLE.replace("my-role", "web-role")]["Tags"] = [{"Key": key, "Value": value} for key, value in tags]
    answers[DETAILS] = {
        "RoleDetailList": [answers[ROLE.replace("my-role", role["RoleName"])] for role in answers[ROLES]]
    }
    return answers


def findings_of(answers):
    return examine(answers, role_is_known=False, probe=False).findings


def test_the_repair_corrects_an_annotation_and_leaves_another_teams_role_unchanged():
    answers = of_web(admitting(ROLE_ARN, PARAMETERS.subject))
    (finding,) = findings_of(answers)
    assert finding.id == "service-account-annotation-role-mismatch"
    assert (finding.expected, finding.found) == (ROLE_ARN, WEB_ROLE)
    annotate, *again = commands(finding.repair)
    assert annotate.endswith(f"{KEY}={ROLE_ARN}")
    assert not any("aws iam" in line for line in again)
    assert finding.repair.splitlines()[-1] == (
        "# The role web-role stays unchanged. "
        "If it is the right role, its owner has to admit default:my-service-account."
    )


def test_the_repair_asks_nothing_about_the_annotated_role_if_the_right_one_is_known():
    findings = examine(of_web(), role_is_known=True, probe=False).findings
    (finding,) = [each for each in findings if each.id == "service-account-annotation-role-mismatch"]
    assert "If it is meant" not in finding.repair


def test_the_repair_lists_several_possible_roles_and_chooses_none():
    others = [admitting(ROLE_ARN, PARAMETERS.subject), admitting(TWO, PARAMETERS.subject)]
    (finding,) = findings_of(of_web(*others))
    assert finding.id == "service-account-annotation-role-mismatch"
    assert all(f"#   {role['Arn']}" in finding.repair.splitlines() for role in others)
    (command,) = commands(finding.repair)
    assert_no_shell_runs(command)


@pytest.mark.parametrize("answers", [
    of_web(),
    of_web(admitting(ROLE_ARN, PARAMETERS.subject), tags=[("ServiceAccount", "default/my-service-account")]),
    of_web(admitting(ROLE_ARN, "system:serviceaccount:default:*", operator="StringLike")),
], ids=["no other role", "tagged for it", "beside one with a pattern"])  # fmt: skip
def test_an_annotated_role_that_may_be_meant_gives_a_finding_on_its_trust_policy(answers):
    assert [each.id for each in findings_of(answers)] == ["trust-policy-sub-mismatch"]


def test_the_repair_mentions_other_roles_that_admit_the_account_by_a_pattern():
    by_pattern = [admitting(arn, "system:serviceaccount:default:*", operator="StringLike") for arn in (ROLE_ARN, TWO)]
    (finding,) = findings_of(of_web(*by_pattern))
    assert finding.summary == "The trust policy admits shop:web, not default:my-service-account."
    assert finding.repair.splitlines()[0] == (
        "# The roles my-role and my-role-2 already admit default:my-service-account, among other service accounts. "
        "If default:my-service-account should have one of these roles, correct its annotation instead."
    )
    (command,) = commands(finding.repair)
    assert command.startswith("aws iam update-assume-role-policy --role-name web-role ")
    assert "among other service accounts" not in findings_of(of_web())[0].repair


def test_an_annotated_role_with_a_condition_only_on_the_request_may_be_meant():
    answers = of_web(admitting(ROLE_ARN, PARAMETERS.subject))
    web = answers[ROLE.replace("my-role", "web-role")]
    condition = web["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]
    del condition["StringEquals"][f"{NAME}:sub"]
    condition["IpAddress"] = {"aws:SourceIp": "10.0.0.0/8"}
    assert [each.id for each in findings_of(answers)] == ["trust-policy-refuses"]


# An account without the role.

ENTERING = dataclasses.replace(CONNECTION, account=lambda account_id: object())


def in_a_wrong_account(*roles, provider=None):
    """The diagnosis if the annotation names a role of another account, which can be read and lacks that role."""
    answers = of_another_account() | {ROLES: [*roles], DETAILS: {"RoleDetailList": []}, ROLE: None}
    for role in roles:
        answers[ROLE.replace("my-role", role["RoleName"])] = role | {"Tags": []}
    answers |= {key.replace(CONNECTION.account_id, "210987654321"): None for key in (ROLE, PROVIDER)}
    answers |= {PROVIDERS.replace(CONNECTION.account_id, "210987654321"): []}
    if provider:
        answers[PROVIDER.replace(CONNECTION.account_id, "210987654321")] = provider
    return doctor.examine(Evidence(PARAMETERS, ENTERING, reads=Reads(answers), role_is_known=False, probe=False))


def test_an_account_without_the_role_and_the_provider_counts_as_a_wrong_number():
    (finding,) = in_a_wrong_account(admitting(f"{ROLE_ARN}-of-carts", PARAMETERS.subject)).findings
    assert finding.id == "service-account-annotation-role-mismatch"
    assert commands(finding.repair)[0].endswith(f"{KEY}={ROLE_ARN}-of-carts")
    (question,) = in_a_wrong_account().findings
    assert question.id == "service-account-annotation-role-mismatch"
    assert "account 210987654321" in question.summary
    (command,) = commands(question.repair)
    assert command.endswith(f"{KEY}=arn:aws:iam::{CONNECTION.account_id}:role/<ROLE_NAME>")
    assert_no_shell_runs(command)


def test_in_an_account_with_the_clusters_provider_the_role_is_reported_missing():
    findings = in_a_wrong_account(provider=healthy()[PROVIDER]).findings
    assert [finding.id for finding in findings] == ["role-missing"]


def test_a_pod_with_the_right_role_is_not_reported_beside_a_wrong_annotation():
    answers = healthy()
    answers[SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {KEY: ROLE_ARN.replace("role/", "role/team/")}
    assert found(answers) == ["service-account-annotation-arn-differs"]


@pytest.mark.parametrize("gone", [{PODS: []}, {PODS: [], SERVICE_ACCOUNTS: [], ALL_SERVICE_ACCOUNTS: []}])
def test_the_repair_makes_nothing_in_a_namespace_that_is_being_deleted(gone):
    answers = healthy() | gone | {ROLE: None, ROLES: []}
    answers[NAMESPACE]["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
    (finding,) = examine(answers, pod_name="").findings
    assert finding.id == "namespace-terminating"
    assert commands(finding.repair) == []


def test_a_service_account_deleted_with_its_namespace_is_not_called_misspelt():
    """The namespace is shop, because the doctor never calls the lab's own names misspelt."""
    parameters = PARAMETERS.model_copy(update={"namespace": "shop"})
    namespace = {"metadata": {"name": "shop", "labels": {}, "deletionTimestamp": "2026-01-01T01:00:00Z"}}
    answers = healthy() | {"get namespace shop": namespace, ROLES: []}
    empty = {call.replace("-n default", "-n shop"): [] for call in answers if call.endswith("-n default")}
    reads = Reads(answers | empty)
    evidence = Evidence(parameters, CONNECTION, pod_name="", role_is_known=False, probe=False, reads=reads)
    doctor.examination.refuse_misspelt(evidence)
    assert [finding.id for finding in doctor.examine(evidence).findings] == ["namespace-terminating"]
