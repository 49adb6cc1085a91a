"""The status that a node reports for a pod (https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/)."""

from dataclasses import dataclass, field

from labkit.simulator.clock import rfc3339
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.pods import ENDED
from labkit.simulator.kubernetes.objects.storage import seconds

ADDRESS = "127.0.0.1"


@dataclass
class ContainerStatus:
    """The status of one container: its current state, and how its last run ended."""

    spec: Object
    init: bool = False
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last: Object = field(default_factory=dict)
    restarts: int = 0
    run_id: str = ""
    started: bool = False  # the startup probe has succeeded, or the container has no startup probe
    port_is_free: bool = True  # or the container itself listens on it; False while that isn't clear
    passes: bool = False  # the readiness probe succeeds, or the container has no readiness probe

    def resume(self, reported: Object, now: float) -> None:
        """Take over ``reported``, the status that was reported before the node restarted.

        If ``reported`` shows a running container, mark the container as ended: exit code 255, reason Unknown.
        containerd does the same.
        """
        self.restarts, self.run_id = reported.get("restartCount", 0), reported.get("containerID", "")
        self.state, self.last = reported["state"], reported.get("lastState") or {}
        if self.running:
            self.ends(now, 255, "Unknown")

    @property
    def has_run(self) -> bool:
        return bool(self.run_id or self.last or "terminated" in self.state)

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def ports(self) -> set[int]:
        """The TCP ports that the container and its probes name, unless a probe asks another host."""
        named = [port for port in self.spec.get("ports") or () if port.get("protocol", "TCP") == "TCP"]
        probes = [self.spec.get(f"{probe}Probe") or {} for probe in ("startup", "liveness", "readiness")]
        actions = [probe.get(kind) or {} for probe in probes for kind in ("httpGet", "tcpSocket")]
        probed = {each["port"] for each in actions if isinstance(each.get("port"), int) and "host" not in each}
        return {port["containerPort"] for port in named} | probed

    @property
    def sidecar(self) -> bool:
        """https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/"""
        return self.init and self.spec.get("restartPolicy") == "Always"

    @property
    def running(self) -> bool:
        return "running" in self.state

    @property
    def exit_code(self) -> int | None:
        return self.state["terminated"]["exitCode"] if "terminated" in self.state else None

    @property
    def ready(self) -> bool:
        if self.init and not self.sidecar:
            return self.exit_code == 0
        return self.running and self.started and self.passes and self.port_is_free

    def waits(self, reason: str, message: str = "") -> None:
        if "terminated" in self.state:
            self.last = self.state
        self.state = {"waiting": {"reason": reason, **({"message": message} if message else {})}}

    def starts(self, now: float, run_id: str) -> None:
        if "terminated" in self.state:
            self.last = self.state
        self.run_id = run_id
        self.started = "startupProbe" not in self.spec
        self.passes = "readinessProbe" not in self.spec
        self.state = {"running": {"startedAt": rfc3339(now)}}

    def ends(self, now: float, code: int, reason: str = "", message: str = "") -> None:
        started = self.state["running"]["startedAt"] if self.running else rfc3339(now)
        self.state = {
            "terminated": {
                "exitCode": code,
                "reason": reason or ("Error" if code else "Completed"),
                "startedAt": started,
                "finishedAt": rfc3339(now),
                **({"containerID": self.run_id} if self.run_id else {}),
                **({"message": message} if message else {}),
            }
        }

    def document(self) -> Object:
        image = self.spec["image"]
        requests = (self.spec.get("resources") or {}).get("requests")
        mounts = [
            {"name": mount["name"], "mountPath": mount["mountPath"]}
            | ({"readOnly": True, "recursiveReadOnly": "Disabled"} if mount.get("readOnly") else {})
            for mount in self.spec.get("volumeMounts") or ()
        ]
        return {
            "name": self.name,
            "image": image,
            "imageID": f"local://{image}" if self.run_id else "",
            "ready": self.ready,
            "started": self.running and self.started,
            "restartCount": self.restarts,
            "state": self.state,
            "lastState": self.last,
            "resources": self.spec.get("resources") or {},
            **({"containerID": self.run_id} if self.run_id else {}),
            **({"allocatedResources": requests} if requests else {}),
            **({"volumeMounts": mounts} if mounts else {}),
        }


class PodStatus:
    """The status of one pod. `document()` returns it in the API server's form."""

    def __init__(self, pod: Object, now: float) -> None:
        before = pod.get("status") or {}
        # The reason and message if the node itself has ended the pod.
        self.why: dict[str, str] = {}
        if before.get("phase") == "Failed":
            self.why = {key: before[key] for key in ("reason", "message") if key in before}
        self.address = ADDRESS
        self.generation = pod["metadata"].get("generation", 1)
        self.started = seconds(before["startTime"]) if before.get("startTime") else now
        self._policy = pod["spec"].get("restartPolicy", "Always")
        spec = pod["spec"]
        self.init = [ContainerStatus(container, init=True) for container in spec.get("initContainers") or ()]
        self.apps = [ContainerStatus(container) for container in spec["containers"]]
        if self.init:
            for status in [*self.init[1:], *self.apps]:
                status.waits("PodInitializing")
        conditions = before.get("conditions") or ()
        self._scheduled = [c for c in conditions if c["type"] == "PodScheduled"]
        self._transitions: dict[str, tuple[str, str]] = {
            c["type"]: (c["status"], c.get("lastTransitionTime") or "") for c in conditions
        }
        for reported in [*(before.get("initContainerStatuses") or ()), *(before.get("containerStatuses") or ())]:
            if container := self.container(reported["name"]):
                container.resume(reported, now)

    def container(self, name: str) -> ContainerStatus | None:
        return next((status for status in [*self.init, *self.apps] if status.name == name), None)

    @property
    def initialized(self) -> bool:
        return all(status.started if status.sidecar else status.exit_code == 0 for status in self.init) or any(
            status.run_id or status.exit_code is not None for status in self.apps
        )

    def phase(self, *, ended: bool = False) -> str:
        """Return the pod's phase. Pass `ended=True` if no container of the pod will run again."""
        if self.why:
            return "Failed"
        codes = [status.exit_code for status in self.apps]
        if not ended and any("waiting" in status.state and not status.last for status in self.apps):
            failed = self._policy == "Never" and any(s.exit_code for s in self.init if not s.sidecar)
            return "Failed" if failed else "Pending"
        if any(status.running for status in self.apps):
            return "Running"
        if not ended and (self._policy == "Always" or (self._policy == "OnFailure" and any(codes))):
            return "Running"
        if not ended and None in codes:
            return "Running"
        return "Succeeded" if all(code == 0 for code in codes) else "Failed"

    def document(self, now: float, *, ended: bool = False) -> Object:
        phase = self.phase(ended=ended)
        return {
            "observedGeneration": self.generation,
            "phase": phase,
            **self.why,
            "conditions": [*self._scheduled, *self._conditions(phase, now)],
            "hostIP": ADDRESS,
            "hostIPs": [{"ip": ADDRESS}],
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": rfc3339(self.started),
            "containerStatuses": [status.document() for status in self.apps],
            **({"initContainerStatuses": [status.document() for status in self.init]} if self.init else {}),
        }

    def _conditions(self, phase: str, now: float) -> list[Object]:
        unready = [status.name for status in self.apps if not status.ready]
        over = {"reason": "PodCompleted"} if phase == "Succeeded" else {"reason": "PodFailed"}
        if phase not in ENDED:
            over = {"reason": "ContainersNotReady", "message": f"containers with unready status: [{' '.join(unready)}]"}
        ready = phase == "Running" and not unready
        uninitialized = [status.name for status in self.init if not status.ready]
        incomplete = {
            "reason": "ContainersNotInitialized",
            "message": f"containers with incomplete status: [{' '.join(uninitialized)}]",
        }
        begun = phase not in ENDED and any(s.run_id for s in [*self.init, *self.apps])
        return [
            self._condition("PodReadyToStartContainers", begun, now),
            self._condition("Initialized", self.initialized, now, incomplete),
            self._condition("Ready", ready, now, over),
            self._condition("ContainersReady", ready, now, over),
        ]

    def _condition(self, kind: str, true: bool, now: float, why_not: Object | None = None) -> Object:
        status = "True" if true else "False"
        before, since = self._transitions.get(kind, ("", ""))
        if before != status:
            since = rfc3339(now)
            self._transitions[kind] = (status, since)
        why = why_not or {}
        return {
            "type": kind,
            "status": status,
            "observedGeneration": self.generation,
            "lastProbeTime": None,
            "lastTransitionTime": since,
            **({} if true else why),
        }
