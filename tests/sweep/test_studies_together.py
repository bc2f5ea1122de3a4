"""A study over several families: one table, whose notes say what is common once."""

import csv

import pytest

from harness.board import Board
from harness.cli import main
from harness.verbs.study import _notes as notes


def board(*footnotes):
    return Board("f", "f", [], [], list(footnotes))


def test_what_is_said_of_all_is_said_once():
    found = notes({"a": board("same", "of a", "twice"), "b": board("same", "twice", "of b")})
    assert found == ["marks and tests are within each family", "same", "twice", "a: of a", "b: of b"]


@pytest.mark.slow
def test_each_family_has_its_own_rows_and_verdicts(workdir, capsys):
    (workdir / "other.yaml").write_text("extends: tiny-safety\ntitle: another\nmethods: {linear: }\n")
    families = ["--families", "tiny-safety,./other.yaml", "--tasks", "tiny_chain", "--limit", "4"]
    with pytest.raises(SystemExit) as ended:
        main(["study", "selection", *families])
    assert ended.value.code in (0, None)
    told = capsys.readouterr().out
    assert told.index("tiny-safety:") < told.index("other:") and told.count("What follows here") == 2
    (folder,) = (workdir / "results" / "studies").iterdir()
    with (folder / "rows.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["family"] for line in lines] == ["tiny-safety"] * 6 + ["other"] * 6
    assert lines[5]["tiny_chain/accuracy"] == lines[11]["tiny_chain/accuracy"] != ""
    table = (folder / "table.md").read_text()
    assert "other · full" in table and table.count("Reasoning needs the reasoning expert's selection") == 1
