"""What must hold whatever the numbers are, and what must be refused."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import HarnessError, ops, selection
from harness.method import Layout
from tests.methods.conftest import drawn, statistics
from tests.reference import driver

EXAMPLES = settings(max_examples=30, deadline=None, derandomize=True)
ROLES = ("reasoning", "task", "finance")
METHODS = {
    "task_arithmetic": {},
    "ties": {"density": 0.4},
    "sce": {"select_topk": 0.6},
    "dare": {"density": 0.5},
    "led": {"p": 0.4},
    "reasonany": {"p": 0.3},
}


def family(seed, n=2, kind="normal"):
    """Base, experts and all statistics; the base has negative zeros, which arithmetic easily loses."""
    base, experts = drawn(seed, kind), {role: drawn(seed + 1 + i, kind) for i, role in enumerate(ROLES[:n])}
    base = {
        name: np.where(np.arange(v.size).reshape(v.shape) % 4 == 0, np.float32(-0.0), v)
        for name, v in base.items()
    }
    keys = [
        f"{role}.{kind}{model}"
        for role in experts
        for kind in ("gradient", "snip")
        for model in ("", ".base")
    ]
    return base, experts, {key: statistics(seed + i, kind) for i, key in enumerate(keys)}


def bits(model):
    return {name: values.astype(np.float32).tobytes() for name, values in model.items()}


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("scale", [0.0, [0.0, 0.0]])
def test_scale_zero_is_the_base_bit_for_bit(make, name, scale):
    base, experts, scores = family(1)
    method = make(name, scale=scale, **METHODS[name])
    assert bits(driver.merge(method, base, experts, scores)) == bits(base)
    assert any("the base" in sentence for sentence in method.degenerate(ROLES[:2]))


EMPTY = [{"p": 0.0}, {"use_task": False, "use_reasoning": False}, {"interval": [0.2, 0.2], "p_task": 0.0}]


@pytest.mark.parametrize("settings", EMPTY)
def test_an_empty_selection_is_the_base_bit_for_bit(make, settings):
    base, experts, scores = family(2)
    method = make("reasonany", **settings)
    assert bits(driver.merge(method, base, experts, scores)) == bits(base)
    assert method.degenerate(ROLES[:2]) == ["nothing is selected or added: the result is the base"]


def test_elements_outside_the_masks_keep_the_bits_of_the_base(make):
    base, experts, scores = family(3)
    groups = driver.groups_of(base, experts, scores)
    for name in ("led", "reasonany"):
        method = make(name, **METHODS[name])
        masks = driver.prepared(method, groups, tuple(experts))
        for group in groups:
            outside = ~torch.stack(list(masks(group).values())).any(0)
            merged = method.merge(group, masks)
            assert driver.same_bits(merged[outside], group.base[outside]) and outside.any()


def test_linear_of_one_expert_is_that_expert(make):
    base, experts, _ = family(4)
    assert bits(driver.merge(make("linear"), base, {"task": experts["task"]})) == bits(experts["task"])
    method = make("linear", weights={"reasoning": 0})
    assert bits(driver.merge(method, base, experts)) == bits(experts["task"])
    assert method.degenerate(ROLES[:2]) == ["one expert has all the weight: the result is `task`"]


@EXAMPLES
@given(
    st.integers(0, 999),
    st.integers(1, 3),
    st.sampled_from(["exact", "l1", "none"]),
    st.sampled_from([1.0, [1.0, 1.0]]),
    st.sampled_from([1.0, 0.3]),
)
def test_dare_that_drops_nothing_is_task_arithmetic_bit_for_bit(make, seed, n, rescale, density, scale):
    base, experts, _ = family(seed, n)
    weights = {"reasoning": 0.7}
    dare = make("dare", density=density, rescale=rescale, scale=scale, weights=weights)
    plain = make("task_arithmetic", scale=scale, weights=weights)
    assert bits(driver.merge(dare, base, experts)) == bits(driver.merge(plain, base, experts))


def test_dare_ties_that_drops_nothing_is_ties_bit_for_bit(make):
    base, experts, _ = family(5, 3)
    dare = driver.merge(make("dare", density=1.0, variant="ties", trim=0.4), base, experts)
    assert bits(dare) == bits(driver.merge(make("ties", density=0.4), base, experts))


@EXAMPLES
@given(st.integers(0, 999), st.permutations(ROLES[:2]))
def test_the_order_of_two_experts_does_not_matter(make, seed, order):
    """Sums of two float32 numbers commute exactly, and random draws belong to roles."""
    base, experts, scores = family(seed)
    turned = {role: experts[role] for role in order}
    for name in ("linear", *METHODS):
        method = make(name, **METHODS.get(name, {}))
        one, two = (driver.merge(method, base, e, scores) for e in (experts, turned))
        assert {n: v.tolist() for n, v in one.items()} == {n: v.tolist() for n, v in two.items()}, name


@EXAMPLES
@given(
    st.integers(0, 999),
    st.sampled_from([0.0, 0.05, 0.31, 0.5]),
    st.sampled_from(["normal", "grid"]),
    st.booleans(),
)
def test_reasonany_selects_exactly_k_and_disjoint(make, seed, p, kind, same):
    base, experts, scores = family(seed, 3, kind)
    if same:  # the hardest overlap: one statistic for all
        scores = dict.fromkeys(scores, scores["task.gradient"])
    groups = driver.groups_of(base, experts, scores)
    total = sum(group.numel for group in groups)
    counts, union = {}, None
    for rule in ("none", "drop_both", "task_first", "reasoning_first"):
        masks = driver.prepared(make("reasonany", p=p, exclusion=rule), groups, tuple(experts))
        stacked = torch.cat([torch.stack([masks(group)[r] for r in experts]) for group in groups], dim=1)
        counts[rule] = stacked.sum(1).tolist()
        if rule == "none":
            assert counts[rule] == [int(total * p)] * 3
            union, overlaps = stacked.any(0), stacked.sum(0) > 1
        else:
            assert stacked.sum(0).max() <= 1
            assert torch.equal(stacked.any(0), union & ~overlaps if rule == "drop_both" else union)
    assert counts["reasoning_first"][0] == int(total * p) and counts["task_first"][1] == int(total * p)


@EXAMPLES
@given(st.integers(0, 999), st.sampled_from([0.0, 0.1, 0.34, 0.9]), st.sampled_from(["normal", "grid"]))
def test_led_selects_at_most_k_per_tensor_and_disjoint(make, seed, p, kind):
    base, experts, scores = family(seed, 3, kind)
    same = {
        key: scores["task.snip"] for key in scores
    }  # then base and expert agree, and election keeps exactly k
    groups = driver.groups_of(base, {"task": experts["task"]}, same)
    alone = driver.prepared(make("led", p=p), groups, ("task",))
    for group in groups:
        assert int(alone(group)["task"].sum()) == int(p * group.numel)
    groups = driver.groups_of(base, experts, scores)
    masks = driver.prepared(make("led", p=p), groups, tuple(experts))
    for group in groups:
        stacked = torch.stack(list(masks(group).values()))
        assert stacked.sum(0).max() <= 1 and stacked.sum(1).max() <= int(p * group.numel)


def test_intervals_partition_the_ranks(make):
    base, experts, scores = family(6, 1, "grid")
    groups = driver.groups_of(base, experts, scores)
    edges = [0.0, 0.05, 0.1, 0.45, 0.8, 1.0]
    found = []
    for lo, hi in zip(edges, edges[1:], strict=False):
        masks = driver.prepared(make("reasonany", interval=[lo, hi]), groups, ("reasoning",))
        found.append(torch.cat([masks(group)["reasoning"] for group in groups]))
        n = sum(group.numel for group in groups)
        assert int(found[-1].sum()) == int(hi * n) - int(lo * n)
    assert torch.stack(found).sum(0).tolist() == [1] * n


def test_random_selection_depends_on_its_seed_and_reads_no_statistic(make):
    base, experts, scores = family(7)
    groups = driver.groups_of(base, experts, {"task.gradient": scores["task.gradient"]})

    def mask(seed):
        method = make("reasonany", p=0.3, reasoning_end="random", reasoning_seed=seed, exclusion="none")
        assert [need.key for need in method.needs(ROLES[:2])] == ["task.gradient"]
        masks = driver.prepared(method, groups, tuple(experts))
        return torch.cat([masks(group)["reasoning"] for group in groups])

    assert torch.equal(mask(1), mask(1)) and not torch.equal(mask(1), mask(2))
    assert int(mask(1).sum()) == int(0.3 * 45)


def test_zero_gradients_can_be_left_out(make):
    base, experts, scores = family(8)
    scores["reasoning.gradient"] = {n: v.copy() for n, v in scores["reasoning.gradient"].items()}
    scores["reasoning.gradient"]["model.embed_tokens.weight"][:] = 0
    groups = driver.groups_of(base, experts, scores)

    def share(rule):
        method = make("reasonany", p_reasoning=0.3, p_task=0.0, zero_gradient=rule)
        masks = driver.prepared(method, groups, tuple(experts))
        return [int(masks(group)["reasoning"].sum()) for group in groups]

    assert share("include")[0] == int(0.3 * 45) and sum(share("include")[1:]) == 0
    eligible = sum(int((group.scores["reasoning.gradient"] > 0).sum()) for group in groups)
    assert share("exclude")[0] == 0 and sum(share("exclude")) == int(0.3 * eligible)


def test_scale_runs_over_depth(make):
    base, experts, _ = family(9)
    base = {n: v * 0 for n, v in base.items()}
    merged = driver.merge(make("task_arithmetic", scale=[0.0, 2.0]), base, {"task": experts["task"]})
    for name, factor in {"embed_tokens": 0, "layers.0.mlp": 0, "layers.1.mlp": 2, "model.norm": 2}.items():
        name = next(n for n in merged if name in n)
        np.testing.assert_array_equal(merged[name], factor * experts["task"][name])


@pytest.mark.parametrize(("name", "settings", "roles", "message"), [
    ("reasonany", {}, ("task", "finance"), "`reasonany` needs an expert with the role `reasoning`"),
    ("reasonany", {"interval": [0.5, 0.1]}, ROLES, "an interval of ranks is [0.5, 0.1]"),
    ("reasonany", {"interval": [0.5]}, ROLES, "an interval of ranks is [0.5]"),
    ("led", {"p_of": {"task": 1.5}}, ROLES, "a share of elements is 1.5"),
    ("led", {"p_of": {"maths": 0.4}}, ROLES, "`p_of` names the role `maths`"),
    ("led", {"scale_of": {"maths": 0.4}}, ROLES, "`scale_of` names the role `maths`"),
    ("linear", {"weights": {"tsk": 2.0}}, ROLES, "`weights` names the role `tsk`"),
    ("linear", {"weights": {"reasoning": 1.0, "task": -1.0}}, ROLES[:2], "`weights` of `linear` add up to 0"),
    ("task_arithmetic", {"weights": {"x": 1.0}}, ROLES, "`weights` names the role `x`"),
    ("dare", {"weights": {"x": 1.0}}, ROLES, "`weights` names the role `x`"),
])  # fmt: skip
def test_what_does_not_fit_the_family_is_said_before_anything_is_read(make, name, settings, roles, message):
    with pytest.raises(HarnessError) as caught:
        make(name, **settings).needs(roles)
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize(("name", "settings"), [
    ("ties", {"density": 1.2}), ("dare", {"density": 0.0}), ("reasonany", {"p": -0.1}), ("led", {"q": 1}),
    ("reasonany", {"exclusion": "both"}), ("led", {"scope": "layer"}), ("linear", {"weights": {"task": "x"}}),
])  # fmt: skip
def test_parameters_out_of_range_are_refused(make, name, settings):
    with pytest.raises(HarnessError):
        make(name, **settings)


def test_a_pattern_that_fits_no_tensor_is_an_error(make):
    method = make("reasonany", exclude_modules=["embed_token"])
    with pytest.raises(HarnessError) as caught:
        next(method.prepare(Layout(ROLES, ("model.embed_tokens.weight", "model.norm.weight"))))
    assert "`embed_token`" in caught.value.message and "`embed_tokens`" in caught.value.hint


@pytest.mark.parametrize(("pattern", "fits"), [
    ("up_proj", True), ("mlp.up_proj", True), ("mlp.*", True), ("model.layers.3.*", True), ("*_proj", True),
    ("model.layers.3.mlp.up_proj.weight", True), ("proj", False), ("up", False), ("layers.4.*", False),
])  # fmt: skip
def test_module_patterns(pattern, fits):
    assert ops.matches("model.layers.3.mlp.up_proj.weight", [pattern]) is fits


def test_degenerate_settings_are_said(make):
    def said(name, **settings):
        return " ".join(make(name, **settings).degenerate(ROLES[:2]))

    assert "this is task arithmetic" in said("dare", density=1.0)
    assert "TIES" in said("dare", density=1.0, variant="ties")
    assert "nothing is trimmed" in said("ties", density=1.0)
    assert "nothing of `task`" in said("reasonany", p_task=0.0)
    assert "nothing of `task`" in said("led", scale_of={"task": 0.0})
    for name in ("linear", *METHODS):
        assert said(name) == ""


def test_exclusion_keeps_the_masks_it_was_given():
    masks = {"task": torch.tensor([True, True, False]), "reasoning": torch.tensor([True, False, True])}
    before = {role: mask.clone() for role, mask in masks.items()}
    assert selection.exclude(masks, "drop_both")["task"].tolist() == [False, True, False]
    assert selection.exclude(masks, "task_first")["reasoning"].tolist() == [False, False, True]
    assert selection.exclude(masks, "reasoning_first")["task"].tolist() == [False, True, False]
    assert all(torch.equal(masks[role], before[role]) for role in masks)
