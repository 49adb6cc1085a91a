"""Let a process open more files at the same time. Sockets and pipes count as open files, too."""

import resource

from labkit.errors import LabError


def allow_open_files(wanted: int, *, fewest: int, to: str) -> None:
    """Let this process and its children have `wanted` open files, or as many as the machine allows.

    `to` names this process in the error message, such as `the lab's server`.

    Raises `LabError` if the machine allows fewer than `fewest`.

    https://man7.org/linux/man-pages/man2/getrlimit.2.html
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    allowed = max(soft, wanted if hard == resource.RLIM_INFINITY else min(wanted, hard))
    if allowed < fewest:
        raise LabError(
            f"A process may have {allowed} open files here, and {to} needs {fewest}.",
            where="ulimit -Hn",
            next=f"ulimit -n {max(1024, fewest)} in a new shell, then the same command; if the shell refuses that, "
            "ask for a higher limit (/etc/security/limits.conf, or the container's --ulimit nofile)",
        )
    if allowed > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
