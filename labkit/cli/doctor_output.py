"""Print a diagnosis. Only a terminal gets colours. Command lines aren't wrapped, so that you can copy them."""

from collections.abc import Sequence

from rich.console import Console

from labkit.doctor.finding import MARKS, Finding
from labkit.doctor.report import Diagnosis, unread_lines

COLOURS = {"error": "red", "warning": "yellow", "note": "cyan", "right": "green", "not looked at": "dim"}
RESULTS = {**MARKS, "right": "✓", "not looked at": "·"}


def show(found: Diagnosis, commands_after: str) -> None:
    """Print the findings with their repairs, each check's result, and a summary of the doctor's calls.

    `commands_after` is the shell command to run before the repairs; empty if none is needed.
    """
    console = _console()
    _show_findings(console, found)
    _show_preparation(console, found.findings, commands_after)
    _print(console, f"role: {found.role_arn or 'nothing says which'}")
    _print(console, f"pods: {', '.join(found.pods) or 'none'}\n")
    stages = found.stages()
    width = max(len(stage.title) for stage, _, _ in stages)
    for number, (stage, result, findings) in enumerate(stages, 1):
        lacking = found.lacking(stage)
        said = ", ".join(finding.id for finding in findings) or ("" if result == "right" else result)
        said += f"; {lacking}" if lacking and not findings else ""
        _print(console, f"  {RESULTS[result]} {number}  {stage.title:{width}}  {said}".rstrip(), COLOURS[result])
    _print(console, "")
    for line in found.account():
        _print(console, line, "dim")


def show_all(found: Sequence[Diagnosis], where: str, commands_after: str) -> None:
    """Print a line for each service account, then all findings, then the calls that failed.

    `where` names the examined cluster or namespace. `commands_after` is a shell command. The user runs it before the
    repairs, so that they reach the examined AWS account and cluster. It is empty if no command is needed.
    """
    console = _console()
    if not found:
        _print(console, f"Found no service account in {where} that should have a role.")
        return
    width = max(len(diagnosis.name) for diagnosis in found)
    for diagnosis in found:
        said = ", ".join(finding.id for finding in diagnosis.findings)
        said = said or ("nothing found" if diagnosis.exit_code == 0 else "could not be read in full")
        role, result = diagnosis.role_arn.rpartition("role/")[2] or "-", _result(diagnosis)
        _print(console, f"{RESULTS[result]} {diagnosis.name:{width}}  {role}  {said}", COLOURS[result])
    _print(console, "")
    wrong = [diagnosis for diagnosis in found if diagnosis.findings]
    for diagnosis in wrong:
        _show_findings(console, diagnosis)
    _show_preparation(console, wrong, commands_after)
    _print(
        console, f"{len(found)} service account{'s' if len(found) > 1 else ''} in {where}, {len(wrong)} with findings"
    )
    for line in unread_lines([error for diagnosis in found for error in diagnosis.unread]):
        _print(console, line, "dim")


def _console() -> Console:
    # People copy the command lines, so only the terminal itself may break them.
    return Console(soft_wrap=True, highlight=False, emoji=False)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(line, style=style, markup=False)


def _show_findings(console: Console, found: Diagnosis) -> None:
    others = [*found.findings]
    if found.begins_with_a_finding:
        _show_finding(console, others.pop(0), found.name)
    else:
        _print(console, f"{found.headline}\n", f"bold {'yellow' if found.unanswered else COLOURS['right']}")
    if others:
        _print(console, f"{found.more}\n")
    for finding in others:
        _show_finding(console, finding, found.name)


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


def _result(found: Diagnosis) -> str:
    severities = {finding.severity for finding in found.findings}
    for severity in ("error", "warning", "note"):
        if severity in severities:
            return severity
    return "not looked at" if found.exit_code else "right"
