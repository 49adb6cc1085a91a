"""The contents page shows the course, your progress and the next step. No link in learn/ is broken."""

import re
import shutil

import nbformat
import pytest

from labkit.cli import learning
from labkit.course import contents, exercises, lessons
from labkit.course.progress import NAME, VARIABLE, kept
from labkit.errors import LabError
from tests.notebooks.books import FOLDER, NAMES, prose

PAGES = [page.relative_to(FOLDER).as_posix() for page in [*FOLDER.glob("*.md"), *FOLDER.glob("manual/*.md")]]
LINK = re.compile(r"\]\((?!https://)([^)#]*)(?:#([^)]+))?\)")


@pytest.fixture(scope="module")
def learn(tmp_path_factory):
    """The learner's folder as in an installation without a checkout: no project files beside it."""
    folder = tmp_path_factory.mktemp("wheel") / "learn"
    learning.copy_notebooks(folder)
    return folder


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv(VARIABLE, str(tmp_path / NAME))
    return tmp_path / NAME


def page(folder):
    return nbformat.read(folder / contents.NAME, as_version=4)


def shown(folder):
    ((output,),) = [cell.outputs for cell in page(folder).cells if cell.id == "progress"]
    return output.data["text/markdown"]


def questions(number):
    return [*lessons.of_notebook(number).predictions, *lessons.recall(number)]


def do_all_of(number):
    for each in exercises.of_notebook(number):
        kept("tried", each.id)
    for each in questions(number):
        kept("answered", each.id)
    if number in contents.STEPS:
        kept("step", contents.STEPS[number])


@pytest.mark.parametrize("name", [*NAMES, contents.NAME, *PAGES])
def test_every_link_in_learn_leads_to_an_existing_file_and_heading(learn, name):
    links = LINK.findall(text(learn / name) + (shown(learn) if name == contents.NAME else ""))
    assert links or name.startswith("manual/")
    for path, anchor in links:
        target = (learn / name).parent / path if path else learn / name
        assert "/.." not in f"/{path}" and target.is_file(), path
        if anchor:
            headings = re.findall(r"^#+ (.+)$", text(target), re.M)
            # https://github.com/jupyterlab/jupyterlab/blob/main/packages/rendermime/src/renderers.ts
            assert anchor in [heading.replace(" ", "-") for heading in headings], anchor


def text(file):
    if file.suffix == ".md":
        return file.read_text()
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    return prose(notebook)


def test_the_contents_page_lists_each_notebook_and_starts_with_the_first(learn):
    told = shown(learn)
    assert re.findall(r"^\| \[.+?\]\((.+?)\) \| .+? \| ~\d+ minutes[^|]* \|  \|$", told, re.M) == NAMES
    assert told.startswith("**Next:** [00 The problem](00-the-problem.ipynb), ~24 minutes.\n")
    assert "`labkit lab` writes it again at each start." in prose(page(learn))


def test_bars_show_how_much_is_done(file):
    def told():
        return contents.read()._repr_markdown_()

    bar = '<progress value="{}" title="{}"></progress>'
    assert f"\n\n{bar.format('0.00', 'the course')} 0 of 19 notebooks done\n\n" in told()
    do_all_of("00")
    kept("tried", "01-a")
    assert " 1 of 19 notebooks done\n\n" in told()
    assert re.search(r"^\| \[00 .* \| ✓ exercises", told(), re.M)
    assert f"| {bar.format('0.11', '01 OIDC provider')}<br>exercises 1 of" in told()


def test_the_contents_page_counts_every_exercise_and_question(file):
    for number in lessons.FILES:
        do_all_of(number)
    done = [each.done for each in contents.read().chapters if re.split(r"\W", each.name)[0] in lessons.FILES]
    for number, counts in zip(lessons.FILES, done, strict=True):
        totals = {"exercises": len(exercises.of_notebook(number)), "questions": len(questions(number))}
        told = ", ".join(f"{name} {count} of {count}" for name, count in totals.items() if count)
        assert counts.startswith(f"✓ {told}"), number


def test_the_next_step_is_the_first_unfinished_one(file):
    def told():
        return contents.read().next

    do_all_of("00")
    assert told() == "[01 OIDC provider](01-oidc-provider.ipynb), ~24 minutes."
    kept("examined", "98-examination")
    assert told() == "[01 OIDC provider](01-oidc-provider.ipynb), ~24 minutes."
    do_all_of("01")
    kept("opened", "02-a")
    assert told() == "exercise 02-a in [02 IAM role](02-iam-role.ipynb)."
    do_all_of("02")
    assert told() == "[03 Service account](03-service-account.ipynb), ~22 minutes."
    of_exercises, of_questions = exercises.of_notebook("03"), len(questions("03"))
    kept("tried", "03-a", right=False)
    kept("tried", "03-a")
    for each in of_exercises[1:]:
        assert told() == f"exercise {each.id} in [03 Service account](03-service-account.ipynb)."
        kept("tried", each.id)
    assert told() == '`lab.check("service_account")` in [03 Service account](03-service-account.ipynb).'
    kept("step", "service_account")
    assert told() == f"{of_questions} questions in [03 Service account](03-service-account.ipynb)."
    (third,) = [each.done for each in contents.read().chapters if each.name.startswith("03")]
    done = f"exercises {len(of_exercises)} of {len(of_exercises)}"
    assert third == f"{done}, questions 0 of {of_questions}, step checked"


def test_the_contents_page_shows_the_progress_at_the_next_start(learn, tmp_path, monkeypatch):
    mine = tmp_path / "learn"
    shutil.copytree(learn, mine)
    monkeypatch.setenv(VARIABLE, str(mine / NAME))
    kept("opened", "00-a")
    assert learning.copy_notebooks(mine) == []
    assert "**Next:** exercise 00-a in [00 The problem]" in shown(mine)


def test_labkit_lab_keeps_the_learner_s_own_jupyterlab_layout(learn, tmp_path):
    mine = tmp_path / "learn"
    shutil.copytree(learn, mine)
    layout = mine / learning.LAYOUTS / learning.LAYOUT
    layout.write_text("{}")
    learning.copy_notebooks(mine)
    assert layout.read_text() == "{}"


def test_the_contents_page_mentions_broken_progress_in_one_sentence(learn, tmp_path, file):
    file.write_bytes(b"\xff{]\n")
    told = contents.read()._repr_markdown_()
    assert told.endswith("not counted: 1 line of progress.jsonl (broken, or written by another version of labkit)")
    file.unlink()
    file.mkdir()
    assert "not counted: 1 line" in contents.read()._repr_markdown_()


def test_copying_the_notebooks_to_a_read_only_disk_fails_with_one_sentence(learn, tmp_path, monkeypatch):
    def read_only(path, content):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(learning, "_write", read_only)
    with pytest.raises(
        LabError, match=r"^The notebooks could not be copied to .*/learn: Read-only file system\.\nnext: "
    ):
        learning.copy_notebooks(learn)
