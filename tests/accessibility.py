"""Faults of accessibility on a page, found by axe: https://github.com/dequelabs/axe-core."""

from pathlib import Path

from playwright.sync_api import Page

from tests.conftest import lacking

AXE = Path(__file__).parent.parent / ".venv" / "book" / "npm" / "node_modules" / "axe-core" / "axe.min.js"
# A colour that changes its theme takes a moment, in which it may have too little contrast.
CHANGED = """async () => {
await new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
const changing = document.getAnimations().filter(each => each instanceof CSSTransition);
await Promise.allSettled(changing.map(each => each.finished));
}"""
RUN = """async within => (await axe.run(within)).violations
.filter(({impact}) => ['serious', 'critical'].includes(impact))
.flatMap(({id, nodes}) => nodes.map(({html}) => `${id}: ${html}`))"""


def faults(page: Page, within: str) -> list[str]:
    """Return the serious faults in the parts of the page that a CSS selector names."""
    if not AXE.exists():
        lacking("axe, with npm:  make book")
    page.evaluate(AXE.read_text())  # also where the page's policy refuses scripts of others
    page.evaluate(CHANGED)
    return page.evaluate(RUN, within)
