"""Searches side by side: the trials of each alone, one measurement per round, a file never behind."""

import csv

import pytest

from harness.sweep.contest import Contender, hold, listed
from harness.sweep.grid import Span
from harness.sweep.search import asking, search

pytest.importorskip("optuna")


def hill(settings):
    return -((settings["scale"] - (0.4 if settings["method"] == "ties" else 1.3)) ** 2)


class Rows:
    """Measures rows as `Runs` does, and tells what it has after each row."""

    def __init__(self, path=None, fails=()):
        self.asked, self.path, self.fails, self.seen = [], path, set(fails), []

    def measure(self, rows, limit, so_far):
        self.asked.append((list(rows), limit))
        values = dict.fromkeys(rows)
        for label, settings in rows.items():
            so_far(values)
            if self.path:
                self.seen.append(read(self.path))
            values[label] = None if label in self.fails else hill(settings)
        so_far(values)
        return values


def read(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def two():
    return [Contender("ties", "ties", {"density": 0.5}, {"scale": Span(0, 2)}),
            Contender("linear sum", "task_arithmetic", {}, {"scale": Span(0, 2)})]  # fmt: skip


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_each_contender_has_the_trials_that_it_has_alone(kind, tmp_path):
    runs, both = Rows(), two()
    hold(runs, both, lambda one: asking(kind, one.axes, 11, seed=2), tmp_path / "trials.csv")
    for one in both:
        alone = search(
            kind, one.axes, 11, lambda points, _, one=one: [hill(one.settings(p)) for p in points], seed=2
        )
        assert one.trials == alone and len(alone) == 11
    assert len(runs.asked) == (1 if kind == "random" else 3)  # TPE: batches of four, those of both together
    assert all(any(n.startswith("ties") for n in names) for names, _ in runs.asked)
    assert [(r["row"], float(r["scale"]), float(r["value"])) for r in read(tmp_path / "trials.csv")] == [
        (one.label, t.point["scale"], t.value) for one in both for t in one.trials
    ]


def test_halving_of_several_keeps_rounds_of_one_size_together(tmp_path):
    runs, both = Rows(), two()
    hold(runs, both, lambda one: asking("halving", one.axes, 9, smallest=10), tmp_path / "trials.csv")
    assert [(len(names), limit) for names, limit in runs.asked] == [(18, 10), (6, 30), (2, None)]


def test_the_file_has_every_trial_begun_and_every_value_known(tmp_path):
    path = tmp_path / "trials.csv"
    runs, one = Rows(path, fails={"ties scale=0.2"}), two()[0]
    hold(runs, [one], lambda _: listed([{"scale": s} for s in (0.1, 0.2, 0.3)], 8), path)
    assert [[row["value"] != "" for row in seen] for seen in runs.seen] == [
        [False] * 3, [True, False, False], [True, False, False]
    ]  # fmt: skip
    last = read(path)
    assert [row["value"] != "" for row in last] == [True, False, True] and list(last[0]) == [
        "scale",
        "value",
        "limit",
    ]
    assert one.best.point == {"scale": 0.3}


def test_a_setting_asked_twice_is_measured_once(tmp_path):
    one = Contender("ties", "ties", {}, {"scale": [0.1, 0.2]})
    runs = Rows()
    hold(runs, [one], lambda c: asking("random", c.axes, 9), tmp_path / "trials.csv")
    assert len(one.trials) == 9 and len(runs.asked[0][0]) == 2
