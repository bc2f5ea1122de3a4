"""The exact k-th value of a population that is only ever seen block by block. Imports numpy, not torch.

A sample brackets the k-th value: [low, high]. One pass counts what lies below, at and above the two ends, and keeps
the (few) values strictly inside with their counts by block. So the k-th value is exact, its ties
are known by block, and memory is the bracket's share of the elements. If the k-th value lies outside the bracket, it
is counted again with a wider one: the result never depends on the sample, only the time does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError
from harness.method import Cut

FEW = 2**21  # a population up to this size is kept whole, without a sample
FEW_IN_TENSOR = 2**15
GROUPS = 16  # of sampled stretches, whose spread tells the sample's error
MARGIN = 6.0  # standard errors on either side


@dataclass(frozen=True)
class Kept:
    """What a cut keeps: all beyond `threshold`, and of the values equal to it all in blocks before `block` (an index
    in order), the first `quota` in `block`, none after."""

    threshold: float
    number: int
    block: int
    quota: int


def stretches(numel: int, every: int, length: int, rng: random.Random) -> list[tuple[int, int, float]]:
    """(offset, length, elements it stands for) of one stretch at a random place of every `every` elements."""
    found = []
    for start in range(0, numel, every):
        span = min(every, numel - start)
        n = min(length, span)
        found.append((start + rng.randrange((span - n) // 8 + 1) * 8, n, span / n))
    return found


class Ranking:
    """One population: the blocks `first` to `first + number - 1` of the model, ranked for one cut."""

    def __init__(self, cut: Cut, first: int, number: int, numel: int) -> None:
        self.cut, self.first, self.number, self.numel = cut, first, number, numel
        self.low, self.high = -np.inf, np.inf
        self._margin = MARGIN
        self._samples: list[tuple[np.ndarray, float]] = []
        self.restart()

    def restart(self) -> None:
        self.eligible = self._below = 0
        self._at_low = np.zeros(self.number, np.int64)
        self._at_high = np.zeros(self.number, np.int64)
        self._inside: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    @property
    def few(self) -> bool:
        return self.numel <= (FEW if self.cut.scope == "global" else FEW_IN_TENSOR)

    def sample(self, values: np.ndarray, weight: float) -> None:
        """The eligible values of one stretch, in a fixed order of stretches; each stands for `weight` elements."""
        self._samples.append((values, weight))

    def bracket(self) -> None:
        """Set [low, high] from the sample, so that the k-th value is inside almost certainly."""
        samples, self._samples = self._samples, []
        total = sum(len(values) for values, _ in samples)
        if total == 0:
            return
        values = np.concatenate([values for values, _ in samples])
        weights = np.repeat([weight for _, weight in samples], [len(values) for values, _ in samples])
        groups = np.repeat(np.arange(len(samples)) % GROUPS, [len(values) for values, _ in samples])
        order = np.argsort(values)
        values, weights, groups = values[order], weights[order], groups[order]
        rank = np.cumsum(weights)
        share = 1.0 - self.cut.keep if self.cut.end == "highest" else self.cut.keep
        if self.cut.at_least and self.cut.keep * rank[-1] < self.cut.at_least:
            share = self.cut.at_least / rank[-1]
            share = 1.0 - share if self.cut.end == "highest" else share
        at = min(int(np.searchsorted(rank, share * rank[-1])), total - 1)
        error = self._margin * self._error(values <= values[at], weights, groups, share, total) + 16 / total
        self._margin *= 4
        self.low = self._quantile(values, rank, share - error)
        self.high = self._quantile(values, rank, share + error)

    @staticmethod
    def _error(under: np.ndarray, weights: np.ndarray, groups: np.ndarray, share: float, total: int) -> float:
        """Standard error of the share of elements under a value: between groups, and of single draws."""
        full = np.bincount(groups, weights, GROUPS)
        part = np.bincount(groups, weights * under, GROUPS)[full > 0] / full[full > 0]
        between = part.std(ddof=1) / len(part) ** 0.5 if len(part) > 1 else 1.0
        return float(between + (max(share * (1 - share), 0.0) / total) ** 0.5)

    @staticmethod
    def _quantile(values: np.ndarray, rank: np.ndarray, share: float) -> float:
        if not 0 < share < 1:
            return -np.inf if share <= 0 else np.inf
        return float(values[min(int(np.searchsorted(rank, share * rank[-1])), len(values) - 1)])

    def count(self, index: int, values: np.ndarray, eligible: int) -> tuple:
        """What one block holds. `values` are float32, NaN where not eligible. Pure: `add` takes it in."""
        over, under = values > self.low, values < self.high
        at_low = np.count_nonzero(values == self.low)
        at_high = np.count_nonzero(values == self.high) if self.high != self.low else 0
        below = eligible - np.count_nonzero(over) - at_low
        inside = np.unique(values[over & under], return_counts=True)
        return index - self.first, eligible, below, at_low, at_high, inside

    def add(self, counted: tuple) -> None:
        at, eligible, below, at_low, at_high, inside = counted
        self.eligible += eligible
        self._below += below
        self._at_low[at], self._at_high[at] = at_low, at_high
        if len(inside[0]):
            self._inside[at] = inside[0], inside[1].astype(np.int32)

    def resolve(self) -> Kept | None:
        """The cut; None when the bracket missed it."""
        cut, n = self.cut, self.eligible
        k = min(max(int(cut.keep * n), cut.at_least), n)
        highest = cut.end == "highest"
        if k <= 0:
            return Kept(np.inf if highest else -np.inf, 0, -1, 0)
        found = self._ranked(n - k if highest else k - 1)
        if found is None:
            return None
        threshold, less, ties = found
        m = int(ties.sum())
        beyond = n - less - m if highest else less
        quota = k - beyond
        if cut.ties == "all" or quota == m:
            return Kept(threshold, beyond + m, self.first + self.number, 0)
        before = np.cumsum(ties)
        at = int(np.searchsorted(before, quota))
        return Kept(threshold, k, self.first + at, int(quota - before[at] + ties[at]))

    def _ranked(self, rank: int) -> tuple[float, int, np.ndarray] | None:
        """(value, how many are smaller, its ties by block) of the element with this 0-based ascending rank."""
        less, n_low = self._below, int(self._at_low.sum())
        if rank < less:
            return None
        if rank < less + n_low:
            return self.low, less, self._at_low
        less += n_low
        keys = [keys for keys, _ in self._inside.values()]
        if keys:
            keys, inverse = np.unique(np.concatenate(keys), return_inverse=True)
            counts = np.bincount(inverse, np.concatenate([c for _, c in self._inside.values()]), len(keys))
            upto = np.cumsum(counts.astype(np.int64))
            if rank < less + upto[-1]:
                at = int(np.searchsorted(upto, rank - less, side="right"))
                return float(keys[at]), int(less + (upto[at - 1] if at else 0)), self._ties(keys[at])
            less += int(upto[-1])
        if rank < less + int(self._at_high.sum()):
            return self.high, less, self._at_high
        return None

    def _ties(self, value: np.float32) -> np.ndarray:
        ties = np.zeros(self.number, np.int64)
        for at, (keys, counts) in self._inside.items():
            place = int(np.searchsorted(keys, value))
            if place < len(keys) and keys[place] == value:
                ties[at] = counts[place]
        return ties


def check_cut(cut: Cut) -> None:
    """Raise `HarnessError` for a request outside the contract."""
    if not 0 <= cut.keep <= 1:
        raise HarnessError(f"`Cut` has keep {cut.keep!r}", "a share between 0 and 1")
    for name, known in (("end", ("highest", "lowest")), ("scope", ("global", "tensor")), ("ties", ("exact", "all"))):
        if getattr(cut, name) not in known:
            raise HarnessError(f"`Cut` has {name} {getattr(cut, name)!r}", "one of " + ", ".join(known))
