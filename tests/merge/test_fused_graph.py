"""Programs of the machine against numpy, one operation at a time."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.merge.fused import codes as c
from harness.merge.fused.buffers import LazyBuffers
from harness.merge.masks import _energy

BUFFERS = LazyBuffers(2**17)
SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 1e-45, -1e-38, 3.0, 2**-24, 1e30, -7.5], np.float32)
NUMBERS = st.sampled_from([0.0, -0.0, 0.3, -1.0, 1e-3, 7.0])
STEPS = (
    "add",
    "sub",
    "mul",
    "div",
    "add_number",
    "mul_number",
    "abs",
    "sign",
    "mask",
    "choose",
    "clamp",
    "round",
)


def inputs(n, seed):
    draw = np.random.default_rng(seed)
    values = (draw.standard_normal((3, n)) * 10.0 ** draw.integers(-4, 4, (3, n))).astype(np.float32)
    values[:, : len(SPECIAL)] = draw.permuted(np.tile(SPECIAL, (3, 1)), axis=1)[:, :n]
    return list(values)


def rounded(x):
    bits = x.view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & np.uint32(0xFFFF0000)).view(np.float32)


def step(name, number, a, b, blocks):
    """One operation, on lazy blocks or on numpy's."""
    if name in ("add", "sub", "mul", "div"):
        return {"add": lambda: a + b, "sub": lambda: a - b, "mul": lambda: a * b, "div": lambda: a / b}[
            name
        ]()
    if name in ("add_number", "mul_number"):
        number = number if blocks is None else np.float32(number)
        return a + number if name == "add_number" else a * number
    if blocks is None:
        return {
            "abs": lambda: a.abs(),
            "sign": lambda: a.sign(),
            "mask": lambda: a.masked((a > b) & ~(b <= number) | (a == number)),
            "choose": lambda: (a >= b).chosen(a, b),
            "clamp": lambda: a.clone().clamp_(min=number),
            "round": lambda: a.rounded(),
        }[name]()
    number = np.float32(number)
    with np.errstate(all="ignore"):
        return {
            "abs": lambda: np.abs(a),
            "sign": lambda: (a > 0).astype(np.float32) - (a < 0).astype(np.float32),
            "mask": lambda: a * ((a > b) & ~(b <= number) | (a == number)),
            "choose": lambda: np.where(a >= b, a, b),
            "clamp": lambda: np.where(a < number, number, a),
            "round": lambda: rounded(a),
        }[name]()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(STEPS), NUMBERS, st.integers(0, 99), st.integers(0, 99)),
        min_size=1,
        max_size=40,
    ),
    st.sampled_from([1, 7, 1024, 1031, 3000]),
)
def test_a_program_gives_numpys_bits(steps, n):
    arrays = inputs(n, len(steps))
    BUFFERS.begin(0, n)
    lazies = [BUFFERS.computed(f"input {i}", lambda x=x: x, ()) for i, x in enumerate(arrays)]
    for name, number, i, j in steps:
        a, b = arrays[i % len(arrays)], arrays[j % len(arrays)]
        with np.errstate(all="ignore"):
            made = step(name, number, a, b, arrays)
        if not np.isfinite(made).all():  # what is not finite ends a merge
            continue
        lazies.append(step(name, number, lazies[i % len(arrays)], lazies[j % len(arrays)], None))
        arrays.append(made)
    for lazy, array in zip(lazies[3:], arrays[3:], strict=True):
        assert lazy.numpy().tobytes() == array.tobytes()


@pytest.mark.parametrize("n", [1, 31, 1024, 5000, 2**17])
def test_counts_and_energies_are_numpys(n):
    (x, y, _), at = np.clip(inputs(n, 4), -1e4, 1e4), np.float32(0.01)
    BUFFERS.begin(0, n)
    a, b = (BUFFERS.computed(f"input {i}", lambda v=v: v, ()) for i, v in enumerate((x, y)))
    over, more = a > 0.01, b > a
    counters, energies, _, _ = BUFFERS.run(
        [
            (c.COUNT, over.node, 0, 6, 0, 0),
            (c.COUNT_BOTH, over.node, more.node, 7, 0, 0),
            (c.ENERGY, a.node, 0, 0, 0, 0),
            (c.ENERGY, a.masked(more).node, 0, 1, 0, 0),
        ],
    )
    assert counters[6] == (x > at).sum() and counters[7] == ((x > at) & (y > x)).sum()
    assert energies.tolist() == [_energy(x), _energy(x * (y > x))]
    assert sum(_energy(x)) == pytest.approx(float((x.astype(np.float64) ** 2).sum()), rel=1e-5)
    whole = a.sign()
    assert BUFFERS.totals(whole) == [int(np.sign(x[i : i + 65536]).sum()) for i in range(0, n, 65536)]
    assert BUFFERS.totals(a) is None


@pytest.mark.parametrize(
    ("low", "high"), [(-np.inf, np.inf), (0.5, 0.5), (0.01, 1.0), (1.0, 0.0), (0.0, 5.0)]
)
def test_a_bracket_counts_what_numpy_counts(low, high):
    n = 70_001
    x = np.abs(inputs(n, 8)[0])
    x[::5], x[3::7] = low if np.isfinite(low) else 0, high if np.isfinite(high) else 1
    low, high = np.float32(low), np.float32(high)
    BUFFERS.begin(0, n)
    held = BUFFERS.computed("values", lambda: x, ())
    nan = held.new_full(held.shape, float("nan"))
    ranked = (held <= 4.0).chosen(held, nan)
    counts, inside = BUFFERS.ranked(ranked, low, high)
    kept = x[x <= 4]
    assert counts == [(kept > low).sum(), (kept == low).sum(), (kept == high).sum(), n - len(kept)]
    assert np.array_equal(inside, kept[(kept > low) & (kept < high)])


def test_the_first_so_many_of_a_mask():
    BUFFERS.begin(0, 5000)
    x = inputs(5000, 1)[0]
    mask = BUFFERS.computed("values", lambda: x, ()) > 0
    for number in (0, 1, 17, 1500, 9999):
        expected = (x > 0) & (np.cumsum(x > 0) <= number)
        assert np.array_equal(mask.first(number).numpy(), expected)
