"""Apply a LoRA adapter to a checkpoint, tensor by tensor. Imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from harness.checkpoint import lora, write
from harness.checkpoint.blocks import Buffers, Reader
from harness.checkpoint.read import EMBEDDING, FLOATS, SIZES, Checkpoint, TensorInfo
from harness.errors import HarnessError
from harness.store import write_text

SHARD = 5_000_000_000  # bytes
BLOCK = 2**21  # elements of a tensor at a time


def apply(folder: Path, on: Path, to: Path) -> dict[str, Any]:
    """Write W + scaling * B A for the model `on` and the adapter in `folder` into `to`; the record.

    float32 arithmetic on blocks of rows, rounded once to the dtype in which `on` stores the tensor (PEFT
    rounds scaling * B A and the sum: at most one ulp apart). Tensors that the adapter leaves alone are
    copied. Raises `HarnessError` for an adapter that does not fit."""
    base = Checkpoint.open(on)
    changed = lora.changes(folder, lora.read(folder), base)
    layout = write.plan(to, {name: (info.dtype, info.shape) for name, info in base.tensors.items()}, SHARD)
    write.check_space(to, layout.nbytes)
    out, reader = write.Files(layout), Reader()
    out.create()
    out.open()
    try:
        for name, info in base.tensors.items():
            if name in changed:
                _write(reader, info, changed[name], out)
            else:
                _copy(reader, info, out)
    finally:
        out.close()
        reader.close()
    if text := write.index(layout):
        write_text(to / "model.safetensors.index.json", text)
    record = {"tensors": len(base.tensors), "changed": len(changed), "bytes_written": layout.nbytes}
    return {**record, "warnings": _warnings(folder, base, changed)}


def _warnings(folder: Path, base: Checkpoint, changed: dict[str, lora.Change]) -> list[str]:
    if EMBEDDING in changed and base.tied:
        return [
            f"{folder.name}: the adapter changes the embedding of a tied model, so its head changes with it"
        ]
    return []


def _write(reader: Reader, info: TensorInfo, change: lora.Change, out: write.Files) -> None:
    """One tensor, block of rows by block of rows."""
    if any(part and part.dtype not in FLOATS for part in (info, change.replaced, change.a, change.b)):
        raise HarnessError(
            f"`{info.name}` or what the adapter does to it is not stored as {', '.join(FLOATS.values())}",
            "convert the model (or the adapter) first",
        )
    source = change.replaced or info
    left, right = (None, None) if change.a is None else _factors(reader, change)
    width = info.shape[-1] if len(info.shape) > 1 else 1
    step = max(1, BLOCK // width) * width
    buffers = Buffers(min(step, max(1, info.numel)))
    for offset in range(0, info.numel, step):
        n = min(step, info.numel - offset)
        values = buffers.load(reader, source, offset, n, "w")
        if left is not None:
            rows = left[offset // width : (offset + n) // width]
            values = (rows @ right).mul_(change.scaling).view(-1).add_(values)
        out.write(info.name, offset * SIZES[info.dtype], buffers.stored(values, info.dtype))


def _factors(reader: Reader, change: lora.Change) -> tuple[Tensor, Tensor]:
    """The two matrices, float32, whose product has the tensor's shape: (B, A), or (A^T, B^T)."""
    a, b = (_whole(reader, info) for info in (change.a, change.b))
    return (a.T.contiguous(), b.T.contiguous()) if change.transposed else (b, a)


def _whole(reader: Reader, info: TensorInfo) -> Tensor:
    return Buffers(max(1, info.numel)).load(reader, info, 0, info.numel, 0).view(info.shape)


def _copy(reader: Reader, info: TensorInfo, out: write.Files) -> None:
    buffer = memoryview(bytearray(min(info.nbytes, 1 << 22)))
    for offset in range(0, info.nbytes, len(buffer) or 1):
        piece = buffer[: info.nbytes - offset]
        reader.read(info, offset, piece)
        out.write(info.name, offset, piece)
