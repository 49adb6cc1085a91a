"""The widgets with their own page in the browser: "Who gets in?", and the calls to AWS.

Each page is a small ES module in anywidget's form. The page loads nothing from the network.
https://anywidget.dev/en/afm/
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from importlib.resources import files
from typing import Any

import anywidget
import ipywidgets
import traitlets

from labkit.course.widgets.kernel import error_lines
from labkit.errors import LabError

Judge = Callable[[str, list[Any]], dict[str, Any]]
Start = tuple[str, list[dict[str, object]], str]  # the policy, the callers, and a message if the role doesn't exist
Read = Callable[[], list[dict[str, Any]]]
LOOKS_EVERY = 0.25  # seconds
AT_ONCE = 100  # the most calls in one message to the page


def framed(page: anywidget.AnyWidget) -> ipywidgets.VBox:
    """Return the page in a box with the lab's style. If the kernel has ended, the box says so."""
    frame = ipywidgets.VBox([page])
    frame.add_class("labkit")
    return frame


def _text(name: str) -> str:
    return files("labkit.course.widgets").joinpath(name).read_text(encoding="utf-8")


class Announced(anywidget.AnyWidget):
    """A hidden text that a screen reader announces after each change."""

    _esm = _text("element.js") + _text("announced.js")
    text = traitlets.Unicode().tag(sync=True)


class PolicyPage(anywidget.AnyWidget):
    """A widget to edit a trust policy and six callers' claims. It shows which callers the policy admits."""

    _esm = _text("editor/codemirror.js") + _text("element.js") + _text("who_gets_in.js")
    _css = _text("live.css")
    role = traitlets.Unicode().tag(sync=True)
    policy = traitlets.Unicode().tag(sync=True)
    callers: traitlets.List[Any] = traitlets.List().tag(sync=True)
    request_number = traitlets.Int().tag(sync=True)
    """How many times the page has asked for verdicts. `verdicts` contains the number of the answered request."""
    verdicts = traitlets.Dict().tag(sync=True)
    said = traitlets.Unicode().tag(sync=True)
    """A message about the result of the last pressed button."""
    can_apply = traitlets.Bool().tag(sync=True)

    def __init__(
        self,
        role: str,
        *,
        judge: Judge,
        start_over: Callable[[], Start],
        apply: Callable[[str], None] | None,
        correct: str,
    ):
        """`correct` is the text to show as the next step if IAM refuses the policy's text."""
        policy, callers, missing = start_over()
        super().__init__(role=role, policy=policy, callers=callers, said=missing, can_apply=apply is not None)
        self._judge, self._start_over, self._apply, self._correct = judge, start_over, apply, correct
        self._decide()
        self.observe(self._decide, ["policy", "callers", "request_number"])
        self.observe(self._forget, "policy")
        self.on_msg(self._pressed)

    def _decide(self, _: Any = None) -> None:
        self.verdicts = self._judge(self.policy, self.callers) | {"request_number": self.request_number}

    def _forget(self, _: Any) -> None:
        self.said = ""

    def _pressed(self, _: Any, button: Any, __: Any = None) -> None:
        try:
            if button == "apply" and self._apply:
                self._apply(self.policy)
                self.said = f"Done: {self.role} has this trust policy now, and STS uses it."
            elif button == "start over":
                self.policy, self.callers, missing = self._start_over()
                self.said = missing or f"Started over: this is the present trust policy of {self.role}."
        except LabError as error:
            self.said = f"Nothing was changed. {error}"
        except Exception as error:  # the browser's log would swallow a callback's error
            self.said = "\n".join(["Nothing was changed.", *self._in_lines(error)])

    def _in_lines(self, error: Exception) -> list[str]:
        lines = error_lines(error)
        problem = self.verdicts.get("problem")
        code = getattr(error, "response", {}).get("Error", {}).get("Code")
        if not problem and code != "MalformedPolicyDocument":
            return lines
        # The policy's text is wrong, so no command and no other cell can help.
        next_step = problem["next"] if problem else self._correct
        return [*(line for line in lines if not line.startswith("next:")), f"next:  {next_step}"]


class CallsPage(anywidget.AnyWidget):
    """Calls to AWS as rows of a sequence diagram. While a browser shows the diagram, a thread reads the trail."""

    _esm = _text("element.js") + _text("watch.js")
    _css = _text("live.css")
    title = traitlets.Unicode().tag(sync=True)
    parties: traitlets.List[str] = traitlets.List().tag(sync=True)
    own = traitlets.Unicode().tag(sync=True)
    next = traitlets.Unicode().tag(sync=True)
    most = traitlets.Int().tag(sync=True)

    def __init__(self, read: Read, *, title: str, parties: Sequence[str], own: str, next: str, most: int):
        super().__init__(title=title, parties=[*parties], own=own, next=next, most=most)
        self._read = read
        self._calls: deque[dict[str, Any]] = deque(maxlen=most)
        self._left = threading.Event()
        self._thread: threading.Thread | None = None
        self.on_msg(self._heard)

    def look(self) -> None:
        """Read the trail once, and send new calls to the page. Raises an error if the trail can't be read."""
        if new := self._read():
            self._calls.extend(new)
            self._tell(new)

    def _heard(self, _: Any, message: Any, __: Any = None) -> None:
        if message == "leave":
            self._left.set()
        elif message == "watch":
            # A reopened page has lost its calls. A page that still has them ignores their numbers.
            self._tell([*self._calls])
            if self._thread is None or not self._thread.is_alive() or self._left.is_set():
                self._left = threading.Event()
                self._thread = threading.Thread(target=self._watch, args=(self._left,), daemon=True)
                self._thread.start()

    def _watch(self, left: threading.Event) -> None:
        try:
            self.look()
            while not left.wait(LOOKS_EVERY):
                self.look()
        except Exception as error:  # a thread's error would be printed below some cell
            self.send({"failed": f"{type(error).__name__}: {error}"})

    def _tell(self, calls: list[dict[str, Any]]) -> None:
        for first in range(0, max(len(calls), 1), AT_ONCE):
            self.send({"calls": calls[first : first + AT_ONCE]})
