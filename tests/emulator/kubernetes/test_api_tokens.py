"""Tokens and who may do what with them."""

import httpx
import jwt
import pytest

from labkit.emulator.clock import Clock
from tests.emulator.kubernetes.conftest import ISSUER, pod


def token_request(admin: httpx.Client, namespace: str, account: str = "default", **spec: object) -> httpx.Response:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return admin.post(path, json={"spec": spec})


def token_of(admin: httpx.Client, namespace: str, account: str = "default", **spec: object) -> str:
    answer = token_request(admin, namespace, account, **spec)
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]["token"]


def bind_pod(name: str) -> dict:
    return {"kind": "Pod", "apiVersion": "v1", "name": name}


def test_a_token_is_signed_by_the_clusters_key(admin: httpx.Client, namespace: str):
    token = token_of(admin, namespace, audiences=["sts.amazonaws.com"], expirationSeconds=600)
    keys = jwt.PyJWKSet.from_dict(admin.get("/openid/v1/jwks", headers={"Accept": "*/*"}).json())
    header = jwt.get_unverified_header(token)
    assert header.keys() == {"alg", "kid"}
    claims = jwt.decode(token, keys[header["kid"]], algorithms=["RS256"], audience="sts.amazonaws.com", issuer=ISSUER)
    account = admin.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default").json()["metadata"]
    assert claims["sub"] == f"system:serviceaccount:{namespace}:default"
    assert claims["exp"] - claims["iat"] == 600
    assert claims["nbf"] == claims["iat"]
    assert claims["kubernetes.io"] == {
        "namespace": namespace,
        "serviceaccount": {"name": "default", "uid": account["uid"]},
    }


@pytest.mark.parametrize(
    ("spec", "code", "message"),
    [
        ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
        ({"expirationSeconds": (1 << 32) + 1}, 422, "may not specify a duration larger than 2^32 seconds"),
        ({"boundObjectRef": bind_pod("none")}, 404, 'pods "none" not found'),
        ({"boundObjectRef": {"kind": "Lease"}}, 400, "cannot bind token to object of type /, Kind=Lease"),
        ({"audiences": "a"}, 400, "cannot unmarshal string into Go struct field"),
    ],
)
def test_a_token_that_cannot_be_had(admin: httpx.Client, namespace: str, spec: dict, code: int, message: str):
    answer = token_request(admin, namespace, **spec)
    assert answer.status_code == code
    assert message in answer.json()["message"]


def test_no_token_for_a_missing_account(admin: httpx.Client, namespace: str):
    answer = token_request(admin, namespace, "nobody")
    assert (answer.status_code, answer.json()["message"]) == (404, 'serviceaccounts "nobody" not found')


def test_a_token_says_who_its_bearer_is(admin: httpx.Client, namespace: str, cluster):
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        review = bearer.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    assert review.json()["status"]["userInfo"]["username"] == f"system:serviceaccount:{namespace}:default"
    assert f"system:serviceaccounts:{namespace}" in review.json()["status"]["userInfo"]["groups"]


def test_a_token_for_sts_is_none_for_the_api(admin: httpx.Client, namespace: str, cluster):
    with cluster.http(token=token_of(admin, namespace, audiences=["sts.amazonaws.com"])) as bearer:
        answer = bearer.get("/version")
    assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized")


@pytest.mark.parametrize("token", ["bad", "a.b.c", "é"])
def test_a_bad_token_is_unauthorized(token: str, cluster):
    with cluster.http() as bearer:
        headers = {"Authorization": b"Bearer " + token.encode()}
        assert bearer.get("/api", headers=headers).status_code == 401


def test_a_token_of_another_key_is_unauthorized(admin: httpx.Client, namespace: str, cluster):
    claims = jwt.decode(token_of(admin, namespace), options={"verify_signature": False})
    for forged in (jwt.encode(claims, "k" * 32, "HS256"), jwt.encode(claims, None, "none")):
        with cluster.http(token=forged) as bearer:
            assert bearer.get("/api").status_code == 401


def test_a_token_expires_by_lab_time(admin: httpx.Client, namespace: str, cluster, lab_time: Clock):
    token = token_of(admin, namespace, expirationSeconds=600)
    lab_time.advance(minutes=9)
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 200
        lab_time.advance(minutes=2)
        assert bearer.get("/api").status_code == 401


def test_a_token_dies_with_its_pod(admin: httpx.Client, namespace: str, cluster):
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    token = token_of(admin, namespace, boundObjectRef=bind_pod("p"))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["kubernetes.io"]["pod"]["name"] == "p"
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 200
        admin.delete(f"/api/v1/namespaces/{namespace}/pods/p")
        assert bearer.get("/api").status_code == 401
    review = {"spec": {"token": token}}
    answer = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", json=review).json()
    assert answer["status"]["error"] == "[invalid bearer token, service account token has been invalidated]"


def test_a_pods_token_is_not_another_accounts(admin: httpx.Client, namespace: str):
    admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json={"metadata": {"name": "other"}})
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    answer = token_request(admin, namespace, "other", boundObjectRef=bind_pod("p"))
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        'cannot bind token for serviceaccount "other" to pod running with different serviceaccount name.'
    )


def test_a_pods_own_token_lives_a_year(admin: httpx.Client, namespace: str):
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    token = token_of(admin, namespace, expirationSeconds=3607, boundObjectRef=bind_pod("p"))
    claims = jwt.decode(token, options={"verify_signature": False})
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] == claims["iat"] + 3607


def test_a_token_outlives_no_namesake(admin: httpx.Client, namespace: str, cluster):
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.post(accounts, json={"metadata": {"name": "app"}})
    token = token_of(admin, namespace, "app")
    admin.delete(f"{accounts}/app")
    admin.post(accounts, json={"metadata": {"name": "app"}})
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 401


def test_discovery_is_for_those_who_may(admin: httpx.Client, namespace: str, cluster):
    path = "/.well-known/openid-configuration"
    with cluster.http() as nobody:
        answer = nobody.get(path)
        assert (answer.status_code, answer.json()["reason"]) == (403, "Forbidden")
        assert answer.json()["message"] == f'forbidden: User "system:anonymous" cannot get path "{path}"'
        assert nobody.get("/version").status_code == 200
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        document = bearer.get(path).json()
    assert document["issuer"] == ISSUER
    assert document["jwks_uri"] == f"{cluster.url}/openid/v1/jwks"


def test_a_role_lets_an_account_do_what_it_says(admin: httpx.Client, namespace: str, cluster):
    pods = f"/api/v1/namespaces/{namespace}/pods"
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        denied = bearer.get(pods)
        assert denied.status_code == 403
        assert denied.json()["message"] == (
            f'pods is forbidden: User "system:serviceaccount:{namespace}:default" cannot list resource "pods"'
            f' in API group "" in the namespace "{namespace}"'
        )
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]
        admin.post(f"{rbac}/roles", json={"metadata": {"name": "reader"}, "rules": rules})
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": namespace}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"}
        binding = {"metadata": {"name": "reader"}, "subjects": [subject], "roleRef": role}
        assert admin.post(f"{rbac}/rolebindings", json=binding).status_code == 201
        assert bearer.get(pods).status_code == 200
        assert bearer.get(f"{pods}/p").status_code == 403
        assert bearer.get("/api/v1/namespaces/default/pods").status_code == 403


def test_impersonation_is_for_those_who_may(admin: httpx.Client, namespace: str, cluster):
    headers = {"Impersonate-User": f"system:serviceaccount:{namespace}:default"}
    assert admin.get("/api/v1/nodes", headers=headers).status_code == 403
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        answer = bearer.get("/api/v1/nodes", headers={"Impersonate-User": "admin"})
    assert 'cannot impersonate resource "users"' in answer.json()["message"]
