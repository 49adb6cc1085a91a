"""`make release` builds a tagged version, and refuses every other checkout in one sentence."""

import hashlib
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
import rattler_build

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYPROJECT = (ROOT / "pyproject.toml").read_text().replace(f'version = "{PROJECT["version"]}"', 'version = "1.2.0"')
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
\t@echo sources > dist/labkit-1.2.0.tar.gz
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
    (tmp_path / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "CHANGELOG.md").write_text(CHANGELOG)
    (tmp_path / "Makefile").write_text(MAKEFILE)
    (tmp_path / ".gitignore").write_text("/dist/\n__pycache__/\n")
    (tmp_path / ".ci").mkdir()
    for name in ("release.py", "recipe.py"):
        shutil.copy(ROOT / ".ci" / name, tmp_path / ".ci")
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
    names = [f"labkit-1.2.0{end}" for end in ("-book.zip", "-notes.md", "-py3-none-any.whl", "-recipe.yaml", ".tar.gz")]
    assert done.stdout.splitlines()[-5:] == [f"dist/{name}" for name in names]
    assert (checkout / "dist" / names[1]).read_text() == "### Added\n\n- A thing.\n"
    with zipfile.ZipFile(checkout / "dist" / names[0]) as book:
        assert book.read("book/index.html") == b"hello\n"


def test_the_recipe_for_conda_forge_is_read_by_its_builder(checkout):
    assert release().returncode == 0
    text = (checkout / "dist/labkit-1.2.0-recipe.yaml").read_text()
    (variant,) = rattler_build.Stage0Recipe.from_yaml(text).render()
    recipe = variant.recipe.to_dict()
    (source,) = recipe["source"]
    assert source["url"] == PROJECT["urls"]["Repository"] + "/releases/download/v1.2.0/labkit-1.2.0.tar.gz"
    assert source["sha256"] == hashlib.sha256(b"sources\n").hexdigest()
    needs = {line.split()[0]: line for line in recipe["requirements"]["run"]}
    assert needs.keys() - {"python"} == (
        {re.match(r"[\w.-]+", line)[0] for line in PROJECT["dependencies"]} - {"kubernetes", "libfaketime"}
    ) | {"python-kubernetes"}
    assert (needs["python"], needs["moto"], needs["pyjwt"]) == ("python >=3.11", "moto >=5.2,<5.3", "pyjwt")


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ('license = "Apache-2.0"', 'license = "Apache 2"', "failed to parse SPDX license"),
        ('"moto>=5.2,<5.3"', '"moto>>5.2"', "unable to parse version spec"),
    ],
)
def test_a_recipe_that_conda_forge_would_refuse_is_not_written(checkout, right, wrong, said):
    (checkout / "pyproject.toml").write_text(PYPROJECT.replace(right, wrong))
    commit()
    git("tag", "--force", "v1.2.0")
    done = release()
    assert done.returncode == 1 and not list(checkout.glob("dist/*recipe*"))
    assert done.stderr.startswith("make release: conda-forge's builder refuses what pyproject.toml has: ")
    assert said in done.stderr


def test_the_badges_are_at_the_repositorys_address():
    repository = PROJECT["urls"]["Repository"].removeprefix("https://github.com/")
    readme = (ROOT / "README.md").read_text()
    assert f"(https://mybinder.org/v2/gh/{repository}/HEAD?" in readme
    assert f"(https://codespaces.new/{repository})" in readme


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
    (checkout / "pyproject.toml").write_text(PYPROJECT.replace("1.2.0", number))
    commit()
    assert refusal() == (
        f"make release: pyproject.toml has version {number}: write it as MAJOR.MINOR.PATCH, such as 1.2.3."
    )


def test_a_folder_without_git_is_refused(checkout):
    shutil.rmtree(checkout / ".git")
    assert refusal().startswith("make release: git status failed: fatal: not a git repository")


def test_this_version_has_changes_and_the_installed_labkit_is_this_version():
    project = PROJECT["version"]
    assert f"\n## {project}\n" in (ROOT / "CHANGELOG.md").read_text(), f"CHANGELOG.md: add a section ## {project}"
    assert version("labkit") == project, "run: make setup"
