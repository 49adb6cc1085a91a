"""One row in a process: it keeps its result, tries temporary errors again, and ends at its time limit."""

import errno
import json
import os
import resource
from dataclasses import replace
from pathlib import Path

import nbformat
import papermill
import pytest
import tenacity
from distributed import Client, LocalCluster
from jupyter_client.launcher import launch_kernel
from jupyter_client.provisioning import local_provisioner

from labkit import targets
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from labkit.runs import notebook_run
from labkit.runs.fleet import live, looking, running, task
from labkit.runs.fleet.report import Report
from labkit.runs.fleet.results import Result, Results
from labkit.runs.fleet.rows import Row
from labkit.runs.fleet.running import ClusterQueue, Fleet, RowOutcome
from labkit.runs.fleet.table import NothingRan
from labkit.runs.fleet.task import Job, run_row
from tests.runs import notebooks

# The first try fails with a throttling error.
THROTTLED = """
from pathlib import Path
times = Path(policy_arn.rpartition("policy")[2])
times.write_text(times.read_text() + "x" if times.exists() else "x")
if len(times.read_text()) == 1:
    raise RuntimeError("An error occurred (ThrottlingException) when calling the CreateRole operation: Rate exceeded")
"""


@pytest.fixture
def job(tmp_path, monkeypatch):
    def make(*sources: str, time_limit: float = 0.0, **given: str) -> Job:
        notebook = notebooks.write(tmp_path / "in.ipynb", *sources)
        row = Row(1, "row 1", Parameters.checked(**given))
        return Job(row, notebook, tmp_path / "out", "fleet-1", "hash-1", time_limit, str(tmp_path / ".lab"))

    (tmp_path / "out" / "rows").mkdir(parents=True)
    # As in a worker, the kernel is a program of its own, so that a time limit can find and end it.
    monkeypatch.setattr(local_provisioner, "launch_kernel", launch_kernel)
    return make


def test_a_temporary_error_is_tried_again(job, tmp_path):
    times = tmp_path / "times"
    done = run_row(job(THROTTLED, policy_arn=f"arn:aws:iam::aws:policy{times}"))
    assert (done.state, done.tries, times.read_text()) == ("succeeded", 2, "xx")


def test_a_run_that_takes_too_long_ends_with_its_kernel(job):
    made = job(time_limit=1, bucket="sleep")
    done = run_row(made)
    assert (done.state, done.tries) == ("failed", 1)
    assert done.reason == "The run took longer than its time limit of 1 s. Its kernel was ended."
    assert Results(made.out).of(made.row) == done


def test_a_finished_row_is_not_run_again(job):
    made = job("1 / 0")
    results = Results(made.out)
    kept = Result("succeeded", "fleet-1", "hash-1", seconds=2.0)
    results.keep(made.row, kept)
    assert run_row(made) == kept
    assert not results.notebook(made.row).exists()


def test_a_row_does_not_begin_once_the_fleet_is_stopped(job):
    made = job("1 / 0")
    Results(made.out).stop()
    assert run_row(made) == Result("not run", "fleet-1", error=task.STOPPED)


def test_a_row_that_a_lost_worker_had_begun_is_not_run_again(job):
    made = job("1 / 0")
    Results(made.out).begin(made.row, "fleet-1")
    done = run_row(made)
    assert (done.state, done.reason) == ("failed", task.LOST)
    assert not Results(made.out).runs(made.row, "fleet-1")


class Gone:
    """A client whose scheduler went away."""

    status, loop = "closed", object()

    def nthreads(self):
        raise OSError("Timed out")


def test_a_lost_scheduler_ends_the_fleet_and_finished_rows_keep_their_results(job):
    made = job("1 / 0")
    began, ended, waiting = (Row(n, "", Parameters.checked(role_name=name)) for n, name in enumerate("abc", 1))
    fleet = Fleet([began, ended, waiting], made.notebook, made.out)
    with fleet.results.opened(resume=False), fleet.results.begin(began, fleet.id):
        fleet.results.keep(ended, Result("succeeded", fleet.id))
        results = [outcome.result for outcome in fleet.run(Gone())]
    assert [result.state for result in results] == ["failed", "succeeded", "not run"]
    assert results[0].error.startswith(
        "the scheduler went away while this row ran\nnext:  run the row again:  labkit fleet … --resume"
    )
    assert (results[2].error, fleet.stopped_by) == ("the scheduler went away",) * 2


def test_a_scheduler_without_workers_ends_the_fleet(job, monkeypatch):
    monkeypatch.setattr(running, "NO_WORKER_WITHIN", 0)
    made = job()
    began, waiting = (Row(n, "", Parameters.checked(role_name=name)) for n, name in enumerate("ab", 1))
    fleet = Fleet([began, waiting], made.notebook, made.out)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
        fleet.results.opened(resume=False),
        fleet.results.begin(began, fleet.id),
    ):
        results = [outcome.result for outcome in fleet.run(client)]
    assert [result.state for result in results] == ["failed", "not run"]
    assert results[0].error.startswith(
        "no worker was left while this row ran\nnext:  run the row again:  labkit fleet … --resume"
    )
    assert (results[1].error, fleet.stopped_by) == ("no worker was left",) * 2


def test_the_exit_code_is_2_if_no_row_ran_1_if_one_failed_and_otherwise_0():
    rows = [Row(n, "", Parameters.checked(role_name=name)) for n, name in enumerate("ab", 1)]
    failed, not_run = Result("failed"), Result("not run")
    codes = {
        Report("f", "n", [*map(RowOutcome, rows, results)]).exit_code: results
        for results in ([not_run, not_run], [failed, not_run], [Result("succeeded")] * 2)
    }
    assert [*codes] == [2, 1, 0]


def test_one_row_and_one_cluster_are_in_the_singular():
    row = Row(1, "row 1", Parameters.checked())
    done = Report("f", "n", [RowOutcome(row, Result("succeeded", seconds=2.0))])
    assert done.headline == "1 row; succeeded: 1"
    assert "Duration of each row: 1 row, median 2.0 s" in done.as_html()
    progress = live.FleetProgress(Fleet([row], Path(__file__), Path("out")))
    assert repr(progress) == "1 row over 1 cluster"
    assert "0 of 1 row<" in progress._html()


def test_resume_is_refused_while_a_worker_of_an_earlier_fleet_runs_a_row(job):
    made = job("1 / 0")
    results = Results(made.out)
    with results.begin(made.row, "fleet-0"), pytest.raises(NothingRan) as refused, results.opened(resume=True):
        pass
    assert f"still run rows, such as {made.row.name}." in str(refused.value)
    with results.opened(resume=True):
        assert results.began(made.row) == 0


def test_a_worker_with_too_few_open_files_fails_the_row_before_its_kernel_starts(job, monkeypatch):
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 60))
    done = run_row(job())
    assert (done.state, done.tries, done.has_notebook) == ("failed", 1, False)
    assert done.reason == "A process may have 60 open files here, and a notebook's run needs 128."
    assert "\nnext:  ulimit -n 1024 " in done.error


def test_a_kernel_that_never_answers_is_tried_again_and_then_fails_the_row(job, monkeypatch):
    times = []

    def silent(*_: object, **__: object) -> None:
        times.append(1)
        raise RuntimeError("Kernel didn't respond in 60 seconds")

    monkeypatch.setattr(papermill, "execute_notebook", silent)
    monkeypatch.setattr(tenacity.nap.time, "sleep", lambda _: None)
    done = run_row(job())
    assert (done.state, done.tries, len(times)) == ("failed", 3, 3)
    assert done.reason == "The notebook's kernel did not start: Kernel didn't respond in 60 seconds."


def test_a_full_disk_loses_no_earlier_result(job, monkeypatch):
    made = job(bucket="sleep", time_limit=0.1)
    results = Results(made.out)
    earlier = Result("succeeded", "fleet-0", "hash-0")
    results.keep(made.row, earlier)

    def full(self: Path, target: Path) -> Path:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "replace", full)
    done = run_row(made)
    assert done.state == "failed"
    assert "could not be written: No space left on device" in done.error
    assert results.of(made.row) == earlier
    assert not [*made.out.glob("rows/*.part")]


@pytest.fixture
def earlier(job):
    """A later job of a row that has run: the job, the earlier result, the results' folder, the earlier notebook."""
    made = job()
    results = Results(made.out)
    kept = run_row(made)
    return replace(made, fleet="fleet-2", fingerprint="hash-2"), kept, results, results.notebook(made.row).read_bytes()


def test_half_a_notebook_does_not_replace_a_whole_one(earlier, monkeypatch):
    made, _, results, notebook = earlier

    def full(source: str, output: str, **_: object) -> None:
        Path(output).write_bytes(notebook[:-20])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(papermill, "execute_notebook", full)
    done = run_row(made)
    assert (done.state, done.has_notebook) == ("failed", False)
    assert done.reason == "The executed notebook could not be written: No space left on device."
    assert results.notebook(made.row).read_bytes() == notebook
    assert not results.draft(made.row).exists()


def test_an_unwritable_result_does_not_replace_an_earlier_notebook(earlier, monkeypatch):
    made, kept, results, notebook = earlier
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))))
    done = run_row(replace(made, row=replace(made.row, place="row 2")))
    assert (done.state, done.has_notebook) == ("failed", False)
    assert results.of(made.row) == kept
    assert results.notebook(made.row).read_bytes() == notebook


def test_a_run_fails_if_its_notebook_cannot_be_written(job, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    made = job()
    monkeypatch.setattr(nbformat, "write", full)
    done = run_row(made)
    assert (done.state, done.reason) == (
        "failed",
        "The executed notebook could not be written: No space left on device.",
    )


def test_a_failing_cell_and_its_error_are_stored_without_their_secrets(job):
    made = job("raise ValueError('the key AKIAIOSFODNN7EXAMPLE is wrong')")
    done = run_row(made)
    assert done.reason == "ValueError: the key <access key> is wrong"
    assert done.cell == "raise ValueError('the key <access key> is wrong')"
    assert f"next:  jupyter lab rows/{made.row.name}.ipynb" in done.error
    assert str(made.out) not in done.error
    assert json.loads((made.out / "rows" / f"{made.row.name}.json").read_text())["result"]["state"] == "failed"


def test_each_cluster_runs_one_row_alone_until_a_row_has_succeeded():
    from collections import deque

    rows = [Row(n, "", Parameters.checked(cluster=name)) for n, name in enumerate("aabba", 1)]
    waiting, queue = deque(rows), ClusterQueue()
    first, second = queue.next(waiting), queue.next(waiting)
    assert [first.number, second.number, queue.next(waiting)] == [1, 3, None]
    queue.ended(first, succeeded=False)
    assert queue.next(waiting).number == 2
    assert queue.next(waiting) is None
    queue.ended(second, succeeded=True)
    assert queue.next(waiting).number == 4


def test_the_doctor_looks_at_each_row_by_its_own_kubeconfig_context(monkeypatch):
    monkeypatch.setattr(targets, "look", lambda parameters: parameters.context)

    def examined(_: Parameters, connection: str, __: object) -> None:
        raise LabError(connection)

    monkeypatch.setattr(notebook_run, "examined", examined)
    rows = [Row(n, "", Parameters.checked(role_name=name, context=name)) for n, name in enumerate("ab", 1)]
    assert [outcome.result.error for outcome in looking.examinations(rows)] == ["a", "b"]


def test_a_row_s_hash_changes_with_notebook_parameters_and_version():
    row, other = (Row(1, "", Parameters.checked(role_name=name)) for name in ("a", "b"))
    hashes = [row.fingerprint(b"n", "1"), row.fingerprint(b"m", "1"), row.fingerprint(b"n", "2")]
    assert len({*hashes, other.fingerprint(b"n", "1")}) == 4
    assert row.confirmed().fingerprint(b"n", "1") == hashes[0]
