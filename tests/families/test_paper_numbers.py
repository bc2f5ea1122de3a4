"""The paper's numbers: all of them are there, where they are printed, and what contradicts itself is said."""

import csv
from pathlib import Path

import pytest

from harness import paper, tasks

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared" / "paper"


def value(table, family, method, benchmark):
    (found,) = [
        n
        for n in paper.everything()
        if (n.table, n.family, n.method, n.benchmark) == (table, family, method, benchmark)
    ]
    return found


@pytest.mark.parametrize(
    ("where", "wanted", "collapsed"),
    [
        ((1, "qwen7b-safety", "reasonany", "gsm8k"), 86.28, False),
        ((1, "qwen7b-safety", "ties", "gsm8k"), 0.83, True),
        ((1, "qwen7b-safety", "dare", "harmbench"), 0.0, True),
        ((2, "qwen7b-biomedicine", "reasonany", "medqa"), 47.96, False),
        ((11, "llama8b-safety", "led", "humaneval"), 38.66, False),
        ((13, "qwen7b-finance", "reasonany", "convfinqa"), 55.85, False),
        ((14, "llama8b-finance", "expert_task", "gsm8k"), 54.36, False),
        ((4, "qwen7b-safety", "dare", "word_perplexity"), 505969.92, False),
        ((19, "llama8b-finance", "reasonany", "word_perplexity"), 7.87, False),
    ],
)
def test_cells_are_those_that_the_paper_prints(where, wanted, collapsed):
    found = value(*where)
    assert (found.value, found.collapsed) == (wanted, collapsed)
    assert found.label == f"arXiv:2601.05560, table {where[0]}"


@pytest.mark.parametrize("name", paper.FAMILIES)
def test_every_family_has_its_table_and_perplexities(name):
    numbers = paper.numbers(name)
    assert {n.method for n in numbers} == {
        "expert_task", "expert_reasoning",
        "linear", "task_arithmetic", "ties", "dare", "fusellm", "led", "reasonany",
    }  # fmt: skip
    assert {n.table for n in numbers} - {4, 18, 19} == {paper.TABLES[name]}
    assert sum(n.benchmark == "word_perplexity" for n in numbers) == 9


def test_every_benchmark_is_a_column_of_a_task_of_ours():
    assert {n.benchmark for n in paper.everything()} == {*paper.COLUMNS, "average"}
    for name, metric, factor in paper.COLUMNS.values():
        (task,) = tasks.named([name])
        column = next(c for c in task.columns if c.key == metric)
        assert (factor == 0.01) == (column.kind == "accuracy") or (name, metric) == ("harmbench", "asr")


def test_contradictions_are_found_with_the_numbers_they_concern():
    said = " ".join(note.text for note in paper.notes(paper.numbers("qwen7b-safety")))
    assert "Tables 1 and 3" in said and "Tables 1 and 2 share" in said and "Table 7" in said
    assert "table 10 repeats" not in said and "FinanceQA" not in said
    assert paper.notes([]) == []
    # and they are true
    one, three = (value(t, "qwen7b-safety", "reasonany", "safety_tuned").value for t in (1, 3))
    assert (one, three) == (1.19, 0.84)
    for method in ("linear", "task_arithmetic", "ties", "dare", "led"):
        pair = [
            value(t, f, method, "gsm8k").value for t, f in ((1, "qwen7b-safety"), (2, "qwen7b-biomedicine"))
        ]
        assert pair[0] == pair[1]
    assert not [n for n in paper.numbers("qwq32b-safety") if n.benchmark == "harmbench"]


def test_each_note_concerns_something():
    for note in paper._notes():
        if note.text.startswith("The HarmBench column"):
            continue  # of cells that are left out
        assert any(note.concerns(n) for n in paper.everything()), note.text


def test_alternative_calibration_tables_name_sets_of_the_families():
    from harness.family import load_family

    for table, (role, name) in paper.ALTERNATIVES.items():
        assert paper.numbers("qwen7b-safety", table)
        assert name in load_family("qwen7b-safety").calibration_sets[role]


def test_ablations_and_costs_are_there():
    rows = {(row["table"], row["variant"]): float(row["gsm8k"]) for row in paper.selection_ablations()}
    assert rows["16", "cumulative_10"] == 83.18 and rows["17", "with_exclusion_5"] == 80.29
    assert {row["method"]: row["seconds"] for row in paper.merge_cost()}["reasonany"] == "76"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the reference material is not beside this checkout")
@pytest.mark.parametrize("name", ["benchmarks", "perplexity", "selection_ablations", "merge_cost"])
def test_the_data_is_the_reference_material(name):
    with (SHARED / f"{name}.csv").open() as theirs, (paper.FOLDER / f"{name}.csv").open() as ours:
        assert list(csv.reader(theirs)) == list(csv.reader(ours))
