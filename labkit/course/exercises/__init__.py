"""The notebooks' exercises. The live lab judges each solution.

`exercise` opens and judges an exercise, and creates its resources. `asking` makes its calls to the lab. Each of the
other modules holds the exercises of one notebook. Their titles and hints are in `labkit/course/lessons/`.
"""

import importlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from labkit.connection import core_api
from labkit.course import lessons
from labkit.errors import LabError

if TYPE_CHECKING:
    from labkit.course.exercises.exercise import Exercise
    from labkit.workspace import Workspace


def by_id(id: str) -> "Exercise":
    """Return the exercise with this id, such as 02-a. Raises `UnknownName`."""
    return lessons.named("exercise", id, {each.id: each for each in of_notebook(id)})


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
        for opened in of_notebook(number) if number in lessons.FILES else ():
            if opened.name == name and (name in names or opened.run(lab) in runs):
                opened.close(lab)
                yield f"removed exercise {opened.id}"


def of_notebook(id: str) -> "Sequence[Exercise]":
    """Return a notebook's exercises. `id` is the notebook's number, or the id of one of its exercises.

    Raises `UnknownName` if no notebook has the number. Raises `LabError` if only the lesson's file or only the module
    has an exercise.
    """
    file, texts = lessons.file(id), lessons.of_notebook(id)
    if not texts.exercises:
        return ()
    name = lessons.unnumbered(file).replace("-", "_")
    exercises: Sequence[Exercise] = importlib.import_module(f"labkit.course.exercises.{name}").EXERCISES
    if odd := {each.id for each in texts.exercises} ^ {each.id for each in exercises}:
        raise LabError(
            f"Exercise {min(odd)} is not in both {file.name} and exercises/{name}.py.",
            where=str(file),
            next="add the exercise to the other file, and try again",
        )
    return exercises
