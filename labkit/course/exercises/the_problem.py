"""Notebook 00: pods that share their node's role, and keys that anybody can copy."""

from base64 import b64decode
from contextlib import suppress
from functools import partial

from botocore.exceptions import ClientError

from labkit.connection import core_api
from labkit.course.exercises.asking import ALLOWED, Credentials, refusal, simulated
from labkit.course.exercises.exercise import Exercise
from labkit.course.widgets.question import Answer, Question, Right
from labkit.doctor.checks import Comparison
from labkit.simulator import names
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

TOO_MUCH = "arn:aws:iam::aws:policy/AmazonDynamoDBReadOnlyAccess"
TABLES, IMAGES = "dynamodb:ListTables", "ecr:GetAuthorizationToken"
READS = ("dynamodb:GetItem", "dynamodb:Query", "dynamodb:Scan", "dynamodb:DescribeTable")
# The node joins the cluster with the first, and gives addresses to its pods with the second.
NEEDS = ("ec2:DescribeInstances", "ec2:AssignPrivateIpAddresses")
NOT_IN_IAM = "not Active in IAM"
LEAKED_KEY = "leaked-key"  # the namespace's annotation with the leaked key's id: a learner may delete the Secret


def detach_from_the_node(lab: Workspace) -> None:
    """Detach the run's policy from the lab's own node role. The notebook attaches it, and may end before its end."""
    role, policy = lab.connection.node_role, lab.parameters.policy_arn
    if not role or policy in names.NODE_POLICIES:
        return
    iam = lab.aws.client("iam")
    with suppress(iam.exceptions.NoSuchEntityException):
        attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
        if policy in [each["PolicyArn"] for each in attached]:
            iam.detach_role_policy(RoleName=role, PolicyArn=policy)
            print(f"{policy.rpartition('/')[2]} was still attached to the node's role, {role}. It's detached now.")


def _node_that_reads_tables(place: Workspace) -> None:
    place.aws.client("iam").attach_role_policy(RoleName=_node_role(place), PolicyArn=TOO_MUCH)


def _node_role(place: Workspace) -> str:
    return f"{place.parameters.cluster}-node-role"


def _node_that_only_pulls_images(place: Workspace) -> list[Comparison]:
    decisions = simulated(place, place.connection.role_arn(_node_role(place)), TABLES, IMAGES, *READS, *NEEDS)
    answers = {
        action: "refused" if decisions[action].endswith("Deny") else decisions[action] for action in (TABLES, *READS)
    }
    return [
        Comparison(f"a pod of the node: {TABLES}", "refused", answers[TABLES]),
        # Show the rows of the other actions only if they are wrong.
        *(
            Comparison(f"a pod of the node: {each}", "refused", answers[each])
            for each in READS
            if answers[each] == ALLOWED
        ),
        Comparison(f"the node itself: {IMAGES}", ALLOWED, decisions[IMAGES]),
        *(
            Comparison(f"the node itself: {each}", ALLOWED, decisions[each])
            for each in NEEDS
            if decisions[each] != ALLOWED
        ),
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
    Exercise(
        "00-a",
        "let the node's role do no more than a node needs",
        _node_that_reads_tables,
        _node_that_only_pulls_images,
        "Every pod on the node may do what the node's role may do. List this role's attached policies.",
        "A node pulls images, joins the cluster and configures the network. Which policy is for none of these tasks?",
        "Call iam.detach_role_policy with the role exercise-00-a-node-role and AmazonDynamoDBReadOnlyAccess's ARN.",
        own_cluster=True,
    ),
    Exercise(
        "00-b",
        "make the leaked key worthless, and don't change the key in use",
        _user_whose_key_leaked,
        _only_the_leaked_key_is_dead,
        "The user has two access keys. Which one is in the Secret `leaked`?",
        'Read AWS_ACCESS_KEY_ID from core.read_namespaced_secret("leaked", …).data, and decode it with base64.',
        "Call iam.update_access_key with the leaked key's AccessKeyId and Status Inactive, or delete that key.",
    ),
)

PREDICTIONS = (
    Question(
        "00-1",
        "You attach a policy for S3 to the role that my-pod uses. What can neighbour do now?",
        Answer(
            "Nothing more: I gave the permission to my-pod.",
            "The role is the node's, not the pod's. You can't give a permission to only one of the node's pods.",
        ),
        Right("Read S3, like my-pod.", "Both pods use the node's role, and so does every other pod on that node."),
        Answer(
            "Read S3 once neighbour is started again.",
            "AWS looks up permissions at each call. No pod has to be started again.",
        ),
    ),
)

RECALL = (
    Question(
        "00-2",
        "A pod has no identity of its own in AWS, but it can reach the instance metadata service. Who is it in AWS?",
        Answer("Nobody: it has no credentials.", "That's true only for a pod that can't reach the metadata service."),
        Right("The node's role.", "SDKs ask the metadata service last, and get the credentials of the node's role."),
        Answer("The cluster's administrator.", "The pod has no way to get the administrator's credentials."),
    ),
    Question(
        "00-3",
        "Which pods get a permission that you attach to the node's role?",
        Right(
            "All pods on nodes with that role.",
            "You can't give the permission to fewer pods: they all use the node's role.",
        ),
        Answer("Pods of the namespace that you name.", "You can't limit the node's role to one namespace's pods."),
        Answer("Pods with the right label.", "AWS never sees a pod's labels."),
    ),
    Question(
        "00-4",
        "An error says: assumed-role/blue-node-role/i-0167… is not authorized. What does the error tell you first?",
        Right("The pod doesn't use an identity of its own.", "The pod uses the node's role instead."),
        Answer("The pod's role lacks a permission.", "Then the error would name the pod's role, not the node's."),
        Answer("The token has expired.", "No token is involved: these are the node's credentials."),
    ),
    Question(
        "00-5",
        "Two pods of one node read a bucket. Which part of the identity in CloudTrail tells the two pods apart?",
        Answer("The pod's name.", "AWS never sees the name of a pod that uses the node's role."),
        Answer("The session name.", "It's the id of the node's instance, so both pods have the same session name."),
        Right("None.", "Both pods act as the node's role, in the same session."),
    ),
    Question(
        "00-6",
        "What is wrong with giving the pod an IAM user's access key in a Secret?",
        Answer("SDKs can't read the key.", "They can: SDKs read keys from environment variables."),
        Right(
            "The key works anywhere, for anybody, until someone disables it.",
            "IRSA's token also works for anyone who copies it. But it expires within a day, so nobody has to "
            "disable it.",
        ),
        Answer("AWS forbids it.", "AWS allows it, but advises against it."),
    ),
)
