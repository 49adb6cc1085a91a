"""A pod's volumes: folders with the contents that the pod's spec asks for, kept up to date.

https://kubernetes.io/docs/concepts/storage/volumes/
"""

import asyncio
import base64
import hashlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil

from labkit.simulator.kubernetes.node.client import said
from labkit.simulator.kubernetes.node.container_environment import (
    ConfigError,
    Fetch,
    Room,
    field_value,
    referenced,
    resource_value,
)
from labkit.simulator.kubernetes.node.root import SHARED_MEMORY
from labkit.simulator.kubernetes.node.users import ContainerUser, SecurityContext, Users
from labkit.simulator.kubernetes.objects.kinds import Object

DAY = 24 * 3600.0
READABLE, PRIVATE, GROUPS = 0o644, 0o600, 0o440  # file modes
LEAST_MEMORY = 128 << 20  # bytes

RequestToken = Callable[[str, int], Awaitable[tuple[str, float]]]
Files = dict[str, tuple[bytes, int, int]]  # path in the volume -> content, mode and owner


@dataclass
class ProjectedToken:
    """One service account token in a volume.

    The node renews the token after 80 % of its lifetime, or after a day if that is sooner.
    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
    """

    audience: str
    seconds: int
    token: str = ""
    issued: float = 0.0
    expires: float = 0.0

    def due(self, now: float) -> bool:
        """Whether the token must be renewed at the lab time ``now``."""
        return now >= self.issued + min(0.8 * (self.expires - self.issued), DAY) or now < self.issued - 1

    async def valid(self, request: RequestToken, now: float) -> str:
        """Return the token. If the token must be renewed, renew it first.

        `request(audience, seconds)` returns a new token and its expiry. If `request` fails and the old token has
        expired, raise ConfigError or httpx.HTTPError.
        """
        if self.due(now):
            try:
                self.token, self.expires = await request(self.audience, self.seconds)
                self.issued = now
            except (ConfigError, httpx.HTTPError):
                if not self.issued <= now < self.expires:
                    raise
        return self.token


@dataclass
class Volumes:
    """The volumes of one pod.

    Each volume is a folder in `folder`; in `in_memory` if a kubelet keeps the volume in memory. A hostPath is an
    existing path of this machine.
    """

    pod: Object
    folder: Path
    fetch: Fetch
    request_token: RequestToken
    now: Callable[[], float]  # lab time
    room: Room
    users: Users = field(default_factory=Users)
    in_memory: Path | None = None
    folders: dict[str, Path] = field(default_factory=dict, init=False)
    _tokens: dict[tuple[str, str], ProjectedToken] = field(default_factory=dict, init=False)
    _written: dict[str, Files] = field(default_factory=dict, init=False)

    async def fill(self) -> list[str]:
        """Make or update all volumes. Return the errors in a kubelet's words."""
        volumes = self.pod["spec"].get("volumes") or ()
        results = await asyncio.gather(*(self._set_up(volume) for volume in volumes))
        return [message for message in results if message]

    @property
    def due(self) -> bool:
        """Whether a token must be renewed."""
        now = self.now()
        return any(token.due(now) for token in self._tokens.values())

    def of_this_machine(self, name: str) -> bool:
        """Whether a volume is a hostPath outside of the node's own folder. It has your machine's files."""
        return "hostPath" in self._named(name) and not self.folders[name].resolve().is_relative_to(
            self.folder.parents[2].resolve()
        )

    def read_only(self, name: str) -> bool:
        """Whether containers can only read a volume."""
        return not {"emptyDir", "hostPath"} & self._named(name).keys() or self.of_this_machine(name)

    def remove(self) -> None:
        """Remove the volumes' files."""
        for folder in (self.folder, self.in_memory):
            if folder:
                self.users.remove(folder)

    def _named(self, name: str) -> Object:
        return next(volume for volume in self.pod["spec"]["volumes"] if volume["name"] == name)

    async def _set_up(self, volume: Object) -> str:
        name = volume["name"]
        try:
            if "hostPath" in volume:
                self.folders[name] = _of_this_machine(volume["hostPath"])
                return ""
            on_disk = not self.in_memory or "emptyDir" in volume or "configMap" in volume
            folder = self.folders[name] = (self.folder if on_disk else self.in_memory) / name
            if "emptyDir" in volume:
                if not folder.exists():
                    folder.mkdir(parents=True)
                    folder.chmod(0o2777 if self._group else 0o777)
                    self.users.own(0, self._group or 0, folder)
                return ""
            files = await self._files(volume)
            if self._written.get(name) != files:
                project(files, folder, self._own)
                self._written[name] = files
        except (ConfigError, OSError, subprocess.SubprocessError, httpx.HTTPError) as error:
            return f'MountVolume.SetUp failed for volume "{name}" : {said(error)}'
        return ""

    async def _files(self, volume: Object) -> Files:
        if "projected" in volume:
            mode = volume["projected"].get("defaultMode", READABLE)
            sources = volume["projected"].get("sources") or ()
        elif "secret" in volume:
            sources = [{"secret": {"name": volume["secret"].get("secretName", ""), **volume["secret"]}}]
            mode = volume["secret"].get("defaultMode", READABLE)
        elif "configMap" in volume or "downwardAPI" in volume:
            kind = "configMap" if "configMap" in volume else "downwardAPI"
            sources, mode = [{kind: volume[kind]}], volume[kind].get("defaultMode", READABLE)
        else:
            kind = next((key for key in volume if key != "name"), "")
            raise ConfigError(f"the moto target doesn't support volumes of the kind {kind}")
        parts = await asyncio.gather(*(self._of_source(source, volume["name"], mode) for source in sources))
        files = {_checked(path): file for part in parts for path, file in part.items()}
        if self._group is not None:
            files = {path: (content, mode | GROUPS, owner) for path, (content, mode, owner) in files.items()}
        return {
            path: (content, self.users.mode(mode, owner, self._group or 0, self._reader), owner)
            for path, (content, mode, owner) in files.items()
        }

    @property
    def _group(self) -> int | None:
        group: int | None = (self.pod["spec"].get("securityContext") or {}).get("fsGroup")
        return group

    @property
    def _reader(self) -> ContainerUser | None:
        """The user of the first container whose user isn't root."""
        containers = self.pod["spec"]["containers"]
        return next((user for each in containers if (user := SecurityContext(each, self.pod).user()).uid), None)

    def _own(self, folder: Path, files: Files) -> None:
        """Give the files in ``folder`` their owners and their group."""
        group = self._group or 0
        for owner in {owner for _, _, owner in files.values()}:
            self.users.own(owner, group, *(folder / path for path, file in files.items() if file[2] == owner))

    async def _of_source(self, source: Object, volume: str, mode: int) -> Files:
        if "serviceAccountToken" in source:
            token = source["serviceAccountToken"]
            return {token["path"]: await self._token(token, volume, mode)}
        if "downwardAPI" in source:
            return self._downward(source["downwardAPI"], mode)
        if "configMap" in source:
            return await self._entries("configmap", source["configMap"], mode)
        if "secret" in source:
            return await self._entries("secret", source["secret"], mode)
        raise ConfigError(f"the moto target doesn't support the projected source {next(iter(source), '')}")

    async def _token(self, projection: Object, volume: str, mode: int) -> tuple[bytes, int, int]:
        made = ProjectedToken(projection.get("audience", ""), projection.get("expirationSeconds", 3600))
        token = self._tokens.setdefault((volume, projection["path"]), made)
        try:
            text = await token.valid(self.request_token, self.now())
        except (ConfigError, httpx.HTTPError) as error:
            expired = "token expired and refresh failed: " if token.token else ""
            raise ConfigError(f"failed to fetch token: {expired}{said(error)}") from error
        user = _one_user(self.pod["spec"])
        return text.encode(), mode if user is None and self._group is None else PRIVATE, user or 0

    def _downward(self, source: Object, mode: int) -> Files:
        files = {}
        for item in source.get("items") or ():
            if "fieldRef" in item:
                value = field_value(self.pod, item["fieldRef"]["fieldPath"])
            else:
                value = resource_value(self.pod, item["resourceFieldRef"], self.room)
            files[item["path"]] = value.encode(), item.get("mode", mode), 0
        return files

    async def _entries(self, kind: str, source: Object, mode: int) -> Files:
        obj = await referenced(kind, source, self.fetch)
        read = base64.b64decode if kind == "secret" else str.encode
        entries: dict[str, bytes] = {key: read(value) for key, value in (obj.get("data") or {}).items()}
        entries |= {key: base64.b64decode(value) for key, value in (obj.get("binaryData") or {}).items()}
        files = {}
        for item in source.get("items") or [{"key": key, "path": key} for key in entries]:
            if item["key"] in entries:
                files[item["path"]] = entries[item["key"]], item.get("mode", mode), 0
            elif not source.get("optional"):
                of = {"configmap": "configmap references non-existent config"}
                raise ConfigError(f"{of.get(kind, 'references non-existent secret')} key: {item['key']}")
        return files


def folder_in_memory(node: Path) -> Path | None:
    """Make a folder in memory for the node with the folder ``node``; None if this machine has no room for it."""
    folder = SHARED_MEMORY / f"labkit-{hashlib.sha256(str(node).encode()).hexdigest()[:12]}"
    kinds = {each.mountpoint: each.fstype for each in psutil.disk_partitions(all=True)}
    if kinds.get(str(SHARED_MEMORY)) != "tmpfs" or shutil.disk_usage(SHARED_MEMORY).free < LEAST_MEMORY:
        return None
    try:
        shutil.rmtree(folder, ignore_errors=True)  # left by a node that was killed
        folder.mkdir(mode=0o700)  # fails if it's another user's
    except OSError:
        return None
    return folder


def project(files: Files, folder: Path, own: Callable[[Path, Files], None] = lambda *_: None) -> None:
    """Replace all files of a volume at once, so that a reader sees either the old files or the new ones.

    `own(folder, files)` gives the new files in the folder their owners.

    As in a kubelet's volume, each file is a link through the link `..data`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    now = time.strftime("..%Y_%m_%d_%H_%M_%S.", time.gmtime())
    fresh = Path(tempfile.mkdtemp(prefix=now, dir=folder))
    try:
        _write(files, fresh)
        own(fresh, files)
    except (
        OSError,
        subprocess.SubprocessError,
    ):  # on a full disk, the files written so far would take up the space for good
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    data, draft = folder / "..data", folder / "..data_tmp"
    before = data.resolve() if data.is_symlink() else None
    draft.unlink(missing_ok=True)
    draft.symlink_to(fresh.name)
    draft.replace(data)
    names = {path.split("/")[0] for path in files}
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"..data/{name}")
    for link in folder.iterdir():
        if not link.name.startswith("..") and link.name not in names:
            link.unlink()
    if before:
        shutil.rmtree(before, ignore_errors=True)


def _write(files: Files, folder: Path) -> None:
    folder.chmod(0o755)
    for path, (content, mode, _) in files.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=PRIVATE)
        file.write_bytes(content)
        file.chmod(mode)


def _of_this_machine(source: Object) -> Path:
    path, kind = Path(source["path"]), source.get("type") or ""
    there = {
        "": path.exists(),
        "Directory": path.is_dir(),
        "DirectoryOrCreate": path.is_dir(),
        "File": path.is_file(),
        "FileOrCreate": path.is_file(),
        "Socket": path.is_socket(),
        "CharDevice": path.is_char_device(),
        "BlockDevice": path.is_block_device(),
    }
    if not there.get(kind):
        kinds = {"Directory": "a directory", "File": "a file", "Socket": "a socket file"}
        what = kinds.get(kind.removesuffix("OrCreate"), "there")
        raise ConfigError(f"hostPath type check failed: {path} is not {what}, and the moto target doesn't create it")
    return path


def _one_user(spec: Object) -> int | None:
    """Return the user that the spec sets for all containers; None if it doesn't set one.

    https://github.com/kubernetes/kubernetes/blob/v1.36.0/pkg/volume/util/util.go
    """
    of_pod = (spec.get("securityContext") or {}).get("runAsUser")
    containers = [*(spec.get("initContainers") or ()), *spec["containers"]]
    users = {(container.get("securityContext") or {}).get("runAsUser", of_pod) for container in containers}
    return users.pop() if len(users) == 1 else None


def _checked(path: str) -> str:
    if path.startswith("/") or ".." in path.split("/") or "\0" in path:
        raise ConfigError(f'invalid path "{path}"')
    return path
