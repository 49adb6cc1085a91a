"""`make test-kind`: run the contract and the notebooks on an existing cluster, and check that they leave nothing there.

`LABKIT_KUBECONFIG` and `LABKIT_CONTEXT` name the cluster. Without them, only the notebooks run, on a cluster of
`kind_existing`: `make test` already runs the contract on such a cluster.
"""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kubernetes import client
from kubernetes.config import new_client_from_config

from tests import forked_commands
from tests.targets import suite
from tests.targets.kind_existing import running


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="labkit-kind-") as folder, contextlib.ExitStack() as stack:
        given = {"LABKIT_TARGET": "kind", "LABKIT_HOME": f"{folder}/.lab"}
        is_given = "LABKIT_KUBECONFIG" in os.environ
        if is_given:
            given["LABKIT_KUBECONFIG"] = str(Path(os.environ["LABKIT_KUBECONFIG"]).expanduser().absolute())
        else:
            stack.callback(forked_commands.begin())
            kubeconfig = stack.enter_context(running(Path(folder) / "existing"))
            given |= {"LABKIT_KUBECONFIG": str(kubeconfig), "LABKIT_CONTEXT": "existing"}
        environment = {**os.environ, **given}
        before = things(environment)
        try:
            failed = suite.contract(environment) if is_given else 0
            failed = suite.notebooks(environment) or failed
        finally:
            left = leave(environment, before)
        return failed or left


def leave(environment: Mapping[str, str], before: set[str]) -> int:
    """Remove the run and stop the lab, print the objects that are left in the cluster, and return the exit code."""
    where = [f"{name}={value}" for name, value in named(environment).items()]
    given = [word for each in ("target=kind", *where) for word in ("-p", each)]
    labkit = Path(sys.executable).with_name("labkit")
    # If the lab did not start, this fails, and there is nothing to remove.
    subprocess.run([labkit, "remove", *given, "--yes"], env=environment, check=False)
    subprocess.run([labkit, "down"], env=environment, check=True)
    if left := sorted(things(environment) - before):
        print("In the cluster there is still what was not there before: " + ", ".join(left))
    return int(bool(left))


def things(environment: Mapping[str, str]) -> set[str]:
    """The cluster's objects of each kind that a lab or a notebook creates, except those in the namespaces kube-*."""
    where = named(environment)
    with new_client_from_config(environment["LABKIT_KUBECONFIG"], context=where.get("context")) as api:
        core, rbac = client.CoreV1Api(api), client.RbacAuthorizationV1Api(api)
        listed = {
            "namespace": core.list_namespace,
            "service account": core.list_service_account_for_all_namespaces,
            "pod": core.list_pod_for_all_namespaces,
            "cluster role": rbac.list_cluster_role,
            "cluster role binding": rbac.list_cluster_role_binding,
            "webhook": client.AdmissionregistrationV1Api(api).list_mutating_webhook_configuration,
        }
        objects = [(kind, one.metadata) for kind, ask in listed.items() for one in ask().items]
        return {
            f"{kind} {'/'.join(filter(None, (metadata.namespace, metadata.name)))}"
            for kind, metadata in objects
            if not (metadata.namespace or "").startswith("kube-")
        }


def named(environment: Mapping[str, str]) -> dict[str, str]:
    """The parameters that name the cluster."""
    names = ("kubeconfig", "context")
    return {name: environment[f"LABKIT_{name.upper()}"] for name in names if f"LABKIT_{name.upper()}" in environment}


if __name__ == "__main__":
    sys.exit(main())
