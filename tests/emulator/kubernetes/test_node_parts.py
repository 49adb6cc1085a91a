"""What a node is made of, each part alone."""

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from labkit.emulator.kubernetes.container_environment import ConfigError, expanded, field_value
from labkit.emulator.kubernetes.container_logs import ContainerLog, shown
from labkit.emulator.kubernetes.images import UnknownImage, entrypoint, repository
from labkit.emulator.kubernetes.mounts import Mount, MountRefused, Mounts
from labkit.emulator.kubernetes.processes import HERE, TOOLS, permitted
from labkit.emulator.kubernetes.volumes import ProjectedToken, Volumes

HOUR = 3600.0


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("python", "python"),
        ("python:3.12-slim", "python"),
        ("docker.io/library/python:3.12", "python"),
        ("amazon/aws-cli", "amazon/aws-cli"),
        ("public.ecr.aws/aws-cli/aws-cli:2.17", "aws-cli/aws-cli"),
        ("localhost:5000/amazon/aws-cli:1", "amazon/aws-cli"),
        ("localhost/amazon/aws-cli", "amazon/aws-cli"),
        ("amazon/aws-cli@sha256:0123", "amazon/aws-cli"),
        ("amazon/aws-cli:2@sha256:0123", "amazon/aws-cli"),
    ],
)
def test_an_images_repository(image, name):
    assert repository(image) == name


def test_an_unknown_image_is_refused_with_the_known_ones():
    images = {"public.ecr.aws/aws-cli/aws-cli": ["/bin/aws"], "python": ["/bin/python"]}
    assert entrypoint("aws-cli/aws-cli:2", images) == ["/bin/aws"]
    with pytest.raises(UnknownImage, match=r"knows: public\.ecr\.aws/aws-cli/aws-cli, python$"):
        entrypoint("nginx", images)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("$(A)", "1"),
        ("x$(A)y$(A)", "x1y1"),
        ("$(NONE)", "$(NONE)"),
        ("$$(A)", "$(A)"),
        ("$$$(A)", "$1"),
        ("$A $", "$A $"),
        ("$(A", "$(A"),
    ],
)
def test_references(text, result):
    assert expanded(text, {"A": "1"}) == result


def test_fields_of_the_pod():
    metadata = {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "1"}, "annotations": {"x/y": "z"}}
    pod = {"metadata": metadata, "spec": {"nodeName": "node-1"}}
    assert field_value(pod, "metadata.labels") == 'a="1"\nb="2"'
    assert field_value(pod, "metadata.annotations['x/y']") == "z"
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.host"):
        field_value(pod, "spec.host")


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("/data", "/pods/data"),
        ("/data/x", "/pods/data/x"),
        ("--file=/data/x,/data", "--file=/pods/data/x,/pods/data"),
        ("file:///data/x", "file:///pods/data/x"),
        ("/data/deep/x", "/pods/deep/x"),
        ("/database", "/database"),
        ("/my/database", "/my/database"),
        ("/opt/data-1", "/opt/data-1"),
        ("x/data", "x/data"),
    ],
)
def test_paths_are_mapped(text, result):
    mounts = Mounts([Mount("/data", Path("/pods/data")), Mount("/data/deep/", Path("/pods/deep"))])
    assert mounts.rewritten(text) == result


def test_a_path_of_the_container_on_this_machine():
    mounts = Mounts([Mount("/data", Path("/pods/data")), Mount("/data/deep", Path("/pods/deep"))])
    assert mounts.on_host("/data/deep/x") == Path("/pods/deep/x")
    assert mounts.on_host("/data/x") == Path("/pods/data/x")
    assert mounts.on_host("/database") == Path("/database")


def test_nothing_can_be_mounted_over_the_root(tmp_path):
    with pytest.raises(MountRefused, match='nothing can be mounted at "/"'):
        Mounts([Mount("/", tmp_path)]).table(tmp_path / "root", new_proc=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try another user; the other tests are an ordinary user's")
def test_an_ordinary_user_can_have_mounts():
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "volume").mkdir()
        (folder / "volume/token").write_text("secret")
        mounts = [Mount("/var/run/secrets/x", folder / "volume", True), Mount("/not here/y", folder / "volume")]
        own_processes = asyncio.run(permitted(folder))[1]
        table = Mounts(mounts).table(folder / "root", new_proc=own_processes)
        (folder / "table").write_text(table)
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, 65534, 65534, follow_symlinks=False)
        script = shutil.copy(HERE / "sandbox.sh", folder)
        look = "cat /run/secrets/x/token '/not here/y/token'; touch /run/secrets/x/z 2>&1 || true; ls /run"
        # The same mounts, and a look instead of the wait.
        Path(script).write_text(Path(script).read_text().replace("exec cat", look))
        Path(script).chmod(0o755)
        more = ["--pid", "--fork"] if own_processes else []
        command = ["unshare", "--user", "--map-root-user", "--mount", *more, "sh", script]
        command += [folder / "table", folder / "root"]
        ordinary = {"user": 65534, "group": 65534, "extra_groups": [], "env": TOOLS, "cwd": "/"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, **ordinary)
        assert done.stdout.startswith("ready\nsecretsecret"), done.stderr
        assert "Read-only file system" in done.stdout
        assert done.stdout.endswith("secrets\n")
    finally:
        shutil.rmtree(folder)


def test_a_token_is_due_at_four_fifths_of_its_life_or_after_a_day():
    token = ProjectedToken(Path("t"), "a", 3600, issued=0, expires=HOUR)
    assert not token.due(0.79 * HOUR)
    assert token.due(0.8 * HOUR)
    long = ProjectedToken(Path("t"), "a", 3600, issued=0, expires=48 * HOUR)
    assert not long.due(23 * HOUR)
    assert long.due(24 * HOUR)


def volumes(tmp_path, *found, **objects):
    pod = {"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {"volumes": list(found)}}

    async def fetch(kind, name):
        return objects.get(f"{kind}_{name}")

    async def token(audience, seconds):
        return f"{audience}-{seconds}", 1000.0 + seconds

    return Volumes(pod, tmp_path, fetch=fetch, request_token=token)


def test_volumes_are_filled(tmp_path):
    projected = [
        {"serviceAccountToken": {"audience": "sts", "expirationSeconds": 600, "path": "token"}},
        {"configMap": {"name": "c", "items": [{"key": "a", "path": "deep/a", "mode": 0o400}]}},
        {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
        {"secret": {"name": "none", "optional": True}},
    ]
    made = volumes(
        tmp_path,
        {"name": "all", "projected": {"sources": projected}},
        {"name": "s", "secret": {"secretName": "s", "defaultMode": 0o440}},
        {"name": "e", "emptyDir": {}},
        configmap_c={"data": {"a": "A", "b": "B"}},
        secret_s={"data": {"key": "aGlkZGVu"}},
    )
    asyncio.run(made.fill(1000.0))
    files = {str(file.relative_to(tmp_path)): file for file in tmp_path.rglob("*") if file.is_file()}
    assert {name: (file.read_text(), oct(file.stat().st_mode & 0o777)) for name, file in files.items()} == {
        "all/token": ("sts-600", "0o600"),
        "all/deep/a": ("A", "0o400"),
        "all/ns": ("n", "0o644"),
        "s/key": ("hidden", "0o440"),
    }
    assert made.folders["e"].is_dir()


@pytest.mark.parametrize(
    ("volume", "says"),
    [
        ({"configMap": {"name": "no"}}, 'volume "v" : configmap "no" not found'),
        ({"secret": {"secretName": "no"}}, 'volume "v" : secret "no" not found'),
        (
            {"configMap": {"name": "c", "items": [{"key": "no", "path": "x"}]}},
            "references non-existent configmap key: no",
        ),
        ({"configMap": {"name": "c", "items": [{"key": "a", "path": "../x"}]}}, 'invalid path "../x"'),
        ({"nfs": {}}, "the moto target knows no volumes of the kind nfs"),
    ],
)
def test_a_volume_that_cannot_be_filled(tmp_path, volume, says):
    with pytest.raises(ConfigError) as refused:
        asyncio.run(volumes(tmp_path, {"name": "v", **volume}, configmap_c={"data": {"a": "A"}}).fill(0.0))
    assert says in str(refused.value)


def test_a_log_keeps_whole_lines_parts_and_what_had_no_end(tmp_path):
    async def written():
        log = ContainerLog(tmp_path / "log", lambda: 1700000000.25)
        reader = asyncio.StreamReader()
        reader.feed_data(b"one\n" + b"x" * 20000 + b"\nrest")
        reader.feed_eof()
        await log.copy("stdout", reader.read)
        log.close()
        return [line async for line in log.lines(follow=True)]

    lines = asyncio.run(written())
    assert lines[0] == b"2023-11-14T22:13:20.250000000Z stdout F one\n"
    assert b"".join(shown(line, timestamps=False) for line in lines) == b"one\n" + b"x" * 20000 + b"\nrest"
    assert shown(lines[0], timestamps=True) == b"2023-11-14T22:13:20.250000000Z one\n"
