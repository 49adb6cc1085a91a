"""Sphinx's configuration of the course as a site. `make book` builds it in dist/book.

The folder of sources is the checkout itself, so that one link works on a code host and in the book. Nothing is
executed: the pages show the outputs that are stored in the notebooks.
"""

import sys
from pathlib import Path
from typing import Any

# Sphinx takes these away again, and myst-nb imports `pages` by its name. labkit isn't installed beside Sphinx: what is
# imported of it, from the checkout, needs little more than nbformat.
sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent.parent)]
from alive import PYODIDE, add_files
from pages import add_contents

project = "The IRSA lab"
html_title = project

extensions = ["myst_nb"]
include_patterns = ["*.md", "notebooks/*.ipynb", "notebooks/*.md", "notebooks/manual/*.md"]
exclude_patterns = [".*", "build", "dist", "labkit", "learn", "runs", "tests"]
root_doc = "README"
myst_heading_anchors = 3
nitpicky = True

nb_execution_mode = "off"
nb_custom_formats = {".ipynb": ["pages.for_readers", {}, False]}
nb_ipywidgets_js: dict[str, dict[str, str]] = {}  # by default: require.js and more, from other hosts

html_theme = "furo"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["book.css", "live.css"]
html_js_files = [("book.js", {"defer": "defer"}), ("recorded.js", {"defer": "defer"})]
if PYODIDE.is_dir():
    html_js_files += [("alive.js", {"type": "module"})]
templates_path = ["templates"]
html_additional_pages = {"index": "to-the-front.html"}


def setup(app: Any) -> None:
    """Give the front page its table of contents, and the pages what they run."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", add_files)
