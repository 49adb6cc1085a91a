"""A pod's volumes: their contents, file modes and updates. https://kubernetes.io/docs/concepts/storage/volumes/"""

import asyncio
import base64
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from labkit.simulator.kubernetes.node.container_environment import ConfigError
from labkit.simulator.kubernetes.node.volumes import ProjectedToken, Volumes

HOUR = 3600.0
APP = {"containerName": "app"}
TOKEN = {"serviceAccountToken": {"audience": "sts", "expirationSeconds": 600, "path": "token"}}


@dataclass
class World:
    """The sources of volumes: objects by kind and name, tokens, and a clock."""

    objects: dict[tuple[str, str], dict] = field(default_factory=dict)
    now: float = 1000.0
    refuses: str = ""
    issued: int = 0

    def volumes(self, folder: Path, *found: dict, **spec) -> Volumes:
        metadata = {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "one"}}
        containers = [{"name": "app", "resources": {"limits": {"cpu": "2"}}}]
        pod = {"metadata": metadata, "spec": {"volumes": list(found), "containers": containers, **spec}}
        return Volumes(
            pod, folder, fetch=self.fetch, request_token=self.token, now=lambda: self.now, room={"memory": "1Gi"}
        )

    async def fetch(self, kind: str, name: str) -> dict | None:
        return self.objects.get((kind, name))

    async def token(self, audience: str, seconds: int) -> tuple[str, float]:
        if self.refuses:
            raise ConfigError(self.refuses)
        self.issued += 1
        return f"{audience}-{seconds}-{self.issued}", self.now + seconds


@pytest.fixture
def world() -> World:
    return World()


def contents(folder: Path) -> dict[str, tuple[str, str]]:
    """Return the files that a container sees, by name, with their content and mode."""
    found = {}
    for top in folder.iterdir():
        if top.name.startswith(".."):
            continue
        for file in [top] if top.is_file() else [path for path in top.rglob("*") if path.is_file()]:
            mode = oct(file.stat().st_mode & 0o777)
            found[str(file.relative_to(folder))] = file.read_text(), mode
    return found


def filled(volumes: Volumes) -> None:
    assert asyncio.run(volumes.fill()) == []


def test_a_projected_volume_has_the_files_of_all_its_sources(world, tmp_path):
    world.objects["configmap", "c"] = {"data": {"a": "A", "b": "B"}}
    sources = [
        TOKEN,
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
        {"downwardAPI": {"items": [
            {"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}},
            {"path": "cpu", "resourceFieldRef": {**APP, "resource": "limits.cpu"}},
            {"path": "mem", "resourceFieldRef": {**APP, "resource": "limits.memory", "divisor": "2Mi"}},
        ]}},
        {"secret": {"name": "none", "optional": True}},
    ]  # fmt: skip
    filled(world.volumes(tmp_path, {"name": "all", "projected": {"sources": sources, "defaultMode": 0o640}}))
    assert contents(tmp_path / "all") == {
        "token": ("sts-600-1", "0o640"),
        "deep/a": ("A", "0o400"),
        "ns": ("n", "0o640"),
        "cpu": ("2", "0o640"),
        "mem": ("512", "0o640"),
    }


def test_secret_config_map_downward_api_and_empty_dir_volumes_are_set_up(world, tmp_path):
    world.objects["secret", "s"] = {"data": {"key": base64.b64encode(b"hidden").decode()}}
    world.objects["configmap", "c"] = {"data": {"a": "A"}, "binaryData": {"b": base64.b64encode(b"B").decode()}}
    volumes = world.volumes(
        tmp_path,
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "c", "configMap": {"name": "c"}},
        {"name": "d", "downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"name": "e", "emptyDir": {}},
    )
    filled(volumes)
    assert contents(tmp_path / "s") == {"key": ("hidden", "0o440")}
    assert contents(tmp_path / "c") == {"a": ("A", "0o644"), "b": ("B", "0o644")}
    assert contents(tmp_path / "d") == {"labels": ('app="one"', "0o644")}
    assert volumes.folders["e"].is_dir()


@pytest.mark.parametrize(("spec", "mode"), [
    ({}, "0o644"),
    ({"securityContext": {"runAsUser": 1000}}, "0o600"),
    ({"containers": [{"name": "a", "securityContext": {"runAsUser": 1}}, {"name": "b"}]}, "0o644"),
    ({"securityContext": {"fsGroup": 2000}}, "0o640"),
])  # fmt: skip
def test_a_token_files_mode_depends_on_the_pods_user_and_group(world, tmp_path, spec, mode):
    filled(world.volumes(tmp_path, {"name": "v", "projected": {"sources": [TOKEN]}}, **spec))
    assert contents(tmp_path / "v")["token"][1] == mode


@pytest.mark.parametrize(("volume", "says"), [
    ({"configMap": {"name": "no"}}, 'configmap "no" not found'),
    ({"secret": {"secretName": "no"}}, 'secret "no" not found'),
    ({"configMap": {"name": "c", "items": [{"key": "no", "path": "x"}]}},
     "configmap references non-existent config key: no"),
    ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../x"}]}}, 'invalid path "../x"'),
    ({"nfs": {}}, "the moto target doesn't support volumes of the kind nfs"),
])  # fmt: skip
def test_a_volume_that_cannot_be_set_up_is_reported_and_the_others_are_filled(world, tmp_path, volume, says):
    world.objects["configmap", "c"] = {"data": {"a": "A"}}
    volumes = world.volumes(tmp_path, {"name": "v", **volume}, {"name": "ok", "configMap": {"name": "c"}})
    assert asyncio.run(volumes.fill()) == [f'MountVolume.SetUp failed for volume "v" : {says}']
    assert contents(tmp_path / "ok")


def test_a_file_that_cannot_be_written_is_reported_and_leaves_no_files(world, tmp_path):
    world.objects["configmap", "c"] = {"data": {"a": "A"}}
    items = [{"key": "a", "path": "a"}, {"key": "a", "path": "x" * 300}]
    volumes = world.volumes(tmp_path, {"name": "v", "configMap": {"name": "c", "items": items}})
    for _ in range(3):
        (told,) = asyncio.run(volumes.fill())
        assert told.startswith('MountVolume.SetUp failed for volume "v" : file name too long: /'), told
        assert len(told) < 300
    assert not list((tmp_path / "v").iterdir())


def test_a_changed_config_map_replaces_all_files_of_a_volume_at_once(world, tmp_path):
    world.objects["configmap", "c"] = {"data": {"a": "1", "gone": "x"}}
    volumes = world.volumes(tmp_path, {"name": "v", "configMap": {"name": "c"}})
    filled(volumes)
    held = (tmp_path / "v/..data").resolve()
    assert (held / "a").read_text() == "1"

    world.objects["configmap", "c"] = {"data": {"a": "2", "new": "y"}}
    filled(volumes)

    assert contents(tmp_path / "v") == {"a": ("2", "0o644"), "new": ("y", "0o644")}
    assert not held.exists()
    link = (tmp_path / "v/..data").readlink()
    filled(volumes)
    assert (tmp_path / "v/..data").readlink() == link, "nothing changed, and the files were written again"


def test_a_token_is_due_for_renewal_after_80_percent_of_its_life_or_a_day():
    token = ProjectedToken("a", 3600, issued=0, expires=HOUR)
    assert not token.due(0.79 * HOUR)
    assert token.due(0.8 * HOUR)
    long = ProjectedToken("a", 3600, issued=0, expires=48 * HOUR)
    assert not long.due(23 * HOUR)
    assert long.due(24 * HOUR)
    assert long.due(-60), "the clock was set back to before its time"


def test_a_pod_keeps_its_token_until_it_expires_if_renewal_fails(world, tmp_path):
    volumes = world.volumes(tmp_path, {"name": "v", "projected": {"sources": [TOKEN]}})
    filled(volumes)
    world.refuses = 'serviceaccounts "gone" not found'
    world.now += 500
    assert volumes.due
    filled(volumes)
    assert contents(tmp_path / "v")["token"][0] == "sts-600-1"
    world.now += 200
    [said] = asyncio.run(volumes.fill())
    assert said == (
        'MountVolume.SetUp failed for volume "v" : failed to fetch token: '
        'token expired and refresh failed: serviceaccounts "gone" not found'
    )
    world.refuses = ""
    filled(volumes)
    assert contents(tmp_path / "v")["token"][0] == "sts-600-2"
