"""Fork `aws` and `labkit` from a Python that has already loaded their modules: 0.5 to 2 s less CPU for each command.

`begin` makes a folder that looks like this environment. In its `bin`, both commands are small clients. A client hands
its arguments, variables, folder and streams to a server. The server forks a process that runs this environment's own
program with them. Everything that finds its programs beside Python finds these: the tests, their labs, and the pods.

The forked process is in the caller's namespaces, gets the caller's signals, and ends with the caller.
"""

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import io
import locale
import multiprocessing
import os
import platform
import runpy
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import IO, Any, NoReturn

from tests.forked import LOADED

# This environment's own programs, even if this Python is already the one in the folder.
REAL = Path(sys.prefix, "lib").resolve().parent / "bin"
# Starting Python without `site` saves 15 ms. The server `-clocked` serves callers on a lab's clock: the clock's library
# must be loaded as a program starts. A client whose Python is set up differently, or that finds no server, runs the
# program itself.
CLIENT = """\
#!{python} -IS
import _signal, _socket, os, sys
variables, arguments, kept = os.environb, [os.fsencode(argument) for argument in sys.argv[1:]], sys.byteorder
def itself():
    os.execv({real!r}, [{real!r}, *arguments])
def at_import(name):
    return name in {read_at_import!r} or (name.startswith(b"PYTHON") and name not in {harmless!r})
if {{name: value for name, value in variables.items() if at_import(name)}} != {at_import!r}:
    itself()
server = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
forwarded = [n for n in {forwarded!r} if _signal.getsignal(n) is not _signal.SIG_IGN]
os.umask(mask := os.umask(0))
request = [os.getcwdb(), b"%d" % mask, bytes(forwarded), b"%d" % len(arguments), *arguments]
request = b"\\0".join([*request, *(name + b"=" + value for name, value in variables.items())])
try:
    server.connect({socket!r} + ("-clocked" if b"LD_PRELOAD" in variables else ""))
    streams = b"".join(stream.to_bytes(4, kept) for stream in range(3))
    server.sendmsg([len(request).to_bytes(4, kept)], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, streams)])
    server.sendall(request)
    begun = server.recv(1)
except OSError:
    begun = b""
if not begun:
    itself()
for number in forwarded:
    _signal.signal(number, lambda number, _: server.send(bytes([number])))
ended = server.recv(4)
code = int.from_bytes(ended, kept, signed=True) if ended else 255
if code < 0:
    _signal.signal(-code, _signal.SIG_DFL)
    os.kill(os.getpid(), -code)
os._exit(code)
"""
HARMLESS = {b"PYTHONDONTWRITEBYTECODE", b"PYTHONHASHSEED", b"PYTHONUNBUFFERED"}
# Variables that libraries read as they load. A client with another value of one runs the program itself.
READ_AT_IMPORT = {
    *(b"TERMINAL_WIDTH", b"FORCE_COLOR", b"PY_COLORS", b"GITHUB_ACTIONS", b"TYPER_USE_RICH"),
    *(b"_TYPER_FORCE_DISABLE_TERMINAL", b"AWS_NEW_RETRIES_2026", b"BOTO_DISABLE_CRT"),
}
FORWARDED = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]
FIRST_HOME = os.environ.get("HOME", "")  # in a server: one of its own
NAMESPACES = ("net", "mnt", "ipc", "uts", "pid", "user")


def begin() -> Callable[[], None]:
    """Let everything that finds its programs beside this Python find the forked ones. Return a function that ends that.

    End every lab before you call that function: a lab can't load any more modules after it.
    """
    if Path(sys.prefix).resolve() != REAL.parent:  # a program that called `begin` has started this one
        return lambda: None
    folder = Path(tempfile.mkdtemp(prefix="labkit-bin-"))
    folder.chmod(0o755)  # for pods' users
    _look_alike(folder)
    before = sys.executable
    _name_python(str(folder / "bin" / "python"))
    servers = [_serving(folder, name) for name in LOADING]
    if clock := _clock():
        servers.append(_serving(folder, "aws", "-clocked", clock))

    def end() -> None:
        _name_python(before)
        for server in servers:
            server.stdin.close()
            server.wait()
        shutil.rmtree(folder, ignore_errors=True)

    return end


def _name_python(path: str) -> None:
    sys.executable = path
    multiprocessing.set_executable(path)


def _look_alike(folder: Path) -> None:
    """Fill the folder with links to this environment, except its two commands and the scripts that name its Python."""
    for part in REAL.parent.iterdir():
        if part.name in ("lib", "lib64", "share", "etc", "include", "pyvenv.cfg"):
            (folder / part.name).symlink_to(part)
    programs = folder / "bin"
    programs.mkdir()
    named = f"#!{REAL}/python".encode()
    for program in REAL.iterdir():
        there, text = programs / program.name, program.read_bytes() if program.is_file() else b""
        if program.is_symlink() or not text.startswith(named):
            there.symlink_to(program.readlink() if program.is_symlink() else program)
        else:
            there.write_bytes(text.replace(named, f"#!{programs}/python".encode(), 1))
            there.chmod(0o755)
    (folder / "itself").mkdir()
    for name in LOADING:
        real = (programs / name).rename(folder / "itself" / name)
        client = CLIENT.format(
            python=programs / "python",
            real=str(real),
            socket=str(folder / name),
            harmless=HARMLESS,
            read_at_import=READ_AT_IMPORT,
            at_import={name: value for name, value in os.environb.items() if _is_read_at_import(name)},
            forwarded=[int(number) for number in FORWARDED],
        )
        (programs / name).write_text(client)
        (programs / name).chmod(0o755)


def _is_read_at_import(name: bytes) -> bool:
    return name in READ_AT_IMPORT or (name.startswith(b"PYTHON") and name not in HARMLESS)


def _clock() -> dict[str, str]:
    """A pod's variables for the lab's clock, without the clock itself, which differs from pod to pod."""
    if sys.platform != "linux" or platform.machine() != "x86_64" or not (faketime := find_spec("libfaketime")):
        return {}
    library = Path(faketime.origin or "/").parent / "vendor/libfaketime/src/libfaketime.so.1"
    return {"LD_PRELOAD": str(library), "FAKETIME_NO_CACHE": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def _serving(folder: Path, program: str, kind: str = "", variables: Mapping[str, str] = {}) -> subprocess.Popen[bytes]:
    """Start a server of this program. It ends when its pipe closes: with this process, however this one ends."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{folder / program}{kind}")
        listener.listen(64)
        return subprocess.Popen(
            [sys.executable, "-m", "tests.forked_commands", str(listener.fileno()), str(folder), program],
            stdin=subprocess.PIPE,
            env={**os.environ, **variables, "HOME": f"{folder}/home"},
            pass_fds=[listener.fileno()],
            cwd=Path(__file__).parents[1],
            start_new_session=True,
        )


def serve(listener: socket.socket, folder: str, program: str) -> None:
    """Fork a process for each caller until standard input ends. Load the shared modules for the first caller."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forked processes
    begin_process, homes = None, []
    while listener in select.select([listener, sys.stdin], [], [])[0]:
        caller, _ = listener.accept()
        if begin_process is None:
            begin_process = LOADING[program]()
            gc.collect()
            homes = _places_of(os.environ["HOME"])
            gc.freeze()
        if os.fork() == 0:
            try:
                listener.close()
                _attend(caller, f"{folder}/itself/{program}", lambda: (_move_home(homes), begin_process()))
            finally:
                traceback.print_exc()
                os._exit(1)
        caller.close()
    shutil.rmtree(folder, ignore_errors=True)  # left by a pytest that was killed


def _places_of(home: str) -> list[tuple[Callable[[Any, Any], None], Any, str | Path]]:
    """Find where modules and classes keep a path in the home folder, which they made as they were loaded."""
    held: list[tuple[Callable[[Any, Any], None], Any, str | Path]] = []
    for thing in gc.get_objects():
        if isinstance(thing, type):
            entries, put = [*vars(thing).items()], functools.partial(setattr, thing)
        elif type(thing) is dict:
            entries, put = [*thing.items()], thing.__setitem__
        elif type(thing) is list:
            entries, put = [*enumerate(thing)], thing.__setitem__
        else:
            continue
        held += [(put, name, value) for name, value in entries if isinstance(value, str | Path) and home in str(value)]
    return held


def _move_home(places: list[tuple[Callable[[Any, Any], None], Any, str | Path]]) -> None:
    """Put the caller's home folder in place of the server's."""
    before, after = FIRST_HOME, str(Path("~").expanduser())
    for put, name, value in places:
        put(name, type(value)(str(value).replace(before, after)))


def _load_aws() -> Callable[[], object]:
    """Load what most calls need: modules, the loader of service descriptions, and some descriptions."""
    import awscli.clidriver
    import botocore.session  # the CLI's own

    import labkit.simulator.aws_cli  # noqa: F401 - the CLI's plugin in pods, which may not see this checkout

    create_loader = botocore.session.create_loader
    botocore.session.create_loader = functools.cache(create_loader)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        driver = awscli.clidriver.create_clidriver()
        for service in ("iam", "sts", "s3", "eks", "s3api"):
            with contextlib.suppress(SystemExit):
                driver.main([service, "no-such-operation"])
        for service in ("iam", "sts", "s3", "eks"):
            driver.session.get_paginator_model(service)
            driver.session.create_client(service, "us-east-1", aws_access_key_id="none", aws_secret_access_key="none")
    return lambda: importlib.reload(awscli)  # it adds to the environment variables as it loads


def _load_labkit() -> Callable[[], object]:
    for module in (*LOADED, "labkit.cli.main", "labkit.runs"):
        importlib.import_module(module)
    from kubernetes import config

    from labkit.simulator import process

    def begin_process() -> None:
        process.subprocess = SimpleNamespace(Popen=_fork_lab, DEVNULL=subprocess.DEVNULL)
        for module in (config, config.kube_config):
            module.KUBE_CONFIG_DEFAULT_LOCATION = os.environ.get("KUBECONFIG", "~/.kube/config")

    return begin_process


LONGEST_LOADING = 30.0  # seconds
LOADING = {"aws": _load_aws, "labkit": _load_labkit}


def _fork_lab(command: list[str], *, stdout: IO[bytes], pass_fds: list[int], **given: Any) -> SimpleNamespace:
    """Fork the server that this command line starts: `python -m labkit.simulator FOLDER READY_FD …`."""
    sys.stdout.flush()
    # `labkit up` loads its clients in a thread meanwhile. A lock that it held at the fork would never be released.
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(LONGEST_LOADING)
    process = os.fork()
    if process == 0:
        _end(lambda: _serve_lab(command[command.index("labkit.simulator") :], stdout.fileno(), pass_fds[0], **given))
    return SimpleNamespace(pid=process, kill=lambda: os.kill(process, signal.SIGKILL), wait=lambda: _exit_code(process))


def _serve_lab(arguments: list[str], log: int, answer: int, *, env: dict[str, str], cwd: Path, **_: Any) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for stream, of in enumerate((os.open(os.devnull, os.O_RDONLY), log, log)):
        os.dup2(of, stream)
    os.closerange(3, answer)
    os.closerange(answer + 1, os.sysconf("SC_OPEN_MAX"))
    _open_streams()
    sys.argv = arguments
    runpy.run_module("labkit.simulator", run_name="__main__")


def _exit_code(process: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _attend(caller: socket.socket, program: str, begin_process: Callable[[], object]) -> NoReturn:
    """Run the program as the caller would, in a process of its own; pass on signals, and tell the exit code."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    length, streams, _, _ = socket.recv_fds(caller, 4, 3)
    request = b""
    while len(request) < int.from_bytes(length, sys.byteorder):
        request += caller.recv(1 << 20)
    try:
        _join(caller)
    except OSError:
        os._exit(1)  # the caller runs the program itself
    alive, held = os.pipe()  # only the program's process keeps `held` open, not the programs that it executes
    process = os.fork()
    if process == 0:
        caller.close()
        os.close(alive)
        _become(request, streams)
        begin_process()
        sys.argv.insert(0, program)
        _end(lambda: runpy.run_path(program, run_name="__main__"))
    for stream in (*streams, held):
        os.close(stream)
    caller.send(b"+")
    code = _follow(caller, alive, process)
    with contextlib.suppress(OSError):
        caller.send(code.to_bytes(4, sys.byteorder, signed=True))
    os._exit(0)


def _follow(caller: socket.socket, alive: int, process: int) -> int:
    while True:
        ready, _, _ = select.select([caller, alive], [], [])
        if alive in ready:
            return _exit_code(process)
        numbers = caller.recv(64)
        for number in numbers or [signal.SIGKILL]:
            os.kill(process, number)
        if not numbers:
            return _exit_code(process)


def _join(caller: socket.socket) -> None:
    """Enter each of the caller's namespaces that this process isn't in. Raise OSError if the caller is another user."""
    if sys.platform != "linux":
        return
    peer, user, _ = struct.unpack("=iII", caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user != os.geteuid():
        raise PermissionError("a pod's program of another user")
    differing = [
        os.open(f"/proc/{peer}/ns/{name}", os.O_RDONLY)
        for name in NAMESPACES
        if Path(f"/proc/{peer}/ns/{name}").readlink() != Path(f"/proc/self/ns/{name}").readlink()
    ]
    setns = ctypes.CDLL(None, use_errno=True).setns
    # Some can be entered only after the caller's user namespace, others only before it.
    left = [namespace for namespace in differing if setns(namespace, 0)]
    if any(setns(namespace, 0) for namespace in left):
        raise OSError(ctypes.get_errno(), "setns")
    for namespace in differing:
        os.close(namespace)


def _become(request: bytes, streams: list[int]) -> None:
    """Become what Python would be if the caller had started it."""
    folder, mask, forwarded, count, *rest = request.split(b"\0")
    arguments, variables = rest[: int(count)], rest[int(count) :]
    os.chdir(folder)
    os.umask(int(mask))
    for number in set(FORWARDED) - set(forwarded):
        signal.signal(number, signal.SIG_IGN)
    os.environb.clear()
    for variable in variables:
        name, _, value = variable.partition(b"=")
        os.environb[name] = value
    time.tzset()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    _open_streams()
    sys.argv = [*map(os.fsdecode, arguments)]


def _open_streams() -> None:
    in_c = locale.setlocale(locale.LC_CTYPE, "") in ("C", "POSIX")
    encoding, errors = ("utf-8", "surrogateescape") if in_c else (locale.getencoding(), "strict")
    sys.stdin = sys.__stdin__ = open(0, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = open(1, "w", encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115


def _end(run: Callable[[], object]) -> NoReturn:
    """Run a program to its end, and end this process as Python does."""
    code: object = 0
    try:
        run()
    except SystemExit as ended:
        code = ended.code
    except KeyboardInterrupt:
        traceback.print_exc()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    if not (code is None or isinstance(code, int)):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit((code or 0) & 0xFF)


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])), *sys.argv[2:])
