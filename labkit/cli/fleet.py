"""`labkit fleet`: for many clusters and roles, run a notebook, run the doctor, or delete the runs' resources."""

import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from labkit.course import NOTEBOOKS
from labkit.errors import LabError
from labkit.showing import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from labkit.runs.fleet import Fleet, Row, Scheduler


def fleet(
    *,
    file: Annotated[Path, typer.Argument(metavar="FLEET_FILE", help="YAML (defaults, runs, matrix) or CSV.")],
    notebook: Annotated[
        Path, typer.Option(metavar="FILE", help="The notebook. Without it: irsa.ipynb, all steps.", show_default=False)
    ] = NOTEBOOKS / "irsa.ipynb",
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="The folder for the results. Without it: runs/fleet/NAME for NAME.yaml."),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="NUMBER",
            help="The number of worker processes. Without it: one for each core.",
            show_default=False,
        ),
    ] = 0,
    scheduler: Annotated[
        str, typer.Option(metavar="ADDRESS", help="The address of a Dask scheduler, to use its workers.")
    ] = "",
    tls_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="The scheduler's certificate authority.")] = None,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Your certificate for the scheduler.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The key of your certificate.")] = None,
    lab_per_worker: Annotated[
        bool, typer.Option("--lab-per-worker", help="With target moto: each worker starts its own lab, and ends it.")
    ] = False,
    time_limit: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="End each run that takes longer than SECONDS.", show_default=False),
    ] = 0.0,
    fail_fast: Annotated[
        bool,
        typer.Option(
            "--fail-fast/--keep-going",
            help="--fail-fast: after a failed row, start no more rows. --keep-going: run all rows.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Skip rows that succeeded earlier and have not changed since.")
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Show what each row would find and create. Changes nothing.")] = (
        False
    ),
    remove: Annotated[
        bool, typer.Option("--remove", help="Delete the resources of each row's run, and the row's result.")
    ] = False,
    doctor: Annotated[
        bool, typer.Option("--doctor", help="Run the doctor for each row. The doctor only reads.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Confirm that rows may change or delete resources in AWS accounts.")
    ] = False,
) -> None:
    """Run a notebook for many clusters and roles, side by side, and write one report.

    Exit code 0: every row succeeded; 1: a row failed; 2: nothing ran.
    """
    from labkit.runs import fleet as fleets
    from labkit.runs.fleet import Fleet, NothingRan, makes
    from labkit.runs.fleet import workers as on

    if sum((plan, remove, doctor)) > 1:
        raise NothingRan("--plan, --remove and --doctor: choose one.", next="labkit fleet FLEET_FILE --plan")
    read = fleets.read(file, makes=not doctor and makes(notebook))
    out = out or Path("runs") / "fleet" / file.stem
    if plan:
        raise typer.Exit(_plan(read))
    if remove:
        raise typer.Exit(_remove(read, out, yes))
    if doctor:
        raise typer.Exit(_doctor(read, file, out))
    on.require_extra()
    existing = on.Scheduler(scheduler, tls_ca, tls_cert, tls_key) if scheduler else None
    on.require_reach(read, existing, lab_per_worker)
    _require_yes(read, yes)
    runs = Fleet(
        [row.confirmed() for row in read],
        notebook.resolve(),
        out.resolve(),
        time_limit=time_limit,
        fail_fast=fail_fast,
        resume=resume,
        home="" if lab_per_worker else _home(),
    )
    raise typer.Exit(_run(runs, file, out, workers or on.default_count(), existing))


def _run(runs: "Fleet", file: Path, out: Path, count: int, existing: "Scheduler | None") -> int:
    from labkit.cli import fleet_output
    from labkit.runs.fleet import INTERRUPTED, Report, run_rows, workers

    started = time.monotonic()
    with runs.results.opened(resume=runs.resume):
        outcomes = runs.earlier()
        if len(outcomes) < len(runs.rows):
            try:
                with (
                    workers.joined(existing)
                    if existing
                    else workers.local(min(count, len(runs.rows)), runs.out / "workers.log") as client,
                    fleet_output.shown(runs) as tell,
                ):
                    outcomes = run_rows(runs, client, tell)
            except KeyboardInterrupt:
                outcomes = runs.interrupted()
        took = time.monotonic() - started
        report = Report(file.name, runs.notebook.name, outcomes, took, runs.stopped_by)
        report.write(out)
    typer.echo(f"\n{report.headline}, in {took:.0f} s\nThe report: {out / 'report.html'}")
    if report.exit_code:
        again = shlex.join(["labkit", *(part for part in sys.argv[1:] if part != "--resume"), "--resume"])
        typer.echo(f"{runs.stopped_by and f'The fleet ended early: {runs.stopped_by}. '}Run the rest:\n  {again}")
    return 130 if runs.stopped_by == INTERRUPTED else report.exit_code


def _plan(rows: "Sequence[Row]") -> int:
    from labkit.runs.fleet import plans

    failed = 0
    for row, plan in plans(rows):
        failed += isinstance(plan, LabError)
        typer.echo(f"{row.place}: {row.run}\n{_indented(str(plan))}")
    typer.echo(f"{counted(len(rows), 'row')}. Nothing was changed.")
    return 1 if failed else 0


def _remove(rows: "Sequence[Row]", out: Path, yes: bool) -> int:
    from labkit.runs.fleet import Results, removals

    shows_only = not yes and any(row.is_in_an_account for row in rows)
    results, failed = Results(out), 0
    had = [row for row in rows if results.of(row)]
    for row, said in removals(rows, shows_only=shows_only, out=out):
        failed += isinstance(said, LabError)
        typer.echo(f"{row.run}\n{_indented(str(said) if isinstance(said, LabError) else chr(10).join(said))}")
    if shows_only:
        typer.echo(
            "Nothing was deleted, because some rows are in AWS accounts. To delete all these resources, add --yes."
        )
    elif not had and not failed:
        typer.echo(
            f"These rows have no results in {out}. If their results are in another folder, --resume with that folder "
            "still skips them. To run them again, add --out FOLDER to --remove."
        )
    elif deleted := [row for row in had if not results.of(row)]:
        again = "runs this row" if len(deleted) == 1 else "runs these rows"
        typer.echo(f"{counted(len(deleted), 'result')} deleted from {out}: --resume {again} again.")
    return 1 if failed else 0


def _doctor(rows: "Sequence[Row]", file: Path, out: Path) -> int:
    from labkit.cli import fleet_output
    from labkit.runs.fleet import DOCTOR, Report, examinations, writing

    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    started, outcomes = time.monotonic(), []
    for outcome in examinations(rows):
        outcomes.append(outcome)
        typer.echo(fleet_output.line(outcome, DOCTOR))
    diagnoses = Report(file.name, "the doctor", outcomes, time.monotonic() - started, words=DOCTOR)
    diagnoses.write(out, "doctor")
    typer.echo(f"\n{diagnoses.headline}\nThe report: {out / 'doctor.html'}")
    return diagnoses.exit_code


def _require_yes(rows: "Sequence[Row]", yes: bool) -> None:
    from labkit.runs.fleet import NothingRan

    accounts = sorted({row.parameters.account_id for row in rows if row.is_in_an_account})
    if accounts and not yes:
        raise NothingRan(
            f"The fleet would change the AWS account{'s' if len(accounts) > 1 else ''} {', '.join(accounts)}.",
            where="the rows with target eks; nothing ran",
            next="add --plan to see what each row would create; then replace --plan with --yes to run the fleet",
        )


def _home() -> str:
    from labkit.simulator import Folder

    return str(Folder.find().path)


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.splitlines())
