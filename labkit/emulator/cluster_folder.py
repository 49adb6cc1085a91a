"""One cluster's part of the lab's folder: its keys, its objects, its node, and a record while it exists."""

import json
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from labkit.emulator.folder import Folder
from labkit.errors import LabError

RECORD = "cluster.json"


@dataclass(frozen=True)
class Record:
    """The data from which a cluster is started again; ``request`` is that of `eks:CreateCluster`."""

    region: str
    name: str
    issuer_id: str
    created_at: float  # lab time in seconds since the epoch
    request: dict[str, Any]


class ClusterFolder:
    """``clusters/CONTEXT``, by the cluster's context in the kubeconfig."""

    def __init__(self, folder: Folder, context: str):
        self._folder = folder
        self.path = folder.path / "clusters" / context
        self.keys = f"clusters/{context}"
        self.objects = self.path / "objects.db"
        self.node = folder.pods / context

    @classmethod
    def records(cls, folder: Folder) -> list[Record]:
        """Return the records of all existing clusters, the oldest first. Raises `LabError` if one is not readable."""
        records = []
        for file in folder.path.glob(f"clusters/*/{RECORD}"):
            try:
                records.append(Record(**json.loads(file.read_text())))
            except (ValueError, TypeError) as error:
                raise LabError(
                    "the record of a cluster cannot be read: it is damaged, or another version of labkit wrote it.",
                    where=str(file),
                    next="labkit reset, which empties the lab; or start it with the version that made it",
                ) from error
        return sorted(records, key=lambda record: (record.created_at, record.name))

    def record(self, record: Record) -> None:
        """Note that the cluster exists, also for the lab's next server."""
        self._folder.write_private(self.path / RECORD, json.dumps(asdict(record)).encode())

    def forget_record(self) -> None:
        """Note that the cluster no longer exists."""
        (self.path / RECORD).unlink(missing_ok=True)

    def forget_contents(self) -> None:
        """Delete the objects and the pods' files, but not the keys. No server may be using them."""
        for file in self.path.glob(f"{self.objects.name}*"):
            file.unlink()
        shutil.rmtree(self.node, ignore_errors=True)
