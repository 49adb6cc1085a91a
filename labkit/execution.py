"""Run a command in a pod."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from labkit.errors import NotAllowed, said_by_the_cluster, the_stop, with_answer

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

WITHIN = 60  # seconds
NOT_STARTED = 127  # a shell's exit code for a missing program


@dataclass(frozen=True)
class Executed:
    """The output of a command in a pod, and its exit code."""

    output: str
    error: str
    exit_code: int


def execute(api: "ApiClient", pod: str, namespace: str, command: list[str], *, container: str = "") -> Executed:
    """Run `command` in a container of the pod. Return when the command has ended, or after `WITHIN` seconds.

    `container` is only needed if the pod has several containers. Raises `NotAllowed` if the cluster doesn't allow the
    call. Any other failure is returned like a failure of the command.

    https://kubernetes.io/docs/tasks/debug/debug-application/get-shell-running-container/
    """
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream import stream

    try:
        connection = stream(
            CoreV1Api(api).connect_get_namespaced_pod_exec,
            pod,
            namespace,
            command=command,
            stdout=True,
            stderr=True,
            stdin=False,
            tty=False,
            _preload_content=False,
            **({"container": container} if container else {}),
        )
    except ApiException as error:
        if stop := the_stop(error):
            raise stop from None
        if with_answer(error).status == 403:
            raise NotAllowed.by_the_cluster(error, namespace) from None
        said = said_by_the_cluster(error, str(error.reason).partition(" -+-+- ")[0])
        return Executed("", f"the cluster refuses exec: {said}", 1)
    connection.run_forever(timeout=WITHIN)
    output, said = connection.read_stdout(timeout=0), connection.read_stderr(timeout=0)
    try:
        code = connection.returncode
    except ValueError:
        # The container runtime reports an error instead of an exit code: usually, the program is missing.
        code, said = NOT_STARTED, f"the container has no program {command[0]}, or cannot start it"
    connection.close()
    return Executed(output or "", said or "", 1 if code is None else code)
