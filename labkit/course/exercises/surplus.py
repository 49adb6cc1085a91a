"""What a role's policies let in, or let the role do, beyond what a task asks for.

A probe can't guess the number of an account or the name of a bucket. So these functions read the policies, and ask
about each name that they find there.
"""

import json
import re
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from labkit.policy import Policy, Principal, Request, Statement, verdict
from labkit.policy.arn import Arn
from labkit.policy.reference import actions_like

if TYPE_CHECKING:
    from labkit.workspace import Workspace

Needed = Callable[[str, str], bool]
"""Whether a task needs an action on a resource."""
FEDERATED = ("sts:assumerolewithwebidentity", "sts:assumerolewithsaml")
# The condition keys that say who calls. What other keys say, a caller can choose or wait for: a tag, a header, a date.
CALLERS = ("aws:principalaccount", "aws:principalarn", "aws:userid")
STRANGER = Principal.role_session("arn:aws:sts::999999999999:assumed-role/stranger/stranger")
ALLOWED = "allowed"
# What AWS's managed policy AmazonS3ReadOnlyAccess allows.
READS = ("s3:get", "s3:list", "s3:describe", "s3-object-lambda:get", "s3-object-lambda:list")
POD_IDENTITY = "pods.eks.amazonaws.com"


def is_a_read(action: str, _resource: str = "") -> bool:
    """Whether an action only reads from S3, wherever."""
    return action.lower().startswith(READS)


def named(policy: Policy) -> list[str]:
    """Return the principals that a trust policy or a bucket's policy names: services, accounts, roles and providers.

    For everybody (`*`), a call says more than the policy, because its conditions may leave nobody. But nobody can call
    for another account, so the accounts, users and roles in these conditions count as named.
    """
    return list(dict.fromkeys(name for statement in policy.statements for name in _named(statement)))


def _named(statement: Statement) -> Iterator[str]:
    who = statement.principals
    if not statement.allow or statement.fault or who is None:
        return
    is_trust = statement.resources is None
    if not is_trust or _covers(statement, "sts:assumerole"):
        yield from sorted((who.services | who.aws | who.accounts) - {"*"})
        if who.anybody:
            yield from [value for key, value in _conditions(statement) if key.lower() in CALLERS]
    if not is_trust or any(_covers(statement, each) for each in FEDERATED):
        yield from sorted(who.federated)


def _conditions(statement: Statement) -> Iterator[tuple[str, str]]:
    """Yield each key of the conditions with each of its values, apart from those that must differ."""
    for operator, block in statement.raw.get("Condition", {}).items():
        for key, values in block.items() if "Not" not in operator else ():
            yield from ((key, str(value)) for value in (values if isinstance(values, list) else [values]))


def _covers(statement: Statement, action: str) -> bool:
    return statement.actions.match(action) is not statement.not_action


def admitted(place: "Workspace", role_arn: str = "", *, known: Collection[str] = ()) -> list[str]:
    """Return the principals that the role's trust policy names, apart from the cluster's issuer and those in `known`.

    EKS Pod Identity may be named if a cluster has an association with the role.
    """
    role = Arn.parse(role_arn or place.role_arn)
    iam = in_account_of(place, role).aws.client("iam")
    try:
        document = iam.get_role(RoleName=role.name)["Role"]["AssumeRolePolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return []
    issuer = place.issuer.removeprefix("https://")
    policy = Policy.read(document, kind="trust", name=role.name)
    names = named(policy) + ["everybody" for _ in opened_to_everybody(policy)][:1]
    others = [each for each in names if each not in known and ((arn := Arn.find(each)) is None or arn.issuer != issuer)]
    if POD_IDENTITY in others and any(associated(place, str(role))):
        others.remove(POD_IDENTITY)
    return others


def trusts(place: "Workspace", role_arn: str) -> list[str]:
    """Return the principals that the role's trust policy names; none if the role doesn't exist."""
    iam, name = place.aws.client("iam"), Arn.parse(role_arn).name
    try:
        document = iam.get_role(RoleName=name)["Role"]["AssumeRolePolicyDocument"]
    except iam.exceptions.NoSuchEntityException:
        return []
    return named(Policy.read(document, kind="trust", name=name))


def associated(place: "Workspace", role_arn: str) -> Iterator[tuple[str, str, str]]:
    """Yield the cluster, the namespace and the service account of each Pod Identity association with this role."""
    eks = place.aws.client("eks")
    for cluster in eks.list_clusters()["clusters"]:
        for each in eks.list_pod_identity_associations(clusterName=cluster)["associations"]:
            one = eks.describe_pod_identity_association(clusterName=cluster, associationId=each["associationId"])
            if one["association"]["roleArn"] == role_arn:
                yield cluster, each["namespace"], each["serviceAccount"]


def allowed(place: "Workspace", role_arn: str, needed: Needed, *, apart_from: str = "") -> list[str]:
    """Return what the role's policies allow and `needed` refuses, such as `s3:PutObject on arn:aws:s3:::other/*`.

    For each statement, that is the first action. IAM's simulator decides, so a Deny and a boundary count.
    `apart_from` is the ARN of a managed policy that the task gives.
    """
    role = Arn.parse(role_arn)
    there = in_account_of(place, role)
    surplus: list[str] = []
    for document in _documents(there.aws.client("iam"), role.name, apart_from):
        for statement in Policy.read(document, kind="identity", name=role.name).statements:
            if statement.allow and not statement.fault:
                surplus += _surplus_of(there, role_arn, statement, needed)
    return list(dict.fromkeys(surplus))


def opened(policy: Policy, principal: Principal, needed: Needed) -> list[str]:
    """Return what a policy of a resource allows the principal, and `needed` refuses: each statement's first action.

    Conditions count only if they say who calls.
    """
    widest, surplus = _widest(policy), list[str]()
    for statement in widest.statements:
        if statement.allow and not statement.fault:
            surplus += _opened_by(widest, statement, principal, needed)
    return list(dict.fromkeys(surplus))


def opened_to_everybody(policy: Policy) -> list[str]:
    """Return what a policy of a resource allows a stranger: each statement's first action.

    A policy variable may have any value, because a stranger chooses the tags of their session.
    """
    document = json.loads(re.sub(r"\$\{[^}*?$]+\}", "*", json.dumps(policy.document)))
    return opened(Policy.read(document, kind=policy.kind, name=policy.name), STRANGER, lambda *_: False)


def in_account_of(place: "Workspace", arn: Arn) -> "Workspace":
    """Return the workspace in the account of a resource. Raises `LabError` if you can't enter that account."""
    return place.in_account(arn.account) if arn.account != place.account_id else place


def simulated(
    place: "Workspace", role_arn: str, *actions: str, resource: str = "*", **context: tuple[str, str]
) -> dict[str, str]:
    """Return IAM's decision for each action: "allowed", "implicitDeny" or "explicitDeny". No call is made.

    If the role doesn't exist, the text of IAM's refusal takes the place of each decision. The simulation uses the same
    evaluator as real calls. `context` has the type and the value of each condition key.

    https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
    """
    iam = place.aws.client("iam")
    entries = [
        {"ContextKeyName": key, "ContextKeyType": kind, "ContextKeyValues": [value]}
        for key, (kind, value) in context.items()
    ]
    try:
        answered = iam.simulate_principal_policy(
            PolicySourceArn=role_arn, ActionNames=actions, ResourceArns=[resource], ContextEntries=entries
        )
    except iam.exceptions.NoSuchEntityException as error:
        return dict.fromkeys(actions, f"NoSuchEntity: {error}")
    return {each["EvalActionName"]: each["EvalDecision"] for each in answered["EvaluationResults"]}


def _surplus_of(place: "Workspace", role_arn: str, statement: Statement, needed: Needed) -> Iterator[str]:
    context = {key: ("string", _filled(value)) for key, value in _conditions(statement)}
    actions = [each for each in _actions(statement) if _covers(statement, each.lower())]
    for pattern in statement.written("Resource") or ("*",):
        resource = pattern if pattern == "*" else _filled(pattern)
        unneeded = [each for each in actions if not needed(each, resource)]
        if unneeded:
            decided = simulated(place, role_arn, *unneeded, resource=resource, **context)
            yield from [f"{each} on {pattern}" for each, said in decided.items() if said == ALLOWED][:1]


def _widest(policy: Policy) -> Policy:
    """Return what the policy is for who meets each condition that doesn't say who calls, and evades each such Deny."""
    statements = []
    for each in policy.statements:
        condition = each.raw.get("Condition", {}) if not each.fault else {}
        kept = {
            operator: {key: value for key, value in block.items() if _says_who(each, operator, key)}
            for operator, block in condition.items()
        }
        kept = {operator: block for operator, block in kept.items() if block}
        if each.allow or kept == condition:
            rest = {name: value for name, value in each.raw.items() if name != "Condition"}
            statements.append(rest | ({"Condition": kept} if kept else {}))
    return Policy.read({**policy.document, "Statement": statements}, kind=policy.kind, name=policy.name)


def _says_who(statement: Statement, operator: str, key: str) -> bool:
    # An anonymous caller has none of these keys, so these operators let it in.
    lets_in_anonymous = statement.allow and (operator.endswith("IfExists") or operator.startswith("ForAllValues"))
    return key.lower() in CALLERS and not lets_in_anonymous


def _opened_by(policy: Policy, statement: Statement, principal: Principal, needed: Needed) -> Iterator[str]:
    for pattern in statement.written("Resource") or ("*",):
        resource = _filled(pattern)
        for action in _actions(statement):
            if not needed(action, resource) and verdict([policy], Request(principal, action, resource)) == ALLOWED:
                yield f"{action} on {pattern}"
                break


def _actions(statement: Statement) -> list[str]:
    """Return the actions that a statement may allow. If it names no service, those of some services."""
    written = [] if statement.not_action else statement.written("Action")
    if not written or "*" in [each.partition(":")[0] for each in written]:
        written = ("s3:*", "iam:*", "sts:*")
    return [action for each in written for action in (sorted(actions_like(each)) if {*each} & {"*", "?"} else [each])]


def _documents(iam: Any, role: str, apart_from: str) -> Iterator[Any]:
    try:
        for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
            yield iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        for each in iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]:
            if (arn := each["PolicyArn"]) != apart_from:
                version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
                yield iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"]
    except iam.exceptions.NoSuchEntityException:  # no role: another row says so
        return


def _filled(pattern: str) -> str:
    return pattern.replace("*", uuid4().hex[:4]).replace("?", "x")
