"""The leader's guide: a page with plans and advice, slides, and a form for feedback. None of them needs a network.

`notebooks` reads the class's notebooks, and what `notebooks.yaml` says about teaching them. `plans` fits them into a
class's time. The manual's page about leading a class is part of the guide.

nbconvert makes the slides with reveal.js 5.2.1. `reveal/` has it unchanged from npm, with its licence, and a
theme of the lab's own. https://revealjs.com
"""

import re
import shutil
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader
from nbconvert.exporters import SlidesExporter
from nbconvert.filters import markdown2html
from nbformat.v4 import new_markdown_cell, new_notebook

from labkit.course import NOTEBOOKS
from labkit.errors import LabError
from labkit.workshop.guide import notebooks, plans
from labkit.workshop.guide.notebooks import TaughtNotebook, without_inner_links
from labkit.workshop.settings import Workshop

FOLDER = Path(__file__).parent
LOADER = FileSystemLoader(FOLDER / "templates")
MANUAL = NOTEBOOKS / "manual" / "guide.md"
PAGE, SLIDES, FEEDBACK = "guide.html", "slides.html", "feedback.html"
FORM = "## The feedback form\n"
CHECKBOX = re.compile(r'<input class="task-list-item-checkbox" type="checkbox" disabled(?:="")?/?>(.*?)</li>', re.S)
TO_TICK = r'<label><input type="checkbox"> \1</label></li>'


def write(workshop: Workshop, into: Path) -> list[Path]:
    """Write the guide of a class to a folder, also over an earlier one, and return its three pages.

    Raises `LabError` if the folder can't be written.
    """
    taught = notebooks.of_class(workshop)
    try:
        (into / "pictures").mkdir(parents=True, exist_ok=True)
        shutil.copytree(FOLDER / "reveal", into / "reveal", dirs_exist_ok=True)
        for picture in {each.picture for each in taught}:
            shutil.copy(picture, into / "pictures")
        texts = {
            PAGE: _page(workshop, "guide.md", taught=taught, plans=plans.plans(taught), advice=_manual()),
            SLIDES: _slides(workshop, taught),
            FEEDBACK: _page(workshop, "feedback.md", form=_form()),
        }
        for name, text in texts.items():
            (into / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise LabError(
            f"{into} can't be written: {error.strerror}.", next=f"labkit workshop guide {workshop.folder} FOLDER"
        ) from None
    return [into / name for name in texts]


def _page(workshop: Workshop, template: str, **shown: object) -> str:
    page = Environment(loader=LOADER, autoescape=True).get_template("page.html")
    body = CHECKBOX.sub(TO_TICK, markdown2html(_text(template, workshop=workshop, **shown)))
    return page.render(title=workshop.title, body=body)


def _slides(workshop: Workshop, taught: Sequence[TaughtNotebook]) -> str:
    text = _text("slides.md", workshop=workshop, taught=taught)
    cells = [new_markdown_cell(part, metadata={"slideshow": {"slide_type": kind}}) for kind, part in _parts(text)]
    exporter = SlidesExporter(template_name="slides", extra_template_basedirs=[str(FOLDER)])  # type: ignore[no-untyped-call]  # of traitlets
    exporter.reveal_url_prefix, exporter.reveal_theme = "reveal", "class"
    notebook = new_notebook(cells=cells, metadata={"title": workshop.title})
    return str(exporter.from_notebook_node(notebook)[0])


def _text(template: str, **shown: object) -> str:
    """Return a text in Markdown."""
    known = Environment(loader=LOADER, trim_blocks=True, lstrip_blocks=True)  # noqa: S701  # not HTML
    return known.get_template(template).render(**shown)


def _parts(text: str) -> list[tuple[str, str]]:
    """Return the type and the text of each slide of a text with lines such as `--- slide`."""
    _, *parts = re.split(r"^--- (\w+)\n", text, flags=re.M)
    return list(zip(parts[::2], parts[1::2], strict=True))


def _manual() -> str:
    """Return the manual's page without its title and its form, for a page that stands elsewhere."""
    return without_inner_links(MANUAL.read_text(encoding="utf-8").partition(FORM)[0].partition("\n## ")[2])


def _form() -> str:
    return without_inner_links(MANUAL.read_text(encoding="utf-8").partition(FORM)[2].partition("\n## ")[0])
