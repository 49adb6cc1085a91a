"""Helpers for the tests of Deployments and ReplicaSets."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx

from labkit.simulator.clock import rfc3339
from tests.simulator.kubernetes.conftest import Cluster, pod

STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
MERGE = {"Content-Type": "application/merge-patch+json"}
REVISION = "deployment.kubernetes.io/revision"


def until(condition: Callable, what: str = "", seconds: float = 60):
    """Return the first true result."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{what or condition} did not come true"
        time.sleep(0.01)
    return result


def deployment(name: str = "web", labels: dict | None = None, pod_spec: dict | None = None, **spec: object) -> dict:
    labels = labels or {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {**pod("x")["spec"], **(pod_spec or {})}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }


def replica_set(name: str = "web", **spec: object) -> dict:
    return {**deployment(name, **spec), "kind": "ReplicaSet"}


@dataclass
class Apps:
    """One namespace: its Deployments as a client sees them, its pods as a kubelet sees them."""

    cluster: Cluster
    http: httpx.Client
    namespace: str

    @property
    def apps(self) -> str:
        return f"/apis/apps/v1/namespaces/{self.namespace}"

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    def kubectl(self, *arguments: str, given: object = None, code: int = 0) -> str:
        done = self.cluster.kubectl("-n", self.namespace, *arguments, given=given, code=code)
        return done.stdout if code == 0 else done.stderr

    def create(self, obj: dict) -> dict:
        answer = self.http.post(f"{self.apps}/{obj['kind'].lower()}s", json=obj)
        assert answer.status_code == 201, answer.text
        return answer.json()

    def deployment(self, name: str = "web") -> dict:
        return self.http.get(f"{self.apps}/deployments/{name}").json()

    def patch(self, patch: dict, name: str = "web") -> dict:
        answer = self.http.patch(f"{self.apps}/deployments/{name}", json=patch, headers=STRATEGIC)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def replica_sets(self) -> list[dict]:
        return self.http.get(f"{self.apps}/replicasets").json()["items"]

    def sizes(self) -> dict[str, int]:
        """The wanted size of each ReplicaSet, by revision."""
        sets = self.replica_sets()
        return {one["metadata"]["annotations"].get(REVISION, ""): one["spec"]["replicas"] for one in sets}

    def pods(self) -> list[dict]:
        return self.http.get(f"{self.core}/pods").json()["items"]

    def pod_count(self, count: int) -> list[dict]:
        until(lambda: len(self.pods()) == count, f"{count} pods")
        return self.pods()

    def set_ready(self, name: str, *, ready: bool = True) -> None:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": rfc3339(self.cluster.clock.now())}
        status = {"phase": "Running", "conditions": [condition]}
        answer = self.http.patch(f"{self.core}/pods/{name}/status", json={"status": status}, headers=STRATEGIC)
        assert answer.status_code in (200, 404), answer.text

    def run_all(self) -> None:
        for one in self.pods():
            if not _is_ready(one):
                self.set_ready(one["metadata"]["name"])

    def rolled_out(self, name: str = "web") -> dict:
        """Mark each new pod as ready until the rollout is complete."""

        def complete() -> dict | None:
            self.run_all()
            found = self.deployment(name)
            status, wanted = found["status"], found["spec"]["replicas"]
            counts = [status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas")]
            seen = status.get("observedGeneration") == found["metadata"]["generation"]
            return found if seen and counts == [wanted] * 3 else None

        return until(complete, "the rollout is complete")

    def condition(self, type_: str, reason: str, name: str = "web") -> dict:
        def found() -> dict | None:
            conditions = self.deployment(name)["status"].get("conditions") or []
            return next((one for one in conditions if (one.get("type"), one.get("reason")) == (type_, reason)), None)

        return until(found, f"{type_} {reason}")

    def events(self, reason: str, kind: str = "Deployment") -> list[str]:
        events = self.http.get(f"{self.core}/events").json()["items"]
        return [e["message"] for e in events if e["reason"] == reason and e["involvedObject"]["kind"] == kind]


def _is_ready(pod: dict) -> bool:
    return any(one["status"] == "True" for one in pod["status"].get("conditions") or () if one["type"] == "Ready")
