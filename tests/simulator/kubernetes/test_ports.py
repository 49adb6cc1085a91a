"""Two pods that want one port of the machine."""

import json
import re

import pytest

from labkit.simulator.listener import bind
from tests.simulator.kubernetes.node_lab import SLEEP, shell, until

pytestmark = pytest.mark.kubectl


def test_a_rollout_of_two_pods_with_one_port_is_never_complete_and_an_event_names_the_port(host, kubectl):
    with bind(0) as free:
        port = free.getsockname()[1]
    container = shell(f"exec python -m http.server {port}", ports=[{"containerPort": port}])
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [container]}}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    kubectl("apply", "-f", "-", given=json.dumps(deployment).encode())
    status = kubectl("rollout", "status", "deployment/web", "--timeout=4s", code=1)
    assert status.stdout.endswith(b"1 of 2 updated replicas are available...\n")
    events = until(
        lambda: re.findall(rf"pod/(\S+) +Port {port} is in use by pod default/(\S+):", kubectl.out("get", "events"))
    )
    assert set(events[0]) == {pod.metadata.name for pod in host.api.list_namespaced_pod("default").items}
    kubectl("delete", "deployment", "web")


@pytest.mark.parametrize("host", ["private"], indirect=True)
def test_two_pods_that_name_one_port_and_do_not_listen_are_ready(host):
    container = shell(SLEEP, ports=[{"containerPort": 80}])
    for name in ("one", "two"):
        host.create(name, container)
    for name in ("one", "two"):
        until(lambda name=name: host.running(name).status.container_statuses[0].ready, f"{name} is ready")
