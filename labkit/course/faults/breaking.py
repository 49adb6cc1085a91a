"""Put faults into a run of a lab, and take all of them out again.

Before the first fault, the run's documents (such as the trust policy) are saved in the lab's folder.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from ssl import PEM_cert_to_DER_cert
from typing import TYPE_CHECKING

from pydantic import BaseModel, ValidationError

from labkit import steps
from labkit.connection import thumbprint
from labkit.course.faults import CATALOGUE, live
from labkit.course.faults.fault import Fault
from labkit.course.faults.situation import ROLE_ARN, Document, Situation
from labkit.doctor import EKSCTL_CLUSTER, EKSCTL_NAME
from labkit.errors import LabError
from labkit.execution import execute
from labkit.policy.arn import Arn
from labkit.run_parameters import label_value
from labkit.showing import stable
from labkit.simulator import Folder, State

if TYPE_CHECKING:
    from pathlib import Path

    from labkit.workspace import Workspace


class BrokenRun(BaseModel):
    """The record of a run with faults, stored in the lab's folder."""

    run: str
    cluster_made: str
    """When the cluster was created. The record isn't valid for a later cluster of the same name."""
    faults: list[str]
    before: Situation
    """The run's documents before its first fault."""
    broken: Situation
    """The run's documents after its last fault."""
    thumbprint: str = ""
    """The thumbprint of the lab's CA."""
    of_an_examination: bool = False
    """Whether an examination put the faults in. Then only the examination may name them."""

    def in_lab(self, lab: "Workspace") -> "BrokenRun":
        """Return the record with the lab's present CAs and webhook address. A restored lab has new ones."""
        then, now = (_client_config(each) for each in (self.before.registration, lab.connection.webhook_registration()))
        new = {then.get(key, ""): now.get(key, "") for key in ("url", "caBundle")} | {self.thumbprint: _thumbprint()}
        text = self.model_dump_json()
        for old, value in new.items():
            text = text.replace(f'"{old}"', f'"{value}"') if old and value else text
        return BrokenRun.model_validate_json(text)


@dataclass(frozen=True)
class Mended:
    """The result of `mend`: the faults' ids, and the names of the changed objects."""

    faults: list[str]
    put_back: list[str]
    """The objects that a fault had broken and `mend` put back."""
    mended_before: list[str]
    """The objects that a fault had broken and the user had mended already."""
    left_behind: list[str]
    """The objects that someone had changed by hand, and no fault. `mend` put them back, too."""

    @property
    def was_broken(self) -> bool:
        """Whether `mend` put any object back."""
        return bool(self.put_back or self.left_behind)

    def __str__(self) -> str:
        lines = [f"Mended: {', '.join(self.faults)}."]
        lines += [f"  put back: {thing}" for thing in self.put_back]
        lines += [f"  you had mended: {thing}" for thing in self.mended_before]
        lines += [f"  put back, though no fault had changed it: {thing}" for thing in self.left_behind]
        return "\n".join(lines)


@dataclass(frozen=True)
class MendProgress:
    """How much of a broken run is mended.

    `faults` has the ids of the run's faults. The other lists have names of the run's objects.
    """

    faults: list[str]
    still_broken: list[str]
    otherwise: list[str]
    """The objects that a fault broke and someone then changed, but didn't mend."""
    as_before: list[str]
    left_behind: list[str]
    """The changed objects that no fault has changed."""


def break_lab(lab: "Workspace", fault: Fault, *, of_an_examination: bool = False) -> list[str]:
    """Put a fault into the run. Return the ids of all faults in the run, the latest last.

    If the run is missing, create it first. The fault replaces earlier faults that changed the same thing. Raises
    `LabError` if the cluster isn't the lab's own, or if the fault wouldn't show on this machine.
    """
    _refuse_others_clusters(lab)
    _refuse_what_would_not_show(lab, fault)
    kept = _read(lab)
    now = live.read(lab, kept.before, kept.broken) if kept else live.read(lab)
    if kept and not differences(kept.before, now):
        # Someone mended everything by hand. A fault's tags may be left, and would change the next fault's finding.
        live.make(lab, now, kept.before)
        now, kept = kept.before, None
    if kept is None and not is_made(now):
        print(*steps.ready_through(lab, "pod"), sep="\n")
        now = live.read(lab)
    before = kept.before if kept else now
    earlier = [CATALOGUE[name] for name in kept.faults] if kept else []
    base, there = _without_displaced(now, before, earlier, fault)
    wanted = fault.put_into(base)
    faults = [*(each.id for each in there if each is not fault), fault.id]
    # Record it before any change, so that an interrupted break can be mended, too.
    made = _cluster_made(lab)
    _write(
        lab,
        BrokenRun(
            run=lab.run,
            cluster_made=made,
            faults=faults,
            before=before,
            broken=wanted,
            thumbprint=_thumbprint(),
            of_an_examination=of_an_examination,
        ),
    )
    # If the fault adds an account, `now` lacks that account's documents: read again.
    live.make(lab, now if wanted.accounts == now.accounts else live.read(lab, before, wanted), wanted)
    return faults


def break_and_print(lab: "Workspace", fault: Fault, *, is_named: bool) -> None:
    """Put the fault into the run. Print what happened, and what AWS now answers in the pod.

    An earlier fault is mended first. Without `is_named`, the fault's name isn't printed.
    """
    _refuse_what_would_not_show(lab, fault)
    if is_broken(lab) and (mended := mend(lab)).was_broken:
        # Without a name, the earlier fault may be the one that is chosen again.
        print(f"The earlier fault is mended first.{f' {mended}' if is_named else ''}")
    break_lab(lab, fault)
    print(f"{fault.id}: {fault.description}" if is_named else f"What happened: {fault.description}")
    for command, answer in what_aws_says(lab):
        print(f"$ {command}\n{stable(answer)}")


def _without_displaced(
    now: Situation, before: Situation, earlier: list[Fault], fault: Fault
) -> tuple[Situation, list[Fault]]:
    """Return the situation and the earlier faults, both without the faults that `fault` replaces."""
    kept = [each for each in earlier if not fault.takes_the_place_of(each)]
    if kept == earlier:
        return now, kept
    # Leave out faults that someone has mended by hand.
    there = [each for each in kept if each.put_into(now).is_as(now)]
    base = before
    for each in there:
        base = each.put_into(base)
    return base, there


def mend(lab: "Workspace") -> Mended:
    """Take all faults out of the run: restore its state from before the first fault.

    Raises `LabError` if the run has no fault.
    """
    kept = _read(lab)
    if kept is None:
        # A record of an earlier cluster of this name is useless.
        _file(lab).unlink(missing_ok=True)
        files = sorted(_file(lab).parent.glob("*.json"))
        others = [other.run for file in files if (other := _parsed(file))]
        raise LabError(
            f"Nothing is broken in {lab.run}.",
            where=f"broken runs: {', '.join(others)}" if others else "",
            next="fill in the names of one broken run:  labkit mend -n … -s … --role … --cluster …"
            if others
            else "labkit break --list",
        )
    now = live.read(lab, kept.before, kept.broken)
    live.make(lab, now, kept.before)
    _file(lab).unlink(missing_ok=True)
    broken = set(differences(kept.before, kept.broken))
    different = differences(kept.before, now)
    return Mended(
        faults=list(dict.fromkeys(kept.faults)),
        put_back=[thing for thing in different if thing in broken],
        mended_before=sorted(broken - set(different)),
        left_behind=[thing for thing in different if thing not in broken],
    )


def mend_what_was_left(lab: "Workspace") -> None:
    """Mend the run's fault, and say so, if one of the objects that it broke is still broken."""
    left = progress(lab, of_an_examination=True) if lab.takes_untagged else None
    if left and left.still_broken:
        print(f"A fault was still in this run. {mend(lab)}")


def progress(lab: "Workspace", *, of_an_examination: bool = False) -> MendProgress | None:
    """Return how far a broken run is mended, or None if the run has no fault.

    Compare the run's present documents with those from before the first fault. Raises `LabError` if an examination goes
    on in this run, unless the examination itself wants to know.
    """
    kept = _named(lab, of_an_examination)
    if kept is None:
        return None
    now = live.read(lab, kept.before, kept.broken)
    broken = differences(kept.before, kept.broken)
    different, changed = differences(kept.before, now), differences(kept.broken, now)
    return MendProgress(
        faults=list(dict.fromkeys(kept.faults)),
        still_broken=[thing for thing in broken if thing in different and thing not in changed],
        otherwise=[thing for thing in broken if thing in different and thing in changed],
        as_before=[thing for thing in broken if thing not in different],
        left_behind=[thing for thing in different if thing not in broken],
    )


def is_broken(lab: "Workspace") -> bool:
    """Return whether the run has a fault."""
    return _read(lab) is not None


def faults_in(lab: "Workspace", *, of_an_examination: bool = False) -> list[str]:
    """Return the ids of the faults in the run, the earliest first. Raises `LabError` as `progress` does."""
    kept = _named(lab, of_an_examination)
    return kept.faults if kept else []


def is_made(situation: Situation) -> bool:
    """Return whether the run has its provider, role, service account and pod."""
    return bool(situation.provider and situation.role and situation.annotations.get(ROLE_ARN) and situation.pod_keys)


def what_aws_says(lab: "Workspace") -> list[tuple[str, str]]:
    """Run two AWS commands in the run's pod, with a new session. Return each command with the last line of its answer.

    https://docs.aws.amazon.com/cli/latest/userguide/cli-configure-role.html#cli-configure-role-cache
    """
    situation = live.read(lab)
    commands = [
        ["aws", "sts", "get-caller-identity", "--query", "Arn", "--output", "text"],
        ["aws", "s3", "ls", f"s3://{lab.parameters.bucket}"],
    ]
    if not situation.pod_keys or situation.fails_to_start:
        return []
    name = situation.pod["metadata"]["name"]
    # The CLI caches its session in the pod for an hour. A cached session would hide the fault.
    execute(lab.kubernetes, name, lab.parameters.namespace, ["sh", "-c", "rm -rf ~/.aws/cli/cache"])

    def ask(command: list[str]) -> tuple[str, str]:
        done = execute(lab.kubernetes, name, lab.parameters.namespace, command)
        said = (done.output if done.exit_code == 0 else done.error).strip().splitlines()
        return " ".join(command), said[-1] if said else f"exit code {done.exit_code}"

    # One after the other: each starts a CLI of 40 MiB, and fifty participants share one machine's memory.
    return [ask(command) for command in commands]


def differences(one: Situation, other: Situation) -> list[str]:
    """Return the names of the objects that differ, such as `trust policy of the role my-role`."""
    return [thing for thing, is_same in _compared(one, other) if not is_same]


def _compared(one: Situation, other: Situation) -> Iterator[tuple[str, bool]]:
    for arn in sorted(one.providers.keys() | other.providers.keys()):
        named, is_same = Arn.parse(arn), one.providers.get(arn) == other.providers.get(arn)
        yield f"OIDC provider {named.issuer!r} of account {named.account}", is_same
    for arn in sorted(one.roles.keys() | other.roles.keys()):
        mine, others = one.roles.get(arn), other.roles.get(arn)
        name = f"role {Arn.parse(arn).name}"
        if mine is None or others is None:
            yield name, False
            continue
        trust = "AssumeRolePolicyDocument"
        yield f"trust policy of the {name}", mine[trust] == others[trust]
        yield f"permissions of the {name}", all(mine[key] == others[key] for key in ("Attached", "Inline"))
        yield f"permissions boundary of the {name}", mine["PermissionsBoundary"] == others["PermissionsBoundary"]
        yield f"settings of the {name}", _settings(mine) == _settings(others)
    yield "bucket policy", one.bucket_policy == other.bucket_policy
    yield "Pod Identity associations", one.associations == other.associations
    yield "identity provider config of the cluster", one.identity_provider_configs == other.identity_provider_configs
    yield "public documents of the issuer", one.published == other.published
    for key in sorted(one.objects.keys() | other.objects.keys()):
        made, other_made = (
            (each.objects.get(key), each.admitted.get(key), each.made_with if key.startswith("Pod ") else None)
            for each in (one, other)
        )
        yield key[0].lower() + key[1:], made == other_made


def _settings(role: Document) -> list[object]:
    """Return the role's other fields, without eksctl's tags: they break nothing, so no repair removes them."""
    tags = [tag for tag in role["Tags"] if tag["Key"] not in (EKSCTL_CLUSTER, EKSCTL_NAME)]
    return [role["Description"], role["MaxSessionDuration"], tags]


# The file.


def _refuse_others_clusters(lab: "Workspace") -> None:
    if not lab.connection.takes_untagged:
        raise LabError(
            "This cluster isn't the lab's own. labkit breaks only its own cluster and account.",
            where=f"target {lab.parameters.target}",
            next="labkit up, and break the cluster that it starts",
        )


def _refuse_what_would_not_show(lab: "Workspace", fault: Fault) -> None:
    state = State.read(Folder.find())
    if not fault.needs_another_user or state is None:
        return
    facts = state.clusters.get(state.context(lab.parameters.cluster, lab.parameters.region), {})
    # Another cluster that joined the lab has its own nodes, and no hop limit here.
    if "hop_limit" in facts and state.users.startswith(("one id:", "none:")):
        raise LabError(
            f"{fault.id} would show nothing: on this machine, a pod's program can't become another user.",
            where=f"users of pods: {state.users}",
            next="labkit break --list",
        )


def _cluster_made(lab: "Workspace") -> str:
    return str(lab.aws.client("eks").describe_cluster(name=lab.parameters.cluster)["cluster"]["createdAt"])


def _file(lab: "Workspace") -> "Path":
    return Folder.find().path / "faults" / f"{label_value(lab.run)}.json"


def _named(lab: "Workspace", of_an_examination: bool) -> BrokenRun | None:
    kept = _read(lab)
    if kept and kept.of_an_examination and not of_an_examination:
        raise LabError(
            "An examination goes on in this run, and only the examination says whether it's mended.",
            where=lab.run,
            next="exam.hand_in()",
        )
    return kept


def _read(lab: "Workspace") -> BrokenRun | None:
    kept = _parsed(_file(lab))
    is_this = kept and (kept.run, kept.cluster_made) == (lab.run, _cluster_made(lab))
    return kept.in_lab(lab) if kept and is_this else None


def _client_config(registration: Document) -> dict[str, str]:
    return (registration.get("webhooks") or [{}])[0].get("clientConfig") or {}


def _thumbprint() -> str:
    return thumbprint(PEM_cert_to_DER_cert(Folder.find().ca_file.read_text()))


def _parsed(file: "Path") -> BrokenRun | None:
    try:
        content = file.read_bytes()
        return BrokenRun.model_validate_json(content if content.startswith(b"{") else zlib.decompress(content))
    except (FileNotFoundError, ValidationError, zlib.error):
        return None


def _write(lab: "Workspace", kept: BrokenRun) -> None:
    # 0600: a pod's manifest may hold secrets.
    content = kept.model_dump_json().encode()
    # Compressed, so that a search through the lab's folder doesn't show the answers of an examination.
    Folder.find().write_private(_file(lab), zlib.compress(content) if kept.of_an_examination else content)
