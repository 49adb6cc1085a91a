"""A fleet of 12 rows with three planted faults: the right report, and `--resume` runs exactly what is missing."""

import html
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from hashlib import sha1

import pexpect
import pytest

from labkit import documents, simulator
from labkit.errors import NoCredentials
from labkit.run_parameters import Parameters
from labkit.runs.fleet import looking
from labkit.runs.fleet.report import Report
from labkit.runs.fleet.results import Result
from labkit.runs.fleet.rows import Row, read
from labkit.runs.fleet.running import Fleet, RowOutcome
from labkit.runs.fleet.task import credentials, run_row
from labkit.targets.eks.account import open_session
from tests.commands import LABKIT, labkit
from tests.notebooks.test_notebook_format import UNSTABLE
from tests.runs import notebooks
from tests.runs.reports import report, times

POLICY, ACCOUNT, WORKER = 2, 4, 9  # the rows with a fault, from 0
WITHIN = 600  # seconds, enough for a busy machine
pytestmark = [pytest.mark.timeout(WITHIN), pytest.mark.lab(cluster="c0")]


@pytest.fixture(scope="module")
def irsa_lab():
    """A lab of this module's own, because a fleet leaves the resources of many runs."""
    with simulator.in_tests.running() as lab:
        yield lab


@pytest.fixture(scope="module")
def fleet(lab, tmp_path_factory):
    """The fleet after its first run: the folder, the command, the rows, and the ended process."""
    folder = tmp_path_factory.mktemp("fleet")
    rows = notebooks.rows(12)
    rows[POLICY]["policy_arn"] = "arn:aws:iam::aws:policy/NoSuchPolicy"
    rows[ACCOUNT]["policy_arn"] = "arn:aws:iam::999999999999:policy/reader"
    rows[WORKER]["bucket"] = "kill-the-worker"
    notebook = notebooks.write(folder / "in.ipynb", notebooks.ROLE)
    command = ["fleet", str(notebooks.fleet(folder / "fleet.yaml", rows)), "--notebook", str(notebook)]
    command += ["--out", str(folder / "out"), "--workers", "2"]
    done = process(*command)
    shutil.copytree(folder / "out", folder / "first")
    return folder, command, rows, done


def process(*command, cwd=None):
    return subprocess.run([LABKIT, *command], capture_output=True, text=True, timeout=WITHIN, cwd=cwd)


def test_the_report_tells_the_three_faults_from_the_nine_good_rows(fleet):
    folder, command, _, done = fleet
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr == ""
    result = report(folder / "first")
    failed = {row["number"] - 1: row for row in result["rows"] if row["state"] == "failed"}
    assert sorted(failed) == [POLICY, ACCOUNT, WORKER]
    assert result["counts"] == {"succeeded": 9, "failed": 3, "not run": 0}
    assert "NoSuchEntity" in failed[POLICY]["error"]
    assert failed[POLICY]["cell"] == notebooks.ROLE.strip()
    assert "arn:aws:iam::999999999999:policy/reader" in failed[ACCOUNT]["error"]
    assert failed[WORKER]["error"].startswith("worker lost")
    assert all((folder / "first" / row["notebook"]).is_file() for row in result["rows"])
    assert f"✗ c0/n{WORKER}/my-service-account/r{WORKER}  failed" in done.stdout
    assert f"{LABKIT.name} {' '.join(command)} --resume" in done.stdout


def test_the_html_report_loads_nothing_from_the_internet_and_shows_the_same_states(fleet):
    folder, *_ = fleet
    page = (folder / "first" / "report.html").read_text()
    assert not re.search(r"""(src|href)=["']?(https?:)?//|@import|url\(""", page)
    assert page.count("✗ failed") == 3 and page.count("✓ succeeded") == 9
    assert page.count("<rect ") == 12
    for link in re.findall(r'href="([^"]+)"', page):
        assert (folder / "first" / link).is_file()
    for secret in ("a token", "an access key"):
        assert not re.search(UNSTABLE[secret], page + json.dumps(report(folder / "first")))


def test_resume_runs_exactly_the_failed_and_the_changed_rows(fleet, lab):
    folder, command, *_ = fleet
    mended, changed = notebooks.rows(12), 5
    mended[changed]["service_account"] = "my-service-account"  # the same value as before, but now named in the file
    notebooks.fleet(folder / "fleet.yaml", mended)
    before = times(folder / "out")
    done = process(*command, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    ran = {name for name, time in times(folder / "out").items() if time != before.get(name)}
    assert ran == {f"c{n % 3}.n{n}.my-service-account.r{n}.{kind}" for n in RAN for kind in ("json", "ipynb")}
    assert {row["number"] - 1 for row in report(folder / "out")["rows"] if not row["earlier"]} == RAN
    made = {role["RoleName"] for role in lab.aws.client("iam").list_roles()["Roles"]}
    assert made >= {f"r{n}" for n in range(0, 12, 2)}
    again = labkit(*command, "--resume")
    assert "succeeded: 12 (12 in an earlier fleet)" in again.stdout
    assert {name for name, time in times(folder / "out").items() if time != before[name]} == ran


RAN = {POLICY, ACCOUNT, WORKER, 5}


def test_plan_doctor_and_remove_act_on_the_rows_of_the_fleet_file(fleet, lab, tmp_path):
    file = notebooks.fleet(tmp_path / "fleet.yaml", notebooks.rows(12)[:1])
    planned = labkit("fleet", file, "--plan", cwd=tmp_path)
    assert planned.returncode == 0
    made = (
        "the run makes the bucket irsa-lab and the namespace n0 if they're missing, an OIDC provider, the role r0, "
        "the service account n0/my-service-account and a pod"
    )
    assert f"{made}; resources of this run that exist already: role r0\n" in planned.stdout
    assert planned.stdout.endswith("\n1 row. Nothing was changed.\n")
    assert "continues with the lab in" in planned.stdout
    elsewhere = labkit("fleet", file, "--plan", cwd=tmp_path, LABKIT_HOME=str(tmp_path / ".lab"))
    assert "starts the lab in" in elsewhere.stdout and "nothing of this run exists yet" in elsewhere.stdout
    looked = labkit("fleet", file, "--doctor", cwd=tmp_path)
    assert looked.returncode == 1
    assert "namespace-missing" in looked.stdout
    assert "\n1 row; findings: 1\n" in looked.stdout
    assert "✗ findings" in (tmp_path / "runs" / "fleet" / "fleet" / "doctor.html").read_text()
    removed = labkit("fleet", file, "--remove", cwd=tmp_path)
    assert removed.returncode == 0
    assert "removed role r0" in removed.stdout
    assert "nothing of this run exists yet\n" in labkit("fleet", file, "--plan", cwd=tmp_path).stdout


@pytest.fixture
def ended(lab, tmp_path):
    """A fleet of two rows that have succeeded: the command, and the folder with the results."""
    rows = [row | {"cluster": "c0", "image": "none"} for row in notebooks.rows(2)]
    file, notebook = notebooks.fleet(tmp_path / "two.yaml", rows), notebooks.write(tmp_path / "in.ipynb")
    out = tmp_path / "runs" / "fleet" / "two"
    fleet = Fleet(read(file), notebook, out, resume=True)
    with fleet.results.opened(resume=False):
        for row in fleet.rows:
            shutil.copy(notebook, fleet.results.draft(row))
            fleet.results.keep(row, Result("succeeded", "before", fleet.job(row).fingerprint))
    assert len(fleet.earlier()) == 2
    return ["fleet", file, "--notebook", notebook], fleet


def test_a_removed_row_no_longer_counts_as_succeeded_and_resume_runs_it_again(ended, tmp_path):
    command, fleet = ended
    before = {row.number: fleet.results.notebook(row).read_bytes() for row in fleet.rows}
    removed = labkit(*command, "--remove", cwd=tmp_path)
    assert removed.returncode == 0, removed.stderr
    assert removed.stdout.endswith("\n2 results deleted from runs/fleet/two: --resume runs these rows again.\n")
    assert fleet.earlier() == []
    assert {row.number: fleet.results.notebook(row).read_bytes() for row in fleet.rows} == before
    again = process(*command, "--resume", cwd=tmp_path)
    assert "\n2 rows; succeeded: 2, in " in again.stdout


def test_results_in_another_folder_stay_valid_until_remove_names_that_folder(ended, tmp_path):
    command, fleet = ended
    fleet.out.rename(tmp_path / "other")
    fleet = replace(fleet, out=tmp_path / "other")
    unnamed = labkit(*command, "--remove", cwd=tmp_path)
    assert unnamed.stdout.endswith(
        "\nThese rows have no results in runs/fleet/two. If their results are in another folder, --resume with that "
        "folder still skips them. To run them again, add --out FOLDER to --remove.\n"
    )
    assert len(fleet.earlier()) == 2
    named = labkit(*command, "--remove", "--out", "other", cwd=tmp_path)
    assert named.stdout.endswith("\n2 results deleted from other: --resume runs these rows again.\n")
    assert fleet.earlier() == []


def test_a_removal_that_deletes_nothing_keeps_the_results(ended, tmp_path):
    command, fleet = ended
    assert [row.number for row, _ in looking.removals(fleet.rows, shows_only=True, out=fleet.out)] == [2, 1]
    refused = labkit(*command, "--remove", cwd=tmp_path, LABKIT_HOME=str(tmp_path / ".lab"))
    assert refused.returncode == 1
    assert "No lab runs in" in refused.stdout and "--resume" not in refused.stdout
    assert len(fleet.earlier()) == 2


def test_remove_is_refused_while_a_fleet_uses_the_folder(ended, tmp_path):
    command, fleet = ended
    with fleet.results.opened(resume=True):
        refused = labkit(*command, "--remove", cwd=tmp_path)
        assert labkit(*command, "--plan", cwd=tmp_path).returncode == 0
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        "labkit: Another fleet is writing its results into this folder.\n"
        "where: runs/fleet/two\nnext:  wait until that fleet has ended, and run this command again\n"
    )
    row = fleet.rows[0]
    with fleet.results.begin(row, "fleet-0"):
        refused = labkit(*command, "--remove", cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert f"still run rows, such as {row.name}." in refused.stderr
    assert len(fleet.earlier()) == 2


def test_a_fleet_is_refused_while_remove_deletes_its_rows(ended):
    command, fleet = ended
    removals = looking.removals(fleet.rows, shows_only=False, out=fleet.out)
    next(removals)
    refused = process(*command, "--out", fleet.out, "--resume")
    assert refused.returncode == 2
    assert "Another fleet is writing its results into this folder." in refused.stderr
    removals.close()


@pytest.fixture
def by_hand(lab):
    """Two roles without a tag: `of-ec2`, and `of-shop` for the service account shop/cart."""
    iam = lab.aws.client("iam")
    of_shop = documents.trust_policy(Parameters.checked(namespace="shop", service_account="cart"), lab.provider_arn)
    of_ec2 = {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    policies = {"of-ec2": {"Version": "2012-10-17", "Statement": [of_ec2]}, "of-shop": of_shop}
    for name, policy in policies.items():
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(policy))
    yield
    for name in policies:
        iam.delete_role(RoleName=name)


@pytest.mark.parametrize("cluster", ["c0", "not-made-yet"])
def test_plan_names_untagged_resources_apart_and_refuses_a_role_that_trusts_others(by_hand, tmp_path, cluster):
    names = ("of-ec2", "of-shop")
    rows = [{"cluster": cluster, "namespace": name, "role_name": name} for name in names]
    planned = labkit("fleet", notebooks.fleet(tmp_path / "fleet.yaml", rows), "--plan", cwd=tmp_path)
    assert planned.returncode == 1
    ours, theirs = planned.stdout.split("row 2")
    untagged = "untagged resources that the run changes or replaces, and that --remove deletes: role of-ec2"
    assert f"nothing of this run exists yet; {untagged}\n" in ours
    assert "the role of-shop carries no tag of the lab, and its trust policy names shop/cart" in theirs


@pytest.mark.parametrize("bucket", ["interrupt", "terminate"])
def test_ctrl_c_and_sigterm_keep_finished_rows_and_print_how_to_resume(tmp_path, bucket):
    rows = [row | {"image": "none"} for row in notebooks.rows(3)]
    rows[1]["bucket"] = bucket
    file = notebooks.fleet(tmp_path / "fleet.yaml", rows)
    notebook = notebooks.write(tmp_path / "in.ipynb")
    # No process of the fleet may import this file of the current folder instead of the library.
    (tmp_path / "yaml.py").write_text("raise RuntimeError")
    done = process("fleet", file, "--notebook", notebook, "--out", "out", "--workers", "1", cwd=tmp_path)
    assert done.returncode == 130
    assert done.stderr == ""
    rows = report(tmp_path / "out")["rows"]
    assert [row["state"] for row in rows] == ["succeeded", "failed", "not run"]
    assert rows[1]["error"].startswith("the fleet was interrupted while this row ran\n")
    assert "The fleet ended early: the fleet was interrupted. Run the rest:" in done.stdout
    assert done.stdout.rstrip().endswith("--resume")


@pytest.fixture
def preloaded(tmp_path, monkeypatch):
    """A function that runs a fleet of two rows, whose workers execute the given lines while they start."""

    def run(lines: str) -> subprocess.CompletedProcess:
        (tmp_path / "first.py").write_text(lines)
        monkeypatch.setenv("DASK_DISTRIBUTED__WORKER__PRELOAD", str(tmp_path / "first.py"))
        rows = [row | {"image": "none"} for row in notebooks.rows(2)]
        file, notebook = notebooks.fleet(tmp_path / "fleet.yaml", rows), notebooks.write(tmp_path / "in.ipynb")
        return process("fleet", file, "--notebook", notebook, "--out", tmp_path / "out", "--workers", "1")

    return run


PRESS = """
import os, psutil, signal
os.kill(next(each.pid for each in psutil.Process().parents() if "fleet" in each.cmdline()), signal.SIGINT)
"""
TERMINATE = PRESS.replace("SIGINT", "SIGTERM")
# Dask executes the lines twice.
ONCE = "import sys\nif not hasattr(sys, 'pressed'):\n    sys.pressed = True" + PRESS.replace("\n", "\n    ")


@pytest.mark.parametrize("press", [ONCE, PRESS, TERMINATE], ids=["once", "twice", "sigterm"])
def test_ctrl_c_while_the_workers_start_ends_the_fleet_and_prints_how_to_resume(preloaded, tmp_path, press):
    done = preloaded(press)
    assert (done.returncode, done.stderr) == (130, "")
    assert "The fleet ended early: the fleet was interrupted. Run the rest:" in done.stdout
    assert [row["state"] for row in report(tmp_path / "out")["rows"]] == ["not run", "not run"]


SETTINGS = {
    "not YAML": ("DASK_CONFIG", "dask.yaml", "expected the node content, but found '<stream end>', line 2",
                 "dask.yaml"),
    "a wrong type": ("DASK_DISTRIBUTED__WORKER__PRELOAD", "5", "object of type 'int' has no len()", ""),
    "a wrong name": ("DASK_LOGGING__DISTRIBUTED", "loud", "LOUD", ""),
    "a wrong unit": ("DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT", "abc", "Invalid time unit: abc.", ""),
}  # fmt: skip


@pytest.mark.parametrize(("name", "value", "said", "file"), SETTINGS.values(), ids=SETTINGS)
def test_settings_that_dask_cannot_use_are_reported(tmp_path, monkeypatch, name, value, said, file):
    (tmp_path / "dask.yaml").write_text("distributed: [\n")
    monkeypatch.setenv(name, value)
    notebooks.fleet(tmp_path / "fleet.yaml", notebooks.rows(1))
    done = process("fleet", "fleet.yaml", "--notebook", notebooks.write(tmp_path / "in.ipynb"), cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    what, where, then = done.stderr.splitlines()
    assert what.startswith(f"labkit: Dask can't use its settings: {said}")
    assert where == f"where: {file or name}"
    assert then.endswith("https://docs.dask.org/en/stable/configuration.html")


def test_a_low_limit_of_open_files_is_reported_before_a_row_starts(tmp_path):
    rows = [row | {"image": "none"} for row in notebooks.rows(3)]
    file, notebook = notebooks.fleet(tmp_path / "fleet.yaml", rows), notebooks.write(tmp_path / "in.ipynb")
    command = f"{LABKIT} fleet {file} --notebook {notebook} --out {tmp_path / 'out'} --workers 2"
    done = subprocess.run(["sh", "-c", f"ulimit -n 60; {command}"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    what, where, then, *more = done.stderr.splitlines()
    assert what == "labkit: A process may have 60 open files here, and a fleet of 2 workers needs 160."
    assert (where, then[:22], more) == ("where: ulimit -Hn", "next:  ulimit -n 1024 ", [])
    assert not [*(tmp_path / "out" / "rows").iterdir()]
    soft = ["sh", "-c", f"ulimit -S -n 60; {command}"]
    done = subprocess.run(soft, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_workers_that_cannot_start_are_reported(preloaded, tmp_path):
    done = preloaded("import no_such_module\n")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("labkit: The workers could not start: No module named 'no_such_module'.\n")
    assert "Traceback" not in done.stderr
    assert not [*(tmp_path / "out" / "rows").iterdir()]


def test_fail_fast_starts_no_row_after_a_failed_one_and_a_terminal_shows_a_table(tmp_path):
    rows = [row | {"image": "none", "cluster": "blue"} for row in notebooks.rows(3)]
    file = notebooks.fleet(tmp_path / "fleet.yaml", rows)
    notebook = notebooks.write(tmp_path / "in.ipynb", "1 / 0")
    command = ["fleet", file, "--notebook", notebook, "--out", tmp_path / "out", "--fail-fast", "--workers", "1"]
    terminal = pexpect.spawn(str(LABKIT), [*map(str, command)], timeout=WITHIN, encoding="utf-8")
    terminal.expect("0 of 3 rows")
    terminal.expect("ZeroDivisionError")
    terminal.expect("a row failed, and with --fail-fast no more rows start")
    terminal.expect(pexpect.EOF)
    terminal.close()
    assert terminal.exitstatus == 1
    assert [row["state"] for row in report(tmp_path / "out")["rows"]] == ["failed", "not run", "not run"]


@pytest.fixture
def account(lab, monkeypatch):
    """A row's parameters in another account, and the role that the row assumes there."""
    keys = lab.aws.get_credentials()
    for name, value in {
        "AWS_ENDPOINT_URL": lab.aws.endpoint_url,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
    }.items():
        monkeypatch.setenv(name, value)
    role = "arn:aws:iam::222222222222:role/OrganizationAccountAccessRole"
    yield Parameters.checked(target="eks", account_id="222222222222"), role
    lab.clock.reset()


def test_a_row_uses_its_own_credentials_and_leaves_none_behind(account):
    given, role = account
    before = dict(os.environ)
    with credentials(Row(1, "row 1", given, assume_role=role)):
        import boto3

        sts = boto3.Session(region_name="us-east-1").client("sts")
        assert sts.get_caller_identity()["Account"] == "222222222222"
    with credentials(Row(1, "row 1", given, profile="theirs")):
        assert os.environ["AWS_PROFILE"] == "theirs"
    assert dict(os.environ) == before


def test_a_rows_profile_overrides_the_keys_in_the_environment(account, tmp_path, monkeypatch):
    import boto3

    given, _ = account
    file = tmp_path / "credentials"
    file.write_text("[theirs]\naws_access_key_id = AKIATHEIRS\naws_secret_access_key = secret\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(file))
    monkeypatch.setenv("AWS_ROLE_ARN", given.policy_arn)
    with credentials(Row(1, "row 1", given, profile="theirs")):
        assert boto3.Session().get_credentials().access_key == "AKIATHEIRS"


def test_a_rows_aws_session_uses_adaptive_retries(account):
    given, _ = account
    assert open_session("us-east-1").client("iam").meta.config.retries["mode"] == "standard"
    with credentials(Row(1, "row 1", given)):
        assert open_session("us-east-1").client("iam").meta.config.retries["mode"] == "adaptive"


# The session expires after an hour. In the first run, two hours pass between the two calls.
EXPIRES = """
import boto3
from labkit.simulator.folder import Folder
iam = boto3.client("iam", region_name="us-east-1")
users = [user["UserName"] for user in iam.list_users()["Users"]]
if role_name not in users:
    iam.create_user(UserName=role_name)
    Folder.find().clock.advance(hours=2)
iam.tag_user(UserName=role_name, Tags=[{"Key": "ran", "Value": "whole"}])
"""


@pytest.fixture
def profile(account, tmp_path, monkeypatch):
    """A function that writes the keys of a one-hour session in the other account into the profile `theirs`."""
    import boto3

    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))

    def write() -> None:
        sts = boto3.Session(region_name="us-east-1").client("sts")
        keys = sts.assume_role(RoleArn=account[1], RoleSessionName="me")["Credentials"]
        file.write_text(
            f"[theirs]\naws_access_key_id = {keys['AccessKeyId']}\n"
            f"aws_secret_access_key = {keys['SecretAccessKey']}\naws_session_token = {keys['SessionToken']}\n"
        )

    return write


BY_ROLE = "labkit fleet … --resume   (this assumes the role again)"
BY_PROFILE = (
    "aws sso login --profile theirs   (or get new keys where you got the old ones), then:  labkit fleet … --resume"
)


@pytest.mark.parametrize(("access", "renew"), [("assume_role", BY_ROLE), ("profile", BY_PROFILE)])
def test_credentials_that_expire_in_a_run_fail_its_row_and_resume_uses_new_ones(
    lab, irsa_lab, account, profile, tmp_path, access, renew
):
    given, role = account
    profile()
    given = Parameters.checked(**given.given, role_name=f"by-{access}")
    row = Row(1, "row 1", given, **{access: role if access == "assume_role" else "theirs"})
    notebook = notebooks.write(tmp_path / "in.ipynb", EXPIRES)
    fleet = Fleet([row], notebook, tmp_path / "out", home=str(irsa_lab.folder.path))
    with fleet.results.opened(resume=False):
        done = run_row(fleet.job(row))
    assert done.state == "failed"
    assert done.reason.startswith("The row's AWS credentials have expired. ")
    assert "(ExpiredToken) when calling the TagUser operation" in done.error
    assert done.error.endswith(f"next:  {renew}")
    Report("fleet.yaml", notebook.name, [RowOutcome(row, done)]).write(fleet.out)
    assert report(fleet.out)["rows"][0]["error"] == done.error
    page = html.unescape((fleet.out / "report.html").read_text())
    assert "<summary>The row's AWS credentials have expired. " in page and f"next:  {renew}</pre>" in page
    profile()
    again = replace(fleet, id="later", resume=True)
    with again.results.opened(resume=True):
        assert again.earlier() == []
        assert run_row(again.job(row)).state == "succeeded"
    assert [outcome.is_earlier for outcome in again.earlier()] == [True]


def test_an_expired_sso_login_is_reported_with_the_login_command(account, irsa_lab, tmp_path, monkeypatch):
    given, _ = account
    cache = tmp_path / ".aws" / "sso" / "cache"
    cache.mkdir(parents=True)
    (tmp_path / ".aws" / "config").write_text(
        "[sso-session us]\nsso_start_url = https://example.awsapps.com/start\nsso_region = us-east-1\n"
        "[profile theirs]\nsso_session = us\nsso_account_id = 222222222222\nsso_role_name = admin\n"
    )
    token = {"startUrl": "https://example.awsapps.com/start", "accessToken": "x", "expiresAt": "2020-01-01T00:00:00Z"}
    (cache / f"{sha1(b'us').hexdigest()}.json").write_text(json.dumps(token))
    monkeypatch.setenv("HOME", str(tmp_path))
    row = Row(1, "row 1", given, profile="theirs")
    notebook = notebooks.write(tmp_path / "in.ipynb", EXPIRES)
    fleet = Fleet([row], notebook, tmp_path / "out", home=str(irsa_lab.folder.path))
    with fleet.results.opened(resume=False):
        done = run_row(fleet.job(row))
    assert done.reason.startswith("The row's AWS credentials have expired. TokenRetrievalError: ")
    assert done.error.endswith(f"next:  {BY_PROFILE}")


def test_expired_credentials_are_named_when_a_role_cannot_be_assumed(lab, account, profile):
    given, role = account
    profile()
    lab.clock.advance(hours=2)
    with pytest.raises(NoCredentials) as refused, credentials(Row(1, "", given, "theirs", role)):
        pass
    assert refused.value.what.startswith("The credentials have expired: ExpiredToken: ")
    assert refused.value.where == "profile theirs"
    assert refused.value.next.endswith("To log in: aws sso login --profile theirs")
