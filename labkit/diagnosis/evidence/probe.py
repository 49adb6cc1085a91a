"""What is tried in the pod, where that is allowed: its token's claims, STS's answer to it, and who AWS says it is."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from labkit.connection import Connection
from labkit.diagnosis.evidence.pod_spec import REGIONS, ROLE, TOKEN_FILE, Container, PodSpec
from labkit.diagnosis.evidence.reading import NotRead, Reads
from labkit.errors import NotAllowed
from labkit.execution import execute
from labkit.tokens import NotAToken, parts

WHO_AM_I = ["aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]
# What a shell or a container runtime ends with where there is no such program.
NO_PROGRAM = (126, 127)


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


@dataclass(frozen=True)
class Token:
    """What the token in a pod says, unverified; the token itself is not kept."""

    header: dict[str, Any]
    claims: dict[str, Any]
    unreadable: str = ""
    """Why the file could not be read, in the program's own words."""
    malformed: str = ""
    """Why what the file holds is no token."""

    @property
    def key_id(self) -> str:
        """The key that signed it (`kid`)."""
        return str(self.header.get("kid", ""))


@dataclass(frozen=True)
class Exchange:
    """STS's answer to the pod's token: the session's ARN, or the error's code and message."""

    arn: str
    code: str = ""
    message: str = ""


class Probe:
    """Commands in the pod. Every property raises `NotRead` where the pod is not to be probed."""

    def __init__(self, pod: PodSpec | None, connection: Connection, reads: Reads, *, region: str, allowed: bool):
        """
        Args:
            region: where STS is asked, if the container names no region.
            allowed: whether commands may be run in the pod.
        """
        self.allowed = allowed
        self._pod = pod
        self._connection = connection
        self._reads = reads
        self._region = region
        self._secret = ""

    @property
    def caller(self) -> Caller | None:
        """Who AWS says the pod is (sts:GetCallerIdentity, called in it); None where it does not run.

        Raises `NotRead` where there is no `aws` in it, too.
        """
        if not self._runs:
            return None
        what = "sts:GetCallerIdentity"
        answer = self._once(what, lambda: _said(self._execute(WHO_AM_I)))
        if answer.get("no_program"):
            raise NotRead(self._named(what), "there is no aws in the container", "an image with the AWS CLI")
        return Caller(answer["arn"], answer["error"])

    @property
    def token(self) -> Token | None:
        """The token in the file that the pod's variables name; None where none is named, or the pod does not run.

        Raises `NotRead` where there is no `cat` in it, too.
        """
        if not self._runs or self._container is None:
            return None
        what = "the token's claims"
        answer = self._once(what, lambda: self._parsed(self._cat()))
        if answer.get("no_program"):
            raise NotRead(self._named(what), "there is no cat in the container", "an image with cat")
        return Token(answer["header"], answer["claims"], answer["unreadable"], answer["malformed"])

    @property
    def exchange(self) -> Exchange | None:
        """STS's answer to the pod's token for the pod's role, asked from here; None where there is no token.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
        """
        token = self.token
        if token is None or token.unreadable or token.malformed:
            return None
        return Exchange(**self._once("sts:AssumeRoleWithWebIdentity with the token", self._exchanged))

    # How it is done.

    @cached_property
    def _container(self) -> Container | None:
        """The container that is looked into: the first that has the pair of variables."""
        running = [container for container in self._pod.containers if not container.is_init] if self._pod else []
        return next((container for container in running if container.has_role), None)

    @property
    def _runs(self) -> bool:
        return self._pod is not None and self._pod.phase == "Running"

    def _cat(self) -> Any:
        return self._execute(["cat", self._container.value(TOKEN_FILE)])

    def _parsed(self, done: Any) -> dict[str, Any]:
        answer = {"header": {}, "claims": {}, "unreadable": "", "malformed": "", "no_program": _has_no_program(done)}
        if done.exit_code != 0:
            return answer | {"unreadable": _last_line(done)}
        # A token has no newline behind it, and no white space in it.
        self._secret = done.output
        try:
            header, claims = parts(done.output)
        except NotAToken as error:
            return answer | {"malformed": str(error)}
        return answer | {"header": header, "claims": claims}

    def _exchanged(self) -> dict[str, str]:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import ClientError

        container = self._container
        # An answer that is kept came without the token.
        token = self._secret or self._cat().output
        region = next(filter(None, map(container.value, REGIONS)), self._region)
        sts = self._connection.aws.client("sts", region_name=region, config=Config(signature_version=UNSIGNED))
        try:
            answer = sts.assume_role_with_web_identity(
                RoleArn=container.value(ROLE), RoleSessionName="labkit-doctor", WebIdentityToken=token
            )
        except ClientError as error:
            said = error.response["Error"]
            return {"arn": "", "code": said.get("Code", ""), "message": said.get("Message", "")}
        return {"arn": answer["AssumedRoleUser"]["Arn"], "code": "", "message": ""}

    def _execute(self, command: list[str]) -> Any:
        pod, container = self._pod, self._container or self._pod.containers[0]
        try:
            return execute(self._connection.kubernetes, pod.name, pod.namespace, command, container=container.name)
        except NotAllowed as refusal:
            raise NotRead(self._named("exec"), refusal.what, "to get and create pods/exec") from None

    def _once(self, what: str, call: Any) -> Any:
        what = self._named(what)
        if not self.allowed:
            raise NotRead(what, "the pod was not probed", "--probe")
        return self._reads.once(what, call)

    def _named(self, what: str) -> str:
        return f"{what} in pod {self._pod.name} -n {self._pod.namespace}"


def _said(done: Any) -> dict[str, Any]:
    if done.exit_code == 0:
        return {"arn": done.output.strip(), "error": ""}
    answer = {"arn": "", "error": _last_line(done)}
    return answer | {"no_program": True} if _has_no_program(done) else answer


def _has_no_program(done: Any) -> bool:
    return done.exit_code in NO_PROGRAM


def _last_line(done: Any) -> str:
    lines = done.error.strip().splitlines()
    return lines[-1] if lines else f"the command ended with exit code {done.exit_code}"
