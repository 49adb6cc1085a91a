"""The role's permissions: what may the pod do when it acts as the role?"""

from typing import Any

from labkit.doctor import stages
from labkit.doctor.evidence import Evidence, kinds, known
from labkit.doctor.evidence.matches import matches, undecided
from labkit.doctor.evidence.reading import depends
from labkit.doctor.evidence.variables import PROFILES
from labkit.doctor.finding import Symptom, cause
from labkit.doctor.repairs import advice, policies, words
from labkit.doctor.repairs.commands import Commands
from labkit.policy import Policy, Request, evaluate, matching, verdict
from labkit.policy.arn import Arn
from labkit.policy.matching import names
from labkit.policy.principals import Match
from labkit.policy.reference import has_action, nearest_action
from labkit.policy.wildcards import wildcard
from labkit.policy.written import listed

LEARN = "07-least-privilege.ipynb"
ADMINISTRATOR = ":policy/AdministratorAccess"
OF_AWS = ":iam::aws:policy/"
# The actions that a role's policies don't decide about, in lower case, and why.
# https://docs.aws.amazon.com/STS/latest/APIReference/API_GetCallerIdentity.html
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
# https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithSAML.html
UNSIGNED = "nobody signs this call. The trust policy of the role decides whether STS lets the caller in."
WITHOUT_PERMISSION = {
    "sts:getcalleridentity": "STS answers every caller, even if a policy denies this action.",
    "sts:assumerolewithwebidentity": UNSIGNED,
    "sts:assumerolewithsaml": UNSIGNED,
}


@cause("action-needs-no-permission", stages.PERMISSIONS, LEARN, reads=())
def needs_no_permission(evidence: Evidence) -> Symptom | None:
    why = WITHOUT_PERMISSION.get(evidence.expected.action.lower())
    if why is None:
        return None
    return Symptom(
        summary=f"{evidence.expected.action} needs no permission: {why}",
        expected="an action that the role's policies decide about",
        found=evidence.expected.action,
        source="the option --action",
        repair=words.said("Nothing has to change in the role's policies."),
        severity="note",
    )


@cause("role-policy-not-attached", stages.PERMISSIONS, "02-iam-role.ipynb", reads=(kinds.ROLE, kinds.ATTACHED_POLICIES))
def policy_not_attached(evidence: Evidence) -> Symptom | None:
    if evidence.aws.role is None:
        return None
    attached, wanted = evidence.aws.attached_policies, evidence.parameters.policy_arn
    # Without a run, nothing says which policy is wanted. But no policy at all is only enough to assume another role.
    has_some = attached or evidence.aws.inline_policies or _assumed_role(evidence)
    if wanted in attached or (not evidence.aws.role_is_of_run and has_some):
        return None
    return Symptom(
        summary="The policy that says what the role may do is not attached to the role.",
        expected=wanted if evidence.aws.role_is_of_run else "a policy",
        found=", ".join(attached) or "no policy attached",
        source="iam:ListAttachedRolePolicies",
        repair=Commands(evidence).permit_role(evidence.expected.action, evidence.expected.resource)
        if is_decided(evidence) and not evidence.aws.role_is_of_run
        else Commands(evidence).attach_policy(),
    )


@cause("role-lacks-permission", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def lacks_permission(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_testing-policies.html"""
    if evidence.aws.role is not None and evidence.expected.action and is_of_another_role(evidence):
        role = _assumed_role(evidence)
        why = f"the AWS profile of the pod assumes {role}, and the doctor looked at {evidence.expected.role_arn}"
        raise depends([f"what {role} is allowed to do"], why)
    if evidence.aws.role is None or not is_decided(evidence):
        return None
    said = evidence.aws.simulated
    if said.get("EvalDecision") == "allowed" and not said.get("MissingContextValues"):
        return None
    request = evidence.aws.request(evidence.expected.action, evidence.expected.resource)
    policies = _policies(evidence)
    if unknown := undecided([*policies.values()], request):
        raise unknown
    if said.get("EvalDecision") == "allowed" or _is_admitted(evidence, request, policies):
        return None
    refusal = verdict(policies.values(), request, bounded="PermissionsBoundary" in evidence.aws.role)
    # If the policies allow it, the boundary or the organization has refused.
    if refusal == "allowed" and (denied_by_boundary(evidence) or denied_by_organization(evidence)):
        return None
    denying = [name for name, policy in policies.items() if matching([policy], request, allow=False)]
    if policy_not_attached(evidence) and not denying:
        return None
    # A role that assumes itself gains nothing from a permission: the finding on its trust policy says so.
    trust = evidence.aws.resource_policy if request.resource == evidence.expected.role_arn else None
    if trust and not matching([trust], request, allow=True):
        return None
    return Symptom(
        summary=f"The role isn't allowed to do {evidence.expected.action} on {evidence.expected.resource}.",
        expected=f"{evidence.expected.action} allowed",
        found=f"an explicit deny in {', '.join(denying)}" if denying else _not_allowed(policies, request),
        source="iam:SimulatePrincipalPolicy",
        repair="\n".join(_permitted(evidence, policies, request, denying)),
    )


@cause("role-denied-by-service-control-policy", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def denied_by_organization(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/APIReference/API_OrganizationsDecisionDetail.html"""
    if evidence.aws.role is None or not is_decided(evidence):
        return None
    said = evidence.aws.simulated
    if (said.get("OrganizationsDecisionDetail") or {}).get("AllowedByOrganizations") is not False:
        return None
    return Symptom(
        summary="A service control policy of the organization blocks what the role's own policies allow.",
        expected=f"{evidence.expected.action} on {evidence.expected.resource} allowed by the organization",
        found=f"AllowedByOrganizations: false; {evidence.aws.control_policies('SERVICE_CONTROL_POLICY')}",
        source="iam:SimulatePrincipalPolicy, OrganizationsDecisionDetail",
        repair=advice.organization_stays(evidence, "SERVICE_CONTROL_POLICY"),
    )


@cause("role-denied-by-boundary", stages.PERMISSIONS, LEARN, reads=(kinds.ROLE,))
def denied_by_boundary(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html"""
    boundary = evidence.aws.role.get("PermissionsBoundary") if evidence.aws.role else None
    if not boundary or (evidence.expected.action and not is_decided(evidence)):
        return None
    arn = boundary["PermissionsBoundaryArn"]
    if evidence.expected.action:
        said = evidence.aws.simulated
        detail = said.get("PermissionsBoundaryDecisionDetail") or {}
        is_denied = detail.get("AllowedByPermissionsBoundary") is False
        wanted = f"{evidence.expected.action} on {evidence.expected.resource}"
        request = evidence.aws.request(evidence.expected.action, evidence.expected.resource)
        document = evidence.aws.role_account.policy(arn) if is_denied or said.get("MissingContextValues") else None
        if document and (unknown := undecided([Policy.read(document, kind="boundary", name=arn)], request)):
            raise unknown
    else:
        allowed = _wanted_actions(evidence)
        boundary = evidence.aws.role_account.policy(arn)
        is_denied = bool(allowed) and not any(_lets_through(boundary, action) for action in allowed)
        wanted = ", ".join(dict.fromkeys(allowed))
    if not is_denied:
        return None
    return Symptom(
        summary="The role's permissions boundary does not allow what the role's policies allow.",
        expected=f"a boundary that allows {wanted}, or no boundary",
        found=arn,
        source="iam:GetRole, PermissionsBoundary",
        repair=advice.boundary_stays(evidence, arn, wanted),
    )


@cause(
    "role-is-administrator",
    stages.PERMISSIONS,
    LEARN,
    reads=(kinds.ROLE, kinds.ATTACHED_POLICIES, kinds.INLINE_POLICIES),
)
def is_administrator(evidence: Evidence) -> Symptom | None:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/best-practices.html#grant-least-privilege"""
    if evidence.aws.role is None:
        return None
    attached = [arn for arn in evidence.aws.attached_policies if _allows_all(evidence, arn)]
    inline = [
        name for name, document in evidence.aws.inline_policies.items() if "*" in _allowed(document, anywhere=True)
    ]
    if not attached and not inline:
        return None
    documents = [evidence.aws.role_account.policy(arn) for arn in attached if not arn.endswith(ADMINISTRATOR)]
    documents += [evidence.aws.inline_policies[name] for name in inline]
    excepted = [] if any(arn.endswith(ADMINISTRATOR) for arn in attached) else _left_out(documents)
    but = f", except {words.listed(excepted)}" if excepted else ""
    return Symptom(
        summary=f"The role's policies allow every action in the account{but}.",
        expected="a policy that allows only what the pod does",
        found=", ".join([*attached, *inline]),
        source="iam:ListAttachedRolePolicies, iam:GetRolePolicy",
        repair=advice.administrator_stays(evidence, [*attached, *inline]),
        severity="warning",
    )


@cause(
    "role-denies-what-it-allows",
    stages.PERMISSIONS,
    LEARN,
    reads=(kinds.ROLE, kinds.ATTACHED_POLICIES, kinds.INLINE_POLICIES),
)
def denies_what_it_allows(evidence: Evidence) -> Symptom | None:
    """The role's policies allow actions of an AWS service, and an inline policy denies all of these actions.

    The denial may be intended, so the finding is only a note. With an expected action, return None, because
    `lacks_permission` tests that action.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-denyallow.html
    """
    if evidence.aws.role is None or evidence.expected.action:
        return None
    denying = {name: denied for name, document in evidence.aws.inline_policies.items() if (denied := _denied(document))}
    if not denying:
        return None
    allowed = [action for document in _documents(evidence).values() for action in _allowed(document)]
    prefixes = {action.partition(":")[0].lower() for action in allowed if ":" in action}
    services = sorted(prefix for prefix in prefixes if "*" not in prefix)
    for name, denied in denying.items():
        for service in services:
            actions = [action for action in allowed if action.lower().startswith(f"{service}:")]
            if all(any(wildcard(each)(action.lower()) for each in denied) for action in actions):
                return Symptom(
                    summary=f"The role's policy {name} denies every {service} action that the role's policies allow.",
                    expected=f"{', '.join(dict.fromkeys(actions))} allowed",
                    found=f"Deny of {', '.join(denied)} in {name}",
                    source="iam:GetRolePolicy",
                    repair=advice.inline_deny_stays(evidence, name),
                    severity="note",
                )
    return None


def _is_admitted(evidence: Evidence, request: Request, policies: dict[str, Policy]) -> bool:
    """Whether the policy of a resource in the role's account admits the role itself, so that it needs no other Allow.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic_policy-eval-basics-id-rdp.html
    """
    policy = known(lambda: evidence.aws.resource_policy)
    arn = Arn.find(request.resource)
    if policy is None or matching(policies.values(), request, allow=False):
        return False
    if arn and arn.account not in ("", evidence.expected.role_account_id):
        return False
    allowed = matches([policy], request, allow=True).applying
    return any(names(statement, request) >= Match.ROLE for _, statement in allowed)


def is_decided(evidence: Evidence) -> bool:
    """Return whether the user named an action, and the policies of the pod's role decide about that action."""
    if not evidence.expected.action or needs_no_permission(evidence):
        return False
    return not is_of_another_role(evidence)


def is_of_another_role(evidence: Evidence) -> bool:
    """Whether the pod uses its role only to assume another one, which then does the expected action."""
    return evidence.expected.action.lower() != "sts:assumerole" and bool(_assumed_role(evidence))


def _assumed_role(evidence: Evidence) -> str:
    """Return the ARN of another role that a container's AWS profile assumes; empty if the doctor knows of none."""
    for container in known(lambda: evidence.pod.containers) or []:
        profile = next(filter(None, map(container.value, PROFILES)), "default")
        settings = (known(lambda: container.profiles) or {}).get(profile, {})  # noqa: B023
        if not settings.keys().isdisjoint(("source_profile", "credential_source")):
            arn = settings.get("role_arn", "")
            if arn not in ("", evidence.expected.role_arn):
                return arn
    return ""


def _documents(evidence: Evidence) -> dict[str, Any]:
    managed = {arn: evidence.aws.role_account.policy(arn) for arn in evidence.aws.attached_policies}
    return managed | evidence.aws.inline_policies


def _policies(evidence: Evidence) -> dict[str, Policy]:
    return {
        name: Policy.read(document or {"Statement": []}, kind="identity", name=name)
        for name, document in _documents(evidence).items()
    }


def _wanted_actions(evidence: Evidence) -> list[str]:
    """Return the actions that the role is meant to allow."""
    if evidence.aws.role_is_of_run:
        # The run's policy counts even if it isn't attached to the role.
        documents = [evidence.aws.role_account.policy(evidence.parameters.policy_arn)]
    else:
        documents = [*_documents(evidence).values()]
    return [action for document in documents for action in _allowed(document)]


def _permitted(evidence: Evidence, policies: dict[str, Policy], request: Request, denying: list[str]) -> list[str]:
    """Return the repair for a role that isn't allowed to make the request.

    `denying` has the keys of the policies that deny the request.

    - If one of them is a managed policy: return only advice, for each managed policy in `denying`.
    - If an inline policy can't be changed so that it denies everything except this request: return only advice.
    - Otherwise, return a command for each inline policy in `denying`, which excepts the request. If the role's other
      statements don't allow the request, also return a command that adds an inline policy.
    """
    commands, lines = Commands(evidence), []
    if managed := [name for name in denying if name not in evidence.aws.inline_policies]:
        return [advice.deny_stays(name) for name in managed]
    left = dict(policies)
    for name in denying:
        document = evidence.aws.inline_policies[name]
        kept = _excepting(document, policies[name], request)
        if kept is None:
            return [advice.broad_deny_stays(evidence, name)]
        after = {**document, "Statement": kept}
        left[name] = Policy.read(after, kind="identity", name=name)
        lines.append(commands.except_from_deny(name, document, after if kept else None))
    if verdict(left.values(), request) != "allowed":
        lines.append(commands.permit_role(evidence.expected.action, evidence.expected.resource))
    return lines


def _not_allowed(policies: dict[str, Policy], request: Request) -> str:
    """Return why no policy allows the request: another resource, a condition, or perhaps a misspelt action."""
    reason = "no identity-based policy allows it."
    nearest = evaluate(request, identity=[*policies.values()]).near
    near = next((each for each in nearest if each.misses[0].part in ("resource", "condition")), None)
    if near is None:
        if has_action(request.action):
            return reason.removesuffix(".")
        meant = nearest_action(request.action)
        return f"{reason} IAM accepts any name, but AWS has no such action.{f' Is it {meant}?' if meant else ''}"
    # The doctor doesn't know the request's values for most condition keys.
    keys = words.listed([miss.condition.key for miss in near.misses if miss.condition])
    said = [miss.said for miss in near.misses if not miss.condition]
    said += [f"it has a condition on {keys}"] if keys else []
    name = str(near)
    return f"{reason} {name[:1].upper()}{name[1:]} allows the action, but {' and '.join(said)}"


def _excepting(document: dict[str, Any], policy: Policy, request: Request) -> list[dict[str, Any]] | None:
    """Return the policy's statements without the request in any Deny; None if they can't be written."""
    positions = {statement.position for _, statement in matching([policy], request, allow=False)}
    kept: list[dict[str, Any]] = []
    for position, statement in enumerate(listed(document.get("Statement")), 1):
        replacing = [statement]
        if position in positions:
            excepted = policies.excepting(statement, request.action, request.resource)
            if excepted is None:
                return None
            replacing = excepted
        kept += replacing
    left = Policy.read({**document, "Statement": kept}, kind="identity", name=policy.name)
    return None if matching([left], request, allow=False) else kept


def _allows_all(evidence: Evidence, arn: str) -> bool:
    if arn.endswith(ADMINISTRATOR):
        return True
    # Among AWS's own policies only AdministratorAccess allows everything, so the others needn't be read.
    return OF_AWS not in arn and "*" in _allowed(evidence.aws.role_account.policy(arn), anywhere=True)


def _allowed(document: Any, *, anywhere: bool = False) -> list[str]:
    """Return the actions of a document's Allow statements. A NotAction counts as `*`, unless it leaves out everything.

    With `anywhere`, only statements with the resource `*` count. Without `anywhere`, a statement's resources don't
    matter.
    """
    statements = _statements(document, "Allow")
    if anywhere:
        statements = [statement for statement in statements if "*" in listed(statement.get("Resource"))]
    actions = [str(action) for statement in statements for action in listed(statement.get("Action"))]
    return actions + ["*" for statement in statements if "*" not in listed(statement.get("NotAction", "*"))]


def _left_out(documents: list[Any]) -> list[str]:
    """Return the actions that a NotAction leaves out, except those that another statement allows.

    Only Allow statements with the resource `*` count.
    """
    statements = [
        statement
        for document in documents
        for statement in _statements(document, "Allow")
        if "*" in listed(statement.get("Resource"))
    ]
    left_out = [
        action
        for statement in statements
        for action in map(str, listed(statement.get("NotAction")))
        if not any(_covers(other, action) for other in statements if other is not statement)
    ]
    return list(dict.fromkeys(left_out))


def _covers(statement: dict[str, Any], pattern: str) -> bool:
    """Whether the statement's Action or NotAction covers every action that matches the pattern."""
    if "NotAction" in statement:
        return not any(_overlap(pattern, str(each)) for each in listed(statement["NotAction"]))
    return any(wildcard(str(each).lower())(pattern.lower()) for each in listed(statement.get("Action")))


def _lets_through(boundary: Any, action: str) -> bool:
    """Whether the permissions boundary may allow at least one action that matches the pattern `action`.

    An example of a pattern: `s3:Get*`.
    """
    if any(wildcard(each)(action.lower()) for each in _denied(boundary)):
        return False
    return any(_overlap(action, each) for each in _allowed(boundary))


def _denied(document: Any) -> list[str]:
    return [
        str(each).lower()
        for statement in _statements(document, "Deny")
        if "Condition" not in statement and "*" in listed(statement.get("Resource"))
        for each in listed(statement.get("Action"))
    ]


def _statements(document: Any, effect: str) -> list[dict[str, Any]]:
    statements = listed(document.get("Statement")) if isinstance(document, dict) else []
    return [each for each in statements if isinstance(each, dict) and each.get("Effect") == effect]


def _overlap(one: str, other: str) -> bool:
    """Whether at least one action can match both patterns."""
    one, other = one.lower(), other.lower()
    # Pairs of places, one in each pattern, that the same text can reach.
    places = seen = {(0, 0)}
    while places:
        seen = seen | places
        places = {step for i, j in places for step in _steps(one[i:], other[j:], i, j)} - seen
    return (len(one), len(other)) in seen


def _steps(one: str, other: str, i: int, j: int) -> list[tuple[int, int]]:
    a, b = one[:1], other[:1]
    if "*" in (a, b):
        # The star ends here, or takes one character of the other pattern.
        return [(i + len(a), j), (i, j + len(b))]
    return [(i + 1, j + 1)] if a and b and ("?" in (a, b) or a == b) else []
