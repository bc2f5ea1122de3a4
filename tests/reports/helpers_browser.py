"""A page open in a real Chromium: fixtures to import, and how a reader moves in it."""

import json
import shutil

import pytest
from helpers_page import ASSETS, HOSTILE, headings, make, write_board

from harness import page as pages

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
COLUMNS = [h.key for h in headings()]
WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (e) => window.broken.push(e.violatedDirective));
"""


@pytest.fixture(scope="module")
def browser():
    """One Chromium for the tests of a module; they are skipped where it or playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine")
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A page of two families; the first responses to `gsm` attack it, and so do a label and the notes."""
    results = tmp_path_factory.mktemp("results")
    other, beside = make(results, family="other")
    other.rows = other.rows[:3]
    write_board(other, beside)
    board, report = make(results, texts=HOSTILE)
    board.footnotes += HOSTILE[:12] + ["lone \ud800 surrogate"]
    figures = report / "figures"
    figures.mkdir()
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="90" height="60" onload="window.hit=9">'
    (figures / "cost.svg").write_text(svg + "<script>parent.hit=9</script></svg>")
    spec = {"data": [{"type": "scatter", "x": [1, 2], "y": [2, 1], "name": HOSTILE[2]}],
            "layout": {"title": {"text": HOSTILE[4]}}}  # fmt: skip
    (figures / "cost.json").write_text(json.dumps(spec))
    return pages.write(board, report, ASSETS)[0]


@pytest.fixture
def opened(browser):
    """`opened(path, **context)` opens a page; what no page may do is checked when the test ends."""
    seen, problems = [], []

    def show(path, **given):
        context = browser.new_context(viewport=given.pop("viewport", {"width": 1280, "height": 860}), **given)
        context.add_init_script(WATCH)
        tab = context.new_page()
        tab.set_default_timeout(20_000)
        tab.on("console", lambda m: m.type in ("error", "warning") and problems.append(m.text))
        tab.on("pageerror", lambda e: problems.append(str(e)))
        tab.on("dialog", lambda d: problems.append(f"dialog {d.message}"))
        tab.on("request", lambda r: r.url.startswith(("file:", "data:", "blob:")) or problems.append(r.url))
        tab.goto(path if isinstance(path, str) else path.as_uri())
        seen.append(tab)
        return tab

    show.problems = problems
    yield show
    for tab in seen:
        assert tab.evaluate("[window.hit ?? null, window.broken]") == [None, []]
        tab.context.close()
    assert problems == []


def labels(tab):
    return tab.locator("tbody .label").all_inner_texts()


def cell(tab, row, column):
    return tab.locator(f'[data-at="{row}\\a {COLUMNS[column]}"]')


def focused(tab):
    return tab.evaluate("document.activeElement.dataset.at ?? document.activeElement.className")


def samples(tab, row, column):
    cell(tab, row, column).click()
    tab.get_by_role("tab", name="Samples").click()
    tab.locator(".question").first.wait_for()
