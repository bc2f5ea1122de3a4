"""Blocks computed in one go by the compiled machine: the bytes, figures and errors of one operation at a
time."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness import HarnessError, merge_method, ops, registry
from harness.checkpoint import Checkpoint
from harness.merge import Inputs, Job, fused, merge, passes
from harness.merge.fused.tallies import carry_out
from harness.method import configure
from tests import helpers_checkpoints as tiny
from tests.merge.test_merge_exact import digests

RECIPES = [
    ("linear", {"weights": {"reasoning": 0.3}}),
    ("linear", {"weights": {"reasoning": -2.0}, "normalize": False}),
    ("task_arithmetic", {"scale": 0.0}),
    ("task_arithmetic", {"scale": [0.1, 0.9], "weights": {"task": 0.7}, "normalize": True}),
    ("ties", {"density": 0.3}),
    ("ties", {"density": 1.0}),
    ("ties", {"profile": "mergekit", "density": [0.1, 0.9], "weights": {"reasoning": 0.5}}),
    ("ties", {"profile": "mergekit", "normalize": False}),
    ("dare", {"density": 0.5}),
    ("dare", {"density": 0.5, "variant": "ties", "weights": {"task": 0.4}}),
    ("dare", {"density": 0.5, "variant": "ties", "rescale": "l1"}),
    ("dare", {"profile": "mergekit", "variant": "ties", "density": 0.5}),
    ("sce", {"select_topk": 0.3}),
    ("led", {"p": 0.2}),
    ("led", {"p": 0.2, "scope": "global", "scale_of": {"task": 0.5}}),
    ("reasonany", {"p": 0.2}),
    ("reasonany", {"score": "snip", "zero_gradient": "exclude", "exclude_modules": ["up_proj"]}),
    ("reasonany", {"reasoning_end": "random", "interval": [0.1, 0.3]}),
    ("reasonany", {"p": 0.01, "granularity": "tensor", "exclusion": "task_first"}),
    ("reasonany", {"p": 0.01, "profile": "official"}),
    ("rcp", {}),
]


@pytest.fixture
def machine(monkeypatch):
    """Small models take the way of the large ones."""
    monkeypatch.setattr(fused, "LARGE", 0)


@pytest.fixture(scope="module", params=["bfloat16", "float16", "float32", "mixed"])
def models(request, tmp_path_factory):
    """(inputs, statistics): a family with negative zeros, ties and equal weights, in three storages."""
    root = tmp_path_factory.mktemp("fused")
    base = tiny.weights(tiny.CONFIG, dtype=torch.float32)
    held = {"base": base, "reasoning": tiny.tuned(base, 1), "task": tiny.tuned(base, 2)}
    for number, (name, tensors) in enumerate(held.items()):
        kind = request.param if request.param != "mixed" else ("bfloat16", "float32", "float16")[number]
        for tensor in tensors.values():
            tensor.view(-1)[number::7] = -0.0
        tiny.write(root / name, {n: t.to(getattr(torch, kind)) for n, t in tensors.items()})
    draw = torch.Generator().manual_seed(3)
    scores = {n: torch.randn(t.shape, generator=draw).relu().bfloat16() for n, t in base.items()}
    tiny.write(root / "scores", scores)
    opened = {name: Checkpoint.open(root / name) for name in ("base", "reasoning", "task", "scores")}
    experts = {role: opened[role] for role in ("reasoning", "task")}
    return Inputs(opened["base"], experts, root / "base"), opened["scores"]


def jobs_of(models, to, recipes=RECIPES, **settings):
    inputs, statistic = models
    made = []
    for i, (name, given) in enumerate(recipes):
        method = configure(registry.method(name), given)
        needs = method.needs(tuple(inputs.experts)) if hasattr(method, "needs") else ()
        scores = {need.key: statistic for need in needs}
        made.append(
            Job(method, to / str(i), scores=scores, masks=to / str(i) / "masks.json", seed=5, **settings)
        )
    return made


def found(to):
    folders = sorted(to.iterdir(), key=lambda folder: int(folder.name))
    return [(digests(folder), (folder / "masks.json").read_bytes()) for folder in folders]


@pytest.mark.parametrize("sampled", [False, True])
def test_the_machine_gives_the_bytes_and_figures_of_one_operation_at_a_time(
    models, tmp_path, monkeypatch, sampled, request
):
    if sampled:
        request.getfixturevalue("few_blocks_kept_whole")
    merge(models[0], jobs_of(models, tmp_path / "eager"))
    monkeypatch.setattr(fused, "LARGE", 0)
    assert all(fused.serves(models[0].base, job.method) for job in jobs_of(models, tmp_path))
    for threads, block in ((1, None), (3, 65536)):
        to = tmp_path / f"fused-{threads}"
        merge(models[0], jobs_of(models, to), threads=threads, block=block)
        for recipe, one, other in zip(RECIPES, found(tmp_path / "eager"), found(to), strict=True):
            assert one == other, recipe


def test_another_stored_dtype_is_rounded_alike(models, tmp_path, monkeypatch):
    for dtype in ("bfloat16", "float16", "float32"):
        few = RECIPES[:5]
        merge(models[0], jobs_of(models, tmp_path / f"eager-{dtype}", few, dtype=dtype))
        with monkeypatch.context() as patch:
            patch.setattr(fused, "LARGE", 0)
            merge(models[0], jobs_of(models, tmp_path / f"fused-{dtype}", few, dtype=dtype))
        one, other = (tmp_path / f"{way}-{dtype}" for way in ("eager", "fused"))
        assert len(found(one)) == len(few) and found(one) == found(other)


def test_what_the_machine_serves(inputs, machine, monkeypatch):
    methods = [configure(registry.method(name), {}) for name in ("linear", "ties", "sce")]
    assert all(fused.serves(inputs.base, method) for method in methods)
    assert not fused.serves(inputs.base, NotPlain())
    monkeypatch.setattr(fused, "LARGE", sum(info.numel for info in inputs.base.tensors.values()) + 1)
    assert not any(fused.serves(inputs.base, method) for method in methods)


def test_methods_that_need_tensors_share_the_passes(models, tmp_path, monkeypatch):
    monkeypatch.setattr(fused, "LARGE", 0)
    computed = []
    monkeypatch.setattr(passes, "carry_out", lambda held: computed.append(len(held)) or carry_out(held))
    alone = jobs_of(models, tmp_path, RECIPES[4:6])
    tensors = [
        dataclasses.replace(job, method=copy.copy(job.method), to=tmp_path / "tensors" / job.to.name)
        for job in alone
    ]
    for job in tensors:
        object.__setattr__(job.method, "plain", False)  # of this copy; it is frozen
    records = merge(models[0], [*alone, *tensors], threads=2)
    assert set(computed) == {2} and {record["passes"] for record in records} <= {2, 3}
    for job, other in zip(alone, tensors, strict=True):
        assert digests(job.to) == digests(other.to)


@merge_method("test_not_plain", title="uses what only tensors have")
class NotPlain:
    def merge(self, group, state):
        return group.base.cumsum(0)


@merge_method("test_pretends", title="says it is plain", plain=True)
class Pretends:
    def merge(self, group, state):
        return group.base.cumsum(0)


@merge_method("test_adds_to_its_input", title="writes", plain=True)
class AddsToItsInput:
    def merge(self, group, state):
        return group.base.add_(1).clone()


@merge_method("test_overflows", title="overflows", plain=True)
class Overflows:
    def merge(self, group, state):
        return (group.base.abs() + 1.0) * 3.4e38 * 3.4e38


def test_what_a_plain_method_must_not_do_is_said(inputs, tmp_path, machine):
    with pytest.raises(AttributeError, match="has no `cumsum`: leave `plain=True` out"):
        merge(inputs, [Job(Pretends(), tmp_path / "out")])
    with pytest.raises(HarnessError, match="changes its input in place"):
        merge(inputs, [Job(AddsToItsInput(), tmp_path / "out")])
    with pytest.raises(HarnessError, match="made .* values in `.*` that bfloat16 cannot hold"):
        merge(inputs, [Job(Overflows(), tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("method", ["linear", "ties"])
def test_what_is_not_finite_is_refused(family, tmp_path, machine, value, method):
    held = load_file(family / "one" / "model.safetensors")
    held["model.norm.weight"][3:5] = value
    tiny.write(tmp_path / "bad", held)
    experts = {"one": Checkpoint.open(tmp_path / "bad"), "two": Checkpoint.open(family / "two")}
    models = Inputs(Checkpoint.open(family / "base"), experts, family / "one")
    with pytest.raises(HarnessError, match=r"expert `one` has 2 NaN .* `model.norm.weight`"):
        merge(models, [Job(configure(registry.method(method), {}), tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_kill_loses_nothing(inputs, tmp_path, machine, monkeypatch):
    from harness.merge.output import Output

    job = lambda name: Job(  # noqa: E731
        configure(registry.method("ties"), {}), tmp_path / name, masks=tmp_path / name / "masks.json"
    )
    merge(inputs, [job("whole")])
    child = os.fork()
    if child == 0:
        left, write = [9], Output.write

        def dies(self, *given):
            left[0] -= 1
            if left[0] < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            write(self, *given)

        monkeypatch.setattr(Output, "write", dies)
        merge(inputs, [job("out")], threads=1)
        os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert merge(inputs, [job("out")])[0]["resumed"] > 0
    for name in ("model.safetensors", "masks.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("share", [0.0, 1e-9, 2**-24, 0.1, 0.5, 1 - 2**-25, 1.0])
@pytest.mark.parametrize("offset", [0, 65536])
def test_draws_are_those_of_numpys_generator(share, offset):
    from harness.merge.fused.buffers import LazyBuffers

    buffers = LazyBuffers(65536)
    buffers.begin(offset, 5003)
    drawn = buffers.drawn(share, 7, "task", "x").numpy()
    assert np.array_equal(drawn, ops.drawn(share, 7, "task", "x", offset, 5003).numpy())
    uniform = buffers.uniform(7, "task", "x").numpy()
    assert np.array_equal(uniform, ops.uniform(7, "task", "x", offset, 5003).numpy())


def test_a_sum_of_products_is_rounded_twice():
    """No fused multiply-add: (1 + 2^-12)^2 - (1 + 2^-11) is 2^-24, and 0 where the product is rounded."""
    from harness.merge.fused.buffers import LazyBuffers

    buffers = LazyBuffers(65536)
    buffers.begin(0, 4096)
    zeros = buffers.computed("zeros", lambda: np.zeros(4096, np.float32), ())
    one, other = zeros + (1 + 2**-12), zeros + (1 + 2**-11)
    assert not (one * one - other).numpy().any()


def test_the_machine_is_compiled_for_the_instructions_there_are():
    """Numba's cache knows machine.py alone: an edit of codes.py must show in it."""
    from harness.merge.fused import codes, machine

    assert hashlib.sha256(Path(codes.__file__).read_bytes()).hexdigest().startswith(machine.MADE_FOR)


def test_without_a_folder_for_the_cache_it_is_compiled_all_the_same(monkeypatch):
    from harness.merge.fused import machine

    def njit(cache=False, **options):
        if cache:
            raise RuntimeError("no locator available")
        return lambda function: (function, options)

    monkeypatch.setattr(machine, "njit", njit)
    made, options = machine.compiled(len)
    assert made is len and options["nogil"] and "fastmath" not in options


def test_small_merges_do_not_import_numba(inputs, family, tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness import registry; from harness.checkpoint import "
        "Checkpoint; from harness.merge import Inputs, Job, merge; from harness.method import configure; "
        f"at = Path({str(family)!r}); to = Path({str(tmp_path)!r}); "
        "models = Inputs(Checkpoint.open(at / 'base'), {'one': Checkpoint.open(at / 'one')}, at / 'base'); "
        "merge(models, [Job(configure(registry.method(n), {}), to / n) for n in ('linear', 'ties')]); "
        "print('numba' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
