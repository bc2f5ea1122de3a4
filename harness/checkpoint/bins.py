"""`.bin` checkpoints (pickled by torch) into safetensors, shard by shard. Only weights are read, never code.
Imports torch."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from harness.checkpoint import write
from harness.checkpoint.blocks import TORCH
from harness.checkpoint.read import natural_key
from harness.errors import HarnessError
from harness.store import write_text

CODES = {dtype: code for code, dtype in TORCH.items()} | {
    torch.float64: "F64",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
SHARD = 5_000_000_000  # bytes
# Buffers that old checkpoints stored and that follow from the config.
COMPUTED = re.compile(r"\.rotary_emb\.inv_freq$|\.attn\.masked_bias$")


def convert(origin: Path, files: Mapping[str, set[str] | None], to: Path) -> dict[str, Any]:
    """Write the tensors of `files` (see `sources.bin_files`) of `origin` into `to`, bit for bit; the
    record.

    Two passes, over shapes and over bytes; a file of the present format is mapped, so that a tensor's bytes
    are in memory once, one of the format before torch 1.6 is read whole. Raises `HarnessError` for a file
    that is damaged or holds anything but named tensors, and for shards and index that disagree."""
    shapes: dict[str, tuple[str, tuple[int, ...]]] = {}
    dropped = 0
    for file, names in files.items():
        held = load(origin / file)
        _check_names(origin / file, held, names)
        for name, tensor in held.items():
            if COMPUTED.search(name):
                dropped += 1
            elif name in shapes:
                raise HarnessError(
                    f"tensor `{name}` is in two shards of {origin}", "download the shards again"
                )
            else:
                shapes[name] = CODES[tensor.dtype], tuple(tensor.shape)
        del held
    layout = write.plan(to, {name: shapes[name] for name in sorted(shapes, key=natural_key)}, SHARD)
    write.check_space(to, layout.nbytes)
    out = write.Files(layout)
    out.create()
    out.open()
    try:
        for file in files:
            for name, tensor in load(origin / file).items():
                if name in shapes:
                    out.write(name, 0, memoryview(tensor.contiguous().reshape(-1).view(torch.uint8).numpy()))
    finally:
        out.close()
    if text := write.index(layout):
        write_text(to / "model.safetensors.index.json", text)
    return {
        "tensors": len(shapes),
        "bytes_written": layout.nbytes,
        "dropped_buffers": dropped,
        "warnings": [],
    }


def load(file: Path) -> dict[str, Tensor]:
    """Name -> tensor. Raises `HarnessError` for anything that `torch.load(weights_only=True)` refuses."""
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except Exception as error:  # a damaged or hostile file fails in as many ways as there are parsers
        reason = str(error).strip().split("\n")[0].split(". ")[0][:160] or type(error).__name__
        raise HarnessError(
            f"{file} is truncated or corrupt, or holds more than weights: {reason}",
            "download it again; a file that runs code when it is read is never loaded",
        ) from error
    if not isinstance(held, dict):
        raise HarnessError(
            f"{file} holds a {type(held).__name__}, not tensors by name", "save the `state_dict()`"
        )
    for name, value in held.items():
        if not (isinstance(name, str) and isinstance(value, Tensor)):
            raise HarnessError(
                f"{file} holds a {type(value).__name__} under {name!r}, where a tensor belongs",
                "save the plain `state_dict()`",
            )
        if value.dtype not in CODES or value.layout != torch.strided or value.is_quantized:
            raise HarnessError(
                f"{file}: tensor `{name}` is {value.dtype} ({value.layout})", "convert it first"
            )
    return held


def _check_names(file: Path, held: Mapping[str, Tensor], names: set[str] | None) -> None:
    if names is None or names == set(held):
        return
    absent, stray = sorted(names - set(held)), sorted(set(held) - names)
    fact = f"does not hold `{absent[0]}`" if absent else f"holds `{stray[0]}`, which the index does not name"
    raise HarnessError(
        f"{file} {fact} ({len(absent)} absent, {len(stray)} stray)",
        "the index and the shards come from different models: download them again",
    )
