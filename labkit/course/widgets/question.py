"""A question with three answers: choose an answer, and the widget says why it's right or wrong.

In a running notebook, each answer is a button. Outside a running notebook, the answers are text. In HTML, the reader
has to unfold this text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course.lessons import Answer, Question
from labkit.showing import RIGHT, WRONG

if TYPE_CHECKING:
    import ipywidgets


Chosen = Callable[[Question, Answer], None]


@dataclass(frozen=True, repr=False)
class Questions:
    """The questions that a notebook shows together. `chosen` is called with each answer that the reader chooses."""

    title: str
    questions: Sequence[Question]
    chosen: Chosen

    def __repr__(self) -> str:
        return "\n\n".join([self.title, *(_as_text(question) for question in self.questions)])

    def _repr_html_(self) -> str:
        return f"<p><strong>{escape(self.title)}</strong></p>" + "".join(map(_as_html, self.questions))

    def _repr_mimebundle_(self, **_: Any) -> dict[str, Any]:
        from labkit.course.widgets import live

        bundle: dict[str, Any] = {"text/plain": repr(self), "text/html": self._repr_html_()}
        return bundle | live.drawn(self.panel)

    def panel(self) -> "ipywidgets.VBox":
        """Return the widget: each question above its three answers, and below them the reason for the chosen one."""
        import ipywidgets

        from labkit.course.widgets import live

        title = ipywidgets.HTML(live.styled(f"<p><strong>{escape(self.title)}</strong></p>"))
        whole = ipywidgets.VBox([title, *(self._panel_of(question) for question in self.questions)])
        whole.add_class("labkit")
        return whole

    def _panel_of(self, question: Question) -> "ipywidgets.VBox":
        import ipywidgets

        from labkit.course.widgets import live
        from labkit.course.widgets.pages import Announced

        reason, announced = ipywidgets.HTML(""), Announced()

        def button(answer: Answer) -> "ipywidgets.Button":
            made = ipywidgets.Button(description=answer.text, tooltip="", layout=ipywidgets.Layout(width="auto"))
            made.add_class("labkit-answer")

            def press(_: "ipywidgets.Button") -> None:
                said = f"<strong>{_verdict(answer)}: {escape(answer.text)}</strong><br>{escape(answer.why)}"
                reason.value = live.styled(f"<p>{said}</p>")
                announced.text = f"{_verdict(answer)}: {answer.text} {answer.why}"
                self.chosen(question, answer)

            made.on_click(press)
            return made

        text = ipywidgets.HTML(live.styled(f"<p>{escape(question.text)}</p>"))
        return ipywidgets.VBox([text, *map(button, question.answers), reason, announced])


def _as_text(question: Question) -> str:
    lines = [f"{question.id}  {question.text}"]
    for answer in question.answers:
        lines += [f"  - {answer.text}", f"    {_verdict(answer)}: {answer.why}"]
    return "\n".join(lines)


def _as_html(question: Question) -> str:
    # Folded, so that the reader can think first. Code hosts keep <details>.
    answers = "".join(
        f"<li>{escape(answer.text)}<br>{_verdict(answer)}: {escape(answer.why)}</li>" for answer in question.answers
    )
    return f"<details><summary>{escape(question.text)}</summary><ul>{answers}</ul></details>"


def _verdict(answer: Answer) -> str:
    return RIGHT if answer.right else WRONG
