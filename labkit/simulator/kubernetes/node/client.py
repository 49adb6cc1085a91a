"""A node's calls to the Kubernetes API: requests and events."""

import asyncio
import contextlib
import json
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import cast

import httpx

from labkit.simulator.certificates import Certificate, client_context
from labkit.simulator.clock import rfc3339
from labkit.simulator.kubernetes.objects.kinds import Object

LONGEST_AGE = 60.0  # seconds
MOST_KEPT = 20  # the most connections that stay open, for pods that start at the same time
LONGEST_PATH = 200  # characters of a path in an event
PATIENCE = 0.1  # seconds that an event waits, so that its container starts first
PATHS = {"configmap": "configmaps", "secret": "secrets"}


class NodeClient:
    """An HTTPS client with the node's certificate. If a call fails, it raises `httpx.HTTPError`."""

    def __init__(self, api_url: str, ca_pem: bytes, certificate: Certificate) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=MOST_KEPT, keepalive_expiry=60)
        self.http = httpx.AsyncClient(
            base_url=api_url, verify=client_context(ca_pem, certificate), timeout=10, limits=limits, trust_env=False
        )
        self._fetched: dict[tuple[str, str, str], tuple[float, asyncio.Task[Object | None]]] = {}

    async def close(self) -> None:
        await self.http.aclose()

    async def get(self, path: str) -> Object | None:
        """Return the object at this path; None if it doesn't exist."""
        return _json_or_none(await self.http.get(path))

    async def post(self, path: str, body: Object) -> Object:
        return cast("Object", (await self.http.post(path, json=body)).raise_for_status().json())

    async def patch(self, path: str, body: Object) -> Object | None:
        """Change the object at this path and return it; None if it doesn't exist."""
        headers = {"Content-Type": "application/merge-patch+json"}
        return _json_or_none(await self.http.patch(path, content=json.dumps(body), headers=headers))

    async def delete_pod(self, pod: Object) -> None:
        """Delete this pod immediately. Do nothing if it's gone, even if another pod has its name now."""
        metadata = pod["metadata"]
        body = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "gracePeriodSeconds": 0,
            "preconditions": {"uid": metadata["uid"]},
        }
        path = f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}"
        response = await self.http.request("DELETE", path, json=body)
        if response.status_code not in (404, 409):
            response.raise_for_status()

    async def fetch(self, namespace: str, kind: str, name: str, *, max_age: float = 0.0) -> Object | None:
        """Return a ConfigMap or a Secret that was read at most `max_age` seconds ago; None if it doesn't exist."""
        key, now = (namespace, kind, name), time.monotonic()
        fetched_at, task = self._fetched.get(key, (0.0, None))
        if task is None or (task.done() and now - fetched_at >= max_age):
            self._fetched = {k: kept for k, kept in self._fetched.items() if now - kept[0] < LONGEST_AGE}
            task = asyncio.create_task(self.get(f"/api/v1/namespaces/{namespace}/{PATHS[kind]}/{name}"))
            self._fetched[key] = now, task
        return await asyncio.shield(task)

    async def token(self, pod: Object, audience: str, seconds: int) -> tuple[str, float]:
        """Return a new token and its expiry. The token is for the pod's service account, and bound to the pod.

        ``seconds`` is the wanted lifetime. The expiry is in seconds since the epoch.
        https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
        """
        metadata = pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": metadata["name"], "uid": metadata["uid"]}
        spec = {"audiences": [audience] if audience else [], "expirationSeconds": seconds, "boundObjectRef": bound}
        account = pod["spec"].get("serviceAccountName") or "default"
        path = f"/api/v1/namespaces/{metadata['namespace']}/serviceaccounts/{account}/token"
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        status = (await self.post(path, body))["status"]
        expires = datetime.fromisoformat(status["expirationTimestamp"].replace("Z", "+00:00"))
        return status["token"], expires.timestamp()


class PodEvents:
    """Events about pods. They are sent in order and in the background, so that no container waits for an event.

    https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
    """

    def __init__(self, client: NodeClient, node: str, now: Callable[[], float]) -> None:
        self._client = client
        self._node = node
        self._now = now
        self._queue: deque[tuple[str, Object]] = deque()
        self._there_is_one = asyncio.Event()
        self._sent: dict[tuple[str, ...], tuple[str, int]] = {}
        self._serial = 0

    def add(self, pod: Object, reason: str, message: str, *, field: str = "", warning: bool = False) -> None:
        metadata = pod["metadata"]
        about = {
            **{"kind": "Pod", "apiVersion": "v1"},
            **{key: metadata[key] for key in ("namespace", "name", "uid")},
            **({"fieldPath": field} if field else {}),
        }
        now = rfc3339(self._now())
        path = f"/api/v1/namespaces/{metadata['namespace']}/events"
        key = (metadata["uid"], field, reason, message)
        if key in self._sent:
            name, count = self._sent[key]
            self._put(f"{path}/{name}", {"count": count + 1, "lastTimestamp": now})
        else:
            self._serial += 1
            count, name = 0, f"{metadata['name']}.{int(self._now() * 1e6):x}{self._serial:x}"
            event = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": metadata["namespace"]},
                "involvedObject": about,
                "reason": reason,
                "message": message,
                "type": "Warning" if warning else "Normal",
                "source": {"component": "kubelet", "host": self._node},
                "reportingComponent": "kubelet",
                "reportingInstance": self._node,
                "firstTimestamp": now,
                "lastTimestamp": now,
                "count": 1,
            }
            self._put(path, event)
        self._sent[key] = (name, count + 1)

    def forget(self, pod: Object) -> None:
        self._sent = {key: sent for key, sent in self._sent.items() if key[0] != pod["metadata"]["uid"]}

    async def send(self) -> None:
        """Wait for events from `add`, and send them in order. This never returns."""
        while True:
            await self._there_is_one.wait()
            await asyncio.sleep(PATIENCE)
            self._there_is_one.clear()
            while self._queue:
                path, body = self._queue.popleft()
                with contextlib.suppress(httpx.HTTPError):
                    await (self._client.patch(path, body) if "kind" not in body else self._client.post(path, body))

    def _put(self, path: str, body: Object) -> None:
        self._queue.append((path, body))
        self._there_is_one.set()


def _json_or_none(response: httpx.Response) -> Object | None:
    return None if response.status_code == 404 else response.raise_for_status().json()


def said(error: Exception) -> str:
    """Return the error's text.

    For an HTTP error, the text is the API server's message. For an error of the operating system, the text is the
    reason, followed by the name of the file if the error names a file.
    """
    if isinstance(error, httpx.HTTPStatusError):
        with contextlib.suppress(ValueError, KeyError):
            return str(error.response.json()["message"])
    if isinstance(error, OSError) and error.strerror:
        reason = error.strerror[:1].lower() + error.strerror[1:]
        file = str(error.filename or "")
        if len(file) > LONGEST_PATH:
            file = f"{file[: LONGEST_PATH // 2]}…{file[-LONGEST_PATH // 2 :]}"
        return f"{reason}: {file}" if file else reason
    return str(error) or type(error).__name__
