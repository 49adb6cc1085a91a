"""The cheat-sheet beside the notebooks says what the doctor and notebook 09 say."""

import re

import pytest

from labkit.doctor.explanations import FAMILIES, explain
from labkit.doctor.findings.catalogue import CATALOGUE
from tests.notebooks.books import FOLDER, prose, read

SHEET = (FOLDER / "how-to-read-an-error.md").read_text()
ROWS = [
    (message, set(re.findall(r"\]\(([^)]+)\)", learn)))
    for message, _, learn in re.findall(r"^\| `(.+?)`.*? \| (.*) \| (.*) \|$", SHEET, re.MULTILINE)
]
IDS = {family.name: family.ids for family in FAMILIES}


def test_notebook_09_has_the_sheets_table_of_error_beginnings():
    table = re.search(r"\| the error begins .*?\n\n", SHEET, re.DOTALL)[0]
    assert len(table.splitlines()) == 8 and table in prose(read("09-break-and-repair-sts.ipynb"))


def test_the_doctor_explains_a_validation_error_with_the_sheets_notebook():
    (row,) = re.findall(r"^\| \[`ValidationError`\].* … \[`(.+?)`\].*\]\((.+?)\)", SHEET, re.MULTILINE)
    (explanation,) = explain(row[0])
    assert {CATALOGUE[id].learn for id in IDS[explanation.family]} == {row[1]}


@pytest.mark.parametrize(("message", "notebooks"), ROWS, ids=[message[:40] for message, _ in ROWS])
def test_the_doctor_recognises_the_message_and_names_the_sheets_notebooks(message, notebooks):
    """Notebook 11 is an exception, because no finding names it."""
    (explanation,) = explain(message)
    taught = {CATALOGUE[id].learn for id in IDS[explanation.family]}
    assert notebooks & taught == notebooks - {"11-cross-account.ipynb"}
