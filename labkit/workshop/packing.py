"""Pack what a participant takes home: `python -m labkit.workshop.packing`, inside the participant's sandbox.

Standard output gets the zip file. The last line of standard error is the participant's row for the leader's table.
"""

import json
import os
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from labkit.course import progress
from labkit.errors import LabError
from labkit.simulator import Folder, snapshots

SNAPSHOT = "lab.labsnapshot"
OF_THE_COURSE = ("manual", "pictures")  # labkit lab writes these folders again
README = f"""\
Your notebooks are in learn/, and the state of your lab is in {SNAPSHOT}.

Install labkit {version("labkit")}: your workshop's leader knows where to get it. Then, in this folder:

  labkit restore ./{SNAPSHOT}
  labkit lab

The first command starts a lab on your machine with everything that yours had. The second one opens your notebooks.
"""


@dataclass
class ClassRow:
    """What the leader's table says of a participant: counts alone."""

    steps: int = 0
    """Steps whose check was right."""
    opened: int = 0
    """Exercises that were opened."""
    solved: int = 0
    hints: int = 0
    questions: int = 0
    """Answered questions."""
    right: int = 0
    """Questions whose first answer was right."""
    points: int = 0
    """Of the last examination."""
    most: int = 0
    lab: bool = False
    """Whether the zip file has the lab."""


def main() -> None:
    home = Path.home()
    with zipfile.ZipFile(sys.stdout.buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in _of_the_participant(home / "learn"):
            archive.write(file, file.relative_to(home).as_posix())
        row = _row(progress.read(home / "learn" / progress.NAME))
        try:
            with tempfile.TemporaryDirectory() as place:
                archive.write(snapshots.take(Folder.find(), f"{place}/{SNAPSHOT}"), SNAPSHOT)
            archive.writestr("README.txt", README)
            row.lab = True
        except LabError as error:
            print(error, file=sys.stderr)
    print(json.dumps(asdict(row)), file=sys.stderr)


def _of_the_participant(learn: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(learn):
        folders[:] = [name for name in folders if not name.startswith(".") and name not in OF_THE_COURSE]
        files = (Path(folder) / name for name in names if not name.startswith("."))
        yield from sorted(file for file in files if file.is_file() and not file.is_symlink())


def _row(made: progress.Progress) -> ClassRow:
    examined = made.examination or {"points": 0, "most": 0}
    return ClassRow(
        steps=len(made.steps),
        opened=len(made.opened),
        solved=len(made.solved),
        hints=made.hints.total(),
        questions=len(made.answered),
        right=sum(made.answered.values()),
        points=examined["points"],
        most=examined["most"],
    )


if __name__ == "__main__":
    main()
