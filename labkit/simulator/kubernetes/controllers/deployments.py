"""The Deployment controller: it makes and scales ReplicaSets until all pods have the current template.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from typing import cast

from labkit.simulator.kubernetes.controllers import rollout
from labkit.simulator.kubernetes.controllers.client import ControllerClient
from labkit.simulator.kubernetes.controllers.owners import Owners, controller_of, controller_reference
from labkit.simulator.kubernetes.controllers.rollout import counted, replicas
from labkit.simulator.kubernetes.controllers.workqueue import Key, WorkQueue
from labkit.simulator.kubernetes.objects.kinds import DEPLOYMENT, POD, REPLICA_SET, Object
from labkit.simulator.kubernetes.objects.pods import has_ended
from labkit.simulator.kubernetes.objects.selectors import object_selector
from labkit.simulator.kubernetes.objects.status import ApiError
from labkit.simulator.kubernetes.objects.storage import Change, Stored


class Deployments:
    """The Deployment controller. Call ``observe`` with every change of the storage."""

    def __init__(self, client: ControllerClient, owners: Owners):
        self.client, self.storage, self.owners = client, client.storage, owners
        self.queue = WorkQueue(self._look, self.storage.clock.now)

    def observe(self, change: Change) -> None:
        stored = change.stored
        if change.kind is DEPLOYMENT and change.type != "DELETED":
            self.queue.add((stored.namespace, stored.name))
        elif change.kind is REPLICA_SET:
            self._replica_set(change)
        elif change.kind is POD and change.type == "DELETED" and (reference := controller_of(stored)):
            # The strategy Recreate waits for the last old pod.
            self._owner_of(self.storage.find(REPLICA_SET, stored.namespace, reference["name"]))

    def _replica_set(self, change: Change) -> None:
        replica_set = change.stored
        self._owner_of(replica_set)
        self._owner_of(change.before)
        if change.type != "DELETED" and not controller_of(replica_set):
            labels = replica_set.metadata.get("labels") or {}
            for deployment in self.storage.list(DEPLOYMENT, replica_set.namespace):
                if object_selector(deployment.object["spec"]["selector"])(labels):
                    self.queue.add((deployment.namespace, deployment.name))

    def _owner_of(self, replica_set: Stored | None) -> None:
        reference = controller_of(replica_set)
        if replica_set and reference.get("kind") == "Deployment":
            self.queue.add((replica_set.namespace, reference["name"]))

    async def _look(self, key: Key) -> float | None:
        deployment = self.storage.find(DEPLOYMENT, *key)
        return await _Look(self.client, self.owners, deployment).take() if deployment else None


class _Look:
    """Look at one Deployment, and take at most one step. The resulting change starts the next look."""

    def __init__(self, client: ControllerClient, owners: Owners, deployment: Stored):
        self.client, self.storage, self.owners = client, client.storage, owners
        self.deployment, self.generation = deployment, deployment.metadata["generation"]
        sets = owners.claim(REPLICA_SET, DEPLOYMENT, deployment)
        self.new = rollout.new_replica_set(deployment, sets)
        self.old = rollout.by_age(one for one in sets if one is not self.new)

    @property
    def sets(self) -> list[Stored]:
        return [*self.old, *([self.new] if self.new else [])]

    @property
    def spec(self) -> Object:
        return cast("Object", self.deployment.object["spec"])

    @property
    def conditions(self) -> list[Object]:
        return (self.deployment.object.get("status") or {}).get("conditions") or []

    async def take(self) -> float | None:
        """Take the rollout's next step. Return the lab time of the next look; None if no next look is planned."""
        deleted, paused = "deletionTimestamp" in self.deployment.metadata, self.spec.get("paused", False)
        if not deleted:
            self._note_pause(paused)
        if self.new:
            self._note_new(self.new)
        if deleted or paused or self._was_scaled():
            if not deleted:
                self._scale_all()
            if paused and not deleted:
                self._clean_up()
            self._write_status(self._status())
            return None
        if self.spec["strategy"]["type"] == "Recreate":
            await self._recreate()
        else:
            await self._roll()
        return None if self._outdated() else self._report()

    def _outdated(self) -> bool:
        return bool(self.deployment.metadata["generation"] != self.generation)

    # The new ReplicaSet and the revision

    async def _require_new(self) -> Stored:
        """Return the new ReplicaSet, and create it if it's missing."""
        if self.new:
            return self.new
        template = self.spec["template"]
        label = {rollout.HASH_LABEL: rollout.template_hash(template)}
        labels = (template["metadata"].get("labels") or {}) | label
        selector = self.spec["selector"]
        size = rollout.new_replicas(self.deployment, self.old, 0)
        name = f"{self.deployment.name}-{label[rollout.HASH_LABEL]}"
        revision = self._next_revision()
        notes = self._inherited() | self._sizes() | {rollout.REVISION: revision}
        replica_set = {
            "metadata": {
                "name": name,
                "labels": labels,
                "annotations": notes,
                "ownerReferences": [controller_reference(DEPLOYMENT, self.deployment)],
            },
            "spec": {
                "replicas": size,
                "selector": {**selector, "matchLabels": (selector.get("matchLabels") or {}) | label},
                "template": {**template, "metadata": {**template["metadata"], "labels": labels}},
                **({"minReadySeconds": self.spec["minReadySeconds"]} if self.spec.get("minReadySeconds") else {}),
            },
        }
        try:
            new = self.new = await self.client.create(REPLICA_SET, self.deployment.namespace, replica_set)
        except ApiError as refusal:
            text = f'Failed to create new replica set "{name}": {refusal.message}'
            self._read_again()
            self._set(progress=("False", "ReplicaSetCreateError", text))
            raise
        self._read_again()
        if size:
            self._event(f"Scaled up replica set {name} from 0 to {size}")
        self._set(revision, ("True", "NewReplicaSetCreated", f'Created new replica set "{name}"'))
        return new

    def _note_new(self, new: Stored) -> None:
        """Update the new ReplicaSet. Then give the Deployment the ReplicaSet's revision number."""
        revision = self._next_revision()
        notes = rollout.annotations(new) | self._inherited()
        if (before := rollout.revision(new)) < int(revision):
            notes[rollout.REVISION] = revision
            if before:
                history = notes.get(rollout.REVISION_HISTORY, "")
                notes[rollout.REVISION_HISTORY] = f"{history},{before}" if history else str(before)
        spec, wait = new.object["spec"], self.spec.get("minReadySeconds", 0)
        if spec.get("minReadySeconds", 0) != wait:
            spec = {**spec, "minReadySeconds": wait}
        metadata = {**new.metadata, "annotations": notes}
        self.new = self.client.update(REPLICA_SET, new, {**new.object, "metadata": metadata, "spec": spec})
        progressing = rollout.find_condition(self.conditions, "Progressing")
        progress = None if progressing else ("True", "FoundNewReplicaSet", f'Found new replica set "{new.name}"')
        self._set(rollout.annotations(self.new).get(rollout.REVISION, revision), progress)

    def _inherited(self) -> Object:
        """Return the annotations that ReplicaSets copy from the Deployment."""
        own = rollout.OWN_ANNOTATIONS
        return {key: value for key, value in rollout.annotations(self.deployment).items() if key not in own}

    def _sizes(self) -> Object:
        """Return two annotations for a ReplicaSet: the wanted and the maximum number of the Deployment's pods."""
        wanted, (surge, _) = replicas(self.deployment), rollout.limits(self.deployment)
        return {rollout.DESIRED: str(wanted), rollout.MAXIMUM: str(wanted + surge)}

    def _next_revision(self) -> str:
        return str(max(map(rollout.revision, self.old), default=0) + 1)

    def _note_pause(self, paused: bool) -> None:
        progress = rollout.find_condition(self.conditions, "Progressing") or {}
        noted = progress.get("reason") == "DeploymentPaused"
        if progress.get("reason") == rollout.TIMED_OUT or paused == noted:
            return
        what = "paused" if paused else "resumed"
        self._set(progress=("Unknown", f"Deployment{what.capitalize()}", f"Deployment is {what}"))

    # Strategies

    async def _recreate(self) -> None:
        if self._scale_down(self.old):
            return
        running = [pod for old in self.old for pod in self.owners.controlled(POD, old) if not has_ended(pod.object)]
        if running:
            return
        new = await self._require_new()
        if not self._outdated():
            self._scale(new, replicas(self.deployment))
            self._clean_up_when_complete()

    async def _roll(self) -> None:
        new = await self._require_new()
        present, wanted = replicas(new), replicas(self.deployment)
        size = wanted if present > wanted else rollout.new_replicas(self.deployment, self.sets, present)
        if not self._outdated() and not self._scale(new, size) and not self._shrink(new):
            self._clean_up_when_complete()

    def _shrink(self, new: Stored) -> bool:
        """Scale the old ReplicaSets down, and return whether the size of any of them changed.

        First take away pods that are unavailable, then pods that are available. Each step stops when the rollout does
        not allow fewer pods.
        """
        least = replicas(self.deployment) - rollout.limits(self.deployment)[1]
        new_missing = replicas(new) - counted(new, "availableReplicas")
        room = sum(map(replicas, self.sets)) - least - new_missing
        if room <= 0 or not rollout.active(self.old):
            return False
        changed = False
        for i, old in enumerate(self.old):
            ill = min(room, replicas(old) - counted(old, "availableReplicas"))
            if ill > 0:
                room -= ill
                changed = self._scale_old(i, replicas(old) - ill) or changed
        room = sum(counted(one, "availableReplicas") for one in self.sets) - least
        for i, old in enumerate(self.old):
            if (fewer := min(room, replicas(old))) > 0:
                room -= fewer
                changed = self._scale_old(i, replicas(old) - fewer) or changed
        return changed

    # Scaling

    def _was_scaled(self) -> bool:
        """Whether the Deployment's replicas have changed since its ReplicaSets were last scaled."""
        desired = [rollout.noted(one, rollout.DESIRED) for one in rollout.active(self.sets)]
        return any(number is not None and number != replicas(self.deployment) for number in desired)

    def _scale_all(self) -> None:
        wanted, present = replicas(self.deployment), rollout.active(self.sets)
        if len(present) <= 1:
            only = present[0] if present else self.new or next(reversed(self.old), None)
            if only and replicas(only) != wanted:
                self._scale(only, wanted)
        elif self._saturated():
            self._scale_down(self.old)
        elif self.spec["strategy"]["type"] == "RollingUpdate":
            for one, size in rollout.proportional(self.deployment, self.sets):
                self._scale(one, size)

    def _saturated(self) -> bool:
        """Whether the new ReplicaSet has all wanted pods, and all of them are available."""
        wanted = replicas(self.deployment)
        return (
            self.new is not None
            and wanted == replicas(self.new) == counted(self.new, "availableReplicas")
            and rollout.noted(self.new, rollout.DESIRED) == wanted
        )

    def _scale_down(self, sets: list[Stored]) -> bool:
        going = rollout.active(sets)
        for one in going:
            self._scale(one, 0)
        return bool(going)

    def _scale_old(self, index: int, size: int) -> bool:
        changed = self._scale(self.old[index], size)
        # The next change needs the new version.
        self.old[index] = self.storage.get(REPLICA_SET, self.deployment.namespace, self.old[index].name)
        return changed

    def _scale(self, one: Stored, size: int) -> bool:
        """Scale a ReplicaSet, and return whether its size changed."""
        before = replicas(one)
        metadata = {**one.metadata, "annotations": rollout.annotations(one) | self._sizes()}
        spec = {**one.object["spec"], "replicas": size}
        self.client.update(REPLICA_SET, one, {**one.object, "metadata": metadata, "spec": spec})
        if size != before:
            way = "up" if size > before else "down"
            self._event(f"Scaled {way} replica set {one.name} from {before} to {size}")
        return size != before

    def _clean_up_when_complete(self) -> None:
        if rollout.complete(self.deployment, self.deployment.object.get("status") or {}):
            self._clean_up()

    def _clean_up(self) -> None:
        """Delete the oldest ReplicaSets beyond the revisionHistoryLimit, if they have no pods."""
        old = [one for one in self.old if "deletionTimestamp" not in one.metadata]
        surplus = len(old) - self.spec["revisionHistoryLimit"]
        for one in sorted(old, key=rollout.revision)[: max(surplus, 0)]:
            seen = counted(one, "observedGeneration") >= one.metadata["generation"]
            if seen and not replicas(one) and not counted(one, "replicas"):
                self.client.delete(REPLICA_SET, one)

    # Status

    def _report(self) -> float | None:
        """Write the rollout's progress into the Deployment's status.

        Return the lab time of the rollout's deadline; None if the rollout is complete or has no deadline.
        """
        self._read_sets_again()
        before, after = self.deployment.object.get("status") or {}, self._status()
        endless = self.spec["progressDeadlineSeconds"] == rollout.ENDLESS
        progress = rollout.find_condition(after["conditions"], "Progressing")
        done = (progress or {}).get("reason") == "NewReplicaSetAvailable" and (
            after.get("replicas", 0) == after.get("updatedReplicas", 0)
        )
        if endless:
            after["conditions"] = rollout.without_condition(after["conditions"], "Progressing")
        elif not done and (news := self._news(before, after, progress)):
            after["conditions"] = [*rollout.without_condition(after["conditions"], "Progressing"), news]
        self._report_failure(after)
        self._write_status(after)
        moment = rollout.deadline(self.deployment, rollout.find_condition(self.conditions, "Progressing"))
        return None if rollout.complete(self.deployment, after) else moment

    def _news(self, before: Object, after: Object, progress: Object | None) -> Object | None:
        """Return the condition Progressing that replaces ``progress``."""
        what = f'ReplicaSet "{self.new.name}"' if self.new else f'Deployment "{self.deployment.name}"'
        now = self.storage.now()
        if rollout.complete(self.deployment, after):
            text = f"{what} has successfully progressed."
            news = rollout.condition("Progressing", "True", "NewReplicaSetAvailable", text, now)
            kept = rollout.with_condition(after["conditions"], news)
            return rollout.find_condition(kept, "Progressing")
        if rollout.progressing(before, after):
            news = rollout.condition("Progressing", "True", "ReplicaSetUpdated", f"{what} is progressing.", now)
            if progress and progress.get("status") == "True":
                news["lastTransitionTime"] = progress.get("lastTransitionTime")
            return news
        moment = rollout.deadline(self.deployment, progress)
        if moment is not None and moment < self.storage.clock.now():
            text = f"{what} has timed out progressing."
            return rollout.condition("Progressing", "False", rollout.TIMED_OUT, text, now)
        return None

    def _report_failure(self, after: Object) -> None:
        """Copy a ReplicaSet's condition ReplicaFailure into the status ``after``."""
        after["conditions"] = rollout.without_condition(after["conditions"], "ReplicaFailure")
        for one in (self.new, *self.old):
            conditions = (one.object.get("status") or {}).get("conditions") or [] if one else []
            if failure := rollout.find_condition(conditions, "ReplicaFailure"):
                moment = failure.get("lastTransitionTime") or self.storage.now()
                status, reason, message = (failure.get(key, "") for key in ("status", "reason", "message"))
                after["conditions"].append(rollout.condition("ReplicaFailure", status, reason, message, moment))
                return

    def _status(self) -> Object:
        return rollout.status(self.deployment, self.new, self.sets, self.storage.now())

    def _write_status(self, status: Object) -> None:
        self._update({**self.deployment.object, "status": status})

    def _set(self, revision: str = "", progress: tuple[str, str, str] | None = None) -> None:
        """Write a revision number and a condition Progressing into the Deployment."""
        obj = self.deployment.object
        if revision:
            notes = rollout.annotations(self.deployment) | {rollout.REVISION: revision}
            obj = {**obj, "metadata": {**obj["metadata"], "annotations": notes}}
        if progress and self.spec["progressDeadlineSeconds"] != rollout.ENDLESS:
            news = rollout.condition("Progressing", *progress, self.storage.now())
            status = obj.get("status") or {}
            obj = {**obj, "status": {**status, "conditions": rollout.with_condition(self.conditions, news)}}
        self._update(obj)

    def _update(self, obj: Object) -> None:
        self.deployment = self.client.update(DEPLOYMENT, self.deployment, obj, "status")

    def _read_again(self) -> None:
        self.deployment = self.storage.get(DEPLOYMENT, self.deployment.namespace, self.deployment.name)

    def _read_sets_again(self) -> None:
        current = (self.storage.find(REPLICA_SET, one.namespace, one.name) for one in self.old)
        self.old = [one for one in current if one]
        if self.new:
            self.new = self.storage.find(REPLICA_SET, self.new.namespace, self.new.name)

    def _event(self, message: str) -> None:
        self.client.events.record(DEPLOYMENT, self.deployment, "Normal", "ScalingReplicaSet", message)
