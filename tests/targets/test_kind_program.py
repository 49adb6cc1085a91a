"""Clusters that the program `kind` creates: its configuration follows the schemas, and labkit calls it correctly.

`kind_fake` replaces `kind` and Docker. Only the last test runs the real kind, and replaces Docker alone. No test
creates a real kind cluster.
"""

import json
import os
from pathlib import Path

import jsonschema
import pytest
import yaml
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from kubernetes.client import CoreV1Api

import labkit
from labkit.cli import up as up_command
from labkit.errors import LabError
from labkit.run_parameters import Parameters
from labkit.simulator import Folder, JoinedFolder
from labkit.targets import kind
from labkit.targets.kind import NotReached
from labkit.targets.kind import program as kind_program
from labkit.targets.kind.address import NoAddress
from labkit.targets.kind.cluster import NotThisLabs
from labkit.targets.kind.program import NotMade, ProgramMissing
from tests.targets import kind_docker, kind_fake

ISSUER = "https://oidc.eks.us-east-1.amazonaws.com/id/0123456789ABCDEF0123456789ABCDEF"
SCHEMAS = json.loads(Path(__file__).with_name("kind_schemas.json").read_text())
NAME = "labkit-blue-us-east-1"


# The configuration.


def validated(document: dict) -> dict:
    schema = {"$ref": f"#/$defs/{document['apiVersion'].replace('/', '~1')}", "$defs": SCHEMAS["$defs"]}
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


@pytest.mark.parametrize("cluster", ["blue", "Blue_2", "x" * 100])
def test_the_configuration_follows_the_schemas_of_kind_and_kubeadm(cluster):
    name = kind_program.name_of(cluster, "us-east-1")
    assert len(f"{name}-control-plane") <= 63
    config = validated(kind_program.configuration(name, ISSUER, Path("/lab/signing")))
    patches = [validated(yaml.safe_load(patch)) for patch in config["kubeadmConfigPatches"]]
    # kind applies the patch whose version matches the node's Kubernetes, so it needs both.
    assert [patch["apiVersion"] for patch in patches] == ["kubeadm.k8s.io/v1beta3", "kubeadm.k8s.io/v1beta4"]


def test_clusters_with_different_names_get_different_kind_clusters():
    names = {kind_program.name_of(cluster, "us-east-1") for cluster in ("my-c", "my_c", "My-c", "My_C")}
    assert len(names) == 4
    assert "labkit-my-c-us-east-1" in names


def test_a_misspelt_field_breaks_the_schema():
    config = kind_program.configuration(NAME, ISSUER, Path("/lab/signing"))
    config["nodes"][0]["extraMounts"][0]["readonly"] = config["nodes"][0]["extraMounts"][0].pop("readOnly")
    with pytest.raises(jsonschema.ValidationError, match="readonly"):
        validated(config)


def test_both_kubeadm_patches_give_the_api_server_the_labs_issuer_and_keys():
    config = kind_program.configuration(NAME, ISSUER, Path("/lab/signing"))
    older, newer = (yaml.safe_load(patch)["apiServer"] for patch in config["kubeadmConfigPatches"])
    expected = {
        "service-account-issuer": ISSUER,
        "service-account-jwks-uri": f"{ISSUER}/keys",
        "service-account-signing-key-file": "/etc/kubernetes/labkit/sa.key",
        "service-account-key-file": "/etc/kubernetes/labkit/sa.pub",
        "api-audiences": "https://kubernetes.default.svc",
    }
    assert older["extraArgs"] == expected
    assert {each["name"]: each["value"] for each in newer["extraArgs"]} == expected
    # One mount brings the keys into the node, the other brings them into the API server's pod.
    (mount,) = config["nodes"][0]["extraMounts"]
    assert (mount["hostPath"], mount["containerPath"], mount["readOnly"]) == (
        "/lab/signing",
        "/etc/kubernetes/labkit",
        True,
    )
    assert older["extraVolumes"] == newer["extraVolumes"]
    assert newer["extraVolumes"][0]["hostPath"] == newer["extraVolumes"][0]["mountPath"] == mount["containerPath"]


def test_the_signing_key_is_created_once_and_only_its_owner_can_read_it(tmp_path):
    kind_program.write_keys(tmp_path / "signing")
    key, public = (tmp_path / "signing" / name for name in ("sa.key", "sa.pub"))
    made = key.read_bytes()
    assert key.stat().st_mode & 0o777 == 0o600
    numbers = load_pem_private_key(made, None).public_key().public_numbers()
    assert load_pem_public_key(public.read_bytes()).public_numbers() == numbers
    kind_program.write_keys(tmp_path / "signing")
    assert key.read_bytes() == made


# The calls.


def test_kind_creates_a_cluster_that_joins_the_lab_and_down_deletes_it(programs, empty, capsys):
    folder = programs()
    with labkit.Lab.open(target="kind") as lab:
        assert "Making the kind cluster" in capsys.readouterr().err
        kept = JoinedFolder(empty, "blue", "us-east-1")
        (create,) = kind_fake.calls(folder)
        assert create == [
            *["kind", "create", "cluster", "--config", str(kept.path / "kind.yaml")],
            *["--kubeconfig", str(kept.path / "kind-kubeconfig"), "--wait", "180s"],
        ]
        validated(yaml.safe_load((kept.path / "kind.yaml").read_text()))
        # STS asks the lab's own issuer, which publishes the cluster's keys.
        assert lab.issuer.startswith("https://oidc.eks.us-east-1.amazonaws.com/id/")
        discovery = lab.fetch(f"{lab.issuer}/.well-known/openid-configuration")
        assert discovery["jwks_uri"] == f"{lab.issuer}/keys"
        assert lab.fetch(discovery["jwks_uri"])["keys"][0]["kty"] == "RSA"
        lab.ready(through="pod")
        assert lab.check("credentials")
        assert not lab.diagnose().findings
        # The whole cluster belongs to the lab, so even untagged objects do.
        assert lab.takes_untagged
        pods = CoreV1Api(lab.kubernetes)
        assert [pod.metadata.name for pod in pods.list_namespaced_pod("default").items] == ["my-pod"]
    labkit.Lab.open(target="kind").close()
    assert len(kind_fake.calls(folder)) == 1
    kind.down()
    assert kind_fake.calls(folder)[1:] == [["kind", "delete", "cluster", "--name", NAME]]
    assert JoinedFolder.all(empty) == []


def test_labkit_up_with_json_prints_only_json_to_standard_output(programs, empty, capsys):
    programs()
    up_command.join(cluster="blue", as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.out)["target"] == "kind"
    assert "Making the kind cluster" in said.err


def refused(empty: Folder, **parameters: str) -> LabError:
    with pytest.raises(LabError) as refusal:
        kind.up(Parameters.checked(target="kind", **parameters))
    assert not empty.is_running()
    assert JoinedFolder.all(empty) == []
    return refusal.value


@pytest.mark.parametrize(("does", "said", "following"), [
    ({"kind": "missing"}, "kind is not on the PATH", ["brew install kind", "--kubeconfig FILE --context NAME"]),
    ({"docker": "missing"}, "Neither Docker nor Podman", ["apt-get install podman"]),
    ({"docker": "fails"}, "Cannot connect to the Docker daemon", ["start Docker Desktop", "docker info"]),
], ids=["without kind", "without Docker and Podman", "Docker does not run"])  # fmt: skip
def test_a_missing_program_is_named_with_its_install_command(programs, empty, does, said, following):
    programs(**does)
    refusal = refused(empty)
    assert isinstance(refusal, ProgramMissing)
    assert said in refusal.what
    assert all(line in refusal.next for line in following)


def test_a_failed_kind_create_shows_kinds_error_and_deletes_the_cluster(programs, empty):
    folder = programs(kind="fails")
    refusal = refused(empty)
    assert isinstance(refusal, NotMade)
    assert "could not find a log line" in refusal.what
    assert kind_fake.calls(folder)[-1] == ["kind", "delete", "cluster", "--name", NAME]


def test_rootless_docker_needs_the_aws_host_before_a_cluster_is_created(programs, empty):
    folder = programs(docker="rootless")
    refusal = refused(empty)
    assert isinstance(refusal, NoAddress)
    assert "labkit up --target kind … --aws-host ADDRESS" in refusal.next
    assert kind_fake.calls(folder) == []
    kind.up(Parameters.checked(target="kind"), aws_host="127.0.0.1").kubernetes.close()
    kind.down()


def test_another_owners_kind_cluster_of_the_same_name_is_kept(programs, empty):
    folder = programs()
    (folder / "clusters").mkdir()
    (folder / "clusters" / NAME).write_text("0")
    refusal = refused(empty)
    assert isinstance(refusal, NotThisLabs)
    assert f"kind delete cluster --name {NAME}" in refusal.next
    assert kind_fake.calls(folder) == []
    (folder / "clusters" / NAME).unlink()


def test_a_new_cluster_that_cannot_reach_the_lab_is_deleted_again(programs, empty, monkeypatch):
    folder = programs()
    monkeypatch.setattr(kind, "LED_WITHIN", 1)
    with pytest.raises(NotReached):
        kind.up(Parameters.checked(target="kind"), aws_host="240.0.0.1")
    assert [call[1] for call in kind_fake.calls(folder)] == ["create", "delete"]
    assert not empty.is_running()
    assert JoinedFolder.all(empty) == []


@pytest.mark.kind
def test_the_real_kind_passes_the_configuration_on_to_kubeadm(empty, tmp_path, monkeypatch):
    """No container runs: a fake `docker` records what kind writes for kubeadm."""
    folder = kind_docker.install(tmp_path / "bin")
    monkeypatch.setenv("PATH", os.pathsep.join([str(folder), os.environ["PATH"]]))
    with labkit.Lab.open(target="kind") as lab:
        (made,) = (each for each in kind_docker.kubeadm(folder) if each["kind"] == "ClusterConfiguration")
        arguments = made["apiServer"]["extraArgs"]
        assert arguments["service-account-issuer"] == lab.issuer
        assert arguments["service-account-jwks-uri"] == f"{lab.issuer}/keys"
        assert arguments["api-audiences"] == "https://kubernetes.default.svc"
        assert "runtime-config" in arguments  # kind's own argument is kept
        assert made["controllerManager"]["extraArgs"].keys() >= {
            "enable-hostpath-provisioner",
            "service-account-private-key-file",
        }
        assert made["apiServer"]["extraVolumes"][0]["mountPath"] == "/etc/kubernetes/labkit"
        lab.ready(through="pod")
        assert lab.check("credentials")
    kind.down()
    assert not (folder / "node").exists()
