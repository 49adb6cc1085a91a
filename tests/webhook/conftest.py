"""The API server alone, on a port of its own, which the standalone webhook treats as a real cluster."""

from tests.simulator.kubernetes.conftest import admin, cluster, namespace, signing_key

__all__ = ["admin", "cluster", "namespace", "signing_key"]
