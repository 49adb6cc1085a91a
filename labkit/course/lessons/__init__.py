"""The lessons' texts. Each notebook has a YAML file with its questions, and with its exercises' titles and hints.

A file has its notebook's name, such as 02-iam-role or doctor. `review/` has more questions, which come back in later
notebooks; its files have the same names without the numbers. `labkit.course.exercises` opens and judges the exercises.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeVar

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from labkit.errors import LabError, UnknownName

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILES = {file.stem.partition("-")[0]: file for file in sorted(Path(__file__).parent.glob("*.yaml"))}
"""The lessons' files, by the notebook's number, or by its name if it has no number."""
REVIEW = Path(__file__).parent / "review"
T = TypeVar("T")


def _of_its_notebook(id: str, file: ValidationInfo) -> str:
    if not re.fullmatch(rf"{file.context}-(\d+|[a-z])", id):
        raise ValueError(f"{id!r} is not an id of notebook {file.context}, such as {file.context}-1")
    return id


Text = Annotated[str, StringConstraints(min_length=1)]
Id = Annotated[str, AfterValidator(_of_its_notebook)]


class LessonPart(BaseModel):
    """A part of a lesson's file."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Answer(LessonPart):
    """One of a question's answers. In the file, the key of its text is `right` or `wrong`."""

    if_right: Text | None = Field(None, alias="right")
    if_wrong: Text | None = Field(None, alias="wrong")
    why: Text
    """The reason why the answer is right or wrong, in a sentence or two."""

    @model_validator(mode="after")
    def _has_one_text(self) -> Self:
        if (self.if_right is None) == (self.if_wrong is None):
            raise ValueError("an answer needs either 'right' or 'wrong'")
        return self

    @property
    def text(self) -> str:
        """The answer's text."""
        return self.if_right or self.if_wrong or ""

    @property
    def right(self) -> bool:
        """Whether the answer is right."""
        return self.if_right is not None


class Question(LessonPart):
    """A question and its three answers, exactly one of them right."""

    id: Id
    """The notebook's number and the question's number, such as 02-1."""
    text: Text = Field(alias="question")
    answers: tuple[Answer, ...]

    @model_validator(mode="after")
    def _has_one_right_answer(self) -> Self:
        if (right := sum(answer.right for answer in self.answers)) != 1:
            raise ValueError(f"a question needs exactly one right answer, but this one has {right}")
        return self


class OpenQuestion(LessonPart):
    """A question without answers to choose from. The learner answers it in their head, and then compares."""

    id: Id
    text: Text = Field(alias="question")
    answer: Text


class TokenQuestion(LessonPart):
    """What does STS answer to a token? The lab decides it, with a role's trust policy."""

    id: Id
    condition: Mapping[Text, Mapping[Text, Text | tuple[Text, ...]]]
    """The trust policy's condition. Its keys are claims, such as sub, or whole keys with a colon."""
    action: Text = "sts:AssumeRoleWithWebIdentity"
    client_ids: tuple[Text, ...] = ("sts.amazonaws.com",)
    """The client ids of the OIDC provider."""
    sub: Text = "system:serviceaccount:shop:cart"
    aud: Text = "sts.amazonaws.com"
    another_cluster: bool = False
    """Whether the token is another cluster's, whose issuer isn't registered."""
    minutes: int = 60
    """The minutes until the token expires. Below 0, it has expired."""
    why: Text


class Task(LessonPart):
    """What an exercise asks of the learner."""

    id: Id
    """The notebook's number and a letter, such as 02-a."""
    title: Text
    """The goal, in a few words."""
    hints: tuple[Text, ...] = Field(min_length=1)
    """Three hints. The last one is nearly the solution."""


class Lesson(LessonPart):
    """The texts of one notebook."""

    exercises: tuple[Task, ...] = ()
    predictions: tuple[Question, ...] = ()
    """The questions about a cell's output. The learner answers them before running the cell."""
    recall: tuple[Question, ...] = ()
    """The questions at the end of the notebook."""
    open: tuple[OpenQuestion, ...] = ()
    tokens: tuple[TokenQuestion, ...] = ()

    @model_validator(mode="after")
    def _has_each_id_once(self) -> Self:
        lists = (self.exercises, self.predictions, self.recall, self.open, self.tokens)
        ids = [each.id for entries in lists for each in entries]
        if twice := next((id for id in ids if ids.count(id) > 1), None):
            raise ValueError(f"two entries have the id {twice!r}")
        return self


# The lists in a file: the name of an entry, and its model.
LISTS: Mapping[object, tuple[str, type[LessonPart]]] = {
    "exercises": ("exercise", Task),
    "predictions": ("question", Question),
    "recall": ("question", Question),
    "open": ("question", OpenQuestion),
    "tokens": ("question", TokenQuestion),
    "answers": ("answer", Answer),
}
# What is wrong with the value of a key, by the type of pydantic's error.
WRONG = {
    "missing": "is missing",
    "string_too_short": "is empty",
    "too_short": "is empty",
    "string_type": "is not text",
}


def prediction(id: str) -> Question:
    """Return the prediction with this id, such as 02-1. A prediction is a question: what will a cell's output be?

    In a notebook of an earlier version, it may be what today's notebook asks at its end. Raises `UnknownName`.
    """
    lesson = of_notebook(id)
    return named("question", id, {each.id: each for each in (*lesson.predictions, *lesson.recall)})


def recall(notebook: str) -> Sequence[Question]:
    """Return the questions at the end of the notebook with this number, such as 02.

    Raises `UnknownName` if no notebook has the number.
    """
    return of_notebook(notebook).recall


def for_review(notebook: str) -> Lesson:
    """Return the questions that come back after the notebook with this number. Raises `UnknownName` and `LabError`."""
    more = REVIEW / f"{unnumbered(file(notebook))}.yaml"
    return read(more) if more.is_file() else Lesson()


def task(id: str) -> Task:
    """Return the texts of the exercise with this id, such as 02-a. Raises `UnknownName`."""
    return named("exercise", id, {each.id: each for each in of_notebook(id).exercises})


def named(kind: str, id: str, known: Mapping[str, T]) -> T:
    """Return the entry with this id. Raises `UnknownName`."""
    if id not in known:
        raise UnknownName(kind, id, known)
    return known[id]


def of_notebook(id: str) -> Lesson:
    """Return a notebook's texts. `id` is the notebook's number, or the id of one of its exercises or questions.

    Raises `UnknownName` if no notebook has the number, and `LabError` if the notebook's file has a mistake.
    """
    return read(file(id))


def file(id: str) -> Path:
    """Return the file of a notebook's texts. Raises `UnknownName`."""
    number = re.split(r"\W", str(id))[0]  # a learner may write a number, such as 3
    return named("notebook with exercises", number, FILES)


def unnumbered(file: Path) -> str:
    """Return the name of a notebook's file without the notebook's number, such as iam-role."""
    return re.sub(r"^\d+-", "", file.stem)


@cache
def read(file: Path) -> Lesson:
    """Return the texts in a lesson's file. Raises `LabError` for the first mistake in the file."""
    try:
        # The base loader reads each scalar as text: with another one, the answer No would be a boolean.
        content = _value(yaml.compose(file.read_text(encoding="utf-8"), getattr(yaml, "CBaseLoader", yaml.BaseLoader)))
        return Lesson.model_validate(content, context=file.name[:2] if file.name[0].isdigit() else file.stem)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", error)
        place, mistake = [f"line {mark.line + 1}"] if mark else [], str(problem)
    except ValidationError as error:
        # A misspelt key is also missing. Report it as misspelt.
        first = min(error.errors(), key=lambda each: each["type"] != "extra_forbidden")
        place, mistake = [*_entries(content, first["loc"])], _explain(first)
    where = ", ".join([str(file), *place])
    raise LabError(f"{mistake.removesuffix('.')}.", where=where, next="correct the file, and try again")


def _value(node: yaml.Node | None) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_value(each) for each in node.value]
    if not isinstance(node, yaml.MappingNode):
        return node.value if node else {}
    values: dict[str, Any] = {}
    for key, value in node.value:
        name = str(key.value)
        if name in values:
            raise yaml.MarkedYAMLError(problem=f"{name!r} is here twice", problem_mark=key.start_mark)
        values[name] = _value(value)
    return values


def _entries(content: Any, place: Sequence[int | str]) -> Iterator[str]:
    """Yield the names of the entries around a place, such as `question 02-3` and `answer 2`."""
    for key, index in pairwise(place):
        content = content[key]
        if key in LISTS and isinstance(index, int):
            entry = content[index]
            yield f"{LISTS[key][0]} {(isinstance(entry, dict) and entry.get('id')) or index + 1}"


def _explain(error: "ErrorDetails") -> str:
    keys = [each for each in error["loc"] if isinstance(each, str)]
    key = keys[-1] if keys else ""
    kind, model = next((LISTS[each] for each in reversed(keys[:-1]) if each in LISTS), ("lesson", Lesson))
    match error["type"]:
        case "extra_forbidden":
            known = [field.alias or name for name, field in model.model_fields.items()]
            return UnknownName(f"key of {'an' if kind[0] in 'ae' else 'a'} {kind}", key, known).what
        case "value_error":
            return str(error["ctx"]["error"])
        case "model_type":
            return "this is not a list of keys and values"
        case kind_of_error:
            return f"{key!r} {WRONG.get(kind_of_error, 'is not a list')}"
