"""The fleet of `scheduler.sh`: write it with or without faults, and check its report."""

import json
import sys
from pathlib import Path

from tests.runs import notebooks
from tests.runs.reports import report, times

POLICY, WORKER = 2, 5
BEFORE = "before.json"


def main(arguments: list[str]) -> int:
    """Write the fleet file and its notebook, or check the files that a fleet wrote. Return the exit code."""
    if arguments[0] == "--check":
        return check(Path(arguments[1]))
    if arguments[0] == "--check-gone":
        return check_gone(Path(arguments[1]))
    if arguments[0] == "--check-mended":
        return check_mended(Path(arguments[1]), int(arguments[2]))
    rows = notebooks.rows(8)
    if "--faults" in arguments:
        rows[POLICY]["policy_arn"] = "arn:aws:iam::aws:policy/NoSuchPolicy"
        rows[WORKER]["bucket"] = "kill-the-worker"
    if "--endless" in arguments:
        for row in rows[2:]:
            row["bucket"] = "sleep"
    notebooks.fleet(Path(arguments[0]), rows)
    notebooks.write(Path(arguments[1]), notebooks.ROLE)
    return 0


def check(out: Path) -> int:
    """Return 0 if exactly the planted faults failed. Store the files' times for the next check."""
    failed = {row["number"] - 1: row["error"] for row in report(out)["rows"] if row["state"] == "failed"}
    Path(BEFORE).write_text(json.dumps(times(out)))
    if set(failed) == {POLICY, WORKER} and failed[WORKER].startswith("worker lost"):
        return 0
    print(f"failed: {failed}")
    return 1


def check_gone(out: Path) -> int:
    """Return 0 if two rows had ended and two were running when the scheduler died. Store the files' times."""
    result = report(out)
    running = [row for row in result["rows"] if row["error"].startswith("the scheduler went away while this row ran")]
    Path(BEFORE).write_text(json.dumps(times(out)))
    if len(running) == 2 and result["counts"] == {"succeeded": 2, "failed": 2, "not run": 4}:
        return 0
    print(f"counts: {result['counts']}, and {len(running)} rows ran")
    return 1


def check_mended(out: Path, rows: int) -> int:
    """Return 0 if exactly this many rows wrote a notebook and a result, and all rows have succeeded."""
    before = json.loads(Path(BEFORE).read_text())
    ran = {name for name, time in times(out).items() if time != before.get(name)}
    if len(ran) == 2 * rows and report(out)["counts"]["succeeded"] == 8:
        return 0
    print(f"written: {sorted(ran)}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
