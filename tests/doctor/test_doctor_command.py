"""The command `labkit doctor`, and `diagnose` as other programs call it: findings, and facts that stay unread."""

import copy
import json
import os
import re
from pathlib import Path

import pexpect
import pytest
from kubernetes.client import ApiClient, AppsV1Api, Configuration, CoreV1Api
from typer.testing import CliRunner

import labkit
from labkit.cli.main import app
from labkit.doctor.evidence import Evidence
from labkit.doctor.examination import diagnose, examine
from labkit.doctor.stages import PROVIDER
from labkit.documents import SLEEP
from labkit.errors import LabError
from labkit.simulator import Folder, State, environment
from tests.commands import LABKIT
from tests.doctor import recording
from tests.doctor.callers import POLICY, changed, doctor, session_of

NOTEBOOKS = Path(labkit.__file__).parent.parent / "notebooks"
NOBODY = {"namespace": "default", "service_account": "my-service-account", "cluster": "blue"}


@pytest.fixture
def broken(lab):
    """The lab with its role's policy detached."""
    iam = lab.aws.client("iam")
    iam.detach_role_policy(RoleName="my-role", PolicyArn=POLICY)
    yield lab
    iam.attach_role_policy(RoleName="my-role", PolicyArn=POLICY)


# The output.


def test_a_healthy_service_account_gives_exit_code_0_and_plain_text_without_a_terminal(lab):
    done = doctor("--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    unseen = "the token, the exchange with STS, the pod's identity in AWS"
    first = f"✓ default/my-service-account: nothing wrong found; not looked at: {unseen}"
    assert done.stdout.splitlines()[0] == first
    assert "\x1b" not in done.stdout
    assert "Read 8 answers from AWS, 4 answers from the cluster, 3 answers from the issuer." in done.stdout
    assert "needed: --probe" in done.stdout


def test_with_probe_the_report_lists_the_calls_inside_the_pod(lab):
    done = doctor("--probe", "--verbose")
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^In the pod: .*sts:GetCallerIdentity in pod my-pod", done.stdout, re.MULTILINE)
    assert "--probe" not in done.stdout


def test_a_finding_gives_exit_code_1_and_its_repair_is_printed_on_one_line(broken):
    done = doctor(COLUMNS="40")
    assert done.returncode == 1
    assert "error: role-policy-not-attached" in done.stdout
    repair = f"aws iam attach-role-policy --role-name my-role --policy-arn {POLICY}"
    assert repair in [line.strip() for line in done.stdout.splitlines()]
    assert 'eval "$(labkit env)"' in done.stdout


def test_the_report_lists_the_nine_checks_in_order(broken):
    said = doctor("--verbose").stdout
    lines = [line.split()[1] for line in said.splitlines() if re.match(r"  [✓✗!i·] \d  ", line)]
    assert lines == [str(number) for number in range(1, 10)]
    assert re.search(r"✗ 9  the role's permissions +role-policy-not-attached", said)


def test_a_terminal_gets_colours_unless_no_color_is_set(broken):
    def seen(**variables):
        env = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        return pexpect.run(f"{LABKIT} doctor", env=env | {"TERM": "xterm-256color"} | variables, timeout=60).decode()

    assert "\x1b[1;31m" in seen()
    assert not re.search(r"\x1b\[[\d;]*3\d", seen(NO_COLOR="1"))


def test_json_has_every_key_that_a_program_needs(broken):
    done = doctor("--json")
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert {
        "subject",
        "cluster",
        "role_arn",
        "pods",
        "ok",
        "exit_code",
        "checks",
        "findings",
        "looked_at",
        "calls",
        "not_looked_at",
    } <= set(report)
    assert (report["ok"], report["exit_code"], report["pods"], report["role_arn"]) == (
        False,
        1,
        ["my-pod"],
        broken.role_arn,
    )
    (finding,) = report["findings"]
    assert {"id", "severity", "summary", "expected", "found", "source", "repair", "learn", "check"} <= set(finding)
    assert (finding["id"], finding["severity"], finding["check"]) == ("role-policy-not-attached", "error", 9)
    assert {each["result"] for each in report["checks"]} <= {"right", "error", "warning", "note", "not looked at"}


def test_a_notebook_gets_the_same_report_and_the_repair_only_if_it_asks(broken):
    diagnosis = broken.diagnose(repair=True)
    assert [finding.id for finding in diagnosis.findings] == ["role-policy-not-attached"]
    assert "aws iam attach-role-policy" not in repr(broken.diagnose())
    bundle = diagnosis._repr_mimebundle_()
    assert bundle["application/vnd.labkit.doctor+json"] == diagnosis.as_json()
    assert "aws iam attach-role-policy" in bundle["text/html"] and "aws iam attach-role-policy" in bundle["text/plain"]


# The doctor only reads.


def test_the_doctor_changes_nothing_and_makes_fewer_than_30_calls(broken):
    core = CoreV1Api(broken.kubernetes)

    def versions():
        listed = [*core.list_pod_for_all_namespaces().items, *core.list_service_account_for_all_namespaces().items]
        return [(item.metadata.uid, item.metadata.resource_version) for item in listed]

    before, last = versions(), next(broken.connection.trail())["eventID"]
    report = json.loads(doctor("--json").stdout)
    calls = []
    for record in broken.connection.trail():
        if record["eventID"] == last:
            break
        calls.append(record["eventName"])
    assert versions() == before
    assert calls
    assert all(name.startswith(("Get", "List", "Describe", "Lookup", "Simulate")) for name in calls), calls
    assert len(calls) < 30
    assert len(set(report["looked_at"])) == len(report["looked_at"])


def test_the_doctor_does_not_start_a_lab(tmp_path):
    done = doctor(LABKIT_HOME=str(tmp_path / ".lab"))
    assert done.returncode == 2
    assert "No lab runs" in done.stderr and "labkit up" in done.stderr
    assert not (tmp_path / ".lab").exists()


def test_the_doctor_does_not_make_a_missing_cluster(lab):
    done = doctor("--cluster", "green", "--json")
    assert done.returncode == 2
    assert "Its clusters are: blue" in json.loads(done.stdout)["could_not_look"]["what"]
    assert "green" not in State.read(Folder.find()).clusters


# A missing object, and an invalid name.


def test_a_pod_that_does_not_exist_is_a_finding(lab):
    done = CliRunner().invoke(app, ["doctor", "--pod", "no-pod"])
    assert done.exit_code == 1, done.exception
    assert "pod-missing" in done.stdout


def unnamed(lab, **names):
    """Evidence for these names, as if the user had named neither a pod nor a role."""
    return Evidence(lab.parameters.model_copy(update=names), lab.connection, pod_name="", role_is_known=False)


def test_checks_that_need_a_missing_object_are_reported_as_not_looked_at(lab):
    no_pod = diagnose(**NOBODY, connection=lab.connection, pod="no-pod")
    results = [result for _, result, _ in no_pod.stages()]
    assert results[:4] == ["error", "right", "not looked at", "not looked at"]
    assert no_pod.pods == []
    nowhere = examine(unnamed(lab, namespace="nowhere"))
    assert [result for _, result, _ in nowhere.stages()][:3] == ["error", "not looked at", "not looked at"]


def test_the_repair_makes_a_missing_pod_under_the_given_name_or_a_free_one(lab):
    (missing,) = diagnose(**NOBODY, connection=lab.connection, pod="no-pod").findings
    assert '"name": "no-pod"' in missing.repair
    # The lab's own pod already has the name my-pod.
    core = CoreV1Api(lab.kubernetes)
    core.create_namespaced_service_account("default", {"metadata": {"name": "other", "labels": lab.labels}})
    try:
        findings = diagnose(**(NOBODY | {"service_account": "other"}), connection=lab.connection).findings
    finally:
        core.delete_namespaced_service_account("other", "default")
    (missing,) = (finding for finding in findings if finding.id == "pod-missing")
    assert '"name": "other-pod"' in missing.repair


def test_an_unknown_service_account_does_not_get_anothers_role(lab):
    (missing,) = examine(unnamed(lab, service_account="nobody")).findings
    assert "role/<ROLE_NAME>" in missing.repair and "role/my-role" not in missing.repair
    with pytest.raises(LabError, match="default/nobody: no such service account"):
        diagnose(**(NOBODY | {"service_account": "nobody"}), connection=lab.connection)


def test_if_nothing_names_a_role_its_check_is_reported_as_not_looked_at(lab):
    nobody = diagnose(**(NOBODY | {"service_account": "default"}), connection=lab.connection)
    results = {stage.title: result for stage, result, _ in nobody.stages()}
    assert nobody.role_arn == ""
    assert results["the role, and its trust policy"] == "not looked at"


@pytest.mark.parametrize(("arguments", "words"), [
    (["-n", "Default"], "a DNS-1123 label"),
    (["-s", "my_account"], "a DNS-1123 subdomain"),
    (["--pod", "My Pod"], "not a pod's name"),
    (["--role", "arn:aws:iam::123456789012:role/team/my-role"], "next: labkit doctor with --role my-role"),
    (["--role", "team/it's"], """next: labkit doctor with --role 'it'"'"'s'"""),
    (["--role", "my role"], "a name, not an ARN"),
    (["--cluster", "no cluster"], "parameter cluster"),
    (["--region", "mars-north-1"], "a region that botocore knows"),
    (["--target", "gke"], "one of 'moto', 'kind' or 'eks'"),
    (["--account-id", "42"], "12 digits"),
    (["--account-id", "222222222222"], "the account of the target moto is"),
    (["--account-id", "222222222222"], "(in a terminal: --account-id 123456789012, or -p account_id=123456789012)"),
    (["--target", "kind", "--kubeconfig", "/no/such/file"], "a kubeconfig file that exists"),
    (["--target", "kind", "--kubeconfig", "/no/such/file"], "(in a terminal: --kubeconfig ~/.kube/config, or -p"),
    (["--kubeconfig", "file"], "--kubeconfig can be used only with --target kind or --target eks"),
    (["--context", "green"], "next: for a cluster of the lab: labkit doctor --cluster NAME"),
    (["--action", "ListBucket"], "not an action"),
    (["--action", "s3:ListObjectsV2"], "IAM has no action s3:ListObjectsV2. next: --action s3:ListBucket"),
    (["--action", "kms:decript"], "IAM has no action kms:decript. next: --action kms:Decrypt"),
    (["--action", "nosuch:Thing"], "IAM has no action nosuch:Thing."),
    (["--action", "s3:ListBucket", "--resource", "irsa-lab"], "not an ARN"),
    (["--resource", "arn:aws:s3:::irsa-lab"], "--action"),
    (["--action", "s3:ListBucket", "--resource", "arn:aws:s3:::irsa-lab/hi"],
     "s3:ListBucket is an action on a bucket, and arn:aws:s3:::irsa-lab/hi names objects. "
     "next: --resource arn:aws:s3:::irsa-lab"),
    (["--action", "s3:GetObjectTagging", "--resource", "arn:aws:s3:::irsa-lab"],
     "s3:GetObjectTagging is an action on an object, and arn:aws:s3:::irsa-lab names a bucket. "
     "next: --resource arn:aws:s3:::irsa-lab/KEY"),
    (["--all", "-s", "my-service-account"], "--all"),
    (["--all", "-n", "nowhere"], "The cluster has no namespace nowhere"),
    (["--explain", ""], "doesn't recognise"),
    (["--no-such-option"], "No such option"),
])  # fmt: skip
def test_the_doctor_explains_bad_input_and_ends_with_exit_code_2(lab, arguments, words):
    done = CliRunner().invoke(app, ["doctor", *arguments], env={"COLUMNS": "200"})
    assert done.exit_code == 2, done.exception
    assert words in " ".join(done.stderr.split())
    assert done.stdout == ""


# Several pods.


def test_the_doctor_looks_at_one_pod_of_each_owner(lab):
    apps, core = AppsV1Api(lab.kubernetes), CoreV1Api(lab.kubernetes)
    labels = {"app": "cart"}
    container = {"name": "aws", "image": "amazon/aws-cli", "command": SLEEP}
    template = {
        "metadata": {"labels": labels},
        "spec": {"serviceAccountName": "my-service-account", "containers": [container]},
    }
    spec = {"replicas": 2, "selector": {"matchLabels": labels}, "template": template}
    apps.create_namespaced_deployment("default", {"metadata": {"name": "cart", "labels": lab.labels}, "spec": spec})
    try:
        pods = _until(lambda: _running(core, "app=cart", 2))
        diagnosis = diagnose(**NOBODY, connection=lab.connection)
        assert diagnosis.exit_code == 0, diagnosis
        assert len(diagnosis.pods) == 2 and "my-pod" in diagnosis.pods
        assert set(diagnosis.pods) - {"my-pod"} <= pods
    finally:
        apps.delete_namespaced_deployment("cart", "default", propagation_policy="Foreground")
        _until(lambda: not core.list_namespaced_pod("default", label_selector="app=cart").items)


def _running(core, selector, count):
    pods = core.list_namespaced_pod("default", label_selector=selector).items
    return {p.metadata.name for p in pods} if [p.status.phase for p in pods] == ["Running"] * count else None


def _until(call):
    from tenacity import retry, retry_if_result, stop_after_delay, wait_fixed

    return retry(retry=retry_if_result(lambda got: not got), stop=stop_after_delay(60), wait=wait_fixed(0.1))(call)()


def test_diagnose_takes_the_session_and_the_client_of_another_program(lab):
    diagnosis = diagnose(**NOBODY, aws=lab.aws, kubernetes=lab.kubernetes)
    assert diagnosis.role_arn == lab.role_arn
    with pytest.raises(LabError, match="needs an AWS session and a client of the cluster"):
        diagnose(**NOBODY)
    with pytest.raises(LabError, match="no EKS cluster green"):
        diagnose(**(NOBODY | {"cluster": "green"}), aws=lab.aws, kubernetes=lab.kubernetes)


def test_the_doctor_names_a_missing_permission_and_looks_at_the_rest(lab):
    diagnosis = diagnose(**NOBODY, aws=session_of(lab, "iam:ListAttachedRolePolicies"), kubernetes=lab.kubernetes)
    assert diagnosis.exit_code == 2
    assert "iam:ListAttachedRolePolicies" in {error.needs for error in diagnosis.unread}
    results = {stage.title: result for stage, result, _ in diagnosis.stages()}
    assert results["the role, and its trust policy"] == "right"
    assert "could not be read in full" in repr(diagnosis)
    assert "somebody" not in repr(diagnosis)


def test_an_error_gives_exit_code_1_even_if_some_calls_are_forbidden(broken):
    role = broken.aws.client("iam").get_role(RoleName="my-role")["Role"]
    document = copy.deepcopy(role["AssumeRolePolicyDocument"])
    document["Statement"][0]["Action"] = "sts:AssumeRole"
    iam = broken.aws.client("iam")
    iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(document))
    try:
        aws = session_of(broken, "iam:ListAttachedRolePolicies", "iam:ListRolePolicies")
        diagnosis = diagnose(**NOBODY, aws=aws, kubernetes=broken.kubernetes)
    finally:
        iam.update_assume_role_policy(RoleName="my-role", PolicyDocument=json.dumps(role["AssumeRolePolicyDocument"]))
    assert [finding.id for finding in diagnosis.findings] == ["trust-policy-action-wrong"]
    assert diagnosis.exit_code == 1
    assert any("ListAttachedRolePolicies" in error.call for error in diagnosis.unread)


def test_the_doctor_looks_at_the_account_even_if_the_api_server_is_unreachable(lab):
    configuration = Configuration(host="https://127.0.0.1:1")
    configuration.retries = 0
    diagnosis = diagnose(**NOBODY, role="my-role", aws=lab.aws, kubernetes=ApiClient(configuration))
    assert diagnosis.exit_code == 2
    needed = "a connection to the API server"
    assert any("API server" in error.why and error.needs == needed for error in diagnosis.unread)
    results = {stage.title: result for stage, result, _ in diagnosis.stages()}
    assert results["the annotation on the service account"] == "not looked at"
    assert results["the role's permissions"] == "right"
    # The issuer has another host, which these tests cannot reach.
    assert {error.read.of for error in diagnosis.checks[PROVIDER].unread} == {"a host"}


def test_the_doctor_says_that_the_callers_credentials_have_expired(lab):
    aws = session_of(lab)
    try:
        lab.clock.advance(hours=2)
        with pytest.raises(LabError, match="ExpiredToken"):
            diagnose(**NOBODY, aws=aws, kubernetes=lab.kubernetes)
        diagnosis = diagnose(**NOBODY, connection=changed(lab.connection, aws=aws))
    finally:
        lab.clock.reset()
    assert diagnosis.exit_code == 2
    assert any(error.no_credentials and "sts get-caller-identity" in error.needs for error in diagnosis.unread)


def on_eks(lab, **variables):
    """The variables of a machine whose own AWS settings lead to the simulator."""
    folder = Folder.find()
    state = State.read(folder)
    return environment.variables(folder, state.endpoint_url, state.region) | variables


def test_the_target_eks_uses_the_machines_own_aws_settings(lab):
    done = doctor("--target", "eks", "--verbose", **on_eks(lab))
    assert "labkit env" not in done.stdout
    assert "role: arn:aws:iam::123456789012:role/my-role" in done.stdout, done.stderr
    missing = doctor("--target", "eks", "--cluster", "green", **on_eks(lab))
    assert missing.returncode == 2
    assert "no EKS cluster green" in missing.stderr and "aws eks list-clusters" in missing.stderr
    nobody = doctor("--target", "eks", **on_eks(lab, AWS_PROFILE="ghost"))
    assert nobody.returncode == 2
    assert "ghost" in nobody.stderr and "Traceback" not in nobody.stderr
    other = doctor("--target", "eks", "--account-id", "222222222222", **on_eks(lab))
    assert other.returncode == 2
    assert "222222222222" in other.stderr


def test_a_caller_limited_to_one_namespace_gets_a_list_of_the_unread_facts(lab):
    eks, aws = lab.aws.client("eks"), session_of(lab)
    principal = {"clusterName": "blue", "principalArn": lab.connection.role_arn("operator")}
    eks.create_access_entry(**principal)
    view = "arn:aws:eks::aws:cluster-access-policy/AmazonEKSViewPolicy"
    scope = {"type": "namespace", "namespaces": ["default"]}
    eks.associate_access_policy(**principal, policyArn=view, accessScope=scope)
    keys = aws.get_credentials()
    variables = {
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_SESSION_TOKEN": keys.token,
    }
    try:
        done = doctor("--target", "eks", "--json", **on_eks(lab, **variables))
    finally:
        eks.delete_access_entry(**principal)
    assert done.returncode == 2, done.stderr
    report = json.loads(done.stdout)
    assert report["role_arn"] == lab.role_arn
    assert report["pods"] == ["my-pod"]
    (webhook,) = [each for each in report["not_looked_at"] if "mutatingwebhookconfiguration" in each["call"]]
    assert webhook["needed"] == webhook["call"]


# The report.


def test_the_report_notebook_prints_the_repair_and_does_not_run_it(broken, tmp_path):
    done = labkit.run(NOTEBOOKS / "doctor.ipynb", tmp_path / "report.ipynb")
    assert f"aws iam attach-role-policy --role-name my-role --policy-arn {POLICY}" in done.output.read_text()
    assert [finding.id for finding in broken.diagnose().findings] == ["role-policy-not-attached"]


def test_lab_look_finds_the_role_and_the_pods_by_itself(lab):
    with labkit.Lab.look(service_account="my-service-account") as looked:
        diagnosis = looked.diagnose()
    assert (diagnosis.role_arn, diagnosis.pods, diagnosis.exit_code) == (lab.role_arn, ["my-pod"], 0)
    with labkit.Lab.look(role_name="no-role") as looked:
        assert "role-missing" in [finding.id for finding in looked.diagnose().findings]


def test_a_report_shows_no_secret_in_its_evidence():
    answers = recording.healthy()
    variables = answers[recording.PODS][0]["spec"]["containers"][0]["env"]
    variables += [{"name": "AWS_SECRET_ACCESS_KEY", "value": "hunter2"}, {"name": "PASSWORD", "value": "hunter2"}]
    diagnosis = examine(recording.evidence(answers))
    assert diagnosis.facts["pod my-pod"]["containers"]["aws"]["AWS_SECRET_ACCESS_KEY"] == "(not shown)"
    shown = json.dumps(diagnosis.facts) + json.dumps(diagnosis.as_json()) + repr(diagnosis) + diagnosis._repr_html_()
    assert "hunter2" not in shown
