"""The page in a real Chromium, opened from disk, as a reader uses it. What it must never do is checked on
every page: run a script of a model, break its policy, ask a network, leave an error in the console."""

import json
import re
import shutil

import pytest
from helpers_page import ASSETS, HOSTILE, LABELS, headings, make, write_board

from harness import page as pages

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

COLUMNS = [h.key for h in headings()]
WATCH = """
window.broken = [];
document.addEventListener("securitypolicyviolation", (e) => window.broken.push(e.violatedDirective));
"""


@pytest.fixture(scope="module")
def browser():
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


def test_marks_are_the_boards(site, opened):
    tab = opened(site)
    assert labels(tab) == LABELS
    assert cell(tab, "ReasonAny", 0).locator("strong").inner_text() == "75.0"
    assert cell(tab, "ReasonAny", 0).locator("sup").first.inner_text() == "a"
    assert "paper 86.3 (−11.3)" in cell(tab, "ReasonAny", 0).inner_text()
    assert (
        cell(tab, "ReasonAny", 0)
        .get_by_role("img")
        .get_attribute("aria-label")
        .startswith("significantly better")
    )
    assert cell(tab, "Linear", 0).locator("u").inner_text() == "50.0"
    assert cell(tab, "TIES", 0).locator("em").inner_text() == "0.0*"
    assert tab.locator("tbody th sup").all_inner_texts() == ["†", "‡"]
    assert cell(tab, LABELS[5], 3).inner_text() == "–"
    assert tab.locator("#notes").inner_text().count("a: another data revision") == 1


def test_sorting_by_click_and_what_stays_where(site, opened):
    tab = opened(site)
    head = tab.get_by_role("columnheader", name="GSM8K")
    assert head.get_attribute("aria-sort") == "none"
    head.click()
    assert labels(tab) == ["reasoning", "base", "ReasonAny", "Linear", LABELS[5], "TIES"]  # collapsed last
    assert tab.get_by_role("columnheader", name="GSM8K").get_attribute("aria-sort") == "descending"
    tab.get_by_role("columnheader", name="GSM8K").click()
    assert labels(tab)[:3] == ["base", "reasoning", "Linear"] and labels(tab)[-1] == "TIES"
    tab.get_by_role("columnheader", name="GSM8K").click()
    assert labels(tab) == LABELS
    tab.get_by_role("columnheader", name="PPL").click()  # lower is better; infinity, then what was not run
    assert labels(tab)[-2:] == ["TIES", LABELS[5]]
    assert tab.get_by_role("columnheader", name="PPL").get_attribute("aria-sort") == "ascending"
    tab.get_by_text("Show", exact=True).click()
    tab.get_by_label("references on top").uncheck()
    tab.keyboard.press("Escape")
    tab.get_by_role("columnheader", name="GSM8K").click()
    assert labels(tab)[:2] == ["reasoning", "ReasonAny"]


def test_filters_and_columns(site, opened):
    tab = opened(site)
    tab.keyboard.press("/")
    tab.keyboard.type("reason")
    assert labels(tab) == ["reasoning", "ReasonAny"]
    assert tab.locator("#count").inner_text().startswith("2 of 6 rows")
    tab.get_by_label("Filter rows").fill("")
    tab.get_by_text("Rows", exact=True).click()
    tab.get_by_label("base", exact=True).uncheck()
    tab.get_by_label("ties", exact=True).uncheck()
    assert labels(tab) == ["reasoning", "Linear", "ReasonAny", LABELS[5]]
    tab.locator(".menu[open]").get_by_role("button", name="none").click()
    assert labels(tab) == ["reasoning"]
    tab.keyboard.press("Escape")
    assert (
        tab.locator(".menu[open]").count() == 0
        and tab.evaluate("document.activeElement.tagName") == "SUMMARY"
    )
    tab.get_by_text("Columns", exact=True).click()
    tab.locator(".menu[open] fieldset", has_text="Reasoning").get_by_role("button", name="none").click()
    assert tab.locator("thead tr").nth(1).inner_text().split("\n")[0].split("\t")[:2] == ["model", "ARC ↑"]
    assert tab.locator(".groups th").all_inner_texts() == ["Knowledge", "Safety", "Perplexity"]


def test_what_stands_beside_a_value(site, opened):
    tab = opened(site)
    assert "±5.0" in cell(tab, "ReasonAny", 0).inner_text()
    tab.get_by_text("Show", exact=True).click()
    tab.get_by_label("95 % interval").check()
    assert "37.5 – 100.0" in cell(tab, "ReasonAny", 0).inner_text()
    tab.get_by_label("the paper's numbers").uncheck()
    tab.get_by_label("▲▼ against the baseline").uncheck()
    tab.get_by_label("value alone").check()
    assert cell(tab, "ReasonAny", 0).inner_text().strip() == "75.0a"
    tab.get_by_label("tint by value").check()
    assert tab.locator(".shaded").count() > 0


def test_tooltips_on_hover_and_on_focus(site, opened):
    tab = opened(site)
    cell(tab, "ReasonAny", 0).hover()
    tip = tab.get_by_role("tooltip")
    tip.wait_for()
    told = tip.inner_text()
    for part in (
        "37.5 – 100.0",
        "n\n20",
        "p < 0.001",
        "Holm = 0.004",
        "scale=0.3",
        "another table prints 0.84",
    ):
        assert part in told
    tab.keyboard.press("Escape")
    assert not tip.is_visible()
    tab.locator("thead [tabindex='0'], tbody [tabindex='0']").focus()
    tab.keyboard.press("ArrowRight")
    assert tip.is_visible() and "base" in tip.inner_text()


def test_a_cell_tells_where_it_comes_from(site, opened):
    tab = opened(site, permissions=["clipboard-read", "clipboard-write"])
    cell(tab, "ReasonAny", 2).click()
    panel = tab.get_by_role("dialog")
    panel.get_by_text("models/m4/evals/harm--judge--89abcdef").wait_for()
    panel.locator("summary", has_text="recipe.yaml").first.click()
    assert "JudgeRecipe" in panel.inner_text()
    panel.get_by_role("button", name="copy").click()
    panel.get_by_role("button", name="copied").wait_for()
    assert tab.evaluate("navigator.clipboard.readText()") == "harness compare --methods reasonany"


def test_the_same_question_side_by_side(site, opened):
    tab = opened(site)
    samples(tab, "ReasonAny", 0)
    assert tab.get_by_label("B", exact=True).input_value() == "base"
    tab.get_by_label("Which questions").select_option(label="A right, B wrong")
    assert tab.locator(".samples .count").inner_text() == "10 of 20 questions"
    assert tab.locator(".question .id").all_inner_texts() == [str(i) for i in range(20) if i % 4 in (1, 2)]
    tab.get_by_label("Search").fill("PONDERS 18")
    tab.get_by_text("1 of 20 questions", exact=True).wait_for()
    cards = tab.locator(".answer")
    assert cards.locator(".label").all_inner_texts()[:2] == ["ReasonAny", "base"]
    assert cards.first.inner_text().startswith("A") and "✓ right" in cards.first.inner_text()
    assert "✗ wrong" in cards.nth(1).inner_text() and "answer 18" in cards.nth(1).inner_text()
    thinking = cards.first.locator(".thinking")
    assert thinking.get_attribute("open") is None and "ponders" not in cards.first.inner_text()
    thinking.locator("summary").click()
    thinking.get_by_text("ReasonAny ponders 18").wait_for()
    tab.get_by_label("only A and B").check()
    assert cards.count() == 2
    tab.get_by_label("B", exact=True).select_option("Linear")
    tab.get_by_label("Which questions").select_option(label="A wrong, B right")
    tab.get_by_text("No question is left").wait_for()


def test_judged_chosen_and_likely(site, opened):
    tab = opened(site)
    samples(tab, "ReasonAny", 2)  # attacks: 0 is right, for low is good
    assert tab.locator(".answer").first.inner_text().count("✓ right") == 1
    tab.locator(".answer summary", has_text="judge on the answer").first.click()
    assert "verdict 0 <b>" in tab.locator(".answer").first.inner_text()
    tab.keyboard.press("Escape")
    samples(tab, "ReasonAny", 1)
    assert "yes\n-1.00 · chosen · expected" in tab.locator(".answer").first.inner_text()
    tab.keyboard.press("Escape")
    samples(tab, "ReasonAny", 3)
    assert "5" in tab.locator(".answer .verdict").first.inner_text()
    assert tab.get_by_label("Which questions").locator("option").all_inner_texts()[1] == "A better than B"


def test_all_of_it_by_keyboard(site, opened):
    tab = opened(site)
    for _ in range(20):
        tab.keyboard.press("Tab")
        if "\n" in focused(tab):
            break
    assert focused(tab) == "base\nlabel"
    tab.keyboard.press("ArrowUp")
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    assert labels(tab)[2] == "ReasonAny" and focused(tab) == "head\ngsm/accuracy"
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for _ in range(3):
        tab.keyboard.press("ArrowDown")
    assert focused(tab) == "ReasonAny\ngsm/accuracy"
    tab.keyboard.press("Enter")
    assert tab.evaluate("document.activeElement.textContent") == "Where it comes from"
    tab.keyboard.press("ArrowRight")
    tab.locator(".question").first.wait_for()
    for _ in range(10):
        tab.keyboard.press("Tab")
        if focused(tab) == "list":
            break
    tab.keyboard.press("End")
    assert tab.locator(".question[aria-selected=true] .id").inner_text() == "19"
    tab.keyboard.press("ArrowUp")
    tab.get_by_role("heading", name="question 18").wait_for()
    tab.keyboard.press("Enter")
    assert focused(tab) == "detail"
    tab.keyboard.press("Escape")
    assert not tab.get_by_role("dialog").is_visible()
    assert focused(tab) == "ReasonAny\ngsm/accuracy"
    tab.keyboard.press("Control+End")
    assert focused(tab).endswith("prose/word_perplexity")


def test_an_address_opens_what_it_names(site, opened):
    tab = opened(site)
    samples(tab, "Linear", 0)
    tab.locator(".question").nth(3).click()
    tab.get_by_role("heading", name="question 3").wait_for()
    address = tab.url
    assert "item=3" in address
    tab.keyboard.press("Escape")
    tab.wait_for_function("!location.hash")
    again = opened(address)
    again.get_by_role("heading", name="question 3").wait_for()
    assert again.locator("#panel-title").inner_text() == "Linear GSM8K ↑"
    opened(site.as_uri() + "#row=nobody&column=__proto__&item=x")


def test_a_narrow_screen_never_scrolls_sideways(site, opened):
    tab = opened(site, viewport={"width": 400, "height": 800})
    width = "Math.max(document.documentElement.scrollWidth, document.body.scrollWidth)"
    assert tab.evaluate(width) <= 400
    for name in ("Rows", "Columns", "Show"):
        tab.get_by_text(name, exact=True).click()
        box = tab.locator(".menu[open] .menu-body").bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400
        tab.keyboard.press("Escape")
    samples(tab, "ReasonAny", 0)
    assert tab.evaluate(width) <= 400
    for part in (".samples > .bar", ".list", ".detail"):
        box = tab.locator(part).bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= 400
        inner = f"document.querySelector('{part}')"
        assert tab.evaluate(f"{inner}.scrollWidth <= {inner}.clientWidth")


def test_dark_light_and_enough_contrast(site, opened):
    def contrast(tab, selector):
        def light(rgb):
            parts = [
                v / 255 / 12.92 if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in rgb
            ]
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

        style = f"getComputedStyle(document.querySelector('{selector}'))"
        found = [
            tab.evaluate(f"{style}.color"),
            tab.evaluate("getComputedStyle(document.body).backgroundColor"),
        ]
        a, b = (light([int(v) for v in re.findall(r"\d+", text)[:3]]) for text in found)
        return (max(a, b) + 0.05) / (min(a, b) + 0.05)

    backgrounds = {}
    for scheme in ("light", "dark"):
        tab = opened(site, color_scheme=scheme)
        backgrounds[scheme] = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        for selector in ("tbody .value", ".spread", ".notes li", ".better[role]", ".button, button.plain"):
            assert contrast(tab, selector) >= 4.5, (scheme, selector)
        tab.get_by_role("button", name="dark" if scheme == "light" else "light").click()
        switched = tab.evaluate("getComputedStyle(document.body).backgroundColor")
        assert switched != backgrounds[scheme]
        tab.reload()
        assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == switched
    assert backgrounds["light"] != backgrounds["dark"]


def test_print_is_the_table_without_controls(site, opened):
    tab = opened(site, color_scheme="dark")
    tab.emulate_media(media="print", color_scheme="dark")
    assert not tab.locator("#bar").is_visible() and not tab.locator("#actions").is_visible()
    assert tab.locator("table.board").is_visible() and tab.locator("#notes").is_visible()
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.pdf(prefer_css_page_size=True).startswith(b"%PDF")


def test_hostile_text_is_shown_and_does_nothing(site, opened):
    tab = opened(site)
    samples(tab, "ReasonAny", 0)
    for number, text in enumerate(HOSTILE):
        tab.locator(".list").focus()
        if number:
            tab.keyboard.press("ArrowDown")
        tab.get_by_role("heading", name=f"question {number}", exact=True).wait_for()
        shown = tab.locator(".answer").first.locator(".text").last
        if len(text) > 5000:
            assert len(shown.inner_text()) < 5000
            shown.get_by_role("button").click()
            assert tab.locator(".answer").first.locator(".piece").count() >= 1
        elif number < 8:
            assert shown.inner_text() == text
    tab.locator(".list").focus()
    tab.keyboard.press("Home")
    told = {}
    for number in (8, 9, 10):
        tab.locator(".question").nth(number).click()
        tab.get_by_role("heading", name=f"question {number}", exact=True).wait_for()
        told[number] = tab.locator(".answer").first.locator(".text").last.inner_text()
    assert told[8] == "[U+001B][31mred[U+001B][0m [U+001B]]0;title[U+0007] [U+0000] end"
    assert told[9].startswith("[U+202E]gnp.exe[U+202C]") and "\u2066" not in told[9]
    assert told[10].startswith("[U+2028]var x[U+2029] [U+FEFF]")
    assert tab.locator("img[src=x], main script, main style, dialog script").count() == 0
    assert tab.title() == "fam: a <i>family</i>"


def test_a_family_beside_this_one(site, opened):
    tab = opened(site)
    tab.get_by_label("Family").select_option("other")
    assert tab.locator("h1").inner_text() == "other" and labels(tab) == LABELS[:3]
    cell(tab, "Linear", 0).click()
    assert tab.get_by_role("tab").all_inner_texts() == ["Where it comes from"]
    assert "in the page of other" in tab.get_by_role("dialog").inner_text()
    tab.keyboard.press("Escape")
    tab.get_by_label("Family").select_option("fam")
    assert labels(tab) == LABELS


def test_figures_are_images_until_one_asks_for_more(site, opened):
    pytest.importorskip("plotly")
    tab = opened(site)
    figure = tab.locator("figure")
    figure.locator("img").wait_for()
    assert figure.locator("img").get_attribute("src").startswith("data:image/svg+xml;base64,")
    figure.get_by_role("button", name="interactive").click()
    figure.locator(".main-svg").first.wait_for()
    figure.locator(".drag").first.hover()
    assert figure.locator("a[href^='javascript']").count() == 0
    # what plotly makes of markup in a label has style attributes, which the policy stops
    broken = tab.evaluate("window.broken.splice(0)")
    assert set(broken) <= {"style-src-attr"}
    opened.problems[:] = [text for text in opened.problems if "inline style" not in text]


def test_chunks_beside_the_page_are_read_from_disk(tmp_path, opened):
    board, report = make(tmp_path)
    index, *chunks = pages.write(board, report, ASSETS, largest=1)
    tab = opened(index)
    samples(tab, "ReasonAny", 0)
    tab.locator(".answer").first.wait_for()
    assert "ponders" in tab.evaluate("document.querySelector('.answer').textContent + 'ponders'")
    assert tab.locator(".answer").count() == len(LABELS)
    assert tab.evaluate("document.querySelectorAll('head script').length") == 0


def test_a_chunk_that_is_gone_or_of_another_page_is_said(tmp_path, browser):
    board, report = make(tmp_path)
    index, *chunks = pages.write(board, report, ASSETS, largest=1)
    for chunk, text in zip(chunks, [None, 'harnessChunk("other", "AAAA");\n'] * len(chunks), strict=False):
        chunk.unlink() if text is None else chunk.write_text(text)
    tab = browser.new_page()
    tab.goto(index.as_uri())
    told = []
    for column in (0, 1):
        samples(tab, "ReasonAny", column)
        tab.locator(".problem").wait_for()
        told.append(tab.locator(".problem").inner_text())
        tab.keyboard.press("Escape")
    assert {re.sub(r"\w{16}", "X", text) for text in told} == {
        "samples/X.js is not beside this page",
        "samples/X.js is of another page",
    }
    tab.close()


def test_a_long_list_holds_only_what_is_in_sight(tmp_path, opened):
    board, report = make(tmp_path, items=1500)
    tab = opened(pages.write(board, report, ASSETS)[0])
    assert tab.evaluate("document.querySelectorAll('*').length") < 600
    samples(tab, "ReasonAny", 0)
    assert tab.locator(".question").count() < 60
    tab.locator(".list").focus()
    tab.keyboard.press("End")
    tab.get_by_role("heading", name="question 1499").wait_for()
    assert tab.locator(".question").count() < 60
    assert tab.locator(".question[aria-selected=true]").get_attribute("aria-posinset") == "1500"
    assert tab.evaluate("document.querySelector('.sheet').offsetHeight") == 1500 * 44
