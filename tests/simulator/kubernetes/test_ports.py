"""Two pods that name one port."""

import json
import re

import httpx
import pytest

from labkit.simulator.listener import bind
from tests.simulator.kubernetes.node_lab import SLEEP, shell, until

pytestmark = pytest.mark.kubectl


def free_port() -> int:
    with bind(0) as free:
        return free.getsockname()[1]


def of_two(*containers: dict) -> bytes:
    """Return a Deployment of two pods."""
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": containers}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    return json.dumps(deployment).encode()


@pytest.mark.parametrize("host", ["mapped"], indirect=True)
def test_a_rollout_of_two_pods_with_one_port_is_never_complete_and_an_event_names_the_port(host, kubectl):
    port = free_port()
    container = shell(f"exec python -m http.server {port}", ports=[{"containerPort": port}])
    kubectl("apply", "-f", "-", given=of_two(container))
    status = kubectl("rollout", "status", "deployment/web", "--timeout=4s", code=1)
    assert status.stdout.endswith(b"1 of 2 updated replicas are available...\n")
    events = until(
        lambda: re.findall(rf"pod/(\S+) +Port {port} is in use by pod default/(\S+):", kubectl.out("get", "events"))
    )
    assert set(events[0]) == {pod.metadata.name for pod in host.api.list_namespaced_pod("default").items}
    kubectl("delete", "deployment", "web")


@pytest.mark.parametrize("host", ["private"], indirect=True)
def test_two_pods_with_one_port_listen_at_addresses_of_their_own_and_a_rollout_is_complete(host, kubectl):
    port = free_port()
    probe = {"httpGet": {"port": port}, "periodSeconds": 1}
    address = {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    serve = f"cd /tmp; echo $POD_IP >name; exec python -m http.server {port} --bind"
    every = shell(f"{serve} 0.0.0.0", ports=[{"containerPort": port}], readinessProbe=probe, env=[address])
    kubectl("apply", "-f", "-", given=of_two(every))
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    kubectl("set", "env", "deployment/web", "MODE=test")
    kubectl("rollout", "status", "deployment/web", "--timeout=60s")
    host.create("dual", shell(f"{serve} ::", ports=[{"containerPort": port}], env=[address]))
    user = {"runAsUser": 1000}
    local = shell(f"{serve} 127.0.0.1", ports=[{"containerPort": port}], env=[address], securityContext=user)
    host.create("local", local)
    pods = host.api.list_namespaced_pod("default", label_selector="app in (web, dual, local)").items
    names = [pod.metadata.name for pod in pods if not pod.metadata.deletion_timestamp]
    addresses = [until(lambda name=name: host.read(name).status.pod_ip) for name in names]
    assert len(set(addresses)) == 4
    for at in addresses:
        assert until(lambda at=at: page(f"http://{at}:{port}/name")) == f"{at}\n"
    for name in names:
        assert not [message for reason, message in host.events(name) if reason == "HostPortConflict"]
    kubectl("delete", "deployment/web", "pod/dual", "pod/local")


def page(url: str) -> str:
    try:
        return httpx.get(url, trust_env=False).text
    except httpx.TransportError:
        return ""


@pytest.mark.parametrize("host", ["private"], indirect=True)
def test_two_pods_that_name_one_port_and_do_not_listen_are_ready(host):
    container = shell(SLEEP, ports=[{"containerPort": 80}])
    for name in ("one", "two"):
        host.create(name, container)
    for name in ("one", "two"):
        until(lambda name=name: host.running(name).status.container_statuses[0].ready, f"{name} is ready")
