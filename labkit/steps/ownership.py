"""Who owns a resource: this run, another run, or nobody."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.errors import LabError
from labkit.policy.wildcards import wildcard
from labkit.policy.written import conditions_of, name_of, statements_of
from labkit.run_parameters import RUN_LABEL, RUN_TAG

if TYPE_CHECKING:
    from types_boto3_iam.type_defs import RoleTypeDef, TagTypeDef

    from labkit.workspace import Workspace

Present = TypeVar("Present")
NAMED = 5  # the most roles that a line names
SERVICE_ACCOUNT = "system:serviceaccount:"


class Owner(Enum):
    """The owner of a resource. The value is the line that a removal prints about it: see `OwnedResource.line`.

    A `STRANGER` owns a resource that carries neither this run's tag nor a name that this run uses.
    """

    THIS_RUN = "removed {}"
    NOBODY = "removed {}: it carries no tag, and its name is exactly the name that this run uses"
    ANOTHER_RUN = "left alone {}: it carries the tag of another run{}"
    UNTAGGED = "left alone {}: it carries no tag of the lab{}"
    SHARED = "left alone {}: it contains objects of others"
    TRUSTED = "left alone {}: {}"
    STRANGER = ""

    @property
    def goes(self) -> bool:
        """Whether a removal deletes the owner's resources."""
        return self in (Owner.THIS_RUN, Owner.NOBODY)


@dataclass(frozen=True)
class OwnedResource:
    """A resource that a run's removal finds, with its owner and the function that deletes it."""

    thing: str
    owner: Owner
    delete: Callable[[], object]
    others: str = ""
    """The end of `line`: who needs the resource, and perhaps the command that deletes it later."""
    until_gone: Callable[[], Iterator[str]] | None = None
    """Wait until the resource is gone, and yield lines to print. Raises `LabError` if that takes too long."""

    @property
    def goes(self) -> bool:
        """Whether the removal deletes the resource."""
        return self.owner.goes

    @property
    def listed(self) -> str:
        """The resource in a list of those that a removal will delete. It says if the resource carries no tag."""
        return f"{self.thing}, which carries no tag" if self.owner is Owner.NOBODY else self.thing

    @property
    def line(self) -> str:
        """The line about the resource's removal; empty if the owner is `STRANGER`."""
        return self.owner.value.format(self.thing, self.others)


def removed(resources: Iterable[OwnedResource]) -> Iterator[str]:
    """Delete the resources that may be deleted, and wait until they're gone.

    Yield a line for each deleted or kept resource. Raises `LabError` at the end if a resource still exists.
    """
    ending = []
    for each in resources:
        if each.goes:
            each.delete()
        if each.goes and each.until_gone:
            ending.append(each)
        elif each.line:
            yield each.line
    for each in ending:
        if each.until_gone:
            yield from each.until_gone()
        yield each.line


def of_tags(lab: "Workspace", tags: "Iterable[TagTypeDef]", *, same_name: bool) -> Owner:
    """Return the owner of the AWS resource that has these tags.

    `same_name`: whether the resource has the name that this run uses. For an OIDC provider, that's the name of the
    cluster's issuer.
    """
    return _owner(lab, run_of(tags), lab.parameters.run, same_name)


def of_role(lab: "Workspace", role: "RoleTypeDef", tags: "Iterable[TagTypeDef]", *, same_name: bool) -> Owner:
    """Return the owner of a role. `role` is IAM's answer about it. `same_name`: see `of_tags`.

    An untagged role isn't the run's if `trusted_instead` names service accounts.
    """
    owner = of_tags(lab, tags, same_name=same_name)
    return Owner.UNTAGGED if owner is Owner.NOBODY and trusted_instead(lab, role) else owner


def trusted_instead(lab: "Workspace", role: "RoleTypeDef") -> list[str]:
    """Return the service accounts that a role's trust policy names instead of the run's own.

    The list is empty if the policy names the run's own service account, too, or no service account. It's also empty for
    the notebooks' own role: a learner makes that role by hand, and may mistype the service account.
    """
    usual = type(lab.parameters).model_fields["role_name"].default
    if lab.parameters.is_usual and lab.parameters.role_name == usual:
        return []
    own = name_of(lab.provider_arn)
    named = [(issuer, subject) for issuer, subject in _subjects(role) if subject.startswith(SERVICE_ACCOUNT)]
    if any(issuer == own and wildcard(subject)(lab.parameters.subject) for issuer, subject in named):
        return []
    accounts = [(issuer, subject.removeprefix(SERVICE_ACCOUNT).replace(":", "/")) for issuer, subject in named]
    accounts_named = [name if issuer == own else f"{name} of another issuer, {issuer}" for issuer, name in accounts]
    return [*dict.fromkeys(accounts_named)]


def _subjects(role: "RoleTypeDef") -> Iterator[tuple[str, str]]:
    """Yield each `sub` that a role's trust policy allows, with the issuer that the condition's key names."""
    for statement in statements_of(role["AssumeRolePolicyDocument"]):
        for condition in conditions_of(statement):
            if condition.claim == "sub" and not condition.is_negated and statement.get("Effect") == "Allow":
                yield from ((condition.issuer, subject) for subject in condition.values)


def run_of(tags: "Iterable[TagTypeDef]") -> str | None:
    """Return the run in these tags, as CLUSTER/NAMESPACE/SERVICE ACCOUNT/ROLE; None without the lab's tag."""
    return next((tag["Value"] for tag in tags if tag["Key"] == RUN_TAG), None)


def roles_trusting(lab: "Workspace", provider: str) -> Iterator[tuple["RoleTypeDef", list["TagTypeDef"]]]:
    """Yield each role whose trust policy contains the text `provider`, as IAM lists it, and the role's tags.

    An example of this text is `:oidc-provider/`.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_ListRoles.html
    """
    iam = lab.aws.client("iam")
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if provider in json.dumps(role["AssumeRolePolicyDocument"]):
                # Someone may have deleted the role a moment ago.
                with suppress(iam.exceptions.NoSuchEntityException):
                    yield role, iam.list_role_tags(RoleName=role["RoleName"])["Tags"]


def in_words(names: list[str], singular: str, plural: str) -> str:
    """Return a clause about the roles `names`, such as "the role my-role trusts it".

    The clause ends with `singular` for one role, and with `plural` for several. At most `NAMED` roles are named.
    """
    if len(names) == 1:
        return f"the role {names[0]} {singular}"
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"the roles {', '.join(names[:NAMED])}{more} {plural}"


def of_labels(lab: "Workspace", labels: Mapping[str, str] | None, *, same_name: bool) -> Owner:
    """Return the owner of a Kubernetes object with these labels.

    `same_name`: whether the object has the name that the run's parameters give.
    """
    return _owner(lab, (labels or {}).get(RUN_LABEL), lab.labels[RUN_LABEL], same_name)


class NotThisRuns(LabError):
    """A Kubernetes object of another owner has the name that this run needs."""


def existing(call: Callable[[], Present], *, none_at: int = 404) -> Present | None:
    """Return the result of a call to the Kubernetes API; None if the API answers with the status `none_at`."""
    from kubernetes.client.exceptions import ApiException

    try:
        return call()
    except ApiException as error:
        if error.status != none_at:
            raise
        return None


def take_name(lab: "Workspace", kind: str, name: str, present: Any, delete: Callable[[], object]) -> list[str]:
    """On the lab's own cluster, delete the object `present` if it carries another run's label.

    On any other cluster, delete nothing. There, raise `NotThisRuns` if `present` lacks this run's label.

    Return one line about the deletion; an empty list if nothing was deleted.
    """
    if present is None:
        return []
    refuse_another_runs(lab, present.metadata, f"{kind} {name}")
    if of_labels(lab, present.metadata.labels, same_name=True) is not Owner.ANOTHER_RUN:
        return []
    delete()
    namespace = lab.parameters.namespace
    return [f"removed {kind} {namespace}/{name}: it carried another run's tag, but this run needs its name"]


def refuse_another_runs(lab: "Workspace", metadata: Any, thing: str) -> None:
    """Raise `NotThisRuns` if the object lacks this run's label. On the lab's own cluster, never raise."""
    owner = of_labels(lab, metadata.labels, same_name=True)
    # On a cluster of the lab's own, the latest run gets the name.
    if owner is Owner.UNTAGGED or (owner is Owner.ANOTHER_RUN and not lab.takes_untagged):
        raise NotThisRuns(
            f"The {thing} does not belong to this run. It was left unchanged.",
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
    # The article's commands set no tags. On a cluster of the lab's own, their resources count as this run's.
    return Owner.NOBODY if lab.takes_untagged else Owner.UNTAGGED
