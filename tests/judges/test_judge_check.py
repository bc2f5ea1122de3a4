"""Agreement with human labels: the arithmetic against scikit-learn, and files good and bad."""

import json
import random

import pytest

from harness import Score
from harness.errors import HarnessError
from harness.judges import Spec
from harness.judges.agreement import UNPARSED, agreement
from harness.judges.check import check_file
from harness.judges.rules import ask, read
from tests.judges.conftest import CPU, asked, completion, reward_model

RULES = Spec("rules", "refusal")


def test_the_worked_example_of_cohen():
    # 50 proposals: both yes 20, both no 15, human yes 5, judge yes 10: p 0.7, e 0.5, kappa 0.4
    human = [1] * 25 + [0] * 25
    judged = [1] * 20 + [0] * 5 + [1] * 10 + [0] * 15
    found = agreement(human, judged)
    assert found["accuracy"] == pytest.approx(0.7) and found["kappa"] == pytest.approx(0.4)
    assert found["confusion"] == {0: {0: 15, 1: 10}, 1: {0: 5, 1: 20}} and found["unparsed"] == 0


@pytest.mark.parametrize("seed", range(10))
def test_against_scikit_learn(seed):
    from sklearn.metrics import cohen_kappa_score, confusion_matrix

    draw = random.Random(seed)
    human = [draw.randint(1, 5) for _ in range(80)]
    judged = [h if draw.random() < 0.6 else draw.randint(1, 5) for h in human]
    found = agreement(human, judged)
    assert found["kappa"] == pytest.approx(cohen_kappa_score(human, judged))
    matrix = [list(row.values()) for row in found["confusion"].values()]
    assert matrix == confusion_matrix(human, judged, labels=[1, 2, 3, 4, 5]).tolist()


def test_what_cannot_be_read_stays_in_and_agrees_with_nobody():
    found = agreement([1.0, 1.0, 0.0, 0.0], [1.0, UNPARSED, 0.0, UNPARSED])
    assert (found["n"], found["unparsed"], found["accuracy"]) == (4, 2, 0.5)
    assert found["confusion"][1.0] == {0.0: 0, 1.0: 1, UNPARSED: 1}
    assert agreement([1, 1], [UNPARSED, UNPARSED])["accuracy"] == 0
    assert agreement([1, 1], [1, 1])["kappa"] is None, "with one label only there is nothing to agree on"
    with pytest.raises(ValueError):
        agreement([], [])


def write(path, rows):
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        text = "prompt,response,label\n" + "".join(
            ",".join(f'"{row[k]}"' for k in ("prompt", "response", "label")) + "\n" for row in rows
        )
        path.write_text(text)
    return path


ROWS = [
    {"prompt": "p1", "response": "I cannot help with that.", "label": "yes"},
    {"prompt": "p2", "response": "Sure, here it is.", "label": "no"},
    {"prompt": "p3", "response": "<think>I cannot?</think>Sure, here.", "label": "no"},
    {"prompt": "p4", "response": "No way.", "label": "yes"},
]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.csv"])
def test_a_labelled_file_is_judged_and_told(tmp_path, name):
    told, file = [], write(tmp_path / name, ROWS)
    store = tmp_path / "j.sqlite"
    assert check_file(file, RULES, ask, read, store=store, as_json=True, echo=told.append) == 0
    found = json.loads(told[0])
    assert (found["n"], found["accuracy"], found["unparsed"]) == (4, 0.75, 0)
    assert found["kappa"] == pytest.approx(0.5)
    assert found["confusion"] == {"0": {"0": 2, "1": 0}, "1": {"0": 1, "1": 1}}
    check_file(file, RULES, ask, read, store=store, echo=told.append)
    assert "accuracy  0.750" in told[1] and "kappa     0.500" in told[1] and "(judge)" in told[1]


def test_ratings_of_a_chat_judge_against_ratings_of_people(serve, tmp_path):
    verdicts = {"a": "Rating: 5", "b": "Rating: 2", "c": "who knows", "d": "Rating: 1"}
    server = serve(lambda number, body: completion(verdicts[asked(body)]))
    rows = [
        {"prompt": "", "response": key, "label": label}
        for key, label in zip("abcd", (5, 1, 4, 1), strict=True)
    ]

    def rating(answer, row):
        found = answer.partition("Rating: ")[2]
        return Score(float(found)) if found else Score(None, unparsed=True)

    told, spec = (
        [],
        Spec("chat", "m", parameters={"base_url": server.url, "price": {"input": 1, "output": 1}}),
    )
    file, store = write(tmp_path / "rows.jsonl", rows), tmp_path / "j.sqlite"
    check_file(file, spec, ask, rating, store=store, as_json=True, echo=told.append)
    found = json.loads(told[0])
    assert (found["n"], found["accuracy"], found["unparsed"]) == (4, 0.5, 1)
    assert found["confusion"]["4"]["unparsed"] == 1 and found["cost"] == pytest.approx(40 / 1e6)
    check_file(file, spec, ask, rating, store=store, threshold=3, as_json=True, echo=told.append)
    assert len(server.seen) == 4, "another reading asks nothing"
    check_file(file, spec, ask, rating, store=store, echo=told.append)
    assert "1 unparsed" in told[2] and "cost      0.0000 USD" in told[2]


def test_a_reward_model_needs_a_threshold(tmp_path):
    path = reward_model(tmp_path / "model")
    file = write(tmp_path / "rows.jsonl", ROWS)
    spec, told, store = Spec("reward", str(path)), [], tmp_path / "j.sqlite"

    def number(answer, row):
        return Score(answer)

    with pytest.raises(HarnessError, match="the judge gives .*, the labels are classes") as error:
        check_file(file, spec, ask, number, store=store, settings=CPU)
    assert "--threshold" in error.value.hint
    check_file(file, spec, ask, number, store=store, threshold=0.0, as_json=True, echo=told.append)
    assert json.loads(told[0])["from_store"] == 4


@pytest.mark.parametrize(
    "row, message",
    [
        ({"prompt": "p", "response": "r"}, "row 2: field `label` is missing"),
        ({"prompt": "p", "response": 3, "label": 1}, "row 2: field `response` is int"),
        ({"prompt": "p", "response": "r", "label": "maybe"}, "row 2: field `label` is 'maybe'"),
        ({"prompt": "p", "response": "r", "label": "nan"}, "row 2: field `label` is not a number"),
        (["p", "r", 1], "row 2 is list"),
    ],
)
def test_malformed_rows_are_named(tmp_path, row, message):
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(HarnessError, match=message) as error:
        check_file(file, RULES, ask, read, store=tmp_path / "j.sqlite")
    assert str(file) in error.value.message and error.value.hint
