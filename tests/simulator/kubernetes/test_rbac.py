"""RBAC: permissions, impersonation, access reviews, and that nobody grants more than they have."""

import json
from collections.abc import Callable, Iterator

import httpx
import pytest
from tenacity import Retrying, stop_after_delay, wait_fixed

from tests.simulator.kubernetes.conftest import Cluster, pod

RBAC = "/apis/rbac.authorization.k8s.io/v1"
REVIEWS = "/apis/authorization.k8s.io/v1"
READ = ["get", "list", "watch"]


def rule(verbs: list[str], *resources: str, group: str = "", **more: list[str]) -> dict:
    return {"verbs": verbs, "apiGroups": [group], "resources": list(resources), **more}


@pytest.fixture
def give(admin: httpx.Client, namespace: str) -> Iterator[Callable[..., None]]:
    """Give rules to the service account `app`, in its namespace or in the whole cluster."""
    admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json={"metadata": {"name": "app"}})
    subjects = [{"kind": "ServiceAccount", "name": "app", "namespace": namespace}]
    made = []

    def give(*rules: dict, everywhere: bool = False) -> None:
        kind, path = ("ClusterRole", RBAC) if everywhere else ("Role", f"{RBAC}/namespaces/{namespace}")
        name = f"{namespace}-{len(made)}"
        role = {"metadata": {"name": name}, "rules": list(rules)}
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
        binding = {"metadata": {"name": name}, "subjects": subjects, "roleRef": reference}
        for resource, document in ((f"{kind.lower()}s", role), (f"{kind.lower()}bindings", binding)):
            answer = admin.post(f"{path}/{resource}", json=document)
            assert answer.status_code == 201, answer.text
            made.append(f"{path}/{resource}/{name}")

    yield give
    for path in made:
        admin.delete(path)


@pytest.fixture
def app(cluster: Cluster, admin: httpx.Client, namespace: str, give: Callable) -> Iterator[httpx.Client]:
    """The service account's own client."""
    made = admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/app/token", json={})
    with cluster.http(token=made.json()["status"]["token"]) as client:
        yield client


PODS, MAPS = "/api/v1/namespaces/{}/pods", "/api/v1/namespaces/{}/configmaps"


@pytest.mark.parametrize(("rules", "method", "path", "code"), [
    ([rule(READ, "pods")], "GET", PODS, 200),
    ([rule(READ, "pods")], "GET", PODS + "/none", 404),
    ([rule(READ, "pods")], "DELETE", PODS + "/none", 403),
    ([rule(READ, "pods")], "GET", PODS + "/none/log", 403),
    ([rule(["get"], "pods/log")], "GET", PODS + "/none/log", 404),
    ([rule(["get"], "*/log")], "GET", PODS + "/none/log", 404),
    ([rule(["get"], "*")], "GET", PODS + "/none/log", 404),
    ([rule(["*"], "*")], "DELETE", MAPS + "/none", 404),
    ([rule(READ, "pods", group="apps")], "GET", PODS, 403),
    ([rule(READ, "pods", group="*")], "GET", PODS, 200),
    ([rule(["get"], "configmaps", resourceNames=["a"])], "GET", MAPS + "/a", 404),
    ([rule(["get"], "configmaps", resourceNames=["a"])], "GET", MAPS + "/b", 403),
    ([rule(["list"], "configmaps", resourceNames=["a"])], "GET", MAPS, 403),
    ([rule(["list"], "configmaps", resourceNames=["a"])], "GET", MAPS + "?fieldSelector=metadata.name%3Da", 200),
    ([rule(["list"], "configmaps", resourceNames=["a"])], "GET", MAPS + "?fieldSelector=metadata.name!%3Da", 403),
    ([rule(["watch"], "configmaps")], "GET", MAPS + "?watch=1&timeoutSeconds=1", 200),
    ([rule(["list"], "configmaps")], "GET", MAPS + "?watch=1&timeoutSeconds=1", 403),
    ([rule(["create"], "serviceaccounts/token")], "POST", "/api/v1/namespaces/{}/serviceaccounts/app/token", 201),
    ([rule(["create"], "serviceaccounts")], "POST", "/api/v1/namespaces/{}/serviceaccounts/app/token", 403),
    ([rule(["deletecollection"], "configmaps")], "DELETE", MAPS, 200),
    ([rule(["delete"], "configmaps")], "DELETE", MAPS, 403),
    ([rule(READ, "pods")], "GET", PODS.format("default"), 403),
    ([rule(READ, "pods")], "GET", "/api/v1/pods", 403),
    ([], "GET", "/version", 200),
])  # fmt: skip
def test_a_role_allows_exactly_its_verbs_and_resources(app, namespace, give, rules, method, path, code):
    give(*rules)
    answer = app.request(method, path.format(namespace), json={} if method == "POST" else None)
    assert answer.status_code == code, answer.text


@pytest.mark.parametrize(("rules", "path", "code"), [
    ([rule(READ, "pods")], "/api/v1/pods", 200),
    ([rule(READ, "nodes")], "/api/v1/nodes", 200),
    ([{"verbs": ["get"], "nonResourceURLs": ["/metrics"]}], "/metrics", 200),
    ([{"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}], "/metrics/cadvisor", 404),
    ([{"verbs": ["get"], "nonResourceURLs": ["/metrics/*"]}], "/metrics", 403),
    ([{"verbs": ["post"], "nonResourceURLs": ["*"]}], "/metrics", 403),
])  # fmt: skip
def test_a_cluster_role_allows_its_resources_and_urls_cluster_wide(app: httpx.Client, give, rules, path, code):
    give(*rules, everywhere=True)
    assert app.get(path).status_code == code


def test_a_refusal_names_the_missing_roles_of_role_bindings(app: httpx.Client, admin: httpx.Client, namespace: str):
    subject = {"kind": "ServiceAccount", "name": "app", "namespace": namespace}
    for name in ("one", "two"):
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        binding = {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}
        assert admin.post(f"{RBAC}/namespaces/{namespace}/rolebindings", json=binding).status_code == 201
    assert app.get(PODS.format(namespace)).json()["message"] == (
        f'pods is forbidden: User "system:serviceaccount:{namespace}:app" cannot list resource "pods" in API group ""'
        f' in the namespace "{namespace}": RBAC: [role.rbac.authorization.k8s.io "one" not found,'
        ' role.rbac.authorization.k8s.io "two" not found]'
    )


# Nobody grants more than they have.

WRITE_ROLES = rule(["create", "update"], "roles", "rolebindings", group="rbac.authorization.k8s.io")
OFFERED = [rule(["get", "list"], "pods", "secrets"), rule(["get"], "configmaps", resourceNames=["a", "b"])]


def role(name: str, rules: list[dict], **more: object) -> dict:
    return {"metadata": {"name": name}, "rules": rules, **more}


def binding(name: str, kind: str = "Role") -> dict:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}
    subject = {"kind": "User", "apiGroup": "rbac.authorization.k8s.io", "name": "alice"}
    return {"metadata": {"name": name}, "subjects": [subject], "roleRef": reference}


@pytest.mark.parametrize(("more", "lacking"), [
    ([], ['{APIGroups:[""], Resources:["configmaps"], ResourceNames:["a"], Verbs:["get"]}',
          '{APIGroups:[""], Resources:["configmaps"], ResourceNames:["b"], Verbs:["get"]}',
          '{APIGroups:[""], Resources:["pods"], Verbs:["get" "list"]}',
          '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}']),
    ([rule(["*"], "configmaps", "pods")], ['{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}']),
    ([rule(["get"], "*")], ['{APIGroups:[""], Resources:["pods"], Verbs:["list"]}',
                            '{APIGroups:[""], Resources:["secrets"], Verbs:["list"]}']),
    ([rule(["get"], "configmaps", resourceNames=["a"]), rule(READ, "pods", "secrets")],
     ['{APIGroups:[""], Resources:["configmaps"], ResourceNames:["b"], Verbs:["get"]}']),
    (OFFERED, None),
    ([rule(["*"], "*", group="*")], None),
    ([rule(["escalate"], "roles", group="rbac.authorization.k8s.io")], None),
    ([rule(["escalate"], "roles", group="rbac.authorization.k8s.io", resourceNames=["offered"])], None),
])  # fmt: skip
def test_nobody_creates_a_role_with_more_than_their_own_permissions(app, namespace, give, more, lacking):
    give(WRITE_ROLES, *more)
    answer = app.post(f"{RBAC}/namespaces/{namespace}/roles", json=role("offered", OFFERED))
    if lacking is None:
        assert answer.status_code == 201, answer.text
        return
    groups = f'"system:serviceaccounts" "system:serviceaccounts:{namespace}" "system:authenticated"'
    assert (answer.status_code, answer.json()["message"]) == (
        403,
        'roles.rbac.authorization.k8s.io "offered" is forbidden: '
        f'user "system:serviceaccount:{namespace}:app" (groups=[{groups}]) is attempting to grant RBAC permissions'
        " not currently held:\n" + "\n".join(lacking),
    )


def test_nobody_adds_a_permission_to_a_role_that_they_do_not_have(app, admin, namespace, give):
    give(WRITE_ROLES)
    path = f"{RBAC}/namespaces/{namespace}/roles"
    admin.post(path, json=role("grown", OFFERED))
    labelled = role("grown", OFFERED)
    labelled["metadata"]["labels"] = {"a": "b"}
    assert app.put(f"{path}/grown", json=labelled).status_code == 200
    assert app.put(f"{path}/grown", json=role("grown", [*OFFERED, rule(["get"], "nodes")])).status_code == 403


@pytest.mark.parametrize(("more", "code", "message"), [
    ([], 403, "is attempting to grant RBAC permissions not currently held"),
    (OFFERED, 201, ""),
    ([rule(["bind"], "roles", group="rbac.authorization.k8s.io", resourceNames=["offered"])], 201, ""),
    ([rule(["bind"], "roles", group="rbac.authorization.k8s.io", resourceNames=["other"])], 403, "is attempting"),
    ([rule(["escalate"], "roles", group="rbac.authorization.k8s.io")], 403, "is attempting"),
])  # fmt: skip
def test_nobody_can_bind_more_than_their_own_permissions(app, admin, namespace, give, more, code, message):
    give(WRITE_ROLES, *more)
    admin.post(f"{RBAC}/namespaces/{namespace}/roles", json=role("offered", OFFERED))
    answer = app.post(f"{RBAC}/namespaces/{namespace}/rolebindings", json=binding("offered"))
    assert answer.status_code == code
    assert message in answer.json().get("message", "")


def test_only_the_administrator_can_bind_a_missing_role(app, admin, namespace, give):
    give(WRITE_ROLES)
    path = f"{RBAC}/namespaces/{namespace}/rolebindings"
    answer = app.post(path, json=binding("none"))
    assert answer.status_code == 404
    assert answer.json()["message"] == 'roles.rbac.authorization.k8s.io "none" not found'
    assert admin.post(path, json=binding("none")).status_code == 201


def test_an_aggregated_cluster_role_gets_the_rules_of_labelled_roles(app, admin, namespace):
    subject = {"kind": "ServiceAccount", "name": "app", "namespace": namespace}
    view = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"}
    metadata = {"name": f"{namespace}-viewer"}
    admin.post(f"{RBAC}/clusterrolebindings", json={"metadata": metadata, "subjects": [subject], "roleRef": view})
    before = admin.get(f"{RBAC}/clusterroles/view").json()["rules"]
    assert app.get("/api/v1/nodes").status_code == 403
    metadata = {"name": f"{namespace}-nodes", "labels": {"rbac.authorization.k8s.io/aggregate-to-view": "true"}}
    added = rule(READ, "nodes")
    admin.post(f"{RBAC}/clusterroles", json={"metadata": metadata, "rules": [added]})
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.02), reraise=True):
        with attempt:
            # edit includes the rules of view, and admin includes those of edit.
            for gathering in ("view", "edit", "admin"):
                assert added in admin.get(f"{RBAC}/clusterroles/{gathering}").json()["rules"]
    assert app.get("/api/v1/nodes").status_code == 200
    admin.delete(f"{RBAC}/clusterroles/{namespace}-nodes")
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.02), reraise=True):
        with attempt:
            assert admin.get(f"{RBAC}/clusterroles/view").json()["rules"] == before
    admin.delete(f"{RBAC}/clusterrolebindings/{namespace}-viewer")


def test_creating_an_aggregated_cluster_role_needs_cluster_admin(app: httpx.Client, namespace: str, give):
    give(rule(["create"], "clusterroles", group="rbac.authorization.k8s.io"), everywhere=True)
    gathers = {"clusterRoleSelectors": [{"matchLabels": {"a": "b"}}]}
    answer = app.post(f"{RBAC}/clusterroles", json=role(f"{namespace}-g", [], aggregationRule=gathers))
    assert answer.status_code == 403
    assert "must have cluster-admin privileges to use an aggregationRule" in answer.json()["message"]


# Impersonation.


@pytest.mark.parametrize(("rules", "headers", "refused"), [
    ([], {"User": "alice"},
     'users "alice" is forbidden: User "{me}" cannot impersonate resource "users" in API group "" at the cluster'
     " scope"),
    ([rule(["impersonate"], "users")], {"User": "alice"}, ""),
    ([rule(["impersonate"], "users", resourceNames=["bob"])], {"User": "alice"}, 'users "alice" is forbidden'),
    ([rule(["impersonate"], "users")], {"User": "alice", "Group": "system:masters"},
     'groups "system:masters" is forbidden: User "{me}" cannot impersonate resource "groups"'),
    ([rule(["impersonate"], "users", "groups")], {"User": "alice", "Group": "system:masters"}, ""),
    ([rule(["impersonate"], "serviceaccounts")], {"User": "system:serviceaccount:{ns}:app"}, ""),
    ([rule(["impersonate"], "serviceaccounts")],
     {"User": "system:serviceaccount:{ns}:app", "Group": "system:masters"}, 'groups "system:masters" is forbidden'),
    ([rule(["impersonate"], "users")], {"User": "system:serviceaccount:{ns}:app"},
     'serviceaccounts "app" is forbidden: User "{me}" cannot impersonate resource "serviceaccounts" in API group ""'
     ' in the namespace "{ns}"'),
    ([rule(["impersonate"], "users")], {"User": "system:serviceaccount:half"}, ""),
    ([rule(["impersonate"], "users")], {"User": "alice", "Uid": "7"},
     'uids.authentication.k8s.io "7" is forbidden: User "{me}" cannot impersonate resource "uids" in API group'
     ' "authentication.k8s.io" at the cluster scope'),
    ([rule(["impersonate"], "users"), rule(["impersonate"], "uids", group="authentication.k8s.io")],
     {"User": "alice", "Uid": "7"}, ""),
    ([rule(["impersonate"], "users")], {"User": "alice", "Extra-scopes": "view"},
     'userextras.authentication.k8s.io "view" is forbidden: User "{me}" cannot impersonate resource'
     ' "userextras/scopes" in API group "authentication.k8s.io" at the cluster scope'),
    ([], {"Group": "system:masters"}, "without impersonating a user"),
])  # fmt: skip
def test_impersonation_needs_permission_for_each_user_group_uid_and_extra(
    app, namespace, give, rules, headers, refused
):
    give(*rules, everywhere=True)
    given = {f"Impersonate-{name}": value.format(ns=namespace) for name, value in headers.items()}
    answer = app.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}, headers=given)
    if refused:
        assert answer.status_code == (403 if "forbidden" in refused else 400)
        assert refused.format(ns=namespace, me=f"system:serviceaccount:{namespace}:app") in answer.json()["message"]
    else:
        assert answer.status_code == 201, answer.text
        assert answer.json()["status"]["userInfo"]["username"] == given["Impersonate-User"]


@pytest.mark.kubectl
def test_kubectl_can_impersonate_users_and_groups(cluster: Cluster, namespace: str):
    as_alice = ("--as", "alice", "--as-group", "devs", "--as-uid", "7", "--as-group", "ops")
    user = json.loads(cluster.kubectl("auth", "whoami", "-o", "json", *as_alice).stdout)["status"]["userInfo"]
    assert user == {"username": "alice", "uid": "7", "groups": ["devs", "ops", "system:authenticated"]}
    account = f"system:serviceaccount:{namespace}:default"
    user = json.loads(cluster.kubectl("auth", "whoami", "-o", "json", "--as", account).stdout)["status"]["userInfo"]
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    assert user == {"username": account, "groups": groups}
    anonymous = cluster.kubectl("get", "pods", "--as", "system:anonymous", code=1)
    assert "Error from server (Forbidden)" in anonymous.stderr


# Access reviews.


@pytest.mark.kubectl
def test_kubectl_auth_can_i_answers_for_a_service_account(cluster: Cluster, namespace: str, give):
    give(rule(READ, "pods"), rule(["get"], "configmaps", resourceNames=["a"]), rule(["create"], "pods/exec"))
    account = ("-n", namespace, "--as", f"system:serviceaccount:{namespace}:app")
    table = {
        ("list", "pods"): "yes",
        ("delete", "pods"): "no",
        ("get", "configmaps/a"): "yes",
        ("get", "configmaps/b"): "no",
        ("create", "pods", "--subresource=exec"): "yes",
        ("create", "pods", "--subresource=portforward"): "no",
        ("list", "pods", "-A"): "no",
        ("get", "/version"): "yes",
        ("get", "/metrics"): "no",
        ("create", "selfsubjectreviews.authentication.k8s.io"): "yes",
    }
    for question, answer in table.items():
        done = cluster.kubectl("auth", "can-i", *question, *account, code=0 if answer == "yes" else 1)
        assert done.stdout.strip() == answer, question
    listed = cluster.kubectl("auth", "can-i", "--list", *account).stdout
    assert "configmaps" in listed
    assert "[a]" in listed
    assert "secrets" not in listed


@pytest.mark.kubectl
def test_kubectl_reconciles_roles(cluster: Cluster, namespace: str):
    document = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", **role("r", OFFERED)}
    document["metadata"]["namespace"] = namespace
    assert "reconciled" in cluster.kubectl("auth", "reconcile", "-f", "-", given=document).stdout
    document["rules"] = [rule(["get"], "nodes")]
    cluster.kubectl("auth", "reconcile", "-f", "-", given=document)
    found = json.loads(cluster.kubectl("get", "role", "r", "-n", namespace, "-o", "json").stdout)["rules"]
    assert found == [*OFFERED, rule(["get"], "nodes")]


@pytest.mark.parametrize(("review", "spec", "code", "message"), [
    ("subjectaccessreviews", {"user": "a"}, 422, "exactly one of nonResourceAttributes or resourceAttributes must"),
    ("subjectaccessreviews", {"resourceAttributes": {"verb": "get", "resource": "pods"}}, 422,
     "spec.user: Invalid value: \"\": at least one of user or group must be specified"),
    ("subjectaccessreviews", {"user": "a", "resourceAttributes": {"verb": "get"},
                              "nonResourceAttributes": {"path": "/", "verb": "get"}}, 422,
     "cannot be specified in combination with resourceAttributes"),
    ("selfsubjectrulesreviews", {}, 400, "no namespace on request"),
    ("namespaces/default/localsubjectaccessreviews",
     {"user": "a", "resourceAttributes": {"verb": "get", "resource": "pods", "namespace": "other"}}, 400,
     "spec.resourceAttributes.namespace must match namespace: default"),
])  # fmt: skip
def test_an_invalid_access_review_is_refused(admin: httpx.Client, review, spec, code, message):
    answer = admin.post(f"{REVIEWS}/{review}", json={"spec": spec})
    assert answer.status_code == code
    assert message in answer.json()["message"]


def test_an_access_review_names_the_role_binding_that_allows(admin: httpx.Client, namespace: str, give):
    give(rule(READ, "pods"))
    attributes = {"verb": "get", "resource": "pods", "namespace": namespace}
    spec = {"user": f"system:serviceaccount:{namespace}:app", "resourceAttributes": attributes}
    status = admin.post(f"{REVIEWS}/subjectaccessreviews", json={"spec": spec}).json()["status"]
    assert status == {
        "allowed": True,
        "reason": f'RBAC: allowed by RoleBinding "{namespace}-0/{namespace}" of Role "{namespace}-0"'
        f' to ServiceAccount "app/{namespace}"',
    }
    assert admin.post(PODS.format(namespace), json=pod("p")).status_code == 201


def test_a_client_certificates_hash_is_its_credential_id(admin: httpx.Client):
    user = admin.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={}).json()["status"]["userInfo"]
    (credential,) = user["extra"]["authentication.kubernetes.io/credential-id"]
    assert credential.startswith("X509SHA256=")
    assert len(credential) == len("X509SHA256=") + 64
