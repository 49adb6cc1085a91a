"""An API server that accepts connections and never answers: a call times out instead of waiting for ever."""

import socket
from collections.abc import Iterator

import pytest
from kubernetes.client import ApiClient, Configuration, CoreV1Api
from kubernetes.watch import Watch
from urllib3.exceptions import HTTPError

from labkit import connection


@pytest.fixture
def mute(monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiClient]:
    monkeypatch.setattr(connection, "ANSWERS_WITHIN", (1, 1))
    with socket.create_server(("127.0.0.1", 0)) as server:
        configuration = Configuration(host=f"http://127.0.0.1:{server.getsockname()[1]}", retries=0)
        with connection.patient(ApiClient(configuration)) as api:
            yield api


def test_a_read_from_a_silent_api_server_times_out(mute):
    with pytest.raises(HTTPError, match="Read timed out"):
        CoreV1Api(mute).list_node()


def test_a_watch_of_a_silent_api_server_times_out_soon_after_its_own_limit(mute):
    with pytest.raises(HTTPError, match="read timeout=2"):
        next(Watch().stream(CoreV1Api(mute).list_namespaced_pod, "default", timeout_seconds=1))
