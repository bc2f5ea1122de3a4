"""The forms of mergekit and of the released code, and SCE and RCP, against float64 formulas."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from harness import HarnessError
from tests.methods.conftest import drawn, statistics
from tests.methods.test_methods_against_oracles import (
    EXAMPLES,
    ROLES,
    by_key,
    close,
    models,
    scales,
    shares,
    weights_for,
)
from tests.reference import driver, oracles, profiles


def bf16(array):
    return torch.from_numpy(np.asarray(array, np.float32)).bfloat16().float().numpy()


@EXAMPLES
@given(models(), scales, st.booleans(), st.data())
def test_normalize_of_linear_and_task_arithmetic(make, models, scale, normalize, data):
    base, experts = models
    weights = weights_for(data.draw, experts)
    total = sum(weights.values())
    by = total if normalize else 1.0
    merged = driver.merge(make("linear", weights=weights, normalize=normalize), base, experts)
    close(merged, {n: v * total / by for n, v in oracles.linear(base, experts, weights).items()})
    method = make("task_arithmetic", weights=weights, normalize=normalize, scale=scale)
    expected = oracles.task_arithmetic(base, experts, weights, scale / by)
    close(driver.merge(method, base, experts), expected)


@EXAMPLES
@given(models(), shares, scales, st.booleans(), st.data())
def test_ties_of_mergekit(make, models, density, scale, normalize, data):
    base, experts = models
    weights = weights_for(data.draw, experts)
    chosen = {"density": density, "scale": scale, "weights": weights, "normalize": normalize}
    merged = driver.merge(make("ties", profile="mergekit", **chosen), base, experts)
    close(merged, profiles.ties_mergekit(base, experts, **chosen))


@EXAMPLES
@given(models(kinds=["normal"]), st.sampled_from(["linear", "ties"]), scales, st.booleans(), st.data())
def test_dare_of_mergekit(make, models, variant, scale, normalize, data):
    base, experts = models
    weights, density = weights_for(data.draw, experts), data.draw(st.sampled_from([0.1, 0.5, 0.9]))
    chosen = {"scale": scale, "weights": weights, "normalize": normalize, "variant": variant}
    kept = {role: {} for role in experts}
    for group in driver.groups_of(base, experts, seed=3):
        for role in experts:
            kept[role][group.name] = (group.uniform(role).numpy() < density).reshape(group.shape)
    merged = driver.merge(make("dare", profile="mergekit", density=density, **chosen), base, experts, seed=3)
    close(merged, profiles.dare_mergekit(base, experts, kept, **chosen))


@EXAMPLES
@given(models(), shares, scales, st.sampled_from([1.0, 2.0**-12]))
def test_sce(make, models, topk, scale, size):
    """With small task vectors (2^-12) the weights are uniform."""
    base, experts = models
    experts = {
        r: {n: base[n] + np.float32(size) * (v - base[n]) for n, v in e.items()} for r, e in experts.items()
    }
    merged = driver.merge(make("sce", select_topk=topk, scale=scale), base, experts)
    close(merged, profiles.sce(base, experts, topk, scale))


@EXAMPLES
@given(
    models(statistic=True), st.sampled_from([0.02, 0.05, 0.1, 0.3]), st.sampled_from([1.0, 0.3]), st.data()
)
def test_reasonany_official(make, models, p, scale, data):
    base, experts, scored = models
    end = data.draw(st.sampled_from(["lowest", "highest"]))
    method = make("reasonany", profile="official", p=p, scale=scale, reasoning_end=end)
    named = {f"{key}.official": score for key, score in by_key(scored, "gradient").items()}
    assert {need.key for need in method.needs(tuple(experts))} == set(named)
    merged = driver.merge(method, base, experts, named)
    ends = {role: end if role == "reasoning" else "highest" for role in experts}
    fixed = dict.fromkeys(experts, p), ends, dict.fromkeys(experts, scale)
    expected = profiles.reasonany_official(bf16, base, experts, scored["expert"], scored["base"], *fixed)
    for name in merged:
        np.testing.assert_array_equal(merged[name], expected[name], err_msg=name)


def test_the_official_threshold_keeps_one_more_from_the_top_and_all_its_equals(make):
    """Of eight elements and p = 1/4, k = 2: from the sixth smallest upwards, with its equals."""
    base = {f"t{i}.weight": np.zeros(1, np.float32) for i in range(8)}
    experts = {r: {n: np.ones(1, np.float32) for n in base} for r in ("reasoning", "task")}
    scores = {n: np.array([v], np.float32) for n, v in zip(base, [1, 2, 3, 3, 4, 4, 5, 6], strict=True)}
    keys = [f"{r}.gradient{m}.official" for r in experts for m in ("", ".base")]

    def taken(**settings):
        method = make("reasonany", profile="official", p=0.25, **settings)
        merged = driver.merge(method, base, experts, dict.fromkeys(keys, scores))
        return [float(scores[n][0]) for n in merged if merged[n] != 0]

    assert taken(use_reasoning=False) == [4, 4, 5, 6]
    assert taken(use_task=False) == [1, 2]
    assert taken(reasoning_end="highest") == []  # both select the same tensors, and both lose them


@EXAMPLES
@given(st.integers(0, 999), st.integers(1, 4), st.sampled_from([0.0, 0.1, 1000.0]), scales, st.integers(1, 7))
def test_rcp(make, seed, n, penalty, scale, samples):
    roles = ROLES[: min(n, 3)]
    base, experts = drawn(seed, "normal"), {r: drawn(seed + 1 + i, "normal") for i, r in enumerate(roles)}
    fisher = statistics(seed, "normal")
    gradients = {
        r: {
            name: np.stack([drawn(seed + 10 + j + 50 * i, "grid")[name] for j in range(samples)])
            for name in base
        }
        for i, r in enumerate(roles)
        if r != "reasoning"
    }
    votes = {r: shares_of(experts, r, g, fisher, penalty) for r, g in gradients.items()}
    method = make("rcp", penalty=penalty, scale=scale)
    keys = {need.role: need.key for need in method.needs(roles)}
    merged = driver.merge(method, base, experts, {keys[r]: v for r, v in votes.items()})
    close(merged, profiles.rcp(base, experts, gradients, fisher, penalty, scale))


def shares_of(experts, role, gradients, fisher, penalty):
    """The statistic `votes`, share of samples, as the scores compute it but in float64."""
    lost = {
        n: penalty * fisher[n].astype(np.float64) * (experts["reasoning"][n].astype(np.float64) - w) ** 2
        for n, w in experts[role].items()
    }
    return {
        n: (g * experts[role][n].astype(np.float64) + lost[n] <= 0).mean(0).astype(np.float32)
        for n, g in gradients.items()
    }


def test_a_share_over_depth_is_resolved_per_tensor(make):
    base = {n: np.zeros(v.shape, np.float32) for n, v in drawn(0, "normal").items()}
    experts = {"reasoning": drawn(1, "normal"), "task": drawn(2, "normal")}
    sizes = {n: v.size for n, v in base.items()}
    first, last = "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.up_proj.weight"
    merged = driver.merge(
        make("ties", profile="mergekit", density=[0.25, 1.0]), base, {"task": experts["task"]}
    )
    assert (merged[first] != 0).sum() == int(0.25 * sizes[first]) and (merged[last] != 0).all()
    scores = {f"{r}.{k}": statistics(4, "normal") for r in experts for k in ("gradient", "snip", "snip.base")}
    led = make("led", p=[0.5, 0.0])
    groups = driver.groups_of(base, {"task": experts["task"]}, scores)
    masks = driver.prepared(led, groups, ("task",))
    counts = {group.name: int(masks(group)["task"].sum()) for group in groups}
    assert counts[first] == int(0.5 * sizes[first]) and counts[last] == 0
    method = make("reasonany", scope="tensor", p=[0.0, 0.5], use_reasoning=False)
    masks = driver.prepared(method, driver.groups_of(base, experts, scores), tuple(experts))
    counts = {
        group.name: int(masks(group)["task"].sum()) for group in driver.groups_of(base, experts, scores)
    }
    assert counts[first] == 0 and counts[last] == int(0.5 * sizes[last])


@pytest.mark.parametrize(("name", "settings", "message"), [
    ("reasonany", {"p": [0.1, 0.2]}, "over depth, and the ranking is over the whole model"),
    ("led", {"p": [0.1, 0.2], "scope": "global"}, "over depth, and the ranking is over the whole model"),
    ("ties", {"density": [0.1, 0.2]}, "this `density` is not of `profile: paper`"),
    ("ties", {"weights": {"task": 0.5}, "profile": "official"}, "`weights` is not of `profile: official`"),
    ("reasonany", {"interval": [0, 0.1], "profile": "official"}, "`interval` under `profile: official`"),
    ("ties", {"normalize": False}, "this `normalize` is not of `profile: paper`"),
    ("dare", {"variant": "ties", "normalize": True}, "`normalize` with the paper's TIES"),
    ("reasonany", {"profile": "official", "loss_on": "completion"}, "`completion` under `profile: official`"),
])  # fmt: skip
def test_what_a_profile_does_not_have_is_refused_before_anything_is_read(make, name, settings, message):
    with pytest.raises(HarnessError) as caught:
        make(name, **settings).needs(("reasoning", "task"))
    assert message in caught.value.message and caught.value.hint


@pytest.mark.parametrize(("name", "settings", "sentence"), [
    ("ties", {"profile": "mergekit", "weights": {"reasoning": 0.3, "task": 0.3}}, "all weights are 0.3"),
    ("linear", {"weights": {"reasoning": 2.0, "task": 2.0}}, "all weights are 2"),
    ("dare", {"normalize": True, "weights": {"reasoning": 0.5, "task": 0.5}}, "all weights are 0.5"),
    ("task_arithmetic", {"weights": {"reasoning": 0.0, "task": 0.0}}, "the result is the base"),
    ("dare", {"density": [1.0, 1.0]}, "nothing is dropped"),
    ("dare", {"trim": 0.5}, "`trim` is read by the paper's TIES alone"),
    ("reasonany", {"interval": [0.1, 0.2], "p_reasoning": 0.1}, "`interval` overrides `p_reasoning`"),
    ("reasonany", {"reasoning_seed": 4}, "`reasoning_seed` is not read"),
    ("reasonany", {"p": 0.2, "p_task": 0.1, "p_reasoning": 0.1}, "`p` is not read"),
    ("led", {"p_of": {"reasoning": 0.1, "task": 0.1}}, "`p` is not read"),
    ("sce", {"select_topk": 0.0}, "the result is the base"),
    ("rcp", {"scale": 0.0}, "the result is the expert `reasoning`"),
    ("rcp", {"penalty": 0.0}, "reasoning has no part in the votes"),
])  # fmt: skip
def test_settings_without_effect_are_said(make, name, settings, sentence):
    said = make(name, **settings).degenerate(("reasoning", "task"))
    assert any(sentence in one for one in said)
    assert make(name).degenerate(("reasoning", "task")) == []


def test_normalize_makes_equal_weights_change_nothing(make):
    base, experts = drawn(1, "normal"), {"reasoning": drawn(2, "normal"), "task": drawn(3, "normal")}
    weights = dict.fromkeys(experts, 0.5)
    given, plain = (
        driver.merge(make("ties", profile="mergekit", **s), base, experts) for s in ({"weights": weights}, {})
    )
    close(given, plain)


def test_scale_zero_and_penalty_limits(make):
    base, experts = drawn(1, "normal"), {"reasoning": drawn(2, "normal"), "task": drawn(3, "normal")}
    key = make("rcp").needs(("reasoning", "task"))[0].key
    assert key == "task.votes.reasoning.1000"
    full = {key: {n: np.ones_like(v) for n, v in base.items()}}
    for settings in (
        {"name": "sce"},
        {"name": "ties", "profile": "mergekit"},
        {"name": "dare", "profile": "mergekit"},
    ):
        merged = driver.merge(make(scale=0.0, **settings), base, experts)
        assert all(merged[n].tobytes() == base[n].tobytes() for n in base)
    merged = driver.merge(make("rcp", scale=0.0), base, experts, full)
    assert all(merged[n].tobytes() == experts["reasoning"][n].tobytes() for n in base)
    even = {key: {n: np.full_like(v, 0.5) for n, v in base.items()}}  # no majority
    assert all(
        (driver.merge(make("rcp"), base, experts, even)[n] == experts["reasoning"][n]).all() for n in base
    )
