"""The fleet of `scheduler.sh`, with faults or mended, and whether its report is right."""

import json
import sys
from pathlib import Path

from tests.fleet import notebooks
from tests.fleet.told import report, times

POLICY, WORKER = 2, 5
BEFORE = "before.json"


def main(arguments: list[str]) -> int:
    """Write the fleet file and its notebook, or look at what a fleet left."""
    if arguments[0] == "--check":
        return check(Path(arguments[1]))
    if arguments[0] == "--check-mended":
        return check_mended(Path(arguments[1]))
    rows = notebooks.rows(8)
    if "--faults" in arguments:
        rows[POLICY]["policy_arn"] = "arn:aws:iam::aws:policy/NoSuchPolicy"
        rows[WORKER]["bucket"] = "kill-the-worker"
    notebooks.fleet(Path(arguments[0]), rows)
    notebooks.write(Path(arguments[1]), notebooks.ROLE)
    return 0


def check(out: Path) -> int:
    """Whether exactly the faults failed; keeps the files' times."""
    failed = {row["number"] - 1: row["error"] for row in report(out)["rows"] if row["state"] == "failed"}
    Path(BEFORE).write_text(json.dumps(times(out)))
    if set(failed) == {POLICY, WORKER} and failed[WORKER].startswith("worker lost"):
        return 0
    print(f"failed: {failed}")
    return 1


def check_mended(out: Path) -> int:
    """Whether exactly the mended rows were run."""
    before = json.loads(Path(BEFORE).read_text())
    ran = {name for name, time in times(out).items() if time != before.get(name)}
    if len(ran) == 4 and report(out)["counts"]["succeeded"] == 8:
        return 0
    print(f"written: {sorted(ran)}")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
