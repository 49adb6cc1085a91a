"""Many runs: compared with papermill in a shell's loop, by number of workers, and how far they scale."""

import contextlib
import json
import os
import shlex
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from math import ceil
from pathlib import Path

import psutil

from tests.bench.lab import PROGRAMS, ROOT, folder, labkit
from tests.runs import notebooks
from tests.runs.reports import report

RUNS, CLUSTERS = 200, 20
MANY = 1000  # rows
WANTED = 10_000  # runs an hour
ROLE = [row | {"image": ""} for row in notebooks.rows(RUNS, clusters=CLUSTERS)]


def against_xargs() -> str:
    """Measure 200 runs over 20 clusters, in pairs: `labkit fleet --workers 2` against `xargs -P 2 papermill`."""
    ratios, lost = [], 0
    for _ in range(2):
        with folder() as home, tempfile.TemporaryDirectory() as temporary:
            _ready(home)
            notebook = notebooks.write(Path(temporary) / "in.ipynb", notebooks.ROLE)
            ours = _fleet(home, Path(temporary), notebook, ROLE, "--workers", "2")[0]
            theirs, missing = _xargs(home, Path(temporary), notebook, ROLE)
            ratios.append(ours / theirs)
            lost += missing
    measured = " and ".join(f"{ratio:.2f}" for ratio in ratios)
    return f"{measured} of xargs -P 2 papermill's time, {RUNS} runs each" + (
        f"; {lost} of xargs's failed" if lost else ""
    )


def by_workers() -> str:
    """Measure 40 runs with 1 and with 2 workers, and the time until the first row starts."""
    took, first = {}, []
    with folder() as home, tempfile.TemporaryDirectory() as temporary:
        _ready(home)
        notebook = notebooks.write(Path(temporary) / "in.ipynb", notebooks.ROLE)
        for count in (1, 2, 1, 2):
            seconds, began, _ = _fleet(home, Path(temporary), notebook, ROLE[:40], "--workers", str(count))
            took.setdefault(count, []).append(seconds)
            first.append(began)
    one, two = (statistics.mean(took[count]) for count in (1, 2))
    return f"40 runs: {one:.1f} s by 1 worker, {two:.1f} s by 2 ({one / two:.2f}x); first row after {max(first):.1f} s"


def memory() -> str:
    """The driver's peak resident memory with 1,000 rows of a one-line notebook."""
    rows = [row | {"image": "none"} for row in notebooks.rows(MANY, clusters=CLUSTERS)]
    with folder() as home, tempfile.TemporaryDirectory() as temporary:
        notebook = notebooks.write(Path(temporary) / "in.ipynb")
        _, _, most = _fleet(home, Path(temporary), notebook, rows, "--workers", "2")
    quarter, all_of_it = max(most[: len(most) // 4]), max(most)
    measured = f"{all_of_it / 2**20:.0f} MiB resident at its most with {MANY:,} rows"
    return f"{measured}, {quarter / 2**20:.0f} MiB by a quarter of them"


def model() -> str:
    """Compute how many workers 10,000 runs an hour need, from a run's time and the scheduler's time for a task."""
    with folder() as home, tempfile.TemporaryDirectory() as temporary:
        _ready(home)
        notebook = notebooks.write(Path(temporary) / "in.ipynb", notebooks.ROLE)
        _fleet(home, Path(temporary), notebook, ROLE[:20], "--workers", "1")
        written = report(Path(temporary) / "out")
        run = statistics.median(row["seconds"] for row in written["rows"])
    overhead = _overhead()
    # The driver alone hands out and takes back each row. More workers can't speed that up.
    workers, limit = ceil(WANTED * (run + overhead) / 3600), run / overhead
    return (
        f"{run:.2f} s a run, {overhead * 1000:.1f} ms a task: {WANTED:,} runs an hour need {workers} workers; "
        f"from {limit:.0f} workers on, the driver is the limit ({3600 / overhead:,.0f} tasks an hour)"
    )


def _overhead(tasks: int = 2000) -> float:
    """Seconds that Dask takes for an empty task, handed out and taken back as in a fleet."""
    from distributed import as_completed

    from labkit.runs.fleet import workers

    with tempfile.TemporaryDirectory() as temporary, workers.local(1, Path(temporary) / "log") as client:
        client.submit(abs, -1, pure=False).result()
        started = time.perf_counter()
        ended = as_completed([client.submit(abs, -1, pure=False) for _ in range(2)])
        for number, future in enumerate(ended):
            workers.count(client)
            future.release()
            if number < tasks - 2:
                ended.add(client.submit(abs, -1, pure=False))
        return (time.perf_counter() - started) / tasks


def _fleet(
    home: Path, place: Path, notebook: Path, rows: list[dict[str, str]], *options: str
) -> tuple[float, float, list[int]]:
    """Run a fleet. Return its seconds, those until the first row began, and the driver's resident bytes each second."""
    out = place / "out"
    shutil.rmtree(out, ignore_errors=True)
    file = notebooks.fleet(place / "fleet.yaml", rows)
    command = [PROGRAMS / "labkit", "fleet", file, "--notebook", notebook, "--out", out, *options]
    wall, started = time.time(), time.perf_counter()
    environment = os.environ | {"LABKIT_HOME": str(home)}
    with (
        subprocess.Popen(command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL) as driver,
        _watched(driver) as rss,
    ):
        if driver.wait() != 0:
            raise RuntimeError(f"the fleet ended with {driver.returncode}: {out}")
    seconds = time.perf_counter() - started
    kept = [json.loads(each.read_text())["result"]["started"] for each in (out / "rows").glob("*.json")]
    return seconds, min(kept) - wall, rss


def _xargs(home: Path, place: Path, notebook: Path, rows: list[dict[str, str]]) -> tuple[float, int]:
    """Return the seconds that xargs takes for the same runs, and the number of errors that it prints."""
    executed = place / "executed"
    executed.mkdir(exist_ok=True)
    lines = [
        shlex.join(
            [str(notebook), str(executed / f"{number}.ipynb"), "--no-progress-bar"]
            + [part for name, value in row.items() if value for part in ("-r", name, value)]
        )
        for number, row in enumerate(rows)
    ]
    started = time.perf_counter()
    done = subprocess.run(
        ["xargs", "-P", "2", "-L", "1", str(PROGRAMS / "papermill")],
        input="\n".join(lines),
        text=True,
        env=os.environ | {"LABKIT_HOME": str(home)},
        capture_output=True,
    )
    # Two kernels that start at once may get the same port, and papermill doesn't retry.
    return time.perf_counter() - started, done.stderr.count("Error: ")


@contextlib.contextmanager
def _watched(driver: "subprocess.Popen[bytes]") -> Iterator[list[int]]:
    seen, is_over = [0], threading.Event()

    def watch() -> None:
        with contextlib.suppress(psutil.Error):
            while not is_over.wait(1):
                seen.append(psutil.Process(driver.pid).memory_info().rss)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()


def _ready(home: Path) -> None:
    """Start the lab with all clusters."""
    for number in range(CLUSTERS):
        labkit(home, "up", "--cluster", f"c{number}")
