"""The folder that installs the lab without a network: which wheels it gets, and what install.py does and refuses."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

OFFLINE = Path(__file__).parent.parent / ".ci/offline"
PYTHON = ".".join(map(str, sys.version_info[:2]))
WHEEL = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
LABKIT = "import sys\nfrom pathlib import Path\ndef main():\n    Path('started').write_text(sys.argv[1])\n"
ENTRY = {"labkit-1.dist-info/entry_points.txt": "[console_scripts]\nlabkit = labkit:main\n"}
spec = importlib.util.spec_from_file_location("build", OFFLINE / "build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def packed_uv(tmp_path_factory) -> Path:
    """Return a wheel with this environment's uv."""
    folder = tmp_path_factory.mktemp("uv")
    (folder / "wheels").mkdir()
    pack(folder, "uv", {"uv-1.data/scripts/uv": Path(sys.prefix, "bin/uv").read_bytes()})
    return folder / "wheels/uv-1-py3-none-any.whl"


@pytest.fixture
def stick(tmp_path, packed_uv) -> Path:
    """Return a folder as `make offline` writes it, with this environment's uv and a small `labkit`."""
    folder = tmp_path / "a stick"
    (folder / "wheels").mkdir(parents=True)
    (folder / "book").mkdir()
    (folder / "book/index.html").write_text("the book")
    (folder / "wheels" / packed_uv.name).hardlink_to(packed_uv)
    pack(folder, "labkit", {"labkit.py": LABKIT, **ENTRY})
    pins = map(build.requirement, (folder / "wheels").iterdir())
    (folder / f"python-{PYTHON}.txt").write_text("".join(pins))
    (folder / "platform.txt").write_text(f"{sys.platform}-{os.uname().machine}\n")
    for name in ("install.py", "install.sh"):
        shutil.copy(OFFLINE / name, folder)
    build.write_checksums(folder)
    return folder


def pack(folder: Path, name: str, files: dict[str, str | bytes]) -> None:
    """Write a wheel with the files."""
    info = f"{name}-1.dist-info"
    files |= {f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n", f"{info}/WHEEL": WHEEL}
    files |= {f"{info}/RECORD": "".join(f"{file},,\n" for file in [*files, f"{info}/RECORD"])}
    with zipfile.ZipFile(folder / "wheels" / f"{name}-1-py3-none-any.whl", "w") as wheel:
        for file, content in files.items():
            wheel.writestr(file, content)


def install(stick: Path, *program: str | Path) -> subprocess.CompletedProcess:
    """Run the folder's install.py, or another program, with a home whose name has spaces."""
    home = stick.parent / "home of me"
    home.mkdir(exist_ok=True)
    command = program or (sys.executable, stick / "install.py")
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": "/nowhere", "UV_OFFLINE": "false"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


def test_the_folder_installs_and_starts_the_lab_without_a_network(stick):
    # This machine seems to have each of them; the folder has wheels for this Python alone.
    for version in build.PYTHONS:
        python = stick.parent / f"python{version}"
        python.write_text(f'#!/bin/sh\nexec {sys.executable if version == PYTHON else "/bin/false"} "$@"\n')
        python.chmod(0o755)
    done = install(stick, "env", f"PATH={stick.parent}:{os.environ['PATH']}", "sh", stick / "install.sh")
    assert done.returncode == 0, done.stderr
    lab = stick.parent / "home of me/irsa-lab"
    assert (lab / "started").read_text() == "up"
    assert sorted(file.name for file in lab.iterdir()) == [".venv", "started"]
    assert done.stdout.endswith(f"  cd '{lab}' && .venv/bin/labkit lab\n")
    mine = lab / "learn/01.ipynb"
    mine.parent.mkdir()
    mine.write_text("mine")
    assert install(stick).returncode == 0 and mine.read_text() == "mine"


def altered(stick: Path) -> None:
    wheel = stick / "wheels/labkit-1-py3-none-any.whl"
    wheel.write_bytes(wheel.read_bytes()[::-1])


BAD = {
    "an altered wheel": (altered, "wheels/labkit-1-py3-none-any.whl was altered or damaged. Copy the whole folder"),
    "half of the files": (
        lambda stick: shutil.rmtree(stick / "wheels"),
        "wheels/labkit-1-py3-none-any.whl is missing.",
    ),
    "no checksums": (lambda stick: (stick / "SHA256SUMS").unlink(), "SHA256SUMS is missing. Copy the whole folder"),
    "another platform": (
        lambda stick: (stick / "platform.txt").write_text("darwin-arm64\n"),
        f"this folder is for darwin-arm64. For this machine, copy the one for {sys.platform}-{os.uname().machine}.",
    ),
    "another Python": (
        lambda stick: (stick / f"python-{PYTHON}.txt").rename(stick / "python-3.99.txt"),
        f"this is Python {PYTHON}. Install Python 3.99, which this folder doesn't contain",
    ),
    "a file where the lab goes": (
        lambda stick: (stick.parent / "home of me/irsa-lab").write_text(""),
        "irsa-lab can't take the lab: File exists. Name another: python3 install.py FOLDER",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_be_installed_is_one_sentence(stick, bad):
    (stick.parent / "home of me").mkdir()
    spoil, sentence = BAD[bad]
    spoil(stick)
    done = install(stick)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert sentence in done.stderr


def test_what_labkit_says_when_it_fails_is_said_whole(stick):
    pack(stick, "labkit", {"labkit.py": "def main(): exit('labkit: port 1 is in use.\\nnext:  labkit up')\n", **ENTRY})
    (stick / f"python-{PYTHON}.txt").write_text("".join(map(build.requirement, (stick / "wheels").iterdir())))
    (stick / "SHA256SUMS").unlink()
    build.write_checksums(stick)
    said = "install.py: labkit up failed: labkit: port 1 is in use.\nnext:  labkit up\n"
    assert install(stick).stderr == said


def test_a_machine_without_python_is_one_sentence(stick):
    (stick / "python-3.99.txt").write_text("")
    done = install(stick, "env", "-C", stick, "PATH=/nowhere", "/bin/sh", "install.sh")
    assert done.returncode == 1
    said = (
        f"install.sh: this machine has no Python 3. Install Python {PYTHON} or 3.99, which this folder doesn't contain."
    )
    assert done.stderr == f"{said}\n"


@pytest.mark.parametrize("python", build.PYTHONS)
@pytest.mark.parametrize("platform", build.PLATFORMS)
def test_each_platform_and_python_gets_its_packages_of_the_lock(platform, python):
    entries = build.locked(build.LOCK.read_text(), build.PLATFORMS[platform][0], python)
    names = [re.match(r"[^=]+", entry)[0] for entry in entries]
    assert len(names) == len({*names}), "one version of each package"
    assert {"labkit", "pytest", "ruff", "jupyterhub", "sphinx"}.isdisjoint(names)
    assert {"moto", "jupyterlab", "distributed"} <= {*names}
    assert ("libfaketime" in names, "appnope" in names) == (platform == "linux-x86_64", platform == "darwin-arm64")
    assert not any(";" in entry for entry in entries)


def test_the_learners_lock_has_the_versions_of_the_developers_lock():
    developers = build.ALL.read_text()
    for entry in build.ENTRY.findall(build.LOCK.read_text()):
        name = re.match(r"[^ ;]+", entry)[0]
        assert re.search(rf"^{re.escape(name)}[ \\]", developers, re.MULTILINE), f"{name}: run make lock"
