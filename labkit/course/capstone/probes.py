"""The calls that decide whether the shop is as its brief says. They are made as the shop's pods, and as strangers.

A pod's own credentials make its calls, wherever the pod has them from: IRSA, Pod Identity, or a role in either account.
"""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from botocore.exceptions import ClientError
from kubernetes.client.exceptions import ApiException

from labkit import documents
from labkit.connection import core_api
from labkit.course.exercises import asking, surplus
from labkit.course.exercises.asking import ADMITTED, ALLOWED
from labkit.doctor import Comparison
from labkit.errors import LabError, said_by_the_cluster
from labkit.execution import execute
from labkit.policy import Policy, Principal
from labkit.policy.arn import Arn
from labkit.steps import pod
from labkit.steps.ownership import existing
from labkit.workspace import Workspace

if TYPE_CHECKING:
    from labkit.course.capstone.shop import Shop

REFUSED = "refused"
KEY = "probe"
# The actions that a pod needs to read and to write, as regular expressions.
READS = r"s3:(Get|List)\w+"
WRITES = "s3:(PutObject|AbortMultipartUpload|ListMultipartUploadParts)"
IMAGE = "public.ecr.aws/lambda/python"  # it has the SDK
# Print the credentials that the SDK finds, by the chain that each AWS tool follows.
# https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
EXPORT = """
import json, sys
from botocore.session import get_session
found = get_session().get_credentials() or sys.exit("Unable to locate credentials")
names = ("aws_access_key_id", "aws_secret_access_key", "aws_session_token")
print(json.dumps(dict(zip(names, found.get_frozen_credentials()))))
"""


class Caller(NamedTuple):
    """A pod's credentials, or why it has none."""

    name: str
    """The service account and its cluster, and the namespace if it isn't the shop's."""
    credentials: asking.Credentials
    why_not: str


def rows(shop: "Shop") -> list[Comparison]:
    """Return a row for each call: who called what, and what came. Raises `LabError` if a bucket is gone."""
    _put_objects(shop)
    elsewhere = asking.lookalike(shop.blue.parameters.namespace)
    core = core_api(shop.lab.kubernetes)
    core.create_namespace({"metadata": {"name": elsewhere, "labels": shop.lab.labels}})
    strangers = [(shop.green, shop.cart), (_in_namespace(shop.blue, elsewhere), shop.cart)]
    for place, account in strangers:
        metadata = {"name": account, "labels": shop.lab.labels}
        core_api(place.kubernetes).create_namespaced_service_account(place.parameters.namespace, {"metadata": metadata})
    theirs = [*_places(shop), (shop.blue, shop.left)]
    others = [(shop.blue, "default"), (shop.green, "default"), *strangers]
    try:
        with ThreadPoolExecutor(4) as at_once:
            callers = [*at_once.map(lambda each: _caller(*each), [*theirs, *others])]
        roles = [_role_of(shop, caller) for caller in callers[:3]]
        return [
            *_calls(shop, *callers[:4]),
            *_of_nobody(shop, callers[3:]),
            _of_left(shop),
            *_of_strangers(shop, callers[:3], roles),
            *_of_policies(shop, roles),
            *_of_buckets(shop, roles),
        ]
    finally:
        core.delete_namespace(elsewhere)
        core_api(shop.green.kubernetes).delete_namespaced_service_account(shop.cart, shop.green.parameters.namespace)


def parts(shop: "Shop", rows: list[Comparison]) -> dict[str, list[Comparison]]:
    """Return the rows of cart, of till and of reports, by the service account's name, and those of everybody else."""
    names = {f"{account} in {place.parameters.cluster}:": account for place, account in _places(shop)}
    names |= {f"the role of {account},": account for account in names.values()}
    grouped: dict[str, list[Comparison]] = {part: [] for part in (*names.values(), "everybody else")}
    for row in rows:
        grouped[next((names[name] for name in names if row.what.startswith(name)), "everybody else")].append(row)
    return grouped


def _put_objects(shop: "Shop") -> None:
    """Put an object at each place, so that only a policy can refuse to read it."""
    for account, bucket in ((shop.lab, shop.baskets), (shop.other_account, shop.ledger)):
        for prefix in ("baskets", "sales", "other"):
            try:
                account.aws.client("s3").put_object(Bucket=bucket, Key=f"{prefix}/{KEY}", Body=b"probe")
            except ClientError as error:
                raise LabError(
                    f"The shop's bucket can't be used: {asking.refusal(error)}",
                    where=f"bucket {bucket}",
                    next="create the bucket again; or, to begin again with nothing:  lab.capstone(again=True)",
                ) from error


def _in_namespace(place: Workspace, namespace: str) -> Workspace:
    return Workspace(place.parameters.model_copy(update={"namespace": namespace}), place.connection)


def _caller(place: Workspace, account: str) -> Caller:
    """Start a pod that names only its service account, and return the credentials that its SDK finds."""
    namespace, cluster = place.parameters.namespace, place.parameters.cluster
    name = f"{account} in {cluster}" if namespace == "shop" else f"{account} in another namespace of {cluster}"
    # Each thread needs its own client: opening a command's stream replaces a method of the client for a moment.
    api, core, pod_name = copy(place.kubernetes), core_api(place.kubernetes), f"probe-{account}"
    container = {"name": "aws", "image": IMAGE, "command": documents.SLEEP}
    spec = {"serviceAccountName": account, "containers": [container]}
    try:
        core.create_namespaced_pod(namespace, {"metadata": {"name": pod_name, "labels": place.labels}, "spec": spec})
    except ApiException as error:
        return Caller(name, {}, said_by_the_cluster(error))
    try:
        pod.wait_until_running(place, pod_name, namespace)
        done = execute(api, pod_name, namespace, ["python", "-c", EXPORT])
    except LabError as error:
        return Caller(name, {}, str(error).splitlines()[0])
    finally:
        pod.delete(place, pod_name, namespace)
    if done.exit_code:
        # The last line of a traceback is the error: botocore.exceptions.ClientError: An error occurred …
        said = (done.error.strip().splitlines() or ["no credentials"])[-1]
        return Caller(name, {}, re.sub(r"^[\w.]+: ", "", said))
    return Caller(name, json.loads(done.output), "")


def _calls(shop: "Shop", cart: Caller, till: Caller, reports: Caller, left: Caller) -> Iterator[Comparison]:
    baskets, ledger = shop.baskets, shop.ledger
    yield _call(shop, cart, "put_object", baskets, "baskets", works=True)
    yield _call(shop, cart, "get_object", baskets, "baskets", works=True)
    yield _call(shop, cart, "delete_object", baskets, "baskets")
    yield _call(shop, cart, "put_object", baskets, "other")
    yield _call(shop, cart, "get_object", baskets, "other")
    yield _call(shop, cart, "list_objects_v2", baskets)
    yield _call(shop, cart, "put_object", ledger, "sales")
    yield _call(shop, cart, "get_object", ledger, "sales")
    yield _call(shop, till, "put_object", ledger, "sales", works=True)
    yield _call(shop, till, "get_object", ledger, "sales")
    yield _call(shop, till, "delete_object", ledger, "sales")
    yield _call(shop, till, "put_object", ledger, "other")
    yield _call(shop, till, "list_objects_v2", ledger)
    yield _call(shop, till, "get_object", baskets, "baskets")
    yield _call(shop, till, "put_object", baskets, "baskets")
    yield _call(shop, reports, "list_objects_v2", ledger, works=True)
    yield _call(shop, reports, "get_object", ledger, "sales", works=True)
    yield _call(shop, reports, "get_object", ledger, "other")
    yield _call(shop, reports, "put_object", ledger, "sales")
    yield _call(shop, reports, "delete_object", ledger, "sales")
    yield _call(shop, reports, "get_object", baskets, "baskets")
    yield _call(shop, left, "put_object", baskets, "baskets")
    yield _call(shop, left, "put_object", ledger, "sales")


def _of_nobody(shop: "Shop", callers: list[Caller]) -> Iterator[Comparison]:
    """Yield the calls of pods that get nothing."""
    for caller in callers:
        yield _call(shop, caller, "get_object", shop.baskets, "baskets")
        yield _call(shop, caller, "get_object", shop.ledger, "sales")


def _of_left(shop: "Shop") -> Comparison:
    """Return which roles STS gives to the team that has left. A token needs no annotation for this."""
    namespace = shop.blue.parameters.namespace
    admitting = [role for role in _roles(shop) if _exchange(shop.blue, shop.left, namespace, role) == ADMITTED]
    what = f"{shop.left} in {shop.blue.parameters.cluster}: AssumeRoleWithWebIdentity of any role of the shop"
    return Comparison(what, REFUSED, _allowed(admitting))


def _roles(shop: "Shop") -> Iterator[str]:
    """Yield the ARNs of the shop's roles in both accounts."""
    for account in (shop.lab, shop.other_account):
        for page in account.aws.client("iam").get_paginator("list_roles").paginate():
            yield from (role["Arn"] for role in page["Roles"] if role["RoleName"].startswith("shop-"))


def _call(
    shop: "Shop", caller: Caller, operation: str, bucket: str, prefix: str = "", *, works: bool = False
) -> Comparison:
    key = {"Key": f"{prefix}/{KEY}"} if prefix else {}
    body = {"Body": b"probe"} if operation == "put_object" else {}
    name = "".join(map(str.capitalize, operation.removesuffix("_v2").split("_")))
    what = f"{caller.name}: {name} {bucket}{f'/{prefix}' if prefix else ''}"
    if caller.credentials:
        answer = asking.call(shop.lab, "s3", operation, caller.credentials, Bucket=bucket, **key, **body)
    else:
        answer = caller.why_not
    return Comparison(what, ALLOWED if works else REFUSED, answer if works else _in_short(answer))


def _in_short(answer: str) -> str:
    return answer if answer in (ALLOWED, ADMITTED) else REFUSED


def _of_strangers(shop: "Shop", callers: list[Caller], roles: list[str]) -> Iterator[Comparison]:
    """Yield what STS answers to tokens that must not get the roles of the shop, and to the other pods of the shop."""
    places = _places(shop)
    for (place, account), role in zip(places, roles, strict=True):
        other, namespace = (shop.green if place is shop.blue else shop.blue), place.parameters.namespace
        like, elsewhere = asking.lookalike(account), asking.lookalike(namespace)
        strangers = {
            f"a new service account like {account}": (place, like, namespace),
            f"{account} in a new namespace": (place, account, elsewhere),
            f"{account} in the other cluster": (other, account, namespace),
        }
        answer = asking.exchange(place, account, audience="vault", role_arn=role) if role else REFUSED
        yield Comparison(f"the role of {account}, with a token for another audience", REFUSED, _in_short(answer))
        for who, (cluster, name, where) in strangers.items():
            answer = _exchange(cluster, name, where, role) if role else REFUSED
            yield Comparison(f"the role of {account}, with a token of {who}", REFUSED, _in_short(answer))
    owners = [account for _, account in places]
    for at, caller in enumerate(callers):
        role, whose = roles[at - 1], owners[at - 1]
        request = {"RoleArn": role, "RoleSessionName": KEY}
        answer = asking.call(shop.lab, "sts", "assume_role", caller.credentials, **request) if role else REFUSED
        yield Comparison(f"{caller.name}: AssumeRole of {whose}'s role", REFUSED, _in_short(answer))


def _of_policies(shop: "Shop", roles: list[str]) -> Iterator[Comparison]:
    """Yield who else may become the shop's roles, by their policies, and what else the roles may do."""
    for (place, account), role in zip(_places(shop), roles, strict=True):
        sharing = [where for where, each in zip(_places(shop), roles, strict=True) if each == role]
        others = _others(shop, place, account, role, sharing) if role else []
        more = surplus.allowed(shop.lab, role, _needed(shop, roles, role)) if role else []
        yield Comparison(f"the role of {account}, for others that the role admits", REFUSED, _allowed(others))
        yield Comparison(f"the role of {account}, for other calls that its policies allow", REFUSED, _allowed(more))


def _of_buckets(shop: "Shop", roles: list[str]) -> Iterator[Comparison]:
    """Yield who else may use each bucket, by its policy, and what else the policy allows the roles.

    A role of the other account also needs a permission of its own, and `_of_policies` reads these.
    """
    partition, accounts = shop.lab.connection.partition, (shop.lab, shop.other_account)
    known = [*roles, *(each.account_id for each in accounts), *(_user_id(shop, role) for role in roles if role)]
    for account, bucket in zip(accounts, (shop.baskets, shop.ledger), strict=True):
        policy = _policy_of(account, bucket)
        more = [name for name in surplus.named(policy) if not _is_among(known, name)]
        more += [f"everybody: {each}" for each in surplus.opened_to_everybody(policy)]
        for role in dict.fromkeys(role for role in roles if role and Arn.parse(role).account == account.account_id):
            arn = Arn.parse(role)
            session = Principal.role_session(f"arn:{partition}:sts::{arn.account}:assumed-role/{arn.name}/{KEY}", role)
            more += [f"{arn.name}: {each}" for each in surplus.opened(policy, session, _needed(shop, roles, role))]
        yield Comparison(f"the bucket {bucket}, for whatever else its policy allows", REFUSED, _allowed(more))


def _is_among(known: list[str], name: str) -> bool:
    """Whether a name in a policy is one of the known ones. A wildcard may stand in a name, but not in an account."""
    whose = name.rpartition(":")[0] or name
    return not {*whose} & {"*", "?"} and any(fnmatchcase(each, name) for each in known)


def _user_id(shop: "Shop", role: str) -> str:
    """Return what `aws:userid` is in a session of the role.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_variables.html#principaltable
    """
    arn = Arn.parse(role)
    iam = surplus.in_account_of(shop.lab, arn).aws.client("iam")
    return f"{iam.get_role(RoleName=arn.name)['Role']['RoleId']}:{KEY}"


def _policy_of(account: Workspace, bucket: str) -> Policy:
    s3 = account.aws.client("s3")
    try:
        document = s3.get_bucket_policy(Bucket=bucket)["Policy"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucketPolicy":
            raise
        document = {"Version": "2012-10-17", "Statement": []}
    return Policy.read(document, kind="resource", name=bucket)


def _needed(shop: "Shop", roles: list[str], role: str) -> surplus.Needed:
    """Return whether the pods that have this role need an action on a resource.

    Pods may share a role: with Pod Identity, a policy can tell them apart by their session's tags.
    """
    bucket = f"arn:{shop.lab.connection.partition}:s3:::"
    needs = (
        ((READS, f"{bucket}{shop.baskets}/baskets/.+"), (WRITES, f"{bucket}{shop.baskets}/baskets/.+")),
        ((WRITES, f"{bucket}{shop.ledger}/sales/.+"),),
        ((READS, f"{bucket}{shop.ledger}(/sales/.+)?"),),
    )
    allowed = [need for each, some in zip(roles, needs, strict=True) if each == role for need in some]
    return lambda action, resource: any(
        re.fullmatch(what, action, re.I) and re.fullmatch(on, resource) for what, on in allowed
    )


def _places(shop: "Shop") -> list[tuple[Workspace, str]]:
    return [(shop.blue, shop.cart), (shop.blue, shop.till), (shop.green, shop.reports)]


def _others(shop: "Shop", place: Workspace, account: str, role: str, sharing: list[tuple[Workspace, str]]) -> list[str]:
    """Return the others that the role's trust policy or a Pod Identity association names: they have the role, too."""
    named = [each for each in asking.named_by(place, role) if each != (account, place.parameters.namespace)]
    rows = [*asking.without_a_token(place, role), *asking.first_admitted(place, named, role)]
    own = [(each.parameters.cluster, each.parameters.namespace, name) for each, name in sharing]
    associated = [each for each in surplus.associated(shop.lab, role) if each not in own]
    return [row.what for row in rows] + [f"{where}:{name} in {cluster}" for cluster, where, name in associated]


def _allowed(surplus: list[str]) -> str:
    return f"{ALLOWED}: {', '.join(surplus)}" if surplus else REFUSED


def _exchange(place: Workspace, account: str, namespace: str, role: str) -> str:
    """Exchange a token of this service account, which is created for it if it's missing."""
    if existing(partial(core_api(place.kubernetes).read_namespaced_service_account, account, namespace)):
        return asking.exchange(place, account, namespace=namespace, role_arn=role)
    return asking.newcomer(place, account, namespace, role_arn=role)


def _role_of(shop: "Shop", caller: Caller) -> str:
    """Return the ARN of the role that a pod has; empty without a role."""
    if not caller.credentials:
        return ""
    sts = shop.lab.aws.client("sts", **caller.credentials)
    session = Arn.parse(sts.get_caller_identity()["Arn"])
    iam = surplus.in_account_of(shop.lab, session).aws.client("iam")
    # A session's ARN doesn't show the role's path.
    return str(iam.get_role(RoleName=session.resource.split("/")[1])["Role"]["Arn"])
