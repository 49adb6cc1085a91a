"""A lab's processes: its server, and the programs its pods start."""

import psutil
from tenacity import Retrying, stop_after_delay, wait_fixed

from labkit.simulator.process import State


def server(labkit) -> psutil.Process:
    return psutil.Process(State.read(labkit.folder).pid)


def gone(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait for the processes to end; return those that did not."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


def run_a_pod(labkit, name="sleeper") -> list[psutil.Process]:
    """Start a pod; return every process below the server."""
    from kubernetes import client, config, watch

    api = client.CoreV1Api(config.new_client_from_config(str(labkit.folder.kubeconfig)))
    container = {"name": "c", "image": "amazon/aws-cli", "command": ["sh", "-c", "sleep 1000 & sleep 1000"]}
    api.create_namespaced_pod("default", {"metadata": {"name": name}, "spec": {"containers": [container]}})
    events = watch.Watch().stream(api.list_namespaced_pod, "default", field_selector=f"metadata.name={name}")
    next(event for event in events if event["object"].status.phase == "Running")
    # A pod is Running once its shell has started; the shell's children may take a moment longer.
    for attempt in Retrying(stop=stop_after_delay(10), wait=wait_fixed(0.05), reraise=True):
        with attempt:
            processes = server(labkit).children(recursive=True)
            assert [process.name() for process in processes].count("sleep") == 2
    return processes
