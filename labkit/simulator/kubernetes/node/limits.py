"""Keep each container within its memory limit, and within a number of processes.

The kernel does this where the node can make control groups. Elsewhere, the node measures the container's memory four
times a second, and RLIMIT_NPROC limits the processes, if the node isn't root's.

https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/
"""

import asyncio
import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from labkit.simulator.kubernetes.node.processes import SHELL, tool
from labkit.simulator.kubernetes.objects.quantities import quantity

MOST_PROCESSES = 1024  # in one container
SAMPLE = 0.25  # seconds
# 1000: if the machine's memory is used up, the kernel ends pods first. 0: the process that writes.
START = 'echo 1000 >/proc/self/oom_score_adj; exec "$@"'
JOIN = f'echo 0 >"$1" && echo 0 >"$2" && shift 2 && {START}'
CONTROLLERS = ("memory", "pids")

_OOM_KILLS = re.compile(r"^oom_kill (\d+)", re.MULTILINE)
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


class Limits:
    """The limits of one run of a container. `prefix` starts a program within them."""

    def __init__(self, node: "NodeLimits", name: str, memory: str) -> None:
        self._memory = int(quantity(memory))  # in bytes; 0: no limit
        self._groups: dict[str, Path] = {}
        self._measured_too_much = False
        self.prefix = [SHELL, "-c", START, "sh", *node.prefix] if Path("/proc/self/oom_score_adj").exists() else []
        if node.parents:
            self._groups = {each: parent / f"{node.name}-{name}" for each, parent in node.parents.items()}
            for group in self._groups.values():
                group.mkdir(exist_ok=True)
            self._set()
            self.prefix = [SHELL, "-c", JOIN, "sh", *(str(self._groups[each] / "cgroup.procs") for each in CONTROLLERS)]

    @property
    def out_of_memory(self) -> bool:
        """Whether a program of the run was killed because of the memory limit."""
        if not self._groups:
            return self._measured_too_much
        memory = self._groups["memory"]
        counted = next(file for name in ("memory.events", "memory.oom_control") if (file := memory / name).exists())
        return any(int(kills) for kills in _OOM_KILLS.findall(counted.read_text()))

    async def watch(self, processes: Callable[[], list[int]], end: Callable[[], None]) -> None:
        """If the kernel doesn't enforce the memory limit, call `end` once the `processes` use more than the limit."""
        while self._memory and not self._groups:
            await asyncio.sleep(SAMPLE)
            if sum(map(_used_by, processes())) > self._memory:
                self._measured_too_much = True
                end()
                return

    def close(self) -> None:
        for group in self._groups.values():
            with contextlib.suppress(OSError):
                group.rmdir()

    def _set(self) -> None:
        (self._groups["pids"] / "pids.max").write_text(str(MOST_PROCESSES))
        memory = self._groups["memory"]
        if not self._memory:
            return
        if (memory / "memory.max").exists():
            (memory / "memory.max").write_text(str(self._memory))
            # As the kubelet does: all processes of the container end.
            (memory / "memory.oom.group").write_text("1")
            swap, most = memory / "memory.swap.max", 0
        else:
            (memory / "memory.limit_in_bytes").write_text(str(self._memory))
            swap, most = memory / "memory.memsw.limit_in_bytes", self._memory
        if swap.exists():
            swap.write_text(str(most))


@dataclass(frozen=True)
class NodeLimits:
    """How a node keeps its containers within their limits.

    `parents`: for each controller, the folder in which the node makes control groups; empty if it can't make any.
    `prefix`: a command that starts a program within the limits if there are no control groups.
    """

    name: str
    parents: dict[str, Path]
    prefix: tuple[str, ...] = ()

    @classmethod
    def here(cls, folder: Path, *, private: bool) -> "NodeLimits":
        """Try which limits this machine allows to a node with this `folder`; `private` as in `Sandbox`."""
        name = f"labkit-{hashlib.sha256(str(folder).encode()).hexdigest()[:12]}"
        parents = {each: parent for each in CONTROLLERS if private and (parent := _parent_of_groups(each))}
        if len(parents) == len(CONTROLLERS):
            limits = cls(name, parents)
            if limits._works():
                return limits
        # Since Linux 5.14, each user namespace counts its own processes.
        counts = private and os.geteuid() != 0 and _linux() >= (5, 14)
        return cls(name, {}, (tool("prlimit"), f"--nproc={MOST_PROCESSES}", "--") if counts else ())

    @property
    def prefixes(self) -> set[Path]:
        """The beginnings of the paths of the node's control groups."""
        return {parent / f"{self.name}-" for parent in self.parents.values()}

    def of(self, name: str, memory: str = "0") -> Limits:
        """Return the limits of one run of a container, with its memory limit. Raises OSError if they can't be set."""
        return Limits(self, name, memory)

    def __str__(self) -> str:
        if self.parents:
            return "memory and processes, by the kernel's control groups"
        if sys.platform != "linux":
            return "none on this system"
        memory = "memory, measured four times a second"
        return f"{memory}; processes, by RLIMIT_NPROC" if self.prefix else f"{memory}; none for processes"

    def _works(self) -> bool:
        try:
            trial = self.of("trial", "64Mi")
            try:
                return subprocess.run([*trial.prefix, "true"], capture_output=True, check=False).returncode == 0
            finally:
                trial.close()
        except OSError:
            return False


def _parent_of_groups(controller: str) -> Path | None:
    """Return the folder in which to make a control group with this controller.

    https://docs.kernel.org/admin-guide/cgroup-v2.html#delegation
    """
    for mount in psutil.disk_partitions(all=True):
        if mount.fstype == "cgroup" and controller in mount.opts.split(","):
            return Path(mount.mountpoint)
        if mount.fstype == "cgroup2":
            own = re.search(r"^0::/(.*)", Path("/proc/self/cgroup").read_text(), re.MULTILINE)
            for folder in (group := Path(mount.mountpoint, own[1] if own else ""), *group.parents):
                enabled = folder / "cgroup.subtree_control"
                if enabled.exists() and controller in enabled.read_text().split() and os.access(folder, os.W_OK):
                    return folder
    return None


def _used_by(process: int) -> int:
    """Return the bytes of memory that a process uses. Memory that processes share counts once, in parts."""
    try:
        pss = _PSS.search(Path(f"/proc/{process}/smaps_rollup").read_text())
    except OSError:  # the process has ended
        return 0
    return int(pss[1]) * 1024 if pss else 0


def _linux() -> tuple[int, int]:
    release = re.match(r"(\d+)\.(\d+)", platform.release()) if sys.platform == "linux" else None
    return (int(release[1]), int(release[2])) if release else (0, 0)
