"""The public issuer gives a cluster's discovery document and keys to anybody, for as long as the cluster is there."""

import json

import httpx
import pytest

from labkit.emulator.kubernetes.issuer import Issuer

PATH = "/id/0123456789ABCDEF0123456789ABCDEF"


@pytest.fixture
def issuer() -> Issuer:
    made = Issuer()
    made.publish(PATH, {"issuer": "https://issuer" + PATH}, {"keys": [{"kid": "a"}]})
    return made


async def get(issuer: Issuer, path: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(issuer)
    async with httpx.AsyncClient(transport=transport, base_url="https://issuer") as session:
        return await session.request(method, path)


def fetch(issuer: Issuer, path: str, method: str = "GET") -> httpx.Response:
    import asyncio

    return asyncio.run(get(issuer, path, method))


def test_anybody_gets_discovery_and_keys(issuer: Issuer):
    discovery = fetch(issuer, f"{PATH}/.well-known/openid-configuration")
    assert (discovery.status_code, discovery.headers["content-type"]) == (200, "application/json")
    assert json.loads(discovery.content) == {"issuer": "https://issuer" + PATH}
    assert fetch(issuer, f"{PATH}/keys").json() == {"keys": [{"kid": "a"}]}
    assert fetch(issuer, f"{PATH}/keys", "HEAD").content == b""


def test_nothing_else_is_there(issuer: Issuer):
    assert fetch(issuer, "/").status_code == 404
    assert fetch(issuer, "/id/other/keys").status_code == 404
    assert fetch(issuer, f"{PATH}/keys", "POST").status_code == 405


def test_a_deleted_cluster_has_no_keys(issuer: Issuer):
    issuer.withdraw(PATH)
    assert fetch(issuer, f"{PATH}/keys").status_code == 404
