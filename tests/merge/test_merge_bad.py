"""What goes wrong is said in two lines, ends only what it must, and leaves nothing that looks finished."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from harness import Reduce, merge_method, param
from harness.checkpoint import Checkpoint
from harness.errors import HarnessError
from harness.merge import Inputs, Job, merge
from tests import helpers_checkpoints as tiny
from tests.merge import slow_merges as slow
from tests.merge.test_merge_exact import digests


@merge_method("test_broken", title="fails in a way of one's choice")
class Broken:
    how: str = param("raise", "way")

    def prepare(self, layout):
        if self.how == "prepare":
            raise ValueError("in prepare")
        if self.how == "request":
            yield Reduce(lambda g: g.base[:3])
        if self.how == "odd request":
            yield 3
        return None

    def merge(self, group, state):
        if self.how == "raise":
            raise ValueError("in merge")
        if self.how == "in place":
            return group.base.add_(1)
        if self.how == "shape":
            return group.base.reshape(1, -1)
        if self.how == "overflow":
            return group.base * 1e39
        return group.base


@pytest.mark.parametrize("how", ["raise", "prepare", "request", "odd request", "shape", "overflow"])
def test_a_broken_method_does_not_stop_the_others(inputs, tmp_path, how):
    jobs = [Job(Broken(how=how), tmp_path / "bad"), Job(slow.Trim(), tmp_path / "good")]
    bad, good = merge(inputs, jobs, on_error="record")
    assert isinstance(bad["error"], (ValueError, HarnessError)) and good["error"] is None
    merge(inputs, [Job(slow.Trim(), tmp_path / "alone")])
    assert digests(tmp_path / "good") == digests(tmp_path / "alone")
    assert not list(tmp_path.glob("*bad*")) and not list(tmp_path.glob(".*bad*"))
    with pytest.raises((ValueError, HarnessError)):
        merge(inputs, jobs)


def test_writing_into_a_shared_block_ends_the_merge(inputs, tmp_path):
    with pytest.raises(HarnessError, match="in place"):
        merge(inputs, [Job(Broken(how="in place"), tmp_path / "bad"), Job(slow.Add(), tmp_path / "good")])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("value", "method"),
    [(float("nan"), slow.Add()), (float("inf"), slow.Trim()), (float("-inf"), slow.Elect())],
)
def test_nonfinite_weights_are_named_and_counted(family, inputs, tmp_path, value, method):
    tensors = load_file(family / "two" / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"][3, 5:12] = value
    tiny.write(tmp_path / "two", tensors)
    hurt = Inputs(
        inputs.base, {"one": inputs.experts["one"], "two": Checkpoint.open(tmp_path / "two")}, inputs.donor
    )
    with pytest.raises(HarnessError, match=r"`two` has 7 NaN or infinite .*layers\.1\.mlp\.up_proj"):
        merge(hurt, [Job(method, tmp_path / "out")])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["two"]
    if isinstance(method, slow.Add):
        merge(hurt, [Job(method, tmp_path / "out")], allow_nonfinite=True)
        out = load_file(tmp_path / "out" / "model.safetensors")["model.layers.1.mlp.up_proj.weight"]
        assert (~torch.isfinite(out.float())).sum() == 7


def test_float16_overflow_is_an_error(inputs, tmp_path):
    with pytest.raises(HarnessError, match="float16 cannot hold"):
        merge(inputs, [Job(slow.Add(scale=1e7), tmp_path / "out", dtype="float16")])


def test_a_disk_too_small_is_said_before_anything_is_written(inputs, tmp_path, monkeypatch):
    from harness.checkpoint import write

    real = write.os.statvfs
    monkeypatch.setattr(
        write.os, "statvfs", lambda path: type("S", (), {"f_bavail": 10, "f_frsize": real(path).f_frsize})
    )
    with pytest.raises(HarnessError, match="needs .* MB and its disk has .* MB free"):
        merge(inputs, [Job(slow.Add(), tmp_path / "out")])
    assert not list(tmp_path.iterdir())


def test_wrong_options(inputs, tmp_path):
    job = Job(slow.Add(), tmp_path / "out")
    for options in ({"block": 1000}, {"block": 65536 + 1}, {"threads": 0}, {"shard_bytes": 0}):
        with pytest.raises(HarnessError):
            merge(inputs, [job], **options)
    with pytest.raises(HarnessError, match="float64"):
        merge(inputs, [Job(slow.Add(), tmp_path / "out", dtype="float64")])
    with pytest.raises(HarnessError, match="2 jobs write"):
        merge(inputs, [job, job])
    assert not list(tmp_path.iterdir())


def test_a_statistic_must_cover_every_tensor(inputs, family, tmp_path):
    scores = {name: torch.rand(shape) for name, shape in tiny.shapes(tiny.CONFIG).items()}
    tiny.write(tmp_path / "scores", scores, config=None)
    job = Job(slow.Add(), tmp_path / "out", scores={"one.gradient": Checkpoint.open(tmp_path / "scores")})
    merge(inputs, [job])
    del scores["model.norm.weight"]
    tiny.write(tmp_path / "fewer", scores, config=None)
    job = Job(slow.Add(), tmp_path / "other", scores={"one.gradient": Checkpoint.open(tmp_path / "fewer")})
    with pytest.raises(HarnessError, match=r"one\.gradient.*nothing for `model\.norm\.weight`"):
        merge(inputs, [job])


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_mixed_dtypes_are_merged_in_float32_and_rounded_once(tmp_path, dtype):
    base = tiny.weights(tiny.CONFIG)
    one, two = tiny.tuned(base, 1, torch.float16), tiny.tuned(base, 2, torch.float32)
    for name, tensors in (("base", base), ("one", one), ("two", two)):
        tiny.write(tmp_path / name, tensors)
    inputs = Inputs(
        Checkpoint.open(tmp_path / "base"),
        {role: Checkpoint.open(tmp_path / role) for role in ("one", "two")},
        tmp_path / "two",
    )
    merge(inputs, [Job(slow.Add(), tmp_path / "out", dtype=dtype)])
    out = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in base.items():
        start = tensor.float()
        expected = start + 0.3 * (one[name].float() - start) + 0.3 * (two[name] - start)
        assert torch.equal(out[name], expected.to(getattr(torch, dtype)))
    assert json.loads((tmp_path / "out" / "config.json").read_text())["torch_dtype"] == dtype
    assert json.loads((tmp_path / "out" / "tokenizer_config.json").read_text()) == {"made_for": "two"}


def test_whole_numbers_are_copied_and_empty_tensors_survive(tmp_path):
    base = {
        **tiny.weights(tiny.CONFIG),
        "model.steps": torch.arange(7),
        "model.none.weight": torch.empty(0, 4),
    }
    for name in ("base", "one"):
        tiny.write(tmp_path / name, base)
    inputs = Inputs(
        Checkpoint.open(tmp_path / "base"), {"one": Checkpoint.open(tmp_path / "one")}, tmp_path / "one"
    )
    merge(inputs, [Job(slow.Trim(), tmp_path / "out"), Job(slow.Trim(scope="tensor"), tmp_path / "out2")])
    out = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(out["model.steps"], base["model.steps"]) and out["model.none.weight"].shape == (0, 4)


def test_the_output_is_a_model_that_generates(inputs, tmp_path):
    from transformers import AutoModelForCausalLM

    merge(
        inputs,
        [Job(slow.Add(), tmp_path / "out", recipe={"method": "add", "scale": 0.3})],
        shard_bytes=150_000,
    )
    files = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert "model.safetensors.index.json" in files and any("-of-" in name for name in files)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto")
    assert model.dtype == torch.bfloat16 and model.config.tie_word_embeddings
    assert model.generate(torch.tensor([[5, 6]]), max_new_tokens=3, do_sample=False).shape == (1, 5)
    held = Checkpoint.open(tmp_path / "out").tensors
    assert "lm_head.weight" not in held and len(held) == len(tiny.shapes(tiny.CONFIG))
    for file in (tmp_path / "out").glob("*.safetensors"):
        with safe_open(file, "pt") as shard:
            assert shard.metadata() == {"format": "pt"}
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nbase_model:") and "scale: 0.3" in card and str(tmp_path) not in card


def test_unused_inputs_are_not_read(inputs, tmp_path):
    @merge_method("test_first", title="the first expert")
    class First:
        def merge(self, group, state):
            return next(iter(group.experts.values()))

    record = merge(inputs, [Job(First(), tmp_path / "out")])[0]
    assert record["bytes_read"] == sum(info.nbytes for info in inputs.base.tensors.values())
    assert record["passes"] == 1
    assert digests(tmp_path / "out").keys() == {"model.safetensors"}


def test_a_whole_model_method_is_handed_the_inputs(inputs, tmp_path):
    @merge_method("test_whole", title="whole")
    class Whole:
        fails: bool = param(False, "whether it fails")

        def build(self, context):
            if self.fails:
                raise ValueError("cannot")
            context.job.to.mkdir()
            (context.job.to / "roles").write_text(" ".join(context.inputs.experts))
            return {"steps": 3}

    jobs = [
        Job(Whole(), tmp_path / "whole"),
        Job(slow.Add(), tmp_path / "add"),
        Job(Whole(fails=True), tmp_path / "x"),
    ]
    whole, add, failed = merge(inputs, jobs, on_error="record")
    assert (tmp_path / "whole" / "roles").read_text() == "one two" and whole["steps"] == 3
    assert (tmp_path / "add" / "config.json").exists() and add["passes"] == 1
    assert str(failed["error"]) == "cannot"
