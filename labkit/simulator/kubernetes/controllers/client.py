"""The client with which a controller changes the cluster, as the controller's own service account."""

import json

from labkit.simulator.kubernetes.access.authentication import AUTHENTICATED, User
from labkit.simulator.kubernetes.api.managers import Writer, updated
from labkit.simulator.kubernetes.api.requests import JSON, KubeRequest
from labkit.simulator.kubernetes.api.resources import Resources
from labkit.simulator.kubernetes.controllers.events import EventRecorder
from labkit.simulator.kubernetes.objects import writes
from labkit.simulator.kubernetes.objects.kinds import Kind, Object
from labkit.simulator.kubernetes.objects.storage import Stored, dump

MANAGER = "kube-controller-manager"
GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", AUTHENTICATED)


class ControllerClient:
    """The client of the controller ``name``, e.g. ``replicaset-controller``. Its service account has the same name."""

    def __init__(self, resources: Resources, name: str):
        self.resources, self.storage = resources, resources.storage
        self.user = User(f"system:serviceaccount:kube-system:{name}", GROUPS)
        self.events = EventRecorder(self.storage, name)

    async def create(self, kind: Kind, namespace: str, obj: Object) -> Stored:
        """Create the object and return it. Raises ``ApiError`` if a check refuses the object.

        The checks are admission plugins, webhooks and validation.
        """
        request = KubeRequest(
            "POST",
            f"{kind.path}/namespaces/{namespace}/{kind.plural}",
            {},
            [],
            {b"content-type": JSON.encode(), b"user-agent": MANAGER.encode()},
            dump(obj),
            kind.group,
            kind.version,
            kind.plural,
            namespace=namespace,
            user=self.user,
        )
        made = json.loads((await self.resources.create(kind, request)).body)
        return self.storage.get(kind, namespace, made["metadata"]["name"])

    def update(self, kind: Kind, before: Stored, obj: Object, subresource: str = "") -> Stored:
        """Store the changed object and return its new version. Raises Conflict if another client changed it first."""
        if obj == before.object:
            return before
        writer = Writer(MANAGER, "Update", kind.api_version, subresource)
        owned = updated(before.managers, kind.type, before.object, obj, writer, now=self.storage.now())
        return writes.store(self.storage, kind, before, obj, owned)

    def delete(self, kind: Kind, stored: Stored) -> None:
        writes.delete(self.storage, kind, stored, {"propagationPolicy": "Background"})
