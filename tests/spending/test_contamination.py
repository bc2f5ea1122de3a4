"""Rows of the test set among the calibration rows: by id, by 13 words; near misses are none."""

import json
from pathlib import Path

import pytest

from harness import contamination
from harness import tasks as tasks_of
from harness.contamination import compare, words

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "pubmedqa"
TEXT = "the quick brown fox jumps over the lazy dog while seven small birds watch from a tree"


def found(texts, items, ids=None):
    told = compare(texts, ids or [None] * len(texts), items)
    return told["by_id"], told["by_words"], told["found"]


def test_a_run_of_thirteen_words_counts_and_twelve_do_not():
    spelled = TEXT.split()
    items = [{"question": "Listen: " + TEXT + "!"}]
    assert found([" ".join(spelled[:13])], items) == (0, 1, 1)
    assert found([" ".join(spelled[:12])], items) == (0, 0, 0)


def test_case_and_punctuation_do_not_matter_but_signs_do():
    assert found([TEXT.upper().replace(" ", ", ")], [{"q": TEXT}]) == (0, 1, 1)
    assert words("a + 2, b - 3.") == ["a", "+2", "b", "-3"]
    plus = "start 3 , a + 2 , b + 3 , c + 4 , d + 5 , e + 6 , f + 7"
    assert found([plus], [{"q": plus.replace("+", "-")}]) == (0, 0, 0)


def test_ids_count_as_text_or_number():
    assert found(["x", "y"], [{"id": 12377809}], ["12377809", "1"]) == (1, 0, 1)


def test_small_running_numbers_are_no_ids():
    items = [{"id": 7}, {"id": "12345"}, {"id": 123456}, {"id": "test/7"}]
    assert found(["a", "b", "c", "d"], items, ["7", "12345", "123456", "test/7"]) == (2, 0, 2)


def test_templates_do_not_count():
    items = [{"q": f"{TEXT} number {i}"} for i in range(11)]
    assert found([TEXT], items) == (0, 0, 0)
    assert found([TEXT], items[:10]) == (0, 1, 1)


def test_a_short_item_counts_as_a_whole_from_eight_words_on():
    items = [{"q": "Is it true that all cats are grey"}]
    assert found(["so we ask: is it true that all cats are grey at night? yes"], items) == (0, 1, 1)
    assert found(["so we ask: is it true that all cats"], items) == (0, 0, 0)
    assert found(["so we ask: is it true"], [{"q": "is it true"}]) == (0, 0, 0)


def test_texts_deep_in_a_row_are_read():
    assert found([TEXT], [{"options": [{"text": TEXT}]}]) == (0, 1, 1)


def test_the_official_first_hundred_are_in_the_test_set(tmp_path, monkeypatch):
    """PubMedQA as it is published: the rows that ReasonAny calibrates on are rows of the test set."""
    if not REAL.is_dir():
        pytest.skip(f"no {REAL}")
    held = json.loads((REAL / "ori_pqal_first100.json").read_text())
    truth = json.loads((REAL / "test_ground_truth.json").read_text())
    place = tmp_path / "pubmedqa"
    place.mkdir()
    (place / "ori_pqal.json").write_text(json.dumps(held))
    (place / "test_ground_truth.json").write_text(json.dumps(truth))
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    (task,) = tasks_of.named(["pubmedqa"])
    items = contamination._items(task, "test")
    texts = [row["QUESTION"] + "\n" + row["LONG_ANSWER"] for row in held.values()]
    told = compare(texts, list(held), items)
    assert told["by_id"] == sum(name in truth for name in held) > 0
    assert told["by_words"] >= 0.9 * told["by_id"] and told["found"] == told["by_id"]
    assert compare(texts, [None] * 100, items)["found"] == told["by_words"]


FAMILY = """
extends: tiny-safety
calibration:
  task: {data: rows.jsonl, text: "{question} {answer}", completion: "{answer}", n: 3}
tasks: [mine]
methods: {reasonany: {}}
"""
TASK = """
task: harness_mine
custom_dataset: !function mine.rows
dataset_kwargs: {benchmark: mine, files: {test: [test.jsonl]}, id: pubid}
test_split: test
output_type: generate_until
doc_to_text: "{{question}}"
doc_to_target: answer
generation_kwargs: {until: [], do_sample: false, max_gen_toks: 8}
process_results: !function mine.score
metric_list: [{metric: accuracy, aggregation: mean, higher_is_better: true}]
metadata: {version: 1, harness: {title: Mine, group: Test, paper: none, licence: MIT, revision: none,
  profile: standard, higher_is_better: true}}
"""
CODE = '''
"""Rows of one's own."""
from harness import Score, benchmark, scorer


@benchmark
def rows(row):
    return {"question": row["question"], "answer": row["answer"], "pubid": row["pubid"]}


@scorer("accuracy")
def score(response, row):
    return Score(float(response == row["answer"]))
'''


@pytest.fixture
def plan(workdir, monkeypatch):
    from harness.family import load_family
    from harness.planner import make_plan
    from harness.store import Store

    for name, text in {"families/own.yaml": FAMILY, "tasks/mine.yaml": TASK, "tasks/mine.py": CODE}.items():
        (workdir / name).parent.mkdir(exist_ok=True)
        (workdir / name).write_text(text)
    rows = [{"question": f"{TEXT} {i}", "answer": "yes", "pubid": 100000 + i} for i in range(3)]
    (workdir / "families" / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (workdir / "data" / "mine").mkdir(parents=True)
    tested = [{"question": "short", "answer": "yes", "pubid": 100001}, {**rows[2], "pubid": 7}]
    (workdir / "data" / "mine" / "test.jsonl").write_text("\n".join(map(json.dumps, tested)))
    monkeypatch.setenv("HARNESS_DATA", str(workdir / "data"))
    family = load_family("own")
    return make_plan(family, Store(Path("results"), family.name), prepare=True)


def test_a_plan_names_them_and_keeps_what_it_found(plan, monkeypatch):
    told = contamination.of_plan(plan)
    assert [(o.role, o.task, o.by_id, o.by_words, o.found, o.rows, o.items) for o in told] == [
        ("task", "mine", 1, 3, 3, 3, 2)
    ]
    (sentence,) = contamination.footnotes(plan)
    assert (
        "3 of 3 calibration rows of `task` (rows.jsonl) are in mine's test set of 2 (1 by id, 3 by words)"
        in sentence
    )
    monkeypatch.setattr(contamination, "_items", lambda *_: pytest.fail("read again"))
    assert contamination.of_plan(plan) == told
