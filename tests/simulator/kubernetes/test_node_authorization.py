"""A node's certificate gives access to the node's objects, its pods and the objects these refer to."""

from collections.abc import Iterator

import httpx
import pytest

from tests.simulator.kubernetes.conftest import NODE, Cluster, pod

OTHER = "ip-10-0-0-2.ec2.internal"
UNRELATED = "no relationship found between node '{node}' and this object"
V1 = "/api/v1/namespaces/{ns}"


@pytest.fixture
def kubelet(cluster: Cluster, node: str) -> Iterator[httpx.Client]:
    with cluster.http(f"system:node:{node}", "system:nodes") as client:
        yield client


@pytest.fixture
def pods(admin: httpx.Client, namespace: str, node: str) -> dict[str, dict]:
    """`here` is on the node and refers to many objects. `there` is on another node and refers to others."""
    made = {}
    for name, where in (("here", node), ("there", OTHER)):
        account = {"metadata": {"name": name}}
        admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json=account)
        sources = [
            {"serviceAccountToken": {"audience": "sts.amazonaws.com", "path": "token", "expirationSeconds": 86400}},
            {"configMap": {"name": f"{name}-projected"}},
            {"secret": {"name": f"{name}-projected"}},
        ]
        env = [
            {"name": "A", "valueFrom": {"secretKeyRef": {"name": f"{name}-env", "key": "a"}}},
            {"name": "B", "valueFrom": {"configMapKeyRef": {"name": f"{name}-env", "key": "a"}}},
        ]
        document = pod(
            name,
            nodeName=where,
            serviceAccountName=name,
            imagePullSecrets=[{"name": f"{name}-pull"}],
            volumes=[
                {"name": "irsa", "projected": {"sources": sources}},
                {"name": "secret", "secret": {"secretName": f"{name}-volume"}},
            ],
        )
        document["spec"]["containers"][0] |= {"env": env, "envFrom": [{"configMapRef": {"name": f"{name}-all"}}]}
        answer = admin.post(f"/api/v1/namespaces/{namespace}/pods", json=document)
        assert answer.status_code == 201, answer.text
        made[name] = answer.json()
    return made


NOT_FOUND, FORBIDDEN = 404, 403


@pytest.mark.parametrize(("method", "path", "code", "reason"), [
    ("GET", V1 + "/secrets/here-volume", NOT_FOUND, ""),
    ("GET", V1 + "/secrets/here-projected", NOT_FOUND, ""),
    ("GET", V1 + "/secrets/here-env", NOT_FOUND, ""),
    ("GET", V1 + "/secrets/here-pull", NOT_FOUND, ""),
    ("GET", V1 + "/configmaps/here-projected", NOT_FOUND, ""),
    ("GET", V1 + "/configmaps/here-env", NOT_FOUND, ""),
    ("GET", V1 + "/configmaps/here-all", NOT_FOUND, ""),
    ("GET", V1 + "/configmaps/kube-root-ca.crt", 200, ""),
    ("GET", V1 + "/configmaps?fieldSelector=metadata.name%3Dhere-env", 200, ""),
    ("GET", V1 + "/secrets/there-volume", FORBIDDEN, UNRELATED),
    ("GET", V1 + "/secrets/here-all", FORBIDDEN, UNRELATED),
    ("GET", V1 + "/configmaps/there-all", FORBIDDEN, UNRELATED),
    ("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt", FORBIDDEN, UNRELATED),
    ("GET", V1 + "/secrets", FORBIDDEN, "No Object name found"),
    ("GET", "/api/v1/secrets", FORBIDDEN, "can only read namespaced object of this type"),
    ("DELETE", V1 + "/secrets/here-volume", FORBIDDEN, "can only read resources of this type"),
    ("GET", V1 + "/serviceaccounts/here", FORBIDDEN, "can only create tokens for individual service accounts"),
    ("GET", V1 + "/pods/here", 200, ""),
    ("GET", V1 + "/pods/there", FORBIDDEN, UNRELATED),
    ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3D{node}", 200, ""),
    ("GET", "/api/v1/pods?fieldSelector=spec.nodeName%3D" + OTHER, FORBIDDEN,
     "can only list/watch pods with spec.nodeName field selector"),
    ("GET", "/api/v1/pods", FORBIDDEN, "can only list/watch pods with spec.nodeName field selector"),
    ("GET", "/api/v1/nodes/{node}", 200, ""),
    ("GET", "/api/v1/nodes", FORBIDDEN, "node '{node}' cannot read all nodes, only its own Node object"),
    ("GET", "/api/v1/nodes/" + OTHER, FORBIDDEN, f"node '{{node}}' cannot read '{OTHER}', only its own Node object"),
    ("DELETE", "/api/v1/nodes/{node}", FORBIDDEN, 'cannot delete resource "nodes"'),
    ("DELETE", V1 + "/pods/there", FORBIDDEN, 'node "{node}" can only delete pods with spec.nodeName set to itself'),
    ("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/x", FORBIDDEN,
     'can only access leases in the "kube-node-lease" system namespace'),
    ("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/x", FORBIDDEN,
     "can only access node lease with the same name as the requesting node"),
    ("DELETE", "/api/v1/namespaces/{ns}", FORBIDDEN, 'cannot delete resource "namespaces"'),
    ("GET", "/apis/rbac.authorization.k8s.io/v1/clusterroles", FORBIDDEN, 'cannot list resource "clusterroles"'),
])  # fmt: skip
def test_a_node_gets_only_its_own_objects_and_those_its_pods_refer_to(
    kubelet, namespace, pods, method, path, code, reason
):
    answer = kubelet.request(method, path.format(ns=namespace, node=NODE))
    assert answer.status_code == code, answer.text
    assert reason.format(node=NODE) in answer.json().get("message", "")


@pytest.mark.parametrize(("account", "changes", "reason"), [
    ("here", {}, ""),
    ("here", {"audiences": ["sts.amazonaws.com"]}, ""),
    ("here", {"audiences": []}, ""),
    ("here", {"audiences": ["vault"]},
     'serviceaccounts "here" is forbidden: audience "vault" not found in pod spec volume, system:node:{node} is not'
     " authorized to request tokens for this audience"),
    ("here", {"audiences": ["sts.amazonaws.com", "vault"]}, "node may only request 0 or 1 audiences"),
    ("here", {"boundObjectRef": None}, "node requested token not bound to a pod"),
    ("here", {"uid": None}, "node requested token with a pod binding without a uid"),
    ("here", {"uid": "other"}, "the UID in the bound object reference (other) does not match the UID in record."),
    ("here", {"name": "there"}, "node requested token bound to a pod scheduled on a different node"),
    ("there", {"name": "there"}, UNRELATED),
    ("default", {}, UNRELATED),
    ("none", {}, UNRELATED),
])  # fmt: skip
def test_a_node_asks_for_a_token(kubelet: httpx.Client, namespace: str, pods, account, changes, reason):
    name = changes.get("name", "here")
    reference = {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": pods[name]["metadata"]["uid"]}
    reference |= {key: value for key, value in changes.items() if key == "uid"}
    spec = {"audiences": ["sts.amazonaws.com"], "boundObjectRef": reference}
    spec |= {key: value for key, value in changes.items() if key in spec}
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    answer = kubelet.post(path, json={"spec": spec})
    if reason:
        assert answer.status_code == 403, answer.text
        assert reason.format(node=NODE) in answer.json()["message"]
    else:
        assert answer.status_code == 201, answer.text


def test_a_role_can_grant_nodes_another_token_audience(kubelet, admin, namespace, pods):
    rules = [{"verbs": ["request-serviceaccounts-token-audience"], "apiGroups": [""], "resources": ["vault"]}]
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    admin.post(f"{rbac}/roles", json={"metadata": {"name": "vault"}, "rules": rules})
    subjects = [{"kind": "Group", "name": "system:nodes", "apiGroup": "rbac.authorization.k8s.io"}]
    reference = {"kind": "Role", "name": "vault", "apiGroup": "rbac.authorization.k8s.io"}
    binding = {"metadata": {"name": "vault"}, "subjects": subjects, "roleRef": reference}
    assert admin.post(f"{rbac}/rolebindings", json=binding).status_code == 201
    test_a_node_asks_for_a_token(kubelet, namespace, pods, "here", {"audiences": ["vault"]}, "")


@pytest.mark.parametrize(("path", "patch", "reason"), [
    ("/api/v1/nodes/{node}", {"metadata": {"labels": {"kubernetes.io/hostname": "a", "mine": "b"}}}, ""),
    ("/api/v1/nodes/{node}", {"metadata": {"labels": {"kubernetes.io/role": "a"}}},
     "is not allowed to modify labels: kubernetes.io/role"),
    ("/api/v1/nodes/{node}", {"metadata": {"labels": {"node-restriction.kubernetes.io/a": "b"}}},
     "is not allowed to modify labels: node-restriction.kubernetes.io/a"),
    ("/api/v1/nodes/{node}", {"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}},
     'node "{node}" is not allowed to modify taints'),
    ("/api/v1/nodes/" + OTHER, {"metadata": {"labels": {"a": "b"}}},
     f'node "{{node}}" is not allowed to modify node "{OTHER}"'),
    (V1 + "/pods/here/status", {"status": {"phase": "Running"}}, ""),
    (V1 + "/pods/there/status", {"status": {"phase": "Running"}},
     'node "{node}" can only update pod status for pods with spec.nodeName set to itself'),
    (V1 + "/pods/here", {"metadata": {"labels": {"a": "b"}}}, 'cannot patch resource "pods"'),
])  # fmt: skip
def test_a_node_can_change_only_its_own_labels_and_its_pods_status(
    kubelet, admin, namespace, pods, path, patch, reason
):
    admin.post("/api/v1/nodes", json={"metadata": {"name": OTHER}})
    headers = {"Content-Type": "application/merge-patch+json"}
    answer = kubelet.patch(path.format(ns=namespace, node=NODE), json=patch, headers=headers)
    admin.delete(f"/api/v1/nodes/{OTHER}")
    assert answer.status_code == (403 if reason else 200), answer.text
    assert reason.format(node=NODE) in answer.json().get("message", "")


def test_a_node_cannot_create_ordinary_pods(kubelet: httpx.Client, namespace: str):
    answer = kubelet.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    assert answer.status_code == 403
    assert answer.json()["message"] == (
        'pods "p" is forbidden: pod does not have "kubernetes.io/config.mirror" annotation,'
        f' node "{NODE}" can only create mirror pods'
    )


def test_a_user_in_the_nodes_group_without_a_node_name_has_no_access(cluster: Cluster, namespace: str, pods):
    with cluster.http("alice", "system:nodes") as alice:
        assert alice.get(f"/api/v1/namespaces/{namespace}/secrets/here-volume").status_code == 403
        assert alice.get(f"/api/v1/nodes/{NODE}").status_code == 403
