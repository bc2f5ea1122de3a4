"""Copies of embeddings with their rows in another order. Imports torch and numpy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy
import torch
from torch import Tensor

from harness.checkpoint import write
from harness.checkpoint.blocks import TORCH
from harness.checkpoint.read import SIZES, TensorInfo, read_header

BLOCK = 2**21  # elements at a time
FILE = "vocabulary.safetensors"  # never the name of a model's own file: both may be linked into one folder


@dataclass(frozen=True)
class Part:
    """Rows of a stored matrix: for each row of the result its row in `info`, negative where it has none."""

    info: TensorInfo
    rows: Sequence[int]


@dataclass(frozen=True)
class Plan:
    """One matrix to be made, [rows, width]: rows of `first`; where it has none the mean of those of
    `others` that have one, and zero where nobody has."""

    first: Part
    others: tuple[Part, ...] = ()

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.first.rows), self.first.info.shape[1]

    @property
    def dtype(self) -> str:
        """The stored dtype: that of all parts, or float32, which holds every value of both half dtypes."""
        codes = {part.info.dtype for part in (self.first, *self.others)}
        return codes.pop() if len(codes) == 1 else "F32"


def write_rows(folder: Path, plans: Mapping[str, Plan], dtypes: Mapping[str, str] | None = None) -> int:
    """Write the matrices into `folder / FILE`, in the given `dtypes` (default: `Plan.dtype`); the bytes
    written."""
    codes = {name: (dtypes or {}).get(name, plan.dtype) for name, plan in plans.items()}
    layout = write.plan(folder, {name: (codes[name], plan.shape) for name, plan in plans.items()}, 1 << 62)
    write.check_space(folder, layout.nbytes)
    out = write.Files(layout)
    out.create()
    out.open()
    try:
        for name, plan in plans.items():
            _write(out, name, plan, codes[name])
    finally:
        out.close()
    os.rename(folder / "model.safetensors", folder / FILE)
    return layout.nbytes


def infos(folder: Path) -> dict[str, TensorInfo]:
    """The matrices that `write_rows` left in `folder`."""
    return {info.name: info for info in read_header(folder / FILE)}


def _write(out: write.Files, name: str, plan: Plan, code: str) -> None:
    rows, width = plan.shape
    step = max(1, BLOCK // max(1, width))
    parts = [
        (_mapped(part.info), part.info.dtype, numpy.asarray(part.rows)) for part in (plan.first, *plan.others)
    ]
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        values = torch.zeros(stop - start, width)
        own = parts[0][2][start:stop] >= 0
        values[torch.from_numpy(own)] = _take(*parts[0], start, stop, own)
        _fill(values, parts[1:], start, stop, ~own)
        data = values.to(TORCH[code]).view(-1).view(torch.uint8).numpy()
        out.write(name, start * width * SIZES[code], memoryview(data))


def _fill(values: Tensor, parts: list, start: int, stop: int, lacking: numpy.ndarray) -> None:
    """The mean, over the parts that have it, of every row that is lacking."""
    sums, counts = torch.zeros_like(values), torch.zeros(len(values))
    for part in parts:
        held = lacking & (part[2][start:stop] >= 0)
        mask = torch.from_numpy(held)
        sums[mask] += _take(*part, start, stop, held)
        counts[mask] += 1
    found = counts > 0
    values[found] = sums[found] / counts[found].unsqueeze(1)


def _mapped(info: TensorInfo) -> numpy.ndarray:
    """A stored matrix as its bytes, [rows, bytes of a row]."""
    return numpy.memmap(
        info.file,
        mode="r",
        offset=info.start,
        shape=(info.shape[0], math.prod(info.shape[1:]) * SIZES[info.dtype]),
    )


def _take(
    raw: numpy.ndarray, dtype: str, rows: numpy.ndarray, start: int, stop: int, held: numpy.ndarray
) -> Tensor:
    """The rows of one part that are `held` in this stretch, float32."""
    if not held.any():
        return torch.empty(0, raw.shape[1] // SIZES[dtype])
    return torch.from_numpy(raw[rows[start:stop][held]]).view(TORCH[dtype]).float()
