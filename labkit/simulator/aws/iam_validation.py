"""Refuse documents, names and ARNs that IAM would refuse, but moto would accept.

https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateRole.html
https://docs.aws.amazon.com/IAM/latest/APIReference/API_CreateOpenIDConnectProvider.html
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-names
"""

import json
import re
from typing import Any
from urllib.parse import urlsplit

from labkit.policy import Kind, MalformedPolicy, Policy
from labkit.policy.arn import Arn
from labkit.policy.validation import listed, texts
from labkit.simulator.aws import managed_policies, session_tags
from labkit.simulator.aws.answers import Refusal, constraint_violation, fault, invalid, out_of_range
from labkit.simulator.aws.backend import Backend, IAMBackend, every, find, get_backend, why_moto_refuses
from labkit.simulator.aws.call import AwsRequest, Response
from labkit.simulator.aws.issuers import Issuers, IssuerUnreachable
from labkit.simulator.aws.sessions import Caller

# The parameter that holds a document, and the document's kind.
DOCUMENTS: dict[str, tuple[str, Kind]] = {
    "CreateRole": ("AssumeRolePolicyDocument", "trust"),
    "UpdateAssumeRolePolicy": ("PolicyDocument", "trust"),
    "PutRolePolicy": ("PolicyDocument", "identity"),
    "PutUserPolicy": ("PolicyDocument", "identity"),
    "PutGroupPolicy": ("PolicyDocument", "identity"),
    "CreatePolicy": ("PolicyDocument", "identity"),
    "CreatePolicyVersion": ("PolicyDocument", "identity"),
}
# Characters without white space. For inline policies: all policies of a user, a group or a role together.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html#reference_iam-quotas-entity-length
LONGEST_MANAGED = 6144
LONGEST_INLINE = {
    "PutUserPolicy": ("user", "UserName", 2048),
    "PutGroupPolicy": ("group", "GroupName", 5120),
    "PutRolePolicy": ("role", "RoleName", 10240),
}
MOST_THUMBPRINTS = 5
# moto's words, and AWS's.
WORDS = (
    (re.compile(r"Role ([\w+=,.@-]+) not found"), r"The role with name \1 cannot be found."),
    (re.compile(r"Policy (arn:[^<\s]+) not found"), r"Policy \1 was not found."),
)
INVALID_NAME = re.compile(r"Value '.*' at '(\w+)' failed to .* pattern: \[\\w\+=,\.@-\]\+", re.DOTALL)
AWS_MANAGED = "arn:aws:iam::aws:policy/"
POLICY_ARN = re.compile(r"arn:(aws[a-z-]*):iam::(?:\d{12}|aws):policy/\S+", re.ASCII)
# The operations that change a policy itself. Customers can't change AWS's own policies.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_managed-vs-inline.html#aws-managed-policies
POLICY_WRITES = (
    "CreatePolicyVersion", "DeletePolicy", "DeletePolicyVersion", "SetDefaultPolicyVersion", "TagPolicy", "UntagPolicy",
)  # fmt: skip
ATTACHMENTS = ("AttachGroupPolicy", "AttachRolePolicy", "AttachUserPolicy")
# The operations on a role that IAM refuses for a service-linked role.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/id_roles_terms-and-concepts.html#iam-term-service-linked-role
ROLE_WRITES = (
    "AttachRolePolicy", "DeleteRole", "DeleteRolePermissionsBoundary", "DeleteRolePolicy", "DetachRolePolicy",
    "PutRolePermissionsBoundary", "PutRolePolicy", "UpdateAssumeRolePolicy",
)  # fmt: skip
SERVICE_LINKED = "/aws-service-role/"
# moto's store of the objects that an operation makes, the parameter with the name, the prefix of the unique id, and
# IAM's message for a name in use.
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
MADE = {
    "CreateGroup": ("groups", "GroupName", "AGPA", "Group with name {} already exists."),
    "CreateInstanceProfile": (
        "instance_profiles",
        "InstanceProfileName",
        "AIPA",
        "Instance Profile {} already exists.",
    ),
    "CreatePolicy": ("managed_policies", "PolicyName", "ANPA", "A policy called {} already exists."),
    "CreateRole": ("roles", "RoleName", "AROA", "Role with name {} already exists."),
    "CreateUser": ("users", "UserName", "AIDA", "User with name {} already exists."),
}


async def checked(request: AwsRequest, backend: Backend, issuers: Issuers) -> dict[str, str]:
    """Check the call's document, tags or URL. Return the new and the changed parameters for moto.

    Raises ``Refusal`` if a document, a tag or a URL is faulty, or if the call deletes a policy that is in use.
    """
    parameters = request.parameters
    if faults := session_tags.faults(parameters):
        raise invalid(*faults)
    match request.operation:
        case "CreateOpenIDConnectProvider":
            return await _with_thumbprint(request, backend, issuers)
        case "UpdateOpenIDConnectProviderThumbprint":
            _check_thumbprints(parameters["ThumbprintList"])
        case "DeletePolicy":
            _check_unused(request, backend)
    return _with_document(request, backend)


def invalid_name(fault: str) -> tuple[str, str] | None:
    """Return IAM's error code and message if ``fault`` is about a name; None otherwise."""
    if not (named := INVALID_NAME.fullmatch(fault)):
        return None
    message = f"The specified value for {named[1]} is invalid. It must contain only alphanumeric characters "
    return "ValidationError", f"{message}and/or the following: +=,.@_-"


def reworded(response: Response) -> Response:
    """Return moto's answer with its messages replaced by IAM's."""
    if response.status >= 400:
        text = response.body.decode("utf-8", "replace")
        for pattern, words in WORDS:
            text = pattern.sub(words, text)
        response.body = text.encode()
    return response


def missing_principals(document: dict[str, object], backend: Backend) -> list[str]:
    """Return the missing users and roles that a trust policy or a bucket policy names."""
    principals = (
        statement.get(element)
        for statement in listed(document.get("Statement", []))
        for element in ("Principal", "NotPrincipal")
    )
    named = (name for each in principals if isinstance(each, dict) for name in listed(each.get("AWS", [])))
    return [name for name in named if not _exists(name, backend)]


def _with_document(request: AwsRequest, backend: Backend) -> dict[str, str]:
    """Return the policy document's parameter with a new value, if the document's conditions contain numbers.

    The new value has strings instead of the numbers, because moto can't read numbers. Without numbers, the returned
    dict is empty. Raises ``Refusal`` if the document is faulty.
    """
    parameters = request.parameters
    parameter, kind = DOCUMENTS.get(request.operation, ("", "identity"))
    if parameter not in parameters:
        return {}
    policy = _document(parameters[parameter], kind, backend)
    _check_size(request, policy, backend)
    has_numbers = _quote_numbers(policy.document)
    if request.operation in LONGEST_INLINE and (message := why_moto_refuses(policy.document)):
        raise Refusal(400, "MalformedPolicyDocument", message)
    return {parameter: json.dumps(policy.document)} if has_numbers else {}


def _document(document: str, kind: Kind, backend: Backend) -> Policy:
    try:
        policy = Policy.parse(document, kind=kind, name="policy")
    except MalformedPolicy as malformed:
        too_long = malformed.code == "LimitExceeded"
        if not (too_long and kind == "identity"):
            raise Refusal(409 if too_long else 400, malformed.code, malformed.message) from malformed
        policy = Policy.read(document, kind=kind, name="policy")
    if kind == "trust":
        for name in missing_principals(policy.document, backend):
            raise Refusal(400, "MalformedPolicyDocument", f'Invalid principal in policy: "AWS":"{name}"')
    return policy


def _check_size(request: AwsRequest, policy: Policy, backend: Backend) -> None:
    if request.operation in ("CreatePolicy", "CreatePolicyVersion") and policy.size > LONGEST_MANAGED:
        raise Refusal(409, "LimitExceeded", f"Cannot exceed quota for PolicySize: {LONGEST_MANAGED}")
    if request.operation not in LONGEST_INLINE:
        return
    kind, parameter, longest = LONGEST_INLINE[request.operation]
    parameters = request.parameters
    name = parameters[parameter]
    holder = find(backend.iam(request.account_id), f"{kind}s", name)
    inline: dict[str, str] = holder.policies if holder else {}
    others = (text for other, text in list(inline.items()) if other != parameters["PolicyName"])
    if policy.size + sum(len("".join(text.split())) for text in others) > longest:
        message = f"Maximum policy size of {longest} bytes exceeded for {kind} {name}"
        raise Refusal(409, "LimitExceeded", message)


def _check_unused(request: AwsRequest, backend: Backend) -> None:
    iam, arn = backend.iam(request.account_id), request.parameters["PolicyArn"]
    if iam is None or (policy := iam.managed_policies.get(arn)) is None:
        return
    if policy.attachment_count or arn in managed_policies.boundaries(iam):
        raise Refusal(409, "DeleteConflict", "Cannot delete a policy attached to entities.")
    if len(policy.versions) > 1:
        message = "This policy has more than one version. Before you delete a policy, you must delete the policy's "
        raise Refusal(409, "DeleteConflict", f"{message}versions. The default version is deleted with the policy.")


def _quote_numbers(document: dict[str, Any]) -> bool:
    """Change each number in the policy's conditions to a string, because moto can't read numbers there.

    Change the document in place, and return whether a condition had a number.
    """
    has_numbers = False
    for statement in listed(document["Statement"]):
        for block in statement.get("Condition", {}).values():
            for key, values in block.items():
                if any(isinstance(value, int | float) and not isinstance(value, bool) for value in listed(values)):
                    block[key] = texts(values) if isinstance(values, list) else texts(values)[0]
                    has_numbers = True
    return has_numbers


def _exists(name: str, backend: Backend) -> bool:
    # The id of a deleted principal.
    if re.fullmatch(r"A(IDA|ROA)[A-Z0-9]{12,}", name):
        return False
    named = Arn.find(name)
    # The lab doesn't know the principals of an account that nobody has entered.
    if not named or not named.resource.startswith(("role/", "user/")) or backend.iam(named.account) is None:
        return True
    return backend.principal(name) is not None


async def _with_thumbprint(request: AwsRequest, backend: Backend, issuers: Issuers) -> dict[str, str]:
    """Return the issuer's thumbprint as a call parameter; an empty dict if the call already has a thumbprint.

    The call creates an OIDC provider. Raises ``Refusal`` if IAM would refuse the call.
    """
    parameters = request.parameters
    url = parameters["Url"]
    if not _is_issuer(url):
        raise Refusal(400, "ValidationError", "Invalid Open ID Connect Provider URL")
    for must in out_of_range(len(url), 0, 255):
        raise invalid(constraint_violation("'url'", must, f"'{url}'"))
    if backend.provider(request.account_id, url):
        raise Refusal(409, "EntityAlreadyExists", f"Provider with url {url} already exists.")
    issuers.forget(url)
    if thumbprints := parameters.get("ThumbprintList"):
        _check_thumbprints(thumbprints)
        return {}
    try:
        return {"ThumbprintList.member.1": await issuers.thumbprint(url)}
    except IssuerUnreachable as error:
        message = f"Could not retrieve the thumbprint of {url}"
        raise Refusal(400, "OpenIdIdpCommunicationError", message, str(error)) from error


def _is_issuer(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    return url.startswith("https://") and bool(host) and not re.search(r"[?#\s]", url)


def _check_thumbprints(given: list[str]) -> None:
    for value in given:
        if len(value) != 40:
            must = (
                "satisfy constraint: [Member must have length less than or equal to 40, "
                "Member must have length greater than or equal to 40]"
            )
            raise invalid(constraint_violation("'thumbprintList'", must, f"'[{value}]'"))
    if len(given) > MOST_THUMBPRINTS:
        raise Refusal(400, "InvalidInput", f"Thumbprint list must contain fewer than {MOST_THUMBPRINTS} entries.")


def check_names(request: AwsRequest, caller: Caller, backend: Backend) -> None:
    """Check the names and the policy's ARN in a call. Raises ``Refusal`` if IAM would refuse one of them."""
    parameters, iam = request.parameters, backend.iam(request.account_id)
    if request.operation == "CreateRole" and parameters.get("Path", "/").startswith(SERVICE_LINKED):
        message = f"Path prefix '{SERVICE_LINKED}' can only be used for AWS Service linked Roles"
        raise Refusal(400, "InvalidInput", message)
    if request.operation in MADE:
        _check_unused_name(request, iam)
    role = find(iam, "roles", parameters.get("RoleName")) if request.operation in ROLE_WRITES else None
    if role is not None and role.path.startswith(SERVICE_LINKED):
        message = f"Cannot perform the operation on the protected role '{role.name}' - this role is only"
        raise Refusal(400, "UnmodifiableEntity", f"{message} modifiable by AWS")
    if arn := parameters.get("PolicyArn"):
        _check_policy_arn(request, caller, arn)


def _check_unused_name(request: AwsRequest, iam: IAMBackend | None) -> None:
    """Refuse a name that differs only in upper and lower case from the name of another object of the same kind."""
    store, parameter, _, message = MADE[request.operation]
    name = request.parameters[parameter]
    others = (one.name for one in every(iam, store) if not one.arn.startswith(AWS_MANAGED))
    if any(other != name and other.lower() == name.lower() for other in others):
        raise Refusal(409, "EntityAlreadyExists", message.format(name))


def _check_policy_arn(request: AwsRequest, caller: Caller, arn: str) -> None:
    parts = POLICY_ARN.fullmatch(arn)
    if parts is None:
        raise Refusal(400, "InvalidInput", f"ARN {arn} is not valid.")
    if parts[1] != "aws":
        raise Refusal(400, "ValidationError", "Invalid ARN partition", f"{arn}: the lab's accounts are in aws")
    if request.operation in POLICY_WRITES and arn.startswith(AWS_MANAGED):
        message = f"User: {caller.arn} is not authorized to perform: iam:{request.operation} on resource: policy {arn}"
        raise fault(request, "denied", "nobody but AWS can change AWS's managed policies", message=message)
    if request.operation in ATTACHMENTS and arn.startswith(f"{AWS_MANAGED}{SERVICE_LINKED[1:]}"):
        raise Refusal(400, "PolicyNotAttachable", "Cannot attach a Service Role Policy to a Customer Role.")


def orphan(arn: str, unique_id: str) -> None:
    """Replace a deleted principal's ARN with its unique id, in all trust policies and bucket policies.

    https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements_principal.html#principal-roles
    """
    for iam in list(get_backend("iam").values()):
        for role in iam["aws"].roles.values():
            role.assume_role_policy_document = _renamed(role.assume_role_policy_document, arn, unique_id)
    for s3 in list(get_backend("s3").values()):
        for bucket in s3["aws"].buckets.values():
            if bucket.policy:
                text = bucket.policy.decode() if isinstance(bucket.policy, bytes) else bucket.policy
                bucket.policy = _renamed(text, arn, unique_id).encode()


def _renamed(document: str, arn: str, unique_id: str) -> str:
    """Return the policy ``document`` with ``unique_id`` instead of ``arn``, the ARN of a deleted principal."""
    if arn not in document:
        return document
    policy = json.loads(document)
    for statement in listed(policy.get("Statement", [])):
        for element in ("Principal", "NotPrincipal"):
            principal = statement.get(element)
            if isinstance(principal, dict) and (named := principal.get("AWS")):
                principal["AWS"] = _replaced(named, arn, unique_id)
    return json.dumps(policy)


def _replaced(named: Any, arn: str, unique_id: str) -> Any:
    if isinstance(named, list):
        return [_replaced(name, arn, unique_id) for name in named]
    return unique_id if named == arn else named
