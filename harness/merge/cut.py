"""Answers `Cut` requests: samples, counts and masks, over the blocks that the engine hands in. Torch-free."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.errors import HarnessError
from harness.masking import above, at_least, at_most, below, chosen, equal, lazy
from harness.merge.block import Block, Unit
from harness.merge.ranking import Kept, Ranking, check_cut, stretches
from harness.method import Cut, TensorGroup

if TYPE_CHECKING:
    from torch import Tensor

GLOBAL_SAMPLE = (1024, 1024)  # stretches over the model, elements of each
TENSOR_SAMPLE = (64, 1024)


class Ranker:
    """One cut: a ranking of the whole model, or one of every tensor."""

    def __init__(self, cut: Cut, units: list[Unit]) -> None:
        check_cut(cut)
        self.cut, self.units = cut, units
        parts: dict[str, list[Unit]] = {}
        for unit in units:
            parts.setdefault("" if cut.scope == "global" else unit.name, []).append(unit)
        depth = max((unit.layer for unit in units if unit.layer is not None), default=-1) + 1
        self.rankings = {
            part: Ranking(
                cut.at(own[0].layer, depth, own[0].module),
                own[0].index,
                len(own),
                sum(unit.length for unit in own),
            )
            for part, own in parts.items()
        }
        self._left = {part: len(own) for part, own in parts.items()}
        self._lengths = dict(self._left)
        self.kept: dict[str, Kept] = {}

    def part(self, unit: Unit) -> str:
        return "" if self.cut.scope == "global" else unit.name

    def wants(self, unit: Unit) -> bool:
        """Whether the block is still to be counted."""
        return self.part(unit) not in self.kept

    def stretches(self, trial: int) -> Iterator[Unit]:
        """What to sample for the rankings that need a bracket, other places at every trial."""
        pieces, length = GLOBAL_SAMPLE if self.cut.scope == "global" else TENSOR_SAMPLE
        rng = random.Random(trial)
        seen: set[str] = set()
        for unit in self.units:
            part, info = self.part(unit), unit.info
            if unit.name in seen or part in self.kept or (self.rankings[part].few and trial == 0):
                continue
            seen.add(unit.name)
            every = max(self.rankings[part].numel // pieces, length)
            for offset, n in stretches(info.numel, every, length, rng):
                yield Unit(info, offset, n, -1, unit.layer, unit.module)

    def sample(self, unit: Unit, values: np.ndarray) -> None:
        self.rankings[self.part(unit)].sample(values)

    def bracket(self) -> None:
        for part, ranking in self.rankings.items():
            if part not in self.kept:
                ranking.bracket()

    def count(self, unit: Unit, values: Any) -> Any:
        """What a block holds; `add`, under a lock, takes it in."""
        if lazy(values):
            ranking = self.rankings[self.part(unit)]
            counts, inside = values.buffers.ranked(values, ranking.low, ranking.high)
            if counts[3] and self.cut.where is None:
                raise _not_numbers(unit.name)
            return ranking.counted(unit.index, unit.length - counts[3], *counts[:3], inside)
        eligible = (
            len(values) if self.cut.where is None else len(values) - int(np.count_nonzero(np.isnan(values)))
        )
        return self.rankings[self.part(unit)].count(unit.index, values, eligible)

    def add(self, unit: Unit, counted: Any) -> None:
        """A ranking is resolved with its last block, so that memory is held for the tensors in work only."""
        part = self.part(unit)
        self.rankings[part].add(counted)
        self._left[part] -= 1
        if self._left[part] == 0:
            found = self.rankings[part].resolve()
            self.rankings[part].restart()
            self._left[part] = self._lengths[part]
            if found is not None:
                self.kept[part] = found

    @property
    def done(self) -> bool:
        return len(self.kept) == len(self.rankings)

    def result(self) -> Threshold:
        return Threshold(self.cut, self.kept, self.units)


def values_of(cut: Cut, group: Block) -> Any:
    """The ranked values of a block, float32, NaN where `where` says no; numpy's, or lazy."""
    values = cut.values(group)
    if values.shape != (group.length,):
        raise HarnessError(
            f"`Cut` got values of shape {list(values.shape)} for a block of {group.length} elements",
            "return one number per element",
        )
    values = values.float()
    if lazy(values):
        if cut.where is None:
            return values
        return chosen(cut.where(group), values, values.new_full(values.shape, float("nan")))
    if values.sum().isnan() and bool(values.isnan().any()):
        raise _not_numbers(group.name)
    if cut.where is not None:
        values = chosen(cut.where(group), values, values.new_full(values.shape, float("nan")))
    return values.contiguous().cpu().numpy()


def _not_numbers(name: str) -> HarnessError:
    return HarnessError(f"`Cut` got values that are not numbers in `{name}`", "return numbers only")


class Threshold:
    """The result of a `Cut`."""

    def __init__(self, cut: Cut, kept: dict[str, Kept], units: list[Unit]) -> None:
        self._cut, self._kept = cut, kept
        self._first = {unit.name: unit.index for unit in units if unit.offset == 0}
        self._block = next((unit.offset for unit in units if unit.offset), sys.maxsize)

    def mask(self, group: TensorGroup) -> Tensor:
        """Which elements of this block are kept, bool [block]; the same for any threads and block size."""
        cut, kept = self._cut, self._of(group)
        values, at = cut.values(group), kept.threshold
        # A stretch that is a sample for another cut may begin inside a block; its ties are near enough.
        index = self._first[group.name] + group.offset // self._block
        highest = cut.end == "highest"
        if kept.number == 0:
            return above(values, float("inf"))
        if index < kept.block:
            mask = at_least(values, at) if highest else at_most(values, at)
        else:
            mask = above(values, at) if highest else below(values, at)
        if index == kept.block:
            ties = equal(values, at)
            if cut.where is not None:
                ties &= cut.where(group)
            if lazy(ties):
                mask = mask | ties.first(kept.quota)
            else:
                mask[ties.nonzero().squeeze(1)[: kept.quota]] = True
        return mask if cut.where is None else mask & cut.where(group)

    def value(self, group: TensorGroup) -> float:
        """The threshold; infinite when nothing is kept."""
        return self._of(group).threshold

    def kept(self, group: TensorGroup) -> int:
        """Number of elements kept in all (global scope) or in this tensor."""
        return self._of(group).number

    def _of(self, group: TensorGroup) -> Kept:
        return self._kept["" if self._cut.scope == "global" else group.name]
