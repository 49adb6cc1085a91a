"""The files in the lab's folder about existing clusters that joined the lab."""

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from typing import Any

import yaml

from labkit.simulator.folder import Folder
from labkit.simulator.names import file_name, of_file
from labkit.simulator.process import TARGET_TAG, State

JOINED = "kind"
LOOPBACK = "127.0.0.1"
FOLDER_LABEL = "labkit/folder"


def is_joined(request: dict[str, Any]) -> bool:
    """Whether this request of `eks:CreateCluster` joins an existing cluster instead of creating one."""
    return (request.get("tags") or {}).get(TARGET_TAG) == JOINED


@dataclass(frozen=True)
class Facts:
    """Facts about a joined cluster. The cluster's kubeconfig doesn't have these facts."""

    aws_host: str  # the IPv4 address at which the cluster's containers reach this machine
    image: str = ""  # the image for the lab's pods; empty for the default image
    source: str = ""  # where the kubeconfig came from, in words for the user
    kubectl: str = ""  # the kubectl command for the user's own kubeconfig, with its options
    made: str = ""  # the cluster's name in the program kind, if the lab created the cluster with it
    public_issuer: bool = False  # whether the issuer publishes its own documents: STS asks its host, not the API server


class JoinedFolder:
    """The facts and files that the lab keeps about one joined cluster, in a subfolder for this cluster."""

    def __init__(self, folder: Folder, cluster: str, region: str):
        self._folder = folder
        self.cluster, self.region = cluster, region
        self.path = folder.path / "joined" / file_name(f"{cluster}@{region}")
        self.kubeconfig = self.path / "kubeconfig"
        self.webhooks = self.path / "webhooks.yaml"
        """The file with the manifests of both webhooks, for `kubectl apply`."""

    @classmethod
    def all(cls, folder: Folder) -> "list[JoinedFolder]":
        """Return the kept facts of every cluster that joined and wasn't forgotten."""
        return [
            cls(folder, *of_file(facts.parent.name).rsplit("@", 1))
            for facts in sorted(folder.path.glob("joined/*/facts.json"))
        ]

    @classmethod
    def joined(cls, folder: Folder) -> "dict[str, JoinedFolder]":
        """Return the `JoinedFolder` of each cluster that has joined the running lab, by the cluster's context."""
        state = State.read(folder) if folder.is_running() else None
        if state is None:
            return {}
        remembered = {state.context(kept.cluster, kept.region): kept for kept in cls.all(folder) if kept.facts}
        return {name: kept for name, kept in remembered.items() if name in state.clusters}

    @property
    def facts(self) -> Facts | None:
        """The facts in the file `facts.json`; None if the file is missing, or if another version of labkit wrote it."""
        try:
            return Facts(**self._folder.read_json(f"joined/{self.path.name}/facts.json"))
        except TypeError:
            return None

    def keep(self, facts: Facts, kubeconfig: dict[str, object]) -> None:
        """Write the facts and the kubeconfig. The kubeconfig's only context is the cluster's."""
        self._folder.write_private(self.kubeconfig, yaml.safe_dump(kubeconfig).encode())
        self.keep_facts(facts)

    def keep_facts(self, facts: Facts) -> None:
        """Write the facts. `keep` also writes the kubeconfig."""
        self._folder.write_private(self.path / "facts.json", json.dumps(asdict(facts)).encode())

    def keep_webhooks(self, manifests: list[dict[str, object]]) -> None:
        """Write the manifests of both webhooks."""
        self._folder.write_private(self.webhooks, yaml.safe_dump_all(manifests, sort_keys=False).encode())

    def webhook_registration(self) -> dict[str, object]:
        """Return the manifest of the pod identity webhook; empty if it isn't kept."""
        manifests = yaml.safe_load_all(self.webhooks.read_text()) if self.webhooks.exists() else ()
        return next((each for each in manifests if each["metadata"]["name"] == "pod-identity-webhook"), {})

    def forget(self) -> None:
        """Delete the kept files."""
        shutil.rmtree(self.path, ignore_errors=True)


def is_of_this_lab(configuration: dict[str, Any], folder: Folder) -> bool:
    """Whether the lab in this folder registered the MutatingWebhookConfiguration."""
    return (configuration["metadata"].get("labels") or {}).items() >= labels(folder).items()


def is_of_a_lab(configuration: dict[str, Any]) -> bool:
    """Whether any lab registered the MutatingWebhookConfiguration."""
    return FOLDER_LABEL in (configuration["metadata"].get("labels") or {})


def labels(folder: Folder) -> dict[str, str]:
    """Return the labels of this lab's webhooks. One label is a hash of the folder's CA, so it differs in each lab."""
    from labkit.run_parameters import LAB, LAB_LABEL  # it takes long to load, and few labs need it here

    authority = hashlib.sha256(folder.authority.certificate_pem).hexdigest()
    return {LAB_LABEL: LAB, FOLDER_LABEL: authority[:16]}


def webhook_selector(folder: Folder) -> str:
    """Return the labels of this lab's webhooks as a selector for `kubectl -l`."""
    return ",".join(f"{name}={value}" for name, value in labels(folder).items())
