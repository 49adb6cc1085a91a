"""An exercise. It opens unsolved, in its own namespace or in its own cluster, and the live lab judges the solution.

`make_role`, `allow`, `ensure_account` and `make_account` create the resources that exercises start with.
"""

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from labkit import documents, targets
from labkit.connection import core_api
from labkit.course import lessons
from labkit.doctor import Comparison
from labkit.errors import LabError
from labkit.policy.written import PolicyDocument
from labkit.run_parameters import Parameters
from labkit.steps import iam_role, oidc_provider, pod, service_account
from labkit.steps.namespace import ensure_namespace, until_gone
from labkit.steps.ownership import existing
from labkit.workspace import Workspace


@dataclass(frozen=True)
class Exercise:
    """A task in a notebook. The notebook states only the symptom, not the cause.

    The title and the hints are in the notebook's file in `labkit/course/lessons/`.
    """

    id: str
    """The notebook's number and a letter, such as 02-a."""
    prepare: Callable[[Workspace], None]
    """The function that creates the unsolved exercise in its empty namespace."""
    ask: Callable[[Workspace], Sequence[Comparison]]
    """The function that asks the live lab. Each row compares the lab's answer with the right answer."""
    own_cluster: bool = False
    """Whether the exercise needs its own cluster. At first, the cluster's issuer isn't registered."""
    in_two_accounts: bool = False
    """Whether the exercise also uses the second account. At first, the cluster's issuer isn't registered there."""
    restore: Callable[[Workspace], None] | None = None
    """The function that undoes what `prepare` changed outside the exercise's own resources."""

    @property
    def title(self) -> str:
        """The goal, in a few words."""
        return lessons.task(self.id).title

    @property
    def hints(self) -> Sequence[str]:
        """Three hints. The last one is nearly the solution."""
        return lessons.task(self.id).hints

    @property
    def name(self) -> str:
        """`exercise-ID`: the name of the exercise's namespace, its role and its own cluster."""
        return f"exercise-{self.id}"

    def open(self, lab: Workspace) -> None:
        """Delete the resources of an earlier try, and create the unsolved exercise."""
        self.close(lab)
        connection = targets.target(lab.parameters.target).up(self._parameters(lab)) if self.own_cluster else None
        place = Workspace(self._parameters(lab), connection or lab.connection)
        ensure_namespace(place)
        self.prepare(place)

    def rows(self, lab: Workspace) -> Sequence[Comparison]:
        """Return rows that compare the live lab's answers with the right answers.

        Raises `LabError` if the exercise isn't open.
        """
        if not self.is_open(lab):
            raise LabError(f"Exercise {self.id} isn't open.", where="lab.check", next=f'lab.exercise("{self.id}")')
        return self.ask(self._place(lab))

    def is_open(self, lab: Workspace) -> bool:
        """Return whether the exercise's own cluster or namespace exists."""
        if self.own_cluster:
            return self.name in lab.aws.client("eks").list_clusters()["clusters"]
        return existing(partial(core_api(lab.kubernetes).read_namespace, self.name)) is not None

    def close(self, lab: Workspace) -> None:
        """Delete the exercise's cluster or namespace, and its providers, associations, roles, user and bucket."""
        if self.is_open(lab):
            place = self._place(lab)
            if self.own_cluster:
                delete_provider(place)
                lab.aws.client("eks").delete_cluster(name=self.name)
            else:
                delete_associations(place)
                delete_namespace(place)
        if self.in_two_accounts:
            other = lab.in_account(str(lab.connection.other_account))
            delete_provider(other)
            delete_in_aws(other, self.name)
        delete_in_aws(lab, self.name)
        if self.restore:
            self.restore(lab)
        # The learner's own role may trust the provider by now. Then the provider stays, as the learner's.
        oidc_provider.hand_over(Workspace(self._parameters(lab), lab.connection), lab)

    def run(self, lab: Workspace) -> str:
        """Return the name of the exercise's own run. The exercise's resources carry this name."""
        return self._parameters(lab).run

    def _place(self, lab: Workspace) -> Workspace:
        parameters = self._parameters(lab)
        if not self.own_cluster:
            return Workspace(parameters, lab.connection)
        return Workspace(parameters, targets.target(parameters.target).connect(parameters))

    def _parameters(self, lab: Workspace) -> Parameters:
        given = {"namespace": self.name, "role_name": self.name, "service_account": "cart"}
        if self.own_cluster:
            given["cluster"] = self.name
        return lab.parameters.model_copy(update=given)


def delete_associations(place: Workspace) -> None:
    eks, cluster = place.aws.client("eks"), place.parameters.cluster
    listed = eks.list_pod_identity_associations(clusterName=cluster, namespace=place.parameters.namespace)
    for each in listed["associations"]:
        eks.delete_pod_identity_association(clusterName=cluster, associationId=each["associationId"])


def delete_in_aws(account: Workspace, name: str) -> None:
    iam, s3 = account.aws.client("iam"), account.aws.client("s3")
    for role in _roles(iam, name):
        iam_role.delete(iam, role)
    with suppress(iam.exceptions.NoSuchEntityException):
        _delete_user(iam, name)
    with suppress(s3.exceptions.NoSuchBucket):
        _delete_bucket(s3, name)


def delete_provider(account: Workspace) -> None:
    iam = account.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        iam.delete_open_id_connect_provider(OpenIDConnectProviderArn=account.provider_arn)


def _roles(iam: Any, name: str) -> list[str]:
    roles = [role["RoleName"] for page in iam.get_paginator("list_roles").paginate() for role in page["Roles"]]
    return [role for role in roles if role == name or role.startswith(f"{name}-")]


def _delete_user(iam: Any, name: str) -> None:
    for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
        iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
    for policy in iam.list_user_policies(UserName=name)["PolicyNames"]:
        iam.delete_user_policy(UserName=name, PolicyName=policy)
    iam.delete_user(UserName=name)


def _delete_bucket(s3: Any, name: str) -> None:
    s3.delete_bucket_policy(Bucket=name)  # it may deny everybody what follows
    for each in s3.list_objects_v2(Bucket=name).get("Contents", []):
        s3.delete_object(Bucket=name, Key=each["Key"])
    s3.delete_bucket(Bucket=name)


def delete_namespace(place: Workspace) -> None:
    core, name = core_api(place.kubernetes), place.parameters.namespace
    for each in core.list_namespaced_pod(name).items:
        pod.delete(place, each.metadata.name, name)
    existing(partial(core.delete_namespace, name))
    for _ in until_gone(place, name):
        pass


def make_role(place: Workspace, policy: PolicyDocument | None = None, *, name: str = "") -> None:
    """Create a role with this trust policy and this name.

    By default, the trust policy admits the run's service account, and the name is `parameters.role_name`.
    """
    policy = policy or documents.trust_policy(place.parameters, place.provider_arn)
    document, name = json.dumps(policy), name or place.parameters.role_name
    place.aws.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document, Tags=place.tags)


def allow(place: Workspace, policy: str, *allowed: tuple[str | list[str], str | list[str]]) -> None:
    """Give the run's role an inline policy with this name. Each pair of actions and resources is a statement."""
    statements = [{"Effect": "Allow", "Action": actions, "Resource": resources} for actions, resources in allowed]
    document = json.dumps({"Version": "2012-10-17", "Statement": statements})
    role = place.parameters.role_name
    place.aws.client("iam").put_role_policy(RoleName=role, PolicyName=policy, PolicyDocument=document)


def ensure_account(place: Workspace) -> None:
    """Create the run's OIDC provider and service account, unless they exist."""
    oidc_provider.ensure(place)
    service_account.ensure(place)


def make_account(place: Workspace, name: str, annotations: dict[str, str] | None = None) -> None:
    """Create a service account with these annotations in the run's namespace.

    By default, the service account's only annotation names the run's role.
    """
    annotations = {documents.ROLE_ANNOTATION: place.role_arn} if annotations is None else annotations
    metadata = {"name": name, "labels": place.labels, "annotations": annotations}
    core_api(place.kubernetes).create_namespaced_service_account(place.parameters.namespace, {"metadata": metadata})


def as_till(place: Workspace) -> Workspace:
    """Return the run of `cart`'s neighbour `till`, which has a role of its own."""
    of_till = {"service_account": "till", "role_name": f"{place.parameters.role_name}-till"}
    return Workspace(place.parameters.model_copy(update=of_till), place.connection)
