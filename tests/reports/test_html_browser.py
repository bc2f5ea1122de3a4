"""The page in a real Chromium, opened from disk, as a reader uses it. What it must never do is checked on
every page: run a script of a model, break its policy, ask a network, leave an error in the console."""

import re

from helpers_browser import browser, cell, focused, labels, opened, samples, site  # noqa: F401
from helpers_page import LABELS

# ruff: noqa: F811 - fixtures are imported


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
