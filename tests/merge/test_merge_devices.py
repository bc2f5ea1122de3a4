"""The ways a block can be computed: with torch, without it, and staged through a device."""

import functools
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harness import HarnessError, masking, merge_method, ops, registry
from harness.checkpoint import Checkpoint, write
from harness.checkpoint.blocks import Buffers, DeviceBuffers
from harness.checkpoint.reader import Reader
from harness.merge import Inputs, Job, engine, merge, plain
from harness.method import configure
from tests import helpers_checkpoints as tiny
from tests.merge import slow_merges as slow
from tests.merge.test_merge_exact import digests

PLAIN = [
    ("linear", {}),
    ("linear", {"weights": {"one": 0.3}}),
    ("linear", {"weights": {"one": -2.0}, "normalize": False}),
    ("task_arithmetic", {}),
    ("task_arithmetic", {"scale": 0.0}),
    ("task_arithmetic", {"scale": [0.1, 0.9], "weights": {"two": 0.7}, "normalize": True}),
]
EVERY = [
    *PLAIN,
    ("ties", {"density": 0.3}),
    ("ties", {"profile": "mergekit", "density": 0.4, "weights": {"one": 0.5}}),
    ("dare", {"density": 0.5}),
    ("dare", {"profile": "mergekit", "variant": "ties", "density": 0.5}),
    ("sce", {"select_topk": 0.3}),
]


def jobs_of(recipes, to, **settings):
    return [
        Job(
            configure(registry.method(name), given), to / str(i), masks=to / str(i) / "masks.json", **settings
        )
        for i, (name, given) in enumerate(recipes)
    ]


def all_digests(to, recipes):
    found = [digests(to / str(i)) for i in range(len(recipes))]
    return found, [(to / str(i) / "masks.json").read_bytes() for i in range(len(recipes))]


@pytest.fixture(scope="module", params=["bfloat16", "float32", "mixed"])
def models(request, tmp_path_factory):
    """A family with negative zeros, ties and equal weights, in three storages."""
    root = tmp_path_factory.mktemp("devices")
    kinds = {"base": request.param, "one": request.param, "two": request.param}
    if request.param == "mixed":
        kinds = {"base": "bfloat16", "one": "float32", "two": "bfloat16"}
    base = tiny.weights(tiny.CONFIG, dtype=torch.float32)
    experts = {"one": tiny.tuned(base, 1), "two": tiny.tuned(base, 2)}
    for number, (name, held) in enumerate({"base": base, **experts}.items()):
        for tensor in held.values():
            tensor.view(-1)[number::7] = -0.0
        tiny.write(root / name, {n: t.to(getattr(torch, kinds[name])) for n, t in held.items()})
    return Inputs(
        Checkpoint.open(root / "base"), {r: Checkpoint.open(root / r) for r in experts}, root / "one"
    )


@pytest.mark.parametrize("dtype", [None, "float32"])
def test_plain_methods_give_the_same_bytes_without_torch(models, tmp_path, dtype):
    first, second = (jobs_of(PLAIN, tmp_path / name, dtype=dtype) for name in ("plain", "torch"))
    for job in first:
        assert plain.serves([models.base, *models.experts.values()], [job])
        merge(models, [job], block=65536)
    merge(models, second)  # so many that torch's kernels are used
    assert all_digests(tmp_path / "plain", PLAIN) == all_digests(tmp_path / "torch", PLAIN)


def test_torch_is_not_imported_for_plain_methods(inputs, family, tmp_path):
    code = (
        "import sys; from pathlib import Path; from harness import registry; from harness.checkpoint import "
        "Checkpoint; from harness.merge import Inputs, Job, merge; from harness.method import configure; "
        f"at = Path({str(family)!r}); to = Path({str(tmp_path)!r}); "
        "models = Inputs(Checkpoint.open(at / 'base'), {'one': Checkpoint.open(at / 'one')}, at / 'base'); "
        "jobs = [Job(configure(registry.method(n), {}), to / n, masks=to / n / 'masks.json') "
        "for n in ('linear', 'task_arithmetic')]; merge(models, jobs); print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_float16_and_methods_with_requests_take_torch(family, inputs, tmp_path):
    models = [inputs.base, *inputs.experts.values()]
    assert not plain.serves(models, jobs_of([("linear", {})], tmp_path, dtype="float16"))
    assert not plain.serves(models, jobs_of([("linear", {}), ("ties", {})], tmp_path))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_plain_methods_refuse_what_is_not_finite(family, tmp_path, value):
    held = load_file(family / "one" / "model.safetensors")
    held["model.norm.weight"][3:5] = value
    tiny.write(tmp_path / "bad", held)
    experts = {"one": Checkpoint.open(tmp_path / "bad"), "two": Checkpoint.open(family / "two")}
    models = Inputs(Checkpoint.open(family / "base"), experts, family / "one")
    with pytest.raises(
        HarnessError, match=r"expert `one` has 2 NaN or infinite values .* `model.norm.weight`"
    ):
        merge(models, [Job(configure(registry.method("linear"), {}), tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@merge_method("test_plain_abs", title="abs", plain=True)
class PlainAbs:
    def merge(self, group, state):
        return group.base.abs()


@merge_method("test_plain_writes", title="writes", plain=True)
class PlainWrites:
    def merge(self, group, state):
        return group.base.add_(1).clone()


def test_a_plain_method_that_asks_for_more_is_told_so(inputs, tmp_path):
    with pytest.raises(AttributeError, match="has no `abs`: leave `plain=True` out"):
        merge(inputs, [Job(PlainAbs(), tmp_path / "out")])
    with pytest.raises(HarnessError, match="changes its input in place"):
        merge(inputs, [Job(PlainWrites(), tmp_path / "out")])


@pytest.fixture
def staged(monkeypatch):
    """Blocks take the way through a device, and every kernel is the device's; the device is the CPU."""
    makes = {"usual": functools.partial(DeviceBuffers, device="cpu")}
    monkeypatch.setattr(engine, "_buffers", lambda _, jobs, *__: (["usual"] * len(jobs), makes))
    monkeypatch.setattr(masking, "_on_cpu", lambda tensor: False)


def test_the_way_through_a_device_gives_the_same_bytes(models, tmp_path, staged, monkeypatch, request):
    request.getfixturevalue("few_blocks_kept_whole")
    merge(models, jobs_of(EVERY, tmp_path / "device"), block=65536, threads=2)
    monkeypatch.undo()
    merge(models, jobs_of(EVERY, tmp_path / "cpu"))
    assert all_digests(tmp_path / "device", EVERY) == all_digests(tmp_path / "cpu", EVERY)


def test_cuts_through_a_device_are_exact(inputs, tmp_path, staged, request):
    request.getfixturevalue("few_blocks_kept_whole")
    trims = [slow.Trim(keep=0.2), slow.Trim(keep=0.3, narrow=True, scope="tensor", end="lowest")]
    merge(inputs, [Job(m, tmp_path / f"device-{i}") for i, m in enumerate(trims)])
    request.getfixturevalue("monkeypatch").undo()
    merge(inputs, [Job(m, tmp_path / f"cpu-{i}") for i, m in enumerate(trims)])
    for i in range(len(trims)):
        assert digests(tmp_path / f"device-{i}") == digests(tmp_path / f"cpu-{i}")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_is_within_one_ulp_of_the_cpu(models, tmp_path):
    for device in ("cuda", "cpu"):
        merge(models, jobs_of(EVERY, tmp_path / device), device=device)
    for i, recipe in enumerate(EVERY):
        made, kept = (load_file(tmp_path / d / str(i) / "model.safetensors") for d in ("cuda", "cpu"))
        for name, tensor in kept.items():
            bits = torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32
            one, other = (t[name].view(bits).long() for t in (made, kept))
            apart = (ordered(one, bits) - ordered(other, bits)).abs()
            assert int(apart.max()) <= 1, (recipe, name)


def ordered(bits, dtype):
    """Whole numbers in the order of the floats whose bits they are."""
    lowest = torch.iinfo(dtype).min
    return torch.where(bits < 0, lowest - bits, bits)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_cuda_that_is_not_here_is_an_error_before_anything_is_written(inputs, tmp_path):
    with pytest.raises(HarnessError, match="no CUDA device is here") as caught:
        merge(inputs, jobs_of([("linear", {})], tmp_path), device="cuda")
    assert caught.value.hint and not list(tmp_path.iterdir())


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda0", ""])
def test_a_device_that_is_none_is_an_error(inputs, tmp_path, device):
    with pytest.raises(HarnessError, match="is no device"):
        merge(inputs, jobs_of([("linear", {})], tmp_path), device=device)


def test_conversions_without_torch_are_torchs(tmp_path):
    """Every bfloat16 that is finite, and float32 at, beside and between ties of rounding."""
    bits = np.arange(2**16, dtype=np.uint32) << 16
    grid = np.concatenate([bits | low for low in (0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF)]).view(np.float32)
    values = grid[np.isfinite(grid)]
    raw, own = Buffers(2**19), plain.PlainBuffers(2**19)
    made = bytes(own.stored(plain.Array(values), "BF16"))
    assert made == bytes(raw.stored(torch.from_numpy(values.copy()), "BF16"))
    kept = torch.from_numpy(bits.view(np.float32)[np.isfinite(bits.view(np.float32))]).bfloat16()
    layout = write.plan(tmp_path, {"x": ("BF16", (len(kept),))}, 10**9)
    files = write.Files(layout)
    files.create()
    files.open()
    files.write("x", 0, memoryview(kept.view(torch.uint8).numpy()))
    files.close()
    info, reader = layout.tensors["x"], Reader()
    one, other = (b.load(reader, info, 0, len(kept), "x").numpy() for b in (raw, own))
    reader.close()
    assert one.tobytes() == other.tobytes()


@pytest.mark.parametrize("share", [0.0, 1e-9, 2**-24, 0.1, 0.5, 1 - 2**-25, 1 - 2**-24, 1.0])
def test_a_draw_is_the_uniform_numbers_below_the_share(share):
    uniform = ops.uniform(3, "one", "x", 65536 + 13, 50_001)
    assert torch.equal(ops.drawn(share, 3, "one", "x", 65536 + 13, 50_001), uniform < share)


def test_uniform_numbers_are_those_of_numpys_generator():
    import hashlib

    key = int.from_bytes(hashlib.sha256(b"3\0one\0x").digest()[:16], "little")
    expected = np.random.Generator(np.random.Philox(key=key)).random(1000, dtype=np.float32)
    assert np.array_equal(ops.uniform(3, "one", "x", 0, 1000).numpy(), expected)
    assert np.array_equal(ops.uniform(3, "one", "x", 803, 100).numpy(), expected[803:903])


def test_masking_is_torchs_arithmetic(monkeypatch):
    values = torch.tensor([0.0, -0.0, 1.5, -1.5, 2.0, float("inf"), float("nan"), 1e-45])
    mask = torch.tensor([True, False] * 4)
    for name in ("above", "at_least", "below", "at_most", "equal"):
        for limit in (0.0, 1.5, values.flip(0)):
            quick = getattr(masking, name)(values, limit)
            with monkeypatch.context() as patch:
                patch.setattr(masking, "_on_cpu", lambda tensor: False)
                assert torch.equal(quick, getattr(masking, name)(values, limit))
    bits = lambda tensor: tensor.view(torch.int32)  # noqa: E731
    assert torch.equal(bits(masking.masked(values, mask))[:6], bits(values * mask)[:6])
    chosen = masking.chosen(mask, values, values.flip(0))
    assert torch.equal(bits(chosen), bits(torch.where(mask, values, values.flip(0))))
