"""Standard errors against independent estimates; rates by hand."""

import math

import numpy as np
import pytest

from harness.evaluate.intervals import bootstrap, mean_stderr, perplexity_stderr, stderr
from harness.evaluate.results import metrics, rates, repetition


def test_mean_stderr_is_the_sample_one():
    values = [1.0, 0.0, 0.0, 1.0, 1.0]
    assert mean_stderr(values) == pytest.approx(np.std(values, ddof=1) / math.sqrt(5), rel=1e-12)
    assert mean_stderr([1.0]) is None and mean_stderr([]) is None


def test_perplexity_stderr_agrees_with_the_bootstrap():
    rng = np.random.default_rng(0)
    words = rng.integers(20, 60, 200).astype(float)
    lls = -words * rng.normal(2.0, 0.3, 200)
    draws = []
    for _ in range(4000):
        pick = rng.integers(0, 200, 200)
        draws.append(math.exp(-lls[pick].sum() / words[pick].sum()))
    assert perplexity_stderr(list(zip(lls, words, strict=True))) == pytest.approx(np.std(draws), rel=0.05)


def test_perplexity_stderr_of_hostile_values():
    assert perplexity_stderr([(-5.0, 3.0)]) is None
    assert perplexity_stderr([(-1.0, 0.0), (-1.0, 0.0)]) is None
    assert perplexity_stderr([(-1e6, 1.0), (-2e6, 1.0)]) == math.inf
    assert math.isnan(perplexity_stderr([(math.nan, 1.0), (-1.0, 1.0)]))


def test_stderr_chooses_by_the_shape_of_the_values():
    assert stderr([True, False]) == 0.5
    assert stderr([np.float64(1), np.float64(0)]) == 0.5
    assert stderr([(-2.0, 1.0), (-2.0, 1.0)]) == 0
    assert stderr([]) is None and stderr([None, 1.0]) is None and stderr(["a", "b"]) is None


def sample(doc_id, filter="none", **values):
    return {"doc_id": doc_id, "filter": filter, "metrics": list(values), **values}


def test_each_metric_has_its_own_n():
    samples = [
        sample(0, refused=1.0, unparsed=0.0),
        sample(1, complied=0.0, unparsed=1.0),
        sample(2, refused=0.0, unparsed=0.0),
    ]
    found = {
        "alias": "x",
        "refused,none": 0.5,
        "refused_stderr,none": "N/A",
        "complied,none": 0.0,
        "unparsed,none": 1 / 3,
    }
    assert metrics({"t": found}, {"t": samples}, {"refused": True, "complied": False}, {}) == {
        "refused": {"value": 0.5, "stderr": 0.5, "n": 2, "higher_is_better": True},
        "complied": {"value": 0.0, "stderr": None, "n": 1, "higher_is_better": False},
    }


def test_filters_keep_their_names_when_there_are_several():
    samples = [sample(0, "strict", acc=0.0), sample(0, "flexible", acc=1.0)]
    found = metrics({"t": {"acc,strict": 0.0, "acc,flexible": 1.0}}, {"t": samples}, {}, {})
    assert {key: cell["value"] for key, cell in found.items()} == {"acc,strict": 0.0, "acc,flexible": 1.0}


def test_a_group_is_pooled_by_the_size_of_its_tasks():
    samples = {
        "a": [sample(i, acc=float(i < 1)) for i in range(4)],
        "b": [sample(i, acc=1.0) for i in range(2)],
    }
    found = metrics({"a": {"acc,none": 0.25}, "b": {"acc,none": 1.0}}, samples, {"acc": True}, {})
    assert found["acc"]["value"] == pytest.approx(0.5) and found["acc"]["n"] == 6
    assert found["acc"]["stderr"] == pytest.approx(np.std([1, 0, 0, 0, 1, 1], ddof=1) / math.sqrt(6))


def test_a_perplexity_has_an_interval_that_agrees_with_its_standard_error():
    rng = np.random.default_rng(1)
    words = rng.integers(20, 60, 100).astype(float)
    pairs = list(zip(-words * rng.normal(2.0, 0.3, 100), words, strict=True))
    told = bootstrap(pairs, lambda items: 0.0)
    value, spread = math.exp(-sum(a for a, _ in pairs) / sum(words)), perplexity_stderr(pairs)
    low, high = told["interval"]
    assert low < value < high and "stderr" not in told
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.1)
    assert told == bootstrap(pairs, lambda items: 0.0)


def test_values_of_another_kind_get_their_error_from_the_bootstrap():
    """Macro averages: (subject, right) pairs are no log-likelihoods."""
    values = [("a", 1.0)] * 30 + [("b", 0.0)] * 20 + [("b", 1.0)] * 20

    def macro(items):
        by = {}
        for subject, right in items:
            by.setdefault(subject, []).append(right)
        return sum(sum(v) / len(v) for v in by.values()) / len(by)

    samples = {"t": [sample(i, macro=value) for i, value in enumerate(values)]}
    cell = metrics({"t": {"macro,none": macro(values)}}, samples, {}, {"macro": macro})["macro"]
    assert cell["value"] == 0.75 and cell["n"] == 70
    assert cell["stderr"] == pytest.approx(0.5 * math.sqrt(0.25 / 40), rel=0.1)  # only `b` varies
    assert cell["interval"][0] < 0.75 < cell["interval"][1]


def test_repetition_counts_word_four_grams():
    assert repetition("a b c d e f g h") == 0
    assert repetition("") == 0 and repetition("a b c") == 0
    assert repetition("the cat sat down " * 20) > 0.9
    assert repetition("a a a a a") == 0.5


def test_rates_leave_out_what_is_not_told():
    row = {"unparsed": None, "unfinished": 1.0, "empty": 0.0, "truncated": 1.0, "repetition": 0.0}
    assert rates([row, row | {"unfinished": 0.0}]) == {
        "unparsed": None,
        "unfinished": 0.5,
        "empty": 0.0,
        "truncated": 1.0,
        "repetition": 0.0,
    }
