"""An exercise: opened in a namespace of its own in a state that isn't solved, and judged by asking the live lab."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from labkit.connection import core_api
from labkit.errors import LabError
from labkit.steps import iam_role, pod
from labkit.steps.namespace import ensure_namespace, until_gone
from labkit.steps.ownership import existing
from labkit.steps.row import Row
from labkit.workspace import Workspace


@dataclass(frozen=True)
class Exercise:
    """What the reader does in a notebook, stated there by its symptom."""

    id: str
    """The notebook's number and a letter, such as 02-a."""
    title: str
    """What has to be reached, in a few words."""
    prepare: Callable[[Workspace], None]
    """Makes what the exercise starts from, in its empty namespace; it isn't solved then."""
    ask: Callable[[Workspace], Sequence[Row]]
    """Asks the live lab: each row has what a solved exercise answers, and what the lab answers now."""
    hints: tuple[str, str, str]
    """From a nudge to nearly the answer."""

    def place(self, lab: Workspace) -> Workspace:
        """The exercise's own namespace and role, exercise-ID: `lab.ready` and `lab.mend` leave them alone."""
        name = f"exercise-{self.id}"
        given = {"namespace": name, "role_name": name, "service_account": "cart"}
        return Workspace(lab.parameters.model_copy(update=given), lab.connection)

    def open(self, lab: Workspace) -> None:
        """Delete what an earlier try left, and make the state that the exercise starts from."""
        self.close(lab)
        place = self.place(lab)
        ensure_namespace(place)
        self.prepare(place)

    def is_open(self, lab: Workspace) -> bool:
        """Whether the exercise's namespace exists."""
        return (
            existing(partial(core_api(lab.kubernetes).read_namespace, self.place(lab).parameters.namespace)) is not None
        )

    def close(self, lab: Workspace) -> None:
        """Delete the exercise's namespace and role, whoever made what is in them."""
        place, core, iam = self.place(lab), core_api(lab.kubernetes), lab.aws.client("iam")
        namespace, role_name = place.parameters.namespace, place.parameters.role_name
        if self.is_open(lab):
            for each in core.list_namespaced_pod(namespace).items:
                pod.delete(place, each.metadata.name, namespace)
            existing(partial(core.delete_namespace, namespace))
            for _ in until_gone(place, namespace):
                pass
        with suppress(iam.exceptions.NoSuchEntityException):
            iam_role.delete(iam, role_name)

    def rows(self, lab: Workspace) -> Sequence[Row]:
        """What the live lab answers now, beside what a solved exercise answers. Raises `LabError` if it isn't open."""
        if not self.is_open(lab):
            raise LabError(f"Exercise {self.id} isn't open.", where="lab.check", next=f'lab.exercise("{self.id}")')
        return self.ask(self.place(lab))
