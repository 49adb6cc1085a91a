"""Whatever you send to the public issuer, it serves its two documents and nothing else."""

from collections.abc import Iterator
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labkit.simulator.folder import Folder
from labkit.simulator.running_lab import PublicIssuer
from tests.fuzz.conftest import cases, sent, served
from tests.simulator.aws.test_any_request import BODIES, HEADERS, METHODS, QUERIES

PATH = "/id/0123456789ABCDEF0123456789ABCDEF"
DISCOVERY, KEYS = f"{PATH}/.well-known/openid-configuration", f"{PATH}/keys"
PIECES = st.sampled_from(
    ["id", PATH[4:], PATH[4:].lower(), "keys", ".well-known", "openid-configuration", "..", ".", "", "%2F", "%2e%2e",
     "%00", "%ff", "é", "x" * 5000, "published", ";", "keys/"]
)  # fmt: skip


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    issuer = PublicIssuer(Folder(tmp_path_factory.mktemp("issuer")).published)
    issuer.publish(PATH, {"issuer": PATH}, {"keys": []})
    with served(issuer) as port:
        yield port


@cases(150)
@given(
    method=METHODS,
    path=st.sampled_from([DISCOVERY, KEYS]) | st.lists(PIECES, max_size=5).map(lambda pieces: "/" + "/".join(pieces)),
    query=QUERIES,
    headers=HEADERS,
    body=BODIES,
)
def test_the_issuer_serves_only_its_documents_whatever_is_requested(port, method, path, query, headers, body):
    target = quote(path + (f"?{query}" if query else ""), safe="/%?=&;+~*\\")
    status, _ = sent(port, method, target, headers, body)
    has_it = path in (DISCOVERY, KEYS)
    assert (200 if has_it else 400) <= status < 500
    assert sent(port, "GET", KEYS, [], b"") == (200, b'{"keys": []}')
