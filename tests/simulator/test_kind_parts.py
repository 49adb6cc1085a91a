"""The target kind without a cluster: addresses, issuers, and the variables that the webhook `lab-network` adds."""

import asyncio
import base64
import json
from ipaddress import IPv4Interface

import httpx
import jsonpatch
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from labkit import documents
from labkit.run_parameters import Parameters
from labkit.simulator import joined_cluster, joined_folder, lab_network
from labkit.simulator.folder import Folder
from labkit.targets.kind import address as kind_address
from labkit.targets.kind import joining
from labkit.targets.kind.address import NoAddress
from labkit.targets.kind.cluster import Way
from labkit.webhook import mutating_webhook_configuration
from tests.simulator.kubernetes.conftest import cluster, signing_key  # noqa: F401

ADDED = {"AWS_ENDPOINT_URL": "http://172.18.0.1:4566", "AWS_EC2_METADATA_DISABLED": "true"}
# This machine's interfaces: loopback, a local network, and a bridge to containers.
HERE = ("127.0.0.1/8", "192.168.1.20/24", "172.18.0.1/16")


def test_joined_clusters_whose_names_differ_only_in_case_have_folders_of_their_own(tmp_path):
    kept = [joined_folder.JoinedFolder(Folder(tmp_path), name, "us-east-1") for name in ("red_1", "Red_1")]
    for each in kept:
        each.keep_facts(joined_folder.Facts("172.18.0.1", source=each.cluster))
    assert len({each.path.name.lower() for each in kept}) == 2
    sources = {each.cluster: each.facts.source for each in joined_folder.JoinedFolder.all(Folder(tmp_path))}
    assert sources == {"red_1": "red_1", "Red_1": "Red_1"}


@pytest.fixture
def here(monkeypatch):
    monkeypatch.setattr(kind_address, "_interfaces", lambda: [IPv4Interface(one) for one in HERE])


@pytest.mark.parametrize(("nodes", "address"), [
    (["172.18.0.2"], "172.18.0.1"),
    (["172.18.0.2", "172.18.0.3", "fc00::2"], "172.18.0.1"),
    (["127.0.0.1"], "127.0.0.1"),
    (["192.168.1.20"], "192.168.1.20"),  # the node is this machine
])  # fmt: skip
def test_the_lab_finds_this_machines_address_in_the_nodes_network(here, nodes, address):
    assert kind_address.find(nodes) == address


@pytest.mark.parametrize(("nodes", "said"), [
    (["10.0.0.7"], "isn't in the nodes' network"),  # Docker Desktop's network is inside its virtual machine
    ([], "isn't in the nodes' network"),
    (["172.18.0.2", "192.168.1.30"], "several networks"),
])  # fmt: skip
def test_aws_host_is_needed_if_the_address_is_unknown(here, nodes, said):
    with pytest.raises(NoAddress, match=said) as refusal:
        kind_address.find(nodes)
    assert "--aws-host ADDRESS" in refusal.value.next


@pytest.mark.parametrize(("issuer", "keys", "public"), [
    ("https://kubernetes.default.svc.cluster.local", "https://172.18.0.2:6443/openid/v1/jwks", False),
    ("https://kubernetes.default.svc.invalid", "https://kubernetes.default.svc.invalid/openid/v1/jwks", False),
    ("https://oidc.eks.us-east-1.amazonaws.com/id/1", "https://127.0.0.1:6443/openid/v1/jwks", False),
    ("https://localhost/cluster", "https://localhost/cluster/keys", True),
], ids=["kubeadm's own", "a name inside the cluster", "keys at the API server", "published by itself"])  # fmt: skip
def test_an_issuer_is_public_only_if_its_host_resolves_and_has_the_keys(issuer, keys, public):
    assert joining.is_public({"issuer": issuer, "jwks_uri": keys}) is public


def review(pod: dict) -> dict:
    request = {"request": {"uid": "1", "namespace": "default", "object": pod}}
    response = lab_network.review(request, ADDED)["response"]
    assert (response["uid"], response["allowed"]) == ("1", True)
    return jsonpatch.apply_patch(pod, json.loads(base64.b64decode(response["patch"])))


def test_every_container_gets_the_labs_aws_endpoint():
    spec = {"containers": [{"name": "a"}, {"name": "b", "env": []}], "initContainers": [{"name": "c", "env": None}]}
    led = review({"spec": spec})["spec"]
    expected = [{"name": name, "value": value} for name, value in ADDED.items()]
    assert [one["env"] for one in led["containers"] + led["initContainers"]] == [expected] * 3


def test_a_containers_own_variables_stay_and_nothing_is_added_twice():
    own = {"name": "AWS_ENDPOINT_URL", "value": "http://mine"}
    once = review({"spec": {"containers": [{"name": "a", "env": [own]}]}})
    assert once["spec"]["containers"][0]["env"] == [own, {"name": "AWS_EC2_METADATA_DISABLED", "value": "true"}]
    assert review(once) == once


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b'{"request": {"object": {"spec": {"containers": "a"}}}}'])
def test_lab_network_rejects_anything_but_a_review_of_a_pod(body):
    async def answer(request):
        return await lab_network.answer(request, ADDED)

    app = Starlette(routes=[Route("/lab-network", answer, methods=["POST"])])

    async def post() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://lab") as client:
            return await client.post("/lab-network", content=body)

    answered = asyncio.run(post())
    assert answered.status_code == 200
    assert answered.json()["response"]["allowed"] is False


@pytest.mark.parametrize(("image", "policy"), [
    ("", None),  # the lab's image has a tag, so IfNotPresent is the default already
    ("example.com:5000/aws:2", None),
    ("example/aws@sha256:0123", None),
    ("example.com:5000/aws", "IfNotPresent"),
    ("example/aws:latest", "IfNotPresent"),
])  # fmt: skip
def test_the_pod_has_the_pull_policy_with_which_a_node_pulls_its_image_once(image, policy):
    (container,) = documents.pod(Parameters.checked(image=image))["spec"]["containers"]
    assert container["image"].rpartition("/")[2] != "aws-cli"
    assert container.get("imagePullPolicy") == policy


def test_the_api_server_accepts_both_webhook_manifests_in_strict_validation(cluster):  # noqa: F811
    for manifest in (
        lab_network.mutating_webhook_configuration("https://172.18.0.1:4567/lab-network", b"pem"),
        mutating_webhook_configuration("https://172.18.0.1:4567/pod-identity/mutate", b"pem"),
    ):
        with cluster.http("admin", "system:masters") as api:
            made = api.post(f"{joined_cluster.WEBHOOKS}?dryRun=All&fieldValidation=Strict", json=manifest)
        assert made.status_code == 201, made.text


def test_relative_paths_in_a_kubeconfig_become_absolute(tmp_path):
    (tmp_path / "config").write_text(
        "{current-context: one, contexts: [{name: one, context: {cluster: c, user: u, namespace: n}}], "
        "clusters: [{name: c, cluster: {server: 'https://1.2.3.4', certificate-authority: ca.pem, extensions: []}}], "
        "users: [{name: u, user: {client-key: /k.pem, exec: {command: ./bin/get-token}}}]}"
    )
    way = Way.of_kubeconfig(tmp_path / "config")
    assert way.context == "one"
    assert way.kubeconfig["clusters"][0]["cluster"] == {
        "server": "https://1.2.3.4",
        "certificate-authority": str(tmp_path / "ca.pem"),
    }
    user = way.kubeconfig["users"][0]["user"]
    assert user == {"client-key": "/k.pem", "exec": {"command": str(tmp_path / "bin/get-token")}}
