"""Write the events of a component of the cluster, such as the scheduler, and remove old events.

https://kubernetes.io/docs/reference/kubernetes-api/cluster-resources/event-v1/
"""

import asyncio

from labkit.simulator.kubernetes.objects.kinds import EVENT, NAMESPACE, Kind
from labkit.simulator.kubernetes.objects.storage import Change, Storage, Stored, seconds

REMEMBERED = 4096  # remember at most this many events; the repetition of one only increases its count
SIMILAR = 10  # from this many on, different events with the same reason about the same object are combined
SIMILAR_SECONDS = 600


class EventRecorder:
    def __init__(self, storage: Storage, component: str):
        self.storage, self.component = storage, component
        self._names: dict[tuple[str, str, str], str] = {}
        self._similar: dict[tuple[str, str], tuple[float, set[str]]] = {}

    def record(self, kind: Kind, about: Stored, type_: str, reason: str, message: str) -> None:
        """Write an event about the object ``about``, or increase the count of an equal event.

        ``type_`` is Normal or Warning. In a terminating namespace, write nothing.
        """
        namespace = self.storage.find(NAMESPACE, "", about.namespace)
        if namespace is None or "deletionTimestamp" in namespace.metadata:
            return
        counted, message = self._counted(about.uid, reason, message)
        now = self.storage.now()
        known = self.storage.find(EVENT, about.namespace, self._names.get(counted, ""))
        if known is not None:
            count = known.object["count"] + 1
            changed = {**known.object, "message": message, "count": count, "lastTimestamp": now}
            self.storage.replace(EVENT, known, changed, known.managers)
            return
        # The number in the name increases, so that events of the same second stay in order.
        name = self._names[counted] = f"{about.name}.{self.storage.version:016x}"
        if len(self._names) > REMEMBERED:
            del self._names[next(iter(self._names))]
        event = {
            "metadata": {"name": name, "namespace": about.namespace},
            "involvedObject": {
                "kind": kind.kind,
                "namespace": about.namespace,
                "name": about.name,
                "uid": about.uid,
                "apiVersion": kind.api_version,
                "resourceVersion": about.metadata["resourceVersion"],
            },
            "reason": reason,
            "message": message,
            "source": {"component": self.component},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "type": type_,
            "eventTime": None,
            "reportingComponent": self.component,
            "reportingInstance": "",
        }
        self.storage.create(EVENT, event)

    def _counted(self, uid: str, reason: str, message: str) -> tuple[tuple[str, str, str], str]:
        """Return the key under which an event is counted, and the event's message."""
        now = self.storage.clock.now()
        last, messages = self._similar.pop((uid, reason), (now, set()))
        if now - last > SIMILAR_SECONDS:
            messages = set()
        messages.add(message)
        self._similar[uid, reason] = (now, messages)
        if len(self._similar) > REMEMBERED:
            del self._similar[next(iter(self._similar))]
        if len(messages) < SIMILAR:
            return (uid, reason, message), message
        messages.pop()
        return (uid, reason, ""), f"(combined from similar events): {message}"


LIFE_SECONDS = 3600
LOOK_SECONDS = 1  # seconds between two looks at the lab's clock while there are events


class EventExpiry:
    """Remove each event an hour of lab time after its last change, as a real server does (``--event-ttl``).

    https://kubernetes.io/docs/reference/command-line-tools-reference/kube-apiserver/
    """

    def __init__(self, storage: Storage):
        self.storage = storage
        self._written: dict[tuple[str, str], float] = {}
        self._looking: asyncio.TimerHandle | None = None

    def observe(self, change: Change) -> None:
        """Record a change of the storage. Call this with every change."""
        if change.kind is not EVENT:
            return
        key = change.stored.namespace, change.stored.name
        self._written.pop(key, None)
        if change.type != "DELETED":
            now, made = self.storage.clock.now(), change.stored.metadata["creationTimestamp"]
            last = max(seconds(made), seconds(change.stored.object.get("lastTimestamp") or made))
            # An event from the lab's file keeps its age.
            self._written[key] = now if change.before else min(now, last)
            self._look_later()

    def close(self) -> None:
        if self._looking:
            self._looking.cancel()

    def _look_later(self) -> None:
        if self._looking is None:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        over = self.storage.clock.now() - LIFE_SECONDS
        # The times aren't in order, because the lab's clock can be set back.
        for key in [key for key, written in self._written.items() if written <= over]:
            self.storage.remove(EVENT, self.storage.get(EVENT, *key))
        if self._written:
            self._look_later()
