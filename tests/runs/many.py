"""`make fleet`: 200 rows over 20 clusters with ten planted faults, then `--resume` with the cause mended."""

import os
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bench.lab import folder
from tests.runs import notebooks
from tests.runs.reports import report, times

ROWS, CLUSTERS = 200, 20
FAULTS = {
    **{n: {"policy_arn": "arn:aws:iam::aws:policy/NoSuchPolicy", "image": ""} for n in (20, 60, 100, 140)},
    **{n: {"policy_arn": "arn:aws:iam::999999999999:policy/reader", "image": ""} for n in (41, 81, 121)},
    **{n: {"bucket": "kill-the-worker"} for n in (33, 99, 177)},
}


def main() -> int:
    """Run the fleet twice, and print each problem. Return 0 if its report and its files are right."""
    with folder() as home, tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        wrong = planted(place, home)
    print("as it should be" if not wrong else "\n".join(wrong))
    return 1 if wrong else 0


def planted(place: Path, home: Path) -> list[str]:
    """Run the fleet with faults, then the mended one. Return a line for each problem."""
    rows = [row | FAULTS.get(n, {}) for n, row in enumerate(notebooks.rows(ROWS, clusters=CLUSTERS))]
    file = notebooks.fleet(place / "fleet.yaml", rows)
    notebook = notebooks.write(place / "in.ipynb", notebooks.ROLE)
    command = ["fleet", str(file), "--notebook", str(notebook), "--out", str(place / "out")]
    wrong = []
    if (code := labkit(home, *command)) != 1:
        wrong.append(f"the fleet with faults ended with {code}")
    result = report(place / "out")
    failed = {row["number"] - 1 for row in result["rows"] if row["state"] == "failed"}
    if failed != set(FAULTS):
        wrong.append(f"failed were {sorted(failed)}, and not {sorted(FAULTS)}")
    print(Counter(row["error"].partition(":")[0] for row in result["rows"] if row["error"]))
    before = times(place / "out")
    notebooks.fleet(file, notebooks.rows(ROWS, clusters=CLUSTERS))
    if (code := labkit(home, *command, "--resume")) != 0:
        wrong.append(f"the mended fleet ended with {code}")
    # Once mended, a row is like its neighbours, with or without a lab. Each one writes a notebook and a result.
    ran = {name for name, time in times(place / "out").items() if time != before.get(name)}
    if len(ran) != 2 * len(FAULTS):
        wrong.append(f"the mended fleet wrote {sorted(ran)}")
    return wrong


def labkit(home: Path, *arguments: str) -> int:
    """Run the command in this lab, and return its exit code."""
    program = Path(sys.executable).with_name("labkit")
    return subprocess.run([program, *arguments], env=os.environ | {"LABKIT_HOME": str(home)}).returncode


if __name__ == "__main__":
    sys.exit(main())
