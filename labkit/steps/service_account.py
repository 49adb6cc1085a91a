"""Step 3: create a service account, annotated with the role's ARN."""

from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import documents
from labkit.connection import core_api
from labkit.documents import ROLE_ANNOTATION as KEY
from labkit.run_parameters import RUN_LABEL
from labkit.steps.namespace import ensure_namespace, until_gone
from labkit.steps.ownership import OwnedResource, Owner, existing, of_labels, refuse_another_runs, take_name

if TYPE_CHECKING:
    from labkit.workspace import Workspace

TITLE = "the service account"
build = documents.service_account


def ensure(lab: "Workspace") -> None:
    """Create the namespace and the service account if they're missing. Restore an existing account's annotations."""
    core = core_api(lab.kubernetes)
    ensure_namespace(lab)
    wanted = build(lab.parameters, lab.role_arn)
    name, namespace = lab.parameters.service_account, lab.parameters.namespace
    if existing(partial(core.create_namespaced_service_account, namespace, wanted), none_at=409):
        return
    present = core.read_namespaced_service_account(name, namespace)
    refuse_another_runs(lab, present.metadata, f"service account {name}")
    annotations = {
        key: value
        for key, value in (present.metadata.annotations or {}).items()
        if not key.startswith("eks.amazonaws.com/") and not key.endswith(("/role-arn", "/role"))
    }
    before = present.metadata.annotations, present.metadata.labels
    present.metadata.annotations = {**annotations, KEY: lab.role_arn}
    present.metadata.labels = {**(present.metadata.labels or {}), **lab.labels}
    if before != (present.metadata.annotations, present.metadata.labels):
        core.replace_namespaced_service_account(name, namespace, present)


def resources(lab: "Workspace") -> Iterator[OwnedResource]:
    """Yield the cluster's service accounts and the run's namespaces, each with its owner.

    A namespace that contains pods or service accounts of other owners has the owner `SHARED`, so the removal keeps it.
    """
    core = core_api(lab.kubernetes)
    for account in core.list_service_account_for_all_namespaces().items:
        name, namespace = account.metadata.name, account.metadata.namespace
        same_name = (name, namespace) == (lab.parameters.service_account, lab.parameters.namespace)
        if name == "default":
            continue
        owner = of_labels(lab, account.metadata.labels, same_name=same_name)
        # The account may already be gone with its namespace.
        delete = partial(existing, partial(core.delete_namespaced_service_account, name, namespace))
        yield OwnedResource(f"service account {namespace}/{name}", owner, delete)
    selector = f"{RUN_LABEL}={lab.labels[RUN_LABEL]}"
    for namespace in core.list_namespace(label_selector=selector).items:
        name = namespace.metadata.name
        accounts, pods = core.list_namespaced_service_account(name).items, core.list_namespaced_pod(name).items
        others = [one for one in (*accounts, *pods) if not _goes_with(lab, one.metadata)]
        owner = Owner.SHARED if others else Owner.THIS_RUN
        yield OwnedResource(
            f"namespace {name}",
            owner,
            partial(existing, partial(core.delete_namespace, name)),
            until_gone=partial(until_gone, lab, name),
        )


def _goes_with(lab: "Workspace", metadata: Any) -> bool:
    """Return whether the pod or service account may be deleted together with its namespace."""
    return metadata.name == "default" or of_labels(lab, metadata.labels, same_name=False) is Owner.THIS_RUN


def make_way(lab: "Workspace") -> list[str]:
    """Return a list with one line about the deleted service account; an empty list if nothing was deleted.

    On the lab's own cluster, delete the service account `parameters.service_account` if it carries another run's label.
    On any other cluster, raise `NotThisRuns` if the service account doesn't carry this run's label.
    """
    core = core_api(lab.kubernetes)
    name, namespace = lab.parameters.service_account, lab.parameters.namespace
    present = existing(lambda: core.read_namespaced_service_account(name, namespace))
    delete = partial(core.delete_namespaced_service_account, name, namespace)
    return take_name(lab, "service account", name, present, delete)
