"""Read the rows of a fleet file, each with the parameters of one run, and refuse rows that would collide."""

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from labkit.errors import LabError, UnknownName
from labkit.run_parameters import Parameters
from labkit.runs.fleet import table
from labkit.runs.fleet.table import FileRow, NothingRan
from labkit.simulator import ACCOUNT_ID

ACCESS = ("profile", "assume_role")
KNOWN = [*(name for name in Parameters.names() if name != "confirm"), *ACCESS]
OF_THE_LAB = ("moto", "kind")  # the targets whose AWS is the lab's
USUAL = Parameters()
LONGEST_NAME = 150  # characters in the name of a row's files; with their endings, file systems allow 255 bytes
LISTED = 20  # one message names at most so many problems
PLACEHOLDER = re.compile(r"\{(\w*)\}")
OF_PARAMETER = re.compile(r"parameter (\w+) = ")
ROLE_ARN = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+")


@dataclass(frozen=True)
class Row:
    """One run of the fleet."""

    number: int
    """The row's number, counted from 1."""
    place: str
    """The row's place in the fleet file, such as `row 3, line 12`."""
    parameters: Parameters
    profile: str = ""
    """The AWS profile for the run; empty: the run uses the machine's own credentials."""
    assume_role: str = ""
    """The ARN of a role that the run assumes before it starts; empty: it assumes no role."""

    @property
    def run(self) -> str:
        """The name that tells this run from others: cluster/namespace/service account/role."""
        return self.parameters.run

    @property
    def name(self) -> str:
        """The name of the row's files in the output folder, the same in every fleet with this row."""
        given = self.parameters
        name = ".".join((given.cluster, given.namespace, given.service_account, given.role_name))
        is_unambiguous = "." not in given.service_account + given.role_name and self._place == USUAL_PLACE
        if is_unambiguous and len(name) <= LONGEST_NAME:
            return name
        return f"{name[:LONGEST_NAME]}-{_hash([self.run, *self._place])[:8]}"

    @property
    def account(self) -> tuple[str, ...]:
        """A key that rows in the same AWS account share. All rows in the lab's emulated AWS share one key."""
        return ("eks", self.parameters.account_id) if self.is_in_an_account else ("the lab",)

    @property
    def cluster(self) -> tuple[str, ...]:
        """A key that rows of the same cluster share."""
        given = self.parameters
        return (*self.account, given.target, given.region, given.cluster)

    @property
    def is_in_an_account(self) -> bool:
        """Whether the row's run changes a real AWS account."""
        return self.parameters.target == "eks"

    @property
    def _place(self) -> tuple[str, ...]:
        given = self.parameters
        account = given.account_id if self.is_in_an_account else ""
        return (given.target, given.region, account, given.kubeconfig, given.context)

    def confirmed(self) -> "Row":
        """Return the same row, with its plan confirmed if the run changes a real AWS account."""
        if not self.is_in_an_account:
            return self
        return replace(self, parameters=Parameters.checked(**self.parameters.given, confirm="yes"))

    def as_json(self) -> dict[str, object]:
        """Return the run's parameters for a report. The parameters hold no secret."""
        given = {name: value for name, value in self.parameters.given.items() if name != "confirm"}
        access = {name: getattr(self, name) for name in ACCESS if getattr(self, name)}
        return {**given, **access}

    def fingerprint(self, notebook: bytes, version: str) -> str:
        """Return a hash of everything that the result depends on: notebook, parameters and labkit's version."""
        return _hash([hashlib.sha256(notebook).hexdigest(), json.dumps(self.as_json(), sort_keys=True), version])


USUAL_PLACE = (USUAL.target, USUAL.region, "", "", "")


def read(file: Path, *, makes: bool = True) -> list[Row]:
    """Return the rows of a fleet file.

    Args:
        makes: whether the runs make resources. If so, each row needs a role and a namespace of its own.

    Raises `NothingRan` if a row can't run. The error names each such row, with the reason.
    """
    entries = table.read_fleet_file(file)
    reasons: dict[str, list[str]] = {}
    rows = []
    for number, entry in enumerate(entries, 1):
        parsed = _row(number, entry)
        if isinstance(parsed, Row):
            rows.append(parsed)
            continue
        for reason in parsed:
            places = reasons.setdefault(reason.text, [])
            if (place := _place(entry, reason)) not in places:
                places.append(place)
    problems = [f"{_places(places)}: {reason}" for reason, places in reasons.items()] + _collisions(rows, makes)
    if problems:
        raise _refused(file, problems)
    return rows


def _places(places: list[str]) -> str:
    more = len(places) - 1
    return places[0] + (f" and {more} more row{'s' if more > 1 else ''}" if more else "")


@dataclass(frozen=True)
class RowProblem:
    """Why a row can't run."""

    text: str
    name: str = ""
    """The name in the row that the text is about; empty if it's about several."""


def _place(entry: FileRow, reason: RowProblem) -> str:
    """Return where the user has to change the file: in the row, or where the name or the row's default is written."""
    written = entry.values_at if reason.name in KNOWN else entry.names_at
    return written.get(reason.name, entry.place)


def _row(number: int, entry: FileRow) -> Row | list[RowProblem]:
    """Return the row of an entry. If the entry has mistakes, return a reason for each of them."""
    reasons = [RowProblem(_unknown(name), name) for name in entry.values if name not in KNOWN]
    reasons += [RowProblem(_braced(name), name) for name, value in entry.values.items() if isinstance(value, Mapping)]
    known = {name: value for name, value in entry.values.items() if name in KNOWN and not isinstance(value, Mapping)}
    values = _filled(known, reasons)
    reasons += map(RowProblem, _of_account({**entry.values, **values}))
    access = {name: str(values.pop(name)) for name in ACCESS if name in values}
    try:
        row = Row(number, entry.place, Parameters.checked(**values), **access)
    except LabError as error:
        return [*reasons, *(_of_parameter(entry, text) for text in error.what.splitlines())]
    return reasons or row


def _of_parameter(entry: FileRow, text: str) -> RowProblem:
    """Return the reason that `Parameters.checked` gave. A value with braces breaks its rule only in some rows."""
    named = OF_PARAMETER.match(text)
    name = named[1] if named else ""
    return RowProblem(text, "" if PLACEHOLDER.search(str(entry.values.get(name))) else name)


def _of_account(values: Mapping[str, object]) -> Iterator[str]:
    """Yield a sentence for each mistake in the row's AWS account and credentials."""
    target, account = values.get("target", USUAL.target), values.get("account_id", "")
    is_in_an_account = target == "eks"
    access = [name for name in ACCESS if name in values]
    if target in OF_THE_LAB and isinstance(account, str) and account not in ("", ACCOUNT_ID):
        yield (
            f"account_id = {account!r}, but the account of the target {target} is {ACCOUNT_ID}. "
            "Delete account_id, or set target to eks"
        )
    if is_in_an_account and account == "":
        yield "target eks needs account_id, the AWS account that you expect"
    if access and not is_in_an_account:
        yield f"only rows of the target eks use your credentials. Delete {' and '.join(access)}, or set target to eks"
    if len(access) > 1:
        yield "set profile or assume_role, not both. To assume a role with a profile, set the profile's role_arn"
    role = values.get("assume_role", "")
    if isinstance(role, str) and role and not ROLE_ARN.fullmatch(role):
        yield f"assume_role = {role!r} is not the ARN of a role, such as arn:aws:iam::…:role/NAME"


def _unknown(name: str) -> str:
    if name == "confirm":
        return "'confirm' is not allowed in a fleet file: read the plan, then use --yes"
    return UnknownName("parameter of a row", name, KNOWN).what


def _braced(name: str) -> str:
    return f'{name} isn\'t text. Braces need quotes, such as  {name}: "{{cluster}}-reader"'


def _filled(values: Mapping[str, object], reasons: list[RowProblem]) -> dict[str, object]:
    """Return the values with each placeholder filled, such as `{cluster}` in `{cluster}-reader`."""
    usual = {name: getattr(USUAL, name) for name in Parameters.names()}

    def value_of(name: str, asking: tuple[str, ...]) -> object:
        value = values.get(name, usual.get(name, ""))
        if not isinstance(value, str):
            return value  # the parameter's own check refuses it
        return PLACEHOLDER.sub(lambda match: filled(match[1], (*asking, name)), value)

    def filled(name: str, asking: tuple[str, ...]) -> str:
        if name not in KNOWN:
            raise NothingRan(f"'{{{name}}}' in {asking[0]}: {_unknown(name)}")
        if name in asking:
            raise NothingRan(f"The braces in {asking[0]} form a loop: {' → '.join((*asking, name))}")
        return str(value_of(name, asking))

    complete = {}
    for name in values:
        try:
            complete[name] = value_of(name, ())
        except NothingRan as error:
            reasons.append(RowProblem(error.what, name))
    return complete


def _collisions(rows: Iterable[Row], makes: bool) -> list[str]:
    """Return an error for each row that collides with an earlier row."""
    problems = []
    seen: dict[object, Row] = {}
    roles: dict[object, Row] = {}
    namespaces: dict[object, Row] = {}
    files: dict[object, Row] = {}
    for row in rows:
        role, namespace = (*row.account, row.parameters.role_name.lower()), (*row.cluster, row.parameters.namespace)
        whole = json.dumps(row.as_json(), sort_keys=True), *row.cluster, row.run
        if whole in seen:
            problems.append(f"{row.place}: it repeats row {seen[whole].number}. Delete one of them")
        elif makes and role in roles:
            problems.append(f"{row.place}: {_role_taken(row, roles[role])}")
        elif makes and namespace in namespaces:
            problems.append(f"{row.place}: {_namespace_taken(row, namespaces[namespace])}")
        elif row.name.lower() in files:
            problems.append(f"{row.place}: {_files_taken(row, files[row.name.lower()])}")
        seen.setdefault(whole, row)
        roles.setdefault(role, row)
        namespaces.setdefault(namespace, row)
        files.setdefault(row.name.lower(), row)
    return problems


def _role_taken(row: Row, earlier: Row) -> str:
    given, other = row.parameters, earlier.parameters
    of = [name for name in ("cluster", "namespace", "service_account") if getattr(given, name) != getattr(other, name)]
    policies = ", and attach another policy" if given.policy_arn != other.policy_arn else ""
    named = "".join(f"{{{name}}}-" for name in of) or "another-"
    return (
        f"it would overwrite the role {given.role_name} of row {earlier.number}{policies}. A role "
        f"admits the service account of only one row. Give each row a role of its own, such as  "
        f'role_name: "{named}{given.role_name}"'
    )


def _namespace_taken(row: Row, earlier: Row) -> str:
    return (
        f"its pod and row {earlier.number}'s pod would have the same name in the namespace "
        f"{row.parameters.namespace} of the cluster {row.parameters.cluster}. "
        f'Give each row a namespace of its own, such as  namespace: "{{role_name}}"'
    )


def _files_taken(row: Row, earlier: Row) -> str:
    return (
        f"its results would overwrite the results of row {earlier.number}, because both rows have the same run, "
        f"{row.run}. Give each row a cluster, namespace, service account or role of its own"
    )


def _refused(file: Path, problems: list[str]) -> NothingRan:
    lines = [f"  {problem}" for problem in problems[:LISTED]]
    more = [f"  and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    return NothingRan(
        "\n".join(["The fleet file has rows that can't run:", *lines, *more]),
        where=f"{file}; nothing ran",
        next="change these rows, and run the fleet again",
    )


def _hash(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
