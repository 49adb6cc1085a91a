"""Each participant's number. It decides the uid and the addresses, and never changes."""

import json
from dataclasses import dataclass
from pathlib import Path

from labkit.errors import LabError
from labkit.workshop.settings import ADDRESSES_EACH, Workshop


@dataclass(frozen=True)
class Seat:
    """What belongs to one participant of a workshop."""

    workshop: Workshop
    name: str
    number: int

    @property
    def uid(self) -> int:
        """The participant's uid and gid. They are in no file of users."""
        return self.workshop.uids + self.number

    @property
    def label(self) -> str:
        """The name of the participant's network namespace and control group."""
        return f"labkit-{self.workshop.key}-{self.number}"

    @property
    def link(self) -> str:
        """The name of the participant's network interface on this machine."""
        return f"lk{self.workshop.key}-{self.number}"

    @property
    def machine_address(self) -> str:
        """This machine's address on that interface."""
        return str(self.workshop.network[ADDRESSES_EACH * self.number + 1])

    @property
    def address(self) -> str:
        """The participant's address, at which the server listens."""
        return str(self.workshop.network[ADDRESSES_EACH * self.number + 2])

    @property
    def home(self) -> Path:
        """The home, on this machine."""
        return self.workshop.state / "homes" / self.name

    @property
    def image(self) -> Path:
        """The file that holds the home."""
        return self.workshop.state / "images" / f"{self.name}.img"


def taken(workshop: Workshop) -> dict[str, Seat]:
    """Return the seats that participants have, by their names."""
    file = _file(workshop)
    numbers: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
    return {name: Seat(workshop, name, number) for name, number in numbers.items()}


def take(workshop: Workshop, name: str) -> Seat:
    """Return the participant's seat, the next free one at the first time. Only the hub's process calls this.

    Raises `LabError` if all seats are taken.
    """
    seats = taken(workshop)
    if name in seats:
        return seats[name]
    if len(seats) >= workshop.users:
        raise LabError(f"The workshop is full: {workshop.users} people have a place. Ask the leader for one.")
    numbers = {each: seat.number for each, seat in seats.items()}
    numbers[name] = next(number for number in range(workshop.users) if number not in numbers.values())
    _write(workshop, numbers)
    return Seat(workshop, name, numbers[name])


def leave(workshop: Workshop, names: list[str]) -> None:
    """Make the seats of these participants free again."""
    _write(workshop, {name: seat.number for name, seat in taken(workshop).items() if name not in names})


def _write(workshop: Workshop, numbers: dict[str, int]) -> None:
    written = _file(workshop).with_suffix(".new")
    written.write_text(json.dumps(numbers))
    written.replace(_file(workshop))


def _file(workshop: Workshop) -> Path:
    return workshop.state / "seats.json"
