"""Task vectors against a loop over whole tensors in float64."""

import itertools

import pytest

from harness.analyse.vectors import summed, vectors
from harness.checkpoint import Checkpoint
from tests import helpers_checkpoints as tiny


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vectors")
    base = tiny.weights(tiny.CONFIG)
    found = {
        "base": base,
        "reasoning": tiny.tuned(base, 1),
        "task": tiny.tuned(base, 2),
        "other": tiny.tuned(base, 3),
    }
    opened = {name: Checkpoint.open(tiny.write(folder / name, tensors)) for name, tensors in found.items()}
    return found, opened


def test_every_tensor_equals_the_plain_loop(models):
    tensors, opened = models
    experts = {name: opened[name] for name in ("reasoning", "task", "other")}
    given = {row["tensor"]: row for row in vectors(opened["base"], experts)}
    assert set(given) == set(tensors["base"])
    for name, row in given.items():
        base = tensors["base"][name].double()
        delta = {role: tensors[role][name].double() - base for role in experts}
        assert row["base"] == pytest.approx(base.square().sum().item())
        for role in experts:
            assert row[role] == pytest.approx(delta[role].square().sum().item())
        for a, b in itertools.combinations(experts, 2):
            both = (delta[a] != 0) & (delta[b] != 0)
            assert row[f"dot:{a},{b}"] == pytest.approx((delta[a] * delta[b]).sum().item(), abs=1e-9)
            assert row[f"both:{a},{b}"] == int(both.sum())
            assert row[f"conflicts:{a},{b}"] == int((both & (delta[a].sign() != delta[b].sign())).sum())


def test_rows_add_up_and_nothing_is_divided_by_zero(models):
    tensors, opened = models
    experts = {name: opened[name] for name in ("reasoning", "task")}
    rows = vectors(opened["base"], experts)
    whole = summed(rows, list(experts))
    tau = {
        r: sum((tensors[r][n].double() - t.double()).square().sum() for n, t in tensors["base"].items())
        for r in experts
    }
    theta = sum(t.double().square().sum() for t in tensors["base"].values())
    assert whole["relative:task"] == pytest.approx((tau["task"] / theta).sqrt().item())
    assert -1 <= whole["cosine:reasoning,task"] <= 1 and 0.4 < whole["conflicts:reasoning,task"] < 0.6
    still = [row for row in rows if row["tensor"].endswith("layers.0.mlp.up_proj.weight")]
    same = summed(still, list(experts))
    assert same["cosine:reasoning,task"] is None and same["relative:task"] == 0.0
