"""`labkit status`: the lab's state in a few lines, or as a report to paste into a question."""

import platform
import sys
from importlib import metadata

from labkit import simulator
from labkit.connection import Connection
from labkit.simulator import Facts, Folder, JoinedFolder, State, kubeconfig, silent, unreachable

PACKAGES = ("moto", "botocore", "awscli", "kubernetes", "jupyterlab", "papermill", "nbval")
# The ways in which a pod's mounted files, such as its token, get to their paths in the pod.
_MOUNTS = {
    "private": "private: a pod's files, such as its token, are at the usual paths, but only inside the pod",
    "mapped": "mapped: the lab keeps a pod's files, such as its token, in a folder, and changes their paths in the "
    "pod's variables and arguments",
}
ANSWERS_WITHIN = 5  # seconds; the status should appear soon


def summary(folder: Folder) -> str:
    """Return the lab's state in a few lines, for a terminal."""
    if not folder.is_running():
        last = State.read(folder)
        ended = f" The last server {last.ended or 'was killed'}." if last else ""
        return "\n".join([f"No lab runs in {folder.path}.{ended} Next:  labkit up", *_remembered(folder)])
    reply = simulator.ask(folder, "state", within=ANSWERS_WITHIN)
    if reply is None:
        return f"{unreachable(folder)} Next:  labkit up"
    if reply.answer is None:
        error = silent(folder, reply)
        return f"{error.what} Next:  {error.next}"
    state = State.of(reply.answer.get("state"))
    if state is None:
        return f"Another version of labkit started the lab in {folder.path}. Next:  labkit up"
    ahead = folder.clock.offset
    lines = [
        f"The lab in {folder.path} runs ({f'process {reply.pid}' if reply.pid else 'in another container'}).",
        f"  account   {state.account_id}, {state.region}",
        f"  AWS       {state.endpoint_url}",
        f"  clock     {f'{ahead:+.0f} s from' if ahead else 'at'} the machine's time; "
        f"pods {'use' if state.pod_clock else 'do not use'} the lab's clock",
        f"  mounts    {_mounts(state)}",
        *([f"  users     {state.users}"] if state.users else []),
        *([f"  limits    {state.limits}"] if state.limits else []),
        f"  callers   {_callers(state)}",
        f"  terminal  {on_cluster(state)}",
    ]
    joined = JoinedFolder.joined(folder)
    for name, facts in state.clusters.items():
        lines.append(f"  cluster   {name}  {facts['endpoint']}  {facts['issuer']}")
        if facts.get("hop_limit", 1) > 1:
            lines.append(f"            pods reach the node's metadata service: hop limit {facts['hop_limit']}")
        if (kept := joined.get(name)) and (its := kept.facts):
            lines.append(f"            target kind: {its.source}")
            lines.append(
                f"            pods reach AWS at {its.aws_host} and use the image {its.image or Connection.image}"
            )
            lines += _changed_issuer(kept, facts["issuer"])
    lines += _remembered(folder)
    lines += [f"  note      {note}" for note in state.notes]
    return "\n".join(lines)


def report(folder: Folder) -> str:
    """Return versions, the platform and the lab's state as Markdown, without keys, tokens and this machine's paths."""
    running = folder.is_running()
    reply = simulator.ask(folder, "state", within=ANSWERS_WITHIN) if running else None
    answers = reply is not None and reply.answer is not None
    state = State.read(folder)
    lines = [
        "### labkit report",
        f"- labkit {metadata.version('labkit')}, Python {platform.python_version()}, "
        f"{platform.system()} {platform.machine()}, {platform.release()}",
        "- " + ", ".join(f"{name} {metadata.version(name)}" for name in PACKAGES),
        f"- virtual environment: {'yes' if sys.prefix != sys.base_prefix else 'no'}",
        f"- lab: {('runs' if answers else 'runs, but does not answer') if running else 'does not run'}",
    ]
    if state and running:
        of_kind = JoinedFolder.joined(folder)
        clusters = [f"{name} (target kind)" if name in of_kind else name for name in state.clusters]
        lines += [
            f"- mounts: {_mounts(state)}; pods use the lab's clock: {'yes' if state.pod_clock else 'no'}",
            f"- users of pods: {state.users or 'unknown'}",
            f"- limits of pods: {state.limits or 'none'}",
            f"- callers: {_callers(state)}",
            f"- clock offset: {folder.clock.offset:.0f} s",
            f"- clusters: {', '.join(clusters) or 'none'}",
        ]
        lines += [f"- note: {note}" for note in state.notes]
    if folder.log_file.exists():
        lines += ["- end of the server's log:", "", "```"]
        lines += [
            _without_paths(line, folder) for line in folder.log_file.read_text(errors="replace").splitlines()[-15:]
        ]
        lines += ["```"]
    return "\n".join(lines)


def on_cluster(state: State) -> str:
    """Return a text that names the cluster that `kubectl` uses in a terminal.

    If the lab has other clusters, the text also has the command that chooses another cluster. If the lab has no
    cluster, the text has the command that creates one.
    """
    context = kubeconfig.current(state.kubeconfig.read_text())
    if context == kubeconfig.NO_CLUSTER:
        return "kubectl uses no cluster, because the lab has none yet. Next:  labkit up"
    others = ", ".join(sorted(state.clusters.keys() - {context}))
    return f"kubectl uses the cluster {context}." + (
        f" The lab also has {others}. To change:  kubectl config use-context NAME" if others else ""
    )


def _changed_issuer(kept: JoinedFolder, joined: str) -> list[str]:
    from labkit.targets.kind import issuer  # slow to load, and few labs need it

    if not (now := issuer.changed(kept, joined)):
        return []
    lines = [f"its issuer is now {now}, so STS refuses the tokens of its pods. Next:", *issuer.way_out(kept)]
    return [f"            {line}" for line in lines]


def _mounts(state: State) -> str:
    return _MOUNTS.get(state.mounts) or ("its joined cluster's own" if state.clusters else "no cluster yet")


def _callers(state: State) -> str:
    services = "the metadata service, the Pod Identity agent and the webhook"
    if state.callers_checked:
        return f"checked: {services} answer only your user's programs"
    return f"unchecked: this system doesn't name a connection's user, so {services} answer every user of this machine"


def _remembered(folder: Folder) -> list[str]:
    """Return a text about each cluster that the lab remembers, but that isn't joined now."""
    joined = {kept.path for kept in JoinedFolder.joined(folder).values()}
    return [
        f"  The lab remembers {_what_becomes(kept, kept.facts)}"
        for kept in JoinedFolder.all(folder)
        if kept.path not in joined and kept.facts
    ]


def _what_becomes(kept: JoinedFolder, facts: Facts) -> str:
    up, down = f"labkit up --target kind --cluster {kept.cluster}", "labkit down"
    join, delete = f"    To let the cluster join the lab again:  {up}", f"    To delete the cluster:  {down}"
    if facts.made and not kept.kubeconfig.exists():
        again = f"    To create the cluster again:  {up}"
        return "\n".join([f"the incomplete kind cluster {facts.made}.", again, delete])
    if facts.made:
        return "\n".join([f"the kind cluster {facts.made}.", join, delete])
    leave = f"    To remove the lab's webhooks from the cluster:  {down}"
    return "\n".join([f"the cluster of {facts.source}.", join, leave])


def _without_paths(line: str, folder: Folder) -> str:
    for path, name in ((folder.path, "<lab folder>"), (sys.prefix, "<venv>"), (folder.path.home(), "~")):
        line = line.replace(str(path), name)
    return line
