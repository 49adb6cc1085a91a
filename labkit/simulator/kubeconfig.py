"""The lab's kubeconfig: entries for the lab's clusters, and entries that the user or other tools added.

https://kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig/
"""

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from labkit.simulator.certificates import Certificate

# The context of a kubeconfig without a cluster. With no context at all, kubectl would call port 8080.
NO_CLUSTER = "no-cluster-in-this-lab"
# Marks the lab's own entries. Others were added, for example by `aws eks update-kubeconfig`.
OURS = [{"name": "labkit", "extension": {"provider": "labkit"}}]


@dataclass(frozen=True)
class Entry:
    """One cluster: its context's name, its ARN, its address and CA (``cluster``), and the credentials (``user``)."""

    name: str
    arn: str
    cluster: dict[str, Any]
    user: dict[str, Any]


def entry(name: str, arn: str, server: str, authority_pem: bytes, administrator: "Certificate") -> Entry:
    """Return the entry of a cluster. The entry's credentials are the certificate and key of `administrator`."""
    return Entry(
        name,
        arn,
        {"server": server, "certificate-authority-data": _base64(authority_pem)},
        {
            "client-certificate-data": _base64(administrator.certificate_pem),
            "client-key-data": _base64(administrator.key_pem),
        },
    )


def merged(before: str, entries: Iterable[Entry]) -> str:
    """Return the kubeconfig ``before``, with ``entries`` instead of the lab's earlier entries. All other entries stay.

    A current context that leads to one of the lab's clusters stays current. Otherwise, the newest cluster's context
    becomes current. If ``before`` has no current context, as in a new file, the oldest cluster's context does.

    Without ``entries``, `NO_CLUSTER` becomes current, unless the current context leads to a cluster of someone else.

    An entry by `aws eks update-kubeconfig` for one of the lab's clusters gets the cluster's present address.
    """
    entries = list(entries)
    there = _read(before)
    own = {entry.name for entry in entries}
    at = {entry.arn: entry.cluster for entry in entries}
    clusters, users, contexts = (
        {
            name: value
            for name, value in there[kind].items()
            if name not in own and OURS[0]["name"] not in [each.get("name") for each in value.get("extensions") or ()]
        }
        for kind in ("cluster", "user", "context")
    )
    clusters = {name: {**cluster, **at.get(name, {})} for name, cluster in clusters.items()}
    current = there["current-context"]
    leads_to = contexts.get(current, {}).get("cluster")
    # A lab that has just started has no cluster yet. It keeps a current context that leads to any cluster.
    if current not in own and (leads_to not in own | at.keys() if entries else leads_to is None):
        usual = 0 if current in (None, NO_CLUSTER) else -1
        current = entries[usual].name if entries else NO_CLUSTER
    for entry in entries:
        clusters[entry.name] = entry.cluster | {"extensions": OURS}
        users[entry.name] = entry.user | {"extensions": OURS}
        # The namespace that `kubectl config set-context --current --namespace=…` chose stays.
        context = there["context"].get(entry.name, {}) | {"cluster": entry.name, "user": entry.name}
        contexts[entry.name] = context | {"extensions": OURS}
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": name, "cluster": value} for name, value in clusters.items()],
            "users": [{"name": name, "user": value} for name, value in users.items()],
            "contexts": [{"name": name, "context": value} for name, value in contexts.items()],
            "current-context": current,
        }
    )


def current(text: str) -> str:
    """Return the name of the current context in the kubeconfig ``text``; `NO_CLUSTER` if no context is current."""
    return _read(text)["current-context"] or NO_CLUSTER


def cluster_in_use(text: str) -> str:
    """Return the name of the cluster that the current context in the kubeconfig ``text`` leads to; empty if unknown.

    That is the context's own name, or the cluster's ARN in an entry by `aws eks update-kubeconfig`.
    """
    return str(_read(text)["context"].get(current(text), {}).get("cluster", ""))


def leading_to(text: str, context: str, arn: str) -> str:
    """Return the kubeconfig ``text`` with ``context`` as the current context.

    If the current context already leads to the cluster with this ARN, return ``text`` unchanged.
    """
    there = _read(text)["context"]
    if there.get(current(text), {}).get("cluster") in (context, arn):
        return text
    return yaml.safe_dump({**yaml.safe_load(text), "current-context": context})


def _read(text: str) -> dict[str, Any]:
    """Return the entries of a kubeconfig by kind and name."""
    try:
        config = yaml.safe_load(text)
        by_kind: dict[str, Any] = {
            kind: {entry["name"]: entry[kind] or {} for entry in config.get(f"{kind}s") or ()}
            for kind in ("cluster", "user", "context")
        }
        return by_kind | {"current-context": config.get("current-context")}
    except (yaml.YAMLError, AttributeError, KeyError, TypeError):
        return {"cluster": {}, "user": {}, "context": {}, "current-context": None}


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
