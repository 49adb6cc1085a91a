"""Service account tokens: their claims, lifetime and reviews, and the permissions they give."""

import base64

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from tenacity import Retrying, stop_after_delay, wait_fixed

from labkit.simulator.clock import Clock
from labkit.tokens import read_jwt
from tests.simulator.kubernetes.conftest import ISSUER, pod


def token_request(admin: httpx.Client, namespace: str, account: str = "default", **spec: object) -> httpx.Response:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
    return admin.post(path, json={"spec": spec})


def token_of(admin: httpx.Client, namespace: str, account: str = "default", **spec: object) -> str:
    answer = token_request(admin, namespace, account, **spec)
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]["token"]


def review(admin: httpx.Client, token: str, *audiences: str) -> dict:
    """Return the status of a TokenReview of this token."""
    spec = {"token": token, "audiences": list(audiences)}
    answer = admin.post("/apis/authentication.k8s.io/v1/tokenreviews", json={"spec": spec})
    assert answer.status_code == 201, answer.text
    return answer.json()["status"]


def bind_pod(name: str) -> dict:
    return {"kind": "Pod", "apiVersion": "v1", "name": name}


def test_a_token_is_signed_by_the_clusters_key(admin: httpx.Client, namespace: str):
    token = token_of(admin, namespace, audiences=["sts.amazonaws.com"], expirationSeconds=600)
    keys = jwt.PyJWKSet.from_dict(admin.get("/openid/v1/jwks", headers={"Accept": "*/*"}).json())
    header = read_jwt(token)[0]
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


@pytest.mark.parametrize(("spec", "code", "message"), [
    ({"expirationSeconds": 599}, 422, "may not specify a duration less than 10 minutes"),
    ({"expirationSeconds": (1 << 32) + 1}, 422, "may not specify a duration larger than 2^32 seconds"),
    ({"boundObjectRef": bind_pod("none")}, 404, 'pods "none" not found'),
    ({"boundObjectRef": {"kind": "Lease"}}, 400, "cannot bind token to object of type /, Kind=Lease"),
    ({"audiences": "a"}, 400, "cannot unmarshal string into Go struct field"),
])  # fmt: skip
def test_an_invalid_token_request_is_refused(admin: httpx.Client, namespace: str, spec: dict, code: int, message: str):
    answer = token_request(admin, namespace, **spec)
    assert answer.status_code == code
    assert message in answer.json()["message"]


def test_a_token_for_a_missing_service_account_is_refused(admin: httpx.Client, namespace: str):
    answer = token_request(admin, namespace, "nobody")
    assert (answer.status_code, answer.json()["message"]) == (404, 'serviceaccounts "nobody" not found')


def test_a_token_authenticates_its_service_account(admin: httpx.Client, namespace: str, cluster):
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        answer = bearer.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    user = answer.json()["status"]["userInfo"]
    assert user["username"] == f"system:serviceaccount:{namespace}:default"
    assert f"system:serviceaccounts:{namespace}" in user["groups"]


def test_the_api_server_refuses_a_token_for_sts(admin: httpx.Client, namespace: str, cluster):
    with cluster.http(token=token_of(admin, namespace, audiences=["sts.amazonaws.com"])) as bearer:
        answer = bearer.get("/version")
    assert (answer.status_code, answer.json()["message"]) == (401, "Unauthorized")


@pytest.mark.parametrize("token", ["bad", "a.b.c", "é"])
def test_a_bad_token_is_unauthorized(token: str, cluster):
    with cluster.http() as bearer:
        headers = {"Authorization": b"Bearer " + token.encode()}
        assert bearer.get("/api", headers=headers).status_code == 401


def test_a_token_without_the_clusters_signature_is_unauthorized(admin: httpx.Client, namespace: str, cluster):
    claims = read_jwt(token_of(admin, namespace))[1]
    of_another_cluster = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    header = read_jwt(token_of(admin, namespace))[0]
    for forged in (
        jwt.encode(claims, "k" * 32, "HS256"),
        jwt.encode(claims, None, "none"),
        jwt.encode(claims, of_another_cluster, "RS256", headers=header),
    ):
        with cluster.http(token=forged) as bearer:
            assert bearer.get("/api").status_code == 401


def test_a_token_expires_by_lab_time(admin: httpx.Client, namespace: str, cluster, lab_time: Clock):
    token = token_of(admin, namespace, expirationSeconds=600)
    with cluster.http(token=token) as bearer:
        # Clocks may differ by a minute.
        lab_time.advance(seconds=655)
        assert bearer.get("/api").status_code == 200
        lab_time.advance(seconds=10)
        assert bearer.get("/api").status_code == 401
        assert review(admin, token)["error"] == "[invalid bearer token, service account token has expired]"


def test_a_token_is_refused_before_its_issue_time(admin: httpx.Client, namespace: str, cluster, lab_time: Clock):
    lab_time.advance(hours=1)
    token = token_of(admin, namespace)
    lab_time.reset()
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 401
    assert review(admin, token)["error"] == "[invalid bearer token, service account token is not valid yet]"


def test_a_pod_bound_token_is_invalid_after_the_pod_is_deleted(admin: httpx.Client, namespace: str, cluster):
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    token = token_of(admin, namespace, boundObjectRef=bind_pod("p"))
    claims = read_jwt(token)[1]
    assert claims["kubernetes.io"]["pod"]["name"] == "p"
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 200
        admin.delete(f"/api/v1/namespaces/{namespace}/pods/p")
        assert bearer.get("/api").status_code == 401
    assert review(admin, token)["error"] == "[invalid bearer token, service account token has been invalidated]"


def test_a_token_for_a_pod_needs_the_pods_own_service_account(admin: httpx.Client, namespace: str):
    admin.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", json={"metadata": {"name": "other"}})
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    answer = token_request(admin, namespace, "other", boundObjectRef=bind_pod("p"))
    assert answer.status_code == 400
    assert answer.json()["message"] == (
        'cannot bind token for serviceaccount "other" to pod running with different serviceaccount name.'
    )


def test_a_pods_default_token_is_valid_for_a_year(admin: httpx.Client, namespace: str):
    admin.post(f"/api/v1/namespaces/{namespace}/pods", json=pod("p"))
    token = token_of(admin, namespace, expirationSeconds=3607, boundObjectRef=bind_pod("p"))
    claims = read_jwt(token)[1]
    assert claims["exp"] - claims["iat"] == 365 * 24 * 3600
    assert claims["kubernetes.io"]["warnafter"] == claims["iat"] + 3607


def test_a_token_is_invalid_after_its_service_account_is_recreated(admin: httpx.Client, namespace: str, cluster):
    accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    admin.post(accounts, json={"metadata": {"name": "app"}})
    token = token_of(admin, namespace, "app")
    admin.delete(f"{accounts}/app")
    admin.post(accounts, json={"metadata": {"name": "app"}})
    with cluster.http(token=token) as bearer:
        assert bearer.get("/api").status_code == 401


def test_oidc_discovery_is_forbidden_to_anonymous_and_open_to_accounts(admin: httpx.Client, namespace: str, cluster):
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


def test_a_service_account_gets_the_permissions_of_its_role(admin: httpx.Client, namespace: str, cluster):
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


def test_the_admin_can_impersonate_but_a_service_account_cannot(admin: httpx.Client, namespace: str, cluster):
    headers = {"Impersonate-User": f"system:serviceaccount:{namespace}:default"}
    assert admin.get("/api/v1/nodes", headers=headers).status_code == 403
    with cluster.http(token=token_of(admin, namespace)) as bearer:
        answer = bearer.get("/api/v1/nodes", headers={"Impersonate-User": "admin"})
    assert 'cannot impersonate resource "users"' in answer.json()["message"]


CORE = "/api/v1/namespaces/{}"
BOUND = {
    "Pod": ("pods", pod("it")),
    "Secret": ("secrets", {"metadata": {"name": "it"}}),
    "Node": ("nodes", {"metadata": {"name": "it"}}),
}


@pytest.mark.parametrize("kind", BOUND)
def test_a_token_is_invalid_after_its_bound_object_is_deleted(admin: httpx.Client, namespace: str, kind: str):
    resource, document = BOUND[kind]
    path = f"/api/v1/{resource}" if kind == "Node" else f"{CORE.format(namespace)}/{resource}"
    first = admin.post(path, json=document).json()["metadata"]["uid"]
    reference = {"kind": kind, "apiVersion": "v1", "name": "it", "uid": first}
    token = token_of(admin, namespace, boundObjectRef=reference)
    assert review(admin, token)["authenticated"]
    admin.delete(f"{path}/it")
    assert review(admin, token)["error"] == "[invalid bearer token, service account token has been invalidated]"
    second = admin.post(path, json=document).json()["metadata"]["uid"]
    name = kind.lower()
    assert review(admin, token) == {
        "user": {},
        "error": f"[invalid bearer token, {name} UID ({second}) does not match service account {name} ref claim"
        f" ({first})]",
    }
    refused = token_request(admin, namespace, boundObjectRef=reference)
    assert refused.status_code == 409
    assert f"the UID in the bound object reference ({first}) does not match the UID in record" in refused.text
    admin.delete(f"{path}/it")


def test_a_terminating_pods_token_outlasts_its_grace_period_by_about_a_minute(admin, namespace, node, lab_time):
    admin.post(f"{CORE.format(namespace)}/pods", json=pod("p", nodeName=node))
    token = token_of(admin, namespace, boundObjectRef=bind_pod("p"))
    admin.delete(f"{CORE.format(namespace)}/pods/p", params={"gracePeriodSeconds": 30})
    lab_time.advance(seconds=80)
    assert review(admin, token)["authenticated"]
    lab_time.advance(seconds=20)
    assert review(admin, token)["error"] == "[invalid bearer token, service account token has been invalidated]"
    admin.delete(f"{CORE.format(namespace)}/pods/p", params={"gracePeriodSeconds": 0})


@pytest.mark.parametrize(("has", "asked", "common"), [
    ([], [], [ISSUER]),
    ([], [ISSUER, "vault"], [ISSUER]),
    (["vault"], ["vault"], ["vault"]),
    (["vault", "sts.amazonaws.com"], ["sts.amazonaws.com", "other"], ["sts.amazonaws.com"]),
    (["vault"], [], None),
    ([ISSUER], ["vault"], None),
])  # fmt: skip
def test_a_token_review_succeeds_only_for_an_audience_of_the_token(admin, namespace, has, asked, common):
    status = review(admin, token_of(admin, namespace, audiences=has), *asked)
    if common:
        assert (status["authenticated"], status["audiences"]) == (True, common)
        return
    of, wanted = (" ".join(f'"{each}"' for each in each_list or [ISSUER]) for each_list in (has, asked))
    why = f"token audiences [{of}] is invalid for the target audiences [{wanted}]"
    assert status == {"user": {}, "error": f"[invalid bearer token, {why}]"}


def test_a_review_of_a_pods_token_names_the_pod_and_its_node(admin: httpx.Client, namespace: str, node: str):
    made = admin.post(f"{CORE.format(namespace)}/pods", json=pod("p", nodeName=node)).json()["metadata"]["uid"]
    extra = review(admin, token_of(admin, namespace, boundObjectRef=bind_pod("p")))["user"]["extra"]
    prefix = "authentication.kubernetes.io"
    assert extra[f"{prefix}/pod-name"] == ["p"]
    assert extra[f"{prefix}/pod-uid"] == [made]
    assert extra[f"{prefix}/node-name"] == [node]
    assert extra[f"{prefix}/credential-id"][0].startswith("JTI=")
    admin.delete(f"{CORE.format(namespace)}/pods/p", params={"gracePeriodSeconds": 0})


@pytest.mark.parametrize(("claims", "message"), [
    ({"iss": "https://oidc.eks.us-east-1.amazonaws.com/id/OTHER"}, "invalid bearer token"),
    ({"exp": 1}, "[invalid bearer token, service account token has expired]"),
    ({"kubernetes.io": None}, "invalid bearer token"),
    ({"aud": "vault"},
     f'[invalid bearer token, token audiences ["vault"] is invalid for the target audiences ["{ISSUER}"]]'),
    ({"nbf": "soon"}, "invalid bearer token"),
])  # fmt: skip
def test_a_correctly_signed_token_with_bad_claims_is_refused(admin, namespace, signing_key, claims, message):
    good = token_of(admin, namespace)
    changed = read_jwt(good)[1] | claims
    changed = {name: value for name, value in changed.items() if value is not None}
    header = {"kid": read_jwt(good)[0]["kid"]}
    token = jwt.encode(changed, signing_key, algorithm="RS256", headers=header)
    assert review(admin, token) == {"user": {}, "error": message}


@pytest.mark.kubectl
def test_kubectl_creates_tokens(cluster, admin: httpx.Client, namespace: str):
    uid = admin.post(f"{CORE.format(namespace)}/pods", json=pod("p")).json()["metadata"]["uid"]
    create = ("create", "token", "default", "-n", namespace)
    bound = ("--bound-object-kind", "Pod", "--bound-object-name", "p")
    token = cluster.kubectl(*create, "--duration", "20m", "--audience", "a", "--audience", "b", *bound).stdout.strip()
    claims = read_jwt(token)[1]
    assert claims["aud"] == ["a", "b"]
    assert claims["exp"] - claims["iat"] == 1200
    assert claims["kubernetes.io"]["pod"] == {"name": "p", "uid": uid}
    assert cluster.kubectl(*create, *bound, "--bound-object-uid", uid).stdout
    refused = cluster.kubectl(*create, *bound, "--bound-object-uid", "other", code=1)
    assert "the UID in the bound object reference (other) does not match the UID in record" in refused.stderr
    short = cluster.kubectl(*create, "--duration", "5m", code=1)
    assert "may not specify a duration less than 10 minutes" in short.stderr


# Secrets that hold a token.

TYPE = "kubernetes.io/service-account-token"


def token_secret(admin: httpx.Client, namespace: str, name: str, account: str) -> httpx.Response:
    annotations = {"kubernetes.io/service-account.name": account}
    document = {"metadata": {"name": name, "annotations": annotations}, "type": TYPE}
    return admin.post(f"{CORE.format(namespace)}/secrets", json=document)


def filled(admin: httpx.Client, namespace: str, name: str) -> dict | None:
    """Wait for the controller; return the filled secret, or None if the controller deleted it."""
    path = f"{CORE.format(namespace)}/secrets"
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.02), reraise=True):
        with attempt:
            found = admin.get(f"{path}/{name}")
            assert found.status_code == 404 or "token" in found.json().get("data", {})
    return None if found.status_code == 404 else found.json()


def test_a_token_secret_gets_a_token_that_lasts_until_the_secret_is_deleted(admin, namespace, cluster, lab_time):
    account = f"{CORE.format(namespace)}/serviceaccounts"
    uid = admin.post(account, json={"metadata": {"name": "app"}}).json()["metadata"]["uid"]
    assert token_secret(admin, namespace, "t", "app").status_code == 201
    secret = filled(admin, namespace, "t")
    assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == uid
    data = {key: base64.b64decode(value).decode() for key, value in secret["data"].items()}
    assert data["namespace"] == namespace
    assert data["ca.crt"].startswith("-----BEGIN CERTIFICATE-----")
    lab_time.advance(days=900)
    with cluster.http(token=data["token"]) as bearer:
        answer = bearer.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", json={})
    assert answer.json()["status"]["userInfo"] == {
        "username": f"system:serviceaccount:{namespace}:app",
        "uid": uid,
        "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
    }
    admin.delete(f"{CORE.format(namespace)}/secrets/t")
    assert review(admin, data["token"])["error"] == "[invalid bearer token, Token has been invalidated]"


def test_a_token_secret_is_deleted_with_its_service_account(admin: httpx.Client, namespace: str):
    admin.post(f"{CORE.format(namespace)}/serviceaccounts", json={"metadata": {"name": "app"}})
    token_secret(admin, namespace, "t", "app")
    assert filled(admin, namespace, "t")
    admin.delete(f"{CORE.format(namespace)}/serviceaccounts/app")
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.02), reraise=True):
        with attempt:
            assert admin.get(f"{CORE.format(namespace)}/secrets/t").status_code == 404
    token_secret(admin, namespace, "for-nobody", "nobody")
    assert filled(admin, namespace, "for-nobody") is None
