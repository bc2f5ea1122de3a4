"""The k-th value of a population seen in blocks, against sorting all of it, for any bracket."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import Cut
from harness.errors import HarnessError
from harness.merge import ranking
from harness.merge.ranking import Ranking, check_cut, stretches

FEW_VALUES = st.sampled_from([0.0, 0.5, 1.0, 1.5, 3.0, 1e-40, 1e30])
ANY_VALUE = st.floats(0, 2.0**100, width=32, allow_subnormal=False)
BLOCKS = st.lists(
    st.lists(st.tuples(FEW_VALUES | ANY_VALUE, st.booleans()), min_size=1, max_size=40),
    min_size=1,
    max_size=6,
)


def ranked(cut: Cut, blocks: list[np.ndarray], low: float, high: float):
    one = Ranking(cut, 10, len(blocks), sum(map(len, blocks)))
    one.low, one.high = low, high
    counted = [one.count(10 + i, block, int((~np.isnan(block)).sum())) for i, block in enumerate(blocks)]
    for piece in reversed(counted):  # the order of threads is not the order of blocks
        one.add(piece)
    return one.resolve()


def kept_by_sorting(cut: Cut, blocks: list[np.ndarray]) -> np.ndarray:
    flat = np.concatenate(blocks)
    places = np.flatnonzero(~np.isnan(flat))
    order = places[np.argsort(-flat[places] if cut.end == "highest" else flat[places], kind="stable")]
    k = cut.count(len(places))
    mask = np.zeros(len(flat), bool)
    mask[order[:k]] = True
    if cut.ties == "all" and k:
        mask |= flat == flat[order[k - 1]]
    return mask


@settings(max_examples=400, deadline=None)
@given(
    blocks=BLOCKS,
    keep=st.floats(0, 1),
    end=st.sampled_from(["highest", "lowest"]),
    ties=st.sampled_from(["exact", "all"]),
    at_least=st.integers(0, 5),
    extra=st.integers(0, 2),
    ends=st.tuples(FEW_VALUES | ANY_VALUE, FEW_VALUES | ANY_VALUE) | st.just((-np.inf, np.inf)),
)
def test_exact_or_missed_and_never_wrong(blocks, keep, end, ties, at_least, extra, ends):
    cut = Cut(None, keep, end, ties=ties, at_least=at_least, extra=extra)
    blocks = [np.array([v if ok else np.nan for v, ok in block], np.float32) for block in blocks]
    low, high = sorted(ends)
    found = ranked(cut, blocks, low, high)
    expected = kept_by_sorting(cut, blocks)
    if found is None:
        eligible = np.sort(np.concatenate([block[~np.isnan(block)] for block in blocks]))
        k = cut.count(len(eligible))
        value = eligible[len(eligible) - k if end == "highest" else k - 1]
        assert not low <= value <= high
        return
    assert found.number == expected.sum()
    masks = []
    for i, block in enumerate(blocks, 10):
        beyond = block > found.threshold if end == "highest" else block < found.threshold
        equal = np.flatnonzero(block == found.threshold)
        beyond[equal if i < found.block else equal[: found.quota] if i == found.block else []] = True
        masks.append(beyond & (found.number > 0))
    assert np.array_equal(np.concatenate(masks), expected)


@pytest.mark.parametrize("keep", [0.0005, 0.05, 0.5, 0.95])
@pytest.mark.parametrize("end", ["highest", "lowest"])
@pytest.mark.parametrize("kind", ["smooth", "zeros", "rows", "heavy tail"])
def test_the_sample_brackets_the_value_narrowly(keep, end, kind):
    import random

    rng = np.random.default_rng(1)
    values = np.abs(rng.standard_normal(2**21, dtype=np.float32))
    if kind == "zeros":
        values[rng.random(len(values)) < 0.6] = 0
    if kind == "rows":
        values *= np.repeat(rng.random(2**13, dtype=np.float32), 2**8)
    if kind == "heavy tail":
        values **= 9
    one = Ranking(Cut(None, keep, end), 0, 1, len(values))
    for at, n in stretches(len(values), 2**10, 2**6, random.Random(0)):
        one.sample(values[at : at + n])
    one.bracket()
    assert ranked(one.cut, [values], one.low, one.high) is not None
    assert ((values > one.low) & (values < one.high)).mean() < 0.06


def test_a_stretch_stands_for_equally_many_elements():
    import random

    for numel in (1, 7, 100, 1000, 12345):
        found = stretches(numel, 100, 25, random.Random(0))
        assert all(0 <= at and at % 8 == 0 or at % 100 % 8 == 0 for at, _ in found)
        assert all(at // 100 == i and at + n <= min(numel, (i + 1) * 100) for i, (at, n) in enumerate(found))
        assert abs(sum(n for _, n in found) - numel / 4) <= 1


@pytest.mark.parametrize(
    "wrong", [{"keep": 1.5}, {"keep": float("nan")}, {"end": "middle"}, {"scope": "layer"}, {"ties": "some"}]
)
def test_wrong_requests(wrong):
    with pytest.raises(HarnessError):
        check_cut(Cut(None, **{"keep": 0.5, **wrong}))


def test_few_values_need_no_sample():
    assert (
        Ranking(Cut(None, 0.5), 0, 1, ranking.FEW).few
        and not Ranking(Cut(None, 0.5), 0, 1, ranking.FEW + 1).few
    )
