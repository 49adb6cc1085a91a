"""Run one row in a worker's process, and write its result in one step.

Dask may run a task again after it has lost a worker. A row with a result isn't run again. A row without a result counts
as failed if the lost worker had started it.
"""

import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from shlex import quote

from labkit.errors import LabError
from labkit.runs.fleet.results import Result, Results
from labkit.runs.fleet.rows import Row
from labkit.showing import stable
from labkit.simulator import environment

TRIES = 3
# Errors that may not occur on a second try: AWS's codes, botocore's errors, and the end of a kernel.
# https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
PASSING = re.compile(
    r"\b(Throttl\w+|TooManyRequests\w*|RequestLimitExceeded|SlowDown|RequestTimeout\w*|ServiceUnavailable\w*"
    r"|PriorRequestNotComplete|ConnectTimeoutError|ReadTimeoutError)\b|Kernel (didn't respond|died before replying)"
)
# A pod's own token can also expire. That isn't about the row's credentials.
EXPIRED = re.compile(
    r"\b(ExpiredToken|ExpiredTokenException|RequestExpired)\b(?!.*AssumeRoleWithWebIdentity)"
    r"|\b(TokenRetrievalError|UnauthorizedSSOTokenError|SSO credentials have expired)\b"
)
STOPPED = "a row failed, and with --fail-fast no more rows start"
LOST = "worker lost: the process that ran this row ended"


SESSION = "labkit-fleet"
# boto3 uses these variables before AWS_PROFILE: access keys, and a web identity.
# https://docs.aws.amazon.com/boto3/latest/guide/credentials.html#configuring-credentials
BEFORE_PROFILE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_ROLE_ARN",
)
# With these, botocore slows down when AWS throttles it: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
PATIENT = {"AWS_RETRY_MODE": "adaptive", "AWS_MAX_ATTEMPTS": "8"}


@dataclass(frozen=True)
class Job:
    """The data that a worker needs to run a row."""

    row: Row
    notebook: Path
    out: Path
    fleet: str
    fingerprint: str
    time_limit: float
    """The time limit in seconds; 0: no limit."""
    home: str
    """The folder of the lab that all workers share; empty: each worker opens its own lab."""


@dataclass(frozen=True)
class Ended:
    """A failed run: its error, the cell that failed, and the findings."""

    error: str
    cell: str = ""
    findings: tuple[Mapping[str, object], ...] = ()


def run_row(job: Job) -> Result:
    """Run a row and return its result. If this fleet already has the row's result, return that result.

    Raises nothing: the result says if the run failed.
    """
    results = Results(job.out)
    if (done := results.of(job.row)) and done.fleet == job.fleet:
        return done
    if results.is_stopped:
        return Result("not run", job.fleet, error=STOPPED)
    try:
        mark = results.begin(job.row, job.fleet)
    except OSError as error:
        return kept(results, job, Result("failed", job.fleet, job.fingerprint, error=_unwritten(error)))
    if not mark:
        return lost(results, job)
    with mark:
        return _ran(job, results)


def lost(results: Results, job: Job) -> Result:
    """Store and return a failed result for a row whose worker ended during the run."""
    began = results.began(job.row)
    said = f"{LOST}\nnext:  run the row again:  labkit fleet … --resume"
    result = Result("failed", job.fleet, job.fingerprint, error=said)
    return kept(results, job, replace(result, started=began, seconds=time.time() - began) if began else result)


def kept(results: Results, job: Job, result: Result) -> Result:
    """Store and return the result. If it can't be stored, return a failed result that says so."""
    try:
        return results.keep(job.row, result)
    except OSError as error:
        return replace(result, state="failed", error="\n".join(filter(None, [result.error, _unwritten(error)])))


def _unwritten(error: OSError) -> str:
    return f"The result could not be written: {error.strerror}."


def end_labs(out: Path) -> None:
    """End and delete the labs that this machine's workers opened for this output folder, even those of lost workers."""
    from labkit import simulator
    from labkit.simulator import Folder

    for home in Path(tempfile.gettempdir()).glob(f"{_labs(out)}-*"):
        with suppress(LabError):
            simulator.stop(Folder(home))
            shutil.rmtree(home, ignore_errors=True)


def _labs(out: Path) -> str:
    return f"labkit-fleet-{os.getuid()}-{sha256(bytes(out)).hexdigest()[:12]}"


def _own_lab(out: Path) -> Path:
    from distributed import get_worker

    worker = sha256(get_worker().address.encode()).hexdigest()[:12]
    home = Path(tempfile.gettempdir()) / f"{_labs(out)}-{worker}"
    home.mkdir(mode=0o700, exist_ok=True)
    if home.stat().st_uid != os.getuid():
        raise LabError(f"The folder {home} belongs to another user.", next="run the fleet again")
    return home


def _ran(job: Job, results: Results) -> Result:
    """Run the row, then store and return the result of this run.

    If the result can't be stored, return a failed result that says so.
    """
    started, tries = time.time(), 1
    try:
        with _environment(job):
            tries, ended = _tried(job, results)
    except LabError as refused:
        ended = Ended(str(refused))
    result = Result("failed" if ended else "succeeded", job.fleet, job.fingerprint, started, time.time() - started)
    if ended:
        result = replace(result, error=ended.error, cell=ended.cell, findings=[*ended.findings])
    return kept(results, job, replace(result, tries=tries))


def _tried(job: Job, results: Results) -> tuple[int, Ended | None]:
    """Return the number of tries, and the failure of the last try (None if the last try succeeded).

    Each try runs the notebook. After an error that may be temporary, another try follows. The number of tries and
    their total time are limited.
    """
    from tenacity import Retrying, retry_if_result, stop_after_attempt, stop_after_delay, wait_exponential_jitter

    within = job.time_limit or float("inf")
    retrying = Retrying(
        retry=retry_if_result(lambda ended: ended is not None and bool(PASSING.search(ended.error))),
        stop=stop_after_attempt(TRIES) | stop_after_delay(within),
        wait=wait_exponential_jitter(initial=1, max=30, jitter=1),
        retry_error_callback=lambda state: state.outcome and state.outcome.result(),
    )
    until = time.monotonic() + within
    draft = results.draft(job.row)
    ended: Ended | None = retrying(_run, job, draft, until)
    return retrying.statistics["attempt_number"], ended and _for_report(ended, draft, results.notebook(job.row))


def _run(job: Job, draft: Path, until: float) -> Ended | None:
    from labkit.runs import notebook_run

    with _time_limit(until - time.monotonic()) as was_reached:
        try:
            done = notebook_run.run(job.notebook, draft, job.row.parameters.given)
        except notebook_run.RunFailed as failed:
            return Ended(_error_text(job.row, failed), failed.source, (*_findings(failed.run), *_doctor(job.row)))
        except LabError as error:
            if was_reached.is_set():
                return Ended(f"The run took longer than its time limit of {job.time_limit:g} s. Its kernel was ended.")
            return Ended(str(error))
        if not done.ok:
            return Ended("A check in the notebook found a problem.", findings=_findings(done))
        return None


def _error_text(row: Row, failed: LabError) -> str:
    """Return the error's text, with the command that renews expired credentials."""
    if not row.is_in_an_account or not EXPIRED.search(failed.what):
        return str(failed)
    if row.assume_role:
        renew = "labkit fleet … --resume   (this assumes the role again)"
    else:
        profile = f" --profile {quote(row.profile)}" if row.profile else ""
        renew = f"aws sso login{profile}   (or get new keys where you got the old ones), then:  labkit fleet … --resume"
    what = f"The row's AWS credentials have expired. {failed.what}"
    return str(LabError(what, where=failed.where, next=renew))


def _findings(done: "object") -> tuple[Mapping[str, object], ...]:
    return tuple(finding for check in getattr(done, "checks", []) for finding in check["findings"])


def _doctor(row: Row) -> list[Mapping[str, object]]:
    from labkit.runs import notebook_run

    try:
        return [finding.as_json() for finding in notebook_run.examined(row.parameters).findings]
    except LabError:
        return []


def _for_report(ended: Ended, draft: Path, notebook: Path) -> Ended:
    """Return the failed run without secrets, and with an error that names the notebook, not its draft."""
    error = ended.error.replace(str(draft), f"{notebook.parent.name}/{notebook.name}")
    return replace(ended, error=stable(error), cell=stable(ended.cell))


@contextmanager
def _time_limit(seconds: float) -> Iterator[threading.Event]:
    """Kill this worker's kernel, and set the yielded event, if the block takes longer than `seconds`."""
    was_reached, is_over = threading.Event(), threading.Event()

    def end_kernels() -> None:
        if is_over.wait(max(seconds, 0)):
            return
        was_reached.set()
        # Try repeatedly: the kernel may not have started yet.
        while True:
            _end_kernels()
            if is_over.wait(0.5):
                return

    if seconds == float("inf"):
        yield was_reached
        return
    watching = threading.Thread(target=end_kernels, daemon=True)
    watching.start()
    try:
        yield was_reached
    finally:
        is_over.set()
        watching.join()


def _end_kernels() -> None:
    import psutil

    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if "ipykernel_launcher" in child.cmdline():
                child.kill()


@contextmanager
def _environment(job: Job) -> Iterator[None]:
    """Set environment variables for the duration of the `with` block.

    `LABKIT_HOME` names the job's lab. Other variables make the block use the AWS credentials of the job's row (see
    `credentials`). The credentials aren't written to a file. Raises `LabError`.
    """
    with environment.restored():
        os.environ["LABKIT_HOME"] = job.home or str(_own_lab(job.out))
        with credentials(job.row):
            yield


@contextmanager
def credentials(row: Row) -> Iterator[None]:
    """Use the row's credentials in this block. Raises `LabError` if the caller can't assume the row's role."""
    with environment.restored():
        if row.is_in_an_account:
            for name, value in PATIENT.items():
                os.environ.setdefault(name, value)
        if row.profile:
            for name in BEFORE_PROFILE:
                os.environ.pop(name, None)
            os.environ["AWS_PROFILE"] = row.profile
        if row.assume_role:
            os.environ.update(_assumed(row.assume_role, row.parameters.region))
            os.environ.pop("AWS_PROFILE", None)
        yield


def _assumed(role_arn: str, region: str) -> dict[str, str]:
    """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html"""
    from botocore.exceptions import ClientError

    from labkit.targets.eks.account import explained, open_session

    try:
        with explained():
            sts = open_session(region).client("sts")
            taken = sts.assume_role(RoleArn=role_arn, RoleSessionName=SESSION)["Credentials"]
    except ClientError as error:
        raise LabError(
            f"The role {role_arn} could not be assumed: {error}",
            where="assume_role, in the fleet file",
            next=f"aws sts assume-role --role-arn {quote(role_arn)} --role-session-name {SESSION}",
        ) from None
    return {
        "AWS_ACCESS_KEY_ID": taken["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": taken["SecretAccessKey"],
        "AWS_SESSION_TOKEN": taken["SessionToken"],
    }
