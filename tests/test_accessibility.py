"""What the tests' check of accessibility sees."""

import shutil

import pytest
from playwright.sync_api import sync_playwright

from tests import accessibility

# As Bootstrap's links: a script sets the theme when the browser's changes, and the colour takes a while to follow.
PAGE = """<!DOCTYPE html><html lang="en"><title>t</title><style>
body { background: #fff } a { color: #000; transition: color 1s; }
[data-theme=dark] body { background: #000 } [data-theme=dark] a { color: #fff }
</style><body><main><a href="/">Home</a></main><script>
const dark = matchMedia("(prefers-color-scheme: dark)");
dark.onchange = () => document.documentElement.dataset.theme = dark.matches ? "dark" : "light";
</script></body></html>"""


@pytest.mark.browser
def test_colours_are_compared_after_they_have_changed():
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--disable-gpu"])
        page = chromium.new_page()
        page.set_content(PAGE)
        page.emulate_media(color_scheme="dark")
        assert accessibility.faults(page, "body") == []
        page.add_style_tag(content="[data-theme=dark] a { color: #222 !important }")
        assert len(accessibility.faults(page, "body")) == 1
        chromium.close()
