"""The profiles called mergekit, and SCE, against mergekit 0.1.5 itself on tiny checkpoints.

Both store bfloat16 from float32 arithmetic: they may differ by one bf16 ulp of max(|base|, |result|), and do
so in few elements. Elements of the magnitude (or variance) at the cut are excluded, as mergekit takes them in
the order of an unstable sort, and counted. The inputs are float32, where they are few, or bfloat16.
"""

import numpy as np
import pytest
import torch

from harness import ops
from harness.checkpoint import Checkpoint
from harness.merge import Inputs, Job, merge
from tests import helpers_checkpoints as tiny
from tests.methods.test_methods_end_to_end import weights

ROLES = ("reasoning", "task", "finance")
CONFIG = {**tiny.CONFIG, "vocab_size": 300}
SEED = 11
pytestmark = pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    root = tmp_path_factory.mktemp("mergekit")
    for dtype in ("float32", "bfloat16"):
        base = tiny.weights(CONFIG, dtype=getattr(torch, dtype))
        tiny.write(root / dtype / "base", base, CONFIG)
        for seed, role in enumerate(ROLES, 1):
            tiny.write(root / dtype / role, tiny.tuned(base, seed), CONFIG)
    return root


def both(make, family, tmp_path, name, ours, method, shared, by_role):
    """(ours, mergekit's, the base), name -> float32 array. `by_role`: mergekit's parameters per expert."""
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    opened = {role: Checkpoint.open(family / role) for role in by_role if role != "base"}
    inputs = Inputs(Checkpoint.open(family / "base"), opened, family / "base")
    merge(inputs, [Job(make(name, **ours), tmp_path / "ours", SEED, dtype="bfloat16")], threads=1)
    models = [{"model": str(family / role), "parameters": p} for role, p in by_role.items()]
    config = {"merge_method": method, "models": models, "parameters": shared, "dtype": "float32",
              "out_dtype": "bfloat16", "base_model": str(family / "base")}  # fmt: skip
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(tmp_path / "theirs"), options)
    return [weights(folder) for folder in (tmp_path / "ours", tmp_path / "theirs", family / "base")]


def within_an_ulp(ours, theirs, base, excluded=None):
    """The share of elements that differ at all; fails for one that differs by more than an ulp."""
    assert set(ours) == set(theirs) == set(base)
    differing = total = 0
    for name in ours:
        size = np.maximum(np.abs(base[name]), np.maximum(np.abs(ours[name]), np.abs(theirs[name])))
        ulp = 2.0 ** (np.floor(np.log2(size + 1e-30)) - 7)
        off = np.abs(ours[name] - theirs[name])
        if excluded is not None:
            off = np.where(excluded[name], 0, off)
        assert (off <= ulp).all(), name
        differing, total = differing + (off > 0).sum(), total + off.size
    return differing / total


def tied_at(values, k):
    """Elements equal to the k-th largest, where they are not all kept."""
    flat = np.sort(values.ravel())[::-1]
    if not 0 < k < flat.size or flat[k - 1] != flat[k] or flat[k] == 0:  # whether zeros are kept is no matter
        return np.zeros(values.shape, bool)
    return values == flat[k - 1]


def deltas(family, role):
    base, expert = weights(family / "base"), weights(family / role)
    return {name: expert[name] - base[name] for name in base}


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("name", "method"), [("linear", "linear"), ("task_arithmetic", "task_arithmetic")])
def test_linear_and_task_arithmetic(make, family, tmp_path, name, method, normalize):
    family = family / "float32"  # means of bfloat16 numbers often lie in the middle between two
    weight = {"reasoning": 0.83, "task": 0.31, "finance": -0.47}
    ours, shared = {"weights": weight, "normalize": normalize}, {"normalize": normalize}
    by_role = {role: {"weight": w} for role, w in weight.items()}
    if name == "task_arithmetic":
        ours, shared = {**ours, "scale": 0.7}, {**shared, "lambda": 0.7}
    else:
        by_role = {"base": {"weight": 0.0}, **by_role}
    found = both(make, family, tmp_path, name, ours, method, shared, by_role)
    assert within_an_ulp(*found) < 1e-3


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("density", "roles"), [(0.1, 2), (0.37, 3), (1.0, 2)])
@pytest.mark.parametrize(("dtype", "most"), [("float32", 0.001), ("bfloat16", 0.2)])
def test_ties(make, family, tmp_path, density, roles, normalize, dtype, most):
    family = family / dtype
    weight = dict(zip(ROLES[:roles], (1.0, 0.3, 0.6), strict=False))
    ours = {
        "profile": "mergekit",
        "density": density,
        "weights": weight,
        "normalize": normalize,
        "scale": 0.6,
    }
    by_role = {role: {"weight": w, "density": density} for role, w in weight.items()}
    shared = {"normalize": normalize, "lambda": 0.6}
    found = both(make, family, tmp_path, "ties", ours, "ties", shared, by_role)
    changes = [deltas(family, role) for role in weight]
    ties = {
        n: np.any([tied_at(np.abs(c[n]), max(1, int(density * c[n].size))) for c in changes], axis=0)
        for n in changes[0]
    }
    assert within_an_ulp(*found, ties) < 1e-3
    tied, total = (sum(int(f(t)) for t in ties.values()) for f in (np.sum, np.size))
    assert tied <= (most if density < 1 else 0) * total


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("variant", ["linear", "ties"])
@pytest.mark.parametrize("density", [0.2, 1.0])
def test_dare_on_the_same_draw(make, family, tmp_path, monkeypatch, variant, density, normalize):
    """mergekit's random numbers are torch's global ones; here it is handed ours, and does the rest."""
    import mergekit.sparsify as theirs

    family = family / "bfloat16"
    weight = {"reasoning": 1.0, "task": 0.4}
    known = {d.tobytes(): (role, n) for role in weight for n, d in deltas(family, role).items()}
    drawn = []

    def bernoulli(tensor, density, rescale_norm=None):
        role, name = known[tensor.numpy().tobytes()]
        drawn.append(name)
        mask = ops.uniform(SEED, role, name, 0, tensor.numel()).reshape(tensor.shape) < density
        return theirs.rescaled_masked_tensor(tensor, mask.float(), rescale_norm)

    if density < 1:
        monkeypatch.setattr(theirs, "bernoulli", bernoulli)
    ours = {
        "profile": "mergekit",
        "variant": variant,
        "density": density,
        "weights": weight,
        "normalize": normalize,
    }
    by_role = {role: {"weight": w, "density": density} for role, w in weight.items()}
    shared = {"normalize": normalize, "rescale": True, "lambda": 1.0}
    found = both(make, family, tmp_path, "dare", ours, f"dare_{variant}", shared, by_role)
    assert bool(drawn) is (density < 1)
    assert within_an_ulp(*found) < 1e-3


def test_both_draws_keep_the_same_share(make, family, tmp_path):
    family = family / "bfloat16"
    ours = {"profile": "mergekit", "density": 0.3}
    by_role = {"task": {"weight": 1.0, "density": 0.3}}
    one, other, base = both(make, family, tmp_path, "dare", ours, "dare_linear", {"rescale": True}, by_role)
    changed = np.concatenate([(v != 0).ravel() for v in deltas(family, "task").values()])
    for merged in (one, other):
        kept = np.concatenate([(merged[n] != base[n]).ravel() for n in base])
        assert not kept[~changed].any()
        assert abs(kept.sum() / changed.sum() - 0.3) < 5 * (0.3 * 0.7 / changed.sum()) ** 0.5 + 0.005


@pytest.mark.parametrize(("topk", "roles", "dtype"), [
    (1.0, 2, "float32"), (1.0, 3, "bfloat16"), (0.1, 2, "float32"), (0.4, 3, "float32"),
])  # fmt: skip
def test_sce(make, family, tmp_path, topk, roles, dtype):
    """Not with a cut in bfloat16: which of equal variances are taken shows in the weights of all elements."""
    family, by_role = family / dtype, {role: {} for role in ROLES[:roles]}
    found = both(make, family, tmp_path, "sce", {"select_topk": topk}, "sce", {"select_topk": topk}, by_role)
    changes = [deltas(family, role) for role in by_role]
    at_cut = {n: near_the_cut(np.stack([c[n] for c in changes]), topk) for n in changes[0]}
    assert within_an_ulp(*found, at_cut) < (1e-3 if dtype == "float32" else 1e-2)
    assert sum(t.sum() for t in at_cut.values()) <= 0.001 * sum(t.size for t in at_cut.values())


def near_the_cut(vectors, topk):
    """Elements whose variance is that of the last one selected, but for float32 rounding; counts in float32
    (mergekit's) and float64 (ours)."""
    variance = vectors.astype(np.float64).var(0)
    count, near = np.count_nonzero(variance.astype(np.float32)), np.zeros(variance.shape, bool)
    for k in {int(topk * count), int(np.float32(topk) * np.float32(count))}:
        if 0 < k < count:
            last = np.sort(variance.ravel())[::-1][k - 1 : k + 1]
            near |= (variance >= last[1] * (1 - 1e-6)) & (variance <= last[0] * (1 + 1e-6))
    return near


def test_sce_with_large_changes_weights_by_size(make, tmp_path):
    """In fine-tunes mean squares add up to less than 1e-6, and weights are uniform; here they are not."""
    config = {**CONFIG, "num_hidden_layers": 1}
    base = tiny.weights(config)
    tiny.write(tmp_path / "base", base, config)
    for seed, role in enumerate(ROLES[:2], 1):
        other = tiny.weights(config, seed)
        tuned = {n: (t.float() + 0.1 * seed * other[n].float()).bfloat16() for n, t in base.items()}
        tiny.write(tmp_path / role, tuned, config)
    found = both(make, tmp_path, tmp_path, "sce", {}, "sce", {}, {role: {} for role in ROLES[:2]})
    assert within_an_ulp(*found) < 1e-3
