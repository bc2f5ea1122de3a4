"""`.bin` checkpoints: the same bytes as safetensors, in whatever file they come; nothing of a hostile one."""

from __future__ import annotations

import json
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from harness.checkpoint import Checkpoint, sources
from harness.errors import HarnessError
from tests import helpers_checkpoints as tiny

CONFIG = {**tiny.CONFIG, "vocab_size": 40, "hidden_size": 16, "intermediate_size": 24}


@pytest.fixture
def weights():
    found = tiny.weights(CONFIG)
    found["model.norm.weight"] = found["model.norm.weight"].half()
    found["model.layers.0.mlp.up_proj.weight"] = (
        found["model.layers.0.mlp.up_proj.weight"].float().T.contiguous().T
    )
    found["lm_head.weight"] = found["model.embed_tokens.weight"]  # tied: one storage under two names
    found["counts"] = torch.arange(5)
    return found


def folder(path, weights, shards=1, legacy=False):
    """A model folder as old versions of transformers wrote it."""
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps(CONFIG))
    (path / "tokenizer_config.json").write_text("{}")
    if shards == 1:
        torch.save(weights, path / "pytorch_model.bin", _use_new_zipfile_serialization=not legacy)
        return path
    places = {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        own = {name: tensor for j, (name, tensor) in enumerate(weights.items()) if j % shards == i}
        torch.save(own, path / file)
        places |= dict.fromkeys(own, file)
    (path / sources.INDEX).write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return path


def made(path, store):
    source = sources.resolve(path, store / "converted", None)
    sources.make(source)
    return source


def held(path):
    return {name: tensor for file in path.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("shards", "legacy"), [(1, False), (1, True), (3, False)])
def test_a_converted_checkpoint_has_the_same_bytes(tmp_path, weights, shards, legacy, monkeypatch):
    from harness.checkpoint import bins

    monkeypatch.setattr(bins, "SHARD", 4000)  # several output files
    source = made(folder(tmp_path / "old", weights, shards, legacy), tmp_path)
    found = held(source.path)
    assert found.keys() == weights.keys()
    assert all(torch.equal(found[n], weights[n]) and found[n].dtype == weights[n].dtype for n in weights)
    model = Checkpoint.open(source.path)
    assert model.config == CONFIG and model.tied and len(model.files) > 1
    assert (source.path / "tokenizer_config.json").is_file() and source.label == "old"


def test_it_is_made_once_and_again_when_the_content_changes(tmp_path, weights):
    path = folder(tmp_path / "old", weights)
    source = made(path, tmp_path)
    stamp = (source.path / "model.safetensors").stat().st_mtime_ns
    assert made(path, tmp_path) == source
    assert (source.path / "model.safetensors").stat().st_mtime_ns == stamp
    copy = shutil.copytree(path, tmp_path / "elsewhere")
    assert sources.resolve(copy, tmp_path, None).mark == source.mark
    shutil.rmtree(source.path)  # `harness clean --weights`
    assert not source.ready and made(path, tmp_path).ready
    weights["model.norm.weight"] += 1
    torch.save(weights, path / "pytorch_model.bin")
    assert sources.resolve(path, tmp_path, None).mark != source.mark


def test_a_model_that_has_safetensors_is_used_as_it_is(tmp_path, weights):
    path = folder(tmp_path / "both", weights)
    tiny.save_file({n: t.contiguous().clone() for n, t in weights.items()}, path / "model.safetensors")
    source = sources.resolve(path, tmp_path, None)
    assert source.path == path and source.ready and source.kind == "safetensors"
    (path / "model.safetensors").rename(path / "optimizer.safetensors")  # no model's name
    assert sources.resolve(path, tmp_path, None).kind == "bin"


def test_computed_buffers_of_old_checkpoints_are_left_out(tmp_path, weights):
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.rand(4)
    source = made(folder(tmp_path / "old", weights), tmp_path)
    assert not any("inv_freq" in name for name in held(source.path))
    assert source.folder.done()["dropped_buffers"] == 1


class Code:
    """Runs when it is unpickled by a reader that trusts its input."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return open, (str(self.mark), "w")


def rewritten_zip(file, change):
    """Change the bytes of the first big member of a zip file and keep the rest."""
    parts = {}
    with zipfile.ZipFile(file) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}
    change(parts)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def cut_storage(parts):
    name = max(parts, key=lambda name: len(parts[name]))
    parts[name] = parts[name][:10]


HOSTILE = {
    "truncated": lambda f, w, m: f.write_bytes(f.read_bytes()[:-700]),
    "empty": lambda f, w, m: f.write_bytes(b""),
    "a web page": lambda f, w, m: f.write_bytes(b"<!DOCTYPE html><html>404</html>" * 9),
    "code in a plain pickle": lambda f, w, m: f.write_bytes(pickle.dumps({"w": Code(m)})),
    "code in torch's format": lambda f, w, m: torch.save({**w, "x": Code(m)}, f),
    "code in the old format": lambda f, w, m: torch.save(
        {**w, "x": Code(m)}, f, _use_new_zipfile_serialization=False
    ),
    "a storage cut short": lambda f, w, m: rewritten_zip(f, cut_storage),
    "a list": lambda f, w, m: torch.save([1], f),
    "a training checkpoint": lambda f, w, m: torch.save({"state_dict": w, "epoch": 3}, f),
    "sparse": lambda f, w, m: torch.save({"w": torch.eye(3).to_sparse()}, f),
    "complex": lambda f, w, m: torch.save({"w": torch.zeros(2, dtype=torch.complex64)}, f),
}


@pytest.mark.parametrize("damage", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_and_leaves_nothing_that_looks_finished(tmp_path, weights, damage):
    path, mark = folder(tmp_path / "old", weights), tmp_path / "code ran"
    damage(path / "pytorch_model.bin", weights, mark)
    with pytest.raises(HarnessError, match=r"pytorch_model\.bin"):
        made(path, tmp_path)
    source = sources.resolve(path, tmp_path / "converted", None)
    assert not mark.exists() and not source.ready and not source.path.exists()
    assert source.folder.failed and not list(tmp_path.rglob("*.safetensors"))


def edit(path, change):
    found = json.loads((path / sources.INDEX).read_text())
    change(found["weight_map"])
    (path / sources.INDEX).write_text(json.dumps(found))


INDEXES = {
    "a shard that is not there": (lambda p: (p / "pytorch_model-00002-of-00003.bin").unlink(), "is missing"),
    "a path": (lambda p: edit(p, lambda m: m.update(x="../../x.bin")), "is missing"),
    "no index": (lambda p: (p / sources.INDEX).unlink(), "no pytorch_model.bin.index.json"),
    "no map": (lambda p: (p / sources.INDEX).write_text("[]"), "weight_map"),
    "an absent tensor": (
        lambda p: edit(p, lambda m: m.update(ghost="pytorch_model-00001-of-00003.bin")),
        "`ghost`",
    ),
    "a stray tensor": (lambda p: edit(p, lambda m: m.pop("counts")), "`counts`"),
}


@pytest.mark.parametrize(("damage", "said"), INDEXES.values(), ids=INDEXES)
def test_index_and_shards_must_agree(tmp_path, weights, damage, said):
    path = folder(tmp_path / "old", weights, shards=3)
    damage(path)
    with pytest.raises(HarnessError, match=said):
        made(path, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_kill_between_files_leaves_no_model(tmp_path, weights, monkeypatch):
    """What is half written is done again, under the same name."""
    path = folder(tmp_path / "old", weights)
    source = sources.resolve(path, tmp_path / "converted", None)
    (source.folder.path / "part").mkdir(parents=True)
    (source.folder.path / "part" / "model.safetensors").write_bytes(b"half")
    source.path.mkdir()  # renamed, but never recorded
    (source.path / "rest").write_text("")
    assert not source.ready
    sources.make(source)
    assert source.ready and not (source.path / "rest").exists()
    assert not (source.folder.path / "part").exists() and held(source.path).keys() == weights.keys()
