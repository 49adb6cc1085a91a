"""Write dist/offline/: a folder for each platform that installs the lab without a network. `make offline` runs this.

A folder has the wheels of requirements.lock beside this file for each Python, the book, install.py and checksums.
"""

import argparse
import hashlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

HERE = Path(__file__).parent
LOCK = HERE / "requirements.lock"
ALL = HERE.parent.parent / "requirements.lock"  # has uv, which installs
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = range(5, 29)  # from 2.5 to 2.28, which Debian 10, Ubuntu 20.04 and RHEL 8 have
MACOS = 12
# The names as install.py finds them, each with its markers' values and the platforms of its wheels.
# https://packaging.python.org/en/latest/specifications/platform-compatibility-tags/
PLATFORMS = {
    f"linux-{machine}": (
        {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": machine, "os_name": "posix"},
        [*(f"manylinux_2_{minor}_{machine}" for minor in GLIBC), f"manylinux2014_{machine}"],
    )
    for machine in ("x86_64", "aarch64")
} | {
    "darwin-arm64": (
        {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64", "os_name": "posix"},
        [f"macosx_{MACOS}_0_arm64"],
    )
}
ENTRY = re.compile(r"^\S+==[^\n\\]+(?: \\\n    --hash=\S+)+", re.MULTILINE)
MOST = 200_000_000  # bytes, for one Python


def main() -> None:
    """Build the folders of the platforms and Pythons that are asked for, and print their sizes."""
    asked = argparse.ArgumentParser()
    asked.add_argument("--platform", action="append", choices=PLATFORMS)
    asked.add_argument("--python", action="append", choices=PYTHONS)
    options = asked.parse_args()
    (labkit,) = Path("dist").glob("labkit-*.whl")
    version = str(parse_wheel_filename(labkit.name)[1])
    for platform in options.platform or PLATFORMS:
        folder = Path("dist/offline") / f"labkit-{version}-{platform}"
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "wheels").mkdir(parents=True)
        for python in options.python or PYTHONS:
            size = add_wheels(folder, platform, python, labkit)
            print(f"{folder.name}, Python {python}: {size / 1e6:.0f} MB", flush=True)
            if size > MOST:
                sys.exit(f"make offline: {folder.name} has more than {MOST / 1e6:.0f} MB for Python {python}.")
        (folder / "platform.txt").write_text(f"{platform}\n")
        for file in ("install.py", "install.sh"):
            shutil.copy(HERE / file, folder)
        shutil.copytree("dist/book", folder / "book")
        write_checksums(folder)
        print(f"{folder}: {sum(file.stat().st_size for file in folder.rglob('*')) / 1e6:.0f} MB")


def add_wheels(folder: Path, platform: str, python: str, labkit: Path) -> int:
    """Download the wheels for one Python, and list them with their hashes; return their size in bytes."""
    values, tags = PLATFORMS[platform]
    new = folder / python
    new.mkdir()
    wanted = new / "wanted.txt"
    wanted.write_text("\n".join(locked(LOCK.read_text(), values, python) + pinned_uv()))
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
        "--implementation=cp",
        f"--python-version={python}",
    ]
    platforms = [f"--platform={tag}" for tag in tags]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    if subprocess.run([*pip, *options, *platforms, f"--dest={new}", f"--requirement={wanted}"]).returncode:
        sys.exit(f"make offline: a wheel for {platform} and Python {python} could not be downloaded.")
    shutil.copy(labkit, new)
    wheels = sorted(new.glob("*.whl"))
    (folder / f"python-{python}.txt").write_text("".join(map(requirement, wheels)))
    size = sum(wheel.stat().st_size for wheel in wheels)
    for wheel in wheels:
        wheel.replace(folder / "wheels" / wheel.name)
    shutil.rmtree(new)
    return size


def locked(lock: str, values: dict[str, str], python: str) -> list[str]:
    """Return the lock's entries for a platform and a Python, without their markers."""
    environment = default_environment() | values | {"python_version": python, "python_full_version": f"{python}.0"}
    entries = [(Requirement(entry.split("\\")[0]), entry) for entry in ENTRY.findall(lock)]
    return [
        re.sub(r" ;[^\\]*", " ", entry, count=1)
        for parsed, entry in entries
        if parsed.marker is None or parsed.marker.evaluate(environment)
    ]


def pinned_uv() -> list[str]:
    """Return uv's entry of the lock for developers: learners don't need uv once the lab is installed."""
    return [entry for entry in ENTRY.findall(ALL.read_text()) if entry.startswith("uv==")]


def requirement(wheel: Path) -> str:
    """Return a wheel's line for `uv pip install --require-hashes`; for uv itself, a comment."""
    name, version, *_ = parse_wheel_filename(wheel.name)
    return f"{'# ' * (name == 'uv')}{name}=={version} --hash=sha256:{digest(wheel)}\n"


def write_checksums(folder: Path) -> None:
    """Write what `sha256sum --check` reads, for each file of the folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    lines = [f"{digest(file)}  {file.relative_to(folder).as_posix()}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(lines))


def digest(file: Path) -> str:
    """Return the file's SHA-256, in hexadecimal."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
