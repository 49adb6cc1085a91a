"""The public issuer serves a cluster's discovery document and keys to anybody while the cluster exists."""

import asyncio
import json
import threading
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from labkit.errors import LabError
from labkit.simulator.folder import Folder
from labkit.simulator.published import Published
from labkit.simulator.running_lab import PublicIssuer

PATH = "/id/0123456789ABCDEF0123456789ABCDEF"
OTHER = "/id/FEDCBA9876543210FEDCBA9876543210"
DENIED = '<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>'


@pytest.fixture
def published(tmp_path: Path) -> Published:
    return Folder(tmp_path / ".lab").published


@pytest.fixture
def issuer(published: Published) -> PublicIssuer:
    made = PublicIssuer(published)
    made.publish(PATH, {"issuer": "https://issuer" + PATH}, {"keys": [{"kid": "a"}]})
    return made


async def get(issuer: PublicIssuer, path: str, method: str = "GET") -> httpx.Response:
    transport = httpx.ASGITransport(issuer)
    async with httpx.AsyncClient(transport=transport, base_url="https://issuer") as session:
        return await session.request(method, path)


def fetch(issuer: PublicIssuer, path: str, method: str = "GET") -> httpx.Response:
    return asyncio.run(get(issuer, path, method))


def test_anybody_gets_discovery_and_keys(issuer: PublicIssuer):
    discovery = fetch(issuer, f"{PATH}/.well-known/openid-configuration")
    assert (discovery.status_code, discovery.headers["content-type"]) == (200, "application/json")
    assert json.loads(discovery.content) == {"issuer": "https://issuer" + PATH}
    assert fetch(issuer, f"{PATH}/keys").json() == {"keys": [{"kid": "a"}]}
    assert fetch(issuer, f"{PATH}/keys", "HEAD").content == b""


def test_the_issuer_serves_no_other_path_or_method(issuer: PublicIssuer):
    assert fetch(issuer, "/").status_code == 404
    assert fetch(issuer, "/id/other/keys").status_code == 404
    assert fetch(issuer, f"{PATH}/keys", "POST").status_code == 405


def test_a_deleted_cluster_has_no_keys(issuer: PublicIssuer):
    issuer.withdraw(PATH)
    assert fetch(issuer, f"{PATH}/keys").status_code == 404


def test_an_override_replaces_a_document_until_it_is_cleared(issuer: PublicIssuer, published: Published):
    issuer.publish(OTHER, {"issuer": "https://issuer" + OTHER}, {"keys": [{"kid": "b"}]})
    discovery = published.override("https://oidc.eks.us-east-1.amazonaws.com" + PATH, "openid-configuration")
    assert discovery.get() is None
    discovery.set(403, DENIED)
    answer = fetch(issuer, f"{PATH}/.well-known/openid-configuration")
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (403, "application/xml", DENIED)
    assert (discovery.get().status, discovery.get().body) == (403, DENIED)
    discovery.set(200, {"issuer": "https://another"})
    assert fetch(issuer, f"{PATH}/.well-known/openid-configuration").json() == {"issuer": "https://another"}
    assert fetch(issuer, f"{PATH}/keys").json() == {"keys": [{"kid": "a"}]}
    assert fetch(issuer, f"{OTHER}/.well-known/openid-configuration").json() == {"issuer": "https://issuer" + OTHER}
    discovery.clear()
    discovery.clear()
    assert fetch(issuer, f"{PATH}/.well-known/openid-configuration").json() == {"issuer": "https://issuer" + PATH}


def test_an_override_for_a_missing_cluster_is_not_served(issuer: PublicIssuer, published: Published):
    published.override(OTHER, "keys").set(200, {"keys": []})
    assert fetch(issuer, f"{OTHER}/keys").status_code == 404


def test_each_change_of_an_override_changes_the_edition(published: Published):
    keys = published.override(PATH, "keys")
    seen = [published.edition(PATH)]
    for change in (lambda: keys.set(404, ""), lambda: keys.set(403, ""), keys.clear, lambda: keys.set(403, "")):
        change()
        seen.append(published.edition("https://oidc.eks.us-east-1.amazonaws.com" + PATH))
    assert all(one != other for one, other in pairwise(seen))
    assert published.edition(OTHER) == (None, None)
    assert published.edition("https://elsewhere.example/a/b?c") == ()


@pytest.mark.parametrize("wrong", ["../../etc/passwd", "https://issuer/id/../x", "", "/id/a/b", "https://issuer"])
def test_an_override_needs_a_clusters_issuer_and_a_known_document(published: Published, wrong: str):
    with pytest.raises(LabError, match="is not an issuer of a cluster"):
        published.override(wrong, "keys")
    with pytest.raises(LabError, match="Did you mean 'keys'"):
        published.override(PATH, "key")


def test_an_invalid_override_file_makes_the_issuer_answer_500(issuer: PublicIssuer, published: Published):
    keys = published.override(PATH, "keys")
    keys.set(200, {"keys": []})
    for content in ("no JSON", "[]", '{"status": 99, "body": ""}', '{"status": 200}'):
        keys.file.write_text(content)
        assert fetch(issuer, f"{PATH}/keys").status_code == 500


def test_a_reader_during_a_write_gets_the_old_or_the_new_override(issuer: PublicIssuer, published: Published):
    keys = published.override(PATH, "keys")
    bodies = ["a" * 50_000, "b" * 90_000]
    keys.set(200, bodies[0])
    ended = threading.Event()

    def write() -> None:
        for turn in range(200):
            keys.set(200, bodies[turn % 2])
        ended.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not ended.is_set():
        answer = fetch(issuer, f"{PATH}/keys")
        assert answer.status_code == 200
        assert answer.text in bodies
    writer.join()
    assert keys.file.stat().st_mode & 0o777 == 0o600
