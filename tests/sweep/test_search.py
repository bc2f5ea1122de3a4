"""Searches: they keep to their budget, repeat, and find the top of a hill better than chance."""

import pytest

from harness.errors import HarnessError
from harness.sweep.grid import Span
from harness.sweep.search import Trial, best, search

pytest.importorskip("optuna")
AXES = {"scale": Span(0.0, 2.0), "p": Span(0.001, 0.5, log=True), "end": ["lowest", "highest"]}


def hill(point, noise=0.0):
    return -((point["scale"] - 1.3) ** 2) - (point["p"] - 0.05) ** 2 - (point["end"] == "highest") * 0.5


class Asked:
    """Measures the hill and writes down what was asked."""

    def __init__(self, fails=()):
        self.batches, self.fails = [], fails

    def __call__(self, points, limit):
        self.batches.append((list(points), limit))
        seen = sum(len(batch) for batch, _ in self.batches[:-1])
        return [None if seen + i in self.fails else hill(p) for i, p in enumerate(points)]


@pytest.mark.parametrize("kind", ["random", "tpe"])
def test_a_search_keeps_to_its_budget_and_repeats(kind):
    asked, again = Asked(), Asked()
    trials = search(kind, AXES, 13, asked, seed=3)
    assert len(trials) == 13 and search(kind, AXES, 13, again, seed=3) == trials
    assert search(kind, AXES, 13, Asked(), seed=4) != trials
    assert all(0 <= t.point["scale"] <= 2 and 0.001 <= t.point["p"] <= 0.5 for t in trials)
    assert {t.point["end"] for t in trials} == {"lowest", "highest"}
    assert len(asked.batches) == (1 if kind == "random" else 4)


def test_tpe_is_better_than_chance():
    tops = {
        kind: [best(search(kind, AXES, 40, Asked(), seed=seed)).value for seed in range(5)]
        for kind in ("tpe", "random")
    }
    assert sum(tops["tpe"]) > sum(tops["random"])


def test_halving_measures_all_on_few_items_and_the_best_on_all():
    asked = Asked()
    trials = search("halving", AXES, 9, asked, seed=0, limit=None, smallest=10)
    assert [(len(points), limit) for points, limit in asked.batches] == [(9, 10), (3, 30), (1, None)]
    first = sorted(trials[:9], key=lambda t: -t.value)
    assert [t.point for t in trials[9:12]] == [t.point for t in first[:3]] and trials[-1].point == first[
        0
    ].point
    assert best(trials) == trials[-1]


def test_halving_stops_at_the_limit():
    asked = Asked()
    search("halving", AXES, 9, asked, limit=25, smallest=10)
    assert [(len(points), limit) for points, limit in asked.batches] == [(9, 10), (3, 25)]


def test_failed_trials_are_told_and_never_the_best():
    trials = search("tpe", AXES, 8, Asked(fails={0, 5}), seed=0)
    assert trials[0].value is None and trials[5].value is None and best(trials).value is not None
    assert best([Trial({}, None, None)]) is None
    assert search("halving", AXES, 2, Asked(fails={0, 1}), seed=0)[-1].value is None


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(HarnessError, match="--budget 0"):
        search("random", AXES, 0, Asked())
