"""The verbs that every kind has: get, list, watch, create, update, patch, delete.

https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

import base64
import json
import random
from collections.abc import Iterable
from functools import partial

from labkit.simulator.event_loop import in_thread_if_large
from labkit.simulator.kubernetes.api import patches
from labkit.simulator.kubernetes.api.admission import Admission
from labkit.simulator.kubernetes.api.admission_plugins import Review
from labkit.simulator.kubernetes.api.managers import Writer, applied, named, updated
from labkit.simulator.kubernetes.api.requests import (
    YAML,
    KubeRequest,
    KubeResponse,
    dry_run_causes,
    respond,
    wrong_kind,
)
from labkit.simulator.kubernetes.api.tables import table
from labkit.simulator.kubernetes.api.validation import validate, validate_update
from labkit.simulator.kubernetes.api.watches import Selection, WatchStream
from labkit.simulator.kubernetes.objects import defaults, schema, writes
from labkit.simulator.kubernetes.objects.kinds import NAMESPACE, POD, SERVICE, Kind, Object
from labkit.simulator.kubernetes.objects.selectors import field_selector, label_selector
from labkit.simulator.kubernetes.objects.status import (
    ApiError,
    StatusCause,
    bad_request,
    conflict,
    details_of,
    expired,
    forbidden,
    forbidden_field,
    invalid,
    modified,
    required,
    unsupported,
    unsupported_media_type,
)
from labkit.simulator.kubernetes.objects.storage import Storage, Stored, dump, with_metadata

OWN = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")
KEPT = (*OWN, "generateName", "selfLink")
NOT_GIVEN = (*OWN, "managedFields")
NO_ROUTE = (
    "this lab has no Service network: nothing answers at a Service's address; find a pod's ports at 127.0.0.1 instead"
)
PROPAGATION = ["Foreground", "Background", "Orphan", "nil"]


class Resources:
    def __init__(self, storage: Storage, admission: Admission):
        self.storage, self.admission = storage, admission

    # Reading

    def get(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        self._require_known_version(request.resource_version(_no_version))
        stored = self.storage.get(kind, self._namespace(kind, request), request.name)
        return self._answer(kind, stored, request)

    def list(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        request.check_list_options()
        selection = self._selection(kind, request)
        self._require_known_version(request.resource_version(_no_version))
        limit = request.integer("limit")
        after, at = _start_of_page(request.query.get("continue", ""), self.storage)
        items = [
            stored
            for stored in self.storage.list(kind, selection.namespace)
            if (after is None or (stored.namespace, stored.name) > after) and selection.matches(stored)
        ]
        metadata: Object = {"resourceVersion": str(at or self.storage.version)}
        if 0 < limit < len(items):
            last, remaining = items[limit - 1], len(items) - limit
            items = items[:limit]
            metadata["continue"] = _continue_token(last, at or self.storage.version)
            if not selection.labels and not selection.fields:
                metadata["remainingItemCount"] = remaining
        if request.table:
            return respond(self._table(kind, items, metadata, request))
        return _list_of(kind, items, metadata)

    def watch(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        request.check_list_options()
        selection = self._selection(kind, request)
        version = request.resource_version(lambda text: ApiError(500, "", text))
        as_table, heads = request.table, True

        def render(stored: Stored) -> bytes:
            nonlocal heads
            if not as_table:
                return stored.full(kind)
            metadata = {"resourceVersion": stored.metadata["resourceVersion"]}
            body = self._table(kind, [stored], metadata, request, heads=heads)
            heads = False
            return dump(body)

        initial, bookmarks = request.flag("sendInitialEvents"), request.flag("allowWatchBookmarks")
        fresh = not version or initial
        watch = WatchStream(
            self.storage,
            kind,
            selection,
            render,
            None if fresh else version,
            initial_end=bookmarks and (initial or version is None),
            bookmarks=bookmarks,
            # A real server ends a watch after 30 to 60 minutes, and the client starts another one.
            seconds=request.integer("timeoutSeconds") or random.uniform(1800, 3600),  # noqa: S311
        )
        return KubeResponse(200, stream=watch.events())

    # Writing

    async def create(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        dry_run = request.dry_run("CreateOptions")
        obj = await request.document(kind.type, kind.kind, kind.api_version)
        return await self._create(kind, request, obj, dry_run=dry_run)

    async def _create(self, kind: Kind, request: KubeRequest, obj: Object, *, dry_run: bool) -> KubeResponse:
        obj = self._prepared(kind, request, obj)
        metadata = obj["metadata"]
        if metadata.pop("resourceVersion", ""):
            raise ApiError(500, "", "resourceVersion should not be set on objects to be created")
        if kind.namespaced:
            self._require_namespace(kind, metadata)
        sent = obj
        obj = defaults.with_defaults(kind.kind, obj)
        review = Review(kind, "CREATE", request.user, obj, dry_run=dry_run, warnings=request.warnings)
        # A real server, too, generates a name only after admission.
        obj = self._named(await self.admission.admit(review))
        if kind is SERVICE:
            obj = writes.with_address(self.storage, obj, {})
            request.warnings.append(NO_ROUTE)
        size = len(request.body)
        await in_thread_if_large(size, validate, kind, obj)
        writer, now = self._writer(kind, request), self.storage.now()
        owned = await in_thread_if_large(size, partial(updated, b"", kind.type, {}, sent, writer, now=now))
        if kind.namespaced:
            # The namespace may have been deleted while the webhook was called.
            self._require_namespace(kind, metadata)
        obj = defaults.first_status(kind, obj)
        stored = self.storage.create(kind, obj, owned, dry_run=dry_run)
        return self._answer(kind, stored, request, 201)

    async def update(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        dry_run = request.dry_run("UpdateOptions")
        obj = self._prepared(kind, request, await request.document(kind.type, kind.kind, kind.api_version))
        before = self.storage.get(kind, self._namespace(kind, request), request.name)
        stored = await self._update(kind, request, before, obj, dry_run=dry_run)
        return self._answer(kind, stored, request)

    async def patch(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        dry_run = request.dry_run("PatchOptions")
        if request.content_type not in patches.PATCHES:
            raise unsupported_media_type()
        if request.content_type == patches.APPLY:
            return await self._apply(kind, request, dry_run)
        patch = await in_thread_if_large(len(request.body), patches.parse_patch, request)
        namespace = self._namespace(kind, request)
        for attempt in range(5):
            before = self.storage.get(kind, namespace, request.name)
            request.warnings.clear()
            obj = await in_thread_if_large(_size(request, before), self._patched, kind, request, before, patch)
            try:
                stored = await self._update(kind, request, before, obj, dry_run=dry_run)
            except ApiError as error:
                # Another client wrote in between. A patch without a version is applied again, to the new object.
                given = isinstance(patch, dict) and (patch.get("metadata") or {}).get("resourceVersion")
                if error.code == 409 and not given and attempt < 4:
                    continue
                raise
            return self._answer(kind, stored, request)
        raise modified(kind, request.name)

    def _patched(self, kind: Kind, request: KubeRequest, before: Stored, patch: object) -> Object:
        document = {"kind": kind.kind, "apiVersion": kind.api_version, **before.object}
        if request.content_type == patches.JSON_PATCH and before.managers:
            document["metadata"] = {**before.metadata, "managedFields": json.loads(before.managers)}
        changed = patches.patched(request.content_type, kind.type, document, patch)

        def refusal(text: str) -> ApiError:
            strategic = request.content_type == patches.STRATEGIC
            shown = f'"{_go_map(patch)}"' if strategic else dump(dump(changed).decode()).decode()
            return invalid("", "", "", [StatusCause("patch", f"Invalid value: {shown}: {text}")])

        if request.content_type != patches.STRATEGIC and isinstance(changed, dict):
            version, called = changed.get("apiVersion") or "", changed.get("kind") or ""
            if not (isinstance(version, str) and isinstance(called, str)):
                raise refusal("couldn't get version/kind")
            if text := wrong_kind(version, called, kind.kind, kind.api_version):
                raise refusal(text)
        try:
            obj, unknown = schema.decode(kind.type, changed)
        except schema.WrongType as error:
            raise refusal(str(error)) from error
        request.field_validation(unknown, [], refusal)
        return self._prepared(kind, request, {k: v for k, v in obj.items() if k not in ("kind", "apiVersion")})

    async def _apply(self, kind: Kind, request: KubeRequest, dry_run: bool) -> KubeResponse:
        if not request.query.get("fieldManager"):
            cause = required("fieldManager", "is required for apply patch")
            raise invalid("PatchOptions", "meta.k8s.io", "", [cause])
        request.applies = True
        request.headers[b"content-type"] = YAML.encode()
        obj = self._prepared(kind, request, await request.document(kind.type, kind.kind, kind.api_version))
        if "managedFields" in obj["metadata"]:
            raise bad_request("metadata.managedFields must be nil")
        before = self.storage.find(kind, self._namespace(kind, request), request.name)
        if before is None:
            return await self._create(kind, request, obj, dry_run=dry_run)
        force = request.flag("force")
        writer, now = self._writer(kind, request), self.storage.now()
        applying = partial(applied, before.managers, kind.type, before.object, obj, writer, now=now, force=force)
        result, owned = await in_thread_if_large(_size(request, before), applying)
        stored = await self._update(kind, request, before, result, dry_run=dry_run, owned=owned)
        return self._answer(kind, stored, request)

    @staticmethod
    def _writer(kind: Kind, request: KubeRequest) -> Writer:
        operation = "Apply" if request.method == "PATCH" and request.applies else "Update"
        return Writer(request.manager, operation, kind.api_version, request.subresource)

    async def _update(
        self,
        kind: Kind,
        request: KubeRequest,
        before: Stored,
        obj: Object,
        *,
        dry_run: bool,
        owned: bytes | None = None,
    ) -> Stored:
        metadata = dict(obj["metadata"])
        size = _size(request, before)
        managers = await in_thread_if_large(size, named, metadata.pop("managedFields", None), before.managers)
        version = metadata.pop("resourceVersion", "")
        if version and version != before.metadata["resourceVersion"]:
            raise modified(kind, before.name)
        if (uid := metadata.get("uid")) and uid != before.uid:
            key = f"/registry/{kind.plural}/{before.namespace}/{before.name}".replace("//", "/")
            why = (
                f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg:"
                f" Precondition failed: UID in precondition: {uid}, UID in object meta: {before.uid}"
            )
            raise conflict(kind, before.name, why)
        kept = {key: before.metadata[key] for key in (*KEPT, "resourceVersion") if key in before.metadata}
        metadata = {key: value for key, value in metadata.items() if key not in KEPT} | kept
        new = set(metadata.get("finalizers") or ()) - set(before.metadata.get("finalizers") or ())
        if new and "deletionTimestamp" in before.metadata:
            why = "no new finalizers can be added if the object is being deleted, found new finalizers"
            cause = forbidden_field("metadata.finalizers", f"{why} {sorted(new)}")
            raise invalid(kind.kind, kind.group, before.name, [cause])
        obj = self._parts(kind, request.subresource, {**obj, "metadata": metadata}, before)
        obj = defaults.with_defaults(kind.kind, obj)
        sub = request.subresource
        review = Review(kind, "UPDATE", request.user, obj, before.object, sub, dry_run, request.warnings)
        obj = await self.admission.admit(review)
        if kind is SERVICE:
            obj = writes.with_address(self.storage, obj, before.object)
        await in_thread_if_large(size, validate_update, kind, obj, before.object)
        # The keys in the old order, so that an unchanged object has the same JSON.
        metadata = {key: obj["metadata"][key] for key in before.metadata if key in obj["metadata"]}
        obj = with_metadata(obj, metadata | obj["metadata"])
        if owned is None:
            writer = self._writer(kind, request)
            now = self.storage.now()
            owned = await in_thread_if_large(
                size, partial(updated, managers, kind.type, before.object, obj, writer, now=now)
            )
        return writes.store(self.storage, kind, before, obj, owned, dry_run=dry_run)

    @staticmethod
    def _parts(kind: Kind, subresource: str, obj: Object, before: Stored) -> Object:
        """Return ``obj`` with the values of ``before`` in all fields that the request may not change."""
        if not kind.has_status:
            return obj
        if subresource == "status":
            status = obj.get("status") or {}
            if kind is POD and status.get("podIP") and not status.get("podIPs"):
                status = {**status, "podIPs": [{"ip": status["podIP"]}]}
            return {**before.object, "metadata": obj["metadata"], "status": status}
        if subresource == "finalize":
            return {**before.object, "spec": obj.get("spec") or {}}
        rest = {key: value for key, value in obj.items() if key != "status"}
        return rest | ({"status": before.object["status"]} if "status" in before.object else {})

    # Deleting

    async def delete(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        options = await self._options(request)
        stored = self.storage.get(kind, self._namespace(kind, request), request.name)
        stored, gone = await self._delete(kind, stored, options, request)
        if kind.echo or not gone:
            return self._answer(kind, stored, request)
        details = details_of(stored.name, kind.group, kind.plural) | {"uid": stored.uid}
        return respond({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details})

    async def delete_collection(self, kind: Kind, request: KubeRequest) -> KubeResponse:
        request.check_list_options()
        options = await self._options(request)
        selection = self._selection(kind, request)
        selected = [s for s in self.storage.list(kind, selection.namespace) if selection.matches(s)]
        gone = []
        for stored in selected:
            try:
                gone.append((await self._delete(kind, stored, options, request))[0])
            except ApiError as error:
                if error.code != 404:
                    raise
        return _list_of(kind, gone, {"resourceVersion": str(self.storage.version)})

    async def _delete(self, kind: Kind, stored: Stored, options: Object, request: KubeRequest) -> tuple[Stored, bool]:
        dry_run = bool(options.get("dryRun"))
        review = Review(kind, "DELETE", request.user, old=stored.object, dry_run=dry_run)
        await self.admission.admit(review)
        current = self.storage.get(kind, stored.namespace, stored.name)
        return writes.delete(self.storage, kind, current, options, dry_run=dry_run)

    async def _options(self, request: KubeRequest) -> Object:
        options: Object = {}
        if request.body.strip():
            version = await in_thread_if_large(len(request.body), request.options_version)
            options = await request.document("meta.DeleteOptions", "DeleteOptions", version)
        if "gracePeriodSeconds" in request.query:
            options["gracePeriodSeconds"] = request.integer("gracePeriodSeconds")
        if policy := request.query.get("propagationPolicy"):
            options["propagationPolicy"] = policy
        if orphan := request.query.get("orphanDependents"):
            options["orphanDependents"] = orphan == "true"
        if causes := dry_run_causes(options.get("dryRun") or []):
            raise invalid("DeleteOptions", "meta.k8s.io", "", causes)
        if request.dry_run("DeleteOptions"):
            options["dryRun"] = ["All"]
        if (policy := options.get("propagationPolicy")) and policy not in PROPAGATION[:3]:
            raise invalid("DeleteOptions", "meta.k8s.io", "", [unsupported("propagationPolicy", policy, PROPAGATION)])
        return options

    # Used by all verbs

    def _answer(self, kind: Kind, stored: Stored, request: KubeRequest, status: int = 200) -> KubeResponse:
        if request.table:
            metadata = {"resourceVersion": stored.metadata.get("resourceVersion", "")}
            return respond(self._table(kind, [stored], metadata, request), status)
        return respond(stored.full(kind), status)

    def _table(
        self, kind: Kind, items: Iterable[Stored], metadata: Object, request: KubeRequest, *, heads: bool = True
    ) -> Object:
        include = request.query.get("includeObject", "Metadata")
        return table(kind, items, metadata, self.storage.clock.now(), include, heads=heads)

    @staticmethod
    def _namespace(kind: Kind, request: KubeRequest) -> str:
        return request.namespace if kind.namespaced else ""

    def _selection(self, kind: Kind, request: KubeRequest) -> Selection:
        fields = request.query.get("fieldSelector", "")
        if request.name:
            fields = f"metadata.name={request.name}"
        return Selection(
            self._namespace(kind, request),
            label_selector(request.query.get("labelSelector", "")),
            field_selector(kind, fields),
        )

    def _require_known_version(self, version: int | None) -> None:
        if version is None or version <= self.storage.version:
            return
        # A real server first waits three seconds for the version.
        cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        message = f"Timeout: Too large resource version: {version}, current: {self.storage.version}"
        raise ApiError(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})

    def _prepared(self, kind: Kind, request: KubeRequest, obj: Object) -> Object:
        """Return the object with the namespace and the name from the request's path."""
        metadata = dict(obj.get("metadata") or {})
        if kind.namespaced:
            if metadata.get("namespace", request.namespace) != request.namespace:
                why = "the namespace of the provided object does not match the namespace sent on the request"
                raise bad_request(why)
            metadata["namespace"] = request.namespace
        else:
            metadata.pop("namespace", None)
        if request.method == "POST":
            for key in NOT_GIVEN:
                metadata.pop(key, None)
        else:
            if request.method == "PUT" and not metadata.get("name"):
                based = f"the name of the object ({request.name} based on URL)"
                raise bad_request(f"{based} was undeterminable: name must be provided")
            name = metadata.setdefault("name", request.name)
            if name != request.name:
                why = f"the name of the object ({name}) does not match the name on the URL ({request.name})"
                raise bad_request(why)
        return with_metadata(obj, metadata)

    def _named(self, obj: Object) -> Object:
        metadata = obj["metadata"]
        if metadata.get("name") or not (prefix := metadata.get("generateName")):
            return obj
        random_part = self.storage.name_suffix("generated", f"{metadata.get('namespace', '')}/{prefix}")
        return {**obj, "metadata": {**metadata, "name": f"{prefix[:58]}{random_part}"}}

    def _require_namespace(self, kind: Kind, metadata: Object) -> None:
        namespace = metadata["namespace"]
        stored = self.storage.get(NAMESPACE, "", namespace)
        if "deletionTimestamp" in stored.metadata:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            error = forbidden(kind, metadata.get("name", ""), why)
            cause = {
                "reason": "NamespaceTerminating",
                "message": f"namespace {namespace} is being terminated",
                "field": "metadata.namespace",
            }
            error.details = (error.details or {}) | {"causes": [cause]}
            raise error


def _list_of(kind: Kind, items: Iterable[Stored], metadata: Object) -> KubeResponse:
    head = f'{{"kind":"{kind.kind}List","apiVersion":"{kind.api_version}","metadata":'.encode()
    return respond(head + dump(metadata) + b',"items":[' + b",".join(stored.text for stored in items) + b"]}")


def _size(request: KubeRequest, before: Stored) -> int:
    """Return the number of bytes that a write has to process."""
    return len(request.body) + len(before.text)


def _no_version(text: str) -> ApiError:
    return bad_request(f"invalid resource version: {text}")


def _go_map(value: object) -> str:
    """Return the text that Go's %v prints for a value, except that string values are escaped as in JSON."""
    if isinstance(value, dict):
        inner = " ".join(f"{key}:{_go_map(item)}" for key, item in sorted(value.items()))
        return f"map[{inner}]"
    if isinstance(value, list):
        return "[" + " ".join(_go_map(item) for item in value) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return "<nil>"
    return json.dumps(str(value), ensure_ascii=False)[1:-1]


def _continue_token(last: Stored, version: int) -> str:
    """Return the `continue` token for the page after ``last``."""
    text = dump({"v": "meta.k8s.io/v1", "rv": version, "start": [last.namespace, last.name]})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _start_of_page(given: str, storage: Storage) -> tuple[tuple[str, str] | None, int]:
    """Return a continue token's content: the previous page's last object (namespace, name) and the list's version.

    For the first page, the token ``given`` is empty: return None and 0. Raises BadRequest if ``given`` isn't a token,
    and Expired if the server no longer has, or doesn't yet have, the token's version.
    https://kubernetes.io/docs/reference/using-api/api-concepts/#retrieving-large-results-sets-in-chunks
    """
    if not given:
        return None, 0
    try:
        raw = base64.urlsafe_b64decode(given + "=" * (-len(given) % 4))
    except ValueError as error:
        raise bad_request(f"continue key is not valid: {error}") from error
    try:
        value = json.loads(raw)
        (namespace, name), version = value["start"], int(value["rv"])
    except (ValueError, KeyError, TypeError) as error:
        first = f"\\x{raw[0]:02x}" if raw and raw[0] > 126 else chr(raw[0]) if raw else ""
        raise bad_request(
            "invalid continue token: continue key is not valid:"
            f" invalid character '{first}' looking for beginning of value"
        ) from error
    if version < storage.oldest or version > storage.version:
        raise expired("The provided continue parameter is too old to display a consistent list result.")
    return (namespace, name), version
