"""The declarations of the causes, the order of the findings, and the result of each stage."""

import ast
import importlib
import inspect
import pkgutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

import labkit
from labkit import doctor, steps
from labkit.course.faults import CATALOGUE as FAULTS
from labkit.doctor import checks, finding, findings
from labkit.doctor import explanations as families
from labkit.doctor.evidence import Evidence, Reads
from labkit.doctor.evidence.reading import NotRead, Read
from labkit.doctor.finding import in_order
from labkit.doctor.findings.catalogue import CATALOGUE, CAUSES
from labkit.doctor.stages import ANNOTATION, EXCHANGE, IDENTITY, PROVIDER, STAGES, TOKEN
from labkit.documents import ROLE_ANNOTATION
from tests.doctor import recording
from tests.doctor.repairing import commands

SOURCES = Path(labkit.__file__).parent
NOTEBOOKS = SOURCES.parent / "notebooks"
EXPLAINED = {id for family in families.FAMILIES for id in family.ids}

# No error text leads to these findings.
WITHOUT_AN_EXPLANATION = {
    "action-needs-no-permission": "nothing fails",
    "containers-not-running": "the program's own last words say why",
    "credentials-of-another-identity": "nothing fails: the pod has credentials, and others than it was to have",
    "credentials-refused": "it is the refusal itself; the texts lead to what is behind it",
    "oidc-provider-dangling": "nothing fails: it is a danger",
    "pod-missing": "without a pod, nobody has an error",
    "pod-names-its-role": "nothing fails",
    "pod-not-running": "the pod's own status says why",
    "pod-replaced-in-a-loop": "nothing fails: pods come and go",
    "pod-windows-by-affinity": "Windows says that the path is not found, as of any other file",
    "role-belongs-to-another-run": "it is about runs of the lab, of which AWS knows nothing",
    "role-denies-what-it-allows": "the texts lead to role-lacks-permission, which looks at the action that failed",
    "role-is-administrator": "nothing fails: it is a danger",
    "service-account-annotation-role-mismatch": "the role that the annotation names has errors of its own",
    "service-account-annotation-taken-away": "pods of before work on; later ones lack the annotation",
    "trust-policy-admits-others": "nothing fails: it is a danger",
    "trust-policy-aud-missing": "nothing fails: it is a danger",
    "trust-policy-sub-missing": "nothing fails: it is a danger",
}
# No fault causes these findings, so other tests make the evidence for them.
WITHOUT_A_FAULT = {
    "action-needs-no-permission": "it is about the option --action, not about the lab",
    "containers-not-running": "it needs a program that ends by itself",
    "credentials-of-another-identity": "it follows from whatever else is wrong",
    "credentials-refused": "it follows from whatever else is wrong",
    "denied-by-resource-control-policy": "the organization's administrators make it",
    "denied-by-service-control-policy": "the organization's administrators make it",
    "denied-by-vpc-endpoint-policy": "the lab has no network of its own",
    "namespace-missing": "a run's namespace holds more than the run",
    "namespace-terminating": "a run's namespace holds more than the run",
    "operator-not-permitted": "it is a call of the past that AWS refused, and CloudTrail tells",
    "pod-identity-role-refuses-eks": "it needs an association, whose role someone changes later",
    "pod-names-its-role": "nothing is wrong with it",
    "pod-windows-by-affinity": "the lab has no Windows node",
    "pod-role-arn-malformed": "the doctor reads no Secret, so only a probe of a pod that STS refuses shows it",
    "role-denied-by-resource-control-policy": "the organization's administrators make it",
    "role-denied-by-service-control-policy": "the organization's administrators make it",
    "role-belongs-to-another-run": "it needs two runs",
    "role-denies-what-it-allows": "it may be meant",
    "role-not-admitted-by-resource-policy": "it needs --action on a key, a queue or another resource with a policy",
    "role-too-new": "it passes by itself within a minute",
    "service-account-annotation-taken-away": "it needs a controller that writes the service account",
    "token-expired": "it needs a node that no longer renews tokens",
    "token-read-once": "it needs an application that keeps its token",
    "webhook-passed-over-pod": "it needs a webhook that keeps silent for a while, and answers again",
}


def results(answers, **settings):
    """Each stage's result, keyed by its number."""
    diagnosis = doctor.examine(recording.evidence(answers, **settings))
    return {number: result for number, (_, result, _) in enumerate(diagnosis.stages(), 1)}


def without(*calls):
    answers = recording.healthy()
    for call in calls:
        del answers[call]
    return answers


# The declarations.


def test_every_cause_is_in_the_catalogue_under_its_own_id():
    modules = [
        importlib.import_module(f"{findings.__name__}.{each.name}") for each in pkgutil.iter_modules(findings.__path__)
    ]
    declared = {each for module in modules for each in finding.causes_of(module)}
    assert declared == set(CAUSES)
    assert len(CATALOGUE) == len(CAUSES)


def test_findings_are_created_in_one_place():
    makers = [
        f"{path.relative_to(SOURCES)}:{node.lineno}"
        for path in SOURCES.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "Finding"
    ]
    assert [place.partition(":")[0] for place in makers] == ["doctor/finding.py"], makers


def test_every_function_that_looks_for_a_cause_is_declared_as_one():
    undeclared = [
        f"{path.name}: {node.name}"
        for path in Path(findings.__file__).parent.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef)
        and [argument.arg for argument in node.args.args] == ["evidence"]
        and node.returns
        and ast.unparse(node.returns) == "Symptom | None"
        and not any(ast.unparse(each).startswith("cause(") for each in node.decorator_list)
    ]
    assert undeclared == []


def test_every_cause_has_an_explanation():
    wrong = (set(CATALOGUE) - EXPLAINED) ^ set(WITHOUT_AN_EXPLANATION)
    assert not wrong, (
        f"{wrong}: explain it in doctor/explanations/families.toml, or say why not in WITHOUT_AN_EXPLANATION"
    )


def test_every_finding_that_an_explanation_names_is_declared():
    assert set(CATALOGUE) >= EXPLAINED


def test_every_cause_has_a_fault():
    wrong = (set(CATALOGUE) - {fault.finding for fault in FAULTS.values()}) ^ set(WITHOUT_A_FAULT)
    assert not wrong, f"{wrong}: make a fault of it in faults/, or say why not in WITHOUT_A_FAULT"


def test_every_finding_of_a_fault_is_declared():
    assert {fault.finding for fault in FAULTS.values()} <= set(CATALOGUE)


def test_every_cause_is_taught_by_an_existing_notebook():
    assert [each.id for each in CAUSES if not (NOTEBOOKS / each.learn).exists()] == []


def test_a_healthy_service_account_gives_each_cause_its_evidence():
    kinds = {read.kind for read in doctor.examine(recording.evidence()).read}
    assert [each.id for each in CAUSES if not all(kinds.intersection(needed) for needed in each.reads)] == []


# The order.


def with_many_faults():
    answers = recording.healthy()
    answers[recording.ATTACHED], answers[recording.PROVIDER]["ClientIDList"] = [], []
    answers[recording.PROVIDER]["ThumbprintList"] = ["f" * 40]
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    variables = answers[recording.PODS][0]["spec"]["containers"][0]["env"]
    variables += [{"name": "AWS_ROLE_SESSION_NAME", "value": "x"}, {"name": "AWS_ACCESS_KEY_ID", "value": "x"}]
    return answers


def test_errors_are_reported_first_in_the_order_of_their_stages_and_then_of_the_catalogue():
    diagnosis = [each.id for each in doctor.examine(recording.evidence(with_many_faults())).findings]
    assert diagnosis == [
        "service-account-annotation-missing",
        "oidc-provider-audience-missing",
        "pod-role-session-name-invalid",
        "pod-static-keys",
        "role-policy-not-attached",
        "oidc-provider-thumbprint-stale",
    ]
    declared = sorted(CAUSES, key=lambda each: STAGES.index(each.stage))
    # The last one is only a note.
    assert diagnosis[:-1] == [each.id for each in declared if each.id in diagnosis[:-1]]


@pytest.mark.parametrize("step", steps.ORDER)
def test_a_step_lists_its_findings_in_the_order_of_the_report(step):
    report = [each.id for each in doctor.examine(recording.evidence(with_many_faults())).findings]
    ids = [each.id for each in checks.findings(step, recording.evidence(with_many_faults()), [])]
    assert [id for id in ids if id in report] == [id for id in report if id in ids]


def test_the_order_depends_on_a_repairs_actions_and_not_on_its_text():
    answers = with_many_faults()
    del answers[recording.WEBHOOK]
    findings = doctor.examine(recording.evidence(answers | {recording.WEBHOOK: None})).findings
    assert any(each.repaired_by.makes_pods for each in findings)
    for words in (
        "",
        "kubectl delete pod my-pod",
        "# Do not replace the pod yet: the annotation is not the ARN of the role in IAM.",
    ):
        others = [replace(each, repaired_by=said(each.repaired_by, words)) for each in findings]
        assert [each.id for each in in_order(reversed(others))] == [each.id for each in in_order(reversed(findings))]


def said(repair, words):
    """The repair with another text and the same actions."""
    return replace(repair, parts=tuple(replace(lines, text=words) for lines in repair.parts))


# The functions that examine.


@pytest.mark.parametrize("name", ["diagnose", "examine", "examine_pods"])
def test_a_function_that_examines_has_at_most_50_lines(name):
    lines = inspect.getsource(getattr(doctor.examination, name)).splitlines()
    assert len(lines) <= 50


# The result of each stage.


def test_every_stage_is_right_in_a_healthy_lab():
    assert set(results(recording.healthy()).values()) == {"right"}


def test_without_probe_only_the_checks_inside_the_pod_are_skipped():
    diagnosis = doctor.examine(recording.evidence(probe=False))
    by_number = {number: result for number, (_, result, _) in enumerate(diagnosis.stages(), 1)}
    assert {number for number, result in by_number.items() if result == "not looked at"} == {4, 7, 8}
    assert {result for number, result in by_number.items() if number not in (4, 7, 8)} == {"right"}
    assert {tuple(diagnosis.checks[stage].missing) for stage in (TOKEN, EXCHANGE, IDENTITY)} == {("--probe",)}
    assert diagnosis.exit_code == 0


def test_without_probe_the_age_of_a_role_makes_no_difference():
    answers = recording.healthy()
    answers[recording.ROLE]["CreateDate"] = datetime.now(UTC).isoformat()
    assert results(answers, probe=False) == results(recording.healthy(), probe=False)


def test_each_check_lists_its_calls_and_the_missing_ones():
    answers = without(recording.ATTACHED)
    report = doctor.examine(recording.evidence(answers)).as_json()
    in_checks = [call for check in report["checks"] for call in check["looked_at"]]
    assert list(dict.fromkeys(in_checks)) == report["looked_at"]
    calls = {1: recording.PODS, 2: recording.SERVICE_ACCOUNTS, 4: recording.TOKEN, 5: recording.PROVIDER}
    for number, call in (calls | {6: recording.ROLE, 9: recording.ROLE}).items():
        assert call in report["checks"][number - 1]["looked_at"]
    assert [(check["number"], check["missing"]) for check in report["checks"] if check["missing"]] == [
        (9, [recording.ATTACHED])
    ]


def test_a_report_on_several_pods_lists_everything_that_the_doctor_read():
    answers, other = recording.healthy(), recording.a_pod()
    other["metadata"]["name"] = "other"
    answers[recording.PODS].append(other)
    reads = Reads(answers)
    diagnosis = doctor.examination.examine_pods(
        lambda name: Evidence(recording.PARAMETERS, recording.CONNECTION, pod_name=name, reads=reads, probe=False)
    )
    assert diagnosis.pods == ["my-pod", "other"]
    told = {read for check in diagnosis.checks.values() for read in check.read}
    assert told == set(diagnosis.read) == set(reads.answered)


def test_a_finding_outside_the_pods_appears_once_and_its_repair_mends_every_pod():
    answers, other = recording.healthy(), recording.a_pod()
    other["metadata"]["name"] = "other"
    answers[recording.PODS].append(other)
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    for pod in answers[recording.PODS]:
        pod["spec"]["containers"][0]["env"] = []
    diagnosis = doctor.examination.examine_pods(lambda name: recording.evidence(answers, pod_name=name, probe=False))
    (finding,) = [each for each in diagnosis.findings if each.stage is ANNOTATION]
    annotated, *made_again = commands(finding.repair)
    assert annotated.startswith("kubectl annotate")
    assert [line for line in made_again if line.startswith("kubectl delete")] == [
        "kubectl delete pod my-pod -n default --grace-period=1",
        "kubectl delete pod other -n default --grace-period=1",
    ]


@pytest.mark.parametrize(("call", "stages"), [
    (recording.PODS, {1, 3, 4, 6, 7, 8}),
    (recording.SERVICE_ACCOUNTS, {1, 2, 3, 8}),
    (recording.WEBHOOK, {3}),
    (recording.PROVIDERS, {5}),
    (recording.IDENTITY_PROVIDER_CONFIGS, {5}),
    (recording.DISCOVERY, {5}),
    (recording.SERVED, {5}),
    (recording.TOKEN, {4}),
    (recording.CALLER, {7, 8}),
    (recording.ASSOCIATIONS, {8}),
    (recording.ROLE, {6, 9}),
    (recording.ATTACHED, {9}),
    (recording.INLINE, {9}),
    (recording.BUCKET_POLICY, {9}),
])  # fmt: skip
def test_a_stage_without_its_evidence_is_reported_as_not_looked_at(call, stages):
    by_number = results(without(call))
    assert {number for number, result in by_number.items() if result != "right"} == stages
    assert {by_number[number] for number in stages} == {"not looked at"}


def test_an_unreadable_namespace_does_not_hide_its_service_account():
    assert set(results(without(recording.NAMESPACE)).values()) == {"right"}


def test_if_the_issuer_does_not_answer_its_provider_is_reported_as_not_looked_at():
    evidence = recording.evidence(without(recording.DISCOVERY))
    read = Read("its discovery document", recording.DISCOVERY, of="a host")
    evidence.reads.unread[read] = NotRead(read, "no answer", recording.DISCOVERY, no_answer=True)
    diagnosis = doctor.examine(evidence)
    assert {stage: result for stage, result in diagnosis.results.items() if result != "right"} == {
        PROVIDER: "not looked at"
    }
    assert diagnosis.checks[PROVIDER].missing == [recording.DISCOVERY]
    assert diagnosis.exit_code == 2


@pytest.mark.parametrize("annotated", [recording.ROLE_ARN, recording.ROLE_ARN.replace(":role/", ":role/team/")])
def test_without_an_answer_from_iam_the_annotation_is_reported_as_not_looked_at(annotated):
    answers = without(recording.ROLE)
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {ROLE_ANNOTATION: annotated}
    answers[recording.PODS][0]["spec"]["containers"][0]["env"][3]["value"] = annotated
    diagnosis = doctor.examine(recording.evidence(answers, probe=False))
    assert diagnosis.findings == []
    assert (diagnosis.results[ANNOTATION], diagnosis.checks[ANNOTATION].missing) == ("not looked at", [recording.ROLE])
    assert diagnosis.exit_code == 2


def test_the_pods_identity_confirms_the_annotation_without_an_answer_from_iam():
    assert results(without(recording.ROLE))[2] == "right"


def test_a_pod_without_the_aws_cli_leaves_the_exchange_unchecked():
    answers = recording.healthy()
    answers[recording.CALLER] |= {"no_program": True}
    diagnosis = doctor.examine(recording.evidence(answers))
    assert (diagnosis.results[EXCHANGE], diagnosis.checks[EXCHANGE].missing) == ("not looked at", [recording.CALLER])
    assert diagnosis.exit_code == 2


REFUSED = {"arn": "", "code": "InvalidIdentityToken", "message": "…"}
FAILED = {"arn": "", "error": "An error occurred (InvalidIdentityToken) when calling AssumeRoleWithWebIdentity"}


def refused():
    return recording.healthy() | {recording.EXCHANGE: REFUSED, recording.CALLER: FAILED}


def test_a_refused_exchange_is_an_error_even_if_another_finding_explains_it():
    answers = refused()
    answers[recording.PROVIDER]["ClientIDList"] = ["vault"]
    diagnosis = doctor.examine(recording.evidence(answers))
    assert [each.id for each in diagnosis.findings] == ["oidc-provider-audience-missing"]
    assert results(answers)[7] == "error"
    # Without credentials, the pod has no identity that the doctor could look at.
    assert results(answers)[8] == "not looked at"


def test_a_malformed_token_is_an_error_of_the_token_and_of_the_exchange():
    answers = refused()
    answers[recording.TOKEN] |= {"claims": {}, "malformed": "this has 5"}
    assert (results(answers)[4], results(answers)[7]) == ("error", "error")


def test_keys_in_the_pod_make_its_identity_wrong_but_not_the_exchange():
    answers = recording.healthy() | {recording.CALLER: {"arn": "", "error": "(InvalidClientTokenId) when calling …"}}
    container = answers[recording.PODS][0]["spec"]["containers"][0]
    container["env"] += [{"name": name, "value": "x"} for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    assert (results(answers)[7], results(answers)[8]) == ("right", "error")


def test_a_pod_without_a_token_has_no_checked_exchange_and_a_wrong_identity():
    answers = recording.healthy()
    answers[recording.SERVICE_ACCOUNTS][0]["metadata"]["annotations"] = {}
    answers[recording.PODS][0]["spec"]["containers"][0]["env"] = []
    answers[recording.PODS][0]["spec"]["volumes"] = []
    answers[recording.CALLER] = {"arn": f"arn:aws:sts::{recording.ACCOUNT_ID}:assumed-role/node/i-0123", "error": ""}
    diagnosis = doctor.examine(recording.evidence(answers))
    assert [each.id for each in diagnosis.findings] == ["service-account-annotation-missing"]
    assert [results(answers)[number] for number in (4, 7, 8)] == ["not looked at", "not looked at", "error"]


def test_a_stage_is_not_right_if_one_of_several_pods_is_pending():
    answers, ended = recording.healthy(), recording.a_pod()
    ended["metadata"]["name"], ended["status"] = "other", {"phase": "Pending"}
    answers[recording.PODS].append(ended)
    diagnosis = doctor.examination.examine_pods(lambda name: recording.evidence(answers, pod_name=name or ""))
    assert diagnosis.pods == ["my-pod", "other"]
    by_number = {number: result for number, (_, result, _) in enumerate(diagnosis.stages(), 1)}
    assert (by_number[1], by_number[8]) == ("error", "not looked at")


def test_the_doctor_does_not_look_at_the_permissions_of_another_runs_role():
    answers = recording.healthy()
    answers[recording.ROLE]["Tags"] = [{"Key": "labkit:run", "Value": "green/default/a/b"}]
    by_number = results(answers)
    assert (by_number[6], by_number[9]) == ("error", "not looked at")
