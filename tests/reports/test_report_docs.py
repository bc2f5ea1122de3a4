"""docs/reports.md: its report of one's own works; it names every report, file, mark and macro there is."""

import re
from pathlib import Path

import boards

from harness import registry
from harness.board.model import IMPORTED, NOT_RUN, SIGNIFICANT

PAGE = (Path(__file__).parent.parent.parent / "docs" / "reports.md").read_text()


def test_the_report_of_ones_own_is_found_and_runs(workdir):
    (text,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (workdir / "reports").mkdir()
    (workdir / "reports" / "best.py").write_text(text)
    assert "best" in registry.find("reports")
    (path,) = registry.report("best")(boards.rich(), workdir)
    lines = path.read_text().splitlines()
    assert lines[0] == "GSM8K ↑: ReasonAny 85.7" and lines[2] == "tokens ↓: no merge"
    assert lines[6] == "PPL ↓: Task Arithmetic 7.90, ReasonAny 7.90"


def test_every_text_report_and_its_files_are_named(tmp_path):
    for name in ("markdown", "latex", "details", "csv", "parquet", "json"):
        for path in registry.report(name)(boards.rich(), tmp_path):
            assert f"`{path.name}`" in PAGE


def test_every_mark_and_macro_is_explained(tmp_path):
    for mark in (SIGNIFICANT, IMPORTED, NOT_RUN, "†", "§", "Δ"):
        assert re.search(rf"(?<!\w){mark} ", PAGE), mark
    registry.report("latex")(boards.rich(), tmp_path)
    body = (tmp_path / "table-body.tex").read_text()
    for macro in re.findall(r"\\newcommand\{(\\\w+)\}\[2?1?\]", PAGE):
        assert re.search(rf"\\(?:providecommand|ifdefined)\{{?\{macro}\b", body), macro
