"""Install the IRSA lab from this folder, without a network, and start it:  python3 install.py [FOLDER]

The lab goes into FOLDER, or into irsa-lab in your home. Notebooks that you have there in learn/ stay as they are.
Needs no package. Python 3.6 and newer can read this program, so that an old Python gets a sentence, too.
"""

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
PYTHON = ".".join(map(str, sys.version_info[:2]))
PLATFORM = f"{sys.platform}-{platform.machine()}"  # such as linux-x86_64; its folder's name ends with it


def main() -> None:
    """Check this machine and the files, install, and start the lab."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "~/irsa-lab").expanduser().absolute()
    refusal = refused_by_machine() or refused_by_files()
    if refusal:
        sys.exit(f"install.py: {refusal}")
    print(f"Installing the lab in {folder} …", flush=True)
    try:
        install(folder)
    except OSError as error:
        sys.exit(f"install.py: {folder} can't take the lab: {error.strerror}. Name another: python3 install.py FOLDER")
    run([folder / ".venv/bin/labkit", "up"], folder, "labkit up")
    print(f"Ready. This opens JupyterLab:\n  cd {shlex.quote(str(folder))} && .venv/bin/labkit lab")


def refused_by_machine() -> str:
    """Return why this Python or machine can't use the folder, and what to do; empty if it can."""
    pythons = sorted((file.stem[7:] for file in HERE.glob("python-3.*.txt")), key=lambda name: int(name[2:]))
    if pythons and PYTHON not in pythons:
        needed = " or ".join(pythons)
        return f"this is Python {PYTHON}. Install Python {needed}, which this folder doesn't contain, and use that."
    made_for = (HERE / "platform.txt").read_text().strip() if (HERE / "platform.txt").exists() else PLATFORM
    if made_for != PLATFORM:
        return f"this folder is for {made_for}. For this machine, copy the one for {PLATFORM}."
    if sys.platform == "linux" and platform.libc_ver()[0] != "glibc":
        return "this Linux has another C library than glibc. Use a Debian, Ubuntu, Fedora or RHEL, or WSL."
    return ""


def refused_by_files() -> str:
    """Return which file is missing or was altered, and what to do; empty if all that this Python needs are whole."""
    sums, pins = HERE / "SHA256SUMS", HERE / f"python-{PYTHON}.txt"
    for file in (sums, pins):
        if not file.is_file():
            return f"{file.name} is missing. Copy the whole folder again."
    for line in sums.read_text().splitlines():
        digest, name = line.split("  ", 1)
        if name.startswith("book/") or (name.startswith("wheels/") and digest not in pins.read_text()):
            continue
        if not (HERE / name).is_file():
            return f"{name} is missing. Copy the whole folder again."
        if hashlib.sha256((HERE / name).read_bytes()).hexdigest() != digest:
            return f"{name} was altered or damaged. Copy the whole folder again."
    return ""


def install(folder: Path) -> None:
    """Make the folder's virtual environment from the wheels."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = folder / ".venv"
    if (environment / "bin" / "labkit").exists():
        run([environment / "bin" / "labkit", "down"], folder, "labkit down")
    # Beside the environment, so that uv can link its files instead of copying them.
    with tempfile.TemporaryDirectory(dir=str(folder)) as temporary:
        uv = unpacked_uv(Path(temporary))
        options = ["--quiet", "--no-config", "--offline", "--cache-dir", Path(temporary, "cache")]
        run([uv, "venv", *options, "--clear", "--python", sys.executable, environment], folder, "uv venv")
        pins = ["--require-hashes", "--requirement", HERE / f"python-{PYTHON}.txt"]
        wheels = ["--no-index", "--no-deps", "--find-links", HERE / "wheels"]
        python = ["--python", environment / "bin" / "python"]
        run([uv, "pip", "install", *options, *python, *wheels, *pins], folder, "uv pip install")


def unpacked_uv(folder: Path) -> Path:
    """Take the program uv out of its wheel, which installs much faster than pip."""
    (wheel,) = (HERE / "wheels").glob("uv-*.whl")
    with zipfile.ZipFile(str(wheel)) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/scripts/uv"))
        with archive.open(name) as packed, (folder / "uv").open("wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)
    (folder / "uv").chmod(0o755)
    return folder / "uv"


def run(command: list, folder: Path, name: str) -> None:
    """Run a command in the lab's folder. Exit with what it printed if it fails."""
    hidden = ("PYTHON", "UV_", "VIRTUAL_ENV")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(hidden)}
    words = [str(word) for word in command]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "universal_newlines": True}
    done = subprocess.run(words, cwd=str(folder), env=environment, stdin=subprocess.DEVNULL, **output)
    if done.returncode:
        sys.exit(f"install.py: {name} failed: {done.stdout.strip() or f'exit code {done.returncode}'}")


if __name__ == "__main__":
    main()
