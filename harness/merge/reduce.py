"""Reductions over all elements whose bits depend on nothing but the elements. Imports torch."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.merge.block import Block, Unit
from harness.method import CHUNK, Reduce, TensorGroup

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
        self._flat = True

    def take(self, group: Block, values: Tensor) -> None:
        """The values of one block, shape [block] or [m, block]."""
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

    def _chunk(self, values: Tensor) -> float:
        if self.request.op == "sum":
            return values.sum(dtype=torch.float64).item()
        return float(values.max() if self.request.op == "max" else values.min())

    def result(self) -> Reduced:
        everything = self.request.scope == "global"
        parts: dict[str, list[list[list[float]]]] = {}
        for unit in self.units:
            parts.setdefault("" if everything else unit.name, []).append(self.partials[unit.index])
        self.partials = {}
        return Reduced(
            {name: self._combined(np.concatenate(found, axis=1)) for name, found in parts.items()},
            everything,
            EMPTY[self.request.op],
        )

    def _combined(self, partials: np.ndarray) -> Tensor:
        if self.request.op == "sum":
            rows = [math.fsum(row) if np.isfinite(row).all() else float(row.sum()) for row in partials]
        else:
            rows = list(partials.max(axis=1) if self.request.op == "max" else partials.min(axis=1))
        return torch.tensor(rows[0] if self._flat else rows, dtype=torch.float64)


class Reduced:
    """The result of a `Reduce`: float64 of shape () or [m]."""

    def __init__(self, found: dict[str, Tensor], everything: bool, empty: float) -> None:
        self._found, self._everything, self._empty = found, everything, empty

    def value(self, group: TensorGroup) -> Tensor:
        """Over the model (global scope) or over the group's tensor."""
        found = self._found.get("" if self._everything else group.name)
        return torch.tensor(self._empty, dtype=torch.float64) if found is None else found
