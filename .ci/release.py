"""Build a release in dist/: the wheel, the sources, the book as a zip file, the notes, and conda-forge's recipe.

`make release` runs this. Refuse, in one sentence, if the checkout isn't exactly the tagged version.
"""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import rattler_build
import recipe

DIST = Path("dist")


def main() -> None:
    """Check the tag, build, and print the names of the release's files."""
    project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
    version = project["version"]
    if refusal := refused(version):
        sys.exit(f"make release: {refusal}")
    subprocess.run(["make", "--no-print-directory", "wheel", "sdist", "book"], check=True)
    shutil.make_archive(str(DIST / f"labkit-{version}-book"), "zip", DIST, "book")
    (DIST / f"labkit-{version}-notes.md").write_text(notes(version))
    try:
        recipe.write(project, DIST / f"labkit-{version}.tar.gz", DIST / f"labkit-{version}-recipe.yaml")
    except rattler_build.RattlerBuildError as error:
        sys.exit(f"make release: conda-forge's builder refuses what pyproject.toml has: {error}")
    print("\n".join(sorted(str(file) for file in DIST.glob(f"labkit-{version}[-.]*"))))


def refused(version: str) -> str:
    """Return why this checkout can't be released as the version, and what to do; empty if it can."""
    tag = f"v{version}"
    if changed := git("status", "--porcelain").splitlines():
        return f"{changed[0][3:]} differs from the commit: commit it, or run git stash --include-untracked."
    if not re.fullmatch(r"\d+\.\d+\.\d+", version):
        return f"pyproject.toml has version {version}: write it as MAJOR.MINOR.PATCH, such as 1.2.3."
    here = [name for name in git("tag", "--points-at", "HEAD").split() if re.match(r"v\d", name)]
    if here and tag not in here:
        return f"the tag here is {here[0]} and pyproject.toml has version {version}: give both the same number."
    if not notes(version).strip():
        then = f", commit, and run git tag --force {tag}" if here else " and commit."
        return f"CHANGELOG.md has no changes under ## {version}: write them{then}"
    if not here and git("tag", "--list", tag):
        return f"this commit isn't the one of {tag}: run git checkout {tag}, or set the next version in pyproject.toml."
    if not here:
        return f"this commit has no version's tag: run git tag {tag}"
    return ""


def notes(version: str) -> str:
    """Return the CHANGELOG's section of the version, without its heading; empty without such a section."""
    text = Path("CHANGELOG.md").read_text()
    section = re.search(rf"^## {re.escape(version)}(?: [^\n]*)?\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return section[1].strip() + "\n" if section else ""


def git(*arguments: str) -> str:
    """Return what git prints. Exit with git's own message if it fails."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"make release: git {arguments[0]} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    main()
