"""Limits of memory, processes and CPU by control groups, version 2 or 1; without them, by rlimits.

https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/
"""

import resource
import time
from contextlib import suppress
from pathlib import Path

import psutil

from labkit.workshop.seats import Seat
from labkit.workshop.settings import Workshop

ROOT = Path("/sys/fs/cgroup")
MIB = 2**20
PERIOD = 100_000  # microseconds
KEPT = 1024  # MiB that no participant can have: for the hub, the proxy and the machine itself
CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")


def version() -> int:
    """Return 2 or 1 for the version of control groups that can limit memory and processes here; 0 if none can."""
    with suppress(OSError):
        if {"memory", "pids"} <= set((ROOT / "cgroup.controllers").read_text().split()):
            return 2
    return 1 if all((ROOT / controller / "cgroup.procs").exists() for controller in ("memory", "pids")) else 0


def groups(seat: Seat) -> list[Path]:
    """Make the participant's control groups, and return their folders; none if only rlimits are left."""
    limits = seat.workshop.limits
    memory, quota = str(limits.memory * MIB), str(limits.cpu * PERIOD // 100)
    match version():
        case 2:
            _allow_controllers(parent := ROOT / _parent(seat.workshop))
            _made([parent], {"memory.max": _together()})
            values = {"memory.max": memory, "memory.swap.max": "0", "pids.max": str(limits.processes)}
            made = _made([parent / seat.label], values | {"cpu.max": f"{quota} {PERIOD}"})
            return [folder for folder in made if (folder / "memory.max").exists()]  # the controllers could be allowed
        case 1:
            _made([ROOT / "memory" / _parent(seat.workshop)], {"memory.limit_in_bytes": _together()})
            values = {
                "memory.limit_in_bytes": memory,
                "pids.max": str(limits.processes),
                "cpu.cfs_period_us": str(PERIOD),
                "cpu.cfs_quota_us": quota,
            }
            return _made(
                [ROOT / controller / _parent(seat.workshop) / seat.label for controller in CONTROLLERS], values
            )
        case _:
            return []


def enter(folders: list[Path], seat: Seat) -> None:
    """Put this process under the participant's limits. A new process calls this before exec."""
    for folder in folders:
        (folder / "cgroup.procs").write_text("0")
    if not folders:
        limits = seat.workshop.limits
        resource.setrlimit(resource.RLIMIT_NPROC, (limits.processes, limits.processes))
        # Of one process only. Python and Node.js reserve far more addresses than they use, so it's no RLIMIT_AS.
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory * MIB, limits.memory * MIB))


def processes(workshop: Workshop) -> list[int]:
    """Return the processes in all control groups of the workshop."""
    pids: set[int] = set()
    for parent in _parents(workshop):
        for file in parent.glob("*/cgroup.procs"):
            with suppress(OSError):
                pids.update(int(pid) for pid in file.read_text().split())
    return sorted(pids)


def processor(seat: Seat) -> float:
    """Return the processor time that the participant has used, in seconds; 0 without control groups."""
    with suppress(OSError):
        used = (ROOT / _parent(seat.workshop) / seat.label / "cpu.stat").read_text()
        return int(used.split()[1]) / 1e6  # the first line is usage_usec
    with suppress(OSError):
        return int((ROOT / "cpuacct" / _parent(seat.workshop) / seat.label / "cpuacct.usage").read_text()) / 1e9
    return 0.0


def count(workshop: Workshop) -> int:
    """Return how many control groups participants have."""
    return len({folder.name for parent in _parents(workshop) for folder in parent.glob("*/")})


def remove(workshop: Workshop, label: str = "*") -> None:
    """Remove the control groups with this label, and after the last one the workshop's own."""
    for parent in _parents(workshop):
        for folder in parent.glob(f"{label}/"):
            for _ in range(50):  # the kernel counts an ended process a moment longer
                with suppress(OSError):
                    folder.rmdir()
                if not folder.exists():
                    break
                time.sleep(0.1)
        with suppress(OSError):  # others are still in it
            parent.rmdir()


def _together() -> str:
    """What all participants may use together, so that the hub goes on if they use up the memory."""
    total = psutil.virtual_memory().total
    return str(max(total - KEPT * MIB, total // 2))


def _parent(workshop: Workshop) -> str:
    return f"labkit-{workshop.key}"


def _parents(workshop: Workshop) -> list[Path]:
    """The folders that hold the participants' groups: one in version 2, one for each controller in version 1."""
    folders = [ROOT, *(ROOT / controller for controller in CONTROLLERS)]
    return [parent for folder in folders if (parent := folder / _parent(workshop)).exists()]


def _allow_controllers(parent: Path) -> None:
    parent.mkdir(exist_ok=True)
    for folder in (ROOT, parent):
        for controller in CONTROLLERS:
            # Inside a container, the root holds processes, and the kernel refuses this.
            with suppress(OSError):
                (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _made(folders: list[Path], values: dict[str, str]) -> list[Path]:
    made = []
    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, value in values.items():
                if (folder / name).exists():
                    (folder / name).write_text(value)
        except OSError:
            continue
        made.append(folder)
    return made
