"""report, explain, leaderboard, export and import on a small run of the tiny family."""

import json
import shutil
import zipfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from harness.board import read_board
from harness.cli import main
from tests.helpers_lm_eval import evaluated

ROOT = Path(__file__).parents[2]
TASKS = "tiny_chain,tiny_refusal,tiny_facts_mc,tiny_prose"
OPTIONS = ("--methods", "linear,task_arithmetic", "--tasks", TASKS, "--limit", "8", "--results")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "results"
    done = run("compare", *OPTIONS, folder)
    assert done.exit_code == 0, done.output
    return folder


def run(*given):
    return CliRunner().invoke(main, list(map(str, given)))


def test_every_cell_is_recomputed_from_what_was_answered(results):
    board = read_board(results / "tiny-safety" / "report" / "board.json")
    told = json.loads(run("explain", "--all", "--json", "--results", results).output)
    assert len(told) == sum(len(row.cells) for row in board.rows) == 6 * 5
    assert all(one["agrees"] is True for one in told)


def test_a_changed_number_is_found(results, tmp_path):
    copied = shutil.copytree(results, tmp_path / "results")
    path = copied / "tiny-safety" / "report" / "board.json"
    text = path.read_text().replace('"value": 1.0,', '"value": 0.875,', 1)
    path.write_text(text)
    done = run("explain", "--all", "--results", copied)
    assert done.exit_code == 1 and "recomputed 1.0" in done.output and "1 differ" in done.output


def test_a_cell_is_told_down_to_the_sample(results):
    told = json.loads(run("explain", "Task Arithmetic/tiny_chain", "--json", "--results", results).output)
    assert told["agrees"] and told["n"] == 8 and told["recipe"]["method"] == "task_arithmetic"
    assert "--methods task_arithmetic" in told["again"] and told["test"].startswith("McNemar")
    item = json.loads(
        run("explain", "linear/tiny_chain", "--item", "3", "--json", "--results", results).output
    )
    names = {"task/tiny_chain": "safety", "safety/chain": "safety", "base/tiny_chain": "base",
             "task_arithmetic (paper)/tiny_chain": "Task Arithmetic (paper)",
             "Task Arithmetic (paper)/tiny_chain/accuracy": "Task Arithmetic (paper)"}  # fmt: skip
    for name, row in names.items():
        told = json.loads(run("explain", name, "--json", "--results", results).output)
        assert told["cell"].startswith(f"{row} · "), name
    assert item["doc_id"] == 3 and item["prompt"] and item["accuracy"] in (0.0, 1.0)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        (["linear/tiny_chian"], "no column is called `tiny_chian`", "tiny_chain"),
        (["liner/tiny_chain"], "no row is called `liner`", "linear"),
        (["linear"], "names no cell", "ROW/TASK"),
        ([], "no cell was named", "--all"),
        (["linear/tiny_chain", "--item", "99"], "there is no item 99", "from 0 to 7"),
        (["linear/tiny_chain", "--board", "nowhere.json"], "there is no nowhere.json", "harness compare"),
    ],
)
def test_what_cannot_be_explained_is_told_in_two_lines(results, given, message, hint):
    done = run("explain", *given, "--results", results)
    assert done.exit_code == 2 and message in done.output and hint in done.output


def test_an_export_can_be_checked_without_the_weights(results, tmp_path, monkeypatch):
    for name in ("one.zip", "two.zip"):
        assert run("export", "--results", results, "--to", tmp_path / name).exit_code == 0
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as packed:
        names = packed.namelist()
        packed.extractall(tmp_path / "out")
    assert not [name for name in names if name.endswith((".safetensors", ".sqlite"))]
    assert {"README.md", "commands.sh", "environment.txt", "family.yaml", "report/board.json"} <= set(names)
    monkeypatch.chdir(tmp_path)
    done = run("explain", "--all", "--board", tmp_path / "out" / "report" / "board.json")
    assert done.exit_code == 0 and "0 differ" in done.output, done.output


def test_a_board_is_explained_by_its_own_samples_from_any_folder(results, tmp_path, monkeypatch):
    for name in ("there", "here"):
        copied = shutil.copytree(results, tmp_path / name / "results")
        board = copied / "tiny-safety" / "report" / "board.json"
        board.write_text(board.read_text().replace(str(results), "results"))
    for path in (tmp_path / "here").rglob("samples.parquet"):
        path.unlink()
    monkeypatch.chdir(tmp_path / "here")
    there = run("explain", "--all", "--board", "../there/results/tiny-safety/report/board.json")
    assert there.exit_code == 0 and "30 of 30 cells" in there.output, there.output
    assert "0 of 30 cells" in run("explain", "--all").output
    monkeypatch.chdir(tmp_path / "there" / "results" / "tiny-safety" / "report")
    assert "30 of 30 cells" in run("explain", "--all", "--board", "board.json").output


def test_ranks_have_intervals_and_methods_can_be_chosen(results):
    told = json.loads(run("leaderboard", "--json", "--results", results).output)
    assert [line["row"] for line in told["rows"]] == ["Task Arithmetic", "Linear", "Task Arithmetic (paper)"]
    for line in told["rows"]:
        assert 1 <= line["rank"]["low"] <= line["rank"]["mean"] <= line["rank"]["high"] <= 3
    one = json.loads(run("leaderboard", "--json", "--methods", "linear", "--results", results).output)
    assert [line["method"] for line in one["rows"]] == ["linear"]
    wrong = run("leaderboard", "--methods", "liner", "--results", results)
    assert wrong.exit_code == 2 and "no row or method is called `liner`" in wrong.output
    none = run("leaderboard", "--results", results / "nothing")
    assert none.exit_code == 2 and "no report in" in none.output


def test_reports_are_written_without_running_and_only_when_something_changed(results):
    page = results / "tiny-safety" / "report" / "table.md"
    before = page.stat().st_mtime_ns
    assert run("report", *OPTIONS, results, "--only", "markdown,csv").exit_code == 0
    assert page.stat().st_mtime_ns == before
    assert run("report", *OPTIONS, results, "--only", "markdown", "--again").exit_code == 0
    assert page.stat().st_mtime_ns > before
    watched = run("report", *OPTIONS, results, "--only", "csv", "--watch")
    assert watched.exit_code == 0 and "evaluations" in watched.output
    wrong = run("report", *OPTIONS, results, "--only", "cvs")
    assert wrong.exit_code == 2 and "did you mean `csv`" in wrong.output
    unknown = run("report", *OPTIONS, results, "--baseline", "nobody")
    assert unknown.exit_code == 2 and "`--baseline nobody` is none of the rows" in unknown.output
    no_paper = run("report", *OPTIONS, results, "--with-paper")
    assert no_paper.exit_code == 2 and "the paper has no numbers of family `tiny-safety`" in no_paper.output


def test_a_report_that_fails_does_not_stop_the_others(results, tmp_path, monkeypatch):
    (tmp_path / "reports").mkdir()
    (tmp_path / "reports" / "broken.py").write_text("def render(board, folder):\n    raise KeyError('x')\n")
    monkeypatch.chdir(tmp_path)
    done = run("report", *OPTIONS, results, "--only", "broken,csv", "--again")
    assert done.exit_code == 1 and "KeyError" in done.output and "table.csv" in done.output


@pytest.mark.slow
def test_lm_evals_own_results_become_a_row(results, tmp_path):
    file = evaluated(tmp_path / "out", "harness_tiny_chain,harness_tiny_prose", 8)
    copied = shutil.copytree(results, tmp_path / "results")
    taken = run("import", file, "--as", "theirs", "--results", copied)
    assert taken.exit_code == 0 and "`theirs`" in taken.output
    shown = run("report", *OPTIONS, copied, "--only", "json,markdown")
    assert shown.exit_code == 0, shown.output
    board = read_board(copied / "tiny-safety" / "report" / "board.json")
    theirs = next(row for row in board.rows if row.imported)
    ours = next(row for row in board.rows if row.role == "reasoning")
    for key in (("tiny_chain", "accuracy"), ("tiny_prose", "word_perplexity")):
        assert theirs.cells[key].value == pytest.approx(ours.cells[key].value, rel=1e-6)
        assert theirs.cells[key].imported and not theirs.cells[key].best
    again = json.loads(run("explain", "theirs/tiny_chain", "--json", "--results", copied).output)
    assert again["agrees"] is True
    other = [*OPTIONS[:5], "9", "--results", copied]
    run("compare", *other)
    mixed = run("report", *other)
    assert mixed.exit_code == 2 and "limit 8 instead of 9" in mixed.output
    allowed = run("report", *other, "--allow-mixed", "--only", "json")
    assert allowed.exit_code == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[]", "is no result file"),
        (json.dumps({"results": {"arc": {}}, "n-samples": {}}), "has none of the family's tasks"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told(results, tmp_path, text, message):
    path = tmp_path / "results_x.json"
    path.write_text(text)
    done = run("import", path, "--results", results)
    assert done.exit_code == 2 and message in done.output
    assert run("import", tmp_path / "absent.json", "--results", results).exit_code == 2


def test_the_tests_of_a_run_are_statsmodels_on_its_samples(results):
    """McNemar on what lies in the samples, and Holm over all tests of the table."""
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    board = read_board(results / "tiny-safety" / "report" / "board.json")
    base = next(row for row in board.rows if row.role == "base")
    cells = [(row, h, row.cell(h)) for row in board.rows for h in board.headings]
    tested = [(row, h, cell.test) for row, h, cell in cells if cell is not None and cell.test is not None]
    corrected = multitest.multipletests([test.p for *_, test in tested], method="holm")[1]
    assert [test.p_holm for *_, test in tested] == pytest.approx(list(corrected))
    exact = [one for one in tested if one[2].test.startswith("McNemar")]
    for row, h, test in exact:
        one, other = (scored(given.cell(h).folder, h.metric) for given in (row, base))
        won = sum(one[item] > other[item] for item in one)
        lost = sum(one[item] < other[item] for item in one)
        wanted = tables.mcnemar([[0, won], [lost, 0]], exact=True).pvalue if won + lost else 1.0
        assert test.p == pytest.approx(min(1.0, wanted)) and test.n == len(one) == len(other)
    assert len(exact) >= 4 and min(test.p for *_, test in exact) < 0.01


def scored(folder, metric):
    """doc_id -> score, from the samples themselves; a metric may be of some items alone."""
    rows = pq.read_table(Path(folder) / "samples.parquet").to_pylist()
    return {row["doc_id"]: row[metric] for row in rows if row[metric] is not None}
