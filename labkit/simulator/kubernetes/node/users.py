"""The user of a container's programs: what the manifest asks for, and how far this machine allows it.

https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
"""

import contextlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from labkit.simulator.kubernetes.node.container_environment import ConfigError
from labkit.simulator.kubernetes.objects.kinds import Object

# Root's pods get ids that systemd keeps free of users. https://systemd.io/UIDS-GIDS/
ABOVE_ALL_USERS = range(2**31 + 1, 2**32 - 1)
# https://github.com/containerd/containerd/blob/v2.1.0/pkg/oci/spec.go, but without mknod
CAPABILITIES = (
    *("audit_write", "chown", "dac_override", "fowner", "fsetid", "kill", "net_bind_service", "net_raw"),
    *("setfcap", "setgid", "setpcap", "setuid", "sys_chroot"),
)

Grade = Literal["full", "one", "none"]


@dataclass(frozen=True)
class ContainerUser:
    """A container's user, group, further groups, capabilities, and whether programs may gain privileges."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: tuple[str, ...] = CAPABILITIES
    gains_privileges: bool = True


@dataclass(frozen=True)
class Users:
    """The users that this machine lets a node give to containers.

    `grade` "full": any user. "one": each program has the lab's user id, and a namespace shows this id as the
    container's user. "none": each program has and sees the lab's user.
    """

    grade: Grade = "none"

    @property
    def unshare(self) -> tuple[str, ...]:
        """The arguments with which `unshare` makes a container's user namespace."""
        if self.grade == "full":
            return ("--user", "--keep-caps") if os.geteuid() == 0 else ("--user", "--map-root-user", "--map-auto")
        return ("--user", "--map-root-user")

    @property
    def map(self) -> str:
        """The ids to map into a container's user namespace, if `unshare` doesn't map them."""
        ids = ABOVE_ALL_USERS
        return f"0 0 1\n1 {ids.start} {len(ids)}\n" if self.grade == "full" and os.geteuid() == 0 else ""

    def command(self, user: ContainerUser) -> list[str]:
        """Return a command that starts a program as this user, if it runs as root of a container's user namespace."""
        if self.grade == "one" and (user.uid or user.gid):
            return ["unshare", "--user", f"--map-user={user.uid}", f"--map-group={user.gid}", "--"]
        bounding = ",".join(["-all", *(f"+{each}" for each in user.capabilities)])
        command = ["setpriv", f"--bounding-set={bounding}"]
        if not user.gains_privileges:
            command.append("--no-new-privs")
        if self.grade == "full":
            groups = ",".join(str(each) for each in dict.fromkeys((user.gid, *user.groups)))
            command += [f"--reuid={user.uid}", f"--regid={user.gid}", f"--groups={groups}"]
        return [*command, "--"]

    def own(self, uid: int, gid: int, *paths: Path) -> None:
        """Make a container's user and group the owners of files and folders, if this machine allows it."""
        if self.grade != "full" or not (uid or gid) or not paths:
            return
        if os.geteuid() == 0:
            owner, group = (ABOVE_ALL_USERS[each - 1] if each else 0 for each in (uid, gid))
            for path in paths:
                os.chown(path, owner, group)
        else:
            command = ["unshare", *self.unshare, "--", "chown", f"{uid}:{gid}", *map(str, paths)]
            subprocess.run(command, check=True, capture_output=True)

    def remove(self, folder: Path) -> None:
        """Remove a folder, also with folders in it that belong to other users of a container."""
        shutil.rmtree(folder, ignore_errors=True)
        if folder.exists() and self.grade != "none" and os.geteuid() != 0:
            command = ["unshare", *self.unshare, "--", "rm", "-rf", "--", str(folder)]
            subprocess.run(command, check=False, capture_output=True)

    def used(self, folder: Path) -> int:
        """Return the bytes that the files in a folder take on the disk, also those that only a container can read."""
        command = ["unshare", *self.unshare, "--", "du", "-s", "--block-size=1", "--", str(folder)]
        # The container may delete files in the meantime. Then du complains, and counts the others.
        counted = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
        return int(counted[0]) if counted else 0

    def mode(self, mode: int, uid: int, gid: int, reader: ContainerUser | None) -> int:
        """Return the mode for a file of the user `uid` and the group `gid`.

        If each program has the lab's user id, the mode permits to this id what the file would permit to the `reader`.
        """
        if self.grade != "one" or reader is None or reader.uid in (0, uid):
            return mode
        shift = 3 if gid in (reader.gid, *reader.groups) else 0
        return mode & ~0o700 | (mode >> shift & 0o7) << 6

    def __str__(self) -> str:
        return {
            "full": "as in the manifest",
            "one": "one id: programs of pods have your user id, see it as the manifest's user, and can't change it",
            "none": "none: programs of pods run as you, whatever the manifest says",
        }[self.grade]


def ids_of_pods() -> range:
    """Return the user ids of this machine that pods of this process's user may have, besides this user's own.

    https://man7.org/linux/man-pages/man5/subuid.5.html
    """
    if os.geteuid() == 0:
        return ABOVE_ALL_USERS
    names = {str(os.geteuid())}
    with contextlib.suppress(KeyError):
        names.add(pwd.getpwuid(os.geteuid()).pw_name)
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/etc/subuid").read_text().splitlines():
            name, first, count = line.split(":")
            if name in names:
                return range(int(first), int(first) + int(count))
    return range(0)


@dataclass(frozen=True)
class SecurityContext:
    """What a manifest says of a container's user and rights.

    https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
    """

    container: Object
    pod: Object

    @property
    def fields(self) -> dict[str, Any]:
        """The pod's and the container's own settings. The container's win."""
        own = self.container.get("securityContext") or {}
        return self._of_pod | {name: value for name, value in own.items() if value is not None}

    @property
    def _of_pod(self) -> Object:
        return self.pod["spec"].get("securityContext") or {}

    def check(self, of_image: int) -> None:
        """Raise ConfigError, in the kubelet's words, if the user is root and `runAsNonRoot` forbids that.

        `of_image` is the image's user.
        https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/kubelet/kuberuntime/security_context.go
        """
        uid = self.fields.get("runAsUser")
        if self.fields.get("runAsNonRoot") and not (of_image if uid is None else uid):
            metadata = self.pod["metadata"]
            which = (
                f'"{metadata["name"]}_{metadata["namespace"]}({metadata["uid"]})", container: {self.container["name"]}'
            )
            why = "container's runAsUser breaks non-root policy"
            if uid is None:
                why = "container has runAsNonRoot and image will run as root"
            raise ConfigError(f"{why} (pod: {which})")

    def user(self, of_image: int = 0, its_group: int = 0) -> ContainerUser:
        """Return the container's user. `of_image` and `its_group` are the image's user and this user's group."""
        fields, of_pod = self.fields, self._of_pod
        uid = fields.get("runAsUser", of_image)
        group = [] if of_pod.get("fsGroup") is None else [of_pod["fsGroup"]]
        dropped = {_capability(name) for name in (fields.get("capabilities") or {}).get("drop") or ()}
        return ContainerUser(
            uid=uid,
            gid=fields.get("runAsGroup", its_group if uid == of_image else 0),
            groups=(*group, *(of_pod.get("supplementalGroups") or ())),
            capabilities=() if "all" in dropped else tuple(each for each in CAPABILITIES if each not in dropped),
            gains_privileges=fields.get("allowPrivilegeEscalation", True),
        )

    def not_given(self, grade: Grade) -> list[str]:
        """Return what the manifest requests and the node doesn't give, one sentence each."""
        fields, spec = self.fields, self.pod["spec"]
        added = (fields.get("capabilities") or {}).get("add") or ()
        of_users = () if grade == "full" else ("runAsUser", "runAsGroup", "fsGroup", "supplementalGroups")
        names = [name for name in of_users if fields.get(name) not in (None, [])]  # 0 is a user, too
        names += ["readOnlyRootFilesystem"] if grade == "none" and fields.get("readOnlyRootFilesystem") else []
        reasons = [
            ("a pod gets no more rights than the lab's user", ["privileged"] if fields.get("privileged") else []),
            ("a container gets a runtime's default capabilities at most",
             [f"capabilities.add: {name}" for name in added if _capability(name) not in CAPABILITIES]),
            ("a pod sees its own processes only", [name for name in ("hostPID", "hostIPC") if spec.get(name)]),
            (f"users of pods on this machine: {Users(grade)}", names),
        ]  # fmt: skip
        return [f"{', '.join(names)} isn't enforced here: {why}" for why, names in reasons if names]


def _capability(name: str) -> str:
    return name.lower().removeprefix("cap_")
