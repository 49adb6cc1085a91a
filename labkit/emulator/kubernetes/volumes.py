"""A pod's volumes: folders in the pod's folder, filled with what the spec says.

https://kubernetes.io/docs/concepts/storage/volumes/
"""

import base64
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from labkit.emulator.kubernetes.container_environment import ConfigError, field_value

DAY = 24 * 3600.0

Fetch = Callable[[str, str], Awaitable[dict | None]]
RequestToken = Callable[[str, int], Awaitable[tuple[str, float]]]


@dataclass
class ProjectedToken:
    """One service account token in a volume. It is renewed at 80 % of its life, after a day at the latest.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#serviceaccount-token-volume-projection
    """

    file: Path
    audience: str
    seconds: int
    issued: float = 0.0
    expires: float = 0.0

    def due(self, now: float) -> bool:
        """Whether lab time asks for a new token. A clock that was set back does, too: the token is not valid yet."""
        return now >= self.issued + min(0.8 * (self.expires - self.issued), DAY) or now < self.issued - 1

    async def renew(self, request: RequestToken, now: float) -> None:
        """Write a new token. `request(audience, seconds)` returns it and when it expires (epoch seconds)."""
        token, self.expires = await request(self.audience, self.seconds)
        self.issued = now
        write(self.file, token.encode(), 0o600)


class Volumes:
    """The volumes of one pod, each a folder in `folder` (or a folder of this machine, for hostPath)."""

    def __init__(self, pod: dict, folder: Path, *, fetch: Fetch, request_token: RequestToken) -> None:
        self._pod = pod
        self._folder = folder
        self._fetch = fetch
        self._request_token = request_token
        self.folders: dict[str, Path] = {}
        self.tokens: list[ProjectedToken] = []

    async def fill(self, now: float) -> None:
        """Make all volumes. May be called again after a failure. Raises ConfigError where something is missing."""
        self.tokens.clear()
        for volume in self._pod["spec"].get("volumes") or ():
            name = volume["name"]
            if "hostPath" in volume:
                self.folders[name] = Path(volume["hostPath"]["path"])
                if not self.folders[name].exists():
                    raise ConfigError(f'MountVolume.SetUp failed for volume "{name}": hostPath does not exist')
                continue
            folder = self._folder / name
            folder.mkdir(parents=True, exist_ok=True)
            self.folders[name] = folder
            try:
                await self._fill(volume, folder)
            except ConfigError as error:
                raise ConfigError(f'MountVolume.SetUp failed for volume "{name}" : {error}') from error
        for token in self.tokens:
            await token.renew(self._request_token, now)

    async def renew_due(self, now: float) -> None:
        for token in self.tokens:
            if token.due(now):
                await token.renew(self._request_token, now)

    async def _fill(self, volume: dict, folder: Path) -> None:
        if "emptyDir" in volume:
            folder.chmod(0o777)
        elif "projected" in volume:
            mode = volume["projected"].get("defaultMode", 0o644)
            for source in volume["projected"].get("sources") or ():
                await self._project(source, folder, mode)
        elif "secret" in volume:
            source = {"name": volume["secret"].get("secretName", ""), **volume["secret"]}
            await self._project({"secret": source}, folder, source.get("defaultMode", 0o644))
        elif "configMap" in volume or "downwardAPI" in volume:
            kind = "configMap" if "configMap" in volume else "downwardAPI"
            await self._project({kind: volume[kind]}, folder, volume[kind].get("defaultMode", 0o644))
        else:
            kind = next((key for key in volume if key != "name"), "")
            raise ConfigError(f"the moto target knows no volumes of the kind {kind}")

    async def _project(self, source: dict, folder: Path, mode: int) -> None:
        if "serviceAccountToken" in source:
            asked = source["serviceAccountToken"]
            file = _inside(folder, asked["path"])
            self.tokens.append(ProjectedToken(file, asked.get("audience", ""), asked.get("expirationSeconds", 3600)))
        elif "downwardAPI" in source:
            for item in source["downwardAPI"].get("items") or ():
                if "fieldRef" not in item:
                    raise ConfigError("the moto target does not know resourceFieldRef")
                value = field_value(self._pod, item["fieldRef"]["fieldPath"])
                write(_inside(folder, item["path"]), value.encode(), item.get("mode", mode))
        elif "configMap" in source:
            await self._project_entries("configmap", source["configMap"], folder, mode)
        elif "secret" in source:
            await self._project_entries("secret", source["secret"], folder, mode)
        else:
            raise ConfigError(f"the moto target knows no projected source {next(iter(source), '')}")

    async def _project_entries(self, kind: str, source: dict, folder: Path, mode: int) -> None:
        found = await self._fetch(kind, source.get("name", ""))
        if found is None:
            if source.get("optional"):
                return
            raise ConfigError(f'{kind} "{source.get("name", "")}" not found')
        entries = {key: value.encode() for key, value in (found.get("data") or {}).items()}
        if kind == "secret":
            entries = {key: base64.b64decode(value) for key, value in entries.items()}
        for key, value in (found.get("binaryData") or {}).items():
            entries[key] = base64.b64decode(value)
        items = source.get("items") or [{"key": key, "path": key} for key in entries]
        for item in items:
            if item["key"] in entries:
                write(_inside(folder, item["path"]), entries[item["key"]], item.get("mode", mode))
            elif not source.get("optional"):
                raise ConfigError(f"references non-existent {kind} key: {item['key']}")


def write(file: Path, content: bytes, mode: int) -> None:
    """Put a file in place at once: a reader sees the old or the new content, never a part."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode=0o600, exist_ok=False)
    draft.write_bytes(content)
    draft.chmod(mode)
    draft.replace(file)


def _inside(folder: Path, path: str) -> Path:
    if path.startswith("/") or ".." in path.split("/"):
        raise ConfigError(f'invalid path "{path}"')
    return folder / path
