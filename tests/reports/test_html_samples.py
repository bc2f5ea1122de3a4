"""The samples, figures and chunks of the page in a real Chromium, and texts that attack it."""

import re

import pytest
from helpers_browser import browser, cell, focused, labels, opened, samples, site  # noqa: F401
from helpers_page import ASSETS, HOSTILE, LABELS, make

from harness import page as pages

# ruff: noqa: F811 - fixtures are imported


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
    assert "answer 19" in tab.locator(".answer").first.inner_text()
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
