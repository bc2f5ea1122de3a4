"""CSV, Parquet and JSON: everything of the board, in types, and read back as it was."""

import csv
import json

import boards
import pytest
from pyarrow.parquet import read_table

from harness import registry
from harness.board import read_board
from harness.typeset import FIELDS

BEFORE = (  # what other programs read by name
    "family split limit row role method parameters task metric group higher_is_better value stderr "
    "interval_low interval_high n best collapsed older_code unparsed unfinished empty truncated repetition "
    "tokens_per_response merge_seconds model_folder eval_folder"
).split()


def lines_of(board, tmp_path):
    (path,) = registry.report("csv")(board, tmp_path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", ["rich", "hostile", "wide"])
def test_one_line_per_row_and_column_whatever_the_text(name, tmp_path):
    board = getattr(boards, name)()
    lines = lines_of(board, tmp_path)
    assert [(line["row"], line["task"]) for line in lines] == [
        (row.label, h.task) for row in board.rows for h in board.headings
    ]
    assert set(BEFORE) <= set(lines[0]) and list(lines[0]) == list(FIELDS)


def test_a_line_has_everything_behind_its_cell(tmp_path):
    found = {(line["row"], line["task"], line["metric"]): line for line in lines_of(boards.rich(), tmp_path)}
    line = found["ReasonAny", "gsm8k", "exact_match"]
    assert line["value"] == "0.8571" and line["kept"] == "0.9826" and line["paper"] == "0.8628"
    assert line["best"] == "True" and line["second"] == "False" and line["significant"] == "True"
    assert float(line["p_holm"]) == 1e-5 and line["test"] == "exact McNemar" and line["test_n"] == "500"
    assert line["baseline"] == "LED-Merging" and line["group_average"] == "77.84"
    line = found["DARE", "gsm8k", "exact_match"]
    assert json.loads(line["values"]) == [0.49, 0.50, 0.5226] and line["sd"] == "0.0166"
    assert line["older_code"] == "True" and line["cell_stale"] == "False"
    line = found["Task Arithmetic", "safety_tuned", "harmfulness"]
    assert line["footnotes"] == "; ".join(boards.MIXED)
    assert found["TIES", "gsm8k", "exact_match"]["collapsed"] == "PPL 1.23e+07 > 3 × base's 7.25"
    gap = found["DARE", "wikitext", "word_perplexity"]
    assert gap["value"] == gap["n"] == gap["best"] == "" and gap["group"] == "Perplexity"


@pytest.mark.parametrize("name", ["rich", "hostile"])
def test_parquet_is_the_csv_with_types(name, tmp_path):
    board = getattr(boards, name)()
    (path,) = registry.report("parquet")(board, tmp_path)
    table = read_table(path)
    kinds = {"string": str, "int64": int, "double": float, "bool": bool}
    assert {field.name: kinds[str(field.type)] for field in table.schema} == FIELDS
    for typed, line in zip(table.to_pylist(), lines_of(board, tmp_path), strict=True):
        for field, value in typed.items():
            text = "" if value is None else str(value)
            assert text == line[field] or float(text) == float(line[field]), field


def test_a_board_is_read_back_whole(tmp_path):
    board = boards.rich()
    (path,) = registry.report("json")(board, tmp_path)
    assert read_board(path) == board
    assert registry.report("json")(read_board(path), tmp_path)[0].read_text() == board.to_json()


def test_text_that_is_no_unicode_stops_no_report(tmp_path):
    board = boards.narrow()
    board.rows[3].label = "half \ud83d a pair"
    made = {path.name: path for name in ("csv", "parquet", "json", "markdown", "latex")
            for path in registry.report(name)(board, tmp_path)}  # fmt: skip
    for name in ("table.csv", "board.json", "table.md", "table-body.tex"):
        assert "half ? a pair" in made[name].read_text(encoding="utf-8")
    assert "half ? a pair" in read_table(made["table.parquet"])["row"].to_pylist()
