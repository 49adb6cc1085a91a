"""Find pods that use too much local storage, as a kubelet does before it evicts them.

https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
https://kubernetes.io/docs/concepts/scheduling-eviction/node-pressure-eviction/
"""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from labkit.simulator.kubernetes.node.users import Users
from labkit.simulator.kubernetes.objects.kinds import Object
from labkit.simulator.kubernetes.objects.quantities import quantity

LOOK = 2.0  # seconds between two looks
LEAST_FREE, LEAST_SHARE = 1 << 30, 10  # a node keeps 1 GiB free, or a 10th of a smaller disk


def excess(pod: Object, folder: Path, users: Users) -> str:
    """Return, in a kubelet's words, which limit the pod's files in ``folder`` exceed; "" if they exceed none."""
    for name, limit in _sizes_of_volumes(pod):
        if quantity(limit) > 0 and used(folder / "volumes" / name, users) > quantity(limit):
            return f'Usage of EmptyDir volume "{name}" exceeds the limit "{limit}". '
    limits = {
        container["name"]: ((container.get("resources") or {}).get("limits") or {}).get("ephemeral-storage")
        for container in pod["spec"]["containers"]
    }
    total = sum(int(quantity(limit)) for limit in limits.values() if limit)
    if total and used(folder, users) > total:
        return f"Pod ephemeral local storage usage exceeds the total limit of containers {_text(total)}. "
    for name, most in limits.items():
        if most and used(folder / "containers" / name, users) > quantity(most):
            return f'Container {name} exceeded its local ephemeral storage limit "{most}". '
    return ""


def lack(disk: Path) -> tuple[int, int]:
    """Return the bytes that the disk should have free, and the bytes that it has; (0, 0) if it has enough."""
    usage = shutil.disk_usage(disk)
    least = min(LEAST_FREE, usage.total // LEAST_SHARE)
    return (least, usage.free) if usage.free < least else (0, 0)


def low_on_storage(container: str, least: int, free: int, using: int) -> str:
    """Return, in a kubelet's words, why the node evicts the pod that uses the most, with this container."""
    return (
        "The node was low on resource: ephemeral-storage. "
        f"Threshold quantity: {_text(least)}, available: {_text(free)}. "
        f"Container {container} was using {_text(using)}, request is 0, has larger consumption of ephemeral-storage. "
    )


def used(folder: Path, users: Users) -> int:
    """Return the bytes that the files in ``folder`` take on the disk."""
    total, errors = 0, list[OSError]()
    for parent, _, files in os.walk(folder, onerror=errors.append):
        for name in files:
            try:
                total += Path(parent, name).lstat().st_blocks * 512
            except OSError:  # deleted in the meantime
                continue
    if users.grade != "none" and any(isinstance(error, PermissionError) for error in errors):
        return users.used(folder)  # a container's user has closed a folder
    return total


def _text(size: int) -> str:
    """Return a number of bytes as a quantity in its canonical form, such as `10Mi`."""
    for shift, unit in ((30, "Gi"), (20, "Mi"), (10, "Ki")):
        if size and size % (1 << shift) == 0:
            return f"{size >> shift}{unit}"
    return str(size)


def _sizes_of_volumes(pod: Object) -> Iterator[tuple[str, str]]:
    for volume in pod["spec"].get("volumes") or ():
        if limit := (volume.get("emptyDir") or {}).get("sizeLimit"):
            yield volume["name"], limit
