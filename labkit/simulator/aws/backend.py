"""moto, behind the gate. moto keeps the state of most of AWS. It runs in this process, without a port.

This is the only module of the lab that imports moto. moto's public interface is its decorators and its server. But the
gate needs other parts of moto, which may change at any time. So the lab only runs on the release line of moto that it
was tested with.

When the gate is created, this module replaces these methods of moto:

- `FakeBucket.get_permission`, `FakeAccount.__init__`, `FakeKey.__del__`, `BaseModel.__new__`: see `adopt`.
- `AccountSpecificBackend.__getitem__`: see `tell_uses`.
- the methods that change an object of the classes that the lab keeps: see `state/tracking.py`.

`adopt` also caches `method_names_from_class`, which moto calls for each request.

`adopt` also adds to moto's list of the S3 resources whose ARNs may have a region.

This module reads or sets these private attributes of moto's objects:

- `BackendDict._instances`: see `place` and `_ByName`.
- `FakeKey._value_buffer`, `FakeKey._max_buffer_size` and the lock beside them: see `give_body`.
- `_parameters` and `latest_…` of SSM's parameters: see `Backend.forget_empty_parameters` and `state/encoding.py`.
- `_arn_format` of an organization's policy: see `name_policy`.
"""

import io
import json
import logging
import os
import re
import threading
from collections.abc import Callable
from contextvars import copy_context
from functools import cache, lru_cache, partial
from typing import Any, TypeVar, TypeVarTuple
from urllib.parse import quote, unquote_to_bytes
from xml.parsers.expat import ExpatError

from labkit.policy.arn import Arn
from labkit.simulator.aws import moto_guard
from labkit.simulator.aws.answers import Refusal, not_emulated
from labkit.simulator.aws.call import S3_CONTROL, AwsRequest, Response, copy_source
from labkit.simulator.aws.clusters import EksClusters
from labkit.simulator.aws.one_thread import OneThread, Stuck
from labkit.simulator.aws.web_identity import Provider

try:
    from moto.backends import get_backend
    from moto.core import responses
    from moto.core.base_backend import AccountSpecificBackend, BackendDict, BaseBackend
    from moto.core.common_models import BaseModel
    from moto.core.model import OperationModel, ServiceModel, Shape
    from moto.core.parse import PROTOCOL_PARSERS
    from moto.core.request import (
        PRESERVED_HEADER_NAMES_ENVIRON_KEY,
        environ_key_for_header,
        should_preserve_original_header_name,
    )
    from moto.core.request import Request as RoutedRequest
    from moto.core.routing import get_service_router
    from moto.core.utils import get_service_model, method_names_from_class, utcnow
    from moto.iam.access_control import PermissionResult
    from moto.iam.aws_managed_policies import aws_managed_policies_data
    from moto.iam.exceptions import MalformedPolicyDocument
    from moto.iam.models import (
        SERVICE_NAME_CONVERSION,
        AccessKey,
        AWSManagedPolicy,
        IAMBackend,
        Role,
        User,
        iam_backends,
    )
    from moto.iam.policy_validation import (
        SERVICE_TYPE_REGION_INFORMATION_ERROR_ASSOCIATIONS,
        IAMPolicyDocumentValidator,
    )
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from moto.organizations.models import (
        FakeAccount,
        FakeOrganization,
        FakePolicy,
        OrganizationsBackend,
        organizations_backends,
    )
    from moto.organizations.utils import make_random_create_account_status_id
    from moto.s3.models import FakeBucket, FakeDeleteMarker, FakeKey, s3_backends
except ImportError:
    moto_guard.check_release()
    raise

# What other modules use of moto.
__all__ = [
    "AWSManagedPolicy", "Backend", "BackendDict", "BaseBackend", "FakeBucket", "FakeDeleteMarker", "FakeKey",
    "IAMBackend", "OperationModel", "OrganizationsBackend", "Role", "RoutedRequest", "ServiceModel", "Shape",
    "aws_managed_policies_data", "get_backend", "get_service_model", "get_service_router",
]  # fmt: skip

_log = logging.getLogger(__name__)
Given = TypeVarTuple("Given")
Result = TypeVar("Result")

STUCK = "The lab's AWS does not answer, so it restarts. Please try again."
NO_SERVICE = "The lab does not emulate {}."

# Characters that no client can parse in an answer, though a key or a description may have them.
# https://www.w3.org/TR/xml/#charsets
NOT_XML = re.compile(rb"[\0-\x08\x0b\x0c\x0e-\x1f]|\xef\xbf[\xbe\xbf]")

# Headers that moto doesn't get: they are about the connection, or only for the gate.
_KEPT_BACK = {
    "authorization", "connection", "content-length", "expect", "keep-alive", "te", "transfer-encoding", "upgrade",
    "user-agent", "x-amz-content-sha256", "x-amz-decoded-content-length", "x-amz-security-token", "x-amz-trailer",
}  # fmt: skip


AWS_PARAMETERS = "/aws/"
"""The beginning of the names of the parameters that AWS publishes in SSM."""
_stores_by_region = AccountSpecificBackend.__getitem__
_method_names = cache(method_names_from_class)
# The beginnings of the S3 resources whose ARNs have a region.
# https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html#amazons3-resources-for-iam-policies
S3_WITH_REGION = ["accesspoint/", "access-grants/", "job/", "storage-lens/", "storage-lens-group/"]


class Backend:
    """moto's state and answers. ``account_id`` is the lab's own account; ``clusters`` are that account's clusters."""

    def __init__(self, account_id: str, clusters: EksClusters):
        adopt()
        self.account_id = account_id
        self.clusters = clusters
        # With this variable, moto would use one account for all calls.
        os.environ.pop("MOTO_ACCOUNT_ID", None)
        self._dispatcher = DomainDispatcherApplication(create_backend_app)
        # For each request, moto would look through its folders and match the host with 200 patterns.
        self._service_at = lru_cache(1000)(self._dispatcher.get_backend_for_host)
        self._apps: dict[str, Any] = {}
        # moto isn't thread-safe: one call at a time, outside the event loop's thread.
        self.thread = OneThread("moto")
        self.carry_out: Callable[[Callable[[], Any]], Any] = lambda work: work()
        """The function that runs each call in moto's thread. `MotoState` replaces it, to undo refused calls."""

    async def answer(self, request: AwsRequest) -> Response:
        """Return moto's answer to an authenticated and authorized call."""
        return await self.run(self.answer_in_thread, request)

    def has_loaded(self, service: str) -> bool:
        """Whether moto has answered a call of the service since the lab's server started."""
        return service in self._apps

    async def prepare(self, *services: str) -> None:
        """Load moto's modules for these services in advance."""
        for service in services:
            await self.run(self._load, service)

    async def run(self, function: Callable[[*Given], Result], *arguments: *Given) -> Result:
        """Run a function in moto's thread, and return its result.

        Use this for functions that change moto's state, or that read much of it. Raises ``Refusal`` (503) if the thread
        is stuck.
        """
        try:
            # Run it in the caller's context, which says whether the state may change: see state/kept.py.
            work = partial(function, *arguments)
            result: Result = await self.thread.run(copy_context().run, self.carry_out, work)
            return result
        except Stuck as stuck:
            raise Refusal(503, "ServiceUnavailable", STUCK, "a call to moto does not return") from stuck

    def iam(self, account_id: str) -> IAMBackend | None:
        """Return IAM's state in an account; None if moto doesn't have the account yet.

        For the lab's own account, this is never None.
        """
        known = account_id == self.account_id or account_id in iam_backends
        return self.entered(account_id) if known else None

    def entered(self, account_id: str) -> IAMBackend:
        """Return IAM's state in an account. Create the account if it doesn't exist."""
        return iam_backends[account_id]["aws"]

    def role(self, arn: str) -> Role | None:
        """The role with this ARN; None if it doesn't exist."""
        iam = self.iam(named.account) if (named := Arn.find(arn)) else None
        return next((role for role in every(iam, "roles") if role.arn == arn), None)

    def principal(self, arn: str) -> Role | User | None:
        """The role or the user with this ARN; None if it doesn't exist."""
        iam = self.iam(named.account) if (named := Arn.find(arn)) else None
        return next((one for kind in ("roles", "users") for one in every(iam, kind) if one.arn == arn), None)

    def role_by_id(self, account_id: str, role_id: str) -> Role | None:
        """The role with this unique id; None if it was deleted."""
        iam = self.iam(account_id)
        return iam.roles.get(role_id) if iam else None

    def user_and_groups(self, account_id: str, user_id: str) -> list[object]:
        """Return the user with this unique id, then the user's groups. For a deleted user, return ``[None]``."""
        iam = self.entered(account_id)
        user = next((one for one in every(iam, "users") if one.id == user_id), None)
        return [user, *(group for group in every(iam, "groups") if user in group.users)]

    def user_of_key(self, access_key_id: str) -> tuple[User, AccessKey] | None:
        """Return the user who has this access key, in any account, and the key; None if no user has the key."""
        for account in list(iam_backends.values()):
            if key := account["aws"].access_keys.get(access_key_id):
                users = list(account["aws"].users.values())
                return next(((user, key) for user in users if key in user.access_keys), None)
        return None

    def provider(self, account_id: str, issuer: str) -> Provider | None:
        """The OIDC provider of an issuer (``https://…``) in an account; None if the account doesn't have it."""
        iam = self.iam(account_id)
        arn = f"arn:aws:iam::{account_id}:oidc-provider/{issuer.removeprefix('https://')}"
        stored = iam.open_id_providers.get(arn) if iam and issuer.startswith("https://") else None
        return Provider(stored.client_id_list, stored.thumbprint_list, stored.arn) if stored else None

    def replace_thumbprint(self, old: str, new: str) -> None:
        """Replace a certificate's thumbprint in the OIDC providers that list it, in all accounts."""
        for iam in list(iam_backends.values()):
            for provider in iam["aws"].open_id_providers.values():
                listed = provider.thumbprint_list
                provider.thumbprint_list = [new if each.lower() == old else each for each in listed]

    def store(self, service: Any, region: str, account_id: str) -> Any:
        """moto's state of a service in an account and a region. Raises KeyError for a region that moto doesn't know."""
        return get_backend(service)[account_id][region]

    def stores(self, service: Any, account_id: str) -> dict[str, Any]:
        """Return moto's state of a service in an account, by region."""
        return dict(get_backend(service)[account_id])

    def organization(self, management_id: str) -> OrganizationsBackend:
        """moto's state of the organization that an account manages.

        If the account manages no organization, the state has no ``org``.
        """
        return organizations_backends[management_id]["aws"]

    def forget_empty_parameters(self, region: str, account_id: str) -> None:
        """Remove SSM's parameters without versions. moto stores one if a call names a missing parameter."""
        if store := self.stores("ssm", account_id).get(region):
            for name in [name for name, versions in dict.items(store._parameters) if not versions]:
                del store._parameters[name]

    def bucket(self, name: str) -> FakeBucket | None:
        """Return the bucket with this name, in any account; None if it doesn't exist."""
        _, account_id = s3_backends.bucket_accounts.get(name, ("", ""))
        return s3_backends[account_id]["aws"].buckets.get(name) if account_id else None

    def close(self) -> None:
        """End the thread that moto's calls run in."""
        self.thread.close()

    def answer_in_thread(self, request: AwsRequest) -> Response:
        """Return moto's answer, like `answer`. Only moto's thread may call this."""
        environ = self._environ(request)
        started: list[Any] = []
        try:
            app = self._app(request, environ)
            chunks = app(environ, lambda status, headers, _=None: started.extend((status, headers)))
            try:
                body = b"".join(chunks)
            finally:
                if hasattr(chunks, "close"):
                    chunks.close()
        except Refusal:
            raise
        except (ExpatError, UnicodeDecodeError) as error:
            raise Refusal(400, "MalformedXML", "The XML you provided was not well-formed.", str(error)) from error
        except Exception as error:
            # moto fails on a call that it doesn't know, or whose parameters it didn't expect.
            _log.info("moto failed on %s %s", request.service, request.operation, exc_info=error)
            raise not_emulated(request, f"moto: {error or type(error).__name__}", error) from error
        status = int(started[0].split()[0])
        has_error = request.family == "s3" or request.call.method == "HEAD" or body.strip()
        if status >= 400 and (not has_error or body.lstrip()[:15].lower() == b"<!doctype html>"):
            # moto does not know the path, or moto's web server reports a fault.
            raise not_emulated(request, f"moto: {started[0]}")
        headers = [
            (name, value)
            for name, value in started[1]
            if not name.lower().startswith("access-control-") and name.lower() not in ("connection", "date", "server")
        ]
        # Never change the content of an object.
        written = status >= 400 or request.operation != "GetObject"
        if written and any(n.lower() == "content-type" and "xml" in v for n, v in headers):
            body = NOT_XML.sub(b"?", body)
        return Response(status, headers, body)

    def _app(self, request: AwsRequest, environ: dict[str, Any]) -> Any:
        # Choose moto's app only by the signed scope: the dispatcher would send some paths to moto's own API.
        name = "s3" if request.family == "s3" and not request.call.path.startswith(S3_CONTROL) else None
        if name is None:
            host = self._dispatcher.infer_service_region_host(environ, request.call.path)
            name = self._service_at(host) if host else None
        if name is None or name in ("moto_api", "instance_metadata"):
            raise Refusal(501, "NotImplemented", NO_SERVICE.format(request.service))
        return self._load(name)

    def _load(self, name: Any) -> Any:
        if name not in self._apps:
            try:
                self._apps[name] = app = create_backend_app(name)
            except ImportError as missing:
                # moto needs a package for the service that the lab does not install.
                message = NO_SERVICE.format(name)
                raise Refusal(501, "NotImplemented", message, f"{message} moto: {missing}") from missing
            # Loading took long, but only once.
            self.thread.begin_anew()
            app.url_map.merge_slashes = False
        return self._apps[name]

    def _environ(self, request: AwsRequest) -> dict[str, Any]:
        """Return the call's WSGI environment (PEP 3333)."""
        call = request.call
        pairs = [(name, value) for name, value in call.query_pairs if not name.startswith("X-Amz-")]
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
        # Encode the path again, so that moto reads the same as the gate. moto's parser treats `;` and `#` specially.
        path = quote(call.path, safe="/-_.~") if request.family == "s3" else call.raw_path
        environ: dict[str, Any] = {
            "REQUEST_METHOD": call.method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(path).decode("latin-1"),
            "RAW_URI": f"{path}?{query}" if query else path,
            "QUERY_STRING": query,
            "CONTENT_LENGTH": str(len(call.body)),
            "SERVER_NAME": "127.0.0.1",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": call.source_ip,
            "HTTP_X_MOTO_ACCOUNT_ID": request.account_id or self.account_id,
            # moto only reads the scope of the signature.
            "HTTP_AUTHORIZATION": (
                f"AWS4-HMAC-SHA256 Credential=LAB/19700101/{request.region}/{request.service}/aws4_request, "
                "SignedHeaders=host, Signature=0"
            ),
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(call.body),
            "wsgi.errors": io.StringIO(),
            "wsgi.multithread": False,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        names: dict[str, str] = {}
        for name, value in (call.headers | call.trailers).items():
            if name in _KEPT_BACK or name.startswith("x-moto-"):
                continue
            key = environ_key_for_header(name)
            if should_preserve_original_header_name(name):
                names[key] = name
            if passed := _passed_on(request, name, value):
                environ[key] = passed
        environ[PRESERVED_HEADER_NAMES_ENVIRON_KEY] = names
        return environ


def adopt() -> None:
    """Replace some of moto's functions, and keep moto from opening connections.

    Afterwards moto doesn't evaluate bucket policies, and creates accounts with the ids that the lab chooses.

    Raises :class:`LabError` if moto is missing, or if the lab wasn't tested with moto's release line.
    """
    moto_guard.check_release()
    moto_guard.close()
    # The gate has evaluated the bucket policy. moto's own evaluation ignores principals and conditions.
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL  # type: ignore[method-assign]  # see above
    responses.method_names_from_class = _method_names  # type: ignore[attr-defined]  # imported there
    FakeAccount.__init__ = _enroll  # type: ignore[method-assign, assignment]  # see there
    # moto's method would change an object that has ended. The file with its content closes itself.
    FakeKey.__del__ = lambda _: None  # type: ignore[method-assign]  # see above
    # moto's method would keep each object in memory for ever.
    BaseModel.__new__ = staticmethod(lambda kind, *_, **__: object.__new__(kind))  # type: ignore[assignment]  # see above
    BackendDict._instances = _ByName(BackendDict._instances)  # type: ignore[misc]  # as moto uses it
    # moto's list only has access points.
    SERVICE_TYPE_REGION_INFORMATION_ERROR_ASSOCIATIONS["s3"]["valid_starting_values"] = S3_WITH_REGION


class _ByName(list[Any]):
    """The services that were used. `tag:GetResources` has their order, which a restart must not change."""

    def append(self, stores: Any) -> None:
        super().append(stores)
        self.sort(key=lambda each: each.service_name)


def tell_uses(used: Callable[[str, str], None]) -> None:
    """Whenever moto reads the state of a service in an account, call ``used`` with the service and the account id."""

    def by_region(stores: AccountSpecificBackend[Any], region: str) -> BaseBackend:
        used(stores.service_name, stores.account_id)
        backend: BaseBackend = _stores_by_region(stores, region)
        return backend

    AccountSpecificBackend.__getitem__ = by_region  # type: ignore[method-assign, assignment]  # as moto calls it


def place(backend: BaseBackend) -> tuple[str, str, str]:
    """Return the service, the account and the region of one of moto's backends."""
    every: list[Any] = BackendDict._instances  # type: ignore[misc]  # as moto uses it
    service = next(one.service_name for one in every if one.backend is type(backend))
    return service, backend.account_id, backend.region_name


def give_body(thing: FakeKey, opened: Callable[[int], Any]) -> None:
    """Set an S3 object's content to the file that ``opened`` returns.

    ``opened`` gets the number of bytes that the file may keep in memory.
    """
    thing.lock = threading.Lock()
    thing._value_buffer = opened(thing._max_buffer_size)


def name_policy(policy: FakePolicy, arn: str) -> None:
    """Give an organization's policy this ARN instead of moto's, which would contain the management account's id."""
    policy._arn_format = arn


def bound(user: User, boundary_arn: str | None) -> None:
    """Set a user's permissions boundary; None removes it. moto only supports boundaries for roles."""
    user.permissions_boundary_arn = boundary_arn  # type: ignore[attr-defined]  # the attribute is the lab's own


def _enroll(account: FakeAccount, organization: FakeOrganization, **given: Any) -> None:
    """Set the attributes of a new account of an organization, in place of moto's `FakeAccount.__init__`.

    The account gets the given id. moto's method would ignore this id, and would create an IAM role.
    """
    account.type, account.status, account.state, account.joined_method = "ACCOUNT", "ACTIVE", "ACTIVE", "CREATED"
    account.region, account.organization_id = organization.region, organization.id
    account.master_account_id, account.parent_id = organization.master_account_id, organization.root_id
    account.create_account_status_id = make_random_create_account_status_id()
    account.id, account.name, account.email = given.get("AccountId", ""), given["AccountName"], given["Email"]
    account.create_time, account.attached_policies = utcnow(), []
    account.tags = {tag["Key"]: tag["Value"] for tag in given.get("Tags", [])}


def every(iam: IAMBackend | None, kind: str) -> list[Any]:
    """Return all objects of a kind: ``groups``, ``instance_profiles``, ``managed_policies``, ``roles`` or ``users``."""
    return list(getattr(iam, kind).values()) if iam else []


def find(iam: IAMBackend | None, kind: str, name: str | None) -> Any:
    """Return the object with this name from ``every(iam, kind)``; None if it doesn't exist."""
    return next((one for one in every(iam, kind) if one.name == name), None)


def service_linked_role(service: str, suffix: str) -> str | None:
    """Return the name that moto gives a service-linked role; None if ``service`` isn't a service's name."""
    first, *others = service.split(".")
    if len(others) < 2:
        return None
    own = service.split(".")[-3]
    name = SERVICE_NAME_CONVERSION.get(own, own)
    name += "" if own == first else "_" + "".join(part.capitalize() for part in first.split("-"))
    return f"AWSServiceRoleFor{name}{f'_{suffix}' if suffix else ''}"


def why_moto_refuses(document: dict[str, object]) -> str:
    """Return moto's message about a faulty policy, whatever the policy's version; empty if moto accepts the policy."""
    try:
        IAMPolicyDocumentValidator(json.dumps(document | {"Version": "2012-10-17"})).validate()
    except MalformedPolicyDocument as malformed:
        return str(malformed.message)
    return ""


def parse_parameters(protocol: str, model: OperationModel, **parts: object) -> dict[str, object]:
    """Return an operation's parameters, read from these parts of a request."""
    parser: Any = PROTOCOL_PARSERS[protocol](model)
    parameters: dict[str, Any] = parser.parse(parts)
    return parameters


def partition_keys(expression: str, values: Any, names: Any, schema: Any) -> list[object]:
    """Return the partition key's values in a DynamoDB key condition; empty if the condition can't be read."""
    # Import this only now: it loads moto's part of DynamoDB.
    from moto.dynamodb.exceptions import MockValidationException
    from moto.dynamodb.parsing.key_condition_expression import parse_expression

    try:
        keys, _, _ = parse_expression(expression, values, names, schema)
    except (MockValidationException, LookupError, TypeError, ValueError, AttributeError):
        return []
    return [value for _, value in keys]


def _passed_on(request: AwsRequest, name: str, value: str) -> str:
    if name == "content-encoding":
        return ",".join(part for part in value.split(",") if part.strip() != "aws-chunked")
    if name == "x-amz-copy-source" and request.family == "s3" and (source := copy_source(value)):
        bucket, key, version = source
        return quote(f"/{bucket}/{key}", safe="/-_.~") + (f"?versionId={version}" if version else "")
    return value
