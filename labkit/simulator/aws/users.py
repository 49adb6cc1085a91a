"""Features of IAM users that moto lacks: permissions boundaries, and calls in which users omit their own names.

What differs from AWS:

- The user's name: in the lab, users may omit their own names only in GetUser and in the calls on access keys.

https://docs.aws.amazon.com/IAM/latest/UserGuide/access_policies_boundaries.html
"""

from dataclasses import replace
from urllib.parse import urlencode

from labkit.simulator.aws.answers import done, xml
from labkit.simulator.aws.backend import Backend, IAMBackend, bound
from labkit.simulator.aws.call import AwsRequest, Call, Response
from labkit.simulator.aws.organizations import Organization
from labkit.simulator.aws.refusals import Refusal
from labkit.simulator.aws.sessions import Administrator, Caller, IamUser, Session
from labkit.simulator.clock import rfc3339

BOUNDARIES = ("PutUserPermissionsBoundary", "DeleteUserPermissionsBoundary")
# https://docs.aws.amazon.com/IAM/latest/APIReference/API_GetUser.html
OF_ONESELF = {"CreateAccessKey", "DeleteAccessKey", "GetUser", "ListAccessKeys", "UpdateAccessKey"}


def of_oneself(request: AwsRequest, caller: Caller) -> Call:
    """Return the call. If the caller is a user and the call doesn't name a user, add the caller's name."""
    call = request.call
    if not isinstance(caller, IamUser) or request.operation not in OF_ONESELF or "UserName" in call.form:
        return call
    named = {**call.form, "UserName": caller.name}
    return replace(call, query_string="", body=urlencode(named).encode())


def as_user(request: AwsRequest, caller: Caller, organization: Organization) -> Response | None:
    """Return the answer to GetUser if the administrator asks about itself. moto has no user for the administrator.

    Return None if moto should answer. Raises ``Refusal`` if the caller is a role session and the call names no user.
    """
    name = request.parameters.get("UserName")
    if isinstance(caller, Session) and name is None:
        raise Refusal(400, "ValidationError", "Must specify userName when calling with non-User credentials")
    if not isinstance(caller, Administrator) or name not in (None, caller.name):
        return None
    made = rfc3339(organization.joined(caller.account_id))
    user = {"Path": "/", "UserName": caller.name, "UserId": caller.principal_id, "Arn": caller.arn, "CreateDate": made}
    return done(request, xml({"User": user}))


def check_boundary(request: AwsRequest, backend: Backend) -> None:
    """Refuse a permissions boundary that isn't a managed policy."""
    arn = request.parameters.get("PermissionsBoundary")
    if arn is not None and backend.managed_policy(arn) is None:
        raise Refusal(404, "NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")


def set_boundary(request: AwsRequest, iam: IAMBackend) -> Response:
    """Set or remove the permissions boundary of the user that the call names."""
    parameters = request.parameters
    name = parameters["UserName"]
    if (user := iam.users.get(name)) is None:
        raise Refusal(404, "NoSuchEntity", f"The user with name {name} cannot be found.")
    bound(user, parameters.get("PermissionsBoundary"))
    return done(request)
