"""Whatever you send to the API server: no 5xx of its own, an answer in time, and no change by a refused request."""

import json
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.fuzz.conftest import cases
from tests.simulator.kubernetes.conftest import Cluster, listening
from tests.simulator.kubernetes.test_api_any_input import (
    accepts,
    answered,
    bodies,
    content_types,
    methods,
    paths,
    queries,
)


class Watched:
    """The API server, and the refused requests and dry runs that changed something."""

    def __init__(self, cluster: Cluster) -> None:
        self.api = cluster.api
        self.wrong: list[str] = []
        # A task that the server starts for a request inherits the request's context.
        self._changes: ContextVar[list[str] | None] = ContextVar("changes", default=None)
        cluster.api.storage.observers.append(self._observe)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        changes: list[str] = []
        self._changes.set(changes)
        status = 0

        async def noting(message: Any) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        await self.api(scope, receive, noting)
        is_dry = "dryRun" in parse_qs(scope["query_string"].decode("latin-1"))
        if changes and (status >= 400 or is_dry):
            self.wrong.append(f"{scope['method']} {scope['path']} {scope['query_string']}: {status}, {changes}")

    def _observe(self, change: Any) -> None:
        if (changes := self._changes.get()) is not None:
            changes.append(f"{change.type} {change.kind.kind} {change.stored.name}")


@pytest.fixture(scope="module")
def watched(cluster: Cluster) -> Iterator[tuple[Watched, httpx.Client]]:
    app = Watched(cluster)
    with (
        listening(cluster.loop, app, cluster.authority, clients=cluster.authority) as port,
        cluster.http("admin", "system:masters") as admin,
    ):
        admin.base_url = f"https://127.0.0.1:{port}"
        # 409: the other module with a watch may have created it.
        assert admin.post("/api/v1/namespaces", json={"metadata": {"name": "fuzz"}}).status_code in (201, 409)
        yield app, admin


@cases(200)
@given(data=st.data())
def test_an_administrator_s_refused_request_or_dry_run_changes_nothing(watched, data):
    app, admin = watched
    headers = {"Content-Type": data.draw(content_types), "Accept": data.draw(accepts)}
    method, path, query = data.draw(methods), data.draw(paths("fuzz")), data.draw(queries)
    body = data.draw(bodies.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=40))
    answered(admin, method, path, query, headers, body)
    assert app.wrong == []
