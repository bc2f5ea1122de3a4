"""Random numbers are addressed, not drawn in turn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness.ops import uniform
from tests.methods.conftest import drawn
from tests.reference import driver


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=6), st.integers(0, 3))
def test_any_cut_into_stretches_gives_the_same_numbers(lengths, start):
    whole = uniform(3, "task", "w", 0, start + sum(lengths))
    at, parts = start, []
    for n in lengths:
        parts.append(uniform(3, "task", "w", at, n))
        at += n
    assert torch.equal(torch.cat(parts), whole[start:])


def test_far_offsets_are_reached_without_counting_up_to_them():
    far = 3 * 2**40 + 5
    assert torch.equal(uniform(0, "r", "w", far, 100)[37:], uniform(0, "r", "w", far + 37, 63))


def test_seed_role_and_name_each_change_the_numbers():
    names = [
        (0, "task", "w"),
        (1, "task", "w"),
        (0, "other", "w"),
        (0, "task", "v"),
        (0, "taskw", ""),
        (0, "", "taskw"),
    ]
    streams = [uniform(*key, 0, 64) for key in names]
    for i, one in enumerate(streams):
        assert all(not torch.equal(one, other) for other in streams[:i])


def test_the_numbers_stay_the_same_from_version_to_version():
    """Frozen: a merge's bytes depend on them. Philox 4x64 under sha256("0\\0task\\0w"), 24 bits each."""
    assert (uniform(0, "task", "w", 0, 3) * 2**24).tolist() == [5469314, 14834452, 15042875]


def test_they_are_uniform_and_independent_enough():
    numbers = uniform(0, "task", "model.embed_tokens.weight", 0, 1_000_000).numpy().astype(np.float64)
    assert 0 <= numbers.min() and numbers.max() < 1
    assert stats.kstest(numbers, "uniform").pvalue > 1e-3
    other = uniform(0, "reasoning", "model.embed_tokens.weight", 0, 1_000_000).numpy().astype(np.float64)
    assert (
        abs(np.corrcoef(numbers, other)[0, 1]) < 5e-3
        and abs(np.corrcoef(numbers[1:], numbers[:-1])[0, 1]) < 5e-3
    )


@pytest.mark.parametrize("density", [0.1, 0.5, 0.97])
def test_dare_keeps_its_share_and_its_expectation(make, density):
    shape = {"model.norm.weight": (400, 1000)}
    base = {name: np.zeros(size, np.float32) for name, size in shape.items()}
    expert = {name: np.ones(size, np.float32) for name, size in shape.items()}
    merged = driver.merge(make("dare", density=density), base, {"task": expert})["model.norm.weight"]
    n, kept = merged.size, (merged != 0).mean()
    assert abs(kept - density) < 5 * (density * (1 - density) / n) ** 0.5
    np.testing.assert_allclose(merged[merged != 0], 1 / density, rtol=1e-6)


def test_dare_of_another_seed_is_another_merge(make):
    base, experts = drawn(0, "normal"), {"task": drawn(1, "normal")}
    one, again, other = (driver.merge(make("dare", density=0.5), base, experts, seed=s) for s in (1, 1, 2))
    assert all(np.array_equal(one[n], again[n]) for n in one) and any((one[n] != other[n]).any() for n in one)
