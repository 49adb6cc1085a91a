"""Progress is kept beside the learner's copies, survives broken lines, and stops nobody where it can't be kept."""

import json
import re
import subprocess

import pytest

from labkit.cli import learning
from labkit.course import checklist, progress
from labkit.course.progress import NAME, VARIABLE, VERSION, kept, read
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from tests import commands


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / NAME))
    return tmp_path / NAME


def test_progress_is_saved_and_read_back(file, monkeypatch):
    now = iter(range(100, 1000, 50))
    monkeypatch.setattr(progress.time, "time", lambda: next(now))
    kept("opened", "02-a")
    kept("hint", "02-a")
    kept("tried", "02-a", right=False)
    kept("opened", "02-a")
    kept("tried", "02-a")
    kept("tried", "02-a")
    kept("opened", "02-b")
    kept("step", "iam_role")
    kept("answered", "02-1", right=False)
    kept("answered", "02-1", right=True)
    assert repr(read()).splitlines() == [
        "steps checked and right: iam_role",
        "exercise 02-a: solved, try 2, 3:20 minutes after you opened it, hints: 1",
        "exercise 02-b: open",
        "questions: 0 of 1 right at the first answer",
    ]


def test_a_broken_line_of_progress_does_not_affect_the_others(file):
    kept("step", "pod")
    other = {"version": VERSION + 1, "at": 0, "what": "step", "id": "iam_role", "right": True}
    examined = other | {"version": VERSION, "what": "examined", "examination": [1]}
    answered = other | {"version": VERSION, "what": "answered", "right": "yes"}
    opened = other | {"version": VERSION, "what": "opened", "at": "noon"}
    with file.open("a") as lines:
        lines.write('{"what": "st\n[]\n\xff\n')
        lines.writelines(json.dumps(line) + "\n" for line in (other, examined, answered, opened))
    kept("step", "credentials")
    assert (read().steps, read().unread) == ({"pod", "credentials"}, 7)
    assert "not counted: 7 lines" in repr(read())


@pytest.mark.parametrize(("place", "unread"), [("a/folder/that/is/not/there", 0), ("", 1)])
def test_learning_continues_if_progress_cannot_be_saved(tmp_path, monkeypatch, place, unread):
    monkeypatch.setenv(VARIABLE, str(tmp_path / place))
    kept("step", "pod")
    assert read() == progress.Progress(unread=unread)


def test_without_a_learner_s_folder_no_progress_is_saved(tmp_path, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    kept("step", "pod")
    assert [*tmp_path.iterdir()] == []


def test_labkit_progress_prints_the_progress_or_how_to_begin(tmp_path, monkeypatch):
    none = commands.labkit("progress", cwd=tmp_path)
    assert (none.returncode, "No progress is saved yet." in none.stderr, "labkit lab" in none.stderr) == (1, True, True)
    (tmp_path / "learn").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "learn" / NAME))
    kept("step", "pod")
    assert "steps checked and right: pod" in commands.labkit("progress", cwd=tmp_path).stdout


def test_a_notebook_started_over_keeps_the_earlier_copy(tmp_path):
    learn = tmp_path / "learn"
    learning.copy_notebooks(learn)
    mine = learn / "02-iam-role.ipynb"
    mine.write_text("mine")
    for number in (1, 2):
        told = f"Your 02-iam-role.ipynb is now learn/02-iam-role.before-{number}.ipynb."
        assert learning.put_aside(learn, "02") == (mine.name, told)
        assert learning.copy_notebooks(learn) == ["02-iam-role"]
    assert (learn / "02-iam-role.before-1.ipynb").read_text() == "mine"
    with pytest.raises(LabError, match=r"^'0' does not name exactly one notebook in learn/\.") as refused:
        learning.put_aside(learn, "0")
    assert re.fullmatch(r"(\S*/)?labkit lab --fresh 00", refused.value.next)


def test_starting_a_notebook_over_without_copies_says_to_run_labkit_lab(tmp_path):
    with pytest.raises(LabError) as refused:
        learning.put_aside(tmp_path, "02")
    assert refused.value.where == "learn/ has no notebooks"
    assert re.fullmatch(r"(\S*/)?labkit lab", refused.value.next)


@pytest.mark.parametrize(
    ("region", "partition", "domain"),
    [("cn-north-1", "aws-cn", "amazonaws.com.cn"), ("us-gov-west-1", "aws-us-gov", "amazonaws.com")],
)
def test_the_checklist_is_in_the_partition_of_the_region(tmp_path, region, partition, domain):
    page = checklist.markdown(Parameters(region=region), tmp_path / NAME)
    assert {*re.findall(r"arn:([\w-]+):iam", page)} == {partition}
    assert f"oidc-provider/oidc.eks.REGION.{domain}/id/ID" in page


def test_the_checklist_has_my_names_and_ticks_what_i_did(tmp_path, monkeypatch):
    (tmp_path / "learn").mkdir()
    monkeypatch.setenv(VARIABLE, str(tmp_path / "learn" / NAME))
    kept("step", "iam_role")
    given = ("-p", "cluster=prod", "-p", "account_id=444455556666", "-p", "role_name=carts", "-p", "namespace=shop")
    done = commands.labkit("checklist", *given, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    ticked = re.findall(r"^- \[x\] (.+?)[,.:]", done.stdout, re.MULTILINE)
    assert ticked == ["The role"]
    assert "# IRSA for my-service-account in shop, cluster prod" in done.stdout
    assert '"system:serviceaccount:shop:my-service-account"' in done.stdout
    assert "eks.amazonaws.com/role-arn=arn:aws:iam::444455556666:role/carts" in done.stdout
    assert "labkit plan -p target=eks -p cluster=prod -p namespace=shop -p role_name=carts" in done.stdout
    # The reader saves the trust policy, and types the next line.
    (trust,) = re.findall("```json\n(.+?)```", done.stdout, re.DOTALL)
    (typed,) = re.findall("^ *(sed .+)$", done.stdout, re.MULTILINE)
    (tmp_path / "trust.json").write_text(trust)
    subprocess.run(["bash", "-c", f"ISSUER=https://issuer.example/id/1\n{typed}"], cwd=tmp_path, check=True)
    (statement,) = json.loads((tmp_path / "trust.json").read_text())["Statement"]
    assert statement["Principal"]["Federated"] == "arn:aws:iam::444455556666:oidc-provider/issuer.example/id/1"
    assert "issuer.example/id/1:sub" in statement["Condition"]["StringEquals"]
    wrong = commands.labkit("checklist", "-p", "role=carts", cwd=tmp_path)
    assert wrong.returncode != 0 and "Traceback" not in wrong.stderr
