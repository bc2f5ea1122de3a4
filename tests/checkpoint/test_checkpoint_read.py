"""Checkpoints as they come: sharded, damaged, hostile."""

from __future__ import annotations

import json
import os
import struct

import pytest
import torch
from safetensors.torch import load_file

from harness.checkpoint import Checkpoint, fingerprint
from harness.checkpoint.write import Files, index, plan
from harness.errors import HarnessError
from tests import helpers_checkpoints as tiny

TENSORS = {
    "model.layers.10.w": torch.rand(3, 4),
    "model.layers.2.w": torch.rand(5).bfloat16(),
    "model.embed_tokens.weight": torch.rand(2, 3).half(),
    "a.count": torch.arange(4),
}


@pytest.fixture
def single(tmp_path):
    return tiny.write(tmp_path / "single", TENSORS)


@pytest.fixture
def sharded(tmp_path):
    return tiny.write(tmp_path / "sharded", TENSORS, shards=3)


def test_tensors_come_in_natural_order_with_their_bytes(single, sharded):
    for folder in (single, sharded):
        model = Checkpoint.open(folder)
        assert list(model.tensors) == [
            "a.count",
            "model.embed_tokens.weight",
            "model.layers.2.w",
            "model.layers.10.w",
        ]
        for name, info in model.tensors.items():
            with info.file.open("rb") as file:
                file.seek(info.start)
                assert file.read(info.nbytes) == TENSORS[name].view(torch.uint8).numpy().tobytes()
            assert info.shape == tuple(TENSORS[name].shape)
        assert model.config == tiny.CONFIG


def rewrite(file, change) -> None:
    """Change the header of a safetensors file and leave its data alone."""
    raw = file.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])


def set_offsets(header, begin, end):
    header["model.layers.2.w"]["data_offsets"] = [begin, end]


DAMAGE = {
    "truncated data": lambda f: f.write_bytes(f.read_bytes()[:-3]),
    "trailing bytes": lambda f: f.write_bytes(f.read_bytes() + b"x"),
    "truncated header": lambda f: f.write_bytes(f.read_bytes()[:40]),
    "empty": lambda f: f.write_bytes(b""),
    "seven bytes": lambda f: f.write_bytes(b"\0" * 7),
    "a huge header length": lambda f: f.write_bytes(struct.pack("<Q", 2**63) + f.read_bytes()[8:]),
    "a web page": lambda f: f.write_bytes(b"<!DOCTYPE html><html>404</html>" * 9),
    "a git pointer": lambda f: f.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"),
    "not json": lambda f: f.write_bytes(struct.pack("<Q", 4) + b"{{{{"),
    "a list": lambda f: f.write_bytes(struct.pack("<Q", 2) + b"[]"),
    "overlap": lambda f: rewrite(
        f,
        lambda h: set_offsets(
            h, h["model.layers.2.w"]["data_offsets"][0] - 2, h["model.layers.2.w"]["data_offsets"][1] - 2
        ),
    ),
    "outside": lambda f: rewrite(f, lambda h: set_offsets(h, 10**6, 10**6 + 10)),
    "negative": lambda f: rewrite(f, lambda h: set_offsets(h, -10, 0)),
    "shape and bytes disagree": lambda f: rewrite(f, lambda h: h["model.layers.2.w"].update(shape=[6])),
    "negative shape": lambda f: rewrite(f, lambda h: h["model.layers.2.w"].update(shape=[-5])),
    "no dtype": lambda f: rewrite(f, lambda h: h["model.layers.2.w"].pop("dtype")),
    "unknown dtype": lambda f: rewrite(f, lambda h: h["model.layers.2.w"].update(dtype="Q4")),
    "an entry that is no object": lambda f: rewrite(f, lambda h: h.update({"model.layers.2.w": 3})),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damaged_files_are_named(single, damage):
    damage(single / "model.safetensors")
    with pytest.raises(HarnessError, match=r"model\.safetensors"):
        Checkpoint.open(single)


def edit_index(folder, change):
    file = folder / "model.safetensors.index.json"
    found = json.loads(file.read_text())
    change(found["weight_map"])
    file.write_text(json.dumps(found))


def test_index_and_shards_must_agree(tmp_path):
    def fresh(n):
        return tiny.write(tmp_path / str(n), TENSORS, shards=3)

    folder = fresh(0)
    (folder / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(HarnessError, match="00002-of-00003.safetensors is missing"):
        Checkpoint.open(folder)
    (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(HarnessError, match="2 of 3 shards and no index"):
        Checkpoint.open(folder)
    folder = fresh(1)
    edit_index(folder, lambda m: m.update({"ghost": "model-00001-of-00003.safetensors"}))
    with pytest.raises(HarnessError, match="`ghost`"):
        Checkpoint.open(folder)
    folder = fresh(2)
    edit_index(folder, lambda m: m.pop("a.count"))
    with pytest.raises(HarnessError, match="`a.count`"):
        Checkpoint.open(folder)
    folder = fresh(3)
    edit_index(folder, lambda m: m.update({"ghost": "../../etc/passwd"}))
    with pytest.raises(HarnessError, match="missing"):
        Checkpoint.open(folder)
    folder = fresh(4)
    (folder / "model.safetensors.index.json").write_text("{")
    with pytest.raises(HarnessError, match="index"):
        Checkpoint.open(folder)


def test_what_is_no_checkpoint(tmp_path, single):
    with pytest.raises(HarnessError, match="no checkpoint"):
        Checkpoint.open(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(HarnessError, match="no safetensors file"):
        Checkpoint.open(tmp_path / "empty")
    (tmp_path / "empty" / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(HarnessError, match=r"pytorch_model\.bin"):
        Checkpoint.open(tmp_path / "empty")
    (single / "config.json").write_text("{")
    with pytest.raises(HarnessError, match=r"config\.json is not JSON"):
        Checkpoint.open(single)


@pytest.mark.parametrize("shard_bytes", [1, 20, 60, 10**9])
def test_what_is_written_is_read_by_the_format_s_own_library(tmp_path, shard_bytes):
    codes = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64"}
    layout = plan(tmp_path, {n: (codes[t.dtype], tuple(t.shape)) for n, t in TENSORS.items()}, shard_bytes)
    files = Files(layout)
    files.create()
    files.open()
    for name, tensor in TENSORS.items():
        raw = memoryview(tensor.view(torch.uint8).numpy().tobytes())
        files.write(name, 0, raw[:6])
        files.write(name, 6, raw[6:])
    with pytest.raises(ValueError, match="do not fit"):
        files.write("a.count", 30, memoryview(b"abc"))
    files.close()
    if text := index(layout):
        (tmp_path / "model.safetensors.index.json").write_text(text)
    held = {}
    for file in layout.headers:
        held |= load_file(file)
        assert (
            sum(len(t.view(torch.uint8).flatten()) for t in load_file(file).values()) <= shard_bytes
            or len(load_file(file)) == 1
        )
    assert held.keys() == TENSORS.keys() and all(torch.equal(held[n], TENSORS[n]) for n in held)
    assert Checkpoint.open(tmp_path).tensors == {
        n: layout.tensors[n] for n in Checkpoint.open(tmp_path).tensors
    }


def test_fingerprint_is_of_the_content_alone(tmp_path, single, sharded):
    mark = fingerprint(single)
    assert fingerprint(sharded) != mark  # another tokenizer file
    (sharded / "tokenizer_config.json").write_bytes((single / "tokenizer_config.json").read_bytes())
    assert fingerprint(sharded) == mark
    config = {**tiny.CONFIG, "transformers_version": "9", "_name_or_path": "/x", "torch_dtype": "float16"}
    (sharded / "config.json").write_text(json.dumps(config, indent=3))
    (sharded / "README.md").write_text("words")
    assert fingerprint(sharded) == mark
    for change in (
        lambda: (sharded / "config.json").write_text(json.dumps({**config, "rope_theta": 5.0})),
        lambda: (sharded / "chat_template.jinja").write_text("{{ messages }}"),
        lambda: flip_a_bit(sharded),
    ):
        before = fingerprint(sharded)
        change()
        assert fingerprint(sharded) != before
    renamed = tiny.write(tmp_path / "renamed", {n.replace("10", "11"): t for n, t in TENSORS.items()})
    (renamed / "tokenizer_config.json").write_bytes((single / "tokenizer_config.json").read_bytes())
    assert fingerprint(renamed) != mark


def flip_a_bit(folder) -> None:
    file = folder / "model-00002-of-00003.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-1] ^= 1
    file.write_bytes(bytes(raw))


def test_fingerprint_cache_spares_reading_and_notices_changes(tmp_path, sharded, monkeypatch):
    from harness.checkpoint import identity

    cache, reads = tmp_path / "deep" / "cache.json", []
    real = identity._sha256
    monkeypatch.setattr(identity, "_sha256", lambda stream, left: reads.append(1) or real(stream, left))
    mark = fingerprint(sharded, cache)
    n = len(reads)
    assert n == 5 and fingerprint(sharded, cache) == mark == fingerprint(sharded) and len(reads) == 2 * n
    file = sharded / "model-00002-of-00003.safetensors"
    flip_a_bit(sharded)
    os.utime(file, ns=(1, 1))
    assert fingerprint(sharded, cache) == fingerprint(sharded) != mark
    for rubbish in ("{", "[]", json.dumps({str(file.resolve()): 3})):
        cache.write_text(rubbish)
        assert fingerprint(sharded, cache) == fingerprint(sharded)


def test_importing_is_light():
    import subprocess
    import sys

    heavy = "[m for m in ('torch', 'numpy') if m in sys.modules]"
    code = f"import harness.checkpoint, harness.merge, sys; print({heavy})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
