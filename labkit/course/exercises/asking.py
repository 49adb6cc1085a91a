"""An exercise's calls to the live lab. They show whether STS admits a token, what a pod says, and what a role may do.

In each function, `place` is the exercise's workspace. The default service account and role are those of `place`. For a
call to AWS, `service` (such as `s3`) selects boto3's client, `operation` (such as `get_object`) is the client's method,
and `more` has the method's arguments.

A `Comparison` compares the lab's answer with the right answer.
"""

import json
import random
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import suppress
from functools import partial
from string import ascii_lowercase
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import ClientError
from kubernetes.client.exceptions import ApiException

from labkit import documents, execution
from labkit.connection import awaited, core_api
from labkit.course.exercises import surplus
from labkit.doctor import Comparison
from labkit.documents import AUDIENCE, POD_NAME
from labkit.errors import said_by_the_cluster, without_session
from labkit.policy.arn import Arn
from labkit.steps.ownership import existing

if TYPE_CHECKING:
    from labkit.workspace import Workspace

# Keyword arguments for a boto3 client.
Credentials = dict[str, str]
ADMITTED, ALLOWED = "admitted", surplus.ALLOWED
# Some of the actions that a role which only reads doesn't need.
CHANGES_OF_BUCKET = (
    "s3:DeleteBucket",
    "s3:PutBucketPolicy",
    "s3:PutLifecycleConfiguration",
    "s3:PutBucketVersioning",
    "s3:PutBucketPublicAccessBlock",
)
CHANGES_OF_OBJECT = (
    "s3:PutObjectTagging",
    "s3:DeleteObjectTagging",
    "s3:PutObjectAcl",
    "s3:DeleteObjectVersion",
    "s3:PutObjectRetention",
)
# Some of the actions of a role that may also use other buckets, or other services.
OF_OTHERS = ("s3:ListAllMyBuckets", "dynamodb:ListTables", "ec2:DescribeInstances", "iam:ListRoles")
# What an API server says of something in a namespace that ends, or has ended.
ENDED = re.compile(r'(serviceaccounts|namespaces) ".+" not found|.+ because it is being terminated', re.S)
HOUR = 3600  # seconds: how long a session lives by default


def admits(place: "Workspace", account: str = "", *, role_arn: str = "") -> Comparison:
    """Exchange a token of the service account for the role. Return a row, marked as right if STS accepts the token."""
    return Comparison(_subject(place, account, ""), ADMITTED, exchange(place, account, role_arn=role_arn))


def only_cart(place: "Workspace") -> list[Comparison]:
    """Check that STS gives the role only to the service account `cart`. Return rows with STS's answers.

    STS should admit `cart`. STS should refuse `till`, `default` in the namespace `default`, everyone that `newcomers`
    tries, and each token for another audience. A row is marked as wrong if STS's answer is wrong. Those that
    `newcomers` tries, and the other audiences, have a row only if STS admits them.
    """
    others = [refuses(place, "till"), refuses(place, "default", namespace="default"), *newcomers(place)]
    return [admits(place), *others, *for_others(place)]


def for_others(place: "Workspace", account: str = "") -> list[Comparison]:
    """Return a row, marked as wrong, for each audience with which STS wrongly admits the service account.

    These are the audiences that the provider lists beside STS.
    """
    tried = [(each, exchange(place, account, audience=each)) for each in audiences(place) if each != AUDIENCE]
    who = _subject(place, account, "")
    return [Comparison(f"{who}, audience {each}", "refused", said) for each, said in tried if said == ADMITTED]


def audiences(place: "Workspace") -> list[str]:
    """Return the audiences that the cluster's OIDC provider lists; none if the provider doesn't exist."""
    iam = place.aws.client("iam")
    try:
        provider = iam.get_open_id_connect_provider(OpenIDConnectProviderArn=place.provider_arn)
    except iam.exceptions.NoSuchEntityException:
        return []
    listed: list[str] = provider["ClientIDList"]
    return listed


def newcomers(place: "Workspace", *accounts: str, role_arn: str = "", known: Collection[str] = ()) -> list[Comparison]:
    """Ask for the role as others that STS should refuse. Return a row, marked as wrong, if STS admits one.

    The others are the lab's own user, who has no token, the service accounts that the role's trust policy names, and
    new ones. For each name in `accounts`, such as cart, the new service accounts have names that a wildcard in its
    place would match, or its name in a new namespace. Without `accounts`, the only name is
    `parameters.service_account`. Each asks for the role `role_arn`. `known`: see `without_a_token`.
    """
    core, namespace = core_api(place.kubernetes), place.parameters.namespace
    accounts = accounts or (place.parameters.service_account,)
    named = [each for each in named_by(place, role_arn) if each not in {(name, namespace) for name in accounts}]
    taken = {each.metadata.name for each in core.list_namespaced_service_account(namespace).items}
    rows = without_a_token(place, role_arn, known) + first_admitted(place, named, role_arn)
    for name in accounts:
        likes = _lookalikes(name, taken, range(len(name)))
        rows += first_admitted(place, [(like, namespace) for like in likes], role_arn)
    rows += elsewhere(place, *accounts, role_arn=role_arn)
    return [*{row.what: row for row in rows}.values()]  # a random name may be one that the trust policy's pattern gave


def without_a_token(place: "Workspace", role_arn: str = "", known: Collection[str] = ()) -> list[Comparison]:
    """Return a row, marked as wrong, if a user may become the role without a service account's token.

    The users are the lab's own one, and the one of the second account, if the target has it. If they may not, each
    other principal of the trust policy has a row, apart from those in `known`.
    """
    arn = role_arn or place.role_arn
    other = place.connection.other_account
    for each in [place, *([place.in_account(other)] if other else [])]:
        with suppress(ClientError):
            each.aws.client("sts").assume_role(RoleArn=arn, RoleSessionName="exercise")
            return [Comparison(f"someone without a token, for {Arn.parse(arn).name}", "refused", ADMITTED)]
    others = surplus.admitted(place, arn, known=known)
    return [Comparison(f"{each}, for {Arn.parse(arn).name}", "refused", ADMITTED) for each in others]


def elsewhere(place: "Workspace", *accounts: str, role_arn: str = "") -> list[Comparison]:
    """Create service accounts in other namespaces. Return a row for each name that STS wrongly admits there.

    The function creates up to two service accounts for each name in `accounts`, each in its own new namespace. The new
    namespaces have names that a wildcard in the place of the run's namespace would match.
    """
    core, namespace = core_api(place.kubernetes), place.parameters.namespace
    rows: list[Comparison] = []
    for name in accounts:
        # Listed for each name: the namespaces of the name before may still be ending.
        taken = {each.metadata.name for each in core.list_namespace().items}
        last = [len(namespace) - 1]  # one letter, because each letter costs a namespace
        rows += first_admitted(place, [(name, like) for like in _lookalikes(namespace, taken, last)], role_arn)
    return rows


def _lookalikes(name: str, taken: Collection[str], letters: Iterable[int]) -> Iterator[str]:
    """Yield the result of `lookalike`, and names like carx, none of them in `taken`.

    For each position in `letters`, a name differs from `name` in this letter, so it matches a pattern with a question
    mark there.
    """
    yield lookalike(name)
    for at in letters:
        others = {f"{name[:at]}{letter}{name[at + 1 :]}" for letter in ascii_lowercase} - {name, *taken}
        yield random.choice([*others])  # noqa: S311 - so that the checks of two kernels rarely choose the same


def lookalike(name: str) -> str:
    """Return a name like cart-1a2b-cart. It matches every pattern with an asterisk in the place of a part of `name`."""
    return f"{name[:27]}-{uuid4().hex[:4]}-{name[-27:]}"  # a namespace's name has at most 63 characters


def named_by(place: "Workspace", role_arn: str = "") -> list[tuple[str, str]]:
    """Return the service accounts, as (name, namespace), that the role's trust policy names.

    For a wildcard, the function puts in letters that it matches.
    """
    role = Arn.parse(role_arn or place.role_arn)
    there = place.in_account(role.account) if role.account != place.account_id else place
    iam = there.aws.client("iam")
    try:
        policy = json.dumps(iam.get_role(RoleName=role.name)["Role"]["AssumeRolePolicyDocument"])
    except iam.exceptions.NoSuchEntityException:
        return []
    policy = policy.replace("*", uuid4().hex[:4]).replace("?", "x")
    subjects = re.findall(r'"system:serviceaccount:([a-z0-9-]+):([a-z0-9.-]+)"', policy)
    return [(name, namespace) for namespace, name in dict.fromkeys(subjects)]


def first_admitted(place: "Workspace", accounts: Iterable[tuple[str, str]], role_arn: str = "") -> list[Comparison]:
    """Return a row for the first of these service accounts, given as (name, namespace), that STS admits."""
    for each in accounts:
        if newcomer(place, *each, role_arn=role_arn) == ADMITTED:
            return [Comparison(f"{_subject(place, *each)}, created just now", "refused", ADMITTED)]
    return []


def newcomer(place: "Workspace", account: str, namespace: str, *, role_arn: str = "") -> str:
    """Return the result of `exchange` for a service account. It's new, unless it exists.

    Create the service account first, and the namespace if it's missing. At the end, delete what this function created.
    """
    ask = partial(_newcomer, place, account, namespace, role_arn)
    # Another kernel's check may be ending its own newcomer of this name.
    return awaited(ask, within=60, every=0.2) or "another check is ending it"


def _newcomer(place: "Workspace", account: str, namespace: str, role_arn: str) -> str | None:
    """Do as `newcomer` does. Return None if the service account or the namespace ends meanwhile."""
    core, labels = core_api(place.kubernetes), {"labels": place.labels}
    is_new_place = _created(partial(core.create_namespace, {"metadata": {"name": namespace, **labels}}))
    is_new = False
    try:
        account_of = {"metadata": {"name": account, **labels}}
        is_new = _created(partial(core.create_namespaced_service_account, namespace, account_of))
        said = exchange(place, account, namespace=namespace, role_arn=role_arn)
        return None if ENDED.fullmatch(said) else said
    except ApiException as error:
        if ENDED.fullmatch(said_by_the_cluster(error)):
            return None
        raise
    finally:
        if is_new:
            existing(partial(core.delete_namespaced_service_account, account, namespace))
        if is_new_place:
            existing(partial(core.delete_namespace, namespace))


def _created(create: Callable[[], object]) -> bool:
    """Create an object. Return whether it's new; False if it exists."""
    try:
        create()
    except ApiException as error:
        if error.status != 409:
            raise
        return False
    return True


def refuses(
    place: "Workspace",
    account: str = "",
    *,
    namespace: str = "",
    audience: str = AUDIENCE,
    role_arn: str = "",
    code: str = "AccessDenied",
) -> Comparison:
    """Return a row, marked as right if STS refuses the service account's token with the error `code`."""
    actual = exchange(place, account, namespace=namespace, audience=audience, role_arn=role_arn)
    what = _subject(place, account, namespace) + (f", audience {audience}" if audience != AUDIENCE else "")
    return refused(what, code, actual)


def refused(what: str, code: str, answer: str) -> Comparison:
    """Return a row named `what`, marked as right if the answer is a refusal with this error code."""
    return Comparison(what, f"refused: {code}", answer, answer.startswith(code))


def exchange(
    place: "Workspace",
    account: str = "",
    *,
    namespace: str = "",
    audience: str = AUDIENCE,
    role_arn: str = "",
    seconds: int = HOUR,
) -> str:
    """Exchange a service account's token for the role. Return "admitted", or the text of the refusal."""
    try:
        credentials(place, account, namespace=namespace, audience=audience, role_arn=role_arn, seconds=seconds)
    except (ClientError, ApiException) as error:
        return refusal(error)
    return ADMITTED


def credentials(
    place: "Workspace",
    account: str = "",
    *,
    namespace: str = "",
    audience: str = AUDIENCE,
    role_arn: str = "",
    seconds: int = HOUR,
) -> Credentials:
    """Exchange a service account's token for the role. Return the role's credentials, which are valid for `seconds`.

    Raises `ClientError` if STS refuses, and `ApiException` if the service account doesn't exist.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
    """
    token_request = core_api(place.kubernetes).create_namespaced_service_account_token(
        account or place.parameters.service_account,
        namespace or place.parameters.namespace,
        {"spec": {"audiences": [audience]}},
    )
    sts = place.aws.client("sts", config=Config(signature_version=UNSIGNED))
    request = {"RoleArn": role_arn or place.role_arn, "RoleSessionName": "exercise", "DurationSeconds": seconds}
    given = sts.assume_role_with_web_identity(**request, WebIdentityToken=token_request.status.token)["Credentials"]
    names = {"access_key_id": "AccessKeyId", "secret_access_key": "SecretAccessKey", "session_token": "SessionToken"}
    return {f"aws_{name}": given[key] for name, key in names.items()}


def allows(place: "Workspace", what: str, service: str, operation: str, **more: Any) -> Comparison:
    """Call AWS with new credentials of the role. Return a row named `what`, marked as right if AWS allows it."""
    return Comparison(what, ALLOWED, call(place, service, operation, **more))


def denies(
    place: "Workspace", what: str, service: str, operation: str, *, given: Credentials | None = None, **more: object
) -> Comparison:
    """Call AWS. Return a row named `what`, marked as right if AWS refuses with AccessDenied.

    `given` holds the credentials for the call; by default, new credentials of the role.
    """
    return refused(what, "AccessDenied", call(place, service, operation, given=given, **more))


def call(place: "Workspace", service: str, operation: str, given: Credentials | None = None, **more: object) -> str:
    """Call AWS. Return "allowed", or the text of the refusal.

    `given` holds the credentials for the call. By default, they are new credentials of the role.
    """
    try:
        client = place.aws.client(service, **(given if given is not None else credentials(place)))
        getattr(client, operation)(**more)
    except (ClientError, ApiException) as error:
        return refusal(error)
    return ALLOWED


def reads_only(place: "Workspace", key: str, *, elsewhere: bool = False) -> list[Comparison]:
    """Check that the role can only read its own bucket. Return a row, marked as wrong, for each other allowed action.

    The bucket has the namespace's name. IAM's simulator decides about an object `key` in it, and in other buckets,
    and about actions of other services, unless the role may read `elsewhere`.
    """
    name, prefix = place.parameters.namespace, key[: key.rfind("/") + 1]
    requests: list[tuple[str, tuple[str, ...]]] = [(name, CHANGES_OF_BUCKET), (f"{name}/{key}", CHANGES_OF_OBJECT)]
    for other in () if elsewhere else ("another-bucket", f"{name}-other"):
        requests += [(other, ("s3:ListBucket",)), (f"{other}/{key}", ("s3:GetObject",))]
    decisions = [
        (f"{action} on {resource}", decision)
        for resource, actions in requests
        for action, decision in surplus.simulated(
            place,
            place.role_arn,
            *actions,
            resource=f"arn:{place.connection.partition}:s3:::{resource}",
            **{"s3:prefix": ("string", prefix)},
        ).items()
    ]
    if not elsewhere:
        decisions += surplus.simulated(place, place.role_arn, *OF_OTHERS).items()
    arn = f"arn:{place.connection.partition}:s3:::{name}"

    def is_own(action: str, resource: str) -> bool:
        return surplus.is_a_read(action) and f"{resource}/".startswith(f"{arn}/")

    needed = surplus.is_a_read if elsewhere else is_own
    wrong = [what for what, decision in decisions if decision == ALLOWED]
    return [Comparison(what, "refused", ALLOWED) for what in wrong or surplus.allowed(place, place.role_arn, needed)]


def refusal(error: Exception) -> str:
    """Return the text of an error from AWS or from the cluster. AWS's text begins with the error's code.

    In AWS's text, `<session name>` replaces the name of a session.
    """
    if isinstance(error, ClientError):
        details = error.response["Error"]
        return f"{details['Code']}: {without_session(details['Message'])}"
    return said_by_the_cluster(error)


def injected(place: "Workspace", account: str = "") -> str:
    """Return the role's ARN that the webhook would write into a new pod of this service account, or "no role".

    If the pod's token isn't for AWS, the text also names the token's audience. If the cluster forbids the pod, return
    the cluster's message.
    """
    made = _tried_out(place, account)
    if isinstance(made, str):
        return made
    role, meant_for = _variable(made, "AWS_ROLE_ARN"), [token.audience for token in _tokens(made)]
    if role and AUDIENCE not in meant_for:
        return f"{role}, with a token for {', '.join(meant_for) or 'nobody'}"
    return role or "no role"


def agent(place: "Workspace", account: str = "") -> str:
    """Return the Pod Identity Agent's URL from a new pod's variable; "no agent" if the variable isn't set.

    If the cluster forbids the pod, return the cluster's message. `account` is the pod's service account.
    """
    made = _tried_out(place, account)
    return made if isinstance(made, str) else _variable(made, "AWS_CONTAINER_CREDENTIALS_FULL_URI") or "no agent"


def pod_identity(place: "Workspace", account: str = "") -> str:
    """Exchange a new pod's token at EKS Auth. Return the role as assumed-role/NAME, or the text of the refusal.

    The pod never runs. At the end, this function deletes the pod.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_auth_AssumeRoleForPodIdentity.html
    """
    core, parameters = core_api(place.kubernetes), place.parameters
    name, namespace = account or parameters.service_account, parameters.namespace
    spec: dict[str, Any] = {"serviceAccountName": name, "nodeSelector": {"asked-only": "true"}}
    spec["containers"] = [{"name": "asked", "image": place.image}]
    try:
        made = core.create_namespaced_pod(namespace, {"metadata": {"generateName": "asked-"}, "spec": spec})
    except ApiException as error:  # such as a service account that doesn't exist
        return refusal(error)
    bound = {"apiVersion": "v1", "kind": "Pod", "name": made.metadata.name, "uid": made.metadata.uid}
    wanted = {"spec": {"audiences": ["pods.eks.amazonaws.com"], "boundObjectRef": bound}}
    try:
        token = core.create_namespaced_service_account_token(name, namespace, wanted).status.token
        answer = place.aws.client("eks-auth").assume_role_for_pod_identity(clusterName=parameters.cluster, token=token)
    except ClientError as error:
        return refusal(error)
    finally:
        core.delete_namespaced_pod(made.metadata.name, namespace, grace_period_seconds=0)
    return str(answer["assumedRoleUser"]["arn"]).rpartition(":")[2].rpartition("/")[0]


def token_life(place: "Workspace", account: str = "") -> int:
    """Return the lifetime of a new pod's token for AWS, in seconds; 0 if the pod gets no such token."""
    made = _tried_out(place, account)
    if isinstance(made, str):
        return 0
    lives: list[int] = [token.expiration_seconds for token in _tokens(made) if token.audience == AUDIENCE]
    return lives[0] if lives else 0


def _tokens(made: Any) -> list[Any]:
    """Return the projected tokens of a pod that name an audience."""
    sources = [source for volume in made.spec.volumes or [] if volume.projected for source in volume.projected.sources]
    tokens = [source.service_account_token for source in sources if source.service_account_token]
    return [token for token in tokens if token.audience]


def _variable(made: Any, name: str) -> str:
    variables: dict[str, str] = {each.name: each.value for each in made.spec.containers[0].env or []}
    return variables.get(name, "")


def _tried_out(place: "Workspace", account: str) -> Any:
    """Return the pod that the cluster would create for the service account, or the cluster's refusal."""
    tried = documents.pod(place.parameters, place.image)
    tried["metadata"]["name"] = "tried-out"
    tried["spec"]["serviceAccountName"] = account or place.parameters.service_account
    try:
        # A dry run calls the webhook, but stores no pod:
        # https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
        return core_api(place.kubernetes).create_namespaced_pod(place.parameters.namespace, tried, dry_run="All")
    except ApiException as error:
        if error.status != 403:
            raise
        return said_by_the_cluster(error)


def caller(place: "Workspace") -> str:
    """Call AWS from the pod. Return the pod's role as assumed-role/NAME, or the error if the call fails.

    https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
    """
    said = answer(place, "aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text")
    arn = Arn.find(said)
    return arn.resource.removesuffix(f"/{arn.name}") if arn else said


def answer(place: "Workspace", *command: str, pod: str = POD_NAME) -> str:
    """Run a command in a pod. Return its output, or the error if the command fails."""
    done = execution.execute(place.kubernetes, pod, place.parameters.namespace, [*command])
    return (done.output if done.exit_code == 0 else done.error or done.output).strip()


def _subject(place: "Workspace", account: str, namespace: str) -> str:
    return f"{namespace or place.parameters.namespace}:{account or place.parameters.service_account}"
