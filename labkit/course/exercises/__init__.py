"""The notebooks' exercises and questions. The live lab judges each solution.

`exercise` opens and judges an exercise, and creates its resources. `asking` makes its calls to the lab.
`examination` is the examination of notebook 98. `copies` makes the learner's notebooks, `progress` records the
learner's progress, and `contents` shows this progress. Each module in `NOTEBOOKS` holds the exercises and questions of
one notebook.
"""

import importlib
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from labkit.connection import core_api
from labkit.errors import UnknownName

if TYPE_CHECKING:
    from labkit.course.exercises.exercise import Exercise
    from labkit.course.widgets.question import Question
    from labkit.workspace import Workspace

T = TypeVar("T", "Exercise", "Question")
# The modules by the number at the beginning of the notebook's name.
NOTEBOOKS = {
    "00": "the_problem",
    "01": "oidc_provider",
    "02": "iam_role",
    "03": "service_account",
    "04": "pod",
    "05": "verify",
    "06": "terraform",
    "07": "exchange",
    "08": "least_privilege",
    "09": "break_and_repair",
    "10": "cross_account",
    "11": "pod_identity",
    "12": "many_clusters",
    "99": "clean_up",
}


def by_id(id: str) -> "Exercise":
    """Return the exercise with this id, such as 02-a. Raises `UnknownName`."""
    known: Sequence[Exercise] = of_notebook(id).EXERCISES
    return _named("exercise", id, known)


def prediction(id: str) -> "Question":
    """Return the prediction with this id, such as 02-1. A prediction is a question: what will a cell's output be?

    Raises `UnknownName` if no prediction has the id.
    """
    known: Sequence[Question] = of_notebook(id).PREDICTIONS
    return _named("question", id, known)


def recall(notebook: str) -> "Sequence[Question]":
    """Return the questions at the end of the notebook with this number, such as 02.

    Raises `UnknownName` if no notebook has the number.
    """
    questions: Sequence[Question] = of_notebook(notebook).RECALL
    return questions


def close_all(lab: "Workspace") -> Iterator[str]:
    """Delete the resources of every open exercise. Yield a line for each closed exercise.

    An exercise also counts as open if only the OIDC provider that it registered is left.
    """
    from labkit.run_parameters import RUN_LABEL
    from labkit.steps import oidc_provider

    namespaces = core_api(lab.kubernetes).list_namespace(label_selector=RUN_LABEL).items
    names = [each.metadata.name for each in namespaces] + lab.aws.client("eks").list_clusters()["clusters"]
    runs = {*oidc_provider.runs(lab)}
    for name in dict.fromkeys(names + [part for run in runs for part in run.split("/")[1:2]]):
        number = name.removeprefix("exercise-").partition("-")[0]
        for opened in of_notebook(number).EXERCISES if number in NOTEBOOKS else ():
            if opened.name == name and (name in names or opened.run(lab) in runs):
                opened.close(lab)
                yield f"removed exercise {opened.id}"


def of_notebook(id: str) -> ModuleType:
    """Return the module that holds a notebook's `EXERCISES`, `PREDICTIONS` and `RECALL`. Raises `UnknownName`.

    `id` is the notebook's number, or the id of one of its exercises or questions.
    """
    number = str(id).partition("-")[0]  # a learner may write a number, such as 3
    if number not in NOTEBOOKS:
        raise UnknownName("notebook with exercises", number, NOTEBOOKS)
    return importlib.import_module(f"labkit.course.exercises.{NOTEBOOKS[number]}")


def _named(kind: str, id: str, known: "Sequence[T]") -> T:
    by_id = {each.id: each for each in known}
    if id not in by_id:
        raise UnknownName(kind, id, by_id)
    return by_id[id]
