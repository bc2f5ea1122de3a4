"""Markdown: a table stays a table whatever its labels are, and a label is read back as it shows."""

import re

import boards
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from harness import registry
from harness.typeset import markdown, markdown_note, visible

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
TRICKY = st.text(st.sampled_from("|\\`*_<>[]()!&#~$-+=.1a b\n\t\x1b\u202e–λ中"), max_size=30)
READER = MarkdownIt("commonmark").enable(["table", "strikethrough"])


def table_of(board, tmp_path):
    return registry.report("markdown")(board, tmp_path)[0].read_text(encoding="utf-8")


def tables(text):
    """Tables as rows of cells, as a Markdown reader sees them: (text, HTML)."""
    found, row = [], None
    for token in READER.parse(text):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            row = []
            found[-1].append(row)
        elif token.type == "inline" and row is not None and token.level == 4:
            plain = "".join(t.content for t in token.children if t.type in ("text", "code_inline"))
            row.append((plain, READER.renderer.render([token], READER.options, {})))
    return found


def labelled(*labels):
    board = boards.narrow()
    for row, label in zip(board.rows, labels, strict=False):
        row.label = label
    return board


@settings(max_examples=80, deadline=None, derandomize=True)
@given(st.lists(st.one_of(ANY, TRICKY), min_size=8, max_size=8))
def test_a_table_is_a_table_whatever_the_labels(tmp_path_factory, labels):
    board = labelled(*labels)
    main = tables(table_of(board, tmp_path_factory.mktemp("md")))[0]
    assert {len(row) for row in main} == {6} and len(main) == 4 + len(labels)
    for cells, row in zip(main[4:], board.rows, strict=True):
        signs = " †" * row.stale + " ‡" * row.imported
        assert cells[0][0] == (visible(row.label) + signs).strip()


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.one_of(ANY, TRICKY))
def test_text_shows_as_itself_and_does_nothing(text):
    inline = READER.parseInline(markdown(text))[0].children or []
    assert {token.type for token in inline} <= {"text", "text_special"}
    assert "".join(token.content for token in inline) == visible(text)
    item = [t.type for t in READER.parse("- " + markdown_note(text))]
    assert item.count("bullet_list_open") == 1 and not {"heading_open", "html_block", "hr"} & set(item)


def test_hostile_text_is_no_markup(tmp_path):
    html = READER.render(table_of(boards.hostile(), tmp_path))
    assert "<b>" not in html and "<a " not in html and "\x1b" not in html and "\u202e" not in html


def test_the_marks(tmp_path):
    (main, shares) = tables(table_of(boards.rich(), tmp_path))
    by_label = {row[0][0]: [cell[1] for cell in row[1:]] for row in main}
    best, second, broken = by_label["ReasonAny"], by_label["Task Arithmetic"], by_label["TIES"]
    assert best[0] == "<strong>85.7 ±1.6</strong>°" and best[3] == "<strong>77.8</strong>"
    assert "62.2 ±2.2" in second[0] and second[1].endswith("°†") and second[4].endswith("<sup>a,b</sup>")
    assert broken[0] == "<em>0.8 ±0.4</em>*" and broken[5] == "<em>2.0 ±1.0</em>*"
    assert by_label["DARE †"][1] == "31.0 ±2.1‡" and by_label["LED-Merging ‡"][1] == "–"
    assert by_label["DARE †"][0] == "50.4 ±1.7", "over seeds the spread is their standard deviation"
    assert [row[0][0] for row in shares] == ["", "", "Task Arithmetic", "ReasonAny"]
    assert [cell[0] for cell in shares[3]] == ["ReasonAny", "98.3", "80.5", "105.4"]


def test_the_papers_numbers_stand_below_ours(tmp_path):
    text = table_of(boards.rich(), tmp_path)
    lines = text.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("| ReasonAny"))
    assert lines[at + 1].startswith("| *· paper* | 86.28 (−0.6) | 69.40 (0.0) | | | 0.84 (+0.35)§ |")
    assert "- § ReasonAny, Safety-Tuned: table 1 prints 1.19 for the same run" in lines
    assert "paper" not in table_of(boards.narrow(), tmp_path)


@pytest.mark.parametrize("columns", [1, 8, 9, 15, 40])
def test_more_than_eight_columns_are_split_by_group(columns, tmp_path):
    board = boards.wide(columns)
    found = tables(table_of(board, tmp_path))
    titles = [cell[0][:-2] for table in found for cell in table[0][1:]]
    assert [t for t in titles if t != "average"] == [h.title for h in board.headings]
    assert all(len({len(row) for row in table}) == 1 and len(table[0]) <= 9 for table in found)
    assert (len(found) > 1) == (columns + titles.count("average") > 8)


def test_every_note_is_under_the_table_and_code_stays_code(tmp_path):
    text = table_of(boards.rich(), tmp_path)
    assert "- `harness clean --rows LABEL` makes a row † anew" in text
    assert "- <sup>b</sup> limited to the first 200 items" in text
    assert re.search(r"^- Δ smallest true difference from LED-Merging", text, re.MULTILINE)
    assert markdown_note("`a|b_c` d|e <f>") == "`a|b_c` d\\|e \\<f>"
