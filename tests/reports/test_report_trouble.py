"""Reports in trouble, as a user meets it: Ctrl-C, two commands at once, a folder that cannot be written."""

import csv
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import boards
import pytest

from harness import registry
from harness.board import marks, read_board
from harness.page.view import view
from harness.typeset import grid

ROOT = Path(__file__).parents[2]
DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, BOUNDING_DROP = 1, 2, 3, 24
SLOW = """import time


def render(board, folder):
    (folder / "begun").write_text("x")
    time.sleep(60)
"""


def harness(*given, folder, **more):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "harness.cli", *map(str, given)]
    return subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **more
    )


def report(folder, *more, **how):
    return harness("report", "-m", "linear", "-t", "tiny_chain", "--limit", 4, *more, folder=folder, **how)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a small comparison; its `results/tiny-safety/report`."""
    folder = tmp_path_factory.mktemp("trouble")
    done = harness("compare", "-m", "linear", "-t", "tiny_chain", "--limit", 4, folder=folder)
    out, err = done.communicate(timeout=300)
    assert done.returncode == 0, out + err
    return folder, folder / "results" / "tiny-safety" / "report"


def test_ctrl_c_while_a_report_is_rendered(run):
    folder, there = run
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports" / "slow.py").write_text(SLOW)
    stopped = report(folder, "--only", "slow,csv", "--again")
    for _ in range(600):
        if (there / "begun").exists() or stopped.poll() is not None:
            break
        time.sleep(0.1)
    stopped.send_signal(signal.SIGINT)
    out, err = stopped.communicate(timeout=60)
    (folder / "reports" / "slow.py").unlink()
    assert stopped.returncode == 130 and "stopped; the same command goes on" in err and "Traceback" not in err
    assert json.loads((there / "rendered.json").read_text())["slow"]["mark"] is None
    again = report(folder)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, out + err
    assert read_board(there / "board.json").family == "tiny-safety" and not list(there.rglob("*.tmp"))


def test_two_commands_write_reports_at_once(run):
    """Two tables of one family: whichever ends last has written all of the files."""
    folder, there = run
    first = report(folder, "--again", "--only", "markdown,csv,json")
    second = report(folder, "--again", "--only", "markdown,csv,json", "--baseline", "linear")
    for child in (first, second):
        out, err = child.communicate(timeout=300)
        assert child.returncode == 0, out + err
    baseline = read_board(there / "board.json").baseline
    with (there / "table.csv").open(encoding="utf-8", newline="") as file:
        assert {line["baseline"] for line in csv.DictReader(file)} == {baseline}
    said = {"base": "° differs from base", "Linear": "nothing was tested against Linear"}[baseline]
    assert said in (there / "table.md").read_text()


def without_override():
    """Take root's right to write anywhere from the program that comes."""
    for right in (DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER):
        ctypes.CDLL(None).prctl(BOUNDING_DROP, right, 0, 0, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities are Linux's")
def test_a_report_folder_that_is_read_only_is_told_in_two_lines(run):
    folder, there = run
    before = {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}
    there.chmod(0o555)
    (there / ".lock").chmod(0o444)
    try:
        refused = report(folder, "--again", preexec_fn=without_override)
        out, err = refused.communicate(timeout=300)
    finally:
        there.chmod(0o755)
        (there / ".lock").chmod(0o644)
    assert refused.returncode == 2 and "Traceback" not in err, out + err
    lines = err.strip().splitlines()
    assert len(lines) == 2 and lines[0].startswith("error: cannot write ") and lines[1].startswith("hint: ")
    assert before == {path.name: path.read_bytes() for path in there.iterdir() if path.is_file()}


@pytest.fixture
def collapsed():
    """A board on which the collapsed row is the safest: TIES has the lowest attack success."""
    board = boards.rich()
    for row in board.rows:
        for cell in row.cells.values():
            cell.best = cell.second = False
    marks.mark_best(board.headings, board.rows)
    ties = next(row for row in board.rows if row.label == "TIES")
    attack = [row.cell(boards.ATTACK) for row in board.rows if row.cell(boards.ATTACK)]
    assert ties.collapsed and ties.cell(boards.ATTACK).value == min(cell.value for cell in attack)
    return board


def line_of(text, start):
    return next(line for line in text.splitlines() if line.startswith(start))


def test_a_collapsed_row_is_never_bold_in_any_format(collapsed, tmp_path):
    (markdown,) = registry.report("markdown")(collapsed, tmp_path)
    row = line_of(markdown.read_text(), "| TIES |")
    assert "**" not in row and "<ins>" not in row and "| *2.0 ±1.0*\\* |" in row
    latex = registry.report("latex")(collapsed, tmp_path)[0].read_text()
    row = line_of(latex, "TIES &")
    assert r"\textbf" not in row and r"\underline" not in row and row.count(r"\textit") == 6
    (line,) = [line for line in grid(collapsed).lines if line.label == "TIES"]
    assert not any(entry.best or entry.second for entry in line.entries)
    assert all(entry.collapsed and "*" in entry.tail for entry in line.entries if entry.text not in ("–", ""))
    shown = next(row for row in view(collapsed)["rows"] if row["label"] == "TIES")
    assert shown["collapsed"] and not any(c.get("best") or c.get("second") for c in shown["cells"].values())
    (table,) = registry.report("csv")(collapsed, tmp_path)
    with table.open(encoding="utf-8", newline="") as file:
        told = [line for line in csv.DictReader(file) if line["row"] == "TIES" and line["value"]]
    assert len(told) == 5 and all(line["collapsed"] for line in told)
    assert {(line["best"], line["second"]) for line in told} == {("False", "False")}


def test_the_rule_of_collapse_stands_below_in_every_format(collapsed, tmp_path):
    for name, file in (("markdown", "table.md"), ("latex", "table-body.tex"), ("json", "board.json")):
        registry.report(name)(collapsed, tmp_path)
        assert "collapsed: word perplexity" in (tmp_path / file).read_text(), name
    assert any("collapsed: word perplexity" in note for note in view(collapsed)["footnotes"])
