"""FuseLLM on the tiny family: what is written, when nothing changes, what is refused, and that it learns."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness.checkpoint import Checkpoint
from harness.errors import HarnessError
from harness.families.tiny import data
from harness.merge import Inputs
from harness.train import written


def weights(folder):
    return {name: t for file in sorted(folder.glob("*.safetensors")) for name, t in load_file(file).items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def lm_loss(folder, texts):
    """Nats per predicted token of the model in `folder`, as stored."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    total = count = 0
    with torch.no_grad():
        for text in texts:
            ids = torch.tensor([tokenizer(text)["input_ids"]])
            total += model(ids, labels=ids).loss.item() * (ids.shape[1] - 1)
            count += ids.shape[1] - 1
    return total / count


@pytest.mark.parametrize("settings", [{"steps": 0}, {"learning_rate": 0.0}])
def test_without_training_the_result_is_the_base(fuse, inputs, tmp_path, settings):
    record = fuse(tmp_path / "out", **settings)
    assert equal(weights(tmp_path / "out"), weights(inputs.base.path))
    assert record["rounded_away"] == 0 and record["warnings"] == []


def test_the_folder_is_complete(fuse, inputs, tmp_path):
    record = fuse(tmp_path / "out")
    out = tmp_path / "out"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "chat_template.jinja", "config.json", "generation_config.json", "merge.json",
        "model.safetensors", "tokenizer.json", "tokenizer_config.json", "training.jsonl",
    ]  # fmt: skip
    base = {name: (t.dtype, t.shape) for name, t in weights(inputs.base.path).items()}
    assert {name: (t.dtype, t.shape) for name, t in weights(out).items()} == base
    assert not equal(weights(out), weights(inputs.base.path))
    assert json.loads((out / "config.json").read_text()) == inputs.base.config
    for name in ("tokenizer.json", "chat_template.jinja", "generation_config.json"):
        assert (out / name).read_bytes() == (inputs.donor / name).read_bytes()
    lines = [json.loads(line) for line in (out / "training.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(6))
    for line in lines:
        assert line["loss"] == pytest.approx(0.9 * line["lm"] + 0.1 * line["fused"], rel=1e-5)
    assert set(record["seconds"]) == {"teachers", "train", "write"} and record["resumed"] == 0
    assert sum(record["chosen"].values()) == record["rows"] == 16 and set(record["ce"]) == {
        "reasoning",
        "task",
    }
    assert record["last"]["lm"] == lines[-1]["lm"] and record["error"] is None
    AutoModelForCausalLM.from_pretrained(out)


def test_a_finished_training_is_not_done_again(fuse, tmp_path):
    first = fuse(tmp_path / "out")
    again = fuse(tmp_path / "out", progress=lambda *_: pytest.fail("work was done"))
    assert again == first
    with pytest.raises(HarnessError, match="already holds something else"):
        fuse(tmp_path / "out", steps=7)
    with pytest.raises(HarnessError, match="already holds something else"):
        fuse(tmp_path / "out", rows={"reasoning": [{"text": "2 + 2 = 4"}]})
    assert fuse(tmp_path / "out", steps=7, replace=True)["steps"] == 7


def test_the_same_bytes_again_and_others_for_another_seed(fuse, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fuse(tmp_path / name, seed=seed)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert files[0] == files[1] != files[2]


def test_weight_zero_reads_no_expert(fuse, inputs, tmp_path):
    fuse(tmp_path / "both", fuse_weight=0.0)
    record = fuse(tmp_path / "one", fuse_weight=0.0, top_k=3, fusion="avg_ce",
                  inputs=Inputs(inputs.base, {"task": inputs.experts["task"]}, inputs.donor))  # fmt: skip
    assert equal(weights(tmp_path / "both"), weights(tmp_path / "one"))
    assert "ce" not in record and "fused" not in record["last"]


def test_with_one_source_both_fusions_are_the_same(fuse, inputs, tmp_path):
    one = Inputs(inputs.base, {"task": inputs.experts["task"]}, inputs.donor)
    for fusion in ("min_ce", "avg_ce"):
        fuse(tmp_path / fusion, inputs=one, fusion=fusion, fuse_weight=1.0)
    assert equal(weights(tmp_path / "min_ce"), weights(tmp_path / "avg_ce"))


def test_the_base_as_a_source(fuse, tmp_path):
    record = fuse(tmp_path / "out", sources="experts_and_base", fusion="avg_ce")
    assert list(record["ce"]) == ["base", "reasoning", "task"] and "chosen" not in record


def test_thirty_steps_learn_rows_never_seen(fuse, inputs, rows, tmp_path):
    made = {role: data.calibration(role, n=60, seed=1) for role in ("reasoning", "task")}
    texts = {role: [{"text": r["prompt"] + r["completion"]} for r in found] for role, found in made.items()}
    seen = {r["text"] for found in texts.values() for r in found[:40]}
    held = [r["text"] for found in texts.values() for r in found[40:] if r["text"] not in seen]
    assert len(held) > 20
    record = fuse(tmp_path / "out", rows={role: found[:40] for role, found in texts.items()}, steps=30,
                  batch_size=8, learning_rate=5e-4, max_tokens=512)  # fmt: skip
    before, after = lm_loss(inputs.base.path, held), lm_loss(tmp_path / "out", held)
    assert after < 0.8 * before
    assert record["last"]["fused"] < 0.8 * record["first"]["fused"]


def test_bfloat16_products_learn_as_well(fuse, tmp_path):
    full, mixed = fuse(tmp_path / "full"), fuse(tmp_path / "mixed", training="bfloat16")
    assert mixed["last"] != full["last"]
    assert mixed["last"]["loss"] == pytest.approx(full["last"]["loss"], rel=0.05)


def test_a_change_that_the_stored_dtype_swallows_is_said(fuse, tmp_path):
    record = fuse(tmp_path / "half", learning_rate=1e-6)
    assert record["rounded_away"] > 0.5 and "% of the trained elements" in record["warnings"][0]
    record = fuse(tmp_path / "full", learning_rate=1e-6, dtype="float32")
    assert record["rounded_away"] == 0 and record["warnings"] == []
    assert {t.dtype for t in weights(tmp_path / "full").values()} == {torch.float32}


def test_untied_and_in_shards(fuse, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(written, "SHARD_BYTES", 300_000)
    experts = {}
    for name in ("base", "task"):
        source = inputs.base.path if name == "base" else inputs.experts[name].path
        folder = shutil.copytree(source, tmp_path / name)
        held = weights(folder)
        held["lm_head.weight"] = held["model.embed_tokens.weight"].clone()
        save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        experts[name] = Checkpoint.open(folder)
    fuse(tmp_path / "out", inputs=Inputs(experts.pop("base"), experts, tmp_path / "task"))
    made = weights(tmp_path / "out")
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 3
    assert not torch.equal(made["lm_head.weight"], made["model.embed_tokens.weight"])
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    assert equal({name: loaded[name] for name in made}, made)


def retokenized(source, to, change):
    shutil.copytree(source, to)
    file = to / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))
    return Checkpoint.open(to)


def swapped(content):
    vocab = content["model"]["vocab"]
    one, other = list(vocab)[300:302]
    vocab[one], vocab[other] = vocab[other], vocab[one]


def renamed(content):
    content["added_tokens"][-1]["content"] = " 997"


@pytest.mark.parametrize(("change", "count"), [(swapped, 2), (renamed, 2)])
def test_another_vocabulary_is_refused(fuse, inputs, tmp_path, change, count):
    odd = retokenized(inputs.experts["task"].path, tmp_path / "odd", change)
    experts = {**inputs.experts, "task": odd}
    with pytest.raises(
        HarnessError, match=rf"expert `task` differs from the base's in {count} tokens"
    ) as error:
        fuse(tmp_path / "out", inputs=Inputs(inputs.base, experts, inputs.donor))
    assert "where the base has" in error.value.message and error.value.hint
    assert sorted(p.name for p in tmp_path.iterdir()) == ["odd"]


@pytest.mark.parametrize(("rows", "fact"), [
    ({"task": [{"text": "7"}]}, "calibration row 0 of `task` has 1 tokens"),
    ({"task": []}, "there are no calibration rows of `task`"),
])  # fmt: skip
def test_rows_that_cannot_be_trained_on(fuse, tmp_path, rows, fact):
    with pytest.raises(HarnessError, match=fact):
        fuse(tmp_path / "out", rows=rows)
    assert not list(tmp_path.iterdir())


def test_a_base_that_is_not_finite(fuse, inputs, tmp_path):
    folder = shutil.copytree(inputs.base.path, tmp_path / "base")
    held = weights(folder)
    held["model.norm.weight"][3] = float("nan")
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(HarnessError, match="at step 0 the loss is nan"):
        fuse(tmp_path / "out", inputs=Inputs(Checkpoint.open(folder), inputs.experts, inputs.donor))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base"]


def test_a_disk_that_is_too_small(fuse, tmp_path, monkeypatch):
    from harness.checkpoint import write

    monkeypatch.setattr(write, "SLACK", 1 << 60)
    with pytest.raises(HarnessError, match="GB free"):
        fuse(tmp_path / "out", progress=lambda *_: pytest.fail("work was done"))
    assert not list(tmp_path.iterdir())


def test_two_processes_cannot_train_into_one_folder(fuse, tmp_path):
    import fcntl

    (tmp_path / ".out.part").mkdir()
    with (tmp_path / ".out.part" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HarnessError, match="another process"):
            fuse(tmp_path / "out")
        assert (tmp_path / ".out.part").exists()
