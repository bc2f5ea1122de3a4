"""Boards of plans: labels that are one row's alone, what is tested against what, commands that can be run."""

import json
import shlex

import pytest
from click.testing import CliRunner

from harness.board import make_board, significance
from harness.board.cells import headings_of
from harness.board.model import BoardRow, Cell
from harness.cli import main
from harness.errors import HarnessError
from harness.evaluate.results import write_samples
from harness.family import load_family
from harness.planner import checkpoint_plan, make_plan
from harness.store import Store
from tests.board_rows import CHAIN, HEADINGS

TASKS = ["tiny_chain", "tiny_prose"]
MINE = """from harness import merge_method


@merge_method("mine", title="My method", draws=lambda self: True)
class Mine:
    def merge(self, group, state):
        return group.base
"""


def plan(folder, methods=None, family="tiny-safety", **more):
    loaded = load_family(family)
    return make_plan(loaded, Store(folder / "results", loaded.name), tasks=TASKS, methods=methods, **more)


def imported(store, *labels, values=(1.0, 0.0)):
    for number, label in enumerate(labels):
        folder = store.root / "imported" / f"row-{number}"
        samples = [{"doc_id": i, "accuracy": value} for i, value in enumerate(values)]
        (folder / "tiny_chain").mkdir(parents=True)
        write_samples(samples, folder / "tiny_chain" / "samples.parquet")
        metrics = {"accuracy": {"value": sum(values) / len(values), "stderr": 0.1, "n": len(values)}}
        told = {"label": label, "file": "results_x.json",
                "tasks": {"tiny_chain": {"metrics": metrics, "settings": {}}}}  # fmt: skip
        (folder / "row.json").write_text(json.dumps(told))


def test_an_imported_row_never_shares_a_label_with_another(tmp_path):
    made = plan(tmp_path, ["linear"])
    imported(made.store, "base", "Linear", "theirs")
    board = make_board(made)
    labels = [row.label for row in board.rows]
    assert labels == [
        "base",
        "reasoning",
        "safety",
        "Linear",
        "base (imported)",
        "Linear (imported)",
        "theirs",
    ]
    assert any(n.startswith("Linear (imported): imported as `Linear`") for n in board.footnotes)
    assert [row.imported for row in board.rows if row.label == "base"] == [False]


def test_two_rows_of_one_label_are_refused(tmp_path):
    made = plan(tmp_path, ["linear"])
    imported(made.store, "base", "base (imported)")
    with pytest.raises(HarnessError, match=r"2 rows are called `base \(imported\)`") as told:
        make_board(made)
    assert "--as LABEL" in told.value.hint


def test_two_methods_of_one_title_are_told_before_any_work(workdir):
    """As when a method's file was copied to begin another."""
    (workdir / "mine.py").write_text(MINE.replace("My method", "TIES"))
    done = CliRunner().invoke(main, ["compare", "--methods", "ties,./mine.py", "--tasks", "tiny_chain"])
    assert done.exit_code == 2 and "2 rows are called `TIES`" in done.output
    assert not list(workdir.glob("results/*/models/*/done.json"))


def shown(folder, label, role, values):
    place = folder / label
    place.mkdir()
    write_samples([{"doc_id": i, "exact": v} for i, v in enumerate(values)], place / "samples.parquet")
    cell = Cell(sum(values) / len(values), 0.1, len(values), folder=str(place))
    return BoardRow(label, role, None, {}, "", {("chain", "exact"): cell})


def test_experts_of_any_role_are_not_tested_and_correct_nothing(tmp_path):
    """With one merge beside four experts, Holm's family is that one test: p stays as it is."""
    worse, better = [0.0] * 12, [1.0] * 12
    base = shown(tmp_path, "base", "base", worse)
    experts = [shown(tmp_path, r, r, better) for r in ("reasoning", "task", "code", "law")]
    others = [shown(tmp_path, r, r, better) for r in ("merge", "checkpoint", "imported")]
    significance.test_rows(HEADINGS[:1], [base, *experts, others[0]], base)
    assert [row.cell(CHAIN).test for row in (base, *experts)] == [None] * 5
    assert others[0].cell(CHAIN).test.p_holm == others[0].cell(CHAIN).test.p == pytest.approx(2 / 2**12)
    significance.test_rows(HEADINGS[:1], [base, *experts, *others], base)
    assert all(row.cell(CHAIN).test.p_holm == pytest.approx(3 * 2 / 2**12) for row in others)


@pytest.mark.parametrize(
    "name", ["led", "LED-Merging", "linear", "Linear", "task", "safety", "theirs", "base"]
)
def test_a_baseline_has_any_of_its_names(tmp_path, name):
    made = plan(tmp_path, ["linear", "led"])
    imported(made.store, "theirs")
    want = {"led": "LED-Merging", "linear": "Linear", "task": "safety"}.get(name, name)
    assert make_board(made, baseline=name).baseline == want


def test_a_baseline_that_is_not_shown_is_an_error_and_the_familys_own_is_said(tmp_path, monkeypatch):
    made = plan(tmp_path, ["linear"])
    with pytest.raises(HarnessError, match="`--baseline led` is none of the rows that are shown"):
        make_board(made, baseline="led")
    given = ["--methods", "linear", "--tasks", "tiny_chain", "--results", str(tmp_path / "results"),
             "--baseline", "led"]  # fmt: skip
    for verb in ("compare", "report"):
        done = CliRunner().invoke(main, [verb, *given])
        assert done.exit_code == 2 and "`--baseline led` is none of the rows" in done.output
    assert not list((tmp_path / "results").glob("*/models/*/done.json")), "told before any work"
    alone = plan(tmp_path, ["linear"], references=False)
    assert any("baseline `base` is not among the rows" in n or "nothing was tested" in n
               for n in make_board(alone).footnotes) == (len(alone.rows) > 1)  # fmt: skip
    two = make_board(plan(tmp_path, ["linear", "ties"], references=False))
    assert "nothing was tested: the family's baseline `base` is not among the rows" in two.footnotes


def test_what_a_baseline_without_items_cannot_test_is_said(tmp_path):
    made = plan(tmp_path, ["linear"])
    imported(made.store, "theirs", values=(1.0,))
    board = make_board(made, baseline="theirs")
    assert any(note.startswith("nothing was tested against theirs") for note in board.footnotes)


def command(made, label, **more):
    row = next(row for row in make_board(made).rows if row.label == label)
    return shlex.split(row.command)


def value(parts, option):
    return parts[parts.index(option) + 1] if option in parts else None


def test_a_command_says_everything_that_changes_a_number(workdir):
    (workdir / "mine.py").write_text(MINE)
    (workdir / "methods").mkdir()
    (workdir / "methods" / "found.py").write_text(MINE.replace("mine", "found").replace("My", "Found"))
    (workdir / "fams").mkdir()
    (workdir / "fams" / "fam.yaml").write_text("extends: tiny-safety\ntitle: mine\nseeds: 2\n")
    three = plan(workdir, ["./mine.py", "found", "ties (paper)"], "fams/fam.yaml", seeds=3, limit=4)
    mine = command(three, "My method")
    assert mine[:2] == ["harness", "compare"]
    assert value(mine, "--methods") == "./mine.py" and value(mine, "--family") == "fams/fam.yaml"
    assert (value(mine, "--seeds"), value(mine, "--limit"), value(mine, "--engine")) == ("3", "4", "hf")
    assert value(command(three, "TIES (paper)"), "--methods") == "ties (paper)"
    two = plan(workdir, ["./mine.py"], "fams/fam.yaml")
    assert value(command(two, "My method"), "--seeds") is None, "the family has two"
    assert value(command(plan(workdir, ["linear"], "fams/fam.yaml", seeds=1), "Linear"), "--seeds") == "1"
    named = command(plan(workdir, ["found"]), "Found method")
    assert value(named, "--methods") == "found" and value(named, "--family") == "tiny-safety"


def test_a_command_makes_the_same_row_from_the_runs_folder(workdir):
    """What is printed is planned again, and gives the same folders."""
    (workdir / "mine.py").write_text(MINE)
    (workdir / "fam.yaml").write_text("extends: tiny-safety\ntitle: mine\n")
    made = plan(workdir, ["./mine.py"], "./fam.yaml", seeds=2)
    said = command(made, "My method")
    again = plan(
        workdir, [value(said, "--methods")], value(said, "--family"), seeds=int(value(said, "--seeds"))
    )
    assert [row.folder for row in again.rows] == [row.folder for row in made.rows]
    assert [step.folder for step in again.evals] == [step.folder for step in made.evals]


def test_a_checkpoint_of_its_own_is_evaluated_again(workdir):
    family = load_family("tiny-safety")
    made = checkpoint_plan(
        family, Store(workdir / "results", "x"), family.model_path("reasoning"), tasks=TASKS
    )
    said = command(made, "reasoning")
    assert said[:2] == ["harness", "eval"] and said[2] == str(family.model_path("reasoning"))
    assert headings_of(made.tasks) and "--seeds" not in said
