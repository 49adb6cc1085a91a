"""Print a diagnosis: the findings on one screen; with `--verbose`, also the checks, and the calls that failed.

Only a terminal gets colours. Command lines aren't wrapped, so that you can copy them.
"""

import json
import math
import sys
from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from labkit.cli.commands import command, typed
from labkit.cli.terminal import unprotected
from labkit.doctor import MARKS, Diagnosis, Finding, Survey, unread_lines
from labkit.showing import few

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "right": "green", "not looked at": "dim"}
RESULTS = {**MARKS, "right": "✓", "not looked at": "·"}
COLUMNS, SCREEN = 100, 21  # a finding fits on a screen of 24 lines, with the lines below it
PROBE = "--probe also looks inside the pod. "
MORE = "--verbose shows each check, and what was not read."
OTHERS = {"right": "nothing found", "not looked at": "could not be read in full"}


def show(diagnosis: Diagnosis, commands_after: str, *, as_json: bool = False, verbose: bool = False) -> int:
    """Print the findings with their repairs. Return the exit code.

    `commands_after` is the shell command to run before the repairs; empty if none is needed. `verbose`: also print
    each repair's diff, each check's result, and a summary of the doctor's calls.
    """
    if as_json:
        print(json.dumps(diagnosis.as_json(), indent=2))
        return diagnosis.exit_code
    console = _console()
    _show_findings(console, diagnosis, verbose=verbose)
    _show_preparation(console, diagnosis.findings, commands_after)
    if verbose:
        _print(console, "")
        _show_checks(console, diagnosis)
        return diagnosis.exit_code
    if diagnosis.unanswered:
        for line in unread_lines(diagnosis.unread):
            _print(console, line, "dim")
    probe = "" if diagnosis.findings or all(each.needs != "--probe" for each in diagnosis.unread) else PROBE
    _print(console, f"{probe}{MORE}", "dim")
    return diagnosis.exit_code


def show_all(
    survey: Survey, namespace: str, commands_after: str, *, as_json: bool = False, verbose: bool = False
) -> int:
    """Print a line for each service account, errors first, then the calls that failed. Return the exit code.

    Service accounts without errors share a line. With `verbose`, print a line for each, and then all findings.

    As JSON, print one object a line, as soon as a service account is diagnosed.

    `namespace` is the only one that was surveyed; empty for the whole cluster. `commands_after` is a shell command. The
    user runs it before the repairs, so that they reach the examined AWS account and cluster. It is empty if no command
    is needed.
    """
    diagnoses = []
    for diagnosis in _with_progress(survey):
        diagnoses.append(diagnosis)
        if as_json:
            print(json.dumps(diagnosis.as_json()), flush=True)
    if not as_json:
        where = f"namespace {namespace}" if namespace else "the cluster"
        _show_surveyed(diagnoses, where, commands_after, verbose=verbose)
    return max((diagnosis.exit_code for diagnosis in diagnoses), default=0)


def _with_progress(survey: Survey) -> Iterator[Diagnosis]:
    columns = (TextColumn("service accounts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = sys.stderr.isatty()
    console = Console(file=unprotected(sys.stderr))
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as progress:
        yield from progress.track(survey, total=len(survey))


def _show_surveyed(diagnoses: Sequence[Diagnosis], where: str, commands_after: str, *, verbose: bool) -> None:
    console = _console()
    if not diagnoses:
        _print(console, f"Found no service account in {where} that should have a role.")
        return
    wrong = [diagnosis for diagnosis in diagnoses if diagnosis.findings]
    if verbose:
        _show_each(console, diagnoses)
        for diagnosis in wrong:
            _show_findings(console, diagnosis, verbose=True)
        _show_preparation(console, wrong, commands_after)
    else:
        _show_errors_and_counts(console, diagnoses)
    _print(
        console,
        f"{len(diagnoses)} service account{'s' if len(diagnoses) > 1 else ''} in {where}, {len(wrong)} with findings",
    )
    for line in unread_lines([error for diagnosis in diagnoses for error in diagnosis.unread]):
        _print(console, line, "dim")


def _show_each(console: Console, diagnoses: Sequence[Diagnosis]) -> None:
    width = max(len(diagnosis.name) for diagnosis in diagnoses)
    for diagnosis in diagnoses:
        ids = ", ".join(finding.id for finding in diagnosis.findings)
        ids = ids or ("nothing found" if diagnosis.exit_code == 0 else "could not be read in full")
        role, result = diagnosis.role_arn.rpartition("role/")[2] or "-", _result(diagnosis)
        _print(console, f"{RESULTS[result]} {diagnosis.name:{width}}  {role}  {ids}", COLOURS[result])
    _print(console, "")


def _show_errors_and_counts(console: Console, diagnoses: Sequence[Diagnosis]) -> None:
    """Print a line for each service account with an error, and a line for all others with the same result."""
    others: dict[str, list[str]] = {}
    errors = []
    for diagnosis in diagnoses:
        if (result := _result(diagnosis)) == "error":
            errors.append(diagnosis)
            more = f" ({diagnosis.more.removesuffix(':')})" if diagnosis.more else ""
            _print(console, f"{diagnosis.findings[0].headline(diagnosis.name)}{more}", COLOURS[result])
        else:
            others.setdefault(result, []).append(diagnosis.name)
    for result in (each for each in RESULTS if each in others):
        names = others[result]
        said = OTHERS.get(result, f"only {result}s")
        _print(console, f"{RESULTS[result]} {said}: {few(names)}", COLOURS[result])
    if errors:
        namespace, account = errors[0].name.split("/")
        _print(console, f"\nThe repair of one of them:  {command()} doctor -n {namespace} -s {account}")
    _print(console, "")


def _console() -> Console:
    # People copy the command lines, so only the terminal itself may break them.
    return Console(soft_wrap=True, highlight=False, emoji=False)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False)


def _show_checks(console: Console, diagnosis: Diagnosis) -> None:
    _print(console, f"role: {diagnosis.role_arn or 'nothing says which'}")
    _print(console, f"pods: {', '.join(diagnosis.pods) or 'none'}\n")
    stages = diagnosis.stages()
    width = max(len(stage.title) for stage, _, _ in stages)
    for number, (stage, result, findings) in enumerate(stages, 1):
        lacking = diagnosis.lacking(stage)
        shown = ", ".join(finding.id for finding in findings) or ("" if result == "right" else result)
        shown += f"; {lacking}" if lacking and not findings else ""
        _print(console, f"  {RESULTS[result]} {number}  {stage.title:{width}}  {shown}".rstrip(), COLOURS[result])
    _print(console, "")
    for line in diagnosis.account():
        _print(console, line, "dim")


def _show_findings(console: Console, diagnosis: Diagnosis, *, verbose: bool) -> None:
    others = [*diagnosis.findings]
    if diagnosis.begins_with_a_finding:
        _show_finding(console, others.pop(0), diagnosis.name, verbose=verbose)
    else:
        _print(console, f"{diagnosis.headline}\n", f"bold {'yellow' if diagnosis.unanswered else COLOURS['right']}")
    if others:
        _print(console, f"{diagnosis.more}\n")
    for finding in others:
        _show_finding(console, finding, diagnosis.name, verbose=verbose)


def _show_finding(console: Console, finding: Finding, name: str, *, verbose: bool) -> None:
    colour = COLOURS[finding.severity]
    about = [
        (finding.headline(name), f"bold {colour}"),
        (f"    expected  {finding.expected}", "green"),
        (f"    found     {finding.found}", colour),
        (f"    seen in   {finding.source}", ""),
        ("  repair:", ""),
    ]
    last = f"  {finding.severity}: {finding.id}, taught by notebooks/{finding.learn}\n"
    room = math.inf if verbose else SCREEN - _height([*(line for line, _ in about), last])
    for line, style in [*about, *((line, "bold") for line in _repair(finding, room)), (last, "dim")]:
        _print(console, line, style)


def _repair(finding: Finding, room: float) -> list[str]:
    """Return the repair's lines, as many as the terminal has room for.

    If there are too many, leave out the diffs. If there are still too many, shorten the commands. Shortened commands
    are comments, so that nobody runs half of a command.
    """
    whole, short = ([f"    {line}" for line in each.splitlines()] for each in (finding.repair, finding.short_repair))
    if fitting := next((lines for lines in (whole, short) if _height(lines) <= room), None):
        return fitting
    heads = [line if line.startswith("    #") else f"    #   {line[4:]}" for line in short]
    cut = [f"{line[: COLUMNS - 1]}…" if len(line) > COLUMNS else line for line in heads]
    return [*cut, "    # The commands in full: --verbose. To run them one by one, after a question: --repair"]


def _height(lines: Iterable[str]) -> int:
    """Return how many lines of a terminal these lines fill."""
    return sum(-(-len(line) // COLUMNS) or 1 for line in lines)


def _show_preparation(console: Console, wrong: Sequence[object], commands_after: str) -> None:
    if wrong and commands_after:
        _print(console, f"Before you run a repair in a shell, run:  {typed(commands_after)}")


def _result(diagnosis: Diagnosis) -> str:
    severities = {finding.severity for finding in diagnosis.findings}
    for severity in ("error", "warning", "note"):
        if severity in severities:
            return severity
    return "not looked at" if diagnosis.exit_code else "right"
