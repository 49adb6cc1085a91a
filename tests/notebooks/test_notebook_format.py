"""Every notebook has the form that learners are used to, and stores outputs that are the same in every run."""

import ast
import builtins
import re
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from labkit.course import copies, flow
from labkit.run_parameters import Parameters
from tests import test_pages
from tests.notebooks.books import FOLDER, NAMES, changes, code, commands, fences, printed, prose, read

# The one notebook that teaches no step. It makes a diagnosis that you can pass on.
REPORT = "doctor.ipynb"
# Their runs are records. A run skips their exercises.
RECORDS = (REPORT, "irsa.ipynb")

# The cell with which something happens for the first time, after the one that opens the lab. 97 and 98 begin with their
# rules. In the others, the first exercise completes a line, and the last starts from an empty cell.
FIRST = {
    "00-the-problem.ipynb": "attach",
    "01-oidc-provider.ipynb": "knock",
    "02-iam-role.ipynb": "create",
    "03-service-account.ipynb": "create",
    "04-pod.ipynb": "create",
    "05-verify.ipynb": "who",
    "06-inside-the-exchange.ipynb": "token",
    "07-least-privilege.ipynb": "permissions",
    "08-terraform.ipynb": "write",
    "09-break-and-repair-sts.ipynb": "provider",
    "10-break-and-repair-pods.ipynb": "annotation",
    "11-cross-account.ipynb": "enter",
    "12-pod-identity.ipynb": "role",
    "13-move-to-pod-identity.ipynb": "check",
    "14-fleet.ipynb": "matrix",
    "99-clean-up.ipynb": "marks",
    "doctor.ipynb": "diagnosis",
    "irsa.ipynb": "oidc-provider",
}

# The rule for a reader who runs the boxes. It stands once, on the contents page, and the notebooks link to it.
RULE = "If a box changes something, take either the box or the cell."
LINKED = "The `bash` boxes are [for a terminal](../README.md#boxes-and-cells)."
RULED = [name for name in NAMES if name not in RECORDS and fences(read(name))]

# Must not be printed: secret, or different in every run.
UNSTABLE = {
    "a token": r"eyJ[\w-]{8,}",
    "an access key": r"\b(AKIA|ASIA)[A-Z2-7]{16}",
    "a role id": r"\bAROA[A-Z2-7]{12,}",
    "a port": r"(127\.0\.0\.1|localhost):\d+",
    "a date": r"\b20[2-9]\d-\d\d-\d\d[T ]\d\d:\d\d",
    "a session name": r"botocore-session-\d+",
    "a path": r"/(tmp|home|Users|root|work|private)/|\.venv|\.lab\b|site-packages",
    "an id": r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b",
    "an address in memory": r"\bat 0x[0-9a-f]+",
    "a traceback": r"Traceback \(most recent call last\)",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_format_4_5_and_no_unneeded_metadata(name):
    notebook = read(name)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata == {
        "kernelspec": {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for cell in notebook.cells:
        folded = {"jupyter": {"source_hidden": True}, "tags": ["parameters"]}
        expected = folded if cell.id == "parameters" else {"tags": tags} if (tags := tagged(name, cell)) else {}
        assert cell.metadata == expected, cell.id


def tagged(name, cell):
    """The tags that a cell should have."""
    tags = []
    if cell.cell_type == "code" and "### BEGIN SOLUTION" in cell.source:
        tags += [copies.EXAMINED if cell.id.startswith(("fault-", "guess-", "task-")) else copies.TAG]
    if name in RECORDS and cell.cell_type == "code" and cell.id.startswith(("your-turn-", "attempt-")):
        tags += ["skip-execution"]
    return tags


@pytest.mark.parametrize("name", NAMES)
def test_cell_ids_are_unique_words(name):
    ids = [cell.id for cell in read(name).cells]
    assert len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", id) for id in ids), ids


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_has_a_bounded_number_of_cells_and_short_code_cells(name):
    notebook = read(name)
    assert 20 <= len(notebook.cells) <= 60
    lines = {cell.id: len(cell.source.splitlines()) for cell in code(notebook) if cell.id != "parameters"}
    assert max(lines.values()) <= 12, lines
    assert sum(count < 5 for count in lines.values()) * 2 >= len(lines), lines


@pytest.mark.parametrize("name", NAMES)
def test_text_comes_before_and_after_each_code_cell(name):
    kinds = [cell.cell_type for cell in read(name).cells]
    assert kinds[0] == kinds[-1] == "markdown"
    assert ("code", "code") not in pairwise(kinds)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_names_three_gains_the_time_and_what_you_need(name):
    first = read(name).cells[0].source
    assert re.search(r"^# IAM Roles for Service Accounts \(IRSA\)[,:]", first, re.MULTILINE)
    gains = first.partition("After this notebook you can\n\n")[2].partition("\n\n")[0].splitlines()
    assert len(gains) == 3 and all(line.startswith("- ") for line in gains)
    assert re.search(r"^Time: ~\d+ minutes", first, re.MULTILINE)
    assert "You need: " in first


@pytest.mark.parametrize("name", [name for name in NAMES if name[:3] not in ("97-", "98-")])
def test_the_first_cell_claims_the_time_that_the_notebook_takes(name):
    """A reader reads 200 words a minute, and needs 0.15 minutes a cell, 4 a task, and 2 for the questions."""
    cells = read(name).cells
    words = sum(len(cell.source.split()) for cell in cells if cell.cell_type == "markdown")
    tasks = sum("lab.exercise(" in cell.source for cell in code(read(name)))
    asked = any("lab.recall(" in cell.source for cell in cells)
    takes = words / 200 + 0.15 * len(cells) + 4 * tasks + 2 * asked
    claimed = int(re.search(r"^Time: ~(\d+) minutes", cells[0].source, re.MULTILINE)[1])
    assert 0.75 * takes <= claimed <= 1.25 * takes, f"{name} takes {takes:.0f} minutes"
    assert round(takes) <= 25, "more than one sitting: cut what repeats"


@pytest.mark.parametrize("name", NAMES)
def test_the_first_cell_shows_the_steps_and_says_which_are_marked(name):
    first = read(name).cells[0].source
    ((said, file),) = re.findall(r"!\[(.*?)\]\((pictures/.*?\.svg)\)", first)
    if diagram := flow.OTHERS.get(Path(file).stem):
        assert said == f"{diagram.title}. {flow.described(diagram=diagram)}"
    else:
        assert said.startswith("The eleven steps of IRSA")
        assert re.findall(r"\d+", said) == re.findall(r"\d+", file)
    assert "[The eleven steps in words](../README.md#the-eleven-steps)" in first


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_and_the_recap_have_the_same_numbered_points(name):
    notebook = read(name)
    plan, recap = "\n".join(cell.source for cell in notebook.cells[:2]), notebook.cells[-1].source
    numbered = re.compile(r"^(\d)\. ", re.MULTILINE)
    assert "What we will do" in plan and "## Recap" in recap
    assert numbered.findall(plan) == numbered.findall(recap.partition("## Recap")[2])


@pytest.mark.parametrize("name", FIRST)
def test_the_first_thing_happens_within_250_words_and_8_cells(name):
    """A picture, a box (its cell does the same) and what is folded don't count as words."""
    cells = read(name).cells
    place = [cell.id for cell in cells].index(FIRST[name])
    assert cells[place].outputs and place < (10 if name.startswith("00-") else 8)
    before = "\n\n".join(cell.source for cell in cells[:place] if cell.cell_type == "markdown")
    aside = re.compile(r"<details>.*?</details>|```.*?```|!\[.*?\]\(.*?\)", re.DOTALL)
    assert len(aside.sub("", before).split()) <= 250


@pytest.mark.parametrize("name", FIRST)
def test_the_last_exercise_starts_from_an_empty_cell(name):
    *others, last = (cell for cell in code(read(name)) if "exercise" in cell.metadata.get("tags", []))
    for other in others:
        assert copies.split(other.source)[0].splitlines()[:2] != ["# Your code here.", "..."]
    id = re.split(r"\W", name)[0] + "-b"
    assert others and copies.split(last.source)[0] == f'# Your code here.\n...\nlab.check("{id}")'


def test_each_notebook_links_to_the_one_before_and_the_one_after():
    for position, name in enumerate(NAMES):
        before, after = NAMES[max(position - 1, 0) : position], NAMES[position + 1 : position + 2]
        first, *_, last = read(name).cells
        for bar in (first.source.splitlines()[0], last.source.splitlines()[-1]):
            assert re.findall(r"\]\(([^)#]+)", bar) == [*before, "../README.md", *after], name


@pytest.mark.parametrize("name", NAMES)
def test_links_to_files_of_the_project_resolve(name):
    sentences = test_pages.broken(prose(read(name)), FOLDER / name)
    assert not sentences, "\n".join(sentences)


WORDS = re.findall(r"^## (.+)$", (FOLDER / "manual" / "words.md").read_text(), re.MULTILINE)
# Words of the field that the manual's page doesn't explain. The course links each to a page that does.
TERMS = [
    *("hop limit", "metadata service", "dry run", "JWT", "least privilege", "role chaining", "organization"),
    *("association", "session's tags", "eksctl", "papermill", "Dask"),
]


@cache
def texts():
    """The name of the notebook and the text, of each Markdown cell of the course, in order."""
    return [(name, cell.source) for name in NAMES for cell in read(name).cells if cell.cell_type == "markdown"]


@cache
def where_first_used(term):
    """The notebook and the cell in which the course uses a term for the first time."""
    said = re.compile(term.replace("Node role", "node('s)? role").replace("policy", "polic(y|ies)"), re.IGNORECASE)
    # The title's line, the bar of links, the boxes and the targets of links don't count.
    aside = re.compile(r"^#[^\n]*|^[^\n]*\[Contents\][^\n]*|```.*?```|\]\([^)]*\)", re.MULTILINE | re.DOTALL)
    return next((name, source) for name, source in texts() if said.search(aside.sub("", source)))


@pytest.mark.parametrize("word", WORDS)
def test_a_word_is_linked_where_the_course_first_uses_it(word):
    _, source = where_first_used(word)
    assert f"](manual/words.md#{word.lower().replace(' ', '-')})" in source


@pytest.mark.parametrize("term", TERMS)
def test_a_term_of_the_field_is_linked_where_the_course_first_uses_it(term):
    _, source = where_first_used(term)
    assert re.search(rf"\[[^\]]*{term}[^\]]*\]\(https://", source, re.IGNORECASE), source


def test_a_notebook_has_at_most_six_new_terms():
    counts = Counter(where_first_used(term)[0] for term in (*WORDS, *TERMS))
    assert max(counts.values()) <= 6, counts


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_cell_lists_the_lab_s_parameters_and_defaults(name):
    (cell,) = [cell for cell in read(name).cells if "parameters" in cell.metadata.get("tags", [])]
    lines = [f'{n}: str = "{f.default}"  # {f.description}' for n, f in Parameters.model_fields.items()]
    assert cell.source.splitlines() == lines


@pytest.mark.parametrize("name", [name for name in NAMES if name != REPORT])
def test_a_notebook_takes_its_step_with_boto3_or_the_kubernetes_client(name):
    sources = "\n".join(cell.source for cell in code(read(name)))
    assert "labkit.Lab.open(**labkit.parameters())" in sources
    assert "lab.ready(" in sources
    assert "lab.aws.client(" in sources or "CoreV1Api(lab.kubernetes)" in sources
    assert "lab.check(" in sources
    for hidden in (".ensure(", "lab.parameters.target", "lab.connection"):
        assert hidden not in sources


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_imports_only_what_labkit_offers(name):
    for cell in code(read(name)):
        for node in ast.walk(ast.parse(cell.source)):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            modules += [node.module] if isinstance(node, ast.ImportFrom) else []
            inner = next((module for module in modules if module.startswith("labkit.")), None)
            assert not inner, (
                f"{name}, cell {cell.id}: don't import {inner}: give it a method of Lab, or a name in _WHERE of "
                "labkit/__init__.py, and let the cell use that."
            )


def test_the_doctor_notebook_only_looks_and_makes_nothing():
    sources = "\n".join(cell.source for cell in code(read(REPORT)) if not cell.metadata.get("tags"))
    assert "labkit.Lab.look(**labkit.parameters())" in sources
    for making in ("Lab.open(", "lab.ready(", "lab.aws", "lab.kubernetes", "lab.connection"):
        assert making not in sources


@pytest.mark.parametrize("name", NAMES)
def test_outputs_are_stored_in_order_and_without_error(name):
    cells = code(read(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" and output.get("name") != "stderr" for output in outputs)
    assert "widget-view" not in str(outputs)


@pytest.mark.parametrize("name", NAMES)
def test_stored_outputs_hold_no_secret_and_nothing_that_differs_per_run(name):
    for cell in code(read(name)):
        for what, pattern in UNSTABLE.items():
            assert not re.search(pattern, printed(cell)), f"{what} in the output of {cell.id}"


@pytest.mark.parametrize("name", NAMES)
def test_terminal_commands_have_the_form_that_still_works_when_copied(name):
    for fence in fences(read(name)):
        for command in commands(fence):
            assert not command.rstrip().endswith("\\"), command
            assert not re.search(r"(?<![\w-])-(role-name|assume-role-policy-document|policy-arn)\b", command), command
            assert not re.search(r"kubectl apply (?!-)", command), command


@pytest.mark.parametrize("name", RULED)
def test_a_notebook_with_boxes_links_to_the_rule_for_using_them(name):
    assert LINKED in read(name).cells[0].source and RULE not in prose(read(name))
    assert RULE in (FOLDER.parent / "README.md").read_text()


@pytest.mark.parametrize("name", RULED)
def test_no_cell_uses_a_name_from_a_cell_that_a_box_can_replace(name):
    known = {*dir(builtins), "display"}  # IPython adds display
    for before, cell in pairwise(read(name).cells):
        if cell.cell_type == "code" and not changes(before):
            made, used = names(cell.source)
            assert used - made <= known, cell.id
            known |= made


def names(source):
    """The names that a cell defines, and the names that it uses."""
    made, used = set(), set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Name(id=name, ctx=ast.Load()):
                used.add(name)
            case ast.Name(id=name) | ast.FunctionDef(name=name) | ast.arg(arg=name):
                made.add(name)
            case ast.alias(name=name, asname=other):
                made.add(other or name.partition(".")[0])
    return made, used


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_asks_the_lab_for_the_time_and_not_the_machine(name):
    """AWS and the cluster judge by the lab's clock, which may be ahead of the machine's."""
    notebook = read(name)
    given = [*(cell.source for cell in code(notebook)), *fences(notebook)]
    assert [text for text in given if re.search(r"datetime\.now|utcnow|time\.time\(|\bdate [-+]", text)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_that_uses_task_explains_it(name):
    notebook = read(name)
    if any("task = lab.exercise(" in cell.source for cell in code(notebook)):
        assert re.search(r"`task` is ", prose(notebook))


@pytest.mark.parametrize("name", NAMES)
def test_pods_use_an_image_with_a_fixed_tag(name):
    sources = "\n".join(cell.source for cell in code(read(name)))
    named = re.findall(r'"image": "([^"]+)"', sources)
    named += re.findall(r"(?:--image[ =]|\bimage: )(\S+)", "\n".join(fences(read(name))))
    assert [image for image in named if ":" not in image or image.endswith(":latest")] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_stored_block_of_text_is_in_a_monospaced_font(name):
    outputs = [output for cell in code(read(name)) for output in cell.outputs]
    shown = "\n".join(output.get("data", {}).get("text/html", "") for output in outputs)
    assert shown.count("<pre>") == shown.count("<pre><code>"), "JupyterLab and nbconvert: only <code> has them"
