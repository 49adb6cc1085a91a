"""What `--probe` shows: the pod's token and identity in AWS, STS's answer to the token, and the dry run of such a pod.

A dry run goes through admission and its webhooks, but stores nothing. It needs permission to create pods, and the
audit log and the counters show it. So the doctor makes a dry run only with `--probe`.

https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#monitoring-admission-webhooks
"""

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property

from labkit.connection import Connection
from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.doctor.evidence.pod_spec import REGIONS, ROLE, TOKEN_FILE, Container, PodSpec
from labkit.doctor.evidence.reading import Answer, Document, NotRead, Read, Reads, known
from labkit.errors import LabError, NotAllowed, said_by_the_cluster
from labkit.execution import Executed, execute
from labkit.policy.arn import Arn
from labkit.tokens import NotAToken, read_jwt

WHO_AM_I = ["aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"]
# The CLI caches a session in ~/.aws/cli/cache. With an empty HOME and the same config files, it gets a new session.
# https://github.com/aws/aws-cli/blob/v2/awscli/customizations/assumerole.py
# https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-role.html#cli-configure-role-cache
ANEW = r"""
old=${HOME:-~}
at() {
  case $1 in
    "") echo "$old/.aws/$2" ;;
    "~/"*) echo "$old/${1#??}" ;;
    *) echo "$1" ;;
  esac
}
new=$(mktemp -d 2>/dev/null || mktemp -d /dev/shm/labkit.XXXXXX 2>/dev/null)
AWS_CONFIG_FILE=$(at "$AWS_CONFIG_FILE" config)
AWS_SHARED_CREDENTIALS_FILE=$(at "$AWS_SHARED_CREDENTIALS_FILE" credentials)
export AWS_CONFIG_FILE AWS_SHARED_CREDENTIALS_FILE
HOME=${new:-$old} "$@"
code=$?
[ -z "$new" ] || rm -r "$new"
exit $code
"""
# A shell or a container runtime ends with one of these exit codes if a program is missing.
NO_PROGRAM = (126, 127)
# The effective ids. https://man7.org/linux/man-pages/man5/proc_pid_status.5.html
OF_PROCESS = re.compile(r"^Uid:\s+\d+\s+(\d+).*\nGid:\s+\d+\s+(\d+).*\n(?:.*\n)?Groups:([\t \d]*)", re.MULTILINE)
METRICS = "/metrics"
FAIL_OPEN = "apiserver_admission_webhook_fail_open_count"
REJECTION = "apiserver_admission_webhook_rejection_count"
# Each API server of a cluster keeps its own counters. The start time shows which API server answered.
STARTED = "process_start_time_seconds"
COUNTED = re.compile(rf"^((?:{FAIL_OPEN}|{REJECTION}|{STARTED})(?:{{.*}})?) (\S+)$", re.MULTILINE)
NOT_CALLED = "failed calling webhook"
# Fields that the scheduler sets, or that a new pod can't have.
LEFT_OUT = ("nodeName", "ephemeralContainers")


@dataclass(frozen=True)
class CallerIdentity:
    """The pod's identity according to AWS, or the error that `aws` printed in the pod."""

    arn: str
    error: str = ""

    @property
    def role_name(self) -> str:
        """The name of the session's role; empty if the caller isn't a role session."""
        return named.session_role if (named := Arn.find(self.arn)) else ""

    @property
    def identity(self) -> str:
        """The caller as text: `assumed-role/ROLE` for a role session, the ARN for any other caller.

        If AWS named no caller, this is the error's text.
        """
        if not self.arn:
            return self.error
        return f"assumed-role/{self.role_name}" if self.role_name else self.arn


@dataclass(frozen=True)
class ProbedToken:
    """The header and claims of a token in a pod. The signature isn't verified, and the token itself isn't kept."""

    header: Document
    claims: Document
    unreadable: str = ""
    """The reason why the file couldn't be read, in the words of `cat`."""
    malformed: str = ""
    """The reason why the file's content isn't a token."""

    @property
    def key_id(self) -> str:
        """The id of the key that signed the token (`kid`)."""
        return str(self.header.get("kid", ""))


@dataclass(frozen=True)
class Exchange:
    """STS's answer to the pod's token: the session's ARN, or the error's code and message."""

    arn: str
    code: str = ""
    message: str = ""


@dataclass(eq=False)
class Probe:
    """The commands that the doctor runs in the pod. Every property raises `NotRead` if probing isn't allowed."""

    pod: PodSpec | None
    connection: Connection
    reads: Reads
    region: str
    """The region of the STS endpoint if the container sets no region."""
    allowed: bool
    """Whether the doctor may run commands in the pod."""
    _secret = ""

    @property
    def caller(self) -> CallerIdentity | None:
        """The pod's identity according to AWS: sts:GetCallerIdentity, called in the pod. None if the pod isn't running.

        Raises `NotRead` if the container has no `aws`.
        """
        if self._running is None:
            return None
        read, answer = self._once("sts:GetCallerIdentity", lambda: _said(self._with_new_session()))
        if answer.get("no_program"):
            raise NotRead(read, "the container has no program `aws`", "an image with the AWS CLI")
        return CallerIdentity(answer["arn"], answer["error"])

    @property
    def cli_region(self) -> str | None:
        """The region that `aws` in the container uses; empty if it knows none. None if `aws` doesn't say it.

        https://docs.aws.amazon.com/cli/latest/reference/configure/list.html
        """
        if self._running is None:
            return None
        _, answer = self._once("the AWS CLI's region", self._configured_region)
        return str(answer["region"]) if "region" in answer else None

    @property
    def token(self) -> ProbedToken | None:
        """The token in the file that the container's variables name; None without the variables or a running pod.

        Raises `NotRead` if the container has no `cat`.
        """
        container = self.container
        if self._running is None or container is None or not _has_role(container):
            return None
        read, answer = self._once("the token's claims", lambda: self._parsed(self._cat(container)))
        if answer.get("no_program"):
            raise NotRead(read, "the container has no program `cat`", "an image with cat")
        return ProbedToken(answer["header"], answer["claims"], answer["unreadable"], answer["malformed"])

    @property
    def processes(self) -> list[list[int]]:
        """Each process of the container: its user, then its groups. Empty without a running pod.

        Raises `NotRead` if the container has no `sh` or no `cat`.
        """
        if self._running is None:
            return []
        read, answer = self._once("the processes' users", self._users_and_groups)
        if not answer["users"]:
            raise NotRead(read, "the container doesn't show its processes", "an image with sh and cat")
        return list(answer["users"])

    @property
    def exchange(self) -> Exchange | None:
        """STS's answer when this machine sends the pod's token and role; None without a readable token.

        https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
        """
        token, container = self.token, self.container
        if token is None or token.unreadable or token.malformed or container is None:
            return None
        what = "sts:AssumeRoleWithWebIdentity with the token"
        _, answer = self._once(what, lambda: self._exchanged(container))
        return Exchange(**answer)

    @cached_property
    def container(self) -> Container | None:
        """The container to probe: the first with the role's variables, else the first."""
        running = [container for container in self.pod.containers if not container.is_init] if self.pod else []
        return next(filter(_has_role, running), next(iter(running), None))

    # How the doctor probes.

    @property
    def _running(self) -> PodSpec | None:
        return self.pod if self.pod and self.pod.phase == "Running" and not self.pod.stopped else None

    def _with_new_session(self) -> Executed:
        done = self._execute(["sh", "-c", ANEW, "sh", *WHO_AM_I])
        # An image may have `aws` and no shell.
        return self._execute(WHO_AM_I) if _lacks_program(done) else done

    def _configured_region(self) -> Document:
        # Without keys, `aws` would ask STS for some first, and say nothing if STS refuses.
        keys = ("AWS_ACCESS_KEY_ID=none", "AWS_SECRET_ACCESS_KEY=none")
        done = self._execute(["env", *keys, "aws", "configure", "list"])
        region = re.search(r"^\s*region\s+:?\s*(\S+)", done.output, re.MULTILINE) if done.exit_code == 0 else None
        return {"region": "" if region[1].startswith("<not") else region[1]} if region else {}

    def _cat(self, container: Container) -> Executed:
        return self._execute(["cat", container.value(TOKEN_FILE)])

    def _users_and_groups(self) -> Document:
        done = self._execute(["sh", "-c", "cat /proc/[0-9]*/status"])
        return {"users": processes(done.output)}

    def _parsed(self, done: Executed) -> Document:
        answer: Document = {
            "header": {},
            "claims": {},
            "unreadable": "",
            "malformed": "",
            "no_program": _lacks_program(done),
        }
        if done.exit_code != 0:
            return answer | {"unreadable": _last_line(done)}
        # Don't strip the text: a token contains no white space, not even a newline at its end.
        self._secret = done.output
        try:
            header, claims = read_jwt(done.output)
        except NotAToken as error:
            return answer | {"malformed": str(error)}
        return answer | {"header": header, "claims": claims}

    def _exchanged(self, container: Container) -> dict[str, str]:
        from botocore import UNSIGNED
        from botocore.config import Config
        from botocore.exceptions import ClientError

        # Answers keep the claims, but not the token. If it wasn't read just now, read it again.
        token = self._secret or self._cat(container).output
        region = next(filter(None, map(container.value, REGIONS)), self.region)
        sts = self.connection.aws.client("sts", region_name=region, config=Config(signature_version=UNSIGNED))
        try:
            answer = sts.assume_role_with_web_identity(
                RoleArn=container.value(ROLE), RoleSessionName="labkit-doctor", WebIdentityToken=token
            )
        except ClientError as error:
            said = error.response["Error"]
            return {"arn": "", "code": said.get("Code", ""), "message": said.get("Message", "")}
        return {"arn": answer["AssumedRoleUser"]["Arn"], "code": "", "message": ""}

    def _execute(self, command: list[str]) -> Executed:
        pod, container, api = self.pod, self.container, self.connection.kubernetes
        if pod is None or container is None or api is None:
            raise LabError("The doctor has no pod in which to run commands.", where=self.connection.issuer)
        try:
            return execute(api, pod.name, pod.namespace, command, container=container.name)
        except NotAllowed as refusal:
            raise NotRead(self._named("exec"), refusal.what, "permission to get and create pods/exec") from None

    def _once(self, what: str, call: Callable[[], Answer]) -> tuple[Read, Answer]:
        read = self._named(what)
        if not self.allowed:
            raise NotRead(read, "the pod was not probed", "--probe")
        return read, self.reads.once(read, call)

    def _named(self, what: str) -> Read:
        name, namespace = (self.pod.name, self.pod.namespace) if self.pod else ("", "")
        return Read(f"{what} in pod", name, f"-n {namespace}", "the pod")


@dataclass(eq=False)
class DryRun:
    """The dry run of a pod like the examined one.

    `gives_role`, `gives_pod_identity` and `failed_call` raise `NotRead` if dry runs aren't allowed (no `--probe`) or if
    the API server refuses.
    """

    pod: PodSpec | None
    cluster: ClusterApi
    reads: Reads
    allowed: bool

    @property
    def gives_role(self) -> bool:
        """Whether the webhook now gives a role to a pod like the examined one."""
        return bool(self._made["has_role"])

    @property
    def gives_pod_identity(self) -> bool:
        """Whether the webhook now gives such a pod the variables of EKS Pod Identity."""
        return bool(self._made.get("has_pod_identity"))

    def failed_call(self, webhooks: Iterable[str]) -> str:
        """Return why the API server couldn't call one of these webhooks; empty if no call failed.

        Raises `NotRead` if the server's counters of failed calls can't be read or compared.
        """
        if refused := self._made["refused"]:
            return str(refused)
        if self.gives_role or self.gives_pod_identity:
            return ""
        before, after = self._counters(""), self._counters("once more")
        if before.get(STARTED) != after.get(STARTED):
            why = "another API server answered, so the counters can't be compared"
            raise NotRead(self._metrics("once more"), why, "--probe")
        for counter, value in after.items():
            if _is_about_a_failed_call(counter, webhooks) and value > before.get(counter, 0):
                return f"{counter} rose from {before.get(counter, 0):.0f} to {value:.0f} during a dry run"
        return ""

    @cached_property
    def _made(self) -> Document:
        """The dry run's result, with the keys `has_role`, `has_pod_identity` and `refused`."""
        pod = self.pod
        read = Read("create pod --dry-run=server, like", pod.name if pod else "", f"-n {pod.namespace if pod else ''}")
        if not self.allowed or pod is None:
            raise NotRead(read, "the doctor did not test what the webhook does to a pod like this", "--probe")
        with suppress(NotRead):
            self._counters("")
        made: Document = self.reads.once(read, lambda: self._tried(pod))
        return made

    def _tried(self, pod: PodSpec) -> Document:
        from kubernetes.client.exceptions import ApiException

        metadata = {"generateName": "labkit-doctor-", "labels": pod.labels, "annotations": pod.annotations}
        spec = {key: value for key, value in pod.spec.items() if key not in LEFT_OUT}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        try:
            made = PodSpec(self.cluster.created_as_dry_run(pod.namespace, manifest), self.cluster)
        except ApiException as error:
            said = said_by_the_cluster(error)
            if error.status != 500 or NOT_CALLED not in said:
                raise
            return {"has_role": False, "has_pod_identity": False, "refused": said}
        return {"has_role": made.is_mutated, "has_pod_identity": made.has_pod_identity, "refused": ""}

    def _counters(self, time: str) -> dict[str, float]:
        read = self._metrics(time)
        counters: dict[str, float] | None = self.reads.once(
            read, lambda: {counter: float(value) for counter, value in COUNTED.findall(self.cluster.raw(METRICS))}
        )
        if counters is None:
            raise NotRead(read, "the API server has no such page")
        return counters

    @staticmethod
    def _metrics(time: str) -> Read:
        return Read("get --raw", METRICS, time)


def processes(status: str) -> list[list[int]]:
    """Return the user and the groups of each process in this content of `/proc/PID/status`."""
    return [[int(user), int(group), *map(int, more.split())] for user, group, more in OF_PROCESS.findall(status)]


def _is_about_a_failed_call(counter: str, webhooks: Iterable[str]) -> bool:
    # A webhook that rejects a request has answered the call.
    is_refusal = counter.startswith(REJECTION) and 'error_type="no_error"' in counter
    return not is_refusal and any(f'name="{name}"' in counter for name in webhooks)


def _has_role(container: Container) -> bool:
    return known(lambda: container.has_role, False)


def _said(done: Executed) -> Document:
    if done.exit_code == 0:
        return {"arn": done.output.strip(), "error": ""}
    answer = {"arn": "", "error": _last_line(done)}
    return answer | {"no_program": True} if _lacks_program(done) else answer


def _lacks_program(done: Executed) -> bool:
    return done.exit_code in NO_PROGRAM


def _last_line(done: Executed) -> str:
    lines = done.error.strip().splitlines()
    return lines[-1] if lines else f"the command ended with exit code {done.exit_code}"
