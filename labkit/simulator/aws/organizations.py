"""Organizations. moto answers most calls.

All accounts of the lab are in one organization, which the account `MANAGEMENT_ID` manages. The learner's own account is
a member. Any other account becomes a member when someone first enters it. The organization's policies limit what
its members may do.

What differs from AWS:

- Policies: service control policies and resource control policies are evaluated. Other policies are only stored.
- Time: a policy takes effect at once.
- Delegation: delegated administrators may only read, and the organization can't have a resource policy.
- Accounts: CreateAccount creates the account before it returns, and ignores RoleName. There are no invitations and no
  handshakes. If someone enters a removed account, it becomes a member again.
- Deletion: the lab creates a deleted organization again at once.
- Quotas: the lab limits the size of a policy and the number of attached policies, but nothing else.

https://docs.aws.amazon.com/organizations/latest/APIReference/Welcome.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_scps.html
https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_policies_rcps.html
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Any

from labkit.policy import NO_CONTROL, RESOURCE_CONTROLLED, Control, Kind, MalformedPolicy, Policy
from labkit.simulator.aws.actions.requests import require_emulated
from labkit.simulator.aws.answers import Refusal, respond
from labkit.simulator.aws.backend import Backend, OrganizationsBackend, name_policy
from labkit.simulator.aws.call import AwsRequest, Context, Response
from labkit.simulator.aws.sessions import Caller, Session
from labkit.simulator.identifiers import Identifiers

MANAGEMENT_ID = "111111111111"
SERVICE_CONTROL, RESOURCE_CONTROL = "SERVICE_CONTROL_POLICY", "RESOURCE_CONTROL_POLICY"
KINDS: dict[str, Kind] = {SERVICE_CONTROL: "service control", RESOURCE_CONTROL: "resource control"}
# https://docs.aws.amazon.com/organizations/latest/userguide/orgs_reference_limits.html#min-max-policies
MOST_ATTACHED = {SERVICE_CONTROL: 10, RESOURCE_CONTROL: 5}
FULL_RESOURCE_ACCESS = "p-RCPFullAWSAccess"
# The calls that a member account may make; moto answers them for the organization that it belongs to.
OF_MEMBERS = ("CreateOrganization", "DescribeOrganization", "LeaveOrganization")
READS = ("Describe", "List")
SERVICE_LINKED = ":role/aws-service-role/"

Levels = tuple[tuple[Policy, ...], ...]


@dataclass(frozen=True)
class Member:
    """One account's place in the organization (``path``), and the organization's policies that limit the account.

    ``service`` has the service control policies, and ``resource`` the resource control policies. Both are grouped by
    level: root, OUs, account. Levels with only AWS's own policy are left out.
    """

    organization_id: str = ""
    path: str = ""
    service: Levels = field(default=(), repr=False)
    resource: Levels = field(default=(), repr=False)

    @property
    def is_bound(self) -> bool:
        return bool(self.service or self.resource)

    @cached_property
    def of_principal(self) -> Context:
        """The condition keys about the organization, for a caller in this account.

        https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html#condition-keys-principalorgid
        """
        organization_id = self.organization_id
        return {"aws:PrincipalOrgID": organization_id, "aws:PrincipalOrgPaths": [self.path]} if organization_id else {}

    @cached_property
    def of_resource(self) -> Context:
        """The condition keys about the organization, for a resource in this account."""
        organization_id = self.organization_id
        return {"aws:ResourceOrgID": organization_id, "aws:ResourceOrgPaths": [self.path]} if organization_id else {}


class Organization:
    """The one organization of the lab, and its API."""

    def __init__(self, backend: Backend, identifiers: Identifiers):
        self._backend = backend
        self._identifiers = identifiers
        self._members: dict[str, Member] = {}
        """A cache of `member`, by account id. It's emptied when the organization changes."""

    def ensure(self) -> None:
        """Create the organization if it is missing."""
        self._store()

    def member(self, account_id: str) -> Member:
        """Return how the organization limits this account; an empty `Member` if it isn't in the organization."""
        known = self._members.get(account_id)
        if known is None:
            known = self._members[account_id] = _member(self._store(), account_id)
        return known

    def joined(self, account_id: str) -> float:
        """The time when the account became a member, in seconds since the epoch."""
        made: datetime = next(account.create_time for account in self._store().accounts if account.id == account_id)
        return made.replace(tzinfo=UTC).timestamp()

    def control(self, caller: Caller, owner: str, action: str) -> Control:
        """The organization's policies that apply if the caller takes ``action`` on a resource of account ``owner``."""
        # Neither kind of policy limits service-linked roles.
        if isinstance(caller, Session) and SERVICE_LINKED in caller.role_arn:
            return NO_CONTROL
        resource, service = self.resource_control(owner, action), self.member(caller.account_id).service
        return Control(resource, service) if resource or service else NO_CONTROL

    def resource_control(self, owner: str, action: str) -> Levels:
        """The resource control policies that apply to ``action`` on a resource of account ``owner``."""
        resource = self.member(owner).resource
        return resource if resource and action.partition(":")[0].lower() in RESOURCE_CONTROLLED else ()

    def enroll(self, account_id: str) -> None:
        """Make the account a member of the organization, if it isn't one yet."""
        store = self._store()
        if all(account.id != account_id for account in store.accounts):
            _enroll(store, account_id, f"account-{account_id}")
            self._members.clear()

    async def answer(self, request: AwsRequest, caller: Caller) -> Response:
        """Return moto's answer. Raises ``Refusal`` if AWS would refuse the call."""
        # All in one run, so that a call changes everything or nothing.
        return await self._backend.run(self._answer, request, caller)

    def _answer(self, request: AwsRequest, caller: Caller) -> Response:
        store, operation, given = self._store(), request.operation, require_emulated(request).parameters
        request = _for(request, caller, store)
        if operation == "CreateAccount" and given.get("AccountName") and given.get("Email"):
            return self._create_account(store, given)
        if check := CHECKS.get(operation):
            check(store, given)
        if operation == "RemoveAccountFromOrganization" and given.get("AccountId"):
            return self._remove_account(store, given["AccountId"])
        response = self._backend.answer_in_thread(request)
        if response.status == 200 and not operation.startswith(READS):
            self._settle(store, operation, given, response)
            self._store()
            self._members.clear()
        return response

    def _create_account(self, store: OrganizationsBackend, given: dict[str, Any]) -> Response:
        name = given["AccountName"]
        serial = self._identifiers.serial("account", name)
        digits = int(self._identifiers.hex("account", f"{name}#{serial}", 12), 16) % 10**11
        self._members.clear()
        return respond(store.create_account(**{**given, "AccountId": f"2{digits:011}"}), "application/x-amz-json-1.1")

    def _remove_account(self, store: OrganizationsBackend, account_id: str) -> Response:
        """Remove any account. moto can only remove the calling account.

        https://docs.aws.amazon.com/organizations/latest/APIReference/API_RemoveAccountFromOrganization.html
        """
        account: Any = next(each for each in store.accounts if each.id == account_id)
        for policy in account.attached_policies:
            policy.attachments.remove(account)
        store.accounts.remove(account)
        self._members.clear()
        return respond({}, "application/x-amz-json-1.1")

    def _settle(self, store: OrganizationsBackend, operation: str, given: dict[str, Any], response: Response) -> None:
        """Correct moto's state after a successful call."""
        match operation:
            case "CreatePolicy":
                self._rename(store.policies[-1], "p", response)
            case "CreateOrganizationalUnit":
                self._rename(store.ou[-1], f"ou-{_root(store).id.removeprefix('r-')}", response)
            case "DeleteOrganizationalUnit":
                for policy in store.policies:
                    policy.attachments = [one for one in policy.attachments if one.id != given["OrganizationalUnitId"]]
            case "DisablePolicyType":
                for policy in store.policies:
                    if policy.type == given["PolicyType"] and not policy.aws_managed:
                        for target in policy.attachments:
                            target.attached_policies.remove(policy)
                        policy.attachments = []

    def _rename(self, made: Any, prefix: str, response: Response) -> None:
        serial = self._identifiers.serial(f"organizations-{prefix}", made.name)
        given = made.id
        made.id = f"{prefix}-{self._identifiers.base32(f'organizations-{prefix}', f'{made.name}#{serial}', 8).lower()}"
        response.body = response.body.replace(given.encode(), made.id.encode())

    def _store(self) -> OrganizationsBackend:
        store = self._backend.organization(MANAGEMENT_ID)
        if store.org is None:
            self._create(store)
            _enroll(store, self._backend.account_id, "learner")
            self._members.clear()
        return store

    def _create(self, store: OrganizationsBackend) -> None:
        """Create the organization with only its management account, and enable service control policies."""
        store.create_organization(region="us-east-1", FeatureSet="ALL")
        organization, root, management = store.org, _root(store), store.accounts[0]
        assert organization is not None
        organization.id = "o-" + self._identifiers.base32("organization", MANAGEMENT_ID, 10).lower()
        organization.root_id = "r-" + self._identifiers.base32("organization-root", MANAGEMENT_ID, 4).lower()
        root.id = management.parent_id = organization.root_id
        for thing in (root, management, *store.policies):
            thing.organization_id = organization.id
        for policy in store.policies:
            # https://docs.aws.amazon.com/cli/latest/reference/organizations/list-policies.html
            name_policy(policy, f"arn:aws:organizations::aws:policy/{policy.type.lower()}/{policy.id}")
        root.policy_types.append({"Type": SERVICE_CONTROL, "Status": "ENABLED"})


def _enroll(store: OrganizationsBackend, account_id: str, name: str) -> None:
    store.create_account(AccountId=account_id, AccountName=name, Email=f"{name}@example.com")


def _member(store: OrganizationsBackend, account_id: str) -> Member:
    account: Any = next((one for one in store.accounts if one.id == account_id), None)
    if account is None or store.org is None:
        return Member()
    units, path = {unit.id: unit for unit in store.ou}, [account]
    while parent := units.get(path[0].parent_id):
        path.insert(0, parent)
    named = "".join(f"{each.id}/" for each in path[:-1])
    if account_id == MANAGEMENT_ID:
        path = []
    service, resource = (_levels(store, path, policy_type) for policy_type in (SERVICE_CONTROL, RESOURCE_CONTROL))
    return Member(store.org.id, f"{store.org.id}/{named}", service, resource)


def _levels(store: OrganizationsBackend, path: list[Any], policy_type: str) -> Levels:
    """Return the attached policies of one type, level by level from the root to an account."""
    if not _is_enabled(store, policy_type):
        return ()
    levels = ([policy for policy in each.attached_policies if policy.type == policy_type] for each in path)
    return tuple(
        tuple(Policy.read(policy.content, kind=KINDS[policy_type], name=policy.name) for policy in level)
        for level in levels
        # AWS's own policy allows everything, so a level with only this policy limits nothing.
        if not level or not all(policy.aws_managed for policy in level)
    )


def _for(request: AwsRequest, caller: Caller, store: OrganizationsBackend) -> AwsRequest:
    """Return the request to send to moto. Raises ``Refusal`` if the caller's account may not call the operation.

    A delegated administrator may call some read operations that other members may not call. For such a call, the
    returned request has the management account's id.

    https://docs.aws.amazon.com/organizations/latest/userguide/orgs_delegate_policies.html
    """
    if request.operation != "CreateOrganization" and all(one.id != caller.account_id for one in store.accounts):
        raise _refusal("AWSOrganizationsNotInUse", "Your account is not a member of an organization.")
    if caller.account_id == MANAGEMENT_ID or request.operation in OF_MEMBERS:
        return request
    if request.operation.startswith(READS) and any(one.account.id == caller.account_id for one in store.admins):
        return replace(request, account_id=MANAGEMENT_ID)
    reason = f"the account {MANAGEMENT_ID} manages the organization, and {caller.account_id} does not"
    raise _refusal("AccessDenied", "You don't have permissions to access this resource.", reason)


def _root(store: OrganizationsBackend) -> Any:
    return store.ou[0]


def _is_enabled(store: OrganizationsBackend, policy_type: str) -> bool:
    return any(each["Type"] == policy_type for each in _root(store).policy_types)


def _check_changed(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    policy = _policy(store, given)
    if policy is None:
        return
    if policy.aws_managed:
        raise _refusal("InvalidInput", "You specified a policy that is managed by AWS and can't be modified.")
    if "Content" in given:
        _check_content(policy.type, given["Content"])


def _check_content(policy_type: str, content: Any) -> None:
    if policy_type not in KINDS:
        return
    try:
        Policy.parse(content if isinstance(content, str) else "", kind=KINDS[policy_type], name="policy")
    except MalformedPolicy as malformed:
        raise Refusal(400, malformed.code, malformed.message) from malformed


def _check_attached(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/organizations/latest/APIReference/API_AttachPolicy.html"""
    policy, target = _policy(store, given), _target(store, given)
    if policy is None or target is None:
        return
    _check_enabled(store, policy)
    if policy in target.attached_policies:
        raise _refusal("DuplicatePolicyAttachment", "The selected policy is already attached to the specified target.")
    if len(_of_type(target, policy)) >= MOST_ATTACHED.get(policy.type, 10):
        message = "You have attached the maximum number of policies to the specified target."
        raise _refusal("ConstraintViolation", message)


def _check_detached(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/organizations/latest/APIReference/API_DetachPolicy.html"""
    policy, target = _policy(store, given), _target(store, given)
    if policy is None or target is None:
        return
    _check_enabled(store, policy)
    if policy not in target.attached_policies:
        raise _refusal("PolicyNotAttached", "The policy isn't attached to the specified target in the specified root.")
    if policy.id == FULL_RESOURCE_ACCESS:
        # No public source shows AWS's sentence.
        raise _refusal("ConstraintViolation", "You cannot detach the RCPFullAWSAccess policy.")
    if policy.type == SERVICE_CONTROL and len(_of_type(target, policy)) == 1:
        message = "You cannot remove the last policy attached to the specified target. "
        raise _refusal("ConstraintViolation", message + "You must have at least one attached at all times.")


def _check_enabled(store: OrganizationsBackend, policy: Any) -> None:
    if not _is_enabled(store, policy.type):
        raise _refusal("PolicyTypeNotEnabled", "This operation can be performed only for enabled policy types.")


def _check_new_unit(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    if all(unit.id != given.get("ParentId") for unit in store.ou):
        raise _refusal("ParentNotFound", "You specified parent that doesn't exist.")
    if any((unit.parent_id, unit.name) == (given.get("ParentId"), given.get("Name")) for unit in store.ou[1:]):
        raise _refusal("DuplicateOrganizationalUnit", "An OU with the same name already exists.")


def _check_deleted_unit(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    """https://docs.aws.amazon.com/organizations/latest/APIReference/API_DeleteOrganizationalUnit.html"""
    within: list[Any] = [*store.accounts, *store.ou]
    if any(each.parent_id == given.get("OrganizationalUnitId") for each in within):
        message = "The specified OU is not empty. Move all accounts to another root or to other OUs, remove all child "
        raise _refusal("OrganizationalUnitNotEmpty", f"{message}OUs, and try the operation again.")


def _check_removed(store: OrganizationsBackend, given: dict[str, Any]) -> None:
    account_id = given.get("AccountId")
    if account_id == MANAGEMENT_ID:
        raise _refusal("MasterCannotLeaveOrganization", "You can't remove a management account from an organization.")
    if all(account.id != account_id for account in store.accounts):
        raise _refusal("AccountNotFound", "You specified an account that doesn't exist.")
    if any(one.account.id == account_id for one in store.admins):
        raise _refusal("ConstraintViolation", "You must first deregister the account as a delegated administrator.")


CHECKS: dict[str, Callable[[OrganizationsBackend, dict[str, Any]], None]] = {
    "AttachPolicy": _check_attached,
    "CreateOrganizationalUnit": _check_new_unit,
    "CreatePolicy": lambda _, given: _check_content(given.get("Type", ""), given.get("Content")),
    "DeleteOrganizationalUnit": _check_deleted_unit,
    "DeletePolicy": _check_changed,
    "DetachPolicy": _check_detached,
    "RemoveAccountFromOrganization": _check_removed,
    "UpdatePolicy": _check_changed,
}


def _policy(store: OrganizationsBackend, given: dict[str, Any]) -> Any:
    return next((policy for policy in store.policies if policy.id == given.get("PolicyId")), None)


def _target(store: OrganizationsBackend, given: dict[str, Any]) -> Any:
    targets: list[Any] = [*store.ou, *store.accounts]
    return next((each for each in targets if each.id == given.get("TargetId")), None)


def _of_type(target: Any, policy: Any) -> list[Any]:
    return [each for each in target.attached_policies if each.type == policy.type]


def _refusal(name: str, message: str, reason: str = "") -> Refusal:
    return Refusal(400, f"{name}Exception", message, reason)
