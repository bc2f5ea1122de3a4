"""Read blocks of tensors as float32 into buffers that are used again. Imports torch."""

from __future__ import annotations

import os
import threading
from collections.abc import Hashable
from pathlib import Path

import torch
from torch import Tensor

from harness.checkpoint.read import FLOATS, SIZES, TensorInfo
from harness.errors import HarnessError

TORCH = {code: getattr(torch, name) for code, name in FLOATS.items()}


class Reader:
    """Open files shared by all threads; `preadv` has no position, so no lock is needed to read."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        self._lock = threading.Lock()
        self.nbytes = 0  # read so far, by all threads

    def read(self, info: TensorInfo, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes of `info` from byte `offset` on."""
        fd = self._fds.get(info.file)
        if fd is None:
            fd = self._open(info.file)
        at, wanted = info.start + offset, into.nbytes
        while into.nbytes:
            n = os.preadv(fd, [into], at)
            if not n:
                raise HarnessError(f"{info.file} became shorter while it was read", "write the file again")
            into, at = into[n:], at + n
        with self._lock:
            self.nbytes += wanted

    def _open(self, file: Path) -> int:
        with self._lock:
            if file not in self._fds:
                self._fds[file] = os.open(file, os.O_RDONLY)
            return self._fds[file]

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()


class Buffers:
    """One thread's buffers: a float32 block per slot, and one raw block that is shared by all slots."""

    def __init__(self, block: int) -> None:
        self._raw = torch.empty(block * 4, dtype=torch.uint8)
        self._block, self._slots = block, {}

    def slot(self, key: Hashable, n: int) -> Tensor:
        """The first `n` elements of the float32 block called `key`."""
        if key not in self._slots:
            self._slots[key] = torch.empty(self._block, dtype=torch.float32)
        return self._slots[key][:n]

    def load(self, reader: Reader, info: TensorInfo, offset: int, n: int, key: Hashable) -> Tensor:
        """Elements `offset` to `offset + n` of a tensor as float32, in the block called `key`."""
        size = SIZES[info.dtype]
        out = self.slot(key, n)
        if info.dtype == "F32":
            reader.read(info, offset * size, _bytes(out))
        else:
            raw = self._raw[: n * size]
            reader.read(info, offset * size, _bytes(raw))
            out.copy_(raw.view(TORCH[info.dtype]))
        return out

    def stored(self, values: Tensor, dtype: str) -> memoryview:
        """The bytes of float32 `values` rounded to nearest even to the dtype with code `dtype`."""
        raw = self._raw[: values.numel() * SIZES[dtype]]
        raw.view(TORCH[dtype]).copy_(values)
        return _bytes(raw)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.view(torch.uint8).numpy())
