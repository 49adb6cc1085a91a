"""Creating, changing, listing and deleting objects, and how bad requests are refused."""

import httpx
import pytest

CONFIG_MAP = {"kind": "ConfigMap", "apiVersion": "v1"}


def config_map(name: str, **fields: object) -> dict:
    return {**CONFIG_MAP, "metadata": {"name": name}, **fields}


@pytest.fixture
def config_maps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def test_a_new_namespace_has_a_default_service_account_and_the_ca(admin: httpx.Client, namespace: str, cluster):
    path = f"/api/v1/namespaces/{namespace}"
    assert admin.get(f"{path}/serviceaccounts/default").status_code == 200
    root = admin.get(f"{path}/configmaps/kube-root-ca.crt").json()
    assert root["data"]["ca.crt"].encode() == cluster.authority.certificate_pem
    assert admin.get(path).json()["status"] == {"phase": "Active"}


def test_every_cluster_has_the_four_standard_namespaces(admin: httpx.Client):
    names = {item["metadata"]["name"] for item in admin.get("/api/v1/namespaces").json()["items"]}
    assert {"default", "kube-system", "kube-public", "kube-node-lease"} <= names


def test_deleting_a_namespace_deletes_everything_in_it(admin: httpx.Client, namespace: str, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    gone = admin.delete(f"/api/v1/namespaces/{namespace}").json()
    assert gone["status"]["phase"] == "Terminating"
    assert admin.get(f"/api/v1/namespaces/{namespace}").status_code == 404
    assert admin.get(config_maps).json()["items"] == []


def test_a_deleted_namespace_waits_for_finalizers(admin: httpx.Client, namespace: str, config_maps: str):
    held = config_map("held")
    held["metadata"]["finalizers"] = ["lab.example/hold"]
    admin.post(config_maps, json=held)
    admin.delete(f"/api/v1/namespaces/{namespace}")
    late = admin.post(config_maps, json=config_map("late"))
    assert late.status_code == 403
    assert late.json()["message"] == (
        f'configmaps "late" is forbidden: unable to create new content in namespace {namespace}'
        " because it is being terminated"
    )
    conditions = admin.get(f"/api/v1/namespaces/{namespace}").json()["status"]["conditions"]
    told = {each["type"]: (each["status"], each["reason"], each["message"]) for each in conditions}
    assert told == {
        "NamespaceDeletionDiscoveryFailure": ("False", "ResourcesDiscovered", "All resources successfully discovered"),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        "NamespaceContentRemaining": (
            "True",
            "SomeResourcesRemain",
            "Some resources are remaining: configmaps. has 1 resource instances",
        ),
        "NamespaceFinalizersRemaining": (
            "True",
            "SomeFinalizersRemain",
            "Some content in the namespace has finalizers remaining: lab.example/hold in 1 resource instances",
        ),
    }
    merge = {"Content-Type": "application/merge-patch+json"}
    admin.patch(f"{config_maps}/held", json={"metadata": {"finalizers": None}}, headers=merge)
    assert admin.get(f"/api/v1/namespaces/{namespace}").status_code == 404


def test_a_deleted_default_service_account_is_created_again(admin: httpx.Client, namespace: str):
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/default"
    first = admin.get(path).json()["metadata"]["uid"]
    admin.delete(path)
    assert admin.get(path).json()["metadata"]["uid"] != first


@pytest.mark.parametrize(("body", "code", "message"), [
    (b"", 400, "unexpected end of JSON input (<empty>)"),
    (b'{"kind": "ConfigMap",', 400, 'unexpected end of JSON input ({"kind": "ConfigMap",)'),
    (b'{"metadata": {"name": "A_b"}}', 422, 'metadata.name: Invalid value: "A_b": a lowercase RFC 1123 subdomain'),
    (b'{"metadata": {}}', 422, "metadata.name: Required value: name or generateName is required"),
    (b'{"metadata": {"name": "x"}, "data": {"a": 1}}', 400, "cannot unmarshal number into Go struct field"),
    (b'{"kind": "Pod", "metadata": {"name": "x"}}', 400, "cannot be handled as a ConfigMap"),
    (b'{"metadata": {"name": "x", "namespace": "other"}}', 400, "the namespace of the provided object does not"),
    (b"[1]", 400, "cannot unmarshal array into Go value"),
    (b'{"metadata": []}', 400, "cannot unmarshal array into Go struct field ConfigMap.metadata of type v1.Object"),
    (b"[" * 100_000, 400, "exceeded max depth"),
    (b"\xff\xfe", 400, "invalid character"),
    (b"k8s\x00\xff\xff", 400, ""),
])  # fmt: skip
def test_an_invalid_request_body_is_refused(admin, config_maps, body, code, message):
    answer = admin.post(config_maps, content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == code
    assert answer.json()["kind"] == "Status"
    assert message in answer.json()["message"]


def test_a_name_that_is_too_long_is_refused(admin: httpx.Client, config_maps: str):
    answer = admin.post(config_maps, json=config_map("x" * 254))
    assert answer.status_code == 422
    assert "must be no more than 253 bytes" in answer.json()["message"]


def test_a_body_over_three_mebibytes_is_refused(admin: httpx.Client, config_maps: str):
    answer = admin.post(config_maps, json=config_map("big", data={"a": "x" * (3 << 20)}))
    assert answer.status_code == 413
    assert answer.json()["message"] == "Request entity too large: limit is 3145728"


def test_an_unknown_content_type_is_refused(admin: httpx.Client, config_maps: str):
    assert admin.post(config_maps, content=b"a", headers={"Content-Type": "text/csv"}).status_code == 415


def test_yaml_is_accepted_and_returned(admin: httpx.Client, config_maps: str):
    body = b"kind: ConfigMap\nmetadata:\n  name: y\ndata:\n  a: '1'\n"
    answer = admin.post(config_maps, content=body, headers={"Content-Type": "application/yaml"})
    assert answer.json()["data"] == {"a": "1"}
    read = admin.get(f"{config_maps}/y", headers={"Accept": "application/yaml"})
    assert "kind: ConfigMap\n" in read.text
    bad = admin.post(config_maps, content=b"kind: [", headers={"Content-Type": "application/yaml"})
    assert bad.status_code == 400


def test_unknown_fields_give_a_warning_or_are_refused_if_validation_is_strict(admin: httpx.Client, config_maps: str):
    answer = admin.post(config_maps, json=config_map("a", bogus=1))
    assert answer.headers["Warning"] == '299 - "unknown field \\"bogus\\""'
    strict = admin.post(config_maps, json=config_map("b", bogus=1), params={"fieldValidation": "Strict"})
    assert strict.status_code == 400
    assert strict.json()["message"].endswith('strict decoding error: unknown field "bogus"')


def test_warnings_that_do_not_fit_a_header_are_dropped_or_shortened(admin: httpx.Client, namespace: str):
    """A real server drops a warning with a control character. If there are too many, it shortens each."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for name, character in (("line", "\n"), ("delete", "\x7f"), ("next", "\x85")):
        answer = admin.post(path, json={"metadata": {"name": name}, "plain": 1, f"a{character}b: c": 1})
        assert (answer.status_code, answer.headers["Warning"]) == (201, '299 - "unknown field \\"plain\\""')
    many = {f"{number:04}" + "x" * 296: 1 for number in range(2000)}
    answer = admin.post(path, json={"metadata": {"name": "many"}, **many})
    told = answer.headers.get_list("Warning")
    assert (answer.status_code, len(told)) == (201, 4096 // 256)
    assert {len(text) for text in told} == {len('299 - "unknown field \\"') + 256 - len('unknown field "') + 1}


def test_creating_the_same_name_twice_is_a_conflict(admin: httpx.Client, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    again = admin.post(config_maps, json=config_map("a"))
    assert (again.status_code, again.json()["reason"]) == (409, "AlreadyExists")
    assert again.json()["message"] == 'configmaps "a" already exists'


def test_an_update_of_a_stale_version_is_a_conflict(admin: httpx.Client, config_maps: str):
    first = admin.post(config_maps, json=config_map("a")).json()
    assert admin.put(f"{config_maps}/a", json=config_map("a", data={"n": "1"})).status_code == 200
    stale = admin.put(f"{config_maps}/a", json=first)
    assert (stale.status_code, stale.json()["reason"]) == (409, "Conflict")
    assert stale.json()["message"].endswith("please apply your changes to the latest version and try again")


def test_an_update_without_changes_keeps_the_resource_version(admin: httpx.Client, config_maps: str):
    first = admin.post(config_maps, json=config_map("a", data={"n": "1"})).json()
    again = admin.put(f"{config_maps}/a", json=config_map("a", data={"n": "1"})).json()
    assert again["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]


def test_dry_run_stores_nothing(admin: httpx.Client, config_maps: str):
    assert admin.post(config_maps, json=config_map("a"), params={"dryRun": "All"}).status_code == 201
    assert admin.get(f"{config_maps}/a").status_code == 404


def test_generate_name_gives_each_object_a_unique_name(admin: httpx.Client, config_maps: str):
    body = {**CONFIG_MAP, "metadata": {"generateName": "run-"}}
    names = {admin.post(config_maps, json=body).json()["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("run-") and len(name) == 9 for name in names)


def test_lists_come_in_pages(admin: httpx.Client, config_maps: str):
    for n in range(5):
        admin.post(config_maps, json=config_map(f"c{n}"))
    first = admin.get(config_maps, params={"limit": 4}).json()
    assert first["metadata"]["remainingItemCount"] == 2  # kube-root-ca.crt is the sixth
    rest = admin.get(config_maps, params={"limit": 4, "continue": first["metadata"]["continue"]}).json()
    names = [item["metadata"]["name"] for item in first["items"] + rest["items"]]
    assert names == ["c0", "c1", "c2", "c3", "c4", "kube-root-ca.crt"]
    assert admin.get(config_maps, params={"continue": "%%"}).status_code == 400


@pytest.mark.parametrize(("selector", "names"), [
    ("app=a", ["one"]),
    ("app!=a", ["kube-root-ca.crt", "two"]),
    ("app in (a, b)", ["one", "two"]),
    ("app notin (a),app", ["two"]),
    ("!app", ["kube-root-ca.crt"]),
])  # fmt: skip
def test_a_label_selector_filters_a_list(admin: httpx.Client, config_maps: str, selector: str, names: list[str]):
    for name, app in (("one", "a"), ("two", "b")):
        body = config_map(name)
        body["metadata"]["labels"] = {"app": app}
        admin.post(config_maps, json=body)
    found = admin.get(config_maps, params={"labelSelector": selector}).json()["items"]
    assert [item["metadata"]["name"] for item in found] == names


@pytest.mark.parametrize(("query", "message"), [
    ({"labelSelector": "a in b"}, "unable to parse requirement: found 'b' expected: '('"),
    ({"fieldSelector": "spec.x=1"}, "field label not supported: spec.x"),
    ({"limit": "x"}, 'strconv.ParseInt: parsing "x": invalid syntax'),
])  # fmt: skip
def test_a_bad_query_is_refused(admin: httpx.Client, config_maps: str, query: dict, message: str):
    answer = admin.get(config_maps, params=query)
    assert (answer.status_code, answer.json()["message"]) == (400, message)


def test_a_collection_is_deleted_by_selector(admin: httpx.Client, config_maps: str):
    for name in ("one", "two"):
        body = config_map(name)
        body["metadata"]["labels"] = {"name": name}
        admin.post(config_maps, json=body)
    admin.delete(config_maps, params={"labelSelector": "name=one"})
    left = [item["metadata"]["name"] for item in admin.get(config_maps).json()["items"]]
    assert left == ["kube-root-ca.crt", "two"]


def test_deleting_an_owner_deletes_the_objects_it_owns(admin: httpx.Client, config_maps: str):
    owner = admin.post(config_maps, json=config_map("owner")).json()["metadata"]
    owned = config_map("owned")
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    owned["metadata"]["ownerReferences"] = [reference]
    admin.post(config_maps, json=owned)
    admin.delete(f"{config_maps}/owner")
    assert admin.get(f"{config_maps}/owned").status_code == 404


def test_a_precondition_stops_a_delete(admin: httpx.Client, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    answer = admin.request("DELETE", f"{config_maps}/a", json={"preconditions": {"uid": "other"}})
    assert answer.status_code == 409
    assert "does not match the UID in record" in answer.json()["message"]


@pytest.mark.parametrize(
    ("path", "code"), [("/nonsense", 404), ("/api/v1/nonsense", 404), ("/apis/none/v1/x", 404), ("/apis/none", 404)]
)
def test_unknown_paths_are_not_found(admin: httpx.Client, path: str, code: int):
    assert admin.get(path).status_code == code


def test_a_uid_is_derived_from_the_seed_the_name_and_a_serial_number(admin, config_maps, namespace, cluster):
    made = admin.post(config_maps, json=config_map("a")).json()["metadata"]["uid"]
    assert made == cluster.api.storage.identifiers.uuid("uid/configmaps", f"{namespace}/a/0")
    admin.delete(f"{config_maps}/a")
    again = admin.post(config_maps, json=config_map("a")).json()["metadata"]["uid"]
    assert again == cluster.api.storage.identifiers.uuid("uid/configmaps", f"{namespace}/a/1")


def test_a_lone_surrogate_is_stored_as_the_replacement_character(admin: httpx.Client, config_maps: str):
    body = rb'{"metadata": {"name": "half"}, "data": {"a": "x\ud800y", "b": "\ud83d\ude00"}}'
    made = admin.post(config_maps, content=body, headers={"Content-Type": "application/json"})
    assert made.status_code == 201, made.text
    assert admin.get(f"{config_maps}/half").json()["data"] == {"a": "x\ufffdy", "b": "\U0001f600"}


@pytest.mark.parametrize(("patch", "message"), [
    ({"$retainKeys": 5}, "invalid patch format of retainKeys"),
    ({"metadata": {"$setElementOrder/finalizers": 5, "finalizers": ["a/b"]}},
     "invalid patch format of setElementOrder list"),
    ({"metadata": {"$deleteFromPrimitiveList/finalizers": "a"}}, "invalid patch format of primitive list"),
])  # fmt: skip
def test_a_strategic_merge_patch_with_a_bad_directive_is_refused(admin, config_maps, patch, message):
    admin.post(config_maps, json=config_map("a"))
    headers = {"Content-Type": "application/strategic-merge-patch+json"}
    refused = admin.patch(f"{config_maps}/a", json=patch, headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (400, message)


FIELDS = {"f:data": {"f:a": {}}}
ENTRY = {"manager": "m", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": FIELDS}
ENTRY |= {"time": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(("entries", "managers"), [
    ([ENTRY], ["m"]),
    ([{}], None),
    ([{**ENTRY, "operation": "Guess"}], ["first"]),
    ([{**ENTRY, "fieldsV1": {"x:data": {}}}], ["first"]),
    ([{**ENTRY, "fieldsV1": {"k:data": {}}}], ["first"]),
    ([{**ENTRY, "fieldsV1": {"f:data": {".": {"f:a": {}}}}}], ["first"]),
    ([{**ENTRY, "fieldsV1": {"f:data": 5}}], ["first"]),
])  # fmt: skip
def test_a_patch_can_set_managed_fields_and_invalid_entries_are_ignored(admin, config_maps, entries, managers):
    admin.post(f"{config_maps}?fieldManager=first", json=config_map("a", data={"a": "1"}))
    patch = [{"op": "replace", "path": "/metadata/managedFields", "value": entries}]
    done = admin.patch(f"{config_maps}/a", json=patch, headers={"Content-Type": "application/json-patch+json"})
    assert done.status_code == 200, done.text
    there = done.json()["metadata"].get("managedFields")
    assert (there and [entry["manager"] for entry in there]) == managers
    apply = {"Content-Type": "application/apply-patch+yaml"}
    again = admin.patch(
        f"{config_maps}/a?fieldManager=m&force=true", json=config_map("a", data={"b": "2"}), headers=apply
    )
    assert again.status_code == 200, again.text


def test_server_side_apply_refuses_managed_fields_in_the_body(admin: httpx.Client, config_maps: str):
    body = config_map("a")
    body["metadata"]["managedFields"] = [ENTRY]
    headers = {"Content-Type": "application/apply-patch+yaml"}
    refused = admin.patch(f"{config_maps}/a?fieldManager=m", json=body, headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (400, "metadata.managedFields must be nil")


@pytest.mark.parametrize(("media_type", "patch", "message"), [
    ("strategic-merge-patch", 5, "json: cannot unmarshal number into Go value of type map[string]interface {}"),
    ("merge-patch", "a",
     "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}"),
    ("json-patch", "a",
     "error decoding patch: json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"),
])  # fmt: skip
def test_a_number_or_a_string_as_a_patch_is_refused(admin, config_maps, media_type, patch, message):
    admin.post(config_maps, json=config_map("a"))
    headers = {"Content-Type": f"application/{media_type}+json"}
    refused = admin.patch(f"{config_maps}/a", json=patch, headers=headers)
    assert (refused.status_code, refused.json()["message"]) == (400, message)


def test_a_negative_limit_is_ignored(admin: httpx.Client, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    listed = admin.get(config_maps, params={"limit": -1}).json()
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a", "kube-root-ca.crt"]
    assert "continue" not in listed["metadata"]


SCHEME = 'in scheme "pkg/api/legacyscheme/scheme.go:30"'


@pytest.mark.parametrize("media_type", ["merge-patch", "json-patch"])
@pytest.mark.parametrize(("field", "value", "message"), [
    ("kind", "Secret", "converting (v1.Secret) to (core.ConfigMap): unknown conversion"),
    ("kind", "Thing", f'no kind "Thing" is registered for version "v1" {SCHEME}'),
    ("apiVersion", "v2", f'no kind "ConfigMap" is registered for version "v2" {SCHEME}'),
])  # fmt: skip
def test_a_patch_cannot_change_an_objects_kind_or_api_version(admin, config_maps, media_type, field, value, message):
    admin.post(config_maps, json=config_map("a"))
    patch = {field: value} if media_type == "merge-patch" else [{"op": "replace", "path": f"/{field}", "value": value}]
    headers = {"Content-Type": f"application/{media_type}+json"}
    refused = admin.patch(f"{config_maps}/a", json=patch, headers=headers)
    assert refused.status_code == 422
    assert refused.json()["message"].startswith(' "" is invalid: patch: Invalid value: "{')
    assert refused.json()["message"].endswith(f": {message}")


def test_a_replacement_without_a_name_is_refused(admin: httpx.Client, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    refused = admin.put(f"{config_maps}/a", json={"data": {"a": "1"}})
    message = "the name of the object (a based on URL) was undeterminable: name must be provided"
    assert (refused.status_code, refused.json()["message"]) == (400, message)


def test_a_delete_with_an_invalid_dry_run_value_is_refused_and_deletes_nothing(admin: httpx.Client, config_maps: str):
    admin.post(config_maps, json=config_map("a"))
    refused = admin.request("DELETE", f"{config_maps}/a", json={"kind": "DeleteOptions", "dryRun": ["x"]})
    assert refused.status_code == 422
    assert 'dryRun: Unsupported value: ["x"]: supported values: "All"' in refused.json()["message"]
    assert admin.get(f"{config_maps}/a").status_code == 200


@pytest.mark.parametrize("name", ["", "/a"])
def test_reading_at_a_future_resource_version_times_out(admin: httpx.Client, config_maps: str, name: str):
    admin.post(config_maps, json=config_map("a"))
    refused = admin.get(f"{config_maps}{name}", params={"resourceVersion": "1000000000"})
    assert (refused.status_code, refused.json()["reason"]) == (504, "Timeout")
    assert refused.json()["message"].startswith("Timeout: Too large resource version: 1000000000, current: ")
    cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
    assert refused.json()["details"] == {"causes": [cause], "retryAfterSeconds": 1}


def test_a_resource_version_that_is_not_a_64_bit_number_is_refused(admin: httpx.Client, config_maps: str):
    for text, why in (("²", "invalid syntax"), (str(2**64), "value out of range")):
        refused = admin.get(config_maps, params={"resourceVersion": text})
        assert refused.status_code == 400
        assert refused.json()["message"].endswith(f'strconv.ParseUint: parsing "{text}": {why}')


@pytest.mark.parametrize(("parameter", "value", "message"), [
    ("fieldManager", "m" * 129, "fieldManager: Too long: may not be more than 128 bytes"),
    ("fieldManager", "ä\n", 'fieldManager: Invalid value: "ä\\n": invalid character U+000A (at position 2)'),
    ("fieldValidation", "Maybe",
     'fieldValidation: Unsupported value: "Maybe": supported values: "", "Ignore", "Strict", "Warn"'),
])  # fmt: skip
def test_a_create_with_an_invalid_parameter_is_refused(admin, config_maps, parameter, value, message):
    refused = admin.post(config_maps, json=config_map("a"), params={parameter: value})
    expected = f'CreateOptions.meta.k8s.io "" is invalid: {message}'
    assert (refused.status_code, refused.json()["message"]) == (422, expected)


@pytest.mark.parametrize("body", [b"\x0a\x01", b"\x08\x01", b"\x12\x02\x08\x01", b"\x12\x04\x0a\x02\x08\x01"])
def test_broken_protobuf_is_refused(admin: httpx.Client, config_maps: str, body: bytes):
    envelope = b"\x0a\x0f\x0a\x02v1\x12\x09ConfigMap"
    headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    refused = admin.post(config_maps, content=b"k8s\x00" + envelope + body, headers=headers)
    messages = ("proto: cannot parse invalid wire-format data", "unexpected EOF")
    assert refused.status_code == 400
    assert refused.json()["message"] in messages


def test_a_client_can_create_find_update_and_delete_an_event(admin: httpx.Client, namespace: str):
    path = f"/api/v1/namespaces/{namespace}/events"
    at = "2026-01-02T03:04:05Z"
    written = {
        "kind": "Event",
        "apiVersion": "v1",
        "metadata": {"name": "my-app.17f1c0ffee"},
        "involvedObject": {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "my-app", "namespace": namespace},
        "reason": "SuccessfulDelete",
        "message": "Deleted pod: my-app-x7k2p",
        "type": "Normal",
        "count": 57,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "source": {"component": "replicaset-controller"},
    }
    assert admin.post(path, json=written).status_code == 201
    about = "involvedObject.kind=ReplicaSet,involvedObject.name=my-app,reason=SuccessfulDelete"
    (kept,) = admin.get(path, params={"fieldSelector": about}).json()["items"]
    assert {name: kept[name] for name in written if name not in ("metadata", "kind", "apiVersion")} == {
        name: written[name] for name in written if name not in ("metadata", "kind", "apiVersion")
    }
    raised = {"count": 58, "lastTimestamp": "2026-01-02T03:05:05Z"}
    merge = {"Content-Type": "application/merge-patch+json"}
    assert admin.patch(f"{path}/my-app.17f1c0ffee", json=raised, headers=merge).json()["count"] == 58
    assert admin.delete(f"{path}/my-app.17f1c0ffee").status_code == 200
    assert admin.get(path, params={"fieldSelector": about}).json()["items"] == []


def test_a_request_for_an_unknown_format_of_the_answer_changes_nothing(admin: httpx.Client, config_maps: str):
    kept = f"{config_maps}/kept"
    assert admin.post(config_maps, json=config_map("kept", data={"a": "1"})).status_code == 201
    deployments = config_maps.replace("/api/v1/", "/apis/apps/v1/").replace("configmaps", "deployments")
    labels = {"app": "web"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "web", "image": "busybox"}]}}
    spec = {"replicas": 0, "selector": {"matchLabels": labels}, "template": template}
    assert admin.post(deployments, json={"metadata": {"name": "web"}, "spec": spec}).status_code == 201
    for method, path, document in (
        ("POST", config_maps, config_map("new")),
        ("PUT", kept, config_map("kept", data={"a": "2"})),
        ("DELETE", kept, {}),
        ("DELETE", config_maps, {}),
        ("PUT", f"{deployments}/web/scale", {"metadata": {"name": "web"}, "spec": {"replicas": 1}}),
    ):
        refused = admin.request(method, path, json=document, headers={"Accept": "text/html"})
        assert (refused.status_code, refused.json()["reason"]) == (406, "NotAcceptable")
    assert admin.get(f"{config_maps}/new").status_code == 404
    assert admin.get(kept).json()["data"] == {"a": "1"}
    assert admin.get(f"{deployments}/web").json()["spec"]["replicas"] == 0
