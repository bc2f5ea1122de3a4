"""Blocks without torch, for methods that only add and multiply: its import would take a third of the merge.

Float32 arithmetic of numpy is that of torch, bit for bit."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any

import numpy as np

from harness.checkpoint.read import FLOATS, Checkpoint, TensorInfo
from harness.checkpoint.reader import Reader

CODES = ("BF16", "F32")  # dtypes that are read and stored here
MOST = 2  # outputs; for more, torch's faster rounding makes up for its import


def serves(models: Iterable[Checkpoint], jobs: Sequence[Any]) -> bool:
    """Whether these jobs on these models are better off without torch."""
    if len(jobs) > MOST or any(hasattr(job.method, name) for job in jobs for name in ("prepare", "masks")):
        return False
    codes = {info.dtype for model in models for info in model.tensors.values() if info.dtype in FLOATS}
    codes |= {code for job in jobs for code, name in FLOATS.items() if name == job.dtype}
    return codes <= set(CODES) and all(getattr(job.method, "plain", False) for job in jobs)


class Array:
    """A block: float32 numbers with torch's names of the operations that `merge_method(plain=True)` lists."""

    __slots__ = ("_version", "values")

    def __init__(self, values: np.ndarray) -> None:
        self.values, self._version = values, 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a block of a `plain=True` method has no `{name}`: leave `plain=True` out")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def clone(self) -> Array:
        return Array(self.values.copy())

    def cpu(self) -> Array:
        return self

    def numpy(self) -> np.ndarray:
        return self.values

    def __add__(self, other: Any) -> Array:
        return Array(np.add(self.values, _number(other)))

    def __sub__(self, other: Any) -> Array:
        return Array(np.subtract(self.values, _number(other)))

    def __mul__(self, other: Any) -> Array:
        return Array(np.multiply(self.values, _number(other)))

    def __truediv__(self, other: Any) -> Array:
        return Array(np.divide(self.values, _number(other)))

    __radd__, __rmul__ = __add__, __mul__

    def add_(self, other: Any) -> Array:
        return self._into(np.add, other)

    def sub_(self, other: Any) -> Array:
        return self._into(np.subtract, other)

    def mul_(self, other: Any) -> Array:
        return self._into(np.multiply, other)

    def div_(self, other: Any) -> Array:
        return self._into(np.divide, other)

    def _into(self, operation: Any, other: Any) -> Array:
        operation(self.values, _number(other), out=self.values)
        self._version += 1
        return self


def _number(other: Any) -> Any:
    return other.values if isinstance(other, Array) else np.float32(other)


class PlainBuffers:
    """As `checkpoint.blocks.Buffers`, of `Array`s."""

    def __init__(self, block: int) -> None:
        self._block = block
        self._slots: dict[Hashable, np.ndarray] = {}
        self._raws: dict[str, np.ndarray] = {}

    def slot(self, key: Hashable, n: int) -> Array:
        if key not in self._slots:
            self._slots[key] = np.empty(self._block, np.float32)
        return Array(self._slots[key][:n])

    def load(
        self, reader: Reader, info: TensorInfo, offset: int, n: int, key: Hashable, room: str = "raw"
    ) -> Array:
        out = self.slot(key, n)
        if info.dtype == "F32":
            reader.read(info, offset * 4, memoryview(out.values).cast("B"))
            return out
        raw, bits = self._raw(room, n), out.values.view(np.uint32)
        reader.read(info, offset * 2, memoryview(raw).cast("B"))
        bits[:] = raw
        np.left_shift(bits, 16, out=bits)
        return out

    def difference(self, one: Array, other: Array, key: Hashable) -> Array:
        out = self.slot(key, len(one.values))
        np.subtract(one.values, other.values, out=out.values)
        return out

    def stored(self, values: Array, dtype: str, room: str = "raw") -> memoryview:
        """As `Buffers.stored`; `values` are finite."""
        if dtype == "F32":
            return memoryview(np.ascontiguousarray(values.values)).cast("B")
        bits, raw = values.values.view(np.uint32), self._raw(room, len(values.values))
        rounded = self.slot("rounded", len(bits)).values.view(np.uint32)
        np.right_shift(bits, 16, out=rounded)
        np.bitwise_and(rounded, 1, out=rounded)  # to even: a tie goes up only from an odd number
        np.add(rounded, 0x7FFF, out=rounded)
        np.add(rounded, bits, out=rounded)
        np.right_shift(rounded, 16, out=rounded)
        raw[:] = rounded
        return memoryview(raw).cast("B")

    def raw(self, room: str, nbytes: int) -> memoryview:
        return memoryview(self._raw(room, nbytes // 2)).cast("B")

    def unstorable(self, values: Array, dtype: str) -> int:
        return len(values.values) - int(np.count_nonzero(np.isfinite(values.values)))

    def unlike(self, made: Any, n: int) -> str | None:
        if not isinstance(made, Array):
            return type(made).__name__
        return None if made.shape == (n,) else f"shape {list(made.shape)}"

    def _raw(self, room: str, n: int) -> np.ndarray:
        if room not in self._raws:
            self._raws[room] = np.empty(self._block, np.uint16)
        return self._raws[room][:n]
