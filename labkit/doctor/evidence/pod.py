"""What one pod of the service account shows: its spec, why it doesn't run, and its identity in AWS."""

from dataclasses import dataclass
from functools import cached_property

from labkit.connection import Connection
from labkit.doctor.evidence.cluster import ClusterReading
from labkit.doctor.evidence.objects import Event, PodDocument
from labkit.doctor.evidence.pod_spec import TOKEN_VOLUME, Container, PodSpec
from labkit.doctor.evidence.probe import CallerIdentity, DryRun, Probe
from labkit.doctor.evidence.reading import NotRead, Reads, known
from labkit.run_parameters import Parameters

FAILED = "FailedCreate"  # the reason in the event about a rejected pod


@dataclass(eq=False)
class PodReading:
    """The facts about the examined pod. Every property raises `NotRead` if a fact that it needs can't be read."""

    named: str
    """The pod that the doctor's caller named; empty for the newest one."""
    parameters: Parameters
    connection: Connection
    cluster: ClusterReading
    reads: Reads
    probe_allowed: bool

    @property
    def name(self) -> str:
        """The name of the examined pod; empty if no pod runs as the service account."""
        return self.named or next((pod["metadata"]["name"] for pod in self.cluster.pods), "")

    @property
    def document(self) -> PodDocument | None:
        """The pod as the API server returns it; None if it doesn't exist."""
        return self.cluster.api.pod(self.parameters.namespace, self.name) if self.name else None

    @cached_property
    def spec(self) -> PodSpec | None:
        """The pod's spec, with its containers' variables and mounts; None without a pod."""
        return PodSpec(self.document, self.cluster.api) if self.document else None

    @property
    def containers(self) -> list[Container]:
        """The pod's containers, then its init containers; empty without a pod."""
        return self.spec.containers if self.spec else []

    @property
    def phase(self) -> str:
        """The pod's phase; `Unknown` without a pod."""
        return self.spec.phase if self.spec else "Unknown"

    @property
    def is_starting(self) -> bool:
        """Whether the pod's node is still starting it, and no problem is known.

        https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#understanding-init-containers
        """
        return self.phase == "Pending" and self.trouble in ("PodInitializing", "ContainerCreating")

    @property
    def trouble(self) -> str:
        """Why the pod doesn't run: the first waiting container's reason, else the scheduler's; empty if unknown."""
        for status in ((self.document or {}).get("status") or {}).get("containerStatuses") or []:
            if waiting := (status.get("state") or {}).get("waiting"):
                return f"{waiting.get('reason', '')} {waiting.get('message', '')}".strip()
        return self.scheduler_says

    @property
    def scheduler_says(self) -> str:
        """Why the scheduler found no node for the pod, from a condition or an event; empty if the pod has a node.

        https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-conditions
        """
        if self.document is None or self.phase != "Pending" or self.document["spec"].get("nodeName"):
            return ""
        for each in (self.document.get("status") or {}).get("conditions") or []:
            if (each["type"], each["status"]) == ("PodScheduled", "False") and each.get("message"):
                return f"{each.get('reason', '')}: {each['message']}"
        return self._newest_event("FailedScheduling")

    @property
    def role_arn(self) -> str:
        """The value of `AWS_ROLE_ARN` in the pod's first container; empty if it isn't set."""
        variables = self.containers[0].document.get("env") or [] if self.containers else []
        return next((variable.get("value", "") for variable in variables if variable["name"] == "AWS_ROLE_ARN"), "")

    @property
    def token_audience(self) -> str | None:
        """The audience of the token that the webhook's volume projects into the pod; None without such a token."""
        for volume in (self.document or {}).get("spec", {}).get("volumes") or []:
            if volume["name"] == TOKEN_VOLUME:
                for source in (volume.get("projected") or {}).get("sources") or []:
                    if token := source.get("serviceAccountToken"):
                        audience: str | None = token.get("audience")
                        return audience
        return None

    @property
    def failed_creations(self) -> list[Event]:
        """The events about rejected pods in the namespace, the newest first; empty if the examined pod exists."""
        if self.document is not None:
            return []
        events = self.cluster.api.events(self.parameters.namespace)
        failed = [event for event in events if event["reason"] == FAILED]
        return sorted(failed, key=lambda event: event.get("lastTimestamp") or "", reverse=True)

    @cached_property
    def dry_run(self) -> DryRun:
        """A dry run that creates a pod like the examined pod. It shows what the webhook would do to such a pod now."""
        return DryRun(self.spec, self.cluster.api, self.reads, allowed=self.probe_allowed)

    @cached_property
    def probe(self) -> Probe:
        """The commands that the doctor runs in the pod, and its call to STS with the pod's token."""
        region, allowed = self.parameters.region, self.probe_allowed
        return Probe(self.spec, self.connection, self.reads, region=region, allowed=allowed)

    @property
    def caller(self) -> CallerIdentity | None:
        """The pod's identity according to AWS; None if the pod isn't running.

        Raises `NotRead` if probing isn't allowed.
        """
        return self.probe.caller

    @property
    def caller_if_known(self) -> CallerIdentity | None:
        """The pod's identity according to AWS; None if the pod isn't running, or if the doctor can't read the identity.

        Raises `NotRead` if the user didn't allow probing.
        """
        try:
            return self.caller
        except NotRead as unread:
            if unread.is_choice:
                raise
            return None

    @property
    def is_refused(self) -> bool:
        """Whether STS refused the pod's token, and the pod has no identity in AWS. False if that can't be read."""
        try:
            caller = self.caller_if_known
            exchange = None if caller and caller.arn else self.probe.exchange
        except NotRead:
            return False
        return bool(exchange and exchange.code)

    def _newest_event(self, reason: str) -> str:
        events = known(lambda: self.cluster.api.events(self.parameters.namespace)) or []
        mine = [each for each in events if each["involvedObject"].get("name") == self.name]
        with_reason = [each for each in mine if each.get("reason") == reason]
        newest = max(
            with_reason, key=lambda each: each.get("lastTimestamp") or each.get("eventTime") or "", default=Event()
        )
        return f"{reason}: {newest['message']}" if newest.get("message") else ""
