"""The processes that a node starts. They end with the node, even if the node is killed."""

import asyncio
import contextlib
import fcntl
import itertools
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from labkit.simulator.kubernetes.node.addresses import Bindings
from labkit.simulator.kubernetes.node.mounts import Mounts
from labkit.simulator.kubernetes.node.program_streams import Pipes, Terminal
from labkit.simulator.kubernetes.node.root import SHARED_MEMORY, Root
from labkit.simulator.kubernetes.node.users import ContainerUser, Users

HERE = Path(__file__).parent
TOOLS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TOOLS = {"PATH": TOOLS_PATH, "LANG": "C.UTF-8"}
SHELL = "/bin/sh"
ON_TERMINAL = ': <>"$1"; shift; exec "$@"'
IN_SANDBOX = 'cd -- "$1" || exit; [ -z "$2" ] || export LD_PRELOAD="$2"; shift 2; exec "$@"'

_NAMESPACES = ("--mount", "--uts", "--ipc")
_WITH_PROCESSES = ("--pid", "--fork", "--kill-child")


class SandboxError(Exception):
    """The container's root directory can't be made."""


class Reaper:
    """A small process that ends the node's processes, even if the node is killed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the reaper. If an earlier node was killed, first wait until its reaper has finished."""
        self._folder.mkdir(parents=True, exist_ok=True)
        with (self._folder / "reaper.lock").open("w") as lock:
            # Wait for the old reaper, which holds the lock: it would also end the new pods' processes.
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            _let_programs_be_interrupted()
            self._process = await asyncio.create_subprocess_exec(
                SHELL,
                HERE / "reaper.sh",
                self._folder,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.DEVNULL,
                env=TOOLS,
                cwd="/",
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )

    def add(self, group: int) -> None:
        self._say(f"add {group}\n")

    def drop(self, group: int) -> None:
        """Forget a process group that has ended, because another group may get its number."""
        self._say(f"drop {group}\n")

    def remove(self, prefix: Path) -> None:
        """At the node's end, remove the control groups whose paths begin with this prefix."""
        self._say(f"remove {prefix}\n")

    def delete(self, folder: Path) -> None:
        """At the node's end, delete this folder."""
        self._say(f"delete {folder}\n")

    async def stop(self) -> None:
        """End all remaining processes, as if the node had been killed."""
        if self._process and self._process.stdin:
            self._process.stdin.close()
            await self._process.wait()

    def _say(self, line: str) -> None:
        if self._process and self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(line.encode())


class Process:
    """One running program of a container."""

    def __init__(self, started: asyncio.subprocess.Process, reaper: Reaper, *, wrapped: bool) -> None:
        self._started = started
        self._reaper = reaper
        self._wrapped = wrapped
        reaper.add(started.pid)
        self._ending = asyncio.create_task(self._end())

    async def wait(self) -> int:
        """Wait for the program's end, and return its exit code.

        If a signal ended the program, the code is 128 plus the signal's number.
        """
        return await asyncio.shield(self._ending)

    def ask(self, number: signal.Signals) -> None:
        """Send the program a signal, unless it has no handler: process 1 of a container ignores such a signal.

        https://man7.org/linux/man-pages/man7/pid_namespaces.7.html
        """
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            status = Path(f"/proc/{self._program}/status").read_text()
            handled = int(status.partition("SigCgt:")[2].split()[0], 16)
            if not handled & 1 << (number - 1):
                return
        self._signal(number)

    @property
    def _program(self) -> int:
        """The process of the program itself, not of the tool that may have started it (`nsenter`)."""
        return _child(self._started.pid) if self._wrapped else self._started.pid

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            os.kill(self._program, number)

    def kill(self) -> None:
        """End the program and everything that it started."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._started.pid, signal.SIGKILL)

    async def _end(self) -> int:
        code = await self._started.wait()
        self._reaper.drop(self._started.pid)
        # libfaketime leaves files if its program is killed.
        for left in SHARED_MEMORY.glob(f"*faketime_s*_{self._started.pid}"):
            left.unlink(missing_ok=True)
        return 128 - code if code < 0 else code


@dataclass
class Sandbox:
    """The place in which one container's programs run.

    With `private`, the container has its own root directory. If `own_processes` is also true, the container has its
    own process namespace too. Without `private`, the container has this machine's root directory. Then the mount paths
    in its programs' arguments, variables and working directory are replaced by the volumes' paths on this machine.

    https://man7.org/linux/man-pages/man7/user_namespaces.7.html
    """

    mounts: Mounts
    reaper: Reaper
    folder: Path
    private: bool
    own_processes: bool
    users: Users = field(default_factory=Users)
    user: ContainerUser = field(default_factory=ContainerUser)
    cwd: str = "/"  # the working directory of the container's programs
    within: list[str] = field(default_factory=list)  # a command that starts a program within the container's limits
    _sessions: set[int] = field(default_factory=set, init=False)
    _holder: asyncio.subprocess.Process | None = field(default=None, init=False)
    _root: Root | None = field(default=None, init=False)
    _enter: list[str] = field(default_factory=list, init=False)

    async def open(
        self,
        visible: tuple[Path, ...] = (),
        *,
        read_only: bool = False,
        hostname: str = "",
        texts: dict[str, str] | None = None,
    ) -> None:
        """With `private`, make the container's root directory as `Root` says. Without `private`, do nothing.

        Raises MountRefused or SandboxError.
        """
        if not self.private:
            return
        self.folder.mkdir(parents=True)
        self._root = Root(
            self.folder / "root",
            self.mounts.all,
            visible=visible,
            new_proc=self.own_processes,
            read_only=read_only,
            closed=self.users.grade == "one" and self.user.uid != 0,
            cwd=self.cwd,
            texts=texts,
        )
        if self._root.hides_programs:
            return
        table = self.folder / "mounts"
        table.write_text("".join(self._root.lines))
        self._holder = await asyncio.create_subprocess_exec(
            tool("unshare"),
            *self.users.unshare,
            *_NAMESPACES,
            *(_WITH_PROCESSES if self.own_processes else ()),
            "--",
            SHELL,
            HERE / "sandbox.sh",
            table,
            self._root.folder,
            hostname,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=TOOLS,
            cwd="/",
            start_new_session=True,
        )
        try:
            target = await self._prepared(self._holder)
        except (OSError, SandboxError):
            await self.close()
            raise
        namespaces = ("--user", "--mount", "--uts", "--ipc", *(("--pid",) if self.own_processes else ()))
        self._enter = [tool("nsenter"), "--preserve-credentials", "--target", str(target), *namespaces, "--"]

    async def _prepared(self, holder: asyncio.subprocess.Process) -> int:
        """Map the container's users, wait until its mounts are made, and return a process in its namespaces."""
        if holder.stdin is None or holder.stdout is None or holder.stderr is None:
            raise SandboxError("no pipes")
        if await holder.stdout.readline() == b"unshared\n":
            target = _child(holder.pid) if self.own_processes else holder.pid
            for kind in ("uid_map", "gid_map") if self.users.map else ():
                Path(f"/proc/{target}/{kind}").write_text(self.users.map)
            holder.stdin.write(b"\n")
            if await holder.stdout.readline() == b"ready\n":
                return target
        said = (await holder.stderr.read()).decode(errors="replace").strip()
        raise SandboxError(said or "the container's root could not be made")

    async def run(
        self,
        argv: list[str],
        env: dict[str, str],
        cwd: str,
        streams: Pipes | Terminal,
        bindings: Bindings | None = None,
    ) -> Process:
        """Start a program with these streams, in a session of its own.

        Raises KeyError if the sandbox is closed. Raises OSError, in runc's words, if an argument is invalid.
        """
        if self.private and not self._holder:
            raise KeyError("closed")
        if not streams.is_terminal:
            # Any user of the container may open /dev/stdout.
            for number in streams.far:
                if number >= 0:
                    os.fchmod(number, 0o666)
        if any("\0" in text for text in (*argv, *env, *env.values(), cwd)):
            raise OSError(f"exec {argv[0]}: invalid argument")
        wrapped = self.private and self.own_processes
        env = ({"TERM": "xterm"} if streams.is_terminal else {}) | env
        if self.private:
            # Only the program needs the preloaded library (libfaketime), not the tools that start the program.
            command = [SHELL, "-c", IN_SANDBOX, "sh", cwd, env.pop("LD_PRELOAD", ""), *argv]
            if streams.is_terminal and self.own_processes:
                # nsenter, the program's parent, stays outside of this session, so that Ctrl-C doesn't end it.
                command = [tool("setsid"), "--ctty", *command]
            first = bindings.command if bindings else []
            command = [*self._enter, *first, *self.users.command(self.user), *command]
        else:
            command = [self.mounts.rewritten(argument) for argument in argv]
            env = {name: self.mounts.rewritten(value) for name, value in env.items()}
            cwd = str(self.on_host(cwd))
        if isinstance(streams, Terminal) and not wrapped:
            # The first terminal that the leader of a session opens becomes its controlling terminal.
            command = [SHELL, "-c", ON_TERMINAL, "sh", streams.device, *command]
        stdin, stdout, stderr = streams.far
        try:
            started = await asyncio.create_subprocess_exec(
                *self.within,
                *command,
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                env=env,
                cwd="/" if self.private else cwd,
                start_new_session=True,
                pass_fds=[bindings.number] if bindings else (),
            )
        finally:
            streams.hand_over()
        if not wrapped:
            self._sessions.add(started.pid)
        return Process(started, self.reaper, wrapped=wrapped)

    def on_host(self, path: str) -> Path:
        """Return this machine's path for a path in the container."""
        return self._root.on_host(path) if self._root else self.mounts.on_host(path)

    def program(self, name: str, path: str) -> str:
        """Return a program's path in the container. Look for a name without a slash in the folders of ``path``.

        Raises OSError if the program can't be run. The error's message is in runc's words.
        """
        if "\0" in name + path:
            raise OSError(f'exec: "{name}": invalid argument')
        if "/" in name:
            try:
                exists = (target := self.on_host(name)).exists()
            except OSError as error:  # it names the path on this machine
                raise OSError(error.errno, error.strerror, name) from error
            if not exists:
                raise FileNotFoundError(f'exec: "{name}": stat {name}: no such file or directory')
            if target.is_dir():
                raise IsADirectoryError(f'exec: "{name}": is a directory')
            if not os.access(target, os.X_OK):
                raise PermissionError(f'exec: "{name}": permission denied')
            return name
        for folder in path.split(":"):
            file = self.on_host(f"{folder or '.'}/{name}")
            if os.access(file, os.X_OK) and file.is_file():
                return f"{folder}/{name}"
        raise FileNotFoundError(f'exec: "{name}": executable file not found in $PATH')

    def processes(self) -> list[int]:
        """Return the processes that run in the sandbox."""
        if not (self._holder and self.own_processes):
            return [process for process in psutil.pids() if _session(process) in self._sessions]
        namespace = _process_namespace(_child(self._holder.pid))
        return [process for process in psutil.pids() if namespace and _process_namespace(process) == namespace]

    async def close(self) -> None:
        """End everything that still runs in the sandbox."""
        if self._holder:
            if self._holder.stdin:
                self._holder.stdin.close()
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._holder.pid, signal.SIGKILL)  # its own `kill` might reap it before asyncio does
            await self._holder.wait()
            self._holder = None
        if self._sessions:
            _end(lambda process: _session(process) in self._sessions)
            self._sessions.clear()


def end_all_of(home: Path) -> None:
    """Kill the remaining processes of a pod: those with this folder as HOME. This may take a while."""
    _end(lambda process: psutil.Process(process).environ().get("HOME") == str(home))


def end_all_below(folder: Path) -> None:
    """Kill the remaining processes of all pods: those with a HOME below this folder. This may take a while."""
    _end(lambda process: psutil.Process(process).environ().get("HOME", "").startswith(f"{folder}/"))


def _end(belongs: Callable[[int], bool]) -> None:
    for process in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            if belongs(process):
                os.kill(process, signal.SIGKILL)


def _let_programs_be_interrupted() -> None:
    """Stop ignoring the signals that nohup, or a shell's `&`, has made this process ignore.

    Otherwise, the programs that this process starts would ignore these signals, too.
    """
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(ValueError):  # only the main thread can change this
                signal.signal(number, lambda *_: None)


async def permitted(folder: Path) -> tuple[bool, bool, Users]:
    """Return what works on this machine. To find out, run trial containers in ``folder``.

    The first value says whether a container can have its own root directory. The second says whether the container can
    have its own process namespace, too. The third says which users the container can have.
    """
    if tool("unshare") and tool("nsenter") and await _may_unshare():
        for users, own_processes in itertools.product((Users("full"), Users("one")), (True, False)):
            trial, streams = folder / f"trial-{users.grade}-{own_processes}", Pipes(stdin=False)
            shutil.rmtree(trial, ignore_errors=True)
            sandbox = Sandbox(
                Mounts(),
                Reaper(folder),
                trial,
                private=True,
                own_processes=own_processes,
                users=users,
                user=ContainerUser(1000),
            )
            try:
                await sandbox.open()
                await streams.open()
                process = await sandbox.run([SHELL, "-c", "exit $(($(id -u) - 993))"], TOOLS, "/", streams)
                if await process.wait() == 7:
                    return True, own_processes, users
            except (OSError, SandboxError, ValueError):
                continue
            finally:
                streams.close()
                await sandbox.close()
                users.remove(trial)
    return False, False, Users()


async def _may_unshare() -> bool:
    """Return whether this machine allows a user namespace.

    Where it doesn't, as in many containers, `unshare --map-auto` leaves a process behind that holds its output open.
    """
    process = await asyncio.create_subprocess_exec(tool("unshare"), "--user", "true", stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


def tool(name: str) -> str:
    return shutil.which(name, path=TOOLS_PATH) or ""


def _session(process: int) -> int:
    """Return the process's session; 0 if the process has ended."""
    with contextlib.suppress(OSError):
        return os.getsid(process)
    return 0


def _process_namespace(process: int) -> str:
    with contextlib.suppress(OSError):
        return str(Path(f"/proc/{process}/ns/pid").readlink())
    return ""


def _child(process: int) -> int:
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return int(children[0]) if children else process
