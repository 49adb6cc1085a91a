"""The files with which a page of the book decides who gets in: Pyodide, labkit's modules, and the widget's page."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PYODIDE = ROOT / ".venv" / "book" / "npm" / "node_modules" / "pyodide"
LOADED = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
WIDGETS = ROOT / "labkit" / "course" / "widgets"
# These modules need no package, so the browser loads nothing else.
MODULES = (
    *("__init__", "errors", "showing", "tokens", "policy/*", "course/__init__"),
    *("course/widgets/__init__", "course/widgets/who_gets_in"),
)


def add_files(app: Any, failed: Exception | None) -> None:
    """Write the files into the built book. Without Pyodide, the book has only the stored verdicts."""
    if failed or not PYODIDE.is_dir():
        return
    static = Path(app.outdir) / "_static"
    (static / "pyodide").mkdir(parents=True, exist_ok=True)
    for name in LOADED:
        shutil.copy(PYODIDE / name, static / "pyodide" / name)
    parts = ("editor/codemirror.js", "element.js", "who_gets_in.js")
    page = "".join((WIDGETS / name).read_text(encoding="utf-8") for name in parts)
    (static / "who_gets_in.js").write_text(page, encoding="utf-8")
    shutil.copy(WIDGETS / "live.css", static / "live.css")
    with zipfile.ZipFile(static / "labkit.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(file for module in MODULES for file in (ROOT / "labkit").glob(f"{module}.py")):
            packed.write(file, file.relative_to(ROOT))
