"""The API server alone, on a port of its own: to the webhook that is served by itself it is a real one."""

from tests.emulator.kubernetes.conftest import admin, cluster, namespace, signing_key

__all__ = ["admin", "cluster", "namespace", "signing_key"]
