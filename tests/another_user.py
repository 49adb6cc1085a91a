"""Start a program as another user of this machine, who can read this environment wherever it lies. Needs root."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import pytest

ROOT = Path(__file__).parents[1]
UID = 1234
FIRST, COUNT = 700000, 65536  # the subordinate ids, if the user has any


def command(*, subordinate_ids: bool = False) -> tuple[str, ...]:
    """Return a command that starts the program in its further arguments. The machine's own files stay unchanged."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user")
    if subordinate_ids and not shutil.which("newuidmap"):
        pytest.skip("subordinate ids need newuidmap, of Debian's package uidmap")
    script = "\n".join(["set -e", *_shown(), *_accounts(subordinate_ids), 'exec setpriv "$@"'])
    user = (f"--reuid={UID}", f"--regid={UID}", "--clear-groups")
    return ("unshare", "--mount", "sh", "-c", script, "sh", *user, "--")


def _shown() -> Iterator[str]:
    """Yield commands that show this environment where only root may enter a folder above it."""
    paths = {Path(path).resolve() for path in (sys.base_prefix, Path(sys.prefix, "pyvenv.cfg").resolve().parent, ROOT)}
    closed = {
        path: next((above for above in reversed(path.parents) if not above.stat().st_mode & 1), None) for path in paths
    }
    yield "place=$(mktemp -d); mount -t tmpfs none $place"
    for number, path in enumerate(paths):
        if closed[path]:
            yield f"mkdir $place/{number}; mount --rbind {quote(str(path))} $place/{number}"
    for above in {above for above in closed.values() if above}:
        yield f"mount -t tmpfs -o mode=755 none {quote(str(above))}"
    for number, path in enumerate(paths):
        if closed[path]:
            yield f"mkdir -p {quote(str(path))}; mount --rbind $place/{number} {quote(str(path))}"


def _accounts(subordinate_ids: bool) -> Iterator[str]:
    """Yield commands that give the user a name and, with `subordinate_ids`, further ids."""
    yield f"{{ cat /etc/passwd; echo learner:x:{UID}:{UID}::/:/bin/sh; }} >$place/passwd"
    for name in ("subuid", "subgid"):
        yield f"echo {f'learner:{FIRST}:{COUNT}' if subordinate_ids else ''} >$place/{name}"
    for name in ("passwd", "subuid", "subgid"):
        yield f"[ ! -e /etc/{name} ] || mount --bind $place/{name} /etc/{name}"
