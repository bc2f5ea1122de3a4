"""Marks, averages, mixing and the JSON form of a board, on boards made by hand or drawn."""

import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import board as boards
from harness.board import Average, read_board
from harness.board.cells import interval_of
from harness.board.marks import average, keep, mark_best
from harness.board.mixing import check
from harness.errors import HarnessError
from tests.board_rows import CHAIN, HARM, HEADINGS, PPL, SUMS, board, row

VALUES = st.floats(0, 1) | st.sampled_from([0.5, 0.5001, 0.50049, math.nan, math.inf])
ROLES = st.sampled_from(["merge", "base", "imported"])
ROWS = st.lists(
    st.tuples(VALUES | st.none(), VALUES | st.none(), ROLES, st.booleans()), min_size=1, max_size=7,
)  # fmt: skip


@given(ROWS)
def test_the_best_is_best_whatever_the_table_looks_like(drawn):
    rows = [row(str(i), chain, None, harm, role=role, collapsed=["x"] * broken)
            for i, (chain, harm, role, broken) in enumerate(drawn)]  # fmt: skip
    mark_best(HEADINGS, rows)
    for heading in (CHAIN, HARM):
        cells = {r.label: c for r in rows if (c := r.cell(heading))}
        best = [heading.rounded(c.value) for c in cells.values() if c.best]
        second = [heading.rounded(c.value) for c in cells.values() if c.second]
        ranked = [heading.rounded(c.value) for r in rows if (c := r.cell(heading)) and r.is_merge
                  and not r.collapsed and math.isfinite(c.value)]  # fmt: skip
        top = max if heading.higher_is_better else min
        assert sorted(best) == sorted(v for v in ranked if v == top(ranked))
        others = [v for v in ranked if v != top(ranked)]
        assert sorted(second) == sorted(v for v in others if v == top(others))
        for r in rows:
            cell = r.cell(heading)
            if cell and (r.collapsed or not r.is_merge):
                assert not cell.best and not cell.second


def test_averages_are_of_one_group_and_one_direction_and_of_whole_rows_only():
    rows = [
        row("a", 0.8, 0.6, 1.0, 9.0),
        row("b", 0.9, None, 1.0, 8.0),
        row("base", 0.2, 0.2, 3.0, 7.0, role="base"),
    ]
    average(HEADINGS, rows)
    assert rows[0].averages == [
        Average("Reasoning", True, "accuracy", 70.0, True, True)
    ]  # one harm, one perplexity: no mean
    assert rows[1].averages == [Average("Reasoning", True, "accuracy", None, False)]
    assert rows[2].averages == [Average("Reasoning", True, "accuracy", 20.0, True)]
    second = dataclasses.replace(SUMS, main=False)
    rows = [row("a", 0.8, 0.6)]
    average([CHAIN, second], rows)
    assert rows[0].averages == []


def test_kept_is_of_the_expert_whose_ability_it_is():
    safety = dataclasses.replace(SUMS, task="refused", group="Safety")
    rows = [row("reasoning", 0.8, role="reasoning"), row("task", 0.2, role="task"), row("m", 0.6)]
    for r, value in zip(rows, (0.5, 1.0, 0.9), strict=True):
        r.cells["refused", "exact"] = dataclasses.replace(next(iter(r.cells.values())), value=value)
        r.cells["harm", "harmfulness"] = dataclasses.replace(next(iter(r.cells.values())), value=value)
    keep([CHAIN, safety, HARM], rows)
    merge = rows[2]
    assert merge.cell(CHAIN).kept == pytest.approx(0.75) and merge.cell(safety).kept == pytest.approx(0.9)
    assert merge.cell(HARM).kept is None and rows[0].cell(CHAIN).kept is None
    rows[0].cell(CHAIN).value = 0.0
    merge.cell(CHAIN).kept = None
    keep([CHAIN], rows)
    assert merge.cell(CHAIN).kept is None  # a share of nothing


@pytest.mark.parametrize(
    "odd",
    [
        {"profile": "paper"},
        {"engine": "vllm"},
        {"dtype": "bfloat16"},
        {"limit": 10},
        {"chat template": False},
    ],
)
def test_a_column_that_was_not_measured_alike_is_refused(odd):
    rows = [row("a", 0.5), row("b", 0.5), row("c", 0.5, **odd)]
    (key,) = odd
    with pytest.raises(HarnessError, match=rf"`c` in Chains \({key}"):
        check(HEADINGS, rows)
    said = check(HEADINGS, rows, allow=True)
    assert len(said) == 1 and key in said[0]
    assert rows[2].cell(CHAIN).footnotes == [0] and rows[0].cell(CHAIN).footnotes == []


def test_columns_may_differ_from_each_other_and_rows_alike_say_nothing():
    a, b = row("a", 0.5), row("b", 0.5)
    for r in (a, b):
        r.cells["sums", "exact"] = dataclasses.replace(r.cell(CHAIN), settings={"profile": "paper"})
    assert check(HEADINGS, [a, b]) == []


def test_an_imported_row_says_what_its_file_does_not_tell():
    own, other = row("a", 0.5), row("b", 0.5)
    other.cells["chain", "exact"] = dataclasses.replace(
        own.cell(CHAIN), imported=True, settings={"engine": "hf"}, footnotes=[]
    )
    said = check(HEADINGS, [own, other])
    assert len(said) == 1 and "profile" in said[0] and other.cell(CHAIN).footnotes == [0]


TEXT = st.text(max_size=20)
ANY = st.floats() | st.integers(-5, 5) | TEXT | st.none() | st.booleans()


@given(TEXT, st.lists(TEXT, max_size=3), st.floats(), st.dictionaries(TEXT, ANY, max_size=3))
@settings(max_examples=60, deadline=None)
def test_a_board_survives_json(tmp_path_factory, label, notes, value, parameters):
    rows = [row(label, value, 0.5, None, math.inf)]
    rows[0].cell(CHAIN).test = boards.Test(-0.1, [-0.2, 0.0], 0.03, None, "McNemar, exact", 7)
    rows[0].parameters, rows[0].notes = parameters, tuple(notes)
    rows[0].averages = [Average("Reasoning", True, "accuracy", value, True)]
    made = dataclasses.replace(board(*rows), footnotes=notes)
    path = tmp_path_factory.mktemp("json") / "board.json"
    path.write_text(made.to_json(), encoding="utf-8", errors="surrogatepass")
    assert repr(read_board(path)) == repr(made)  # by repr: nan is nan there


def test_another_schema_is_refused(tmp_path):
    path = tmp_path / "board.json"
    path.write_text('{"schema": 99}')
    with pytest.raises(ValueError, match="no board of schema"):
        read_board(path)


@pytest.mark.parametrize(("value", "n"), [(0.0, 20), (1.0, 20), (0.85, 20), (0.5, 1319)])
def test_a_shares_interval_is_statsmodels_wilson(value, n):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    stderr = math.sqrt(value * (1 - value) / (n - 1))
    wanted = proportion.proportion_confint(round(value * n), n, method="wilson")
    given_ = interval_of({"value": value, "stderr": stderr, "n": n}, "accuracy")
    assert given_ == pytest.approx(list(wanted), abs=2e-3) and given_[0] <= value <= given_[1]
    assert interval_of({"value": value, "stderr": None, "n": n}, "accuracy") is None
    mean = interval_of({"value": 2.0, "stderr": 0.1, "n": n}, "score")
    assert mean == pytest.approx([2 - 0.196, 2 + 0.196], abs=1e-3)


def test_a_perplexity_is_better_low():
    rows = [row("a", None, None, None, 9.0), row("b", None, None, None, 8.0)]
    mark_best(HEADINGS, rows)
    assert rows[1].cell(PPL).best and rows[0].cell(PPL).second


def measured(label, role="merge", template="a" * 64, decoded=None, imported=False):
    """A row whose cell of chains went through a template and was decoded in some way."""
    made = row(label, 0.5, role=role)
    cell = made.cell(CHAIN)
    cell.settings |= {"chat template": template, "decoding": decoded or {"do_sample": False}}
    cell.imported = made.imported = imported
    return made


def test_merges_share_a_chat_template_and_other_models_have_their_own():
    base, expert = measured("base", "base", "b" * 64), measured("reasoning", "reasoning", "c" * 64)
    checkpoint = measured("released", "checkpoint", "d" * 64)
    assert check(HEADINGS, [base, expert, checkpoint, measured("one"), measured("two")]) == []
    with pytest.raises(HarnessError, match=r"`two` in Chains \(chat template eeeeeeee instead of aaaaaaaa\)"):
        check(HEADINGS, [base, expert, measured("one"), measured("more"), measured("two", template="e" * 64)])
    with pytest.raises(HarnessError, match=r"`base` in Chains \(chat template off instead of aaaaaaaa\)"):
        check(HEADINGS, [measured("base", "base", False), measured("one")])
    declared = [measured("base", "base", False), measured("one", template="declared")]
    assert check(HEADINGS, declared) == []


def test_an_imported_row_has_the_template_and_the_decoding_of_some_row():
    sampled = {"do_sample": True, "temperature": 0.6}
    ours = [measured("base", "base", "b" * 64), measured("one", decoded=sampled)]
    assert check(HEADINGS, [*ours, measured("theirs", "imported", "b" * 64, imported=True)]) == [
        "imported; decoded with do_sample off"
    ]
    with pytest.raises(HarnessError, match=r"`theirs` .*chat template cccccccc instead of aaaaaaaa"):
        check(HEADINGS, [*ours, measured("theirs", "imported", "c" * 64, imported=True)])
    hotter = measured("theirs", "imported", decoded={**sampled, "temperature": 1.0}, imported=True)
    with pytest.raises(HarnessError, match=r"decoding do_sample on, temperature 1.0 instead of"):
        check(HEADINGS, [*ours, hotter])
    assert any("temperature 1.0" in said for said in check(HEADINGS, [*ours, hotter], allow=True))
    untold = measured("theirs", "imported", True, imported=True)
    del untold.cell(CHAIN).settings["decoding"]
    assert "does not tell: decoding" in check(HEADINGS, [*ours, untold])[0]
