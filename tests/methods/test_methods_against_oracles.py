"""Every method on random models against float64 formulas; both sides see the same float32 inputs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.methods.conftest import NAMES, drawn, statistics
from tests.reference import driver, oracles

ROLES = ("reasoning", "task", "finance")
EXAMPLES = settings(max_examples=40, deadline=None, derandomize=True)
shares = st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.3, 0.5, 0.77, 0.9, 1.0])
scales = st.sampled_from([0.0, 0.3, 1.0, -0.5, 1.7])


@st.composite
def models(draw, statistic=False, kinds=("normal", "grid", "sparse")):
    kind = draw(st.sampled_from(kinds))
    seed = draw(st.integers(0, 10_000))
    roles = ROLES[: draw(st.integers(1, 3))]
    base, experts = drawn(seed, kind), {role: drawn(seed + 1 + i, kind) for i, role in enumerate(roles)}
    if not statistic:
        return base, experts
    scored = {
        m: {role: statistics(10 * seed + i + 5 * (m == "base"), kind) for i, role in enumerate(roles)}
        for m in ("expert", "base")
    }
    return base, experts, scored


def close(merged, expected):
    """Float32 against float64: a few roundings of numbers of order 1 to 10."""
    assert list(merged) == list(expected)
    for name in merged:
        np.testing.assert_allclose(merged[name], expected[name], rtol=3e-6, atol=3e-6, err_msg=name)


def weights_for(draw, experts):
    return {role: draw(st.sampled_from([1.0, 0.25, 2.0])) for role in experts}


@EXAMPLES
@given(models(), st.data())
def test_linear(make, models, data):
    base, experts = models
    weights = weights_for(data.draw, experts)
    close(
        driver.merge(make("linear", weights=weights), base, experts), oracles.linear(base, experts, weights)
    )


@EXAMPLES
@given(models(), scales, st.data())
def test_task_arithmetic(make, models, scale, data):
    base, experts = models
    weights = weights_for(data.draw, experts)
    merged = driver.merge(make("task_arithmetic", weights=weights, scale=scale), base, experts)
    close(merged, oracles.task_arithmetic(base, experts, weights, scale))


@settings(EXAMPLES, max_examples=150)
@given(models(), shares, scales)
def test_ties(make, models, density, scale):
    base, experts = models
    merged = driver.merge(make("ties", density=density, scale=scale), base, experts)
    close(merged, oracles.ties(base, experts, density, scale))


CANCELLING = [([-1, -1, 3], -2.0), ([-1, 2, 3], 2.0), ([-1, 3, 0], 0.0)]


@pytest.mark.parametrize(("rest", "expected"), CANCELLING)
def test_ties_gives_an_element_without_a_sign_to_the_majority(make, rest, expected):
    """The first element is +2 and -2: the sign of most others decides, and none when they cancel out."""
    base = {"w.weight": np.zeros(4, np.float32)}
    experts = {"reasoning": {"w.weight": np.array([2, *rest], np.float32)},
               "task": {"w.weight": np.array([-2, *rest], np.float32)}}  # fmt: skip
    merged = driver.merge(make("ties", density=1.0), base, experts)
    assert merged["w.weight"].tolist() == [expected, *rest]
    close(merged, oracles.ties(base, experts, 1.0, 1.0))


@settings(EXAMPLES, max_examples=80)
@given(st.sampled_from(["linear", "ties"]), st.sampled_from(["exact", "l1", "none"]), scales, st.data())
def test_dare(make, variant, rescale, scale, data):
    # TIES compares numbers: exact in float32 (factors that are powers of two), or never close.
    exact = variant == "ties" and rescale != "l1"
    base, experts = data.draw(
        models(kinds=["normal"] if variant == "ties" and not exact else ["normal", "grid"])
    )
    density = data.draw(st.sampled_from([0.25, 0.5, 1.0] if exact else [0.1, 0.5, 0.9, 1.0]))
    trim = data.draw(st.sampled_from([0.2, 0.6, 1.0]))
    weights = weights_for(data.draw, experts)
    chosen = {"density": density, "scale": scale, "weights": weights}
    chosen |= {"rescale": rescale, "variant": variant, "trim": trim}
    kept = {role: {} for role in experts}
    for group in driver.groups_of(base, experts, seed=7):
        for role in experts:
            kept[role][group.name] = (group.uniform(role).numpy() < density).reshape(group.shape)
    close(
        driver.merge(make("dare", **chosen), base, experts, seed=7),
        oracles.dare(base, experts, kept, **chosen),
    )


def by_key(scored, kind):
    return {
        f"{role}.{kind}" + (".base" if model == "base" else ""): statistic
        for model, of_role in scored.items()
        for role, statistic in of_role.items()
    }


@EXAMPLES
@given(models(statistic=True), shares, shares, scales, scales, st.sampled_from(["tensor", "global"]))
def test_led(make, models, p, p_task, scale, scale_task, scope):
    base, experts, scored = models
    own = {"task": p_task} if "task" in experts else {}
    own_scale = {"task": scale_task} if "task" in experts else {}
    method = make("led", p=p, p_of=own, scale=scale, scale_of=own_scale, scope=scope)
    masks = oracles.led_masks(
        scored["expert"], scored["base"], {role: own.get(role, p) for role in experts}, scope
    )
    expected = oracles.add(base, experts, masks, {role: own_scale.get(role, scale) for role in experts})
    close(driver.merge(method, base, experts, by_key(scored, "snip")), expected)


@settings(EXAMPLES, max_examples=150)
@given(models(statistic=True), st.data())
def test_reasonany(make, models, data):
    base, experts, scored = models
    pick = lambda *values: data.draw(st.sampled_from(values))  # noqa: E731
    chosen = {
        "p": data.draw(shares), "p_task": pick(None, 0.2, 1.0), "p_reasoning": pick(None, 0.4),
        "scale": data.draw(scales), "scale_task": pick(None, 0.7), "scale_reasoning": pick(None, 1.3),
        "granularity": pick("element", "element", "tensor"), "scope": pick("global", "tensor"),
        "score": pick("gradient", "snip"), "elect": pick("expert", "expert_and_base"),
        "reasoning_end": pick("lowest", "highest"),
        "exclusion": pick("drop_both", "drop_both", "task_first", "reasoning_first", "none"),
        "exclude_modules": pick(None, ["embed_tokens"], ["*norm", "up_proj"]),
        "zero_gradient": pick("include", "exclude"), "interval": pick(None, None, [0.1, 0.6], [0.0, 0.3]),
        "use_task": pick(True, True, False), "use_reasoning": pick(True, True, False),
    }  # fmt: skip
    chosen = {key: value for key, value in chosen.items() if value is not None}
    method = make("reasonany", **chosen)
    merged = driver.merge(method, base, experts, by_key(scored, chosen["score"]))
    close(merged, expected_reasonany(base, experts, scored, chosen))


def expected_reasonany(base, experts, scored, chosen):
    spans, ends, scale = {}, {}, {}
    for role in experts:
        side = "reasoning" if role == "reasoning" else "task"
        if not chosen[f"use_{side}"]:
            continue
        spans[role] = (0, chosen.get(f"p_{side}", chosen["p"]))
        if side == "reasoning":
            spans[role] = tuple(chosen.get("interval", spans[role]))
        ends[role] = chosen["reasoning_end"] if side == "reasoning" else "highest"
        scale[role] = chosen.get(f"scale_{side}", chosen["scale"])
    left_out = {("embed_tokens",): NAMES[:1], ("*norm", "up_proj"): NAMES[1:]}.get(
        tuple(chosen.get("exclude_modules", ())), ()
    )
    same = {key: chosen[key] for key in ("scope", "granularity", "elect", "exclusion")}
    nonzero = chosen["zero_gradient"] == "exclude"
    masks = oracles.reasonany_masks(
        scored["expert"], scored["base"], spans, ends, exclude=left_out, nonzero=nonzero, **same
    )
    return oracles.add(base, experts, masks, scale)


@pytest.mark.parametrize("wrong", ["density", "scale", "sign"])
def test_the_oracles_can_tell(make, wrong):
    """The comparison above fails when either side is a little wrong."""
    base, experts = drawn(3, "normal"), {role: drawn(4 + i, "normal") for i, role in enumerate(ROLES)}
    expected = oracles.ties(base, experts, 0.5, 1.0)
    settings = {"density": {"density": 0.52, "scale": 1.0}, "scale": {"density": 0.5, "scale": 1.001}}.get(
        wrong
    )
    if wrong == "sign":
        experts = {role: {n: -v for n, v in e.items()} for role, e in experts.items()}
        settings = {"density": 0.5, "scale": 1.0}
    with pytest.raises(AssertionError):
        close(driver.merge(make("ties", **settings), base, experts), expected)
