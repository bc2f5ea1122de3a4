"""Write a trained model's weights as a checkpoint with the base's tensors. Imports torch."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from harness.checkpoint import Checkpoint, fit, write
from harness.checkpoint.blocks import TORCH, Buffers, Reader
from harness.checkpoint.read import FLOATS, SIZES
from harness.errors import HarnessError
from harness.store import write_text

BLOCK = 1 << 20  # elements written at a time
SHARD_BYTES = 5_000_000_000
CODES = {name: code for code, name in FLOATS.items()}


def layout(folder: Path, base: Checkpoint, dtype: str | None) -> write.Layout:
    """Where the base's tensors will lie in `folder`, in `dtype` or (None) the base's, tensor by tensor."""
    if dtype is not None and dtype not in CODES:
        raise HarnessError(
            f"the output dtype is `{dtype}`", "one of " + ", ".join(f"`{name}`" for name in CODES)
        )
    wanted = {
        name: (info.dtype if dtype is None or info.dtype not in FLOATS else CODES[dtype], info.shape)
        for name, info in fit.outputs(base).items()
    }
    return write.plan(folder, wanted, SHARD_BYTES)


def check_names(state: Mapping[str, Tensor], base: Checkpoint) -> None:
    """Every tensor of the base is one of the model's, under the same name and with the same shape."""
    for name, info in fit.outputs(base).items():
        if name not in state or tuple(state[name].shape) != info.shape:
            raise HarnessError(
                f"`{name}` {list(info.shape)} of {base.path} is no tensor of the model transformers builds",
                "load the base with transformers, save it with `save_pretrained`, and use that copy",
            )


def write_weights(
    state: Mapping[str, Tensor], base: Checkpoint, out: write.Layout, progress: Callable[[int, int], None]
) -> float:
    """Write the tensors of `state` that the base has; the share of the elements that training changed whose
    stored value is the base's (the rounding took the change away; 0 when nothing changed)."""
    files, reader, buffers = write.Files(out), Reader(), Buffers(BLOCK)
    changed = lost = 0
    files.create()
    files.open()
    try:
        for done, (name, info) in enumerate(out.tensors.items(), 1):
            flat = state[name].detach().reshape(-1).cpu()
            if info.dtype not in FLOATS:
                files.write(name, 0, memoryview(flat.contiguous().view(torch.uint8).numpy()))
                continue
            for at in range(0, math.prod(info.shape), BLOCK):
                values = flat[at : at + BLOCK].float()
                before = buffers.load(reader, base.tensors[name], at, values.numel(), "base")
                moved = values != before
                stored = values.to(TORCH[info.dtype]).float()
                changed += int(moved.sum())
                lost += int((moved & (stored == before)).sum())
                files.write(name, at * SIZES[info.dtype], buffers.stored(values, info.dtype))
            progress(done, len(out.tensors))
    finally:
        files.close()
        reader.close()
    if index := write.index(out):
        write_text(next(iter(out.headers)).parent / "model.safetensors.index.json", index)
    return lost / changed if changed else 0.0
