"""The processes that run the rows: Dask's workers, on this machine or behind your own scheduler.

A scheduler runs any code that a caller sends. So every scheduler must accept only callers with a certificate. The
scheduler that this module starts also listens on loopback only: https://distributed.dask.org/en/stable/tls.html
"""

import atexit
import logging
import multiprocessing
import os
import re
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from labkit import simulator
from labkit.errors import LabError
from labkit.runs.fleet.rows import Row
from labkit.runs.fleet.table import NothingRan

if TYPE_CHECKING:
    from distributed import Client, WorkerPlugin

ANSWERS_WITHIN = 30  # seconds to wait for a scheduler, and for its first worker
# Numbers of open files: the limit that this process asks for, the need of each worker, and the need of Dask's
# scheduler, which runs in this process.
OPEN_FILES, A_WORKER, FEWEST_OPEN_FILES = 4096, 16, 128
ENDS_WITHIN = 60  # seconds for a worker that has lost its scheduler; Dask waits up to 30 s for the worker's row
NO_EXTRA = (
    'The commands fleet and diff need more packages: pip install "./labkit-….whl[fleet]"   '
    "(in a clone, build this file with: make wheel)"
)
# On Linux, workers are forked from one process that has loaded these modules. Elsewhere a fork may hang.
METHOD = "forkserver" if sys.platform == "linux" else "spawn"
LOADED = ["__main__", "distributed.nanny", "labkit.runs.fleet.task", "labkit.runs", "papermill", "tenacity"]
SAFE_PATH = "PYTHONSAFEPATH"
# Dask raises these for a setting that it can't use. If a file isn't YAML, only the error's text names the file.
OF_SETTINGS = (ValueError, TypeError, LookupError, AttributeError)
MALFORMED = re.compile(r"dask config file at (['\"])(?P<file>.+?)\1 is malformed")
# Nothing uses this scheduler's web pages, and other users of this machine shouldn't see them.
QUIET = {
    "distributed.scheduler.allowed-failures": 0,  # the fleet itself handles a row whose worker was lost
    "distributed.scheduler.http.routes": [],
    "distributed.worker.http.routes": [],
    "distributed.worker.multiprocessing-method": METHOD,
    "distributed.nanny.http.routes": [],
    "logging.distributed": "critical",
    "distributed.logging.distributed": "critical",
}


@dataclass(frozen=True)
class Scheduler:
    """Your own Dask scheduler: its address, and the TLS files that a caller needs for it."""

    address: str
    ca: Path | None
    cert: Path | None
    key: Path | None


def require_extra() -> None:
    """Raise `NothingRan` if Dask isn't installed."""
    from importlib.util import find_spec

    if find_spec("distributed") is None:
        raise NothingRan(NO_EXTRA)


def require_reach(rows: Sequence[Row], scheduler: Scheduler | None, lab_per_worker: bool) -> None:
    """Raise `NothingRan` if the scheduler's workers can't reach a row's lab, or if a TLS option or file is missing."""
    if scheduler is None:
        return
    lacking = [f"--tls-{name}" for name in ("ca", "cert", "key") if getattr(scheduler, name) is None]
    if lacking:
        raise NothingRan(
            f"The scheduler needs {', '.join(lacking)}: without TLS, anyone who reaches it can run code as you.",
            where=scheduler.address,
            next="labkit fleet … --scheduler tls://HOST:PORT --tls-ca FILE --tls-cert FILE --tls-key FILE",
        )
    local = [row for row in rows if not row.is_in_an_account]
    if local and not lab_per_worker:
        raise NothingRan(
            f"The lab of the target {local[0].parameters.target} listens on this machine only, so the scheduler's "
            "workers can't reach it.",
            where=local[0].place,
            next="let each worker open its own lab, or set target: eks in the fleet file. "
            "To open a lab for each worker:\n"
            "       labkit fleet … --lab-per-worker",
        )
    for name in ("ca", "cert", "key"):
        if not (file := Path(getattr(scheduler, name))).is_file():
            raise NothingRan(f"No file {file}.", where=f"--tls-{name}", next=f"labkit fleet … --tls-{name} FILE")


@contextmanager
def local(count: int, log: Path) -> Iterator["Client"]:
    """Start `count` worker processes on this machine, and end them after this block.

    The workers and their kernels write their output to the file `log`. Raises `NothingRan` if the workers can't start.
    """
    _require_open_files(count)
    with ExitStack() as stack:
        try:
            with _ctrl_c_later(), _settings_checked():
                client = stack.enter_context(_started(count, log))
        except KeyboardInterrupt:
            _forget_clusters()
            raise
        except (ImportError, OSError, RuntimeError, ValueError) as error:
            raise NothingRan(
                f"The workers could not start: {_reason(_cause(error))}.",
                where=f"{count} processes, with their files in {tempfile.gettempdir()}",
                next="free memory and disk space, or start fewer workers:  labkit fleet … --workers 1",
            ) from None
        yield client


@contextmanager
def _started(count: int, log: Path) -> Iterator["Client"]:
    _load_early(log)
    import dask

    # Import it before the block below: it adds defaults to Dask's settings, and the end of that block would undo them.
    from distributed import Client, LocalCluster

    _hush()
    with (
        dask.config.set(QUIET),
        tempfile.TemporaryDirectory(prefix="labkit-fleet-") as folder,
        LocalCluster(
            n_workers=count,
            threads_per_worker=1,
            processes=True,
            security=True,
            dashboard_address=None,
            scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
            memory_limit=None,
            local_directory=folder,
            env={SAFE_PATH: os.environ.get(SAFE_PATH, "")},
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        client.register_plugin(prepared(log))
        yield client


def _require_open_files(count: int) -> None:
    fewest = FEWEST_OPEN_FILES + A_WORKER * count
    try:
        simulator.allow_open_files(max(OPEN_FILES, fewest), fewest=fewest, to=f"a fleet of {count} workers")
    except LabError as error:
        raise NothingRan(error.what, where=error.where, next=error.next) from None


def _forget_clusters() -> None:
    """Keep Dask from closing a half-started cluster at exit, because the attempt would fail."""
    from distributed.deploy import spec

    atexit.unregister(spec.close_clusters)


@contextmanager
def _settings_checked() -> Iterator[None]:
    """Raise `NothingRan` if the user's own Dask settings made Dask fail in this block."""
    try:
        yield
    except (*OF_SETTINGS, RuntimeError, AssertionError) as error:
        cause = _cause(error)
        malformed = MALFORMED.search(str(cause))
        places = [malformed["file"]] if malformed else [*_settings()]
        if not places or not isinstance(cause, OF_SETTINGS):
            raise
        raise NothingRan(
            f"Dask can't use its settings: {_reason(cause)}.",
            where=", ".join(places),
            next="correct this setting; all settings of Dask:  https://docs.dask.org/en/stable/configuration.html",
        ) from None


def _settings() -> Iterator[str]:
    from dask import config

    yield from (str(file) for file, _ in config.collect_yaml(config.paths, return_paths=True))
    yield from (name for name in os.environ if name.startswith("DASK_"))


def _cause(error: BaseException) -> BaseException:
    """Return the original error behind Dask's own error."""
    while isinstance(error, RuntimeError | AssertionError) and (earlier := error.__cause__ or error.__context__):
        error = earlier
    return error


def _reason(error: BaseException) -> str:
    """Return the error's text as one line."""
    broken = error.__context__
    if isinstance(broken, yaml.MarkedYAMLError) and broken.problem_mark:
        return f"{broken.problem}, line {broken.problem_mark.line + 1}"
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join((getattr(error, "strerror", None) or text or type(error).__name__).rstrip(".").split())


def _load_early(log: Path) -> None:
    """Start the fork server, which loads the workers' modules while this process loads Dask."""
    if METHOD != "forkserver":
        return
    multiprocessing.set_forkserver_preload(LOADED)
    with _ctrl_c_ignored(), _safe_path(), _complaints_to(log):
        forkserver.ensure_running()


@contextmanager
def _complaints_to(log: Path) -> Iterator[None]:
    """In this block, append stderr to `log`, including the stderr of new processes."""
    terminal = os.dup(2)
    try:
        _append(log, 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)


def _append(log: Path, *descriptors: int) -> None:
    opened = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for descriptor in descriptors:
        os.dup2(opened, descriptor)
    os.close(opened)


@contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Let processes that start in this block ignore Ctrl-C, because this process ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set signal handlers
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _ctrl_c_later() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends, because Dask may hang if its start is interrupted."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in handlers.items() if callable(handler)}
    if not before or threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []

    def again() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def later(number: int, _: object) -> None:
        pressed.append(number)
        if len(pressed) > 1:
            # The next signal takes effect at once.
            again()

    for number in before:
        signal.signal(number, later)
    try:
        yield
    finally:
        again()
    if pressed:
        raise KeyboardInterrupt


@contextmanager
def _safe_path() -> Iterator[None]:
    """Set `PYTHONSAFEPATH` during the block. New Python processes then load no modules from the current folder."""
    with simulator.environment.restored():
        os.environ[SAFE_PATH] = "1"
        yield


@contextmanager
def joined(scheduler: Scheduler) -> Iterator["Client"]:
    """Yield a client of the user's Dask scheduler. Raises `NothingRan` if the scheduler can't be used.

    The end of the `with` block closes the client. The scheduler keeps running.
    """
    with _settings_checked():
        from distributed import Client
        from distributed.security import Security

    _hush()
    security = Security(
        tls_ca_file=str(scheduler.ca),
        tls_client_cert=str(scheduler.cert),
        tls_client_key=str(scheduler.key),
        require_encryption=True,
    )
    try:
        with _settings_checked():
            client = Client(scheduler.address, security=security, timeout=ANSWERS_WITHIN)
    except (OSError, ValueError, RuntimeError) as error:
        raise _unreachable(scheduler, f"it does not answer: {error}") from None
    with client:
        with suppress(TimeoutError):
            client.wait_for_workers(1, timeout=ANSWERS_WITHIN)
        _require_usable(client, scheduler)
        client.register_plugin(prepared(None))
        yield client


def count(client: "Client") -> int:
    """Return the present number of workers."""
    return len(client.nthreads())


def labkit_version() -> str:
    """Return the version of labkit in this process."""
    return version("labkit")


def _hush() -> None:
    """Keep Dask's log messages out of the terminal, because the report has each row's error."""
    # Each of these loggers has a level of its own.
    for name in ("distributed", "distributed.client"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _require_usable(client: "Client", scheduler: Scheduler) -> None:
    threads = client.nthreads()
    if not threads:
        raise _unreachable(scheduler, "it has no workers", "dask worker ADDRESS --nthreads 1 --tls-ca-file …")
    if any(number != 1 for number in threads.values()):
        reason = "a worker has more than one thread, and two runs can't share a process"
        raise _unreachable(scheduler, reason, "dask worker ADDRESS --nworkers 2 --nthreads 1 …")
    try:
        versions = set(client.run(labkit_version).values())
    except (ImportError, AttributeError):
        versions = {"none"}
    if versions != {labkit_version()}:
        reason = f"its workers have labkit {', '.join(sorted(versions))}, but this process has {labkit_version()}"
        raise _unreachable(scheduler, reason, "install the same labkit in the workers' environment")


def _unreachable(scheduler: Scheduler, reason: str, next: str = "") -> LabError:
    return NothingRan(
        f"The scheduler can't be used: {reason}.",
        where=scheduler.address,
        next=next or "check the address and the TLS files",
    )


def prepared(log: Path | None) -> "WorkerPlugin":
    """Return a Dask plugin that makes a worker ignore Ctrl-C. With `log`, the worker writes its output to that file.

    `ENDS_WITHIN` seconds after a worker closes, its process ends, even in the middle of a row.
    """
    from distributed import Status, Worker, WorkerPlugin

    class Prepared(WorkerPlugin):
        def setup(self, worker: object) -> None:  # noqa: ARG002 (Dask names it)
            with suppress(ValueError):
                signal.signal(signal.SIGINT, lambda *_: None)
            if log:
                _append(log, 1, 2)

        def teardown(self, worker: Worker) -> None:
            if worker.status is Status.closing:
                ending = threading.Timer(ENDS_WITHIN, os._exit, (1,))
                ending.daemon = True
                ending.start()

    return Prepared()


def default_count() -> int:
    """Return the default number of workers: the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
