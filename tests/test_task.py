"""The scorer contract: thinking, directions, several responses to a row, scorers that wait."""

import itertools
import threading
import time

import pytest

from harness import Score, scorer
from harness.task import pass_at_k, strip_thinking, thinking_of


@scorer("accuracy")
def higher(response, row):
    return Score(float(response.strip() == row["gold"]), unparsed=not response.strip())


@scorer("asr", lower=True)
def lower(response, row):
    return Score(float(not response.startswith("no")))


def test_one_response():
    assert higher({"gold": "a"}, ["<think> b </think> a"]) == {"accuracy": 1, "unparsed": 0, "unfinished": 0}
    assert higher({"gold": "a"}, [""]) == {"accuracy": 0, "unparsed": 1, "unfinished": 0}


def test_unfinished_counts_as_wrong_where_higher_is_better_and_not_at_all_where_lower_is():
    assert higher({"gold": "a"}, ["<think> a"]) == {"accuracy": 0, "unparsed": 0, "unfinished": 1}
    assert lower({}, ["<think> no"]) == {"unparsed": 0, "unfinished": 1}
    assert lower({}, ["<think> x </think>no"]) == {"asr": 0, "unparsed": 0, "unfinished": 0}


def test_several_responses_are_averaged_and_give_pass_at_k():
    found = higher({"gold": "a"}, [["a", "b", "<think>", "a"]])
    assert found["accuracy"] == 0.5 and found["unfinished"] == 0.25 and found["unparsed"] == 0
    assert found["pass@1"] == 0.5 and found["pass@4"] == 1.0
    assert found["pass@2"] == pytest.approx(1 - (2 * 1) / (4 * 3))
    assert "pass@8" not in found


def test_pass_at_k_is_the_share_of_subsets_with_a_right_one():
    for n in range(1, 7):
        for correct in range(n + 1):
            right = [i < correct for i in range(n)]
            for k in range(1, n + 1):
                subsets = list(itertools.combinations(right, k))
                assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    for bad in ((3, 4, 1), (3, 1, 4), (3, 1, 0)):
        with pytest.raises(ValueError):
            pass_at_k(*bad)


def test_a_scorer_that_waits_is_asked_several_times_at_once_and_never_twice():
    asked, busy, most, lock = [], 0, 0, threading.Lock()

    @scorer("pass@1", parallel=True)
    def slow(response, row):
        nonlocal busy, most
        with lock:
            asked.append((row["id"], response))
            busy += 1
            most = max(most, busy)
        time.sleep(0.05)
        with lock:
            busy -= 1
        return Score(float(response == "x"))

    rows = [{"id": i} for i in range(6)]
    slow.ahead([(row, "x" if row["id"] % 2 else "y") for row in rows], 3)
    assert most == 3 and len(asked) == 6
    found = [slow(row, ["x" if row["id"] % 2 else "y"])["pass@1"] for row in rows]
    assert found == [0, 1, 0, 1, 0, 1] and len(asked) == 6
    assert slow(rows[0], ["x"])["pass@1"] == 1 and len(asked) == 7  # another response is another question


@pytest.mark.parametrize(
    "response, thinking, answer",
    [
        ("<think>a</think>b", "a", ("b", False)),
        ("a</think>b", "a", ("b", False)),
        ("<think>a", "a", ("", True)),
        ("b", "", ("b", False)),
        ("<think>a</think>b</think>c", "a</think>b", ("c", False)),
    ],
)
def test_thinking_and_answer_part(response, thinking, answer):
    assert thinking_of(response) == thinking and strip_thinking(response) == answer
