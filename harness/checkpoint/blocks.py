"""Read blocks of tensors as float32 into buffers that are used again, on a CPU or a CUDA device. Imports
torch."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from harness.checkpoint.read import FLOATS, SIZES, TensorInfo
from harness.checkpoint.reader import Reader

TORCH = {code: getattr(torch, name) for code, name in FLOATS.items()}


class Buffers:
    """One thread's buffers: a float32 block per slot, and raw blocks that are shared by all slots."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._slots: dict[Hashable, Tensor] = {}
        self._raws: dict[str, Tensor] = {}

    def slot(self, key: Hashable, n: int) -> Tensor:
        """The first `n` elements of the float32 block called `key`."""
        if key not in self._slots:
            self._slots[key] = self._made(self._block, torch.float32)
        return self._slots[key][:n]

    def load(
        self, reader: Reader, info: TensorInfo, offset: int, n: int, key: Hashable, room: str = "raw"
    ) -> Tensor:
        """Elements `offset` to `offset + n` of a tensor as float32, in the block called `key`; if they are
        stored as something else, their bytes stay in `room` until it is used again."""
        size = SIZES[info.dtype]
        out = self.slot(key, n)
        if info.dtype == "F32":
            reader.read(info, offset * size, _bytes(out))
        else:
            raw = self._raw(room, n * size)
            reader.read(info, offset * size, _bytes(raw))
            out.copy_(raw.view(TORCH[info.dtype]))
        return out

    def difference(self, one: Tensor, other: Tensor, key: Hashable) -> Tensor:
        """one - other, in the block called `key`."""
        return torch.sub(one, other, out=self.slot(key, one.numel()))

    def stored(self, values: Tensor, dtype: str, room: str = "raw") -> memoryview:
        """The bytes of float32 `values` rounded to nearest even to the dtype with code `dtype`; valid until
        `room` is used again."""
        raw = self._raw(room, values.numel() * SIZES[dtype])
        raw.view(TORCH[dtype]).copy_(values)
        return _bytes(raw)

    def raw(self, room: str, nbytes: int) -> memoryview:
        """The memory of `room`."""
        return _bytes(self._raw(room, nbytes))

    def unstorable(self, values: Tensor, dtype: str) -> int:
        """How many of `values` are not finite in the stored dtype."""
        # The sum of a block with NaN or infinity is never finite; a finite block's overflows hardly ever.
        if dtype != "F16" and math.isfinite(values.sum().item()):
            return 0
        return values.numel() - int(torch.isfinite(values.to(TORCH[dtype])).sum())

    def unlike(self, made: Any, n: int) -> str | None:
        """What `made` is, if it is no block of `n` elements."""
        if not isinstance(made, Tensor):
            return type(made).__name__
        return None if made.shape == (n,) else f"shape {list(made.shape)}"

    def _raw(self, room: str, nbytes: int) -> Tensor:
        if room not in self._raws:
            self._raws[room] = torch.empty(self._block * 4, dtype=torch.uint8)
        return self._raws[room][:nbytes]

    def _made(self, n: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(n, dtype=dtype)


class DeviceBuffers(Buffers):
    """As `Buffers`, with the float32 blocks on `device`: bytes cross as they are stored, and are widened and
    rounded there. Host memory is page-locked where that speeds the crossing up."""

    def __init__(self, block: int, device: str) -> None:
        super().__init__(block)
        self.device = torch.device(device)

    def load(
        self, reader: Reader, info: TensorInfo, offset: int, n: int, key: Hashable, room: str = "raw"
    ) -> Tensor:
        size = SIZES[info.dtype]
        raw = self._raw(room, n * size)
        reader.read(info, offset * size, _bytes(raw))
        # Blocking: the next read uses the same host memory.
        return self.slot(key, n).copy_(raw.view(TORCH[info.dtype]).to(self.device))

    def stored(self, values: Tensor, dtype: str, room: str = "raw") -> memoryview:
        raw = self._raw(room, values.numel() * SIZES[dtype])
        raw.view(TORCH[dtype]).copy_(values.to(self.device).to(TORCH[dtype]))
        return _bytes(raw)

    def unlike(self, made: Any, n: int) -> str | None:
        said = super().unlike(made, n)
        if said is None and made.device.type != self.device.type:
            return f"a tensor on {made.device} for blocks on {self.device}"
        return said

    def _raw(self, room: str, nbytes: int) -> Tensor:
        if room not in self._raws:
            pinned = self.device.type == "cuda"
            self._raws[room] = torch.empty(self._block * 4, dtype=torch.uint8, pin_memory=pinned)
        return self._raws[room][:nbytes]

    def _made(self, n: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(n, dtype=dtype, device=self.device)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(torch.uint8).numpy())
