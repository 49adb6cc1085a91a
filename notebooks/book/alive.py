"""The files with which the book's pages run the widgets: the widgets' own pages, and Pyodide with labkit's modules."""

import shutil
import zipfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PYODIDE = ROOT / ".venv" / "book" / "npm" / "node_modules" / "pyodide"
LOADED = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "pyodide-lock.json", "python_stdlib.zip")
WIDGETS = ROOT / "labkit" / "course" / "widgets"
# The widgets' own functions that a script of the book uses.
SCRIPTS = {"book.js": ["element.js"], "recorded.js": ["element.js", "watch.js"]}
EXPORTED = "export default { render };\n"
# These modules need no package, so the browser loads nothing else.
MODULES = (
    *("__init__", "errors", "showing", "tokens", "policy/*", "course/__init__"),
    *("course/widgets/__init__", "course/widgets/who_gets_in"),
)


def add_files(app: Any, failed: Exception | None) -> None:
    """Write the files into the built book. Without Pyodide, the book has only the stored verdicts."""
    if failed:
        return
    static = Path(app.outdir) / "_static"
    shutil.copy(WIDGETS / "live.css", static / "live.css")
    # A browser loads no module from a file, so each of these becomes a script.
    for name, parts in SCRIPTS.items():
        before = "".join((WIDGETS / part).read_text(encoding="utf-8") for part in parts).replace(EXPORTED, "")
        script = static / name
        script.write_text(f"{{\n{before}{script.read_text(encoding='utf-8')}}}\n", encoding="utf-8")
    if not PYODIDE.is_dir():
        return
    (static / "pyodide").mkdir(parents=True, exist_ok=True)
    for name in LOADED:
        shutil.copy(PYODIDE / name, static / "pyodide" / name)
    parts = ("editor/codemirror.js", "element.js", "who_gets_in.js")
    page = "".join((WIDGETS / name).read_text(encoding="utf-8") for name in parts)
    (static / "who_gets_in.js").write_text(page, encoding="utf-8")
    with zipfile.ZipFile(static / "labkit.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for file in sorted(file for module in MODULES for file in (ROOT / "labkit").glob(f"{module}.py")):
            packed.write(file, file.relative_to(ROOT))
