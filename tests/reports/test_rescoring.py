"""explain scores stored responses again: it finds what was changed in them, in their scores, or since."""

import json
import re
import shutil

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from harness.board import read_board
from harness.cli import main
from harness.evaluate.results import write_samples

TASKS = "tiny_chain,tiny_facts,tiny_refusal,tiny_facts_mc,tiny_prose"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("again") / "results"
    done = run("compare", "--methods", "linear", "--tasks", TASKS, "--limit", "8", "--results", folder)
    assert done.exit_code == 0, done.output
    return folder


def run(*given):
    return CliRunner().invoke(main, list(map(str, given)))


def test_every_cell_is_scored_again_from_the_stored_responses_and_equals_the_printed_one(results):
    board = read_board(results / "tiny-safety" / "report" / "board.json")
    done = run("explain", "--all", "--json", "--results", results)
    told = json.loads(done.output)
    assert done.exit_code == 0 and len(told) == sum(len(row.cells) for row in board.rows) == 4 * 6
    assert {(one["agrees"], one["recomputed_from"]) for one in told} == {(True, "responses")}
    plain = run("explain", "--all", "--results", results).output
    assert "24 of 24 cells recomputed and equal, 24 of them by scoring the stored responses again" in plain


def edited(results, to, model, task, change):
    """A copy of the results in which `change` was applied to the samples of a model in a task."""
    copied = shutil.copytree(results, to / "results")
    (path,) = (copied / "tiny-safety").glob(f"models/{model}-*/evals/{task}--????????/samples.parquet")
    rows = pq.read_table(path).to_pylist()
    change(rows)
    write_samples(rows, path)
    board = copied / "tiny-safety" / "report" / "board.json"
    board.write_text(board.read_text().replace(str(results), str(copied)))
    return copied


def explained(results, cell):
    done = run("explain", cell, "--json", "--results", results)
    return done.exit_code, json.loads(done.output)


def test_a_changed_response_is_scored_again_and_found(results, tmp_path):
    """The stored scores say what they said: only the scorer on the responses tells."""

    def change(rows):
        rows[3]["response"] = "I cannot tell."

    copied = edited(results, tmp_path, "reasoning", "tiny_chain", change)
    code, told = explained(copied, "reasoning/tiny_chain")
    assert code == 1 and told["agrees"] is False and told["items_scored_otherwise_now"] == [3]
    assert told["value"] == 1.0 and told["recomputed"] == 0.875


def test_changed_choices_are_scored_again(results, tmp_path):
    def change(rows):
        choices = json.loads(rows[0]["response"])
        for choice in choices:
            choice["logprob"] *= -1
        rows[0]["response"] = json.dumps(choices)

    code, told = explained(edited(results, tmp_path, "base", "tiny_facts_mc", change), "base/tiny_facts_mc")
    assert code == 1 and told["items_scored_otherwise_now"] == [0]


def test_scores_that_were_changed_with_the_table_are_found(results, tmp_path):
    """Whoever turns a score into a right one, in the samples and in the table, has not changed the answer."""

    def change(rows):
        for row in rows:
            row["accuracy"] = 1.0

    copied = edited(results, tmp_path, "base", "tiny_chain", change)
    path = copied / "tiny-safety" / "report" / "board.json"
    board = read_board(path)
    board.rows[0].cells["tiny_chain", "accuracy"].value = 1.0
    path.write_text(board.to_json())
    code, told = explained(copied, "base/tiny_chain")
    assert code == 1 and told["recomputed"] < 1.0 and told["items_scored_otherwise_now"]
    done = run("explain", "--all", "--results", copied)
    assert done.exit_code == 1 and "items score otherwise than stored" in done.output


def test_a_scorer_that_changed_since_is_said(results, tmp_path):
    """A scorer or a question that is no longer the one of the run is no secret."""
    path = next(
        iter((results / "tiny-safety").glob("models/reasoning-*/evals/tiny_chain--????????/recipe.yaml"))
    )
    text = path.read_text()
    elsewhere = shutil.copytree(results, tmp_path / "results")
    board = elsewhere / "tiny-safety" / "report" / "board.json"
    board.write_text(board.read_text().replace(str(results), str(elsewhere)))
    recipe = elsewhere / path.relative_to(results)
    recipe.write_text(re.sub(r"scorer: \w+", "scorer: " + "0" * 64, text))
    code, told = explained(elsewhere, "reasoning/tiny_chain")
    assert code == 0 and "changed since" in told["scorer"]
    recipe.write_text(re.sub(r"prompts: \w+", "prompts: " + "0" * 64, text))
    code, told = explained(elsewhere, "reasoning/tiny_chain")
    assert code == 0 and told["recomputed_from"] == "stored scores"
    assert "asks something else now" in told["not_from_responses"]
