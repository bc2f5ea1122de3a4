"""Checkpoints in, checkpoint out: the engine against the plain driver, bit for bit, and against mergekit."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.checkpoint import Checkpoint
from harness.merge import Inputs, Job, merge
from tests import helpers_checkpoints as tiny
from tests.reference import driver

ROLES = ("reasoning", "task")
CONFIG = {**tiny.CONFIG, "vocab_size": 1500}  # the embedding is two blocks of the smallest size
SEED = 5
SETTINGS = [
    ("linear", {}),
    ("linear", {"weights": {"task": 0.3}}),
    ("task_arithmetic", {"scale": 0.3}),
    ("task_arithmetic", {"scale": [0.2, 1.0]}),
    ("ties", {"density": 0.1, "scale": 0.3}),
    ("ties", {"density": 1.0}),
    ("dare", {"density": 0.1, "scale": 0.3}),
    ("dare", {"density": 0.5, "rescale": "l1"}),
    ("dare", {"density": 0.3, "variant": "ties", "trim": 0.2}),
    ("led", {}),
    ("led", {"p": 0.3, "scope": "global"}),
    ("reasonany", {}),
    ("reasonany", {"p": 0.3, "exclusion": "none", "zero_gradient": "exclude"}),
    ("reasonany", {"p": 0.2, "granularity": "tensor", "elect": "expert_and_base"}),
    ("reasonany", {"interval": [0.05, 0.1], "score": "snip", "exclude_modules": ["embed_tokens"]}),
    ("reasonany", {"reasoning_end": "random", "scope": "tensor", "scale_task": 0.5}),
    ("reasonany", {"p": [0.1, 0.3], "scope": "tensor"}),
    ("reasonany", {"profile": "official", "p": 1e-5}),
    ("led", {"p": [0.3, 0.0]}),
    ("ties", {"profile": "mergekit", "density": [0.1, 0.5], "weights": {"task": 0.3}}),
    ("ties", {"profile": "mergekit", "normalize": False}),
    ("dare", {"profile": "mergekit", "density": 0.3}),
    ("dare", {"profile": "mergekit", "density": [0.3, 1.0], "variant": "ties", "normalize": True}),
    ("sce", {}),
    ("sce", {"select_topk": [0.1, 0.5], "scale": 0.7}),
    ("rcp", {"scale": 0.5}),
]


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Folder with base, reasoning, task, and every statistic the methods above read."""
    root = tmp_path_factory.mktemp("end-to-end")
    base = tiny.weights(CONFIG)
    tiny.write(root / "base", base, CONFIG)
    for seed, role in enumerate(ROLES, 1):
        tiny.write(root / role, tiny.tuned(base, seed), CONFIG, shards=seed)
        for i, kind in enumerate(("gradient", "snip", "gradient.base", "snip.base")):
            draw = torch.Generator().manual_seed(10 * seed + i)
            score = {name: torch.randn(t.shape, generator=draw).abs() for name, t in base.items()}
            score["model.embed_tokens.weight"][::3] = 0  # tokens that the text does not hold
            (root / f"{role}.{kind}").mkdir()
            save_file(score, root / f"{role}.{kind}" / "model.safetensors")
    return root


def weights(folder):
    files = sorted(folder.glob("*.safetensors"))
    return {name: t.float().numpy() for file in files for name, t in load_file(file).items()}


def in_order(model, checkpoint):
    return {name: model[name] for name in checkpoint.tensors}


def scores_of(method, family):
    """What the statistic is called here does not matter to the engine; votes are random numbers too."""
    needs = method.needs(ROLES) if hasattr(method, "needs") else ()
    kinds = {need.key: need.kind if need.kind != "votes" else "gradient" for need in needs}
    names = {n.key: f"{n.role}.{kinds[n.key]}" + ".base" * (n.model == "base") for n in needs}
    return {key: Checkpoint.open(family / name) for key, name in names.items()}


@pytest.fixture(scope="module")
def merged(family, make, tmp_path_factory):
    """All settings merged in shared passes: [(method, folder)]."""
    to = tmp_path_factory.mktemp("merged")
    base = Checkpoint.open(family / "base")
    inputs = Inputs(base, {role: Checkpoint.open(family / role) for role in ROLES}, family / "reasoning")
    methods = [make(name, **copy.deepcopy(settings)) for name, settings in SETTINGS]
    jobs = [Job(m, to / str(i), SEED, scores_of(m, family)) for i, m in enumerate(methods)]
    merge(inputs, jobs, threads=2, block=65_536)
    return [(m, to / str(i)) for i, m in enumerate(methods)]


@pytest.mark.parametrize("index", range(len(SETTINGS)), ids=[f"{n}-{i}" for i, (n, _) in enumerate(SETTINGS)])
def test_the_engine_writes_what_the_driver_computes(family, merged, index):
    method, folder = merged[index]
    base = Checkpoint.open(family / "base")
    models = [in_order(weights(family / name), base) for name in ("base", *ROLES)]
    scores = {key: in_order(weights(s.path), base) for key, s in scores_of(method, family).items()}
    expected = driver.merge(method, models[0], dict(zip(ROLES, models[1:], strict=True)), scores, SEED)
    stored = load_file(folder / "model.safetensors")
    assert set(stored) == set(expected)
    for name, tensor in stored.items():
        rounded = torch.from_numpy(expected[name]).to(torch.bfloat16)
        assert torch.equal(tensor.view(torch.int16), rounded.view(torch.int16)), name


def test_the_threshold_of_ties_is_the_released_codes(make, tmp_path):
    """int(d * density) + 1 distinct magnitudes: the (d - int(d * density))-th smallest is kept too."""
    base = {"a.weight": torch.zeros(10), "b.weight": torch.zeros(10)}
    steps = torch.arange(1, 21).float()
    for name, model in (("base", base), ("task", {"a.weight": steps[:10], "b.weight": -steps[10:]})):
        tiny.write(tmp_path / name, model)
    base, task = (Checkpoint.open(tmp_path / name) for name in ("base", "task"))
    merge(
        Inputs(base, {"task": task}, tmp_path / "base"),
        [Job(make("ties", density=0.25), tmp_path / "to")],
        threads=1,
    )
    merged = load_file(tmp_path / "to" / "model.safetensors")
    assert merged["a.weight"].tolist() == [0] * 10
    assert merged["b.weight"].tolist() == [0] * 4 + [-15, -16, -17, -18, -19, -20]


@pytest.mark.parametrize(("name", "ours", "theirs"), [
    ("linear", {}, {"parameters": {"normalize": True}, "weight": 1.0}),
    ("linear", {"weights": {"task": 0.3}}, {"parameters": {"normalize": True}, "weight": 0.3}),
    ("task_arithmetic", {"scale": 0.3}, {"parameters": {"normalize": False, "lambda": 0.3}, "weight": 1.0}),
    ("task_arithmetic", {"weights": {"task": -0.7}}, {"parameters": {"normalize": False}, "weight": -0.7}),
])  # fmt: skip
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.filterwarnings("ignore:numpy.core:DeprecationWarning")
def test_mergekit_gives_the_same_within_one_ulp(make, tmp_path, tied, name, ours, theirs):
    config = {**CONFIG, "vocab_size": 300, "tie_word_embeddings": tied}
    base = tiny.weights(config)
    tiny.write(tmp_path / "base", base, config)
    for seed, role in enumerate(ROLES, 1):
        tiny.write(tmp_path / role, tiny.tuned(base, seed), config)
    opened = {role: Checkpoint.open(tmp_path / role) for role in ROLES}
    merge(Inputs(Checkpoint.open(tmp_path / "base"), opened, tmp_path / "base"),
          [Job(make(name, **ours), tmp_path / "ours")], threads=1)  # fmt: skip
    run_mergekit(tmp_path, name, {"reasoning": 1.0, "task": theirs["weight"]}, theirs["parameters"])
    one, other, start = (weights(tmp_path / folder) for folder in ("ours", "theirs", "base"))
    assert set(one) == set(other) == set(start)
    differing = 0
    for key in one:
        ulp = 2.0 ** (np.floor(np.log2(np.maximum(np.abs(start[key]), np.abs(other[key])) + 1e-30)) - 7)
        assert (np.abs(one[key] - other[key]) <= ulp).all(), key
        differing += (one[key] != other[key]).sum()
    assert differing <= 1e-3 * sum(v.size for v in one.values())


def run_mergekit(folder, method, by_role, parameters):
    from mergekit.config import MergeConfiguration
    from mergekit.merge import run_merge
    from mergekit.options import MergeOptions

    if (
        method == "linear"
    ):  # there the base is a model like the others, and is named to fix the config's donor
        by_role = {"base": 0.0, **by_role}
    models = [{"model": str(folder / role), "parameters": {"weight": w}} for role, w in by_role.items()]
    config = {"merge_method": method, "models": models, "parameters": parameters, "dtype": "float32",
              "out_dtype": "bfloat16", "base_model": str(folder / "base")}  # fmt: skip
    options = MergeOptions(copy_tokenizer=False, write_model_card=False, quiet=True)
    run_merge(MergeConfiguration.model_validate(config), str(folder / "theirs"), options)
