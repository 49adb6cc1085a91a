"""Who owns a resource: this run, another run, or nobody."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.errors import LabError
from labkit.run_parameters import RUN_LABEL, RUN_TAG

if TYPE_CHECKING:
    from labkit.workspace import Workspace

Present = TypeVar("Present")
NAMED = 5  # roles that are named of those that keep a thing


class Owner(Enum):
    """What becomes of a thing when a run is removed."""

    THIS_RUN = "removed {}"
    NOBODY = "removed {}: it carries no tag, and has exactly this run's name"
    ANOTHER_RUN = "left alone {}: it carries the tag of another run{}"
    UNTAGGED = "left alone {}: it carries no tag of the lab"
    SHARED = "left alone {}: others are in it"
    TRUSTED = "left alone {}: {}"
    STRANGER = ""

    def line(self, thing: str, others: str = "") -> str:
        """The line about the resource, with the others that it names; empty for resources of others."""
        return self.value.format(thing, others)


GOES = (Owner.THIS_RUN, Owner.NOBODY)


@dataclass(frozen=True)
class Found:
    """A resource that a run's removal finds: its owner, and how to delete it."""

    thing: str
    owner: Owner
    delete: Callable[[], object]
    others: str = ""
    """Who keeps it, and what takes it, where the owner's line names them."""
    until_gone: Callable[[], Iterator[str]] | None = None
    """Wait until it is gone; yield lines to show meanwhile. Raise `LabError` if it stays."""

    @property
    def goes(self) -> bool:
        """Whether the removal deletes it."""
        return self.owner in GOES

    @property
    def line(self) -> str:
        """The line about its removal; empty for resources of others."""
        return self.owner.line(self.thing, self.others)

    def remove(self) -> str:
        """Delete it if it may go. Return the line that says so, or why it was kept."""
        if self.goes:
            self.delete()
        return self.line


def removed(found: Iterable[Found]) -> Iterator[str]:
    """Delete what may go, and wait until it is gone. Return a line for each deleted thing, and for each that was kept.

    Raises `LabError` if something stays; all else has gone then.
    """
    ending = []
    for each in found:
        line = each.remove()
        if each.goes and each.until_gone:
            ending.append(each)
        elif line:
            yield line
    for each in ending:
        if each.until_gone:
            yield from each.until_gone()
        yield each.line


def of_tags(lab: "Workspace", tags: Iterable[Mapping[str, str]], *, same_name: bool) -> Owner:
    """The owner of an AWS object with these tags; `same_name`: it has exactly the name in the parameters."""
    return _owner(lab, run_of(tags), lab.parameters.run, same_name)


def run_of(tags: Iterable[Mapping[str, str]]) -> str | None:
    """The run whose tag is among these, cluster/namespace/service account/role; None without such a tag."""
    return next((tag["Value"] for tag in tags if tag["Key"] == RUN_TAG), None)


def roles_trusting(lab: "Workspace", provider: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """The names and tags of the account's roles whose trust policy holds this (part of an) OIDC provider's ARN.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
    """
    iam = lab.aws.client("iam")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if provider in json.dumps(role["AssumeRolePolicyDocument"]):
                # It may have been deleted just now.
                with suppress(iam.exceptions.NoSuchEntityException):
                    yield role["RoleName"], iam.list_role_tags(RoleName=role["RoleName"])["Tags"]


def in_words(names: list[str], singular: str, plural: str) -> str:
    """A sentence about the roles: `the role a trusts it`. Only the first few are named."""
    if len(names) == 1:
        return f"the role {names[0]} {singular}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"the roles {', '.join(names[:NAMED])}{more} {plural}"


def of_labels(lab: "Workspace", labels: Mapping[str, str] | None, *, same_name: bool) -> Owner:
    """The owner of a Kubernetes object with these labels."""
    return _owner(lab, (labels or {}).get(RUN_LABEL), lab.labels[RUN_LABEL], same_name)


class NotThisRuns(LabError):
    """A Kubernetes object of this name exists, and this run didn't make it."""


def existing(read: Callable[[], Present]) -> Present | None:
    """The Kubernetes object that this call reads; None if it was not found."""
    from kubernetes.client.exceptions import ApiException

    try:
        return read()
    except ApiException as error:
        if error.status != 404:
            raise
        return None


def take_name(lab: "Workspace", kind: str, name: str, present: Any, delete: Callable[[], object]) -> list[str]:
    """Delete another run's object of this name on a cluster of the lab's own; return a line about it.

    Raises `NotThisRuns` on any other cluster.
    """
    if present is None:
        return []
    refuse_another_runs(lab, present.metadata, f"{kind} {name}")
    if of_labels(lab, present.metadata.labels, same_name=True) is not Owner.ANOTHER_RUN:
        return []
    delete()
    namespace = lab.parameters.namespace
    return [f"removed {kind} {namespace}/{name}: it bore the tag of another run, and this run's name"]


def refuse_another_runs(lab: "Workspace", metadata: Any, thing: str) -> None:
    """Raise `NotThisRuns` if taking over another owner's object could cost them their work."""
    owner = of_labels(lab, metadata.labels, same_name=True)
    # On a cluster of the lab's own, one name is one thing: the last run has it.
    if owner is Owner.UNTAGGED or (owner is Owner.ANOTHER_RUN and not lab.takes_untagged):
        raise NotThisRuns(
            f"This run of the lab didn't make the {thing}. It was left unchanged.",
            where=f"namespace {lab.parameters.namespace}",
            next="choose another namespace or service_account, and run again",
        )


def _owner(lab: "Workspace", run: str | None, this_run: str, same_name: bool) -> Owner:
    if run == this_run:
        return Owner.THIS_RUN
    if not same_name:
        return Owner.STRANGER
    if run is not None:
        return Owner.ANOTHER_RUN
    # The article's own commands set no tags; where nothing is lost with them, they count as this run's.
    return Owner.NOBODY if lab.takes_untagged else Owner.UNTAGGED
