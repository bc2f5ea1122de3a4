"""`harness leaderboard` on boards made by hand: nothing is lost, and nothing is left out without a word."""

import json

import pytest
from click.testing import CliRunner

from harness.board import Average, Board, BoardRow, Cell, Heading
from harness.board.marks import average, mark_best
from harness.board.ranks import ranks
from harness.cli import main

UP = [Heading(f"up{i}", "m", f"U{i}", "Safety", True, "accuracy") for i in range(2)]
DOWN = [Heading(f"down{i}", "m", f"D{i}", "Safety", False, "accuracy") for i in range(2)]
SCORES = [Heading(f"score{i}", "m", f"S{i}", "Safety", True, "score") for i in range(2)]


def row(label, headings, values, role="merge", **more):
    cells = {
        (h.task, h.metric): Cell(v, 0.1, 9) for h, v in zip(headings, values, strict=True) if v is not None
    }
    return BoardRow(label, role, label if role == "merge" else None, {}, "", cells, **more)


def written(results, family, headings, *rows):
    mark_best(headings, rows)
    average(headings, rows)
    path = results / family / "report" / "board.json"
    path.parent.mkdir(parents=True)
    path.write_text(Board(family, f"title of {family}", headings, list(rows), []).to_json())
    return path


def run(results, *more):
    return CliRunner().invoke(main, ["leaderboard", "--results", str(results), *more])


def test_up_and_down_averages_of_a_group_are_both_kept(tmp_path):
    headings = [*UP, *DOWN, *SCORES]
    written(tmp_path, "fam", headings, row("a", headings, [0.9, 0.8, 0.1, 0.3, 4.5, 4.0]),
            row("b", headings, [0.5, 0.6, 0.2, 0.2, 2.0, 1.0]))  # fmt: skip
    done = run(tmp_path)
    assert done.exit_code == 0
    (line,) = [line.split() for line in done.output.splitlines() if line.startswith("a ")]
    assert line == ["a", "1.2", "–", "85.0", "20.0", "4.25"]
    told = json.loads(run(tmp_path, "--json").output)["rows"][0]["averages"]
    assert told == pytest.approx({"Safety ↑ (accuracy)": 85, "Safety ↓": 20, "Safety ↑ (score)": 4.25})
    assert "Safety ↓" in done.output and "Safety ↑ (score)" in done.output
    assert "95 %: – where the samples" in done.output


def test_rows_that_lack_columns_are_named(tmp_path):
    written(tmp_path, "fam", UP, row("base", UP, [1, None], "base"), row("half", UP, [0.5, None]),
            row("none", UP, [None, None]), row("nan", UP, [float("nan"), 0.5]))  # fmt: skip
    done = run(tmp_path)
    assert done.exit_code == 1
    for sentence in ("half lacks U1", "none lacks U0, U1", "nan lacks U0"):
        assert f"no rank: {sentence}" in done.output
    assert "base" not in done.output and "title of fam" in done.output
    told = json.loads(run(tmp_path, "--json").output)
    assert told["rows"] == [] and told["unranked"][0] == {
        "family": "fam", "row": "half", "method": "half", "lacks": ["U1"]}  # fmt: skip
    chosen = run(tmp_path, "--methods", "half")
    assert "half lacks" in chosen.output and "none lacks" not in chosen.output


def test_complete_rows_are_ranked_beside_those_that_are_not(tmp_path):
    written(tmp_path, "fam", UP, row("all", UP, [0.5, 0.5]), row("half", UP, [0.5, None]))
    done = run(tmp_path)
    assert done.exit_code == 0 and "no rank: half lacks U1" in done.output and "all " in done.output


def test_a_board_without_merges_says_so(tmp_path):
    written(tmp_path, "fam", UP, row("base", UP, [0.5, 0.5], "base"))
    done = run(tmp_path)
    assert done.exit_code == 1 and "there are no merges" in done.output


GOOD = json.loads(Board("bad", "t", UP, [row("a", UP, [0.5, 0.5])], []).to_json())
BAD = [
    "", "{", "[]", "[" * 100_000, '{"schema": 2}', json.dumps({**GOOD, "schema": 99}),
    json.dumps({**GOOD, "rows": [3]}), json.dumps({**GOOD, "rows": {"a": 1}}),
    json.dumps({**GOOD, "headings": "x"}), json.dumps({**GOOD, "extra": 1}),
    json.dumps(GOOD).replace('"value": 0.5', '"value": "0.5"'),
    json.dumps(GOOD).replace('"value": 0.5', '"value": null'),
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_one_bad_board_does_not_stop_the_others(tmp_path, text):
    written(tmp_path, "good", UP, row("a", UP, [0.5, 0.5]))
    bad = written(tmp_path, "bad", UP, row("a", UP, [0.5, 0.5]))
    bad.write_text(text)
    done = run(tmp_path)
    assert done.exit_code == 1 and done.exception.__class__ is SystemExit
    assert "warning: family `bad` is left out" in done.stderr and "title of good" in done.stdout
    alone = run(tmp_path, "--families", "bad")
    assert alone.exit_code == 2 and "cannot be read" in alone.output and "hint: " in alone.output
    assert run(tmp_path, "--families", "good").exit_code == 0


def test_hostile_text_is_shown_as_text(tmp_path):
    name = "[/red]\x1b[31m[bold]x\u202e"
    heading = Heading("t", "m", name, name, True, "accuracy")
    other = Heading("u", "m", "[link=x]", name, True, "accuracy")
    written(tmp_path, "fam", [heading, other], row(name, [heading, other], [0.5, 0.5]),
            row("half", [heading, other], [None, 0.5]))  # fmt: skip
    done = run(tmp_path)
    assert done.exit_code == 0 and done.output.count("[/red][bold]x") == 4
    assert "\x1b[31m" not in done.output and "\u202e" not in done.output


def test_equal_values_share_a_rank():
    rows = [row("a", UP[:1], [0.1 + 0.2]), row("b", UP[:1], [0.3]), row("c", UP[:1], [0.2])]
    found = ranks(Board("fam", "t", UP[:1], rows, []))
    assert [found[label].mean for label in "abc"] == [1.5, 1.5, 3.0]


def test_an_incomplete_average_is_left_out(tmp_path):
    rows = [row("a", UP, [0.5, 0.5])]
    path = written(tmp_path, "fam", UP, *rows)
    rows[0].averages = [Average("Safety", True, "accuracy", None, False)]
    path.write_text(Board("fam", "t", UP, rows, []).to_json())
    assert json.loads(run(tmp_path, "--json").output)["rows"][0]["averages"] == {}
