"""Print a diagnosis. Only a terminal gets colours. Command lines aren't wrapped, so that you can copy them."""

import json
import sys
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from labkit.cli.terminal import unprotected
from labkit.doctor import MARKS, Diagnosis, Finding, Survey, unread_lines

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "right": "green", "not looked at": "dim"}
RESULTS = {**MARKS, "right": "✓", "not looked at": "·"}


def show(diagnosis: Diagnosis, commands_after: str, *, as_json: bool = False) -> int:
    """Print the findings with their repairs, each check's result, and a summary of the doctor's calls.

    `commands_after` is the shell command to run before the repairs; empty if none is needed. Return the exit code.
    """
    if as_json:
        print(json.dumps(diagnosis.as_json(), indent=2))
        return diagnosis.exit_code
    console = _console()
    _show_findings(console, diagnosis)
    _show_preparation(console, diagnosis.findings, commands_after)
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
    return diagnosis.exit_code


def show_all(survey: Survey, namespace: str, commands_after: str, *, as_json: bool) -> int:
    """Print a line for each service account, then all findings, then the calls that failed. Return the exit code.

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
        _show_surveyed(diagnoses, where, commands_after)
    return max((diagnosis.exit_code for diagnosis in diagnoses), default=0)


def _with_progress(survey: Survey) -> Iterator[Diagnosis]:
    columns = (TextColumn("service accounts"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    is_shown = sys.stderr.isatty()
    console = Console(file=unprotected(sys.stderr))
    with Progress(*columns, console=console, transient=True, disable=not is_shown) as progress:
        yield from progress.track(survey, total=len(survey))


def _show_surveyed(diagnoses: Sequence[Diagnosis], where: str, commands_after: str) -> None:
    console = _console()
    if not diagnoses:
        _print(console, f"Found no service account in {where} that should have a role.")
        return
    width = max(len(diagnosis.name) for diagnosis in diagnoses)
    for diagnosis in diagnoses:
        ids = ", ".join(finding.id for finding in diagnosis.findings)
        ids = ids or ("nothing found" if diagnosis.exit_code == 0 else "could not be read in full")
        role, result = diagnosis.role_arn.rpartition("role/")[2] or "-", _result(diagnosis)
        _print(console, f"{RESULTS[result]} {diagnosis.name:{width}}  {role}  {ids}", COLOURS[result])
    _print(console, "")
    wrong = [diagnosis for diagnosis in diagnoses if diagnosis.findings]
    for diagnosis in wrong:
        _show_findings(console, diagnosis)
    _show_preparation(console, wrong, commands_after)
    _print(
        console,
        f"{len(diagnoses)} service account{'s' if len(diagnoses) > 1 else ''} in {where}, {len(wrong)} with findings",
    )
    for line in unread_lines([error for diagnosis in diagnoses for error in diagnosis.unread]):
        _print(console, line, "dim")


def _console() -> Console:
    # People copy the command lines, so only the terminal itself may break them.
    return Console(soft_wrap=True, highlight=False, emoji=False)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False)


def _show_findings(console: Console, diagnosis: Diagnosis) -> None:
    others = [*diagnosis.findings]
    if diagnosis.begins_with_a_finding:
        _show_finding(console, others.pop(0), diagnosis.name)
    else:
        _print(console, f"{diagnosis.headline}\n", f"bold {'yellow' if diagnosis.unanswered else COLOURS['right']}")
    if others:
        _print(console, f"{diagnosis.more}\n")
    for finding in others:
        _show_finding(console, finding, diagnosis.name)


def _show_finding(console: Console, finding: Finding, name: str) -> None:
    colour = COLOURS[finding.severity]
    _print(console, finding.headline(name), f"bold {colour}")
    _print(console, f"    expected  {finding.expected}", "green")
    _print(console, f"    found     {finding.found}", colour)
    _print(console, f"    seen in   {finding.source}")
    _print(console, "  repair:")
    for line in finding.repair.splitlines():
        _print(console, f"    {line}", "bold")
    _print(console, f"  {finding.severity}: {finding.id}, taught by notebooks/{finding.learn}\n", "dim")


def _show_preparation(console: Console, wrong: Sequence[object], commands_after: str) -> None:
    if wrong and commands_after:
        _print(console, f"Before you run a repair in a shell, run:  {commands_after}\n")


def _result(diagnosis: Diagnosis) -> str:
    severities = {finding.severity for finding in diagnosis.findings}
    for severity in ("error", "warning", "note"):
        if severity in severities:
            return severity
    return "not looked at" if diagnosis.exit_code else "right"
