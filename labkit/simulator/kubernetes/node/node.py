"""The node: it runs the pods that are bound to it, with each container as a process of this machine.

Like a kubelet, it uses only the Kubernetes API, over HTTPS.
https://kubernetes.io/docs/concepts/architecture/nodes/
"""

import asyncio
import contextlib
import ctypes
import logging
import os
import platform
import shutil
import socket
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from shlex import quote
from typing import Literal
from urllib.parse import urlsplit

import httpx

from labkit.simulator.certificates import Certificate
from labkit.simulator.clock import Clock, rfc3339
from labkit.simulator.kubernetes.node import eviction
from labkit.simulator.kubernetes.node.client import NodeClient, PodEvents, said
from labkit.simulator.kubernetes.node.container_life import LEAST_GRACE
from labkit.simulator.kubernetes.node.images import Image
from labkit.simulator.kubernetes.node.kubelet import Kubelet
from labkit.simulator.kubernetes.node.limits import NodeLimits
from labkit.simulator.kubernetes.node.pod import TICK, Ground
from labkit.simulator.kubernetes.node.pod_life import PodLife
from labkit.simulator.kubernetes.node.pod_status import ADDRESS
from labkit.simulator.kubernetes.node.ports import PortClaims
from labkit.simulator.kubernetes.node.processes import TOOLS_PATH, Reaper, end_all_below, permitted
from labkit.simulator.kubernetes.node.users import Users
from labkit.simulator.kubernetes.node.volumes import folder_in_memory
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.pods import has_ended
from labkit.simulator.listener import Listener
from labkit.webhook.watch import Reflector

log = logging.getLogger(__name__)

VERSION = "v1.36.0"
LEASE, HEARTBEAT = 40, 300  # seconds


@dataclass(kw_only=True, eq=False)
class Node:
    """One node. `client` is its client certificate, for the user system:node:NAME in the group system:nodes.

    - `mounts` "private": each container has its own root directory.
    - `mounts` "mapped": mount paths are rewritten in the container's variables and arguments.
    - `mounts` None: "private" if this machine allows it, and "mapped" if not.
    """

    name: str
    api_url: str
    ca_pem: bytes
    client: Certificate
    kubelet_socket: socket.socket
    kubelet_certificate: Certificate
    folder: Path
    clock_file: Path
    environment: dict[str, str]  # variables that make programs call the lab instead of AWS
    images: dict[str, Image]  # by repository
    on_host_network: dict[str, str] = field(default_factory=dict)  # further variables of pods with `hostNetwork: true`
    home: dict[str, str] = field(default_factory=dict)  # the files in each pod's home folder: path -> text
    # Key: an address of the node, e.g. of the Pod Identity agent, in containers' variables. Value: the address on this
    # machine that replaces it.
    led: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    provider_id: str = ""  # the machine's id in its cloud
    mounts: Literal["private", "mapped"] | None = None

    def __post_init__(self) -> None:
        self.folder = Path(self.folder).resolve()
        self._clock = Clock(self.clock_file)
        self._began = self._clock.now()
        self._follow = _faketime(self._clock.of_pods)
        self._api = urlsplit(self.api_url)
        self._client = NodeClient(self.api_url, self.ca_pem, self.client)
        self._events = PodEvents(self._client, self.name, self._clock.now)
        self._reaper = Reaper(self.folder)
        self._pods: dict[str, PodLife] = {}
        self.limits = self.users = ""  # in words
        self._memory: Path | None = None
        self._listed = False  # whether the node knows its pods
        self._ends: dict[PodLife, asyncio.Task[None]] = {}  # of pods that were deleted by force
        self._tasks: list[asyncio.Task[None]] = []
        self._ground: Ground
        self._listener = Listener(
            Kubelet(self._find, self._clock.now),
            port_socket=self.kubelet_socket,
            certificate=self.kubelet_certificate,
            client_authority_pem=self.ca_pem,
        )

    @property
    def clock(self) -> bool:
        """Whether programs in pods see lab time instead of real time."""
        return bool(self._follow)

    async def start(self) -> None:
        """Start the node and register it. Raises httpx.HTTPError if the API server refuses the node.

        Also start the pods that the node had before, as after a reboot.
        """
        await self._reaper.start()
        folder = self.folder / "pods"
        if folder.exists():
            await asyncio.to_thread(end_all_below, folder)
        folder.mkdir(exist_ok=True)
        folder.chmod(0o700)  # every user can read the tokens in it, so only the owner may enter the folder
        programs = self._link_programs()
        if not self._clock.of_pods.exists():
            # Without the file, a program's threads race in libfaketime, and the program may crash.
            self._clock.advance()
        private, own_processes, users = (False, False, Users())
        if self.mounts != "mapped":
            private, own_processes, users = await permitted(self.folder)
        if self.mounts == "private" and not private:
            raise RuntimeError("this machine doesn't allow user and mount namespaces: the node needs mounts='mapped'")
        self.mounts = "private" if private else "mapped"
        limits = await asyncio.to_thread(NodeLimits.here, self.folder, private=private)
        self.limits, self.users = str(limits), str(users)
        for prefix in limits.prefixes:
            self._reaper.remove(prefix)
        self._memory = folder_in_memory(self.folder) if private else None
        if self._memory:
            self._reaper.delete(self._memory)
        self._ground = Ground(
            client=self._client,
            events=self._events,
            clock=self._clock,
            reaper=self._reaper,
            images=self.images,
            before=lambda pod, home: self._variables(pod, home, programs),
            after={**self.environment, **self._follow},
            on_host_network=self.on_host_network,
            led=self.led,
            home=self.home,
            visible=(programs, self._clock.of_pods.parent),
            memory=self._memory,
            room=_room(),
            private=private,
            own_processes=own_processes,
            users=users,
            limits=limits,
            ports=PortClaims(),
        )
        await self._listener.start()
        await self._register()
        pods = Reflector(
            self._client.http,
            "/api/v1/pods",
            "pods",
            listed=self._on_list,
            changed=self._on_pod,
            query={"fieldSelector": f"spec.nodeName={self.name}"},
        )
        self._tasks = [
            asyncio.create_task(pods.follow()),
            asyncio.create_task(self._tend_pods()),
            asyncio.create_task(self._beat()),
            asyncio.create_task(self._events.send()),
        ]
        for task in self._tasks:
            task.add_done_callback(_say_why)

    async def stop(self) -> None:
        """End every process of every pod, then the node."""
        for task in self._tasks:
            task.cancel()
        for task in self._ends.values():
            task.cancel()
        await asyncio.gather(*(pod.stop() for pod in (*self._pods.values(), *self._ends)))
        self._pods.clear()
        await self._listener.stop()
        await self._reaper.stop()
        await self._client.close()

    def _find(self, namespace: str, name: str) -> PodLife | None:
        for life in reversed(self._pods.values()):
            metadata = life.pod.document["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return life
        return None

    def _on_list(self, pods: list[Object]) -> None:
        there = {pod["metadata"]["uid"] for pod in pods}
        for uid in self._pods.keys() - there:
            self._on_pod("DELETED", self._pods[uid].pod.document)
        if not self._listed:
            self._listed = True
            for folder in (self.folder / "pods").iterdir():
                if folder.name not in there:
                    self._ground.users.remove(folder)
        for pod in pods:
            self._on_pod("MODIFIED", pod)

    def _on_pod(self, kind: str, pod: Object) -> None:
        uid = pod["metadata"]["uid"]
        life = self._pods.get(uid)
        if kind == "DELETED":
            if uid in self._pods:
                # Deleted by force. The containers still get some time to end.
                forced = self._pods.pop(uid)
                end = self._ends[forced] = asyncio.create_task(forced.remove(LEAST_GRACE))
                end.add_done_callback(lambda _: self._ends.pop(forced))
            return
        ending = bool(pod["metadata"].get("deletionTimestamp"))
        if life:
            life.change(pod)
        else:
            life = self._pods[uid] = PodLife(pod, self.folder / "pods" / uid, self._ground)
            if not ending and not has_ended(pod):
                life.start()
        if ending:
            life.end()

    async def _tend_pods(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            for life in list(self._pods.values()):
                await life.tend()
            await self._free_storage()

    async def _free_storage(self) -> None:
        """If the disk is nearly full, evict the pod that uses the most of it, if that helps."""
        least, free = eviction.lack(self.folder)
        if least and self._pods:
            sizes = {
                uid: await asyncio.to_thread(eviction.used, life.pod.folder, self._ground.users)
                for uid, life in list(self._pods.items())
            }
            largest = max(sizes, key=lambda uid: sizes[uid])
            if (life := self._pods.get(largest)) and free + sizes[largest] >= least:
                container = life.pod.document["spec"]["containers"][0]["name"]
                await life.evict(eviction.low_on_storage(container, least, free, sizes[largest]))

    async def _beat(self) -> None:
        """https://kubernetes.io/docs/concepts/architecture/leases/#node-heart-beats"""
        leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
        reported = time.monotonic()
        while True:
            renewed = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            spec = {"holderIdentity": self.name, "leaseDurationSeconds": LEASE, "renewTime": renewed}
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": self.name}}
            try:
                if await self._client.patch(f"{leases}/{self.name}", {"spec": spec}) is None:
                    await self._client.post(leases, {**lease, "spec": spec})
                if time.monotonic() - reported >= HEARTBEAT:
                    await self._client.patch(f"/api/v1/nodes/{self.name}/status", {"status": self._status()})
                    reported = time.monotonic()
            except httpx.HTTPError as error:
                log.warning("could not renew the node's lease: %s", said(error))
            await asyncio.sleep(LEASE / 4)

    def _variables(self, pod: Object, home: Path, programs: Path) -> dict[str, str]:
        port = str(self._api.port or 443)
        return {
            "PATH": f"{programs}:{TOOLS_PATH}",
            "HOME": str(home),
            "LANG": "C.UTF-8",
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": self._api.hostname or ADDRESS,
            "KUBERNETES_SERVICE_PORT": port,
            "KUBERNETES_SERVICE_PORT_HTTPS": port,
        }

    def _link_programs(self) -> Path:
        """Return a new folder with this environment's `python`, `python3` and `aws`, for a container's PATH."""
        folder = self.folder / "bin"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        # With a link, Python wouldn't find its environment, because it looks for the environment beside the link.
        for name in ("python", "python3"):
            (folder / name).write_text(f'#!/bin/sh\nexec {quote(sys.executable)} "$@"\n')
            (folder / name).chmod(0o755)
        aws = Path(sys.executable).with_name("aws")
        if aws.exists():
            (folder / "aws").symlink_to(aws)
        return folder

    async def _register(self) -> None:
        """https://kubernetes.io/docs/reference/node/node-status/"""
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": self.name,
                "labels": {
                    "kubernetes.io/arch": _architecture(),
                    "kubernetes.io/hostname": self.name,
                    "kubernetes.io/os": "linux",
                    **self.labels,
                },
            },
            "spec": {"providerID": self.provider_id} if self.provider_id else {},
        }
        try:
            await self._client.post("/api/v1/nodes", node)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != 409:
                raise
            await self._client.patch(f"/api/v1/nodes/{self.name}", {"spec": node["spec"]})
        await self._client.patch(f"/api/v1/nodes/{self.name}/status", {"status": self._status()})

    def _status(self) -> Object:
        now, since = rfc3339(self._clock.now()), rfc3339(self._began)
        room = _room()
        conditions = [
            ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ("Ready", "True", "KubeletReady", f"kubelet is posting ready status (mounts: {self.mounts})"),
        ]
        return {
            "addresses": [{"type": "InternalIP", "address": ADDRESS}, {"type": "Hostname", "address": self.name}],
            "capacity": room,
            "allocatable": room,
            "conditions": [
                {
                    "type": kind,
                    "status": status,
                    "reason": reason,
                    "message": message,
                    "lastHeartbeatTime": now,
                    "lastTransitionTime": since,
                }
                for kind, status, reason, message in conditions
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._listener.port}},
            "images": [{"names": [name], "sizeBytes": 0} for name in self.images],
            "nodeInfo": {
                "architecture": _architecture(),
                "bootID": "",
                "containerRuntimeVersion": f"process://{platform.python_version()}",
                "kernelVersion": platform.release(),
                "kubeProxyVersion": "",
                "kubeletVersion": VERSION,
                "machineID": "",
                "operatingSystem": "linux",
                "osImage": f"{platform.system()} (processes of this machine)",
                "systemUUID": "",
            },
        }


def _say_why(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        # Otherwise, nobody would see why the node no longer updates its pods.
        log.error("a task of the node has ended", exc_info=task.exception())


def _faketime(clock_file: Path) -> dict[str, str]:
    """Return the variables with which a program sees lab time.

    https://github.com/wolfcw/libfaketime
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return {}
    with contextlib.suppress(ImportError, OSError):
        origin = getattr(find_spec("libfaketime"), "origin", None)
        library = Path(origin or "/").parent / "vendor/libfaketime/src/libfaketime.so.1"
        if library.exists():
            ctypes.CDLL("libc.so.6")  # the library needs glibc, which a system with musl lacks
            return {
                "LD_PRELOAD": str(library),
                "FAKETIME_TIMESTAMP_FILE": str(Path(clock_file).resolve()),
                "FAKETIME_NO_CACHE": "1",
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_SHARED": "/labkit /labkit",
            }
    return {}


def _room() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    return {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": "110"}


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
