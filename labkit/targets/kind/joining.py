"""Choose the cluster that joins the lab.

If the parameters name a kubeconfig, choose its cluster. Otherwise, choose the cluster that joined before under the name
`parameters.cluster`. If no such cluster exists, create a kind cluster.
"""

import socket
import sys
from contextlib import closing, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from labkit.errors import LabError
from labkit.simulator import Facts, Folder, JoinedFolder, State
from labkit.targets.kind import address as kind_address
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind.kubeconfig import NOTHING, Way
from labkit.targets.kind.leaving import leave

if TYPE_CHECKING:
    from labkit.run_parameters import Parameters

MADE_WITHIN = 900  # seconds; kind may have to download the node's image first


class AnotherCluster(LabError):
    """The lab already has another cluster that has the same name or the same issuer."""


def prepared(folder: Folder, kept: JoinedFolder, parameters: "Parameters", way: Way | None, aws_host: str) -> Facts:
    """Choose the cluster, or create one. Check it, store its facts, and return them. Raises `LabError`."""
    # Another notebook may be creating the cluster: wait until that cluster exists.
    with folder.turn("kind.lock", doing=f"preparing the cluster {parameters.cluster}", within=MADE_WITHIN):
        before = kept.facts
        if way is not None and not (before and before.made and _is_of(way, kept)):
            _refuse_for_made(way, kept)
            facts = Facts(aws_host=aws_host, image=parameters.image, source=way.where, kubectl=way.kubectl)
            facts = _checked(folder, parameters, way, facts)
            if before and not _is_of(way, kept):
                _leave_for_another(kept, folder)
            kept.keep(facts, way.kubeconfig)
            return facts
        if before and (not before.made or (kept.kubeconfig.exists() and _is_there(before.made))):
            facts = replace(before, aws_host=aws_host or before.aws_host, image=parameters.image or before.image)
            way = Way.kept(kept)
            facts = _checked(folder, parameters, way, facts)
            kept.keep(facts, way.kubeconfig)
            return facts
        return _made(folder, kept, parameters, aws_host)


def undo(kept: JoinedFolder, folder: Folder) -> None:
    """Let a cluster that has just joined leave again. If that fails, print why."""
    if (facts := kept.facts) and facts.made:
        _say(f"Deleting the kind cluster {facts.made} …")
    if left := leave(kept, folder):
        _say(
            f"{left.what}\nThe lab remembers this cluster, and the next labkit down tries again. "
            f"To delete the leftovers yourself:  {left.command}"
        )


def _say(text: str) -> None:
    with suppress(OSError):  # the terminal may have been closed
        print(text, file=sys.stderr)


def _refuse_for_made(way: Way, kept: JoinedFolder) -> None:
    """Raise `AnotherCluster` if joining would make the lab forget a kind cluster without deleting it."""
    if (facts := kept.facts) and facts.made:
        raise AnotherCluster(
            f"The lab's cluster {kept.cluster} is already the kind cluster {facts.made}. "
            f"It can't also be the cluster of {way.where}.",
            where=f"parameters cluster, kubeconfig and context; {NOTHING}",
            next='set the parameter cluster to a new name, such as "other". Or delete the kind cluster:  labkit down',
        )


def _leave_for_another(kept: JoinedFolder, folder: Folder) -> None:
    if left := leave(kept, folder):
        # Only print the failure, because the cluster may be gone.
        way_out = f"If that cluster still exists, remove the lab's leftovers from it:  {left.command}"
        print(f"{left.what}\n{way_out}", file=sys.stderr)


def _is_of(way: Way, kept: JoinedFolder) -> bool:
    return kept.kubeconfig.exists() and Way.of_kubeconfig(kept.kubeconfig).server == way.server


def _made(folder: Folder, kept: JoinedFolder, parameters: "Parameters", aws_host: str) -> Facts:
    from labkit.targets.kind import program as kind_program

    program, name = kind_program.KindProgram(), kind_program.name_of(parameters.cluster, parameters.region)
    if not aws_host and program.is_apart:
        raise kind_address.unknown("the containers run in a virtual machine or in a rootless runtime")
    if kept.facts and kept.facts.made == name:
        program.delete(name)  # an interrupted `up` left an incomplete cluster
        kept.kubeconfig.unlink(missing_ok=True)
    else:
        program.require_free(name)
    print(f"Making the kind cluster {name} (a few minutes) …", file=sys.stderr)
    facts = Facts(aws_host=aws_host, image=parameters.image, source=f"kind, {name}", made=name)
    # Store the facts first: if this process is killed, `labkit down` still deletes the cluster.
    kept.keep_facts(facts)
    try:
        keys, made_kubeconfig = kept.path / "signing", kept.path / "kind-kubeconfig"
        kind_program.write_keys(keys)
        program.create(kind_program.configuration(name, _issuer(folder, parameters), keys), made_kubeconfig)
        way = Way.of_kubeconfig(made_kubeconfig, f"kind-{name}")
        facts = _checked(folder, parameters, way, facts)
        kept.keep(facts, way.kubeconfig)
        return facts
    except BaseException:
        undo(kept, folder)
        raise


def _checked(folder: Folder, parameters: "Parameters", way: Way, facts: Facts) -> Facts:
    with closing(way.client()) as api:
        discovery = kind_cluster.discovery(way, api)
        addresses = kind_cluster.require_nodes(way, api)
        kind_cluster.require_webhooks(way, api, folder)
    _refuse_known_issuer(folder, parameters, discovery["issuer"])
    if not facts.aws_host:
        facts = replace(facts, aws_host=kind_address.find(addresses))
    if not facts.made:
        facts = replace(facts, public_issuer=is_public(discovery))
    return facts


def _refuse_known_issuer(folder: Folder, parameters: "Parameters", issuer: str) -> None:
    state = State.read(folder) if folder.is_running() else None
    own = state.context(parameters.cluster, parameters.region) if state else ""
    for name, cluster in (state.clusters if state else {}).items():
        if cluster["issuer"] == issuer and name != own:
            raise AnotherCluster(
                f"The cluster {parameters.cluster} has the same issuer as the lab's cluster {name}: {issuer}. "
                "AWS could not tell the two clusters' tokens apart.",
                where=f"parameter cluster; {NOTHING}",
                next=f"set LABKIT_HOME to a new folder, or, if nobody needs the lab's cluster {name}, delete it: "
                f"aws eks delete-cluster --name {name}",
            )


def _issuer(folder: Folder, parameters: "Parameters") -> str:
    """Return the issuer's URL for a kind cluster. No cluster on the target moto has the same URL."""
    from labkit.simulator import Identifiers

    cluster = f"kind/{parameters.cluster}@{parameters.region}"
    return f"https://oidc.eks.{parameters.region}.amazonaws.com/id/{Identifiers(folder.seed).hex('issuer', cluster)}"


def _is_there(name: str) -> bool:
    from labkit.targets.kind.program import KindProgram

    return KindProgram().has(name)


def is_public(discovery: dict[str, Any]) -> bool:
    """Whether the issuer publishes its own documents under a host name that also resolves outside the cluster.

    https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
    """
    issuer, keys = urlsplit(discovery["issuer"]), urlsplit(discovery.get("jwks_uri") or "")
    if issuer.netloc != keys.netloc:
        return False  # only the API server publishes the keys and the discovery document
    try:
        return bool(socket.getaddrinfo(issuer.hostname, issuer.port or 443))
    except OSError:
        return False
