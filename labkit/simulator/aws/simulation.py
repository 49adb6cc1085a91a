"""IAM's policy simulator. It decides whether calls would be allowed, without making them.

What differs from AWS:

- Organizations: the simulator evaluates the service control policies of the principal's account, but no resource
  control policies. It refuses `OrderedOrganizationPolicyInputList` and `PolicyExclusionList`.
- `ResourceHandlingOption`: ignored. Each action is simulated on the resources in `ResourceArns` (default: `*`).

https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulatePrincipalPolicy.html
https://docs.aws.amazon.com/IAM/latest/APIReference/API_SimulateCustomPolicy.html
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from labkit.policy import (
    Control,
    MalformedPolicy,
    Outcome,
    Policy,
    Principal,
    Request,
    Statement,
    evaluate,
    matching,
    statement_positions,
    verdict,
    within,
)
from labkit.policy.arn import Arn
from labkit.policy.conditions import READERS
from labkit.simulator.aws import managed_policies
from labkit.simulator.aws.answers import (
    Refusal,
    constraint_violation,
    done,
    invalid,
    missing_required,
    out_of_range,
    xml,
)
from labkit.simulator.aws.authorization import principal_tags, stored_policy
from labkit.simulator.aws.backend import Backend, every
from labkit.simulator.aws.call import AwsRequest, CannotDerive, Response
from labkit.simulator.aws.organizations import Organization

# The operations, and the parameters that they require.
OPERATIONS = {
    "SimulatePrincipalPolicy": ("PolicySourceArn", "ActionNames"),
    "SimulateCustomPolicy": ("PolicyInputList", "ActionNames"),
    "GetContextKeysForPrincipalPolicy": ("PolicySourceArn",),
    "GetContextKeysForCustomPolicy": ("PolicyInputList",),
}
NOT_SIMULATED = ("OrderedOrganizationPolicyInputList", "PolicyExclusionList")
USUAL_PAGE, LONGEST_PAGE, MOST_DECISIONS = 100, 1000, 10_000
ENTITY = re.compile(r"arn:aws[a-z-]*:iam::(\d{12}):(user|group|role)/(?:[\x21-\x7e]*/)?([\w+=,.@-]+)", re.ASCII)
ACTION = re.compile(r"[A-Za-z0-9-]+:[A-Za-z0-9]+", re.ASCII)
VARIABLE = re.compile(r"\$\{\s*([^,}'\s]+:[^,}']*?)\s*[,}]")
STRICTEST: tuple[Outcome, ...] = ("explicitDeny", "implicitDeny", "allowed")
TYPES = {"identity": "IAM Policy", "boundary": "Permissions Boundary Policy", "resource": "Resource Policy"}
# IAM's name for the resource of a result that covers several resources.
TEMPLATES = (
    (r"s3:\w*(Object(?!LockConfiguration)\w*|MultipartUpload|MultipartUploadParts)", "s3:::${BucketName}/${KeyName}"),
    (r"s3:(?!ListAllMyBuckets|CreateJob|ListJobs)\w+", "s3:::${BucketName}"),
    (r"sts:(AssumeRole\w*|TagSession)", "iam::${Account}:role/${RoleNameWithPath}"),
    (r"dynamodb:(?!List)\w+", "dynamodb:${Region}:${Account}:table/${TableName}"),
    (r"sqs:(?!ListQueues)\w+", "sqs:${Region}:${Account}:${QueueName}"),
    (r"secretsmanager:(?!ListSecrets|GetRandomPassword)\w+", "secretsmanager:${Region}:${Account}:secret:${SecretId}"),
)  # fmt: skip
BOUNDARY_DETAIL = "PermissionsBoundaryDecisionDetail"
NOBODY = Principal.federated("nobody")


def answer(request: AwsRequest, backend: Backend, organization: Organization) -> Response:
    """Answer a call of the simulator. Raises ``Refusal`` (NoSuchEntity, InvalidInput or PolicyEvaluation)."""
    try:
        parameters = request.parameters
    except CannotDerive as unknown:
        raise Refusal(400, "ValidationError", f"The lab cannot read {unknown}") from unknown
    if faults := missing_required(name for name in OPERATIONS[request.operation] if not parameters.get(name)):
        raise invalid(*faults)
    if missing := [name for name in NOT_SIMULATED if name in parameters]:
        raise _invalid(f"The lab's policy simulator does not support {' and '.join(missing)}")
    simulated = _simulated(parameters, backend, organization)
    if request.operation.startswith("GetContextKeys"):
        statements = ((policy, statement) for policy in simulated.sources for statement in policy.statements)
        return done(request, xml({"ContextKeyNames": _names(key for each in statements for key in _keys_of(*each))}))
    actions, first, last = parameters["ActionNames"], _marker(parameters), _page(parameters)
    resources = parameters.get("ResourceArns") or ["*"]
    _check(actions, resources)
    last = first + max(1, min(last, MOST_DECISIONS // len(resources)))
    content: dict[str, Any] = {
        "EvaluationResults": [_result(simulated, action, resources) for action in actions[first:last]],
        "IsTruncated": last < len(actions),
    }
    if last < len(actions):
        content["Marker"] = str(last)
    return done(request, xml(content))


@dataclass(frozen=True)
class Simulated:
    """The policies and the context of a simulation. In IAM's answer, each policy has the name from ``sources``."""

    sources: dict[Policy, str]
    identity: list[Policy]
    boundary: Policy | None
    resource: list[Policy]
    caller: Principal
    owner: str | None
    context: dict[str, Any]
    control: Control | None
    """The service control policies of the principal's account; None if the account is in no organization."""

    def request(self, action: str, resource: str) -> Request:
        return Request(self.caller, action, resource, self.context)

    def same_account(self, resource: str) -> bool:
        """Whether the caller and the resource are in the same account. Always true without a resource policy."""
        account = named.account if (named := Arn.find(resource)) else ""
        owner = account or self.owner or self.caller.account
        return not self.resource or owner == self.caller.account


def _simulated(parameters: dict[str, Any], backend: Backend, organization: Organization) -> Simulated:
    sources: dict[Policy, str] = {}
    context: dict[str, Any] = {}
    boundary, caller, control = None, NOBODY, None
    if "PolicySourceArn" in parameters:
        kind, entity = _entity(parameters["PolicySourceArn"], backend)
        for name, text in _attached(kind, entity, backend):
            sources[_stored(text, "identity", name)] = name
        if arn := getattr(entity, "permissions_boundary_arn", None):
            boundary = _stored(managed_policies.document(backend, arn), "boundary", Arn.parse(arn).name)
        caller = _principal(entity.arn)
        context = dict(principal_tags(entity.tags if kind != "group" else None))
        member = organization.member(entity.account_id)
        control = Control(service=member.service) if member.organization_id else None
    sources |= _given(parameters, "PolicyInputList", "identity")
    given = _given(parameters, "PermissionsBoundaryPolicyInputList", "boundary")
    if len(given) > 1:
        raise _invalid("Only one permissions boundary policy can be given")
    boundary = next(iter(given), boundary)
    identity = list(sources)
    if boundary:
        sources[boundary] = given.get(boundary, boundary.name)
    resource: list[Policy] = []
    if "CallerArn" in parameters:
        caller = _principal(parameters["CallerArn"])
    if "ResourcePolicy" in parameters:
        if caller is NOBODY:
            raise _invalid("CallerArn must be given with a resource policy")
        if caller.kind != "user" or ":user/" not in caller.arn:
            raise _invalid("Invalid caller - Caller must be an IAM user in this context.")
        resource = [_parsed(parameters["ResourcePolicy"], "resource", "ResourcePolicy")]
        sources[resource[0]] = "ResourcePolicy"
    context |= _context(parameters.get("ContextEntries", []))
    owner = _owner(parameters.get("ResourceOwner"))
    return Simulated(sources, identity, boundary, resource, caller, owner, context, control)


def _parts(arn: str) -> tuple[str, str, str]:
    """Return the account, the kind and the name of the user, group or role."""
    if match := ENTITY.fullmatch(arn):
        return match[1], match[2], match[3]
    raise _invalid(f"Invalid Entity Arn: {arn} does not clearly define entity type and name.")


def _entity(arn: str, backend: Backend) -> tuple[str, Any]:
    account_id, kind, name = _parts(arn)
    entity = next((one for one in every(backend.iam(account_id), f"{kind}s") if one.arn == arn), None)
    if entity is None:
        raise Refusal(404, "NoSuchEntity", f"The {kind} with name {name} cannot be found.")
    return kind, entity


def _attached(kind: str, entity: Any, backend: Backend) -> Iterable[tuple[str, str | None]]:
    for name, text in list(entity.policies.items()):
        yield f"{kind}_{entity.name}_{name}", text
    for arn in list(entity.managed_policies):
        yield Arn.parse(arn).name, managed_policies.document(backend, arn)
    if kind == "user":
        for group in backend.entered(entity.account_id).get_groups_for_user(entity.name):
            yield from _attached("group", group, backend)


def _stored(text: str | None, kind: str, name: str) -> Policy:
    policy = stored_policy(text or "", kind, name)
    if not statement_positions(policy.text):
        raise Refusal(500, "PolicyEvaluation", f"The policy {name} could not be evaluated: it cannot be read")
    return policy


def _given(parameters: dict[str, Any], parameter: str, kind: str) -> dict[Policy, str]:
    names = ((f"{parameter}.{number}", text) for number, text in enumerate(parameters.get(parameter, []), 1))
    return {_parsed(text, kind, name): name for name, text in names}


def _parsed(text: str, kind: Any, name: str) -> Policy:
    if len(text) > 131_072:
        raise _invalid(f"The policy {name} has more than 131072 characters")
    try:
        return Policy.parse(text, kind=kind, name=name)
    except MalformedPolicy as malformed:
        if malformed.code not in ("MalformedPolicyDocument", "MalformedPolicy"):
            # IAM wouldn't attach such a long policy, but it does simulate it.
            return Policy.read(text, kind=kind, name=name)
        raise _invalid(f"{name}: {malformed.message}") from malformed


def _principal(arn: str) -> Principal:
    account_id, kind, name = _parts(arn)
    if kind == "role":
        return Principal.role_session(f"arn:aws:sts::{account_id}:assumed-role/{name}/simulation", arn)
    return Principal("user" if kind == "user" else "group", arn, account_id)


def _owner(arn: str | None) -> str | None:
    if arn is None:
        return None
    match = re.fullmatch(r"(?:arn:aws[a-z-]*:iam::)?(\d{12})(?::root)?", arn, re.ASCII)
    if not match:
        raise _invalid(f"Invalid resource owner: {arn}")
    return match[1]


def _context(entries: list[dict[str, Any]]) -> dict[str, list[str]]:
    context = {}
    for entry in entries:
        name, kind = entry.get("ContextKeyName", ""), entry.get("ContextKeyType", "string")
        values = entry.get("ContextKeyValues") or []
        base = kind.removesuffix("List")
        if not 5 <= len(name) <= 256 or base not in ("string", *READERS):
            raise _invalid(f"Invalid context entry: {name or 'no name'} of the type {kind}")
        if len(values) > 1 and base == kind:
            raise _invalid(f"Invalid context entry: {name} has {len(values)} values, and its type is {kind}")
        if base in READERS and any(READERS[base](value) is None for value in values):
            raise _invalid(f"Invalid context entry: a value of {name} is not of the type {base}")
        context[name] = values
    return context


def _check(actions: list[str], resources: list[str]) -> None:
    for action in actions:
        if not ACTION.fullmatch(action) or len(action) > 128:
            raise _invalid(f"Invalid action name: {action[:200]}")
    for resource in resources:
        if resource != "*" and (Arn.find(resource) is None or len(resource) > 2048):
            raise _invalid(f"Invalid resource ARN: {resource[:200]}")


def _result(simulated: Simulated, action: str, resources: list[str]) -> dict[str, Any]:
    """Return the result for one action, with the strictest decision on the resources."""
    each = [_specific(simulated, action, resource) for resource in resources]
    decision = next(outcome for outcome in STRICTEST if any(one["EvalResourceDecision"] == outcome for one in each))
    decisive = [one for one in each if one["EvalResourceDecision"] == decision]
    statements = {json.dumps(statement): statement for one in decisive for statement in one["MatchedStatements"]}
    result: dict[str, Any] = {
        "EvalActionName": action,
        "EvalResourceName": resources[0] if len(resources) == 1 else _template(action),
        "EvalDecision": decision,
        "MatchedStatements": [*statements.values()],
        "MissingContextValues": _names(key for one in each for key in one["MissingContextValues"]),
    }
    if bounded := [one[BOUNDARY_DETAIL] for one in each if BOUNDARY_DETAIL in one]:
        allowed = all(detail["AllowedByPermissionsBoundary"] for detail in bounded)
        result[BOUNDARY_DETAIL] = {"AllowedByPermissionsBoundary": allowed}
    if simulated.control:
        allowed = all(within(simulated.control, simulated.request(action, resource)) for resource in resources)
        result["OrganizationsDecisionDetail"] = {"AllowedByOrganizations": allowed}
    if resources != ["*"]:
        details = [one.get("EvalDecisionDetails", {}) for one in each]
        result["EvalDecisionDetails"] = {
            source: next(outcome for outcome in STRICTEST if any(one.get(source) == outcome for one in details))
            for source in dict.fromkeys(source for one in details for source in one)
        }
        result["ResourceSpecificResults"] = each
    return result


def _specific(simulated: Simulated, action: str, resource: str) -> dict[str, Any]:
    request, bounded = simulated.request(action, resource), simulated.boundary is not None
    if simulated.control and not (let_through := within(simulated.control, request)):
        return {
            "EvalResourceName": resource,
            "EvalResourceDecision": let_through.outcome,
            "MatchedStatements": [],
            "MissingContextValues": [],
        }
    same_account = simulated.same_account(resource)
    decision = evaluate(
        request,
        identity=simulated.identity,
        boundary=simulated.boundary,
        resource=simulated.resource,
        same_account=same_account,
    )
    matched = []
    if decision.outcome != "implicitDeny":
        consulted = simulated.identity + simulated.resource
        if simulated.boundary and decision.outcome == "explicitDeny":
            consulted.append(simulated.boundary)
        matched = matching(consulted, request, allow=decision.allowed, bounded=bounded)
    result: dict[str, Any] = {
        "EvalResourceName": resource,
        "EvalResourceDecision": decision.outcome,
        "MatchedStatements": [
            _matched(policy, simulated.sources[policy], statement.position) for policy, statement in matched
        ],
        "MissingContextValues": _missing(simulated, request),
    }
    if not same_account:
        result["EvalDecisionDetails"] = _details(simulated, request)
    if simulated.boundary:
        by_boundary = verdict([simulated.boundary], request, bounded=True) == "allowed"
        result[BOUNDARY_DETAIL] = {"AllowedByPermissionsBoundary": by_boundary}
    return result


def _details(simulated: Simulated, request: Request) -> dict[str, Outcome]:
    bounded = simulated.boundary is not None
    details = {"IAM Policy": verdict(simulated.identity, request, bounded=bounded)}
    details["Resource Policy"] = verdict(simulated.resource, request, bounded=bounded)
    if simulated.boundary:
        details["Permissions Boundary Policy"] = verdict([simulated.boundary], request, bounded=True)
    return details


def _missing(simulated: Simulated, request: Request) -> list[str]:
    """Return the condition keys that the policies use but the request lacks."""
    keys = (
        key
        for policy in simulated.sources
        for statement in policy.statements
        if statement.actions.match(request.action_name) is not statement.not_action
        for key in _keys_of(policy, statement)
    )
    return _names(key for key in keys if key.lower() not in request.values)


def _keys_of(policy: Policy, statement: Statement) -> list[str]:
    """Return the condition keys in a statement's conditions and policy variables."""
    keys = [condition.key for condition in statement.conditions]
    if policy.version != "2012-10-17" or statement.fault:
        return keys
    texts = [statement.raw.get(element) for element in ("Condition", "Resource", "NotResource")]
    return keys + VARIABLE.findall(json.dumps(texts))


def _names(keys: Iterable[str]) -> list[str]:
    """Return each key once; keys are case insensitive."""
    return list({key.lower(): key for key in keys}.values())


def _matched(policy: Policy, name: str, number: int) -> dict[str, Any]:
    start, end = statement_positions(policy.text)[number - 1]
    return {
        "SourcePolicyId": name,
        "SourcePolicyType": TYPES[policy.kind],
        "StartPosition": {"Line": start[0], "Column": start[1]},
        "EndPosition": {"Line": end[0], "Column": end[1]},
    }


def _template(action: str) -> str:
    for pattern, resource in TEMPLATES:
        if re.fullmatch(pattern, action, re.IGNORECASE):
            return f"arn:${{Partition}}:{resource}"
    return "*"


def _page(parameters: dict[str, Any]) -> int:
    size = parameters.get("MaxItems", USUAL_PAGE)
    for must in out_of_range(size, 1, LONGEST_PAGE, "value"):
        raise invalid(constraint_violation("'maxItems'", must, f"'{size}'"))
    return int(size)


def _marker(parameters: dict[str, Any]) -> int:
    marker = parameters.get("Marker", "0")
    if not re.fullmatch(r"\d{1,9}", marker, re.ASCII) or int(marker) > len(parameters["ActionNames"]):
        raise _invalid("Invalid Marker.")
    return int(marker)


def _invalid(message: str) -> Refusal:
    return Refusal(400, "InvalidInput", message)
