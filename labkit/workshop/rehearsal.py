"""Play a class against a running workshop, and measure what each participant would notice.

The participants are new ones, whose names begin with `rehearsal-`. At the end, nothing of them is left.
"""

import asyncio
import math
import statistics
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import websockets

from labkit.errors import LabError
from labkit.showing import counted
from labkit.workshop import homes, keeper, limits, networks, running, seats, words
from labkit.workshop.participant import Kernel, Participant
from labkit.workshop.settings import Workshop
from labkit.workshop.spawner import clear

FIRST = {"00": "00-the-problem.ipynb"}  # each class has it
NOTEBOOKS = {"01": "01-oidc-provider.ipynb", "02": "02-iam-role.ipynb", "05": "05-verify.ipynb"}
# As notebooks 09 and 10 do, in the kernel that runs already: fifty `labkit` processes at once would need 5 GiB more.
BREAK, REPAIR = 'lab.ready(through="pod"); lab.break_(seed=1)', "lab.mend()"
# Who the pod is, and which participants' roles its account has.
WHO = """print(in_pod("aws sts get-caller-identity --query Arn --output text").split("/")[1],
*(role["RoleName"] for role in iam.list_roles()["Roles"] if role["RoleName"].startswith("role-of-")))"""
IN_TIME = 200  # seconds in which a class has its first lab open
# What a participant may meet; anything else is a mistake in the rehearsal itself.
EXPECTED = (LabError, OSError, httpx.HTTPError, websockets.WebSocketException)
WIDTH = 16  # characters of the table's first column


@dataclass
class Rehearsal:
    """What a rehearsal measured: seconds for each part and participant, and what failed."""

    users: int
    seconds: dict[str, list[float]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """MiB (PSS) of each participant when the lab was open, with one kernel."""
    processor: list[float] = field(default_factory=list)
    """Seconds of each participant until the lab was open."""
    hub: float = 0.0
    """MiB (PSS) of the hub and the proxy."""
    most: float = 0.0
    """MiB of all participants when they needed the most."""

    def __str__(self) -> str:
        lines = [f"{'seconds':{WIDTH}}{'median':>8}{'95th':>8}{'worst':>8}"]
        for part, values in self.seconds.items():
            lines.append(f"{part:{WIDTH}}{''.join(f'{value:8.1f}' for value in spread(values))}")
        lines += [f"{len(self.failures)} failed.", *self.failures[:5]]
        if self.memory:
            processor = statistics.mean(self.processor)
            gib = math.ceil((max(self.most, sum(self.memory)) + self.hub + limits.KEPT) / 1024)
            cores = math.ceil(self.users * processor / IN_TIME)
            lines += [
                f"Open lab: {statistics.mean(self.memory):.0f} MiB a participant, {processor:.1f} s of a core. "
                f"At work: up to {self.most / self.users:.0f} MiB. Hub and proxy: {self.hub:.0f} MiB.",
                f"{counted(self.users, 'participant')}: {gib} GiB, and {counted(cores, 'core')} to open all labs in "
                f"{IN_TIME} s.",
            ]
        return "\n".join(lines)

    def note(self, part: str, began: float) -> None:
        """Note that one more participant has done this part, which began at this moment."""
        self.seconds.setdefault(part, []).append(time.monotonic() - began)


def spread(values: list[float]) -> tuple[float, float, float]:
    """Return the median, the 95th percentile and the worst."""
    ordered = sorted(values)
    return statistics.median(ordered), ordered[math.ceil(len(ordered) * 0.95) - 1], ordered[-1]


def rehearse(workshop: Workshop, users: int, tell: Callable[[str], None]) -> Rehearsal:
    """Let this many participants log in at once, run the class's `notebooks`, and break and repair something.

    Raises `LabError` if the workshop isn't open, or has too few places left.
    """
    if not running.status(workshop).answers:
        raise LabError("The workshop isn't open.", next=f"labkit workshop up {workshop.folder}")
    left = workshop.users - len(seats.taken(workshop))
    if users > left:
        raise LabError(
            f"The workshop has {left} places left, not {users}.",
            where=f"users: {workshop.users} in workshop.yaml",
            next="a higher number there, then labkit workshop up; or fewer --users",
        )
    names = [f"rehearsal-{number}" for number in range(1, users + 1)]
    cards = words.cards(workshop, tuple(names))
    result = Rehearsal(users)
    try:
        asyncio.run(_play(workshop, {name: cards[name] for name in names}, result, tell))
        result.hub = sum(_pss(process.pid) for process in running.own_processes(workshop))
    finally:
        _forget(workshop, names)
    return result


def notebooks(workshop: Workshop) -> dict[str, str]:
    """Return what a rehearsal runs, by number: of 01, 02 and 05 those that the class has, else 00."""
    chosen = workshop.notebooks or NOTEBOOKS
    return {each: file for each, file in NOTEBOOKS.items() if each in chosen} or FIRST


async def _play(workshop: Workshop, cards: dict[str, str], result: Rehearsal, tell: Callable[[str], None]) -> None:
    """Play part after part. In each part, all participants work at once."""
    async with AsyncExitStack() as sockets:
        watch = asyncio.create_task(_watch_memory(result))
        players = [_Player(workshop, name, card, result, sockets) for name, card in cards.items()]
        chosen = notebooks(workshop)
        last = [each for each in chosen if each == "05"]
        for part in ("open", *(each for each in chosen if each not in last), "break, repair", *last):
            began = time.monotonic()
            outcomes = await asyncio.gather(*(player.play(part, began) for player in players), return_exceptions=True)
            played = list(zip(players, outcomes, strict=True))
            for player, outcome in played:
                if isinstance(outcome, EXPECTED):
                    result.failures.append(f"{player.name}, {part}: {' '.join(str(outcome).split())}")
                elif outcome is not None:
                    raise outcome
            players = [player for player, outcome in played if outcome is None]
            roles = ", each with their own role and no other" if part == "05" and players else ""
            tell(f"{part}: {len(players)} of {result.users}{roles}")
        watch.cancel()


async def _watch_memory(result: Rehearsal) -> None:
    before = psutil.virtual_memory().available
    while True:
        result.most = max(result.most, (before - psutil.virtual_memory().available) / 2**20)
        await asyncio.sleep(1)


@dataclass
class _Player:
    """A rehearsed participant."""

    workshop: Workshop
    name: str
    word: str
    result: Rehearsal
    sockets: AsyncExitStack
    kernel: Kernel | None = None

    def __post_init__(self) -> None:
        self.person = Participant(self.workshop.url, self.name, self.word)

    async def play(self, part: str, began: float) -> None:
        if part == "open":
            self.kernel = await self._open(began)
            seat = seats.taken(self.workshop)[self.name]
            self.result.processor.append(limits.processor(seat))
            self.result.memory.append(sum(_pss(pid) for pid in networks.processes(seat.label)))
        elif file := notebooks(self.workshop).get(part):
            for cell in await self.person.cells(file):
                await self._run(cell.replace('"my-role"', f'"role-of-{self.name}"'))
        else:
            await self._run(BREAK)
            await self._run(REPAIR)
        self.result.note("opened lab" if part == "open" else part, began)
        if part == "05" and (roles := (await self._run(WHO)).splitlines()[-1].split()) != [f"role-of-{self.name}"] * 2:
            raise LabError(f"The pod's role, and those in its account: {', '.join(roles)}.")

    async def _open(self, began: float) -> Kernel:
        await self.person.log_in()
        self.result.note("log-in", began)
        await self.person.started()
        self.result.note("page", began)
        first = next(iter(notebooks(self.workshop).values()))
        kernel = await self.sockets.enter_async_context(self.person.kernel(first))
        for cell in (await self.person.cells(first))[:2]:
            await kernel.run(cell)
        return kernel

    async def _run(self, cell: str) -> str:
        assert self.kernel
        return await self.kernel.run(cell)


def _forget(workshop: Workshop, names: list[str]) -> None:
    """Delete what the hub and this machine know of the participants."""
    headers = {"Authorization": f"token {(workshop.state / 'hub-token').read_text()}"}
    with httpx.Client(
        base_url=f"{keeper.hub_url(workshop)}/hub/api/", headers=headers, trust_env=False, timeout=60
    ) as hub:
        for name in names:
            with suppress(httpx.HTTPError):  # a hub that was ended meanwhile
                hub.delete(f"users/{name}")
    for seat in [seat for name, seat in seats.taken(workshop).items() if name in names]:
        clear(seat)
        homes.forget(seat)
    seats.leave(workshop, names)
    words.withdraw(workshop, names)


def _pss(pid: int) -> float:
    """The memory of a process in MiB: what it shares with others counts for each by its part."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
    return 0.0
