"""The files that a fleet wrote into its folder."""

import json
from pathlib import Path
from typing import Any


def report(out: Path) -> dict[str, Any]:
    """The content of `report.json`."""
    return json.loads((out / "report.json").read_text())


def times(out: Path) -> dict[str, int]:
    """When each file of a row was written, in nanoseconds."""
    return {file.name: file.stat().st_mtime_ns for file in (out / "rows").iterdir()}
