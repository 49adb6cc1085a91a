"""The run's namespace: create it, and wait until a deleted namespace is gone."""

import sys
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from labkit.connection import awaited, core_api
from labkit.errors import LabError
from labkit.steps.ownership import existing

if TYPE_CHECKING:
    from labkit.workspace import Workspace

# Seconds to wait until a namespace is gone. Its pods get 30 s to end, and Kubernetes checks again after at least 16 s.
# https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
GONE_WITHIN = 120
SOON = 1  # second; a shorter wait prints nothing
AGAIN_AFTER = 0.2  # seconds between two checks


class NamespaceStays(LabError):
    """A deleted namespace still exists after `GONE_WITHIN` seconds."""


def ensure_namespace(lab: "Workspace") -> None:
    """Create the run's namespace if it's missing. If the namespace is being deleted, first wait until it's gone.

    Raises `NamespaceStays`.
    """
    core, name = core_api(lab.kubernetes), lab.parameters.namespace
    if _is_terminating(lab, name):
        for line in until_gone(lab, name):
            print(line, file=sys.stderr)
    if existing(partial(core.read_namespace, name)) is None:
        namespace = {"metadata": {"name": name, "labels": lab.labels}}
        existing(partial(core.create_namespace, namespace), none_at=409)  # 409: another kernel has just created it


def until_gone(lab: "Workspace", name: str) -> Iterator[str]:
    """Wait until the namespace is gone. If that takes longer than a second, yield a line to print.

    Raises `NamespaceStays`.

    https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/
    """
    is_gone = partial(awaited, lambda: not _is_terminating(lab, name), every=AGAIN_AFTER)
    if is_gone(within=SOON):
        return
    yield f"waiting at most {GONE_WITHIN} s until the namespace {name} is gone …"
    if is_gone(within=GONE_WITHIN):
        return
    left = existing(partial(core_api(lab.kubernetes).read_namespace, name))
    conditions = [each for each in (left and left.status.conditions) or [] if each.status == "True"]
    keeps = [f"{each.type}: {each.message.rstrip('.')}." for each in conditions]
    raise NamespaceStays(
        " ".join([f"The namespace {name} was deleted, and still exists after {GONE_WITHIN} s.", *keeps]),
        where=f"namespace {name}, which is Terminating",
        next=f"{lab.kubectl} get namespace {name} -o yaml   (its conditions say why it still exists). Once it is gone, "
        "run again",
    )


def _is_terminating(lab: "Workspace", name: str) -> bool:
    present = existing(partial(core_api(lab.kubernetes).read_namespace, name))
    return present is not None and present.metadata.deletion_timestamp is not None
