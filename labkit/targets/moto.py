"""The embedded target: for each lab folder, one background process emulates AWS and Kubernetes on loopback only."""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from labkit import simulator
from labkit.connection import (
    AGENT_URL,
    ENTRANCE,
    OTHER_ACCOUNT,
    Connection,
    NotThereYet,
    Record,
    served_chain,
)
from labkit.errors import LabError, answering, in_a_terminal
from labkit.simulator import ACCOUNT_ID, TARGET_TAG, ClusterFolder, Folder, State, client_context, kubeconfig

if TYPE_CHECKING:
    from types_boto3_eks.type_defs import ClusterTypeDef

    from labkit.run_parameters import Parameters
    from labkit.simulator import BoundSession

COMMANDS_AFTER = 'eval "$(labkit env)"'


def plan(parameters: "Parameters") -> str:
    """Return a sentence about what `up` would make. Change nothing. Raises `LabError` if the lab can't be used."""
    refuse_another_account(parameters)
    folder = Folder.find()
    begins = "continues with" if folder.is_running() else "starts"
    cluster = f"makes the cluster {parameters.cluster} if it's missing"
    return f"{begins} the lab in {folder.path}, on this machine; {cluster}"


def up(parameters: "Parameters") -> Connection:
    """Start the lab and the cluster if they don't run yet. Return the connection. Raises `LabError`."""
    refuse_another_account(parameters)
    folder = Folder.find()
    state = simulator.start(folder)
    aws = simulator.session(state, parameters.region)
    return _connection(parameters, folder, state, aws, ensure_cluster(aws, parameters.cluster, state.account_id))


def connect(parameters: "Parameters") -> Connection:
    """Return the connection to the running lab. Start nothing, and create no cluster.

    Raises `NotThereYet` if no lab runs, or if the lab doesn't have the cluster. Raises `LabError`.
    """
    refuse_another_account(parameters)
    folder = Folder.find()
    state = _running(folder)
    if state is None:
        raise NotThereYet(
            f"No lab runs in {folder.path}.",
            where="the target moto; nothing was changed",
            next=parameters.up_command,
        )
    aws = simulator.session(state, parameters.region)
    eks = aws.client("eks")
    with answering():
        try:
            cluster = eks.describe_cluster(name=parameters.cluster)["cluster"]
        except eks.exceptions.ResourceNotFoundException:
            raise _no_cluster(parameters, state) from None
    _refuse_joined(cluster)
    return _connection(parameters, folder, state, aws, cluster)


def without_cluster(parameters: "Parameters") -> Connection | None:
    """Return a connection to the running lab's AWS, but to no cluster. Return None if no lab runs."""
    if (state := _running(Folder.find())) is None:
        return None
    return Connection(
        aws=simulator.session(state, parameters.region),
        kubernetes=None,
        issuer="",
        account_id=state.account_id,
        # A cluster that a kubeconfig names isn't the lab's own.
        takes_untagged=not parameters.kubeconfig,
        commands_after=COMMANDS_AFTER,
    )


look = to_remove = connect  # the lab's own cluster exists while the lab runs
start_and_look = up  # starts nothing outside this machine


def down() -> bool:
    """End the lab and its processes; return whether the lab ran."""
    return simulator.stop(Folder.find())


def own_region() -> str:
    """Return an empty string: this target doesn't use the machine's own AWS settings."""
    return ""


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables for a notebook's kernel, with the lab's folder in `LABKIT_HOME`.

    Variables that could lead to another AWS, to another cluster or to a proxy are left out.
    """
    return simulator.environment.closed(variables) | {"LABKIT_HOME": str(Folder.find().path)}


def in_account(aws: "BoundSession", account_id: str, own: str) -> "BoundSession":
    """Return an administrator's session in the account ``account_id`` of the lab's organization. Raises `LabError`.

    ``own`` is the account of the session ``aws``. If ``account_id`` is ``own``, return ``aws`` itself. Otherwise, the
    session is new and valid for an hour.

    https://docs.aws.amazon.com/organizations/latest/userguide/orgs_manage_accounts_access-cross-account-role.html
    """
    from labkit.simulator import BoundSession

    if account_id == own:
        return aws
    role_arn = f"arn:aws:iam::{account_id}:role/{ENTRANCE}"
    with answering():
        entered = aws.client("sts").assume_role(RoleArn=role_arn, RoleSessionName="labkit")["Credentials"]
    return BoundSession(
        endpoint_url=aws.endpoint_url,
        access_key_id=entered["AccessKeyId"],
        secret_access_key=entered["SecretAccessKey"],
        session_token=entered["SessionToken"],
        region=aws.region_name,
    )


def ensure_cluster(aws: "BoundSession", name: str, account_id: str) -> "ClusterTypeDef":
    """Return the cluster as eks:DescribeCluster shows it; create it if it's missing.

    Raises `LabError` if the lab doesn't answer, or if the cluster belongs to the target kind.

    https://docs.aws.amazon.com/eks/latest/APIReference/API_CreateCluster.html
    """
    with answering():
        cluster = simulator.ensure_cluster(aws, name, account_id)
    _refuse_joined(cluster)
    return cluster


def fetch(state: State, url: str) -> object:
    """Fetch a URL of a cluster's public issuer, as STS does, and return the JSON.

    Raises `LabError` if the host isn't one of the lab's issuers, or if the answer isn't JSON with status 200.
    https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfigurationRequest
    """
    import httpx

    try:
        parts = urlsplit(url)
    except ValueError:
        parts = urlsplit("")
    issuers = _issuers(state)
    if parts.scheme != "https" or parts.hostname not in issuers:
        raise LabError(
            f"The lab fetches only from its own issuers, and {url!r} belongs to none of them.",
            where="fetch",
            next=f"fetch a URL that begins with {' or '.join(f'https://{host}/id/' for host in sorted(issuers))}",
        )
    there = parts._replace(netloc=f"127.0.0.1:{issuers[parts.hostname]}").geturl()
    # TLS and the Host header carry the issuer's name; only the address is the lab's.
    with httpx.Client(verify=client_context(state.ca_file.read_bytes()), trust_env=False) as client:
        try:
            answer = client.get(there, headers={"Host": parts.hostname}, extensions={"sni_hostname": parts.hostname})
        except httpx.HTTPError as error:
            raise LabError(f"{url} does not answer: {error}", where="fetch", next="labkit status") from None
    try:
        document = answer.json()
    except json.JSONDecodeError:
        document = None
    if answer.status_code != 200 or document is None:
        raise LabError(
            f"{url} answers {answer.status_code}: {answer.text[:200].strip() or 'an empty body'}",
            where="fetch",
            next="compare the URL with lab.issuer, or with the issuer in `aws eks describe-cluster`",
        )
    return document


def _connection(
    parameters: "Parameters", folder: Folder, state: State, aws: "BoundSession", cluster: "ClusterTypeDef"
) -> Connection:
    context = state.context(parameters.cluster, parameters.region)
    issuer = cluster["identity"]["oidc"]["issuer"]
    kubectl = (
        "kubectl" if context == kubeconfig.current(state.kubeconfig.read_text()) else f"kubectl --context {context}"
    )
    webhook = f"{ClusterFolder(folder, context).keys}/webhook.json"
    return Connection(
        aws=aws,
        kubernetes=simulator.api_client(state, context),
        issuer=issuer,
        account_id=state.account_id,
        kubectl=kubectl,
        webhook_registration=lambda: folder.read_json(webhook),
        webhook_restored_by=f'{kubectl} apply -f "$LABKIT_HOME/{webhook}"',
        commands_after=COMMANDS_AFTER,
        takes_untagged=True,
        is_embedded=True,
        note=state.note,
        issuer_restored_by=publish_again(parameters.cluster, issuer),
        fetch=lambda url: fetch(state, url),
        served_chain=lambda host: served_chain(host, address="127.0.0.1", port=_issuers(state)[host]),
        clock=folder.clock,
        trail=lambda: _read_trail(folder),
        hop_limit=lambda: int((State.read(folder) or state).clusters[context]["hop_limit"]),
        usual_hop_limit=folder.hop_limit,
        node_role=simulator.node_role_name(parameters.cluster),
        pod_identity=AGENT_URL,
        any_cluster="eks:CreateCluster, by the run itself",
        other_account=OTHER_ACCOUNT,
        account=lambda account_id: in_account(aws, account_id, state.account_id),
    )


def _issuers(state: State) -> dict[str, int]:
    # `state` may lack a newer cluster.
    return (State.read(Folder.find()) or state).issuers


def publish_again(cluster: str, issuer: str) -> str:
    """Return a shell command with a comment. The command makes the issuer publish its own documents again.

    The command deletes the issuer's replacement documents (`labkit.simulator.published`).
    """
    return (
        "# Delete the replacement documents. "
        f"The issuer of the cluster {cluster} then publishes its own documents again.\n"
        "# For every token of the issuer, STS then reads the issuer's own documents.\n"
        f'rm -r "$LABKIT_HOME/published/{issuer.rpartition("/")[2]}"'
    )


def refuse_another_account(parameters: "Parameters") -> None:
    """Raise `LabError` if the parameters name an account other than the lab's own."""
    if parameters.account_id not in ("", ACCOUNT_ID):
        raise LabError(
            f"parameter account_id = {parameters.account_id!r}: "
            f"the account of the target {parameters.target} is {ACCOUNT_ID}.",
            where="nothing was changed",
            next=f'set account_id = "{ACCOUNT_ID}", and run again{in_a_terminal("account_id", ACCOUNT_ID)}',
        )


def _running(folder: Folder) -> State | None:
    return State.read(folder) if folder.is_running() else None


def _refuse_joined(cluster: "ClusterTypeDef") -> None:
    if (cluster.get("tags") or {}).get(TARGET_TAG):
        raise LabError(
            f"The lab's cluster {cluster['name']} belongs to another target: kind.",
            where="parameters target and cluster; nothing was changed",
            next='set target = "kind", or choose another cluster, or end the lab: labkit down'
            + in_a_terminal("target", "kind"),
        )


def _no_cluster(parameters: "Parameters", state: State) -> NotThereYet:
    there = ", ".join(sorted(state.clusters))
    return NotThereYet(
        f"The lab has no cluster {parameters.cluster} in {parameters.region}. "
        + (f"Its clusters are: {there}." if there else "It has no other cluster either."),
        where="parameters cluster and region; nothing was changed",
        next=parameters.up_command,
    )


def _read_trail(folder: Folder) -> Iterator[Record]:
    from labkit.simulator import Trail

    return Trail.newest(folder.trail_file)
