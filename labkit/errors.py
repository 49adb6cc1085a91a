"""The lab's own errors. Each error says what happened, where, and what to do next."""

import copyreg
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from labkit.showing import stable

if TYPE_CHECKING:
    from kubernetes.client.exceptions import ApiException

# AWS's error codes for a denied call. The last one is S3's answer to a HEAD, which has no message.
DENIED = ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403")
SOME_NAMESPACE = "NAMESPACE"
# The websocket client's text about a refused exec: the status, the headers and the body of the answer.
HANDSHAKE = re.compile(r"Handshake status (\d+) .* -\+-\+- (.*)", re.DOTALL)
# AWS's names for an organization's policies, in a denial's message.
BY_THE_ORGANIZATION = re.compile(r"(service|resource) control policy")


class LabError(Exception):
    """An error that the user can correct. Its text says what happened, where, and the next command.

    A notebook shows the text without a traceback.
    """

    exit_code = 1
    """The exit code of a command that ends with this error."""

    def __init__(self, what: str, *, where: str = "", next: str = ""):
        super().__init__(what)
        self.what = what
        self.where = where
        self.next = next

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.next:
            lines.append(f"next:  {self.next}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[Any, ...]:
        # Rebuild it from its attributes: the constructors of the errors below take other arguments.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]  # typeshed lacks it

    def _render_traceback_(self) -> list[str]:
        # IPython calls this instead of printing a traceback of its own.
        return [f"{type(self).__name__}: {self}"]


def in_a_terminal(name: str, value: str) -> str:
    """Return how a command sets a parameter. It ends an error's next step, which names what a notebook sets."""
    return f"   (in a terminal: --{name.replace('_', '-')} {value}, or -p {name}={value})"


class UnknownName(LabError):
    """A name isn't known. The message proposes the known name that begins with it, or else the most similar one."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, where: str = "", next: str = ""):
        known = list(known)
        longer = [each for each in known if name and (each.startswith(name) or each == f"{name:0>2}")]
        similar = longer or get_close_matches(name, known, n=1, cutoff=0.5)
        self.nearest = similar[0] if similar else None
        hint = f" Did you mean {self.nearest!r}?" if self.nearest else ""
        article = "an" if kind[0] in "aeiou" else "a"
        what = f"{name!r} is not {article} {kind}.{hint} There are: {', '.join(known)}."
        super().__init__(what, where=where, next=next)
        self.name = name


class NotAllowed(LabError):
    """AWS or the cluster accepts the caller's credentials, but refuses the call."""

    @classmethod
    def by_aws(cls, refusal: Mapping[str, str], doing: str) -> "NotAllowed":
        """Return the error for a call that AWS denied: `refusal` is the error in AWS's answer, `doing` names the call.

        If a policy of the organization denied the call, the error says that no permission in the account can allow it.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
        """
        message = without_session(refusal.get("Message", ""))
        if policy := BY_THE_ORGANIZATION.search(message):
            return cls(
                f"The organization's {policy[0]} does not allow {doing}: {message}",
                where="the organization that your AWS account belongs to",
                next="ask the organization's administrator, because no permission in your account can allow this call",
            )
        return cls(
            f"AWS does not allow {doing}: {message}",
            where="the permissions of your AWS credentials",
            next="labkit policy -p account_id=…, which prints the permissions that a run needs",
        )

    @classmethod
    def by_the_cluster(cls, error: object, namespace: str = SOME_NAMESPACE) -> "NotAllowed":
        """Return the error for a 403 from the cluster's API.

        The error names `namespace` only if the cluster's message names no namespace.

        https://kubernetes.io/docs/reference/access-authn-authz/admission-controllers/
        """
        said = said_by_the_cluster(error)
        if named := re.search(r'in (?:the )?namespace "?([a-z0-9-]+)', said):
            namespace = named[1]
        reason = next((reason for reason in REASONS if re.search(reason.words, said)), NOT_PERMITTED)
        return cls(
            reason.what.format(said=said, namespace=namespace),
            where=reason.where.format(namespace=namespace),
            next=reason.next.format(namespace=namespace),
        )


class NoCredentials(LabError):
    """This machine's AWS credentials are missing, have expired, or are unknown to AWS."""


@dataclass(frozen=True)
class Reason:
    """A reason why an API server answers 403.

    `words` is a regular expression for the API server's message. The other fields are the texts of a `LabError`.
    """

    words: str
    what: str
    where: str
    next: str


NOT_PERMITTED = Reason(
    "",
    "The cluster does not allow this call: {said}",
    where="RBAC: the permissions of your user in the cluster",
    next="kubectl auth can-i --list -n {namespace}\n"
    "       the permissions that a run needs, for the cluster's administrator:\n"
    "       labkit policy --kubernetes -p namespace={namespace}",
)
REASONS = (
    # https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
    Reason(
        "because it is being terminated",
        "The namespace {namespace} is being deleted and accepts no new objects: {said}",
        where="namespace {namespace}, which is Terminating",
        next="kubectl wait --for=delete namespace/{namespace} --timeout=120s, and run again",
    ),
    # https://kubernetes.io/docs/concepts/security/pod-security-admission/
    Reason(
        "violates PodSecurity",
        "The Pod Security Standard of the namespace {namespace} refuses the pod: {said}",
        where="namespace {namespace}, its label pod-security.kubernetes.io/enforce",
        next="choose another namespace, and run again   (each namespace's standard: "
        "kubectl get namespaces -L pod-security.kubernetes.io/enforce)",
    ),
    # https://kubernetes.io/docs/concepts/policy/resource-quotas/
    Reason(
        "(exceeded|failed) quota: ",
        "A quota of the namespace {namespace} refuses the object: {said}",
        where="namespace {namespace}, its ResourceQuota",
        next="delete objects that you no longer need in the namespace, or choose another one, and run again   (in use: "
        "kubectl describe resourcequota -n {namespace})",
    ),
    # https://kubernetes.io/docs/concepts/policy/limit-range/
    Reason(
        r"(minimum|maximum) \S+ (usage|limit|request)|max limit to request ratio",
        "A limit range of the namespace {namespace} refuses the object: {said}",
        where="namespace {namespace}, its LimitRange",
        next="choose another namespace, and run again   (the limits: kubectl describe limitrange -n {namespace})",
    ),
    # https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    Reason(
        "^admission webhook |ValidatingAdmissionPolicy ",
        "An admission rule of the cluster refuses the request: {said}",
        where="the rule that the cluster's message names",
        next="ask the cluster's administrator what the rule requires   (the rules: kubectl get "
        "validatingwebhookconfigurations,mutatingwebhookconfigurations,validatingadmissionpolicies)",
    ),
)


def by_the_cluster(error: Exception, namespace: str = SOME_NAMESPACE) -> LabError | None:
    """Return a `LabError` in place of an `ApiException` of the cluster's client; None for any other error."""
    # If this slow library isn't loaded yet, the error can't come from it.
    kubernetes = sys.modules.get("kubernetes.client.exceptions")
    if kubernetes is None or not isinstance(error, kubernetes.ApiException):
        return None
    if error.status == 403:
        return NotAllowed.by_the_cluster(error, namespace)
    if error.status == 401:
        return LabError(
            "The cluster does not accept your credentials (401 Unauthorized).",
            where="the kubeconfig's user",
            next="correct the credentials until this command shows your user:  kubectl auth whoami",
        )
    return LabError(
        f"The cluster answers {error.status or 'as follows'}: {said_by_the_cluster(error)}",
        where="the cluster's API",
        next="run again, because someone may have changed the object meanwhile. If it fails again:  labkit status",
    )


def said_by_the_cluster(error: Any, otherwise: str = "") -> str:
    """Return the message in the answer of a Kubernetes API server; `error` is an `ApiException`.

    Without a message, return `otherwise` or, by default, the HTTP status and its reason.
    """
    try:
        message: str = json.loads(error.body)["message"]
        return message
    except (TypeError, ValueError, KeyError):
        # The reason of a refused exec ends with these characters and the answer's headers.
        return otherwise or f"{error.status or ''} {str(error.reason).partition(' -+-+- ')[0]}".strip()


def with_answer(error: "ApiException") -> "ApiException":
    """Give the `ApiException` of a refused exec the status and the body of the API server's answer, and return it.

    The client keeps this answer only in the exception's `reason`. Without an answer, the status stays 0.
    """
    if answer := HANDSHAKE.match(str(error.reason)):
        error.status, error.body = int(answer[1]), answer[2]
    return error


def the_stop(error: BaseException) -> KeyboardInterrupt | None:
    """Return the `KeyboardInterrupt` that the cluster's client hid in this `ApiException` of an exec; None otherwise.

    https://github.com/kubernetes-client/python/blob/master/kubernetes/base/stream/ws_client.py
    """
    hidden = error.__context__ if hasattr(error, "status") and not error.status else None
    return hidden if isinstance(hidden, KeyboardInterrupt) else None


def without_session(message: str) -> str:
    """Return AWS's message with `<session name>` in place of the session's name, which may be a person's name."""
    return re.sub(r"(:assumed-role/[^/\s]+/)\S+", r"\1<session name>", message)


@contextmanager
def answering(namespace: str = SOME_NAMESPACE) -> Iterator[None]:
    """Raise `LabError` if AWS or the cluster refuses a call in this block, or doesn't answer it.

    The error may name `namespace`, the Kubernetes namespace of the calls.
    """
    from botocore.exceptions import ClientError, ConnectionError, HTTPClientError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except ClientError as error:
        if error.response["Error"].get("Code") not in DENIED:
            raise
        raise NotAllowed.by_aws(error.response["Error"], error.operation_name) from None
    except (ConnectionError, HTTPClientError, HTTPError, LabError) as error:
        if isinstance(error, LabError) and not getattr(error, "no_answer", False):
            raise
        raise LabError(
            "The lab no longer answers.",
            where=_endpoint(error) or "AWS's or the cluster's endpoint",
            next="run again the cell that opens the lab. The cell starts the lab if needed, or says what is wrong\n"
            "       (in a terminal: labkit up, or labkit plan -p target=eks …)",
        ) from None
    except Exception as error:
        if cluster_error := by_the_cluster(error, namespace):
            raise cluster_error from None
        raise


class NotDenied(LabError, AssertionError):
    """AWS should refuse a call, but allowed it, or refused it with another error code."""


@contextmanager
def expect_denied(code: str = "AccessDenied") -> Iterator[None]:
    """Run a block in which AWS should refuse a call with exactly this error code. Print AWS's message.

    Raises:
        NotDenied: AWS allowed the call, or refused it with another error code.

    https://docs.aws.amazon.com/STS/latest/APIReference/CommonErrors.html
    """
    from botocore.exceptions import ClientError

    try:
        yield
    except ClientError as error:
        refusal = error.response["Error"]
        said = stable(f"{refusal.get('Code')}: {refusal.get('Message')}")
        if refusal.get("Code") != code:
            raise NotDenied(
                f"expected {code}, but AWS said {said}",
                next="lab.diagnose() shows what is wrong",
            ) from None
        print(said)
    else:
        raise NotDenied(
            f"expected {code}, but AWS allowed it",
            next="lab.trail(last=3) shows the last decisions and their reasons",
        )


def _endpoint(error: Exception) -> str:
    if isinstance(error, LabError):
        return error.what
    if url := getattr(error, "kwargs", {}).get("endpoint_url"):
        return str(url)
    pool = getattr(error, "pool", None)
    return f"{pool.scheme}://{pool.host}:{pool.port}" if pool else ""
