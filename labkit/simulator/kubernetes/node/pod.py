"""The data that a pod's containers share (document, folder, volumes, logs), and the settings of the pod's node."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from labkit.simulator.clock import Clock
from labkit.simulator.kubernetes.node.client import NodeClient, PodEvents
from labkit.simulator.kubernetes.node.container_environment import Room
from labkit.simulator.kubernetes.node.container_logs import ContainerLog
from labkit.simulator.kubernetes.node.images import Image
from labkit.simulator.kubernetes.node.limits import NodeLimits
from labkit.simulator.kubernetes.node.pod_status import ADDRESS, ContainerStatus, PodStatus
from labkit.simulator.kubernetes.node.ports import PortClaims
from labkit.simulator.kubernetes.node.processes import Reaper
from labkit.simulator.kubernetes.node.users import Users
from labkit.simulator.kubernetes.node.volumes import Volumes
from labkit.simulator.kubernetes.objects.kinds import Object

if TYPE_CHECKING:
    from labkit.simulator.kubernetes.node.program_streams import Attachments

TICK = 0.5  # seconds of real time between two looks at the lab's clock
REFRESH = 5.0  # seconds of real time between two reads of the objects in volumes

ACCOUNTS = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
GROUPS = "root:x:0:\nnogroup:x:65534:\n"
# Root may become another user. Nobody has a password. https://man7.org/linux/man-pages/man5/pam.d.5.html
PAM = """auth sufficient pam_rootok.so
auth required pam_deny.so
account required pam_permit.so
session required pam_permit.so
"""


@dataclass(frozen=True)
class Ground:
    """A node's settings and tools, which all pods of the node share."""

    client: NodeClient
    events: PodEvents
    clock: Clock
    reaper: Reaper
    images: dict[str, Image]
    before: Callable[[Object, Path], dict[str, str]]  # (pod, home) -> variables that the pod's own variables override
    after: dict[str, str]  # variables that override the pod's own
    on_host_network: dict[str, str]  # further ones of a pod with `hostNetwork: true`
    led: dict[str, str]  # an address in a pod's variable -> the address that replaces it
    home: dict[str, str]  # the files in a pod's home folder: path -> text
    visible: tuple[Path, ...]
    memory: Path | None  # a folder in memory
    room: Room
    private: bool
    own_processes: bool
    users: Users
    limits: NodeLimits
    ports: PortClaims


class NodePod:
    """One pod of a node. `changed` is set when the pod has a new status to report."""

    def __init__(self, document: Object, folder: Path, ground: Ground) -> None:
        self.document = document
        self.folder = folder
        self.ground = ground
        self.home = folder / "home"
        self.policy = document["spec"].get("restartPolicy", "Always")
        self.status = PodStatus(document, ground.clock.now())
        self.changed = asyncio.Event()
        # So that a pod of many containers leaves its neighbours time, and its first ones don't wait for the last root.
        self.opening, self.starting = asyncio.Semaphore(2), asyncio.Semaphore(2)
        self.logs = {
            (status.name, int(file.parent.name)): ContainerLog.ended(file, ground.clock.now)
            for status in [*self.status.init, *self.status.apps]
            for file in (folder / "containers" / status.name).glob("*/log")
        }
        self.ports: set[int] = set()  # at which the pod's servers get the pod's address
        self.attachments: dict[str, Attachments] = {}
        self.has_volumes = False  # whether the volumes have been filled once
        self.volumes = Volumes(
            document,
            folder / "volumes",
            fetch=lambda kind, name: self.fetch(kind, name, max_age=REFRESH - TICK if self.has_volumes else 0.0),
            request_token=lambda audience, seconds: ground.client.token(self.document, audience, seconds),
            now=ground.clock.now,
            room=ground.room,
            users=ground.users,
            in_memory=ground.memory / folder.name if ground.memory else None,
        )

    @property
    def hostname(self) -> str:
        spec, metadata = self.document["spec"], self.document["metadata"]
        return str(spec["nodeName"] if spec.get("hostNetwork") else spec.get("hostname") or metadata["name"])[:63]

    @property
    def network_files(self) -> dict[str, str]:
        """The container's own files in /etc, for hosts, users and the resolver, by path.

        https://kubernetes.io/docs/tasks/network/customize-hosts-file-for-pods/
        """
        aliases = self.document["spec"].get("hostAliases") or ()
        lines = ["\t".join([alias["ip"], *(alias.get("hostnames") or ())]) for alias in aliases]
        hosts = [
            "# Kubernetes-managed hosts file.",
            f"{self.status.address}\tlocalhost",
            "::1\tlocalhost ip6-localhost ip6-loopback",
        ]
        hosts += [
            f"{self.status.address}\t{self.hostname}",
            *(["", "# Entries added by HostAliases.", *lines] if lines else []),
        ]
        return {
            "etc/hosts": "\n".join([*hosts, ""]),
            "etc/hostname": f"{self.hostname}\n",
            "etc/resolv.conf": _resolv_conf(self.document),
            "etc/passwd": ACCOUNTS,
            "etc/group": GROUPS,
            "etc/pam.d/other": PAM,
        }

    @property
    def grace(self) -> float:
        """The seconds within which the pod's containers have to end."""
        return float(self.document["spec"].get("terminationGracePeriodSeconds", 30))

    def new_log(self, status: ContainerStatus, file: Path) -> ContainerLog:
        """Return the log for a container's next run. Keep the log of the previous run, and delete older logs."""
        name, run = status.name, status.restarts
        for older in [key for key in self.logs if key[0] == name and key[1] != run - 1]:
            self.logs.pop(older).file.unlink(missing_ok=True)
        self.logs[name, run] = ContainerLog(file, self.ground.clock.now)
        return self.logs[name, run]

    async def fetch(self, kind: str, name: str, *, max_age: float = 0.0) -> Object | None:
        """Return a ConfigMap or Secret of the pod's namespace, read at most ``max_age`` seconds ago."""
        return await self.ground.client.fetch(self.document["metadata"]["namespace"], kind, name, max_age=max_age)


def _resolv_conf(pod: Object) -> str:
    """Return the pod's resolv.conf, as the kubelet writes it. Nobody answers at its usual name server.

    https://kubernetes.io/docs/concepts/services-networking/dns-pod-service/#pod-s-dns-policy
    """
    spec, own = pod["spec"], pod["spec"].get("dnsConfig") or {}
    policy = spec.get("dnsPolicy", "ClusterFirst")
    servers, searches, options = [] if policy == "None" else [ADDRESS], [], {}
    if policy == "ClusterFirstWithHostNet" or (policy == "ClusterFirst" and not spec.get("hostNetwork")):
        searches = [f"{pod['metadata']['namespace']}.svc.cluster.local", "svc.cluster.local", "cluster.local"]
        options = {"ndots": "5"}
    servers += own.get("nameservers") or ()
    searches += own.get("searches") or ()
    options |= {each["name"]: each.get("value") for each in own.get("options") or ()}
    words = [f"{name}:{value}" if value else name for name, value in options.items()]
    lines = [("search", searches), *(("nameserver", [each]) for each in dict.fromkeys(servers)), ("options", words)]
    return "".join(f"{name} {' '.join(dict.fromkeys(values))}\n" for name, values in lines if values)
