"""A question: choose an answer, and the widget says why it's right or wrong; or think, and compare.

In a running notebook, each answer is a button. Outside a running notebook, the answers are text. In HTML, the reader
has to unfold this text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from typing import TYPE_CHECKING, Any

from labkit.course.lessons import Answer, OpenQuestion, Question
from labkit.showing import RIGHT, WRONG, counted

if TYPE_CHECKING:
    import ipywidgets


AnyQuestion = Question | OpenQuestion
Chosen = Callable[[str, bool], None]
KNEW, DID_NOT = "I knew it", "I didn't know it"


@dataclass(frozen=True, repr=False)
class Questions:
    """The questions that a notebook shows together.

    `chosen` is called with the question's id, and whether it was right, for each answer that the reader chooses.
    """

    title: str
    questions: Sequence[AnyQuestion]
    chosen: Chosen
    folded: bool = False
    """Whether a running notebook asks only after a click."""

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
        whole = ipywidgets.VBox([title])
        whole.add_class("labkit")

        def ask() -> None:
            whole.children = [title, *(self._panel_of(question) for question in self.questions)]

        if self.folded and self.questions:
            whole.children = [title, button(f"Ask me {counted(len(self.questions), 'question')}", ask)]
        else:
            ask()
        return whole

    def _panel_of(self, question: AnyQuestion) -> "ipywidgets.VBox":
        import ipywidgets

        from labkit.course.widgets import live
        from labkit.course.widgets.pages import Announced

        reason, announced = ipywidgets.HTML(""), Announced()
        text = ipywidgets.HTML(live.styled(f"<p>{escape(question.text)}</p>"))

        def said(answer: str, why: str) -> None:
            reason.value = live.styled(f"<p><strong>{escape(answer)}</strong><br>{escape(why)}</p>")
            announced.text = f"{answer} {why}"

        def choose(answer: Answer) -> None:
            said(f"{_verdict(answer)}: {answer.text}", answer.why)
            self.chosen(question.id, answer.right)

        def compare(knew: bool) -> None:
            said(KNEW if knew else DID_NOT, "It comes back in some days." if knew else "It comes back soon.")
            self.chosen(question.id, knew)

        if isinstance(question, Question):
            buttons = [button(each.text, partial(choose, each)) for each in question.answers]
            return ipywidgets.VBox([text, *buttons, reason, announced])
        answer = ipywidgets.HTML(live.styled(f"<p>{escape(question.answer)}</p>"))
        judged = [button(KNEW, partial(compare, True)), button(DID_NOT, partial(compare, False))]

        def show() -> None:
            panel.children = [text, answer, *judged, reason, announced]
            announced.text = question.answer

        panel = ipywidgets.VBox([text, button("Show the answer", show), reason, announced])
        return panel


def button(text: str, press: Callable[[], None]) -> "ipywidgets.Button":
    """Return a button as wide as its text, which calls `press`."""
    import ipywidgets

    made = ipywidgets.Button(description=text, tooltip="", layout=ipywidgets.Layout(width="auto"))
    made.add_class("labkit-answer")
    made.on_click(lambda _: press())
    return made


def _as_text(question: AnyQuestion) -> str:
    lines = [f"{question.id}  {question.text}"]
    if isinstance(question, OpenQuestion):
        return "\n".join([*lines, f"    {question.answer}"])
    for answer in question.answers:
        lines += [f"  - {answer.text}", f"    {_verdict(answer)}: {answer.why}"]
    return "\n".join(lines)


def _as_html(question: AnyQuestion) -> str:
    if isinstance(question, OpenQuestion):
        return f"<details><summary>{escape(question.text)}</summary><p>{escape(question.answer)}</p></details>"
    # Folded, so that the reader can think first. Code hosts keep <details>.
    answers = "".join(
        f"<li>{escape(answer.text)}<br>{_verdict(answer)}: {escape(answer.why)}</li>" for answer in question.answers
    )
    return f"<details><summary>{escape(question.text)}</summary><ul>{answers}</ul></details>"


def _verdict(answer: Answer) -> str:
    return RIGHT if answer.right else WRONG
