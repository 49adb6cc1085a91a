"""The README is one page, the manual is whole, and no page states a number or a name that can go out of date."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from labkit.cli.main import PAGES, app

ROOT = Path(__file__).parent.parent
MANUAL = ROOT / "notebooks" / "manual"
README = ROOT / "README.md"
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("notebooks/*.md"), *MANUAL.glob("*.md")])
WRITTEN = [*TEXTS, *sorted(ROOT.glob("notebooks/*.ipynb"))]
LONGEST_README = 180
# A link or picture, the definition of a reference, and HTML's.
LINK = re.compile(
    r"""(?:\]\(|^ {0,3}\[[^]\n]+\]:[ ]*|\b(?:href|src)=["'])(?!https://|mailto:)<?([^)#\s"'>]*)(?:#([^)\s"'>]+))?""",
    re.M,
)
FENCED = re.compile(r"^```.*?^```$|`[^`\n]*`", re.M | re.S)
# A count of what the code holds. Digits in front of other words are AWS's or Kubernetes's own.
COUNT = re.compile(r"\b\d[\d,]* (modules|lines of|commands|faults|messages|exercises|notebooks|tests|answers from)\b")
BIG = re.compile(r"\b(twelve|\w+teen|twenty|thirty) (modules|commands|faults|messages|exercises|notebooks|tests)\b")


def place(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def without_code(page: Path) -> str:
    """The text of a page, or of a notebook's Markdown cells, without boxes and words of code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return FENCED.sub("", text)


def broken(text: str, page: Path) -> list[str]:
    """A sentence for each link in a page's text that leads to no file or no heading."""
    sentences = []
    for path, anchor in LINK.findall(text):
        target = (page.parent / path).resolve() if path else page
        said = f"{place(page)} links to {path}{f'#{anchor}' if anchor else ''}"
        if not target.is_file():
            sentences.append(f"{said}: name an existing file, relative to the page")
        elif anchor and anchor not in anchors(target):
            sentences.append(f"{said}: {place(target)} has no such heading; it has {sorted(anchors(target))}")
    return sentences


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a code host and the book make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def commands(group: typer.Typer, before: str = "") -> list[str]:
    """Each command, and each named group of commands, as it's typed after `labkit`."""
    names = [f"{before}{each.name or getattr(each.callback, '__name__', '')}" for each in group.registered_commands]
    for added in group.registered_groups:
        names += [f"{before}{added.name}"] if added.name else []
        names += commands(added.typer_instance, f"{before}{added.name} " if added.name else before)
    return names


def test_the_readme_is_one_page():
    lines = len(README.read_text().splitlines())
    assert lines <= LONGEST_README, (
        f"README.md has {lines} lines, at most {LONGEST_README}: move a section into notebooks/manual/"
    )


def test_each_page_of_the_manual_is_in_its_contents():
    listed = re.findall(r"^\| \[[^]]+\]\(([^)]+)\) \|", (MANUAL / "index.md").read_text(), re.M)
    pages = sorted(page.name for page in MANUAL.glob("*.md") if page.name != "index.md")
    unlisted = [page for page in pages if page not in listed]
    assert not unlisted, f"notebooks/manual/{unlisted[0]}: add a row for it to the table in notebooks/manual/index.md"
    assert sorted(listed) == pages


@pytest.mark.parametrize("page", sorted(MANUAL.glob("*.md")), ids=place)
def test_each_page_of_the_manual_is_linked_from_a_notebook(page):
    books = [book for book in WRITTEN if book.suffix == ".ipynb"]
    linked = {path for book in books for path, _ in LINK.findall(without_code(book))}
    assert f"manual/{page.name}" in linked, (
        f"{place(page)} is linked from no notebook: link it from a Markdown cell of the notebook that it fits"
    )


@pytest.mark.parametrize("page", WRITTEN, ids=place)
def test_each_link_of_a_page_leads_to_a_file_and_a_heading(page):
    sentences = broken(without_code(page), page)
    assert not sentences, "\n".join(sentences)


@pytest.mark.parametrize("text", [
    "[a](nothing.md)",
    "![a](nothing.svg)",
    '[a](nothing.md "title")',
    "[a][b]\n\n[b]: nothing.md",
    '<a href="nothing.md">a</a>',
    "<img src='nothing.svg'>",
])  # fmt: skip
def test_a_broken_link_of_any_form_is_seen(text):
    (sentence,) = broken(text, README)
    assert re.fullmatch(r"README.md links to nothing.(md|svg): name an existing file, relative to the page", sentence)


def test_each_page_beside_the_notebooks_is_linked():
    linked = {(page.parent / path).resolve() for page in WRITTEN for path, _ in LINK.findall(without_code(page))}
    pages = [page for page in ROOT.glob("notebooks/**/*.md") if "/." not in str(page.relative_to(ROOT))]
    stray = sorted(place(page) for page in pages if page not in linked)
    assert not stray, f"{stray[0]}: link to it from a page or a notebook, or delete it"


def test_each_path_that_contributing_names_exists():
    named = re.findall(r"`([\w./-]*/[\w./-]*)`", (ROOT / "CONTRIBUTING.md").read_text())
    paths = [path for path in named if path.endswith(("/", ".py")) and "/." not in f"/{path}" and not path.isupper()]
    real = [path for path in paths if not re.search("[A-Z]{2}", path) and not path.startswith(("dist/", "learn/"))]
    missing = [path for path in real if not (ROOT / path).exists() and not (ROOT / "labkit" / path).exists()]
    assert real and not missing, f"CONTRIBUTING.md names {missing[0]}: write where it is now"


@pytest.mark.parametrize("page", sorted(MANUAL.glob("*.md")), ids=place)
def test_a_page_of_the_manual_links_only_to_what_the_learner_has(page):
    """learn/ and the wheel hold what is in notebooks/, and nothing above it."""
    outside = [path for path, _ in LINK.findall(without_code(page)) if path.count("../") > 1]
    assert not outside, f"{place(page)} links to {outside[0]}: link to a page in notebooks/, or write the name alone"


@pytest.mark.parametrize("page", WRITTEN, ids=place)
def test_no_page_names_a_version_of_the_wheel(page):
    named = re.search(r"labkit-\d[\w.]*", page.read_text())
    assert not named, f"{place(page)} names {named[0]}: write VERSION instead of the number"


@pytest.mark.parametrize("page", [page for page in TEXTS if page.name != "CHANGELOG.md"], ids=place)
def test_no_page_states_a_count_that_changes_with_the_code(page):
    stated = COUNT.search(without_code(page)) or BIG.search(without_code(page))
    assert not stated, f"{place(page)} states {stated[0]!r}: leave the number out"


@pytest.mark.parametrize("command", commands(app))
def test_the_help_of_each_command_names_a_page_that_has_the_command(command):
    said = CliRunner().invoke(app, [*command.split(), "--help"], env={"COLUMNS": "200"}).stdout
    page = MANUAL / said.split()[-1].rpartition("/")[2]
    assert said.split()[-2] == "Manual:" and page.is_file(), (
        f"labkit {command} --help names no page of the manual: add the command to PAGES in labkit/cli/main.py"
    )
    assert f"labkit {command}" in page.read_text(), f"{place(page)} doesn't mention labkit {command}: describe it there"


@pytest.mark.parametrize("command", ["", "webhook", "doctor"])
def test_the_page_s_path_stays_on_one_line_in_a_narrow_terminal(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", *command.split(), "--help"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "40"},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-2] == f" Manual: {MANUAL / (command or 'index')}.md"


def test_the_help_for_a_cluster_s_values_names_the_page_about_clusters():
    said = CliRunner().invoke(app, ["workshop", "values", "--help"], env={"COLUMNS": "200"}).stdout
    assert said.split()[-1].endswith("manual/workshop-on-a-cluster.md")


def test_the_help_of_labkit_names_the_manual_s_contents():
    assert CliRunner().invoke(app, ["--help"], env={"COLUMNS": "200"}).stdout.split()[-1].endswith("manual/index.md")


def test_the_manual_s_list_of_commands_is_complete():
    listed = (MANUAL / "terminal.md").read_text()
    missing = [command for command in commands(app) if f"`labkit {command}" not in listed]
    assert not missing, f"notebooks/manual/terminal.md lacks labkit {missing[0]}: add a row for it"


def test_the_table_of_pages_names_no_command_that_does_not_exist():
    known = {command.split()[-1] for command in commands(app)}
    assert {command.split()[-1] for group in PAGES.values() for command in group} == known
