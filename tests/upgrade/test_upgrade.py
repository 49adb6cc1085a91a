"""This version opens what version 0.1.0 (revision 877237c9) left: a lab's folder, notebooks and progress.

`lab-0.1.0.zip` is a snapshot, so it has no keys and no sessions. `learn-0.1.0.zip` holds some of the learner's files.
"""

import importlib.util
import json
import os
import pickle
import re
import shutil
import sqlite3
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import nbformat
import pytest
from kubernetes import client

import labkit
from labkit.cli import learning
from labkit.course import contents, lessons, renumbering
from labkit.course import progress as progress_of
from labkit.errors import LabError
from tests import commands
from tests.conftest import emptied

HERE = Path(__file__).parent
LAB, LEARN = HERE / "lab-0.1.0.zip", HERE / "learn-0.1.0.zip"
ISSUERS = {"blue": "5321EAF5DE6E4333EB8626A124C5D1B9", "green": "160ECA730FA94701EB75842755360332"}
# What `labkit progress` of 0.1.0 printed.
PROGRESS = """steps checked and right: iam_role
exercise 02-a: solved, try 2, 0:00 minutes after you opened it, hints: 1
questions: 1 of 2 right at the first answer
examination 1: 0 of 30 points, 2 tasks left
"""
# What cells of 0.1.0 import, and what they use of it.
IMPORTS = [
    ("from labkit import terraform", "terraform.hcl, terraform.rendered"),
    ("from labkit.doctor.explanations import explain", 'explain("RegionDisabledException: STS is not activated")'),
    ("from labkit.exercises import contents", "contents.read"),
    ("from labkit.fleet import live, looking, rows", "live.run, looking.examinations, looking.removals, rows.read"),
    ("from labkit.steps.pod import delete, wait_until_running", "delete, wait_until_running"),
    ("from labkit.tokens import Claims", "Claims"),
]
# Notebooks that run whole. `make lessons` runs more than the first one, because each takes several seconds or more.
RUN = ["04-pod"]
if os.environ.get("LABKIT_LESSONS") == "all":
    RUN += ["08-terraform", "06-inside-the-exchange", "09-break-and-repair-sts", "14-fleet"]
OPEN = "labkit up --imds open"
LINK = re.compile(r"\]\(contents\.ipynb(?:#([^)]+))?\)")


def unpacked(archive: Path, folder: Path) -> Path:
    with zipfile.ZipFile(archive) as packed:
        packed.extractall(folder)
    return folder


def webhook_of(home: Path) -> dict[str, str]:
    """The address and the CA of the webhook, as its registration has them."""
    (webhook,) = json.loads((home / "clusters" / "blue" / "webhook.json").read_text())["webhooks"]
    return webhook["clientConfig"]


@pytest.fixture(scope="module")
def learn(tmp_path_factory) -> Path:
    """The learner's folder, as 0.1.0 left it."""
    return unpacked(LEARN, tmp_path_factory.mktemp("learner") / "learn")


@pytest.fixture
def mine(learn, tmp_path) -> Path:
    """The same folder after `labkit lab` of this version."""
    shutil.copytree(learn, tmp_path / "learn")
    learning.copy_notebooks(tmp_path / "learn")
    return tmp_path / "learn"


@pytest.fixture(scope="module")
def opened(home) -> Iterator[labkit.Lab]:
    """The lab in a folder of 0.1.0. The lab makes the keys that the folder lacks."""
    unpacked(LAB, home)
    old = webhook_of(home)
    done = commands.labkit("up", LABKIT_HOME=str(home))
    assert done.returncode == 0, done.stderr
    # A folder with its keys and ports also has them in the records of its faults.
    for file in home.glob("faults/*.json"):
        text = file.read_text()
        for name, value in webhook_of(home).items():
            text = text.replace(old[name], value)
        file.write_text(text)
    with labkit.Lab.open() as lab:
        yield lab


def test_the_folder_keeps_its_clusters_and_their_objects(opened):
    eks, core = opened.aws.client("eks"), client.CoreV1Api(opened.kubernetes)
    for name, id in ISSUERS.items():
        issuer = eks.describe_cluster(name=name)["cluster"]["identity"]["oidc"]["issuer"]
        assert issuer.endswith(f"/id/{id}")
    assert core.read_namespaced_config_map("shop", "default").data == {"colour": "blue"}
    web = client.AppsV1Api(opened.kubernetes).read_namespaced_deployment("web", "default")
    assert web.spec.template.spec.containers[0].image == "amazon/aws-cli"
    assert eks.list_pod_identity_associations(clusterName="blue")["associations"][0]["serviceAccount"] == "till"
    assert any(arn.endswith(":role/till") for arn in eks.list_access_entries(clusterName="blue")["accessEntries"])


def test_the_folder_keeps_its_resources_in_aws(opened):
    def aws(service):
        return opened.aws.client(service)

    assert {"my-role", "till", "exam"} <= {role["RoleName"] for role in aws("iam").list_roles()["Roles"]}
    assert aws("s3").get_object(Bucket="carts", Key="hello.txt")["Body"].read() == b"hello\n"
    assert aws("secretsmanager").get_secret_value(SecretId="till")["SecretString"] == "not-secret"
    assert aws("ssm").get_parameter(Name="/shop/colour")["Parameter"]["Value"] == "blue"
    assert aws("dynamodb").list_tables()["TableNames"] == ["carts"]
    assert aws("sqs").list_queues()["QueueUrls"][0].endswith("/orders")


def test_the_folder_keeps_its_clock_and_its_trail(opened):
    assert "1:00:00 ahead of the machine's time" in commands.labkit("clock").stdout
    trail = commands.labkit("trail", "--json", "--event", "CreatePodIdentityAssociation").stdout
    assert json.loads(trail.splitlines()[0])["eventName"] == "CreatePodIdentityAssociation"


def test_a_cell_of_00_that_needs_the_nodes_credentials_says_how_to_go_on(opened):
    """Nodes of 0.1.0 gave them to every pod, so its copies of 00 don't raise the hop limit."""
    with pytest.raises(LabError, match=r"^This copy of the notebook is older than this labkit") as refused:
        opened.needs("node_identity")
    assert refused.value.next.endswith(f"; or, for this copy:  {OPEN}")
    assert commands.labkit(*OPEN.split()[1:]).returncode == 0
    opened.needs("node_identity")
    assert commands.labkit("up", "--imds", "closed").returncode == 0
    with pytest.raises(LabError):
        opened.needs("node_identity")


def test_an_examination_begins_again_and_a_fault_is_mended(opened, learn, monkeypatch, tmp_path, capsys):
    shutil.copy(learn / progress_of.NAME, tmp_path)
    monkeypatch.setenv(progress_of.VARIABLE, str(tmp_path / progress_of.NAME))
    names = {"namespace": "exam", "service_account": "exam", "role_name": "exam"}
    with labkit.Lab.open(**names) as lab:
        exam = lab.examination()
        told = capsys.readouterr().out
        assert told.startswith(
            "Your last examination can't be read: it's from another lab or version, or its record was changed.\n"
            "Examination 1: "
        )
        exam.give_up()
    assert progress_of.read().score == "0 of 100 points, 9 tasks left"
    mended = commands.labkit("mend")
    assert mended.returncode == 0 and "oidc-provider-deleted" in mended.stdout, mended.stdout + mended.stderr
    doctor = commands.labkit("doctor")
    assert doctor.returncode == 0, doctor.stdout


def test_a_snapshot_is_refused_in_one_sentence(tmp_path, monkeypatch):
    """Its state is a pickle, which could run a program."""
    snapshot = tmp_path / "old.labsnapshot"
    shutil.copy(LAB, snapshot)
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    done = commands.labkit("restore", str(snapshot))
    assert (done.returncode, (tmp_path / ".lab").exists()) == (1, False)
    assert f"labkit 0.1.0 with moto {version('moto')} made this snapshot, and labkit {version('labkit')}" in done.stderr
    assert "next:  ask for a snapshot that your versions made; or" in done.stderr


def test_a_snapshot_is_refused_whose_manifest_claims_another_format(tmp_path, monkeypatch):
    snapshot = tmp_path / "old.labsnapshot"
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    with zipfile.ZipFile(LAB) as old, zipfile.ZipFile(snapshot, "w", zipfile.ZIP_DEFLATED) as changed:
        for name in old.namelist():
            content = old.read(name)
            if name == "manifest.json":
                content = json.dumps(json.loads(content) | {"format": 2}).encode()
            changed.writestr(name, content)
    refused = commands.labkit("restore", str(snapshot))
    assert refused.returncode == 1 and "is not a snapshot of a lab, or is damaged" in refused.stderr
    assert not [*tmp_path.rglob("*.db")]


@pytest.mark.parametrize(("file", "change"), [
    ("aws.db", "UPDATE stores SET state = ? WHERE service = 'sqs'"),
    ("aws-own.db", "UPDATE parts SET state = ? WHERE name = 'regions'"),
])  # fmt: skip
def test_the_folder_is_refused_if_its_state_runs_a_program(tmp_path, monkeypatch, file, change):
    home, mark = unpacked(LAB, tmp_path / ".lab"), tmp_path / "mark"
    monkeypatch.setenv("LABKIT_HOME", str(home))
    with sqlite3.connect(home / file) as database:
        database.execute(change, [pickle.dumps(Gadget(str(mark)))])
    database.close()
    refused = commands.labkit("up")
    assert refused.returncode == 1
    assert "in this lab cannot be read: ValueError: it may not use posix.mkdir" in refused.stderr.replace(
        "of this", "in this"
    )
    assert "next:  labkit reset" in refused.stderr
    assert not mark.exists()


class Gadget:
    """An object whose pickle makes a folder when it is read."""

    def __init__(self, path: str):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_labkit_lab_leaves_old_notebooks_alone_and_adds_what_is_missing(learn, tmp_path):
    """Old notebooks get today's names, ids and links. The originals stay unchanged in a folder beside them."""
    mine = tmp_path / "learn"
    shutil.copytree(learn, mine)
    before = {file.name: file.read_bytes() for file in mine.glob("[0-9]*.ipynb")}
    added = learning.copy_notebooks(mine)
    assert {file: (mine / renumbering.ASIDE / file).read_bytes() for file in before} == before
    old = {file: renumbering.NOTEBOOKS.get(file[:-6], file[:-6]) for file in before}
    assert {*added, *old.values()} == {path.stem for path in contents.NOTEBOOKS.glob("*.ipynb")}
    cells = {file: [cell.id for cell in nbformat.reads(text, as_version=4).cells] for file, text in before.items()}
    today = {file: nbformat.read(mine / f"{name}.ipynb", as_version=4).cells for file, name in old.items()}
    assert {file: [cell.id for cell in each] for file, each in today.items()} == cells
    assert not any((mine / f"{name}.ipynb").exists() for name in renumbering.NOTEBOOKS)
    page = nbformat.read(mine / contents.NAME, as_version=4)
    shown = page.cells[1].outputs[0].data["text/plain"]
    assert "02 IAM role: " in shown and "exercises 1 of 2, questions 2 of 6, step checked" in shown
    assert "98 Examination" in shown and "0 of 30 points, 2 tasks left" in shown


@pytest.mark.parametrize("name", [name for name in zipfile.ZipFile(LEARN).namelist() if re.match(r"\d", name)])
def test_each_link_of_an_old_notebook_leads_to_a_heading_of_the_contents_page(learn, tmp_path, name):
    page = nbformat.reads(contents.page(tmp_path / "progress.jsonl"), as_version=4)
    headings = re.findall(r"^#+ (.+)$", "\n".join(cell.source for cell in page.cells), re.MULTILINE)
    anchors = {heading.replace(" ", "-") for heading in headings}
    linked = LINK.findall((learn / name).read_text())
    assert linked and {*linked} - {""} <= anchors


def test_an_old_notebook_opens_its_own_exercises_and_links_to_notebooks_of_today(mine):
    for name, ids in {"08-terraform": {"08-a", "08-b"}, "09-break-and-repair-sts": {"09-a", "10-a"}}.items():
        text = (mine / f"{name}.ipynb").read_text()
        assert {*re.findall(r'lab\.exercise\(\\"(.+?)\\"\)', text)} == ids
        assert {*re.findall(r"exercise-(\d\d-[a-z])", text)} <= ids
        linked = {*re.findall(r"\]\(([\w-]+\.ipynb)", text)}
        assert linked and all((mine / each).is_file() for each in linked)


def test_an_old_notebook_asks_its_questions(mine):
    said = "".join(file.read_text() for file in mine.glob("[0-9]*.ipynb"))
    asked = {*re.findall(r'lab\.predict\(\\"(.+?)\\"\)', said)}
    assert {"02-1", "10-2"} <= asked
    assert {lessons.prediction(id).id for id in asked} == asked


def test_what_the_learner_writes_after_the_change_of_numbers_is_never_written_over(mine):
    (mine / "06-terraform.ipynb").write_text("a tab of the browser saved it again")
    (mine / "08-terraform.ipynb").write_text("an answer")
    assert learning.copy_notebooks(mine) == []
    assert (mine / "06-terraform.ipynb").read_text() == "a tab of the browser saved it again"
    assert (mine / "08-terraform.ipynb").read_text() == "an answer"


def test_a_change_of_numbers_that_a_full_disk_stopped_ends_at_the_next_start(learn, mine, tmp_path, monkeypatch):
    stopped = tmp_path / "stopped"
    shutil.copytree(learn, stopped)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", lambda file: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(LabError, match="No space left on device"):
            learning.copy_notebooks(stopped)
    learning.copy_notebooks(stopped)
    assert {file.name: file.read_bytes() for file in stopped.glob("*.ipynb")} == {
        file.name: file.read_bytes() for file in mine.glob("*.ipynb")
    }


def test_the_progress_of_before_counts_under_todays_numbers(tmp_path):
    file = tmp_path / progress_of.NAME
    was = ("06-a", "07-b", "09-a", "09-b", "11-a", "00-a")
    lines = [{"version": 1, "at": 0, "what": "tried", "id": id, "right": True} for id in was]
    lines += [{"version": 1, "at": 0, "what": "answered", "id": id, "right": True} for id in ("09-1", "11-6", "12-8")]
    lines += [{"version": 2, "at": 0, "what": "tried", "id": "06-a", "right": True}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = progress_of.read(file)
    assert {*read.solved} == {"08-a", "06-b", "09-a", "10-a", "12-a", "00-a", "06-a"}
    assert {*read.answered} == {"10-1", "13-2", "14-8"} and read.unread == 0


def test_the_progress_counts_as_before(learn):
    assert commands.labkit("progress", cwd=learn.parent).stdout == PROGRESS


@pytest.mark.parametrize(("line", "used"), IMPORTS, ids=[line for line, _ in IMPORTS])
def test_an_old_import_works(line, used):
    names = {}
    exec(line, names)
    assert eval(used, names)


def test_a_moved_module_has_one_copy_and_a_missing_one_has_no_spec():

    names = {}
    exec("from labkit.exercises import iam_role", names)
    assert names["iam_role"] is importlib.import_module("labkit.course.exercises.iam_role")
    assert importlib.util.find_spec("labkit.emulator.clock")
    assert importlib.util.find_spec("labkit.emulator.nosuch") is None


def test_running_a_moved_module_is_one_sentence():
    done = subprocess.run([sys.executable, "-m", "labkit.emulator"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("labkit.emulator has a new name; see CHANGELOG.md\n")
    assert "Traceback" not in done.stderr


def test_the_cell_of_an_old_contents_page_shows_the_progress(learn, monkeypatch):
    monkeypatch.setenv(progress_of.VARIABLE, str(learn / progress_of.NAME))
    (cell,) = [cell for cell in nbformat.read(learn / contents.NAME, as_version=4).cells if cell.cell_type == "code"]
    lines = cell.source.splitlines()
    found = {}
    exec("\n".join(lines[:-1]), found)
    assert "exercises 1 of 2" in repr(eval(lines[-1], found))


@pytest.fixture(scope="module")
def empty(tmp_path_factory) -> Iterator[Path]:
    """An empty lab for the old notebooks."""
    before, home = os.environ.get("LABKIT_HOME"), tmp_path_factory.mktemp("empty") / ".lab"
    os.environ["LABKIT_HOME"] = str(home)
    yield home
    emptied(home)
    os.environ.pop("LABKIT_HOME") if before is None else os.environ.update(LABKIT_HOME=before)


@pytest.mark.parametrize("name", RUN)
def test_every_cell_of_an_old_notebook_runs(empty, mine, tmp_path, name):
    done = labkit.run(mine / f"{name}.ipynb", tmp_path / "out.ipynb")
    executed = nbformat.read(tmp_path / "out.ipynb", as_version=4)
    cells = [cell for cell in executed.cells if cell.cell_type == "code"]
    assert cells and all(cell.execution_count for cell in cells)
    assert done is not None
