"""Plan or examine the rows without running them, or remove the resources that the rows' runs made."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from labkit import steps, targets
from labkit.connection import NotThereYet
from labkit.errors import LabError, answering
from labkit.run_parameters import Parameters
from labkit.runs.fleet.results import Result, Results
from labkit.runs.fleet.rows import Row
from labkit.runs.fleet.running import RowOutcome
from labkit.runs.fleet.task import credentials
from labkit.steps.ownership import OwnedResource, Owner
from labkit.workspace import Workspace

if TYPE_CHECKING:
    from labkit.connection import Connection
    from labkit.doctor import Reads


def plans(rows: Iterable[Row]) -> Iterator[tuple[Row, str | LabError]]:
    """Yield each row with its plan as text, or with the error that prevents the plan. Change nothing."""
    for row in rows:
        try:
            with credentials(row):
                yield row, _plan(row)
        except LabError as error:
            yield row, error


def removals(
    rows: Sequence[Row], *, shows_only: bool, out: Path | None = None
) -> Iterator[tuple[Row, list[str] | LabError]]:
    """Delete the resources of the rows' runs, from the last row to the first.

    Yield each row with a list of lines, one for each resource, or with the error that prevented the removal. With
    `shows_only`, delete nothing: the lines say what would be deleted.

    Without `shows_only`, a second pass follows, only over the rows whose target is an AWS account. The first pass
    keeps an OIDC provider if a role of another row still trusts the provider. The second pass deletes the provider if
    that role is gone by then. It yields a row again only if it deletes a resource, keeps a resource, or fails.

    `out` is the folder with the rows' results. Without `shows_only`, a row's result there is deleted before the first
    resource, so that `--resume` runs the row again. Raises `NothingRan` if a fleet uses that folder.
    """
    results = Results(out) if out and not shows_only else None
    with results.removed_from() if results else nullcontext():
        for row, kept in _removed(reversed(rows), shows_only, results):
            yield row, kept
        if shows_only:
            return
        again = [row for row in rows if row.is_in_an_account]
        for row, said in _removed(again, shows_only, results):
            if isinstance(said, LabError) or said != ["nothing to remove"]:
                yield row, said


def examinations(rows: Iterable[Row]) -> Iterator[RowOutcome]:
    """Yield each row with the doctor's findings on the row's service account. Change nothing."""
    from labkit.doctor import Reads

    known: dict[object, tuple[Connection, Reads]] = {}
    for row in rows:
        try:
            with credentials(row):
                given = row.parameters
                key = (*row.cluster, given.kubeconfig, given.context, row.profile, row.assume_role)
                if key not in known:
                    known[key] = targets.look(row.parameters), Reads()
                yield RowOutcome(row, _examined(row, *known[key]))
        except LabError as error:
            yield RowOutcome(row, Result("not run", error=str(error)))


def _plan(row: Row) -> str:
    text = targets.target(row.parameters.target).plan(row.parameters)
    if row.is_in_an_account:
        return text  # the target's plan already lists what exists and what a run makes
    given = row.parameters
    text += (
        f"; the run makes the bucket {given.bucket} and the namespace {given.namespace} if they're missing, "
        f"an OIDC provider, the role {given.role_name}, "
        f"the service account {given.namespace}/{given.service_account} and a pod"
    )
    nothing = "; nothing of this run exists yet"
    if (connection := _existing(given)) is None:
        return text + nothing
    with closing(connection), answering(given.namespace):
        workspace = Workspace(given, connection)
        steps.step("iam_role").make_way(workspace)  # raises if the role belongs to others
        resources = [*steps.resources(workspace)]
    own = _named(resources, Owner.THIS_RUN)
    text += f"; resources of this run that exist already: {own}" if own else nothing
    if untagged := _named(resources, Owner.NOBODY):
        text += f"; untagged resources that the run changes or replaces, and that --remove deletes: {untagged}"
    return text


def _existing(parameters: Parameters) -> "Connection | None":
    """Return a connection to the running lab, without the cluster if the lab lacks it; None if no lab runs."""
    from labkit.targets import moto

    try:
        return targets.connect(parameters)
    except NotThereYet:
        return moto.without_cluster(parameters)


def _named(resources: Iterable[OwnedResource], owner: Owner) -> str:
    return ", ".join(each.thing for each in resources if each.owner is owner)


def _removed(
    rows: Iterable[Row], shows_only: bool, results: Results | None
) -> Iterator[tuple[Row, list[str] | LabError]]:
    for row in rows:
        try:
            with credentials(row), answering(row.parameters.namespace):
                workspace = Workspace(row.parameters, targets.to_remove(row.parameters))
                if results:
                    results.forget(row)
                yield row, _shown(workspace) if shows_only else [*steps.remove(workspace)]
                workspace.connection.close()
        except LabError as error:
            yield row, error


def _shown(workspace: Workspace) -> list[str]:
    resources = [*steps.resources(workspace)]
    goes = [f"would remove {each.listed}" for each in resources if each.goes]
    return [*goes, *(each.line for each in resources if each.owner is Owner.TRUSTED)] or ["nothing to remove"]


def _examined(row: Row, connection: "Connection", reads: "Reads") -> Result:
    from labkit.runs import notebook_run  # loads nbformat, which a plan does not need

    diagnosis = notebook_run.examined(row.parameters, connection, reads.shared())
    findings = [finding.as_json() for finding in diagnosis.findings]
    if diagnosis.exit_code == 0:
        return Result("succeeded", findings=findings)
    return Result("failed" if diagnosis.findings else "not run", error=diagnosis.headline, findings=findings)
