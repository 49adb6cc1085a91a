"""Validation of roles, bindings, quantities, ConfigMaps and Secrets."""

import httpx
import pytest

RBAC = "/apis/rbac.authorization.k8s.io/v1"
RULE = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}
REFERENCE = {"kind": "Role", "name": "a"}


@pytest.mark.parametrize(("kind", "body", "message"), [
    ("roles", {"rules": [RULE | {"verbs": []}]}, "rules[0].verbs: Required value: verbs must contain at least one"),
    ("roles", {"rules": [RULE | {"apiGroups": None}]}, "resource rules must supply at least one api group"),
    ("roles", {"rules": [{"verbs": ["get"], "nonResourceURLs": ["/a"]}]}, "namespaced rules cannot apply to non-"),
    ("rolebindings", {}, 'roleRef.kind: Unsupported value: "": supported values: "Role", "ClusterRole"'),
    ("rolebindings", {"roleRef": {"kind": "Role"}}, "roleRef.name: Required value"),
    ("rolebindings", {"roleRef": REFERENCE, "subjects": [{"kind": "Account", "name": "a"}]}, "subjects[0].kind"),
    ("rolebindings", {"roleRef": REFERENCE, "subjects": [{"kind": "User"}]}, "user name cannot be empty"),
])  # fmt: skip
def test_an_invalid_role_or_role_binding_is_refused(admin, namespace, kind: str, body: dict, message: str):
    answer = admin.post(f"{RBAC}/namespaces/{namespace}/{kind}", json={"metadata": {"name": "a"}, **body})
    assert (answer.status_code, answer.json()["reason"]) == (422, "Invalid")
    assert message in answer.json()["message"]


@pytest.mark.parametrize(("kind", "fields", "message"), [
    ("secrets", {"data": {"a": "my-password"}}, "illegal base64 data at input byte 2"),
    ("secrets", {"data": {"a": "hunter2"}}, "illegal base64 data at input byte 4"),
    ("configmaps", {"binaryData": {"a": "!"}}, "illegal base64 data at input byte 0"),
    ("pods", {"spec": {"containers": [{"name": "c", "resources": {"limits": {"memory": "256MB"}}}]}},
     "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"),
    ("pods", {"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "1mi"}}}]}},
     "unable to parse quantity's suffix"),
    ("events", {"lastTimestamp": "yesterday"},
     'parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"'),
])  # fmt: skip
def test_invalid_base64_quantities_and_timestamps_are_refused(admin, namespace, kind, fields, message):
    refused = admin.post(f"/api/v1/namespaces/{namespace}/{kind}", json={"metadata": {"name": "a"}, **fields})
    called = {"secrets": "Secret", "configmaps": "ConfigMap", "pods": "Pod", "events": "Event"}[kind]
    assert refused.status_code == 400
    assert refused.json()["message"] == f'{called} in version "v1" cannot be handled as a {called}: {message}'


@pytest.mark.parametrize("quantity", ["0", "1", 2, 0.5, "1.5", ".5", "100m", "128Mi", "1e3", "1E", "+1", "5n", "2Ki"])
def test_a_valid_quantity_is_accepted(admin: httpx.Client, namespace: str, quantity):
    container = {"name": "c", "image": "python", "resources": {"limits": {"memory": quantity}}}
    made = admin.post(
        f"/api/v1/namespaces/{namespace}/pods?dryRun=All",
        json={"metadata": {"name": "a"}, "spec": {"containers": [container]}},
    )
    assert made.status_code == 201, made.text


KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME', "
    " or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)


@pytest.mark.parametrize(("kind", "fields", "causes"), [
    ("configmaps", {"data": {"a/b": "x"}}, f'data[a/b]: Invalid value: "a/b": {KEY}'),
    ("secrets", {"stringData": {"a b": "x"}}, f'data[a b]: Invalid value: "a b": {KEY}'),
    ("configmaps", {"data": {"..": "x"}}, "data[..]: Invalid value: \"..\": must not be '..'"),
    ("configmaps", {"binaryData": {"..a": ""}}, "binaryData[..a]: Invalid value: \"..a\": must not start with '..'"),
    ("configmaps", {"data": {"a": "x"}, "binaryData": {"a": "eA=="}},
     'data[a]: Invalid value: "a": duplicate of key present in binaryData'),
    ("configmaps", {"data": {"a": "x" * (2**20 + 1)}}, "[]: Too long: may not be more than 1048576 bytes"),
    ("secrets", {"stringData": {"a": "x" * (2**20 + 1)}}, "data: Too long: may not be more than 1048576 bytes"),
])  # fmt: skip
def test_a_config_map_or_secret_with_invalid_keys_or_size_is_refused(admin, namespace, kind, fields, causes):
    refused = admin.post(f"/api/v1/namespaces/{namespace}/{kind}", json={"metadata": {"name": "a"}, **fields})
    called = {"secrets": "Secret", "configmaps": "ConfigMap"}[kind]
    assert (refused.status_code, refused.json()["message"]) == (422, f'{called} "a" is invalid: {causes}')


REDACTED = 'Invalid value: "<secret contents redacted>"'


@pytest.mark.parametrize(("type_", "data", "message"), [
    ("tls", {}, "[data[tls.crt]: Required value, data[tls.key]: Required value]"),
    ("tls", {"tls.crt": ""}, "data[tls.key]: Required value"),
    ("dockerconfigjson", {}, "data[.dockerconfigjson]: Required value"),
    ("dockerconfigjson", {".dockerconfigjson": "{"},
     f"data[.dockerconfigjson]: {REDACTED}: unexpected end of JSON input"),
    ("dockercfg", {".dockercfg": "1"},
     f"data[.dockercfg]: {REDACTED}: json: cannot unmarshal number into Go value of type" " map[string]interface {}"),
    ("basic-auth", {}, "[data[username]: Required value, data[password]: Required value]"),
    ("ssh-auth", {"ssh-privatekey": ""}, "data[ssh-privatekey]: Required value"),
    ("service-account-token", {}, "metadata.annotations[kubernetes.io/service-account.name]: Required value"),
    ("tls", {"tls.crt": "", "tls.key": ""}, ""),
    ("dockerconfigjson", {".dockerconfigjson": "{}"}, ""),
    ("basic-auth", {"password": "a"}, ""),
    ("ssh-auth", {"ssh-privatekey": "a"}, ""),
])  # fmt: skip
def test_a_secret_must_have_the_data_that_its_type_requires(admin, namespace, type_, data, message):
    body = {"metadata": {"name": "a"}, "type": f"kubernetes.io/{type_}", "stringData": data}
    answer = admin.post(f"/api/v1/namespaces/{namespace}/secrets", json=body)
    if message:
        assert (answer.status_code, answer.json()["message"]) == (422, f'Secret "a" is invalid: {message}')
    else:
        assert answer.status_code == 201


@pytest.mark.parametrize(("kind", "field"), [("configmaps", "data"), ("secrets", "stringData")])
def test_one_mebibyte_of_data_is_accepted(admin: httpx.Client, namespace: str, kind: str, field: str):
    made = admin.post(
        f"/api/v1/namespaces/{namespace}/{kind}", json={"metadata": {"name": "a"}, field: {"a": "x" * 2**20}}
    )
    assert made.status_code == 201
