"""The target named `kind`. The cluster is a kind cluster, or any existing cluster that joined the lab.

The lab's server emulates AWS for the cluster on this machine.
"""

import sys
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from labkit import simulator
from labkit.connection import IMAGE, OTHER_ACCOUNT, Connection, NotThereYet, awaited
from labkit.errors import LabError, NotAllowed, answering
from labkit.simulator import JOINED, TARGET_TAG, Facts, Folder, JoinedFolder, State
from labkit.targets import moto
from labkit.targets.kind import address as kind_address
from labkit.targets.kind import cluster as kind_cluster
from labkit.targets.kind import issuer as kind_issuer
from labkit.targets.kind.cluster import NoAnswer, NotUsable
from labkit.targets.kind.issuer import IssuerWay
from labkit.targets.kind.joining import AnotherCluster, prepared, undo
from labkit.targets.kind.kubeconfig import NOTHING, Way, facts_of
from labkit.targets.kind.leaving import LeftBehind, leave

if TYPE_CHECKING:
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.run_parameters import Parameters

LED_WITHIN = 20  # seconds until an API server calls webhooks that were just registered


class NotReached(LabError):
    """The cluster's API server, or a pod in the cluster, doesn't reach this machine."""


def plan(parameters: "Parameters") -> str:
    """Return a phrase that says what `up` would do. Raises `LabError` if the account or kubeconfig can't be used."""
    moto.refuse_another_account(parameters)
    folder = Folder.find()
    lab = f"starts the lab in {folder.path}, registers two webhooks in the cluster, and emulates AWS on this machine"
    kept = JoinedFolder(folder, parameters.cluster, parameters.region)
    way = _named(parameters)
    is_joined = any(one.path == kept.path for one in JoinedFolder.joined(folder).values())
    if is_joined and (way is None or way.server == Way.kept(kept).server):
        return f"continues with the cluster of {facts_of(kept).source}, which has joined the lab in {folder.path}"
    if way:
        return f"uses the cluster of {way.where}, {lab}"
    if facts := kept.facts:
        return f"uses the cluster of {facts.source} again, {lab}"
    return f"makes a kind cluster for {parameters.cluster}, {lab}"


def up(parameters: "Parameters", *, aws_host: str = "") -> Connection:
    """Start the lab and join the cluster, if necessary. Return the connection.

    Args:
        aws_host: the IPv4 address by which the cluster's containers reach this machine; if empty, the lab finds it.

    Raises:
        LabError: the cluster can't be used, or another owner's webhook has a name that the lab needs.
    """
    folder = Folder.find()
    kept = JoinedFolder(folder, parameters.cluster, parameters.region)
    _refuse_moved_clock(folder)
    moto.refuse_another_account(parameters)
    aws_host = kind_address.checked(aws_host) if aws_host else ""
    way = _named(parameters)
    state = State.read(folder) if folder.is_running() else None
    if state and not state.ended and (cluster := _described(state, parameters)):
        _refuse_another(cluster, parameters, kept, way, aws_host)
        connection = _connection(state, parameters, cluster, kept)
        kind_cluster.require_answer(Way.kept(kept), connection.api)
        kind_issuer.refuse_another(kept, connection.issuer)
        return connection
    before, ran = kept.facts, bool(state)
    facts = prepared(folder, kept, parameters, way, aws_host)
    try:
        state = simulator.start(folder)
        cluster = _join(state, parameters, kept, tries=bool(aws_host))
    except BaseException:
        if not ran:
            simulator.stop(folder)
        if not (before and before.source == facts.source):
            undo(kept, folder)
        raise
    said = f"The cluster of {facts.source} has joined the lab; {_listening(facts)}."
    return _connection(state.noting(" ".join(filter(None, [state.note, said]))), parameters, cluster, kept)


def connect(parameters: "Parameters") -> Connection:
    """Return the connection to a joined cluster of the running lab. Start nothing, and register nothing.

    Raises `LabError` if no lab runs, if the cluster hasn't joined the lab, or if the cluster's issuer has changed.
    """
    connection = _connected(parameters)
    kind_issuer.refuse_another(JoinedFolder(Folder.find(), parameters.cluster, parameters.region), connection.issuer)
    return connection


look = start_and_look = connect  # only `up` lets a cluster join


def to_remove(parameters: "Parameters") -> Connection:
    """Return the connection, without the cluster if the cluster doesn't answer. Raises `LabError`."""
    connection = _connected(parameters)
    kept = JoinedFolder(Folder.find(), parameters.cluster, parameters.region)
    try:
        kind_cluster.require_answer(Way.kept(kept), connection.api)
    except NoAnswer as silent:
        connection.close()
        return replace(
            connection,
            kubernetes=None,
            note=f"{silent.what}\nOnly a run's resources in the lab's AWS can be removed. If the cluster "
            f"{parameters.cluster} ({facts_of(kept).source}) still exists, the run's objects in it stay.",
        )
    return connection


def down() -> bool:
    """End the lab. Delete the clusters that the lab made with kind. Remove the lab's webhooks from other clusters.

    Print a line for each cluster. Return whether the lab was running. Raises `LeftBehind` if a cluster or its webhooks
    could not be deleted.
    """
    folder = Folder.find()
    ran, left = simulator.stop(folder), []
    for kept in JoinedFolder.all(folder):
        facts = kept.facts
        if stays := leave(kept, folder):
            left.append(stays)
        elif facts:
            print(
                f"The kind cluster {facts.made} is deleted."
                if facts.made
                else f"The lab's webhooks are deleted from the cluster of {facts.source}."
            )
    if left:
        raise LeftBehind(left)
    return ran


# As on moto, the machine's own AWS settings have no effect.
own_region, environment = moto.own_region, moto.environment


def _named(parameters: "Parameters") -> Way | None:
    """Return the way to the cluster that the parameters name, or None if they name no kubeconfig."""
    if parameters.kubeconfig:
        return Way.of_kubeconfig(parameters.kubeconfig, parameters.context)
    if parameters.context:
        raise LabError(
            f"parameter context = {parameters.context!r} needs the kubeconfig that has this context.",
            where=f"parameter kubeconfig; {NOTHING}",
            next='set kubeconfig to the file that has this context, such as "~/.kube/config", and run again',
        )
    return None


def _connected(parameters: "Parameters") -> Connection:
    """Return the connection to a joined cluster, even if the cluster's issuer has changed."""
    folder = Folder.find()
    kept = JoinedFolder(folder, parameters.cluster, parameters.region)
    moto.refuse_another_account(parameters)
    way = _named(parameters)
    state = State.read(folder) if folder.is_running() else None
    cluster = _described(state, parameters) if state and not state.ended else None
    if state is None or cluster is None:
        raise NotThereYet(
            f"The cluster {parameters.cluster} has not joined the lab in {folder.path}"
            + (" yet." if state else ", which does not run."),
            where=f"the target kind; {NOTHING}",
            next=parameters.up_command,
        )
    _refuse_another(cluster, parameters, kept, way, "")
    return _connection(state, parameters, cluster, kept)


def _join(state: State, parameters: "Parameters", kept: JoinedFolder, *, tries: bool) -> "ClusterTypeDef":
    """Register the cluster in the lab's EKS, and check that the cluster reaches the lab."""
    from botocore.exceptions import BotoCoreError, ClientError

    eks = simulator.session(state, parameters.region).client("eks")
    request = {
        "name": parameters.cluster,
        "roleArn": f"arn:aws:iam::{state.account_id}:role/{simulator.CLUSTER_ROLE}",
        "resourcesVpcConfig": {},
        "tags": {TARGET_TAG: JOINED},
    }
    with answering():
        try:
            cluster: ClusterTypeDef = eks.create_cluster(**request)["cluster"]
        except eks.exceptions.ResourceInUseException:
            # Another notebook or terminal registered it a moment ago.
            return simulator.active_cluster(eks, parameters.cluster)
        except ClientError as error:
            raise NotUsable(
                error.response["Error"]["Message"], where=f"eks:CreateCluster; {NOTHING}", next="labkit status --report"
            ) from None
    try:
        _require_led(kept)
        if tries:
            _require_reached(kept)
    except BaseException:
        # Re-raise the original error, not the clean-up's.
        with suppress(BotoCoreError, ClientError):
            eks.delete_cluster(name=parameters.cluster)
        raise
    return cluster


def _require_led(kept: JoinedFolder) -> None:
    """Raise `NotReached` if the API server creates pods without calling the lab's webhooks."""
    from kubernetes.client.exceptions import ApiException

    way, facts = Way.kept(kept), facts_of(kept)
    try:
        with closing(way.client()) as api:
            led = awaited(partial(kind_cluster.is_led, api), within=LED_WITHIN, every=0.2)
    except ApiException as error:
        raise NotUsable(
            f"No pod can be created in the namespace default: {kind_cluster.message(error)}",
            where=f"{facts.source}, checked with a dry run of a pod; {NOTHING}",
            next=NotAllowed.by_the_cluster(error, "default").next
            if error.status == 403
            else f"{way.kubectl} auth can-i create pods   (if the answer is yes, read the cluster's admission rules)",
        ) from None
    if not led:
        raise NotReached(
            f"The cluster's API server does not reach this machine at {facts.aws_host}: pods would get no role.",
            where=f"{facts.source}; the lab's webhooks were removed again: the cluster is unchanged",
            next="let connections from the cluster's containers pass the firewall, or name another address:\n"
            "       labkit up --target kind … --aws-host ADDRESS",
        )


def _require_reached(kept: JoinedFolder) -> None:
    """Raise `NotReached` if the cluster's pods don't reach the lab."""
    way, facts = Way.kept(kept), facts_of(kept)
    print(f"Checking from a pod whether it reaches this machine at {facts.aws_host} …", file=sys.stderr)
    with closing(way.client()) as api:
        said = kind_address.tried(api, facts.image or IMAGE)
    if said.is_reached:
        return
    if said.is_reached is None:
        print(f"This could not be checked: {said.words}", file=sys.stderr)
        return
    own = "   (127.0.0.1 is the pod itself)" if facts.aws_host == kind_address.LOOPBACK else ""
    raise NotReached(
        f"The cluster's pods do not reach this machine at {facts.aws_host}: {said.words}",
        where=f"{facts.source}, checked from a pod; the lab's webhooks were removed again: the cluster is unchanged",
        next=f"name the address by which containers reach this machine{own}:\n"
        "       labkit up --target kind … --aws-host ADDRESS",
    )


def _connection(state: State, parameters: "Parameters", cluster: "ClusterTypeDef", kept: JoinedFolder) -> Connection:
    aws = simulator.session(state, parameters.region)
    context = state.context(parameters.cluster, parameters.region)
    to_api, issuer, facts = Way.kept(kept), cluster["identity"]["oidc"]["issuer"], facts_of(kept)
    api, kubectl = to_api.client(), f"kubectl --context {context}"
    way = IssuerWay(issuer, facts, state, to_api, api)
    return Connection(
        aws=aws,
        kubernetes=api,
        issuer=issuer,
        account_id=state.account_id,
        image=facts.image or Connection.image,
        kubectl=kubectl,
        webhook_registration=kept.webhook_registration,
        webhook_restored_by=f'{kubectl} apply -f "$LABKIT_HOME/joined/{kept.path.name}/{kept.webhooks.name}"',
        # In a cluster that existed before, an untagged object may belong to its owner.
        commands_after=moto.COMMANDS_AFTER,
        takes_untagged=bool(facts.made),
        note=state.note,
        issuer_restored_by=_issuer_restored_by(kept, facts, parameters, issuer),
        fetch=way.fetch,
        served_chain=way.served_chain,
        trail=_read_trail,
        other_account=OTHER_ACCOUNT,
        account=lambda account_id: moto.in_account(aws, account_id, state.account_id),
    )


def _issuer_restored_by(kept: JoinedFolder, facts: Facts, parameters: "Parameters", issuer: str) -> str:
    """Return the shell commands after which STS uses the documents that the cluster's issuer publishes.

    Return an empty text for a public issuer, because STS always reads that issuer's own documents.
    """
    if facts.made:
        return moto.publish_again(parameters.cluster, issuer)
    # STS asks a public issuer's host, not the lab.
    if facts.public_issuer:
        return ""
    comment = "# Remove your runs' resources and end the lab. Then let the cluster join again, with its present issuer."
    return "\n".join([comment, *kind_issuer.way_out(kept)])


def _described(state: State, parameters: "Parameters") -> "ClusterTypeDef | None":
    eks = simulator.session(state, parameters.region).client("eks")
    with answering():
        try:
            cluster: ClusterTypeDef = eks.describe_cluster(name=parameters.cluster)["cluster"]
        except eks.exceptions.ResourceNotFoundException:
            return None
    return cluster


def _refuse_another(
    cluster: "ClusterTypeDef", parameters: "Parameters", kept: JoinedFolder, way: Way | None, aws_host: str
) -> None:
    """Raise `AnotherCluster` if the lab's `cluster` isn't the cluster that the user asked for."""
    if (cluster.get("tags") or {}).get(TARGET_TAG) != JOINED:
        raise AnotherCluster(
            f"The lab's cluster {parameters.cluster} belongs to the target moto.",
            where=f"parameter cluster; {NOTHING}",
            next='choose another cluster, such as cluster = "real", or end the lab: labkit down',
        )
    facts = facts_of(kept)
    if way and way.server.rstrip("/") != cluster["endpoint"]:
        raise AnotherCluster(
            f"The lab already has a cluster {parameters.cluster}. It is the cluster of {facts.source}, "
            f"and you asked for the cluster of {way.where}.",
            where=f"parameters cluster, kubeconfig and context; {NOTHING}",
            next='choose another cluster, such as cluster = "other", or end the lab: labkit down',
        )
    if way and way.context != (joined := Way.of_kubeconfig(kept.kubeconfig).context):
        raise AnotherCluster(
            f"The cluster {parameters.cluster} joined the lab by the context {joined}, not by {way.context}.",
            where=f"parameter context; {NOTHING}",
            next="before you run again, end the lab: labkit down",
        )
    if aws_host and aws_host != facts.aws_host:
        raise AnotherCluster(
            f"The lab's cluster {parameters.cluster} reaches this machine at {facts.aws_host}, not at {aws_host}.",
            where=f"--aws-host; {NOTHING}",
            next="before you run again, end the lab: labkit down",
        )


def _refuse_moved_clock(folder: Folder) -> None:
    if abs(folder.clock.offset) > 1:
        raise LabError(
            "The lab's clock was moved, but a real cluster uses the machine's clock: the tokens' times would be wrong.",
            where=f"labkit clock; {NOTHING}",
            next="labkit clock 0, and run again",
        )


def _listening(facts: Facts) -> str:
    if facts.aws_host == kind_address.LOOPBACK:
        return "AWS and the webhooks listen on loopback only"
    return (
        f"AWS and the webhooks listen on loopback and on {facts.aws_host}. The cluster's containers can call AWS and "
        f"the webhooks at {facts.aws_host}, and so can anyone else who reaches this address"
    )


def _read_trail() -> Any:
    from labkit.simulator import Trail

    return Trail.newest(Folder.find().trail_file)
