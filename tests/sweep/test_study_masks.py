"""The masks of the shipped studies against slow oracles: additive, intervals, cumulative."""

import numpy as np
import pytest
import torch

from harness import registry
from harness.family import load_family
from harness.method import configure
from harness.sweep.study import load_study, variants
from tests.reference import driver, oracles

SHAPES = {
    "model.embed_tokens.weight": (23, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.1.mlp.up_proj.weight": (24, 8),
    "model.norm.weight": (8,),
}
ROLES = ("reasoning", "task")


def drawn(seed, kind):
    """Base, experts, and for each role a statistic; `grid` is full of equal scores, `zeros` half of them."""
    rng = np.random.default_rng(seed)
    model = lambda: {n: rng.normal(0, 1, s).astype(np.float32) for n, s in SHAPES.items()}  # noqa: E731
    base, experts = model(), {role: model() for role in ROLES}
    scores = {}
    for role in ROLES:
        own = {name: np.abs(values) for name, values in model().items()}
        if kind == "grid":
            own = {name: np.round(values * 4).astype(np.float32) / 4 for name, values in own.items()}
        if kind == "zeros":
            own = {
                name: np.where(rng.random(v.shape) < 0.5, v, 0).astype(np.float32) for name, v in own.items()
            }
        scores[role] = own
    return base, experts, scores


def rows(study):
    """label -> (settings, configured method)."""
    found = variants(load_study(study), load_family("tiny-safety"))
    return {
        v.label: (dict(v.settings), configure(registry.method(v.method), dict(v.settings))) for v in found
    }


def merged(method, base, experts, scores):
    return driver.merge(method, base, experts, {f"{role}.gradient": own for role, own in scores.items()})


def mask(method, base, experts, scores):
    """The reasoning side's, over all elements in order."""
    by_key = {f"{role}.gradient": own for role, own in scores.items()}
    groups = driver.groups_of(base, experts, by_key)
    masks = driver.prepared(method, groups, tuple(experts))
    return torch.cat([masks(group)["reasoning"] for group in groups]).numpy()


@pytest.mark.parametrize("kind", ["normal", "grid", "zeros"])
@pytest.mark.parametrize("study", ["additive", "intervals", "cumulative"])
def test_a_studys_merges_are_the_oracles(study, kind):
    base, experts, scores = drawn(5, kind)
    checked = 0
    for label, (settings, method) in rows(study).items():
        end = settings.get("reasoning_end", "lowest")
        if end == "random":
            continue
        lo, hi = settings.get("interval", (0, settings.get("p_reasoning", settings.get("p"))))
        chosen = oracles.band(scores["reasoning"], lo, hi, end)
        tau = oracles.taus(base, experts)["reasoning"]
        expected = {name: values.astype(np.float64).copy() for name, values in base.items()}
        for name, i in chosen:
            expected[name].ravel()[i] += settings["scale"] * tau[name].ravel()[i]
        found = merged(method, base, experts, scores)
        for name in base:
            np.testing.assert_allclose(found[name], expected[name], rtol=1e-6, atol=1e-6, err_msg=label)
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize("kind", ["normal", "grid", "zeros"])
def test_the_union_of_the_intervals_is_the_cumulative_mask(kind):
    base, experts, scores = drawn(11, kind)
    parts = [mask(method, base, experts, scores) for _, method in rows("intervals").values()]
    assert len(parts) == 5 and np.sum(parts, axis=0).max() == 1, "intervals do not overlap"
    make = lambda p: configure(registry.method("reasonany"), {"use_task": False, "p_reasoning": p})  # noqa: E731
    for count in range(1, 6):
        whole = mask(make(round(0.05 * count, 2)), base, experts, scores)
        assert np.array_equal(np.any(parts[:count], axis=0), whole), f"the lowest {5 * count} %"
    assert whole.sum() == int(0.25 * whole.size)
    assert not np.array_equal(np.any(parts[1:], axis=0), whole), "the comparison can fail"


def test_random_additions_are_as_many_and_read_no_scores():
    base, experts, scores = drawn(3, "normal")
    total = sum(values.size for values in base.values())
    found = {label: (settings, method) for label, (settings, method) in rows("additive").items()}
    by_end = {}
    for settings, method in found.values():
        changed = mask(method, base, experts, scores)
        assert changed.sum() == int(settings["p"] * total)
        by_end.setdefault(settings["reasoning_end"], {})[settings["p"]] = changed
    assert set(by_end) == {"lowest", "highest", "random"}
    assert not np.any(by_end["lowest"][0.1] & by_end["highest"][0.1])
    other = {role: {n: v[::-1].copy() for n, v in own.items()} for role, own in scores.items()}
    for label, (settings, method) in found.items():
        same = np.array_equal(mask(method, base, experts, scores), mask(method, base, experts, other))
        assert same == (settings["reasoning_end"] == "random"), label
