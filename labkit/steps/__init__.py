"""The steps of IRSA, one module for each step, and their order.

Each step has `TITLE`, `build(parameters, …)`, `ensure(lab)` and `resources(lab)`, of which a removal deletes the run's.
`labkit.doctor.checks` compares a step with the live lab. The last step, `credentials`, builds nothing, so it only has
`TITLE`. The module `bucket` creates the bucket that the pod reads. `ownership` says who owns a resource.
"""

import importlib
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from types import ModuleType
from typing import TYPE_CHECKING

from labkit.errors import UnknownName
from labkit.run_parameters import RUN_TAG
from labkit.showing import doing
from labkit.steps import bucket
from labkit.steps.ownership import OwnedResource, Owner, of_tags, removed
from labkit.workspace import Workspace

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import TagTypeDef

ORDER = ("oidc_provider", "iam_role", "service_account", "pod", "credentials")
MADE = ORDER[:-1]
IN_AWS = ORDER[:2]
# Another run may already use a name that these steps need, so they have `make_way(lab)`. It frees the name, or raises.
NAMED = MADE[1:]


def step(name: str) -> ModuleType:
    """Return the module of a step. Raises `UnknownName`."""
    if name not in ORDER:
        raise UnknownName("step", name, ORDER)
    return importlib.import_module(f"labkit.steps.{name}")


def before(name: str) -> tuple[str, ...]:
    """Return the names of the earlier steps. Raises `UnknownName`."""
    step(name)
    return ORDER[: ORDER.index(name)]


def through(name: str) -> tuple[str, ...]:
    """Return the names of this step and of the steps before it. Raises `UnknownName`."""
    return (*before(name), name)


def ready_before(lab: Workspace, name: str) -> Iterator[str]:
    """Build the steps before this step, and remove this step and the later ones. Yield the lines to print.

    Raises `UnknownName`. Raises `LabError` if a step can't be built.
    """
    made, later = before(name), ORDER[ORDER.index(name) :]
    took = _make_way(lab, later if lab.takes_untagged else ORDER)
    bucket.ensure(lab)
    things: Iterable[OwnedResource] = _to_be_made_again(lab, _made(lab, later))
    if lab.connection.shows_removal:
        things = [*things]
        yield from _announced(lab, things)
    with doing(f"Clearing the way for {step(name).TITLE}"):
        left = [line for line in removed(things) if line.startswith("left alone")]
    ready = f"Ready: {_make(lab, made)}" if made else "Clean start: nothing has been created yet"
    yield f"{ready}. Next: {step(name).TITLE}."
    yield from [*took, *left]


def ready_through(lab: Workspace, name: str) -> Iterator[str]:
    """Build this step and the steps before it. Leave later steps unchanged. Yield the lines to print.

    Raises `UnknownName`. Raises `LabError` if a step can't be built.
    """
    made = through(name)
    took = [] if lab.takes_untagged else _make_way(lab, made)
    bucket.ensure(lab)
    yield f"Ready: {_make(lab, made)}."
    yield from took


def remove(lab: Workspace) -> Iterator[str]:
    """Remove this run's resources, the last step's first. Yield a line for each removed or kept resource.

    Raises `LabError` at the end if a namespace still exists.
    """
    things: Iterable[OwnedResource] = resources(lab)
    if lab.connection.shows_removal:
        things = [*things]
        yield from _announced(lab, things)
    lines = removed(things)
    yield next(lines, "nothing to remove")
    yield from lines


def empty(lab: Workspace) -> None:
    """Delete this run's roles, OIDC providers and buckets in an account without a cluster."""
    for _ in removed(_to_be_made_again(lab, _in_aws(lab))):
        pass


def resources(lab: Workspace) -> Iterator[OwnedResource]:
    """Yield each resource that a removal finds, with its owner.

    The last step's resources come first. The resources in the lab's other account come last.
    """
    # If the cluster is gone, so are its objects.
    yield from _made(lab, ORDER if lab.connection.kubernetes else IN_AWS)
    yield from bucket.resources(lab)
    if other := lab.connection.other_account:
        for each in _in_aws(lab.in_account(other)):
            yield replace(each, thing=f"{each.thing} of account {other}")


def _to_be_made_again(lab: Workspace, things: Iterable[OwnedResource]) -> Iterator[OwnedResource]:
    """Yield `things`. On moto, the owner `TRUSTED` of an OIDC provider is replaced with `THIS_RUN`.

    The provider's owner is `TRUSTED` if roles outside this run trust the provider. `removed` doesn't delete a provider
    with this owner, but deletes one with the owner `THIS_RUN`. The notebook's next cells create the provider again.
    """
    for each in things:
        goes = each.owner is Owner.TRUSTED and lab.connection.is_embedded
        yield replace(each, owner=Owner.THIS_RUN) if goes else each


def _in_aws(lab: Workspace) -> list[OwnedResource]:
    return [*_made(lab, IN_AWS), *bucket.resources(lab)]


def _make_way(lab: Workspace, names: Iterable[str]) -> list[str]:
    """Free the names that the steps in `names` need, and return the lines to print.

    On the lab's own cluster, delete a service account or pod that has such a name and carries another run's label. On
    any other cluster, delete nothing. There, raise `NotThisRuns` if the object with such a name lacks this run's
    label.

    Never delete a role. Raises `RoleOfAnotherRun` if the role exists but isn't this run's. Raises `PodDoesNotRun` if a
    deleted pod doesn't end.
    """
    return [line for name in NAMED if name in names for line in step(name).make_way(lab)]


def _made(lab: Workspace, names: tuple[str, ...]) -> Iterator[OwnedResource]:
    for name in reversed(names):
        if name == "pod":
            yield from _associations(lab)
        if name in MADE:
            yield from step(name).resources(lab)


def _associations(lab: Workspace) -> Iterator[OwnedResource]:
    """Yield the cluster's EKS Pod Identity associations, each with its owner.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_ListPodIdentityAssociations.html
    """
    if not lab.connection.pod_identity:
        return
    eks, cluster = lab.aws.client("eks"), lab.parameters.cluster
    own = (lab.parameters.namespace, lab.parameters.service_account)
    for listed in eks.list_pod_identity_associations(clusterName=cluster)["associations"]:
        named = {"clusterName": cluster, "associationId": listed["associationId"]}
        tags = eks.describe_pod_identity_association(**named)["association"]["tags"]
        whose = (listed["namespace"], listed["serviceAccount"])
        run: list[TagTypeDef] = [{"Key": RUN_TAG, "Value": tags[RUN_TAG]}] if RUN_TAG in tags else []
        owner = of_tags(lab, run, same_name=whose == own)
        delete = partial(eks.delete_pod_identity_association, **named)
        yield OwnedResource(f"Pod Identity association of {'/'.join(whose)}", owner, delete)


def _make(lab: Workspace, names: tuple[str, ...]) -> str:
    modules = [step(name) for name in names if name in MADE]
    for module in modules:
        with doing(f"Making {module.TITLE}"):
            module.ensure(lab)
    *first, last = [module.TITLE for module in modules]
    return f"{', '.join(first)} and {last} exist" if first else f"{last} exists"


def _announced(lab: Workspace, things: Iterable[OwnedResource]) -> Iterator[str]:
    if going := [each.thing for each in things if each.goes]:
        yield "\n  ".join([f"These resources carry the tag labkit:run={lab.run}, and are deleted now:", *going])
