"""One cluster's files in the lab's folder: keys, objects, pods' files, and a record while the cluster exists."""

import json
import re
import shutil
from dataclasses import asdict, dataclass
from typing import Any

from labkit.errors import LabError
from labkit.simulator.folder import Folder
from labkit.simulator.names import CLUSTER_NAME, file_name
from labkit.simulator.process import REGION, context

RECORD = "cluster.json"
REGION_NAME, ISSUER_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,39}"), re.compile("[0-9A-F]{32}")
LATEST = 2**33  # seconds since the epoch, in the year 2242


@dataclass(frozen=True)
class ClusterRecord:
    """The data from which the lab's next server starts a cluster again.

    ``request`` has the parameters of `eks:CreateCluster`.
    """

    region: str
    name: str
    issuer_id: str
    created_at: float  # lab time in seconds since the epoch
    request: dict[str, Any]

    @property
    def context(self) -> str:
        """The name of the cluster's context in the kubeconfig."""
        return context(self.name, self.region, REGION)

    @property
    def is_valid(self) -> bool:
        """Whether every field has a value that a lab writes."""
        return bool(
            CLUSTER_NAME.fullmatch(self.name)
            and REGION_NAME.fullmatch(self.region)
            and ISSUER_ID.fullmatch(self.issuer_id)
            and 0 <= self.created_at < LATEST
            and isinstance(self.request, dict)
        )


class ClusterFolder:
    """The folder ``clusters/CONTEXT``. CONTEXT is the name of the cluster's context in the kubeconfig.

    In the folder's name, `file_name` replaces the capitals of CONTEXT.
    """

    def __init__(self, folder: Folder, context: str):
        self._folder = folder
        name = file_name(context)
        self.path = folder.path / "clusters" / name
        self.keys = f"clusters/{name}"
        self.objects = self.path / "objects.db"
        self.node = folder.pods / name

    @classmethod
    def records(cls, folder: Folder) -> list[ClusterRecord]:
        """Return the records of all existing clusters, oldest first. Raises `LabError` if a record is not readable."""
        records = []
        for file in folder.path.glob(f"clusters/*/{RECORD}"):
            try:
                record = ClusterRecord(**json.loads(file.read_text()))
                # Its names become paths and URLs.
                if not record.is_valid or cls(folder, record.context).path != file.parent:
                    raise ValueError("a name in it is not valid")
                records.append(record)
            except (ValueError, TypeError) as error:
                raise LabError(
                    "The record of a cluster cannot be read: it is damaged, or another version of labkit wrote it.",
                    where=str(file),
                    next="labkit reset, which empties the lab; or start the lab with the labkit version that made it",
                ) from error
        return sorted(records, key=lambda record: (record.created_at, record.name))

    def record(self, record: ClusterRecord) -> None:
        """Write the record of an existing cluster. The lab's next server reads it."""
        self._folder.write_private(self.path / RECORD, json.dumps(asdict(record)).encode())

    def forget_record(self) -> None:
        """Delete the record of a cluster that no longer exists."""
        (self.path / RECORD).unlink(missing_ok=True)

    def forget_contents(self) -> None:
        """Delete the objects and the pods' files, but not the keys. The cluster must not be running."""
        for file in self.path.glob(f"{self.objects.name}*"):
            file.unlink()
        shutil.rmtree(self.node, ignore_errors=True)
