"""Notebook 00: pods that share their node's role, and keys that anybody can copy."""

from base64 import b64decode
from contextlib import suppress
from functools import partial
from uuid import uuid4

from botocore.exceptions import ClientError

from labkit import simulator
from labkit.connection import core_api
from labkit.course.exercises.asking import ALLOWED, Credentials, refusal
from labkit.course.exercises.exercise import Exercise
from labkit.course.exercises.surplus import simulated, trusts
from labkit.doctor import Comparison
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

TOO_MUCH = "arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess"
TABLES, IMAGES = "dynamodb:ListTables", "ecr:GetAuthorizationToken"
READS = tuple(
    f"dynamodb:{each}" for each in ("GetItem", "BatchGetItem", "Query", "Scan", "PartiQLSelect", "DescribeTable")
)
STREAM = "dynamodb:GetRecords"
# The node joins the cluster with the first two, gives addresses to its pods with the third, and pulls images.
NEEDS = (
    "ec2:DescribeInstances",
    "eks:DescribeCluster",
    "ec2:AssignPrivateIpAddresses",
    "ecr:BatchGetImage",
    "ecr:GetDownloadUrlForLayer",
)
MACHINES = "ec2.amazonaws.com"
NOT_IN_IAM = "not Active in IAM"
LEAKED_KEY = "leaked-key"  # the namespace's annotation with the leaked key's id: a learner may delete the Secret


def restore_the_node(lab: Workspace) -> None:
    """Undo what the notebook does to the lab's own node: it may end before its end.

    Set the node's hop limit back, and detach the run's policy from the node's role.
    """
    role, policy, usual = lab.connection.node_role, lab.parameters.policy_arn, lab.connection.usual_hop_limit
    if lab.connection.hop_limit and (limit := lab.connection.hop_limit()) != usual:
        simulator.set_hop_limit(lab.aws, usual, lab.parameters.cluster)
        print(f"The node's hop limit was still {limit}. It's {usual} again.")
    if not role or policy in simulator.NODE_POLICIES:
        return
    iam = lab.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        if policy in [each["PolicyArn"] for each in attached]:
            iam.detach_role_policy(RoleName=role, PolicyArn=policy)
            print(f"{policy.rpartition('/')[2]} was still attached to the node's role, {role}. It's detached now.")


def _node_that_reads_tables(place: Workspace) -> None:
    place.aws.client("iam").attach_role_policy(RoleName=_node_role(place), PolicyArn=TOO_MUCH)
    simulator.set_hop_limit(place.aws, 2, place.parameters.cluster)


def _node_role(place: Workspace) -> str:
    return f"{place.parameters.cluster}-node-role"


def _node_that_only_pulls_images(place: Workspace) -> list[Comparison]:
    role, region = place.connection.role_arn(_node_role(place)), place.parameters.region
    # A new name, because a Deny may name the tables that exist.
    table = f"arn:{place.connection.partition}:dynamodb:{region}:{place.account_id}:table/{uuid4().hex[:8]}"
    requests = [((TABLES, IMAGES, *NEEDS), "*"), (READS, table), ((STREAM,), f"{table}/stream/1")]
    decisions: dict[str, str] = {}
    for actions, resource in requests:
        context = {"aws:RequestedRegion": ("string", region)}
        decisions |= simulated(place, role, *actions, resource=resource, **context)
    trusted = trusts(place, role)
    answers = {
        action: "refused" if decisions[action].endswith("Deny") else decisions[action]
        for action in (TABLES, *READS, STREAM)
    }
    return [
        Comparison(f"a pod of the node: {TABLES}", "refused", answers[TABLES]),
        # Show the rows of the other actions only if they are wrong.
        *(
            Comparison(f"a pod of the node: {each}", "refused", answers[each])
            for each in (*READS, STREAM)
            if answers[each] == ALLOWED
        ),
        Comparison(f"the node itself: {IMAGES}", ALLOWED, decisions[IMAGES]),
        *(
            Comparison(f"the node itself: {each}", ALLOWED, decisions[each])
            for each in NEEDS
            if decisions[each] != ALLOWED
        ),
        *([Comparison("the role trusts", MACHINES, ", ".join(trusted) or "nobody")] if MACHINES not in trusted else []),
    ]


def _user_whose_key_leaked(place: Workspace) -> None:
    iam, core, name = place.aws.client("iam"), core_api(place.kubernetes), place.parameters.namespace
    iam.create_user(UserName=name, Tags=place.tags)
    ids: dict[str, str] = {}
    for secret in ("leaked", "in-use"):
        key = iam.create_access_key(UserName=name)["AccessKey"]
        held = {"AWS_ACCESS_KEY_ID": key["AccessKeyId"], "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"]}
        document = {"metadata": {"name": secret, "labels": place.labels}, "stringData": held}
        core.create_namespaced_secret(name, document)
        ids[secret] = key["AccessKeyId"]
    core.patch_namespace(name, {"metadata": {"annotations": {LEAKED_KEY: ids["leaked"]}}})


def _only_the_leaked_key_is_dead(place: Workspace) -> list[Comparison]:
    leaked, in_use = _of_the_leaked_key(place), _who(place, _key(place, "in-use"), "in-use")
    user = f"arn:{place.connection.partition}:iam::{place.account_id}:user/{place.parameters.namespace}"
    code = "InvalidClientTokenId"
    return [
        Comparison("AWS's answer to the leaked key", f"refused: {code}", leaked, leaked.startswith((code, NOT_IN_IAM))),
        Comparison("AWS's answer to the key in use", user, in_use),
    ]


def _of_the_leaked_key(place: Workspace) -> str:
    """Return STS's answer to the leaked key. If the Secret doesn't hold the key, return the key's status in IAM."""
    namespace = core_api(place.kubernetes).read_namespace(place.parameters.namespace)
    id, key = namespace.metadata.annotations[LEAKED_KEY], _key(place, "leaked")
    if key.get("aws_access_key_id") == id and "aws_secret_access_key" in key:
        return _who(place, key, "leaked")
    iam = place.aws.client("iam")
    try:
        keys = iam.list_access_keys(UserName=place.parameters.namespace)["AccessKeyMetadata"]
    except iam.exceptions.NoSuchEntityException:
        keys = []
    is_active = any(each["AccessKeyId"] == id and each["Status"] == "Active" for each in keys)
    return "Active in IAM" if is_active else NOT_IN_IAM


def _key(place: Workspace, secret: str) -> Credentials:
    """Return the access key in a Secret; empty if the Secret is missing."""
    read = partial(core_api(place.kubernetes).read_namespaced_secret, secret, place.parameters.namespace)
    held = existing(read)
    return {name.lower(): b64decode(value).decode() for name, value in ((held and held.data) or {}).items()}


def _who(place: Workspace, key: Credentials, secret: str) -> str:
    if key.keys() != {"aws_access_key_id", "aws_secret_access_key"}:
        return f"no key in the Secret {secret}"
    try:
        answered = place.aws.client("sts", **key).get_caller_identity()
    except ClientError as error:
        return refusal(error)
    return str(answered["Arn"])


EXERCISES = (
    Exercise("00-a", _node_that_reads_tables, _node_that_only_pulls_images, own_cluster=True),
    Exercise("00-b", _user_whose_key_leaked, _only_the_leaked_key_is_dead),
)
