"""Write what the class takes home: a table for the leader, and a zip file for each participant.

A program in each participant's sandbox packs it (`packing`), because what a home contains is the participant's.
"""

import csv
import os
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from labkit.errors import LabError
from labkit.workshop import homes, networks, sandbox, seats
from labkit.workshop.packing import ClassRow
from labkit.workshop.settings import Workshop

TABLE = "class.csv"
AT_A_TIME = 4
WITHIN = 180  # seconds
MIB = 2**20
ROW = TypeAdapter(ClassRow)


def export(workshop: Workshop, into: Path) -> dict[str, str]:
    """Write the new folder `into`: `class.csv`, and `NAME.zip` of each participant. The class may be at work.

    Return why a participant's zip file or lab is missing, by the name. Raises `LabError` if the folder exists, or if
    nobody has logged in yet.
    """
    if os.geteuid() != 0:
        raise LabError("Only root can read everybody's files.", next=f"sudo labkit workshop export {workshop.folder}")
    people = {name: seat for name, seat in sorted(seats.taken(workshop).items()) if seat.home.exists()}
    if not people:
        raise LabError("Nobody has logged in yet.", where=str(workshop.state), next="labkit workshop cards FOLDER")
    try:
        into.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise LabError(
            f"{into} can't be made: {error.strerror}.", next=f"labkit workshop export {workshop.folder} NEWFOLDER"
        ) from None
    with ThreadPoolExecutor(AT_A_TIME) as side_by_side:
        packed = dict(zip(people, side_by_side.map(lambda seat: _packed(seat, into), people.values()), strict=True))
    with (into / TABLE).open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["name", *(field.name for field in fields(ClassRow))])
        table.writerows([name, *map(int, asdict(row).values())] for name, (row, _) in packed.items())
    return {name: why for name, (_, why) in packed.items() if why}


def _packed(seat: seats.Seat, into: Path) -> tuple[ClassRow, str]:
    """Write the participant's zip file. Return the row, and what is missing."""
    file = into / f"{seat.name}.zip"
    file.touch(0o600)
    with file.open("wb") as packed, tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [*_limited(seat), *_command(seat)],
            stdin=subprocess.DEVNULL,
            stdout=packed,
            stderr=said,
            env=_environment(seat),
            start_new_session=True,
            cwd="/",
        )
        try:
            failed = process.wait(WITHIN) != 0
        except subprocess.TimeoutExpired:
            failed = True
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(max(0, said.tell() - 4096))
        *errors, last = said.read().decode(errors="replace").splitlines() or [""]
    try:
        row = ROW.validate_json(last, strict=True)
    except ValidationError:
        failed = True
    if failed:
        file.unlink()
        return ClassRow(), _shown([last]) or f"it took longer than {WITHIN} s"
    return row, "" if row.lab else _shown(errors[:1]) or "the lab couldn't be saved"


def _command(seat: seats.Seat) -> list[str]:
    sandbox.write_accounts(seat)
    is_at_work = bool(seat.label in networks.namespaces(seat.workshop) and networks.processes(seat.label))
    arguments = [sys.executable, "-P", "-m", "labkit.workshop.packing"]
    return sandbox.command(seat, arguments, homes.prepare(seat), alone=not is_at_work)


def _environment(seat: seats.Seat) -> dict[str, str]:
    home = sandbox.home(seat)
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    return {"HOME": home, "LABKIT_HOME": f"{home}/.lab", "LANG": "C.UTF-8", "PATH": path, "USER": seat.name}


def _limited(seat: seats.Seat) -> list[str]:
    own = seat.workshop.limits
    return ["prlimit", f"--fsize={(own.home + 64) * MIB}", f"--data={own.memory * MIB}", f"--nproc={own.processes}"]


def _shown(lines: list[str]) -> str:
    """The sentence without anything that could change the leader's terminal."""
    return "".join(character for character in " ".join(lines)[:200] if character.isprintable())
