"""The plan of a run: the resources that exist in an account and a cluster, and the resources that the run will make."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from kubernetes.client import CoreV1Api
from kubernetes.client.exceptions import ApiException

from labkit import steps
from labkit.documents import POD_NAME
from labkit.errors import LabError, NotAllowed
from labkit.policy.arn import Arn
from labkit.steps.ownership import Owner, existing, of_labels, of_tags
from labkit.targets.eks.account import explained
from labkit.targets.eks.operator_policy import require_partition

if TYPE_CHECKING:
    from labkit.workspace import Workspace

# The owner of an existing resource, in the words of the plan.
WHOSE = {
    Owner.THIS_RUN: "of this run",
    Owner.ANOTHER_RUN: "of another run, which keeps it",
    Owner.UNTAGGED: "not the lab's: it is left unchanged",
}


class BucketOfAnother(LabError):
    """The bucket isn't the lab's, so the lab doesn't write into this bucket."""


class NoPolicy(LabError):
    """The policy that the role should get doesn't exist."""


@dataclass(frozen=True)
class Thing:
    """A resource that a run needs. Without an `owner`, it doesn't exist yet."""

    what: str
    owner: Owner | None

    def __str__(self) -> str:
        return (
            f"  will be made   {self.what}"
            if self.owner is None
            else f"  exists         {self.what}, {WHOSE[self.owner]}"
        )


@dataclass(frozen=True)
class Plan:
    """The cluster, the resources that exist, and the resources that a run will make. `print(plan)` shows the plan."""

    account_id: str
    principal: str
    region: str
    cluster: str
    nodes: int | None
    run: str
    things: tuple[Thing, ...]

    def __str__(self) -> str:
        takes_pods = "" if self.nodes is None else f", {self.nodes} node{'' if self.nodes == 1 else 's'}"
        return "\n".join(
            [
                f"The plan for the account {self.account_id} ({self.principal}), region {self.region}:",
                f"  exists         cluster {self.cluster}{takes_pods}",
                *map(str, self.things),
                f"The run's resources get the tag labkit:run={self.run}. "
                "lab.remove() deletes only resources with this tag.",
            ]
        )


def things(lab: "Workspace") -> tuple[Thing, ...]:
    """Return the resources that the run needs, in the order in which the run makes them.

    A resource without an `owner` doesn't exist yet.

    Raises:
        RoleOfAnotherRun, NotThisRuns, BucketOfAnother: another owner's resource has a name that the run needs.
        AnotherPartition, NoPolicy: the role can't get the policy in the parameters.
        LabError: the caller may not read the resources, or AWS doesn't answer.
    """
    with explained("reading the existing resources"):
        _require_policy(lab)
        inventory = (_bucket(lab), _provider(lab), _role(lab), *_in_kubernetes(lab))
        # These raise if another owner's resource has a name that the run needs. On this target they delete nothing.
        for name in steps.NAMED:
            steps.step(name).make_way(lab)
    return inventory


def _require_policy(lab: "Workspace") -> None:
    arn, partition = lab.parameters.policy_arn, lab.connection.partition
    require_partition(lab.parameters, partition)
    iam = lab.aws.client("iam")
    try:
        iam.get_policy(PolicyArn=arn)
    except iam.exceptions.NoSuchEntityException:
        scope = "AWS" if arn.startswith(f"arn:{partition}:iam::aws:") else "Local"
        raise NoPolicy(
            f"The policy {arn} for the role does not exist.",
            where="parameter policy_arn; nothing was changed",
            next="set policy_arn to an ARN from this list:  "
            f"aws iam list-policies --scope {scope} --query 'Policies[].Arn'",
        ) from None


def _provider(lab: "Workspace") -> Thing:
    iam, what = lab.aws.client("iam"), f"OIDC provider {Arn.parse(lab.provider_arn).issuer}"
    try:
        present = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
    except iam.exceptions.NoSuchEntityException:
        return Thing(what, None)
    return Thing(what, of_tags(lab, present.get("Tags", []), same_name=True))


def _role(lab: "Workspace") -> Thing:
    iam, what = lab.aws.client("iam"), f"role {lab.parameters.role_name}, with {lab.parameters.policy_arn}"
    try:
        present = iam.get_role(RoleName=lab.parameters.role_name)["Role"]
    except iam.exceptions.NoSuchEntityException:
        return Thing(what, None)
    return Thing(what, of_tags(lab, present.get("Tags", []), same_name=True))


def _bucket(lab: "Workspace") -> Thing:
    s3, name = lab.aws.client("s3"), lab.parameters.bucket
    try:
        s3.head_bucket(Bucket=name)
    except ClientError as error:
        match error.response["ResponseMetadata"]["HTTPStatusCode"]:
            case 404:
                return Thing(f"bucket {name}, with an object in it", None)
            case 403:
                raise _of_another(name, "belongs to another account, or you lack the permission to read it") from None
        raise
    try:
        tags = s3.get_bucket_tagging(Bucket=name)["TagSet"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchTagSet":
            raise
        tags = []
    owner = of_tags(lab, tags, same_name=True)
    if owner is Owner.UNTAGGED:
        raise _of_another(name, "exists, and carries no tag of the lab")
    return Thing(f"bucket {name}", owner)


def _in_kubernetes(lab: "Workspace") -> list[Thing]:
    core, namespace, account = CoreV1Api(lab.kubernetes), lab.parameters.namespace, lab.parameters.service_account
    reads = {
        f"namespace {namespace}": lambda: core.read_namespace(namespace),
        f"service account {namespace}/{account}": lambda: core.read_namespaced_service_account(account, namespace),
        f"pod {namespace}/{POD_NAME} ({lab.image})": lambda: core.read_namespaced_pod(POD_NAME, namespace),
    }
    return [Thing(what, _owner(lab, read)) for what, read in reads.items()]


def _owner(lab: "Workspace", read: Any) -> Owner | None:
    try:
        present = existing(read)
    except ApiException as error:
        if error.status == 403:
            raise NotAllowed.by_the_cluster(error, lab.parameters.namespace) from None
        raise
    return of_labels(lab, present.metadata.labels, same_name=True) if present else None


def _of_another(name: str, why: str) -> BucketOfAnother:
    return BucketOfAnother(
        f"The bucket {name} {why}. It was left unchanged.",
        where="parameter bucket; nothing was changed",
        next="choose another bucket (all AWS accounts share the bucket names), and run again",
    )
