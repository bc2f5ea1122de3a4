"""Figures of a merge's masks, from the merge on, against masks made in numpy over the whole model."""

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from harness import registry
from harness.analyse import forensics
from harness.checkpoint import Checkpoint, natural_key
from harness.merge import Inputs, Job, merge
from harness.method import configure
from tests import helpers_checkpoints as tiny

CONFIG = {**tiny.CONFIG, "hidden_size": 16, "intermediate_size": 48, "vocab_size": 300}
ROLES = ("reasoning", "task")
P = 0.3


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """(exclusion) -> the file's rows, and the arrays behind it."""
    root = tmp_path_factory.mktemp("forensics")
    base = tiny.weights(CONFIG)
    models = {"base": base, **{role: tiny.tuned(base, seed) for seed, role in enumerate(ROLES, 1)}}
    for name, tensors in models.items():
        tiny.write(root / name, tensors, CONFIG)
    scores = {}
    for seed, role in enumerate(ROLES, 10):
        draw = torch.Generator().manual_seed(seed)
        drawn = {n: torch.randn(t.shape, generator=draw).relu() for n, t in base.items()}
        drawn["model.embed_tokens.weight"][:100] = 0  # rows that the data does not hold
        (root / f"scores-{role}").mkdir()
        save_file(drawn, root / f"scores-{role}" / "model.safetensors")
        scores[role] = drawn
    inputs = Inputs(
        Checkpoint.open(root / "base"), {r: Checkpoint.open(root / r) for r in ROLES}, root / "base"
    )
    statistics = {f"{role}.gradient": Checkpoint.open(root / f"scores-{role}") for role in ROLES}
    arrays = {name: flat(tensors) for name, tensors in models.items()}
    arrays |= {f"scores-{role}": flat(own) for role, own in scores.items()}
    names = sorted(base, key=natural_key)
    arrays["names"] = np.repeat(names, [base[name].numel() for name in names])

    def of(exclusion):
        to = root / exclusion
        method = configure(registry.method("reasonany"), {"p": P, "exclusion": exclusion})
        masks = to.parent / f"{exclusion}-figures" / "masks.json"
        masks.parent.mkdir(exist_ok=True)
        parameters = yaml.safe_dump({"method": "reasonany", "parameters": {"p": P, "exclusion": exclusion}})
        (masks.parent / "recipe.yaml").write_text(parameters)
        merge(inputs, [Job(method, to, 0, statistics, masks=masks)], threads=1)
        return forensics.read(masks.parent), arrays | {"out": flat(load_file(to / "model.safetensors"))}

    return of


def flat(tensors):
    ordered = [tensors[name] for name in sorted(tensors, key=natural_key)]
    return np.concatenate([tensor.float().numpy().ravel() for tensor in ordered]).astype(np.float64)


def plain(arrays):
    """role -> mask before exclusion; ties go to the element that comes first."""
    k = int(P * len(arrays["base"]))
    found = {}
    for role, sign in (("reasoning", 1), ("task", -1)):
        found[role] = np.zeros(len(arrays["base"]), bool)
        found[role][np.argsort(sign * arrays[f"scores-{role}"], kind="stable")[:k]] = True
    return found


@pytest.mark.parametrize("exclusion", ["drop_both", "none"])
def test_totals_are_those_of_masks_over_the_whole_model(told, exclusion):
    file, arrays = told(exclusion)
    before = plain(arrays)
    both = before["reasoning"] & before["task"]
    embedded = arrays["names"] == "model.embed_tokens.weight"
    rows = {row["role"]: row for row in forensics.totals("r", file)}
    assert set(rows) == set(ROLES) and both.sum() > 100
    for role, row in rows.items():
        mask = before[role] & ~both if exclusion == "drop_both" else before[role]
        tau = arrays[role] - arrays["base"]
        assert row["selected"] == mask.mean()
        assert row["energy"] == pytest.approx((tau[mask] ** 2).sum() / (tau**2).sum(), rel=1e-6)
        assert row["embeddings"] == pytest.approx(embedded[mask].mean())
        assert row["zero_gradient"] == pytest.approx((arrays[f"scores-{role}"][mask] == 0).mean())
        assert row["zero_delta"] == pytest.approx((tau[mask] == 0).mean())
        assert row["unchanged"] == pytest.approx((arrays["out"][mask] == arrays["base"][mask]).mean())
        if exclusion == "drop_both":
            union = before["reasoning"] | before["task"]
            assert row["jaccard"] == pytest.approx(both.sum() / union.sum())
            assert row["removed"] == pytest.approx(both.sum() / before[role].sum())
        else:
            assert row["jaccard"] is None
    assert rows["reasoning"]["zero_gradient"] > 0.9 > rows["task"]["zero_gradient"]


def test_compositions_are_counts_by_name(told):
    file, arrays = told("drop_both")
    before = plain(arrays)
    mask = before["reasoning"] & ~before["task"]
    names = arrays["names"]
    modules = {
        row["module"]: row for row in forensics.composition("r", file, "module") if row["role"] == "reasoning"
    }
    for module in ("embed_tokens", "q_proj", "down_proj"):
        own = np.char.find(names, f"{module}.") >= 0
        assert modules[module]["of_elements"] == pytest.approx(own.mean())
        assert modules[module]["of_selected"] == pytest.approx(own[mask].mean())
        assert modules[module]["selected"] == pytest.approx(mask[own].mean())
        tau = (arrays["reasoning"] - arrays["base"])[own]
        assert modules[module]["energy"] == pytest.approx(
            (tau[mask[own]] ** 2).sum() / (tau**2).sum(), rel=1e-6
        )
    layers = {
        row["layer"]: row for row in forensics.composition("r", file, "layer") if row["role"] == "reasoning"
    }
    assert set(layers) == {"outside", 0, 1}
    for layer in (0, 1):
        own = np.char.find(names, f".layers.{layer}.") >= 0
        assert layers[layer]["of_selected"] == pytest.approx(own[mask].mean())
