"""Let a caller act as the user that the `Impersonate-*` headers name (`kubectl --as`).

https://kubernetes.io/docs/reference/access-authn-authz/authentication/#user-impersonation
"""

from urllib.parse import unquote

from labkit.simulator.kubernetes.access.authentication import ANONYMOUS, AUTHENTICATED, User
from labkit.simulator.kubernetes.access.authorization import Authorizer
from labkit.simulator.kubernetes.access.rules import Attributes
from labkit.simulator.kubernetes.objects.kinds import AUTHENTICATION
from labkit.simulator.kubernetes.objects.status import bad_request

UNAUTHENTICATED = ANONYMOUS.groups[0]
EXTRA = "impersonate-extra-"


def impersonated(headers: list[tuple[bytes, bytes]], user: User, authorization: Authorizer) -> User:
    """Return the user that the ``headers`` name. Without `Impersonate-*` headers, return ``user``, the caller.

    Raises Forbidden if the caller may not act as that user. Raises BadRequest if `Impersonate-*` headers lack the user.
    """
    given = [(key.decode("latin-1").lower(), value.decode("latin-1")) for key, value in headers]
    given = [(key, value) for key, value in given if key.startswith("impersonate-")]
    if not given:
        return user
    name = next((value for key, value in given if key == "impersonate-user"), "")
    uid = next((value for key, value in given if key == "impersonate-uid"), "")
    groups = tuple(value for key, value in given if key == "impersonate-group")
    extra: dict[str, list[str]] = {}
    for key, value in given:
        if key.startswith(EXTRA):
            extra.setdefault(unquote(key.removeprefix(EXTRA)).lower(), []).append(value)
    if not name:
        what = ", ".join(f"{key}: {value}" for key, value in given)
        raise bad_request(f"requested [{what}] without impersonating a user")
    _check(authorization, user, User(name, groups, uid, extra))
    return User(name, _groups(name, groups), uid, extra)


def _check(authorization: Authorizer, user: User, wanted: User) -> None:
    """Raise Forbidden if ``user`` may not impersonate ``wanted``."""

    def may(resource: str, name: str, **more: str) -> None:
        authorization.require(user, Attributes("impersonate", resource=resource, name=name, **more))

    if account := _service_account(wanted.name):
        may("serviceaccounts", account[1], namespace=account[0])
    else:
        may("users", wanted.name)
    for group in wanted.groups:
        may("groups", group)
    for key, values in wanted.extra.items():
        for value in values:
            may("userextras", value, group=AUTHENTICATION, subresource=key)
    if wanted.uid:
        may("uids", wanted.uid, group=AUTHENTICATION)


def _groups(name: str, groups: tuple[str, ...]) -> tuple[str, ...]:
    """Return an impersonated user's groups: ``groups`` from the headers, then the groups that Kubernetes adds."""
    if not groups and (account := _service_account(name)):
        groups = ("system:serviceaccounts", f"system:serviceaccounts:{account[0]}")
    if name == ANONYMOUS.name:
        return groups if UNAUTHENTICATED in groups else (*groups, UNAUTHENTICATED)
    return groups if {AUTHENTICATED, UNAUTHENTICATED} & set(groups) else (*groups, AUTHENTICATED)


def _service_account(name: str) -> tuple[str, str] | None:
    """Return the namespace and the name from a service account's user name."""
    parts = name.split(":")
    return (parts[2], parts[3]) if parts[:2] == ["system", "serviceaccount"] and len(parts) == 4 else None
