"""Create a pod like the examined one as a dry run, and read the API server's counters before and after it.

A dry run goes through admission and its webhooks, but stores nothing. It needs permission to create pods, and the
audit log and the counters show it. So the doctor makes a dry run only with `--probe`.

https://kubernetes.io/docs/reference/using-api/api-concepts/#dry-run
https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#monitoring-admission-webhooks
"""

import re
from collections.abc import Iterable
from contextlib import suppress
from functools import cached_property

from labkit.doctor.evidence.cluster_api import ClusterApi
from labkit.doctor.evidence.pod_spec import PodSpec
from labkit.doctor.evidence.reading import Document, NotRead, Read, Reads
from labkit.errors import said_by_the_cluster

METRICS = "/metrics"
FAIL_OPEN = "apiserver_admission_webhook_fail_open_count"
REJECTION = "apiserver_admission_webhook_rejection_count"
# Each API server of a cluster keeps its own counters. The start time shows which API server answered.
STARTED = "process_start_time_seconds"
COUNTED = re.compile(rf"^((?:{FAIL_OPEN}|{REJECTION}|{STARTED})(?:{{.*}})?) (\S+)$", re.MULTILINE)
NOT_CALLED = "failed calling webhook"
# Fields that the scheduler sets, or that a new pod can't have.
LEFT_OUT = ("nodeName", "ephemeralContainers")


class DryRun:
    """The dry run of a pod like the examined one.

    `gives_role`, `gives_pod_identity` and `failed_call` raise `NotRead` if dry runs aren't allowed (no `--probe`) or if
    the API server refuses.
    """

    def __init__(self, pod: PodSpec | None, cluster: ClusterApi, reads: Reads, *, allowed: bool):
        self._pod = pod
        self._cluster = cluster
        self._reads = reads
        self._allowed = allowed

    @property
    def gives_role(self) -> bool:
        """Whether the webhook now gives a role to a pod like the examined one."""
        return bool(self._made["has_role"])

    @property
    def gives_pod_identity(self) -> bool:
        """Whether the webhook now gives such a pod the variables of EKS Pod Identity."""
        return bool(self._made.get("has_pod_identity"))

    def failed_call(self, webhooks: Iterable[str]) -> str:
        """Return why the API server couldn't call one of these webhooks; empty if no call failed.

        Raises `NotRead` if the server's counters of failed calls can't be read or compared.
        """
        if refused := self._made["refused"]:
            return str(refused)
        if self.gives_role or self.gives_pod_identity:
            return ""
        before, after = self._counters(""), self._counters("once more")
        if before.get(STARTED) != after.get(STARTED):
            why = "another API server answered, so the counters can't be compared"
            raise NotRead(self._metrics("once more"), why, "--probe")
        for counter, value in after.items():
            if _is_about_a_failed_call(counter, webhooks) and value > before.get(counter, 0):
                return f"{counter} rose from {before.get(counter, 0):.0f} to {value:.0f} during a dry run"
        return ""

    @cached_property
    def _made(self) -> Document:
        """The dry run's result, with the keys `has_role`, `has_pod_identity` and `refused`."""
        pod = self._pod
        read = Read("create pod --dry-run=server, like", pod.name if pod else "", f"-n {pod.namespace if pod else ''}")
        if not self._allowed or pod is None:
            raise NotRead(read, "the doctor did not test what the webhook does to a pod like this", "--probe")
        with suppress(NotRead):
            self._counters("")
        made: Document = self._reads.once(read, lambda: self._tried(pod))
        return made

    def _tried(self, pod: PodSpec) -> Document:
        from kubernetes.client.exceptions import ApiException

        metadata = {"generateName": "labkit-doctor-", "labels": pod.labels, "annotations": pod.annotations}
        spec = {key: value for key, value in pod.spec.items() if key not in LEFT_OUT}
        manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
        try:
            made = PodSpec(self._cluster.created_as_dry_run(pod.namespace, manifest), self._cluster)
        except ApiException as error:
            said = said_by_the_cluster(error)
            if error.status != 500 or NOT_CALLED not in said:
                raise
            return {"has_role": False, "has_pod_identity": False, "refused": said}
        return {"has_role": made.is_mutated, "has_pod_identity": made.has_pod_identity, "refused": ""}

    def _counters(self, time: str) -> dict[str, float]:
        read = self._metrics(time)
        found: dict[str, float] | None = self._reads.once(read, self._read_counters)
        if found is None:
            raise NotRead(read, "the API server has no such page")
        return found

    def _read_counters(self) -> dict[str, float]:
        return {counter: float(value) for counter, value in COUNTED.findall(self._cluster.raw(METRICS))}

    @staticmethod
    def _metrics(time: str) -> Read:
        return Read("get --raw", METRICS, time)


def _is_about_a_failed_call(counter: str, webhooks: Iterable[str]) -> bool:
    # A webhook that rejects a request has answered the call.
    is_refusal = counter.startswith(REJECTION) and 'error_type="no_error"' in counter
    return not is_refusal and any(f'name="{name}"' in counter for name in webhooks)
