"""A report's widget: the report, and a button that reads the live lab again and replaces the report.

This module is only imported when a running notebook displays something.
"""

import re
import sys
import time
from collections.abc import Callable
from html import escape
from importlib.resources import files
from typing import TYPE_CHECKING

from labkit.errors import LabError
from labkit.showing import RIGHT, WARNING, WRONG, is_live, left_aligned, stable

if TYPE_CHECKING:
    import ipywidgets

VIEW = "application/vnd.jupyter.widget-view+json"
# A code host drops classes and styles, so stored reports have neither. In a widget, these words get their colours.
COLOURS = {
    RIGHT: "right",
    WRONG: "wrong",
    WARNING: "warning",
    "✓ checked and right": "right",
    "● done": "there",
    "● ready": "there",
    "✗ broken": "wrong",
    "○ to do": "missing",
    "✓ admitted": "right",
    "✗ refused": "wrong",
}
_WORDS = "|".join(re.escape(word) for word in COLOURS)
_TABLE = re.compile(r"<table><tr>(?P<head>(?:<th>[^<]*</th>)+)</tr>.*?</table>")
_ALL_RIGHT = re.compile(
    r'<p>(?P<headline><strong><span class="labkit-state labkit-right">[^<]*</span>[^<]*</strong>)</p>'
    r"(?P<table><table.*?</table>)"
)
_ISSUER = re.compile(r"(?:https://)?oidc\.eks\.[\w-]+\.amazonaws\.com/id/[0-9A-F]{4}(?:[0-9A-F]{24}|…)[0-9A-F]{4}\b")
_CODE = re.compile(r"(?<=<td><code>).*?(?=</code></td>)", re.DOTALL)
_AFTER = re.compile(r"(?<!>)[:/]+(?=\w)(?![^<]*>)")  # not inside a tag, nor right after an issuer's short name
_ALIGNED = left_aligned("<td>")[len("<td") : -1]
_STATE = re.compile(rf"(?<=<td>)(?P<cell>{_WORDS})(?=</td>)|(?<=<strong>)(?P<headline>{_WORDS}):")


def view(html: str, again: Callable[[], str], label: str) -> dict[str, object]:
    """Return the MIME bundle with which a notebook draws the widget; empty outside a running notebook.

    Args:
        html: the present report.
        again: reads the live lab and returns a new report.
        label: the button's text.

    https://ipywidgets.readthedocs.io/en/stable/
    """
    return drawn(lambda: panel(html, again, label))


def drawn(panel: "Callable[[], ipywidgets.Widget]") -> dict[str, object]:
    """Return the MIME bundle of a new widget from ``panel``. Outside a running notebook, return {}."""
    if not _in_kernel():
        return {}
    bundle = panel()._repr_mimebundle_()
    # anywidget adds the output's metadata, which IPython allows.
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    return {VIEW: data[VIEW]}


def panel(html: str, again: Callable[[], str], label: str) -> "ipywidgets.VBox":
    """Return a widget that shows the report ``html``, and below it a button with the text ``label``.

    The button replaces the report with the result of ``again``, and says whether the report has changed.
    """
    import ipywidgets

    from labkit.course.widgets.pages import Announced

    report = ipywidgets.HTML(styled(html))
    button = ipywidgets.Button(description=label, layout=ipywidgets.Layout(width="auto"))
    said = ipywidgets.HTML(_said("Checked", ""))
    announced = Announced()

    def press(_: "ipywidgets.Button") -> None:
        before = report.value
        # The reader sees this at once. A check that starts a program in a pod takes seconds.
        said.value = "Checking …"
        try:
            report.value = styled(again())
            came_to = "nothing has changed" if report.value == before else "it has changed"
        except Exception as error:  # the browser's log would swallow a callback's error
            name = "" if isinstance(error, LabError) else f"{type(error).__name__}: "
            report.value = styled(f'<pre role="alert">{WRONG}: {escape(name + stable(str(error)))}</pre>')
            came_to = "it failed"
        said.value = announced.text = _said("Checked again", came_to)

    button.on_click(press)
    below = ipywidgets.HBox([button, said, announced])
    below.add_class("labkit-below")
    whole = ipywidgets.VBox([report, below])
    whole.add_class("labkit")
    return whole


def _said(what: str, came_to: str) -> str:
    return f"{what} at {time.strftime('%H:%M:%S')}{came_to and ': ' + came_to}."


def styled(html: str) -> str:
    """Return the HTML with the lab's style, which follows the notebook's theme."""
    style = files("labkit.course.widgets").joinpath("live.css").read_text(encoding="utf-8")
    return f"<style>{style}</style>{report(html)}"


def card(stored: str) -> str:
    """Return a notebook's stored report as a running notebook shows it. The page has to have the lab's style."""
    return f'<div class="labkit">{report(stored.replace(_ALIGNED, ""))}</div>'


def report(html: str) -> str:
    """Return the HTML with short names of issuers, and with the classes that the lab's style needs."""
    return f'<div class="labkit-report">{folded(labelled(coloured(breakable(briefly(html)))))}</div>'


def shown(html: str) -> str:
    """Return the HTML for an output that has no button.

    If LABKIT_LIVE=1 is set, the HTML has the lab's style. Otherwise, the cells of its tables are left-aligned.
    """
    return f'<div class="labkit">{styled(html)}</div>' if is_live() else left_aligned(html)


def folded(html: str) -> str:
    """Return the HTML. If a check is all right, its table is folded below its headline."""
    return _ALL_RIGHT.sub(r"<details><summary>\g<headline></summary>\g<table></details>", html)


def briefly(html: str) -> str:
    """Return the HTML with short names of issuers, such as …D1B9, and the whole name in a tooltip.

    A row that compares two issuers has their whole names.
    """
    return "".join(
        _ISSUER.sub(_brief, part) if _is_of_one_issuer(part) else part for part in re.split("(?=<tr>)", html)
    )


def _is_of_one_issuer(row: str) -> bool:
    # A difference is underlined, also in the middle of an issuer.
    return len(set(_ISSUER.findall(re.sub("</?(?:u|strong)>", "", row)))) == 1


def _brief(issuer: re.Match[str]) -> str:
    return f'<span title="{issuer[0]}">…{issuer[0][-4:]}</span>'


def breakable(html: str) -> str:
    """Return the HTML. Code in a table may wrap after a colon or a slash, so that an ARN's names stay whole."""
    return _CODE.sub(lambda code: _AFTER.sub(r"\g<0><wbr>", code[0]), html)


def labelled(html: str) -> str:
    """Return the HTML. Each cell of a table gets an attribute with the name of the cell's column.

    A narrow panel shows the column's name in front of the cell's text.
    """
    return _TABLE.sub(_labelled, html)


def _labelled(table: re.Match[str]) -> str:
    columns = [f'<td data-column="{name}">' for name in re.findall("<th>([^<]*)</th>", table["head"])]
    opening, head, *rows = table[0].split("<tr>")
    labelled_rows = ["".join(map("".join, zip(["", *columns], row.split("<td>"), strict=True))) for row in rows]
    return "<tr>".join([opening.replace(">", ' class="labkit-columns">'), head, *labelled_rows])


def coloured(html: str) -> str:
    """Return the report with a CSS class at each word that names a state."""

    def marked(match: re.Match[str]) -> str:
        name = COLOURS[match["cell"] or match["headline"]]
        return f'<span class="labkit-state labkit-{name}">{match[0]}</span>'

    return _STATE.sub(marked, html)


def _in_kernel() -> bool:
    # A terminal's IPython has no kernel, and plain Python has not even imported IPython.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return getattr(shell, "kernel", None) is not None
