"""The synthetic data: splits that do not overlap, prefixes, truth of the answers, errors."""

import subprocess
import sys

import pytest

from harness.families.tiny import data

TASKS = ("chain", "facts", "refusal", "prose")
KEY = {"chain": "question", "facts": "question", "refusal": "request", "prose": "text"}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_arguments_give_the_same_rows_and_fewer_give_a_prefix(task):
    for split in data.SPLITS:
        many = data.rows(task, split, n=100, seed=3)
        assert many == data.rows(task, split, n=100, seed=3)
        assert many[:50] == data.rows(task, split, n=50, seed=3)
        assert many != data.rows(task, split, n=100, seed=4)


@pytest.mark.parametrize("task", TASKS)
def test_splits_share_no_row_whatever_the_seed(task):
    size = {"chain": 2000, "facts": None, "refusal": 300, "prose": 2000}[task]
    seen = {
        split: {row[KEY[task]] for seed in (0, 1) for row in data.rows(task, split, size, seed)}
        for split in data.SPLITS
    }
    assert not seen["train"] & seen["validation"]
    assert not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]


@pytest.mark.parametrize(("task", "size"), [("chain", 200), ("facts", 150), ("refusal", 200), ("prose", 60)])
def test_usual_sizes_of_the_test_split(task, size):
    rows = data.rows(task, "test")
    assert len(rows) == size
    assert len({row[KEY[task]] for row in rows}) == size


def test_a_trace_computes_the_answer():
    for row in data.rows("chain", "test"):
        given, *steps = row["question"].removesuffix(" , mod 20 . result ?").split(" , ")
        value = int(given.removeprefix("start "))
        lines = [f"start {value}"]
        for step in steps:
            _, op, operand = step.split()
            value = eval(f"{value} {op} {operand}") % 20
            lines.append(f"{step} = {value}")
        assert row["answer"] == str(value)
        assert row["trace"] == " , ".join(lines)


def test_chain_answers_cannot_be_guessed():
    answers = [row["answer"] for row in data.rows("chain", "test")]
    assert max(answers.count(answer) for answer in set(answers)) <= 0.15 * len(answers)


def test_facts_ask_each_half_once_and_train_states_all():
    told = data.facts()
    assert len({fact["answer"] for fact in told}) == len(told) == 300
    half = {split: {row["answer"] for row in data.rows("facts", split)} for split in ("validation", "test")}
    assert len(half["validation"]) == len(half["test"]) == 150
    assert not half["validation"] & half["test"]
    assert {row["answer"] for row in data.rows("facts", "train")} == half["validation"] | half["test"]
    for row in data.rows("facts", "test"):
        assert len(set(row["choices"])) == 4
        assert row["choices"][row["label"]] == row["answer"]


def test_requests_interleave_and_hold_out_combinations_not_words():
    held_out = data.rows("refusal", "test")
    assert [row["harmful"] for row in held_out] == [True, False] * 100
    trained = data.rows("refusal", "train", 1500)
    asked = {tuple(data.compliant_answer(row).split()[-4:-1]) for row in trained}
    words = {word for combination in asked for word in combination}
    for row in held_out:
        verb, a, thing = data.compliant_answer(row).split()[-4:-1]
        assert (verb, a, thing) not in asked
        assert verb in words and thing in words
        assert row["harmful"] == (verb in data.MAKING and thing in data.DANGEROUS)


def test_the_ideal_answers_start_as_the_scorers_expect():
    for row in data.rows("refusal", "test"):
        assert data.compliant_answer(row).startswith(data.COMPLIANCE)
        assert data.safe_answer(row).startswith(data.REFUSAL if row["harmful"] else data.COMPLIANCE)
    assert all(text == text.lower() for text in data.REFUSAL + data.COMPLIANCE)


def test_prose_has_several_sentences():
    assert all(row["text"].count(" .") >= 4 for row in data.rows("prose", "test"))


def test_the_short_set_asks_the_same_and_answers_at_once():
    long, short = data.calibration("reasoning", 50), data.calibration("short", 50)
    assert [pair["prompt"] for pair in long] == [pair["prompt"] for pair in short]
    for whole, part in zip(long, short, strict=True):
        assert whole["completion"].startswith("<think>") and "<think>" not in part["completion"]
        assert whole["completion"].endswith(part["completion"])


@pytest.mark.parametrize("role", ["reasoning", "task", "short"])
def test_calibration_is_chat_from_the_train_split_in_any_number(role):
    many = data.calibration(role, 4000, seed=2)
    assert len(many) == 4000
    assert many[:100] == data.calibration(role, seed=2)
    assert many[:100] != data.calibration(role, seed=3)
    held_out = {
        data.chat(row.get("question") or row["request"])
        for task, size in (("chain", 2000), ("refusal", 300))
        for split in ("validation", "test")
        for row in data.rows(task, split, size)
    }
    for pair in many:
        assert set(pair) == {"prompt", "completion"}
        assert pair["prompt"] not in held_out
        assert pair["completion"].endswith("<|im_end|>")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: data.rows("maths", "test"), "maths"),
        (lambda: data.rows("chain", "dev"), "dev"),
        (lambda: data.rows("facts", "test", 151), "150 rows; 151"),
        (lambda: data.rows("refusal", "test", 10_000), "10000 were asked for"),
        (lambda: data.rows("chain", "test", 20_001), "20000 rows"),
        (lambda: data.rows("prose", "test", -1), "-1"),
        (lambda: data.calibration("safety"), "safety"),
    ],
)
def test_what_does_not_exist_is_an_error_that_names_it(call, says):
    with pytest.raises(ValueError, match=says):
        call()


def test_importing_the_data_does_not_import_torch():
    check = "import sys, harness.families.tiny.data; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check]).returncode == 0
