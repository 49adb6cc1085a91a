"""The processes that a node starts, and how they end with it, even when it is killed."""

import asyncio
import contextlib
import os
import shutil
import signal
from pathlib import Path

from labkit.emulator.kubernetes.mounts import SHARED_MEMORY, Mounts

HERE = Path(__file__).parent
TOOLS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = {"PATH": TOOLS_PATH, "LANG": "C.UTF-8"}
SHELL = "/bin/sh"
ON_TERMINAL = 'exec <>"$1" >&0 2>&1; shift; exec "$@"'
IN_SANDBOX = 'cd -- "$1" || exit; [ -z "$2" ] || export LD_PRELOAD="$2"; shift 2; exec "$@"'

_NAMESPACES = ("--user", "--map-root-user", "--mount")
_WITH_PROCESSES = ("--pid", "--fork", "--kill-child")


class SandboxError(Exception):
    """The container's root could not be made."""


class Reaper:
    """A small process that ends the node's processes when the node's own process has gone, however it went."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            SHELL,
            HERE / "reaper.sh",
            self._folder,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            env=TOOLS,
            cwd="/",
            start_new_session=True,
        )

    def add(self, group: int) -> None:
        self._say(f"add {group}\n")

    def drop(self, group: int) -> None:
        """Forget a group that has ended: its number may come again."""
        self._say(f"drop {group}\n")

    async def stop(self) -> None:
        """End what is left, as if the node had died."""
        if self._process:
            self._process.stdin.close()
            await self._process.wait()

    def _say(self, line: str) -> None:
        if self._process and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode())


class Process:
    """One running program of a container, with its standard streams."""

    def __init__(self, started: asyncio.subprocess.Process, streams: "_Streams", reaper: Reaper, *, wrapped: bool):
        self._started = started
        self._streams = streams
        self._reaper = reaper
        self._wrapped = wrapped
        self.stdin, self.stdout, self.stderr = streams.stdin, streams.stdout, streams.stderr
        reaper.add(started.pid)

    def close(self) -> None:
        """Let go of the streams, whoever still holds their other ends."""
        self._streams.close()

    async def wait(self) -> int:
        """Return the exit code as a container runtime counts it: 128 and the number of the signal that ended it."""
        code = await self._started.wait()
        self.kill()
        self._reaper.drop(self._started.pid)
        # What libfaketime of a killed program leaves.
        for left in SHARED_MEMORY.glob(f"*faketime_s*_{self._started.pid}"):
            left.unlink(missing_ok=True)
        return 128 - code if code < 0 else code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the program itself, as a container runtime does."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(_child(self._started.pid) if self._wrapped else self._started.pid, number)

    def kill(self) -> None:
        """End the program and what it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._started.pid, signal.SIGKILL)


class Sandbox:
    """Where one container's processes run.

    In a root of its own (`private`; with `own_processes` its processes see and can outlive no others), or beside all
    other processes with mount paths rewritten (`mapped`). https://man7.org/linux/man-pages/man7/user_namespaces.7.html
    """

    def __init__(self, mounts: Mounts, reaper: Reaper, *, folder: Path, private: bool, own_processes: bool) -> None:
        self.mounts = mounts
        self._reaper = reaper
        self._folder = folder
        self._private = private
        self._own_processes = own_processes
        self._holder: asyncio.subprocess.Process | None = None
        self._enter: list[str] = []

    async def open(self, visible: tuple[Path, ...] = ()) -> None:
        """Make the root. Raises MountRefused or SandboxError."""
        if not self._private:
            return
        self._folder.mkdir(parents=True)
        table, root = self._folder / "mounts", self._folder / "root"
        table.write_text(self.mounts.table(root, visible=visible, new_proc=self._own_processes))
        self._holder = await asyncio.create_subprocess_exec(
            _tool("unshare"),
            *_NAMESPACES,
            *(_WITH_PROCESSES if self._own_processes else ()),
            "--",
            SHELL,
            HERE / "sandbox.sh",
            table,
            root,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=TOOLS,
            cwd="/",
            start_new_session=True,
        )
        if await self._holder.stdout.readline() != b"ready\n":
            said = (await self._holder.stderr.read()).decode(errors="replace").strip()
            await self.close()
            raise SandboxError(said or "the container's root could not be made")
        target = _child(self._holder.pid) if self._own_processes else self._holder.pid
        namespaces = ("--user", "--mount", *(("--pid",) if self._own_processes else ()))
        self._enter = [_tool("nsenter"), "--preserve-credentials", "--target", str(target), *namespaces, "--"]

    async def run(
        self, argv: list[str], env: dict[str, str], cwd: str, *, stdin: bool = False, terminal: str = ""
    ) -> Process:
        """Start a program; its output comes through pipes, or goes to the terminal (a device's path)."""
        if self._private:
            # What is preloaded (the clock) belongs to the program, not to those that bring it here.
            env = dict(env)
            command = [*self._enter, SHELL, "-c", IN_SANDBOX, "sh", cwd, env.pop("LD_PRELOAD", ""), *argv]
        else:
            command = [self.mounts.rewritten(argument) for argument in argv]
            env = {name: self.mounts.rewritten(value) for name, value in env.items()}
            cwd = str(self.mounts.on_host(cwd))
        if terminal:
            # The first terminal that the leader of a session opens becomes its controlling terminal.
            command = [SHELL, "-c", ON_TERMINAL, "sh", terminal, *command]
        streams = _Streams()
        try:
            await streams.open(stdin=stdin and not terminal, output=not terminal)
            started = await asyncio.create_subprocess_exec(
                *command,
                stdin=streams.far[0],
                stdout=streams.far[1],
                stderr=streams.far[2],
                env=env,
                cwd="/" if self._private else cwd,
                start_new_session=True,
            )
        except BaseException:
            streams.close()
            raise
        finally:
            streams.close_far()
        return Process(started, streams, self._reaper, wrapped=self._private and self._own_processes)

    def program(self, name: str, path: str) -> str:
        """The full path of a program as the container sees it. Raises FileNotFoundError, PermissionError."""
        if "/" in name:
            found = self.mounts.on_host(name)
            if not found.exists():
                raise FileNotFoundError(f'exec: "{name}": stat {name}: no such file or directory')
            if not os.access(found, os.X_OK) or found.is_dir():
                raise PermissionError(f'exec: "{name}": permission denied')
            return name
        for folder in path.split(":"):
            file = self.mounts.on_host(f"{folder or '.'}/{name}")
            if os.access(file, os.X_OK) and file.is_file():
                return f"{folder}/{name}"
        raise FileNotFoundError(f'exec: "{name}": executable file not found in $PATH')

    async def close(self) -> None:
        """End all that still runs in here."""
        if self._holder:
            self._holder.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                self._holder.kill()
            await self._holder.wait()
            self._holder = None


class _Streams:
    """Pipes to a program. asyncio's own would make its wait() wait for everybody who has inherited them."""

    def __init__(self) -> None:
        self.stdin: asyncio.StreamWriter | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None
        self.far = [asyncio.subprocess.DEVNULL] * 3
        self._near: list[asyncio.BaseTransport] = []

    async def open(self, *, stdin: bool, output: bool) -> None:
        loop = asyncio.get_running_loop()
        if stdin:
            self.far[0], near = os.pipe()
            transport, protocol = await loop.connect_write_pipe(
                lambda: asyncio.streams.FlowControlMixin(loop=loop), os.fdopen(near, "wb", 0)
            )
            self._near.append(transport)
            self.stdin = asyncio.StreamWriter(transport, protocol, None, loop)
        if output:
            self.stdout, self.stderr = [await self._reader(number) for number in (1, 2)]

    async def _reader(self, number: int) -> asyncio.StreamReader:
        near, self.far[number] = os.pipe()
        reader = asyncio.StreamReader()
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(near, "rb", 0)
        )
        self._near.append(transport)
        return reader

    def close_far(self) -> None:
        for number in self.far:
            if number >= 0:
                os.close(number)
        self.far = [asyncio.subprocess.DEVNULL] * 3

    def close(self) -> None:
        for transport in self._near:
            transport.close()


async def permitted(folder: Path) -> tuple[bool, bool]:
    """Whether containers can have a root of their own here, and processes of their own: found out by trying."""
    if _tool("unshare") and _tool("nsenter"):
        for own_processes in (True, False):
            trial = folder / f"trial-{own_processes}"
            sandbox = Sandbox(Mounts(), Reaper(folder), folder=trial, private=True, own_processes=own_processes)
            try:
                await sandbox.open()
                process = await sandbox.run([SHELL, "-c", "exit 7"], TOOLS, "/")
                if await process.wait() == 7:
                    return True, own_processes
            except (OSError, SandboxError, ValueError):
                continue
            finally:
                await sandbox.close()
                shutil.rmtree(trial, ignore_errors=True)
    return False, False


def _tool(name: str) -> str | None:
    """The path of a program of util-linux; a container's own PATH does not count."""
    return shutil.which(name, path=TOOLS_PATH)


def _child(process: int) -> int:
    """The only child of a process, or the process itself while it has none."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0]) if children else process
