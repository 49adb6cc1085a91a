"""The pytest plugin, as a project outside this one uses it: with the wheel alone."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from labkit.connection import awaited
from labkit.simulator import pytest_plugin

pytest_plugins = ["pytester"]

PAGE = Path(__file__).parents[2] / "notebooks" / "manual" / "your-own-tests.md"
PLAN = Path(__file__).with_name("plan.json")
# The plugins of this project's environment, which a stranger doesn't have.
OTHERS = ("hypothesispytest", "nbval", "randomly", "schemathesis")
WITHIN = 60  # seconds, on a busy machine
MOCKED = "moto's mock_aws is active in this test"


@pytest.fixture
def project(pytester: pytest.Pytester, installed: Path, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project in an environment that has labkit from the wheel."""
    monkeypatch.setenv("PYTHONPATH", str(installed))
    pytester.makeini("[pytest]\naddopts = " + " ".join(f"-p no:{name}" for name in OTHERS))
    return pytester


def examples() -> dict[str, str]:
    """The files that the page prints, by name."""
    found = re.findall(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    return dict(found)


def test_the_page_names_each_fixture():
    fixtures = [name for name in vars(pytest_plugin) if name.startswith("irsa_")]
    assert sorted(re.findall(r"^\| `(irsa_\w+)`", PAGE.read_text(), re.MULTILINE)) == sorted(fixtures)


def test_the_page_s_examples_run_as_printed(project):
    files = examples()
    assert {"rendered.yaml", "test_chart.py", "plan.json", "test_plan.py", "roles.py", "test_operator.py"} == {*files}
    # The page shortens the plan. This one has everything that Terraform writes.
    files["whole_plan.json"] = PLAN.read_text()
    files["test_whole_plan.py"] = files["test_plan.py"].replace('"plan.json"', '"whole_plan.json"')
    for name, text in files.items():
        (project.path / name).write_text(text)
    # The two plans have a role and a namespace of the same name. Each worker has a lab of its own.
    result = project.runpytest_subprocess("-n", "2", "--dist", "loadfile", timeout=300)
    result.assert_outcomes(passed=12)


def test_a_pod_of_a_service_account_with_a_short_or_a_long_name(project):
    project.makepyfile(
        """
        import json, pytest
        from kubernetes import client

        @pytest.mark.parametrize("name", ["x", "x" * 100])
        def test_one(irsa_aws, irsa_cluster, irsa_kubernetes, irsa_namespace, irsa_as_pod, name):
            trusted = {"Effect": "Allow", "Principal": {"Federated": irsa_cluster.oidc_provider_arn}}
            trusted |= {"Action": "sts:AssumeRoleWithWebIdentity"}
            trust = json.dumps({"Version": "2012-10-17", "Statement": trusted})
            created = irsa_aws.client("iam").create_role(RoleName=irsa_namespace, AssumeRolePolicyDocument=trust)
            metadata = {"name": name, "annotations": {"eks.amazonaws.com/role-arn": created["Role"]["Arn"]}}
            client.CoreV1Api(irsa_kubernetes).create_namespaced_service_account(irsa_namespace, {"metadata": metadata})
            assert f":assumed-role/{irsa_namespace}/x" in irsa_as_pod(name).client("sts").get_caller_identity()["Arn"]
        """
    )
    project.runpytest_subprocess(timeout=300).assert_outcomes(passed=2)


def test_collecting_tests_loads_no_more_than_the_plugin_s_module(project):
    project.makeconftest(
        """
        import sys

        def pytest_unconfigure():
            print("loaded:", sorted(name for name in sys.modules if name.startswith(("labkit", "boto", "kubernetes"))))
        """
    )
    project.makepyfile("def test_one(irsa_as_pod, irsa_environment): pass")
    result = project.runpytest_subprocess("--collect-only", "-q")
    result.stdout.fnmatch_lines(["loaded: ['labkit', 'labkit.simulator', 'labkit.simulator.pytest_plugin']"])


def test_each_mistake_is_one_sentence(project):
    project.makepyfile(
        """
        import os

        import boto3
        import pytest
        from botocore.handlers import BUILTIN_HANDLERS
        from kubernetes import client
        from moto import mock_aws

        BEFORE = len(BUILTIN_HANDLERS)

        def test_nobody(irsa_as_pod):
            irsa_as_pod("nobody")

        @pytest.mark.parametrize("name", [None, ""])
        def test_no_account(irsa_as_pod, name):
            irsa_as_pod(name)

        def test_no_role(irsa_as_pod):
            irsa_as_pod("default")

        def test_refused(irsa_kubernetes, irsa_namespace, irsa_as_pod):
            annotations = {"eks.amazonaws.com/role-arn": "arn:aws:iam::123456789012:role/x"}
            cart = {"metadata": {"name": "cart", "annotations": annotations}}
            client.CoreV1Api(irsa_kubernetes).create_namespaced_service_account(irsa_namespace, cart)
            irsa_as_pod("cart")

        @mock_aws
        def test_mock_around_a_call(irsa_aws):
            irsa_aws.client("s3").list_buckets()

        @mock_aws
        def test_mock_around_a_call_of_the_code_under_test(irsa_environment):
            boto3.client("s3").list_buckets()

        @pytest.fixture
        def mocked():
            with mock_aws():
                yield

        def test_mock_before_the_fixture(mocked, irsa_environment):
            pass

        def test_no_such_fixture(irsa_account):
            pass

        @pytest.mark.irsa_namspace("shop")
        def test_no_such_marker(irsa_namespace):
            pass

        @pytest.mark.irsa_namespace
        def test_no_name(irsa_namespace):
            pass

        @pytest.mark.irsa_namespace("Shop!")
        def test_no_valid_name(irsa_namespace):
            pass

        @pytest.mark.irsa_namespace("kube-system")
        def test_a_name_in_use(irsa_namespace):
            pass

        def test_the_environment_is_back():
            assert "AWS_ENDPOINT_URL" not in os.environ and boto3.DEFAULT_SESSION is None
            assert len(BUILTIN_HANDLERS) == BEFORE
            with mock_aws():
                boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="moto")
        """
    )
    result = project.runpytest_subprocess("--showlocals", timeout=300)
    result.assert_outcomes(passed=1, failed=7, errors=6)
    said = result.stdout.str()
    for sentence, times in {
        "has no service account nobody.": 1,
        "irsa_as_pod takes a service account's name, not None.": 1,
        "irsa_as_pod takes a service account's name, not ''.": 1,
        "/default get no role: it has no annotation": 1,
        "(AccessDenied) when calling the AssumeRoleWithWebIdentity operation: Not authorized to perform": 1,
        MOCKED: 3,
        "fixture 'irsa_account' not found": 1,
        "irsa_namspace is not a marker of labkit": 1,
        "The marker irsa_namespace takes one name": 1,
        "'Shop!' can't be a namespace's name": 1,
        "The lab already has a namespace kube-system": 1,
    }.items():
        reports = said.partition("short test summary info")[0]
        assert reports.count(sentence) == times, f"{sentence}\n{said}"
    # A failed test's report has its own calls to AWS, with the reason that AWS hides.
    result.stdout.fnmatch_lines(
        [
            "*AWS's decisions in the lab*",
            "AssumeRoleWithWebIdentity by system:serviceaccount:test-refused-*:cart: AccessDenied",
            "    the role arn:aws:iam::123456789012:role/x does not exist",
        ]
    )
    assert said.count("AWS's decisions in the lab") == 1
    assert "During handling" not in said and "site-packages" not in said.replace("site-packages/moto", "")
    assert not re.search(r"eyJ|IQoJ|SecretAccessKey|A[KS]IA[A-Z2-7]{16}", said)


def test_an_unknown_option_is_one_sentence(project):
    result = project.runpytest_subprocess("--irsa-cluster=green")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*unrecognized arguments: --irsa-cluster=green"])


@pytest.mark.parametrize(("broken", "sentence"), [
    ("import sys; sys.platform = 'win32'", "The lab runs on Linux and macOS, not on win32."),
    ("import sys; sys.modules['kubernetes'] = None", "The lab could not start: *kubernetes*"),
    ("import sys; sys.executable = '/bin/false'", "The lab's server did not come up: it ended with exit code 1.*"),
])  # fmt: skip
def test_a_lab_that_cannot_start_is_one_sentence(project, broken, sentence):
    project.makeconftest(f"def pytest_runtest_setup(): {broken}")
    project.makepyfile("def test_one(irsa_lab): pass")
    result = project.runpytest_subprocess(timeout=300)
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([sentence])
    assert "Traceback" not in result.stdout.str() and "During handling" not in result.stdout.str()


def test_two_sessions_at_once_have_two_labs_which_end_with_them_however_they_end(project, monkeypatch, tmp_path):
    (tmp_path / "other").mkdir()
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / "other"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    project.makepyfile(
        """
        import json, os

        def test_one(irsa_lab, irsa_cluster):
            with open(f"{os.getpid()}.json", "w") as file:
                json.dump([irsa_lab._state.pid, str(irsa_lab.folder.path.parent)], file)

        def test_two():
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        """
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider"]
    by_signal = {signal.SIGINT: pytest.ExitCode.INTERRUPTED, signal.SIGKILL: -signal.SIGKILL}
    sessions = [
        subprocess.Popen(command, cwd=project.path, env=os.environ | {"SIGNAL": str(int(number))})
        for number in by_signal
    ]
    assert [session.wait(timeout=300) for session in sessions] == [*by_signal.values()]
    labs = [json.loads(file.read_text()) for file in project.path.glob("*.json")]
    assert len(labs) == len({folder for _, folder in labs}) == 2
    left = awaited(
        lambda: [lab for lab in labs if psutil.pid_exists(lab[0]) or Path(lab[1]).exists()],
        lambda left: not left,
        within=WITHIN,
        every=0.1,
    )
    assert not left
    assert not [*(tmp_path / "other").iterdir()]
