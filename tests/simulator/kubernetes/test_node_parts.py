"""The parts of a node, one by one: images, variables, mounts, logs and the API client."""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import tempfile
from pathlib import Path

import pytest

from labkit.simulator.certificates import Authority
from labkit.simulator.kubernetes.node import container_logs, processes
from labkit.simulator.kubernetes.node.client import MOST_KEPT, NodeClient
from labkit.simulator.kubernetes.node.container_environment import ConfigError, expanded, field_value, resource_value
from labkit.simulator.kubernetes.node.container_logs import ContainerLog, shown
from labkit.simulator.kubernetes.node.images import Image, ImageError, image_of, of_this_environment, repository
from labkit.simulator.kubernetes.node.mounts import Mount, MountRefused, Mounts
from labkit.simulator.kubernetes.node.pod import _resolv_conf
from labkit.simulator.kubernetes.node.processes import HERE, TOOLS, permitted
from labkit.simulator.kubernetes.node.root import Root
from labkit.simulator.kubernetes.node.users import Users
from tests import another_user


@pytest.mark.parametrize(("image", "name"), [
    ("python", "python"),
    ("python:3.12-slim", "python"),
    ("docker.io/library/python:3.12", "python"),
    ("public.ecr.aws/docker/library/python:3.12", "python"),
    ("amazon/aws-cli", "amazon/aws-cli"),
    ("public.ecr.aws/aws-cli/aws-cli:2.17", "aws-cli/aws-cli"),
    ("localhost:5000/amazon/aws-cli:1", "amazon/aws-cli"),
    ("localhost/amazon/aws-cli", "amazon/aws-cli"),
    ("amazon/aws-cli@sha256:0123", "amazon/aws-cli"),
    ("amazon/aws-cli:2@sha256:0123", "amazon/aws-cli"),
])  # fmt: skip
def test_the_repository_is_read_from_an_images_name(image, name):
    assert repository(image) == name


IMAGES = {"public.ecr.aws/aws-cli/aws-cli": Image(entrypoint=["/bin/aws"]), "python": Image(cmd=["python3"])}


def test_a_known_image_runs_its_program():
    assert image_of({"image": "aws-cli/aws-cli:2"}, IMAGES).arguments([], []) == ["/bin/aws"]


@pytest.mark.parametrize(("name", "command", "args", "runs"), [
    ("python:3", [], [], ["python3"]),
    ("python:3", [], ["sh", "-c", "echo hi"], ["sh", "-c", "echo hi"]),
    ("python:3", ["sh"], [], ["sh"]),
    ("bitnami/kubectl", [], [], ["kubectl", "--help"]),
    ("bitnami/kubectl", [], ["get", "pods"], ["kubectl", "get", "pods"]),
    ("bitnami/kubectl", ["sh"], [], ["sh"]),
    ("bitnami/kubectl", ["sh"], ["-c", "id"], ["sh", "-c", "id"]),
])  # fmt: skip
def test_a_command_replaces_an_images_entrypoint_and_arguments_its_cmd(name, command, args, runs):
    assert image_of({"image": name}, of_this_environment()).arguments(command, args) == runs


@pytest.mark.parametrize(("container", "reason", "says"), [
    ({"image": "nginx"}, "ErrImagePull", r"work: public\.ecr\.aws/aws-cli/aws-cli, python\. Use one of them"),
    ({"image": "nginx", "imagePullPolicy": "Never"}, "ErrImageNeverPull",
     'Container image "nginx" is not present with pull policy of Never'),
    ({"image": "Nginx"}, "InvalidImageName", "invalid reference format: repository name must be lowercase$"),
    ({"image": "a b"}, "InvalidImageName", 'couldn\'t parse image name "a b": invalid reference format$'),
])  # fmt: skip
def test_an_unknown_or_invalid_image_says_why_it_cannot_be_pulled(container, reason, says):
    with pytest.raises(ImageError, match=says) as refused:
        image_of(container, IMAGES)
    assert refused.value.reason == reason


@pytest.mark.parametrize(("text", "result"), [
    ("$(A)", "1"),
    ("x$(A)y$(A)", "x1y1"),
    ("$(NONE)", "$(NONE)"),
    ("$$(A)", "$(A)"),
    ("$$$(A)", "$1"),
    ("$A $", "$A $"),
    ("$(A", "$(A"),
])  # fmt: skip
def test_variable_references_are_expanded(text, result):
    assert expanded(text, {"A": "1"}) == result


CLUSTER = "n.svc.cluster.local svc.cluster.local cluster.local"
OWN = {"nameservers": ["127.0.0.1", "127.0.0.2"], "searches": ["till.example", "cluster.local"],
       "options": [{"name": "ndots", "value": "2"}, {"name": "edns0"}]}  # fmt: skip


@pytest.mark.parametrize(("spec", "lines"), [
    ({}, [f"search {CLUSTER}", "nameserver 127.0.0.1", "options ndots:5"]),
    ({"hostNetwork": True}, ["nameserver 127.0.0.1"]),
    ({"dnsPolicy": "Default"}, ["nameserver 127.0.0.1"]),
    ({"hostNetwork": True, "dnsPolicy": "ClusterFirstWithHostNet"},
     [f"search {CLUSTER}", "nameserver 127.0.0.1", "options ndots:5"]),
    ({"dnsConfig": OWN}, [f"search {CLUSTER} till.example", "nameserver 127.0.0.1", "nameserver 127.0.0.2",
                          "options ndots:2 edns0"]),
    ({"dnsPolicy": "None", "dnsConfig": OWN}, ["search till.example cluster.local", "nameserver 127.0.0.1",
                                               "nameserver 127.0.0.2", "options ndots:2 edns0"]),
])  # fmt: skip
def test_resolv_conf_follows_the_pods_dns_policy(spec, lines):
    pod = {"metadata": {"namespace": "n"}, "spec": {"dnsPolicy": "ClusterFirst", **spec}}
    assert _resolv_conf(pod).splitlines() == lines


def test_field_references_read_the_pods_metadata():
    metadata = {"name": "p", "namespace": "n", "uid": "u", "labels": {"b": "2", "a": "1"}, "annotations": {"x/y": "z"}}
    pod = {"metadata": metadata, "spec": {"nodeName": "node-1"}}
    assert field_value(pod, "metadata.labels") == 'a="1"\nb="2"'
    assert field_value(pod, "metadata.annotations['x/y']") == "z"
    with pytest.raises(ConfigError, match=r"unsupported fieldPath: spec\.host"):
        field_value(pod, "spec.host")


@pytest.mark.parametrize(("reference", "value"), [
    ({"resource": "limits.cpu"}, "2"),
    ({"resource": "limits.cpu", "divisor": "1m"}, "1500"),
    ({"resource": "limits.memory"}, str(64 * 2**20)),
    ({"resource": "limits.memory", "divisor": "1Mi"}, "64"),
    ({"resource": "limits.memory", "divisor": "1M"}, "68"),
    ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
    ({"resource": "requests.memory"}, "0"),
    ({"resource": "limits.cpu", "containerName": "free"}, "4"),
    ({"resource": "limits.memory", "containerName": "free", "divisor": "1Ki"}, "8000"),
])  # fmt: skip
def test_resource_references_read_limits_and_requests(reference, value):
    named = {"name": "app", "resources": {"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "0.25"}}}
    pod = {"spec": {"containers": [named, {"name": "free"}]}}
    assert resource_value(pod, reference, {"cpu": "4", "memory": "8000Ki"}, named) == value


@pytest.mark.parametrize(("text", "result"), [
    ("/data", "/pods/data"),
    ("/data/x", "/pods/data/x"),
    ("--file=/data/x,/data", "--file=/pods/data/x,/pods/data"),
    ("file:///data/x", "file:///pods/data/x"),
    ("/data/deep/x", "/pods/deep/x"),
    ("/database", "/database"),
    ("/my/database", "/my/database"),
    ("/opt/data-1", "/opt/data-1"),
    ("x/data", "x/data"),
])  # fmt: skip
def test_mount_paths_in_a_text_are_mapped_to_this_machine(text, result):
    mounts = Mounts([Mount("/data", Path("/pods/data")), Mount("/data/deep/", Path("/pods/deep"))])
    assert mounts.rewritten(text) == result


def test_a_container_path_is_found_on_this_machine():
    mounts = Mounts([Mount("/data", Path("/pods/data")), Mount("/data/deep", Path("/pods/deep"))])
    assert mounts.on_host("/data/deep/x") == Path("/pods/deep/x")
    assert mounts.on_host("/data/x") == Path("/pods/data/x")
    assert mounts.on_host("/database") == Path("/database")


def test_nothing_can_be_mounted_over_the_root(tmp_path):
    with pytest.raises(MountRefused, match='nothing can be mounted at "/"'):
        Root(tmp_path / "root", [Mount("/", tmp_path)], new_proc=False)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can try another user; the other tests are an ordinary user's")
def test_an_ordinary_user_can_make_private_mounts():
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "volume").mkdir()
        (folder / "volume/token").write_text("secret")
        mounts = [Mount("/var/run/secrets/x", folder / "volume", True), Mount("/not here/y", folder / "volume")]
        own_processes = asyncio.run(permitted(folder))[1]
        root = Root(folder / "root", mounts, new_proc=own_processes)
        (folder / "table").write_text("".join(root.lines))
        for path in [folder, *folder.rglob("*")]:
            os.chown(path, another_user.UID, another_user.UID, follow_symlinks=False)
        script = shutil.copy(HERE / "sandbox.sh", folder)
        look = "cat /run/secrets/x/token '/not here/y/token'; touch /run/secrets/x/z 2>&1 || true; ls /run"
        # Replace the script's wait with commands that look at the mounts.
        Path(script).write_text(Path(script).read_text().replace("exec cat", look))
        Path(script).chmod(0o755)
        more = ["--pid", "--fork"] if own_processes else []
        command = [*another_user.command(), "unshare", "--user", "--map-root-user", "--mount", *more, "sh", script]
        command += [folder / "table", folder / "root", ""]
        done = subprocess.run(command, input="\n", capture_output=True, text=True, check=False, env=TOOLS, cwd="/")
        assert done.stdout.startswith("unshared\nready\nsecretsecret"), done.stderr
        assert "Read-only file system" in done.stdout
        assert done.stdout.endswith("secrets\n")
    finally:
        shutil.rmtree(folder)


def test_a_log_keeps_long_lines_and_a_last_line_without_an_end(tmp_path):
    async def written():
        log = ContainerLog(tmp_path / "log", lambda: 1700000000.25)
        reader = asyncio.StreamReader()
        reader.feed_data(b"one\n" + b"x" * 20000 + b"\nrest")
        reader.feed_eof()
        await log.copy("stdout", reader.read)
        log.close()
        return [line async for lines in log.lines(follow=True) for line in lines]

    lines = asyncio.run(written())
    assert lines[0] == b"2023-11-14T22:13:20.250000000Z stdout F one\n"
    assert b"".join(shown(line, timestamps=False) for line in lines) == b"one\n" + b"x" * 20000 + b"\nrest"
    assert shown(lines[0], timestamps=True) == b"2023-11-14T22:13:20.250000000Z one\n"


def test_a_full_log_starts_over_and_its_follower_misses_no_line(tmp_path, monkeypatch):
    monkeypatch.setattr(container_logs, "LONGEST", 10_000)
    sent = [f"line {number}".encode() for number in range(1000)]

    async def written() -> tuple[list[bytes], list[bytes]]:
        log = ContainerLog(tmp_path / "log", lambda: 1700000000.25)
        pieces = iter([*(line + b"\n" for line in sent), b""])

        async def read(_: int) -> bytes:
            await asyncio.sleep(0)
            return next(pieces)

        async def follow() -> list[bytes]:
            return [line async for lines in log.lines(follow=True) for line in lines]

        following = asyncio.create_task(follow())
        await log.copy("stdout", read)
        log.close()
        return await following, [line async for lines in log.lines() for line in lines]

    followed, left = asyncio.run(written())
    assert [shown(line, timestamps=False).strip() for line in followed] == sent
    assert 0 < len(left) < 300
    assert followed[-len(left) :] == left
    assert (tmp_path / "log").stat().st_size < 11_000


def test_a_node_closes_surplus_connections_after_many_parallel_requests():
    """After a restart of the lab's server, all pods of a class start at once."""
    authority, asked = Authority.create("cluster"), 40
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue("api", ips=["127.0.0.1"]).load_into(context)

    async def connections() -> int:
        opened: set[asyncio.StreamWriter] = set()
        all_asked, closed = asyncio.Event(), asyncio.Event()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            opened.add(writer)
            with contextlib.suppress(asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                if len(opened) == asked:
                    all_asked.set()
                await all_asked.wait()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await reader.read()
            opened.remove(writer)
            writer.close()
            if len(opened) == MOST_KEPT:
                closed.set()

        async with await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context) as server:
            port = server.sockets[0].getsockname()[1]
            certificate = authority.issue("node", client=True)
            client = NodeClient(f"https://127.0.0.1:{port}", authority.certificate_pem, certificate)
            await asyncio.gather(*(client.get("/") for _ in range(asked)))
            await asyncio.wait_for(closed.wait(), 10)
            left = len(opened)
            await client.close()
        return left

    assert asyncio.run(connections()) == MOST_KEPT


def test_a_machine_that_forbids_user_namespaces_is_known_by_a_process_that_ends(tmp_path, monkeypatch):
    # As util-linux: its helper for --map-auto outlives a failed unshare, and holds the output open.
    unshare = tmp_path / "unshare"
    unshare.write_text('#!/bin/sh\ncase "$*" in *--mount*) touch "$0.left"; sleep 20 & ;; esac\nexit 1\n')
    unshare.chmod(0o755)
    monkeypatch.setattr(processes, "TOOLS_PATH", f"{tmp_path}:{processes.TOOLS_PATH}")
    assert asyncio.run(permitted(tmp_path)) == (False, False, Users())
    assert not (tmp_path / "unshare.left").exists()
