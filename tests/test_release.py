"""`make release` builds a tagged version, and refuses every other checkout in one sentence."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CHANGELOG = """# Changes

## Unreleased

- Later.

## 1.2.0 (2030-01-31)

### Added

- A thing.

## 1.1.0

- Older.
"""
# Stands in for the project's own, which takes long.
MAKEFILE = """wheel:
\t@mkdir -p dist && touch dist/labkit-1.2.0-py3-none-any.whl
sdist:
\t@touch dist/labkit-1.2.0.tar.gz
book:
\t@mkdir -p dist/book && echo hello > dist/book/index.html
"""


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A clean checkout of version 1.2.0 with its tag."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", "/dev/null")
    for name in ("AUTHOR", "COMMITTER"):
        monkeypatch.setenv(f"GIT_{name}_NAME", "A learner")
        monkeypatch.setenv(f"GIT_{name}_EMAIL", "learner@example.com")
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "labkit"\nversion = "1.2.0"\n')
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / ".gitignore").write_text("/dist/\n")
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "release.py", tmp_path / ".ci")
    git("init", "--quiet")
    commit()
    git("tag", "v1.2.0")
    return tmp_path


def git(*arguments):
    subprocess.run(["git", *arguments], check=True, capture_output=True)


def commit():
    git("add", "--all")
    git("commit", "--quiet", "--message", "release")


def release():
    return subprocess.run([sys.executable, ".ci/release.py"], capture_output=True, text=True)


def refusal():
    done = release()
    assert done.returncode == 1 and not done.stdout and not Path("dist").exists()
    (sentence,) = done.stderr.splitlines()
    return sentence


def test_a_release_is_a_wheel_the_book_and_the_notes_of_its_version(checkout):
    done = release()
    assert done.returncode == 0, done.stderr
    names = ["labkit-1.2.0-book.zip", "labkit-1.2.0-notes.md", "labkit-1.2.0-py3-none-any.whl", "labkit-1.2.0.tar.gz"]
    assert done.stdout.splitlines()[-4:] == [f"dist/{name}" for name in names]
    assert (checkout / "dist" / names[1]).read_text() == "### Added\n\n- A thing.\n"
    with zipfile.ZipFile(checkout / "dist" / names[0]) as book:
        assert book.read("book/index.html") == b"hello\n"


def test_a_second_tag_of_another_kind_does_not_matter(checkout):
    git("tag", "reviewed")
    assert release().returncode == 0


@pytest.mark.parametrize("name", ["CHANGELOG.md", "new.py"])
def test_a_changed_or_new_file_is_refused(checkout, name):
    with (checkout / name).open("a") as file:
        file.write("more\n")
    assert refusal() == (
        f"make release: {name} differs from the commit: commit it, or run git stash --include-untracked."
    )


def test_a_commit_after_the_tag_is_refused(checkout):
    (checkout / "more").touch()
    commit()
    assert refusal() == (
        "make release: this commit isn't the one of v1.2.0: run git checkout v1.2.0, "
        "or set the next version in pyproject.toml."
    )


def test_a_commit_without_a_tag_is_refused(checkout):
    git("tag", "--delete", "v1.2.0")
    assert refusal() == "make release: this commit has no version's tag: run git tag v1.2.0"


def test_a_tag_of_another_version_is_refused(checkout):
    git("tag", "--delete", "v1.2.0")
    git("tag", "v1.3.0")
    assert refusal() == (
        "make release: the tag here is v1.3.0 and pyproject.toml has version 1.2.0: give both the same number."
    )


@pytest.mark.parametrize(
    "text", ["# Changes\n\n## 1.1.0\n\n- Older.\n", "# Changes\n\n## 1.2.0\n\n## 1.1.0\n\n- Older.\n"]
)
def test_a_version_without_changes_is_refused(checkout, text):
    (checkout / "CHANGELOG.md").write_text(text)
    commit()
    git("tag", "--force", "v1.2.0")
    assert refusal() == (
        "make release: CHANGELOG.md has no changes under ## 1.2.0: write them, commit, and run git tag --force v1.2.0"
    )


def test_a_version_without_changes_is_refused_before_its_tag_is_asked_for(checkout):
    git("tag", "--delete", "v1.2.0")
    (checkout / "CHANGELOG.md").write_text("# Changes\n")
    commit()
    assert refusal() == "make release: CHANGELOG.md has no changes under ## 1.2.0: write them and commit."


@pytest.mark.parametrize("number", ["0.3", "1.2.3.4", "1.2.0rc1"])
def test_a_version_without_three_numbers_is_refused(checkout, number):
    (checkout / "pyproject.toml").write_text(f'[project]\nname = "labkit"\nversion = "{number}"\n')
    commit()
    assert refusal() == (
        f"make release: pyproject.toml has version {number}: write it as MAJOR.MINOR.PATCH, such as 1.2.3."
    )


def test_a_folder_without_git_is_refused(checkout):
    shutil.rmtree(checkout / ".git")
    assert refusal().startswith("make release: git status failed: fatal: not a git repository")


def test_this_version_has_changes_and_the_installed_labkit_is_this_version():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"\n## {project}\n" in (ROOT / "CHANGELOG.md").read_text(), f"CHANGELOG.md: add a section ## {project}"
    assert version("labkit") == project, "run: make setup"
