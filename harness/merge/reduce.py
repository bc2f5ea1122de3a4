"""Reductions over all elements whose bits depend on nothing but the elements. Imports torch where it adds
numbers that are not whole."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HarnessError
from harness.masking import lazy
from harness.merge.block import Block, Unit
from harness.method import CHUNK, Reduce, TensorGroup

if TYPE_CHECKING:
    from torch import Tensor

EMPTY = {"sum": 0.0, "max": -math.inf, "min": math.inf}


class Reducer:
    """Collects one request's partial results by block. A sum is float64 over every chunk of 65 536 elements;
    the chunks' sums are added exactly and rounded once, so no order and no grouping can show."""

    def __init__(self, request: Reduce, units: list[Unit]) -> None:
        if request.op not in EMPTY:
            raise HarnessError(
                f"`Reduce` has op `{request.op}`", "one of " + ", ".join(f"`{op}`" for op in EMPTY)
            )
        self.request, self.units = request, units
        self.partials: dict[int, list[list[float]]] = {}  # unit index -> [m, chunks]
        self._flat, self.lazy = True, False

    def take(self, group: Block, values: Tensor) -> None:
        """The values of one block, shape [block] or [m, block] (lazy: a list of m)."""
        rows = values if isinstance(values, list) else [values]
        if all(map(lazy, rows)):
            self._flat, self.lazy = rows[0] is values, True
            self.partials[group.unit.index] = [self._computed(row) for row in rows]
            return
        if values.shape[-1] != group.length or values.ndim not in (1, 2):
            raise HarnessError(
                f"`Reduce` got values of shape {list(values.shape)} for a block of {group.length}",
                "return one number per element, or [m, block] for m quantities",
            )
        self._flat = values.ndim == 1
        rows = values.reshape(-1, group.length)
        self.partials[group.unit.index] = [
            [self._chunk(row[at : at + CHUNK]) for at in range(0, group.length, CHUNK)] for row in rows
        ]

    def _computed(self, row: Any) -> list[float]:
        """As `_chunk` of every chunk of a lazy block."""
        whole = row.buffers.totals(row) if self.request.op == "sum" else None
        if whole is not None:
            return whole
        values = row.numpy()
        pieces = [values[at : at + CHUNK] for at in range(0, len(values), CHUNK)]
        if self.request.op != "sum":
            return [float(piece.max() if self.request.op == "max" else piece.min()) for piece in pieces]
        import torch

        torch.set_num_threads(1)  # of this thread, so that the sum has one order
        return [self._chunk(torch.from_numpy(piece)) for piece in pieces]

    def _chunk(self, values: Tensor) -> float:
        if self.request.op == "sum":
            import torch

            return values.sum(dtype=torch.float64).item()
        return float(values.max() if self.request.op == "max" else values.min())

    def result(self) -> Reduced:
        everything = self.request.scope == "global"
        parts: dict[str, list[Unit]] = {}
        for unit in self.units:
            parts.setdefault("" if everything else unit.name, []).append(unit)
        found = {name: self.combined(units) for name, units in parts.items()}
        return Reduced(found, everything, EMPTY[self.request.op], self.lazy)

    def combined(self, units: list[Unit]) -> np.ndarray:
        """The reduction over blocks that have all been taken; what was kept of them is dropped."""
        partials = np.concatenate([self.partials.pop(unit.index) for unit in units], axis=1)
        if self.request.op == "sum":
            rows = [math.fsum(row) if np.isfinite(row).all() else float(row.sum()) for row in partials]
        else:
            rows = list(partials.max(axis=1) if self.request.op == "max" else partials.min(axis=1))
        return np.array(rows[0] if self._flat else rows, np.float64)


class Reduced:
    """The result of a `Reduce`: float64 of shape () or [m]; numpy's where blocks are lazy."""

    def __init__(self, found: dict[str, np.ndarray], everything: bool, empty: float, lazily: bool) -> None:
        self._found, self._everything, self._empty, self._lazy = found, everything, empty, lazily

    def value(self, group: TensorGroup) -> Tensor:
        """Over the model (global scope) or over the group's tensor."""
        found = self._found.get("" if self._everything else group.name)
        value = np.array(self._empty, np.float64) if found is None else found
        if self._lazy:
            return value
        import torch

        return torch.from_numpy(value.copy())


class Later(Reduced):
    """The result of a `Reduce` within tensors, some of which are still to be read."""

    def __init__(self, reducer: Reducer) -> None:
        super().__init__({}, False, EMPTY[reducer.request.op], False)
        self._reducer, self._units = reducer, {}
        for unit in reducer.units:
            self._units.setdefault(unit.name, []).append(unit)

    def read(self, name: str) -> None:
        """All blocks of a tensor have been taken."""
        self._found[name] = self._reducer.combined(self._units[name])
        self._lazy = self._reducer.lazy

    def value(self, group: Block) -> Tensor:
        """Of a tensor that is not read yet, about what it will be: only samples come so early."""
        if group.name in self._found or group.unit.index >= 0:
            return super().value(group)
        return np.array(self._reducer.request.about(group), np.float64)
