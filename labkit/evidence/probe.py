"""What is tried in the pod, where that is allowed: its token's claims, STS's answer to it, and who AWS says it is."""

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from labkit.evidence.reading import NotRead

if TYPE_CHECKING:
    from labkit.evidence import Evidence

WHO_AM_I = ["aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]


@dataclass(frozen=True)
class Caller:
    """Who AWS says a pod is, or what it said instead."""

    arn: str
    error: str = ""

    @property
    def role_name(self) -> str:
        """The role of the session, empty where it is none."""
        kind, _, rest = self.arn.rpartition(":")[2].partition("/")
        return rest.partition("/")[0] if kind == "assumed-role" else ""

    @property
    def identity(self) -> str:
        """The ARN without account and session, or the error: what is the same every time."""
        if not self.arn:
            return self.error
        return f"assumed-role/{self.role_name}" if self.role_name else self.arn


class Probe:
    """Commands in the pod. Every property raises `NotRead` where the pod is not to be probed."""

    def __init__(self, evidence: "Evidence", *, allowed: bool):
        self._evidence = evidence
        self.allowed = allowed

    @property
    def caller(self) -> Caller | None:
        """Who AWS says the pod is (sts:GetCallerIdentity, called in it); None where it does not run."""
        evidence = self._evidence
        if evidence.pod_phase != "Running":
            return None
        answer = self._once("sts:GetCallerIdentity", lambda: _said(self._execute(WHO_AM_I)))
        return Caller(**answer)

    @cached_property
    def _api(self) -> Any:
        return self._evidence.connection.kubernetes

    def _execute(self, command: list[str]) -> Any:
        from labkit.execution import execute

        return execute(self._api, self._evidence.pod_name, self._evidence.parameters.namespace, command)

    def _once(self, what: str, call: Any) -> Any:
        what = f"{what} in pod {self._evidence.pod_name} -n {self._evidence.parameters.namespace}"
        if not self.allowed:
            raise NotRead(what, "the pod was not probed", "--probe")
        return self._evidence.reads.once(what, call)


def _said(done: Any) -> dict[str, str]:
    if done.exit_code == 0:
        return {"arn": done.output.strip(), "error": ""}
    lines = done.error.strip().splitlines()
    return {"arn": "", "error": lines[-1] if lines else f"the command ended with exit code {done.exit_code}"}
