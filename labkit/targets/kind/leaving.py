"""Remove a cluster from the lab. Delete it if the lab made it. In any other cluster, delete only the lab's webhooks."""

import shlex
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from labkit import simulator
from labkit.connection import as_document, core_api
from labkit.errors import LabError
from labkit.run_parameters import LAB, LAB_LABEL
from labkit.targets.kind.cluster import call_api, may_not
from labkit.targets.kind.kubeconfig import Way

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

    from labkit.simulator import Facts, Folder, JoinedFolder

LABELLED = f"{LAB_LABEL}={LAB}"  # selects the objects that runs made


@dataclass(frozen=True)
class Left:
    """What the lab couldn't delete when it tried to remove a cluster from the lab.

    That is the kind cluster if the lab made it; otherwise, the lab's webhooks in the cluster.
    """

    what: str
    """A sentence that names what could not be deleted, and why."""
    command: str
    """The command that removes the leftovers."""
    forget: str
    """The command that makes a stopped lab forget this cluster."""


class LeftBehind(LabError):
    """Some clusters could not leave the lab. The lab remembers them, and `labkit down` tries again."""

    def __init__(self, left: Sequence[Left]):
        self.left = list(left)
        forget = "\n       ".join(one.forget for one in left)
        super().__init__(
            "\n".join(one.what for one in left),
            where="the lab has ended, but remembers the cluster; the next labkit down tries the deletion again",
            next=f"correct the cause and run labkit down, or delete the leftovers yourself:\n       {self._commands}\n"
            f"       or, if the cluster no longer exists, make the lab forget the cluster:\n       {forget}",
        )

    def forgotten(self, folder: "Folder") -> LabError:
        """Return the error to raise after `labkit reset`, with the commands that remove the leftovers."""
        return LabError(
            "\n".join(one.what for one in self.left),
            where=f"the lab in {folder.path} is empty, and has forgotten the cluster",
            next=f"if the cluster still exists, remove the lab's leftovers:\n       {self._commands}",
        )

    @property
    def _commands(self) -> str:
        return "\n       ".join(one.command for one in self.left)


def leave(kept: "JoinedFolder", folder: "Folder") -> Left | None:
    """Delete the cluster if the lab made it. Otherwise, delete the lab's webhooks from it. Then forget the cluster.

    If the deletion fails, return what couldn't be deleted, and don't forget the cluster.

    In a cluster that the lab didn't make, the runs' objects are kept and printed.
    """
    left = _left(kept, kept.facts, folder) if kept.facts else None
    if not left:
        kept.forget()
    return left


def _left(kept: "JoinedFolder", facts: "Facts", folder: "Folder") -> Left | None:
    """Delete the kind cluster or the lab's webhooks, and return any leftovers."""
    try:
        if facts.made:
            _delete(facts)
        else:
            # If the lab's server was killed, its webhooks are still in the cluster.
            _take_back_webhooks(kept, facts, folder)
    except LabError as error:
        if facts.made:
            what = f"The kind cluster {facts.made} could not be deleted"
            command = f"kind delete cluster --name {facts.made}"
        else:
            what = f"The lab's webhooks could not be deleted from the cluster of {facts.source}"
            command = f"{facts.kubectl} delete mutatingwebhookconfigurations -l {simulator.webhook_selector(folder)}"
        return Left(f"{what}: {error.what}", command, forget=f"rm -r {shlex.quote(str(kept.path))}")
    return None


def _delete(facts: "Facts") -> None:
    from labkit.targets.kind.program import KindProgram

    KindProgram().delete(facts.made)


def _take_back_webhooks(kept: "JoinedFolder", facts: "Facts", folder: "Folder") -> None:
    """Delete the lab's webhooks from the cluster.

    If the cluster still has objects that runs made, also print these objects and the commands that delete them.
    """
    from kubernetes.client import AdmissionregistrationV1Api
    from kubernetes.client.exceptions import ApiException
    from urllib3.exceptions import HTTPError

    way = Way.kept(kept)
    with closing(way.client()) as api:
        webhooks = AdmissionregistrationV1Api(api)
        listed, delete = webhooks.list_mutating_webhook_configuration, webhooks.delete_mutating_webhook_configuration
        for there in call_api(way, listed, may_not("list mutatingwebhookconfigurations")).items:
            if simulator.is_of_this_lab(as_document(api, there), folder):
                call_api(way, partial(delete, there.metadata.name), may_not("delete mutatingwebhookconfigurations"))
        with suppress(ApiException, HTTPError, OSError):
            if left := _of_runs(api):
                print(
                    f"The cluster of {facts.source} still has objects from earlier runs: {', '.join(left)}.\n"
                    f"To delete them:  {facts.kubectl} delete pods,serviceaccounts -A -l {LABELLED}\n"
                    f"                 {facts.kubectl} delete namespaces -l {LABELLED}"
                )


def _of_runs(api: "ApiClient") -> list[str]:
    core = core_api(api)
    of_runs = {
        "namespace": core.list_namespace,
        "service account": core.list_service_account_for_all_namespaces,
        "pod": core.list_pod_for_all_namespaces,
    }
    return [
        f"{kind} " + "/".join(filter(None, (one.metadata.namespace, one.metadata.name)))
        for kind, listed in of_runs.items()
        for one in listed(label_selector=LABELLED).items
    ]
