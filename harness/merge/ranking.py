"""The exact k-th value of a population that is only ever seen block by block. Imports numpy, not torch.

A sample brackets the k-th value: [low, high]. One pass counts what lies below, at and above the two ends, and
keeps the (few) values strictly inside with their counts by block. So the k-th value is exact, its ties are
known by block, and memory is the bracket's share of the elements. If the k-th value lies outside the bracket,
it is counted again with a wider one: the result never depends on the sample, only the time does."""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from harness.errors import HarnessError
from harness.merge.pool import Pool
from harness.method import Cut

FEW = 2**21  # a population up to this size is kept whole, without a sample
FEW_IN_TENSOR = 2**15
GROUPS = 16  # of sampled stretches, whose spread tells the sample's error
MARGIN = 6.0  # standard errors on either side


@dataclass(frozen=True)
class Kept:
    """What a cut keeps: all beyond `threshold`, and of the values equal to it all in blocks before `block`
    (an index in order), the first `quota` in `block`, none after."""

    threshold: float
    number: int
    block: int
    quota: int


def stretches(numel: int, every: int, length: int, rng: random.Random) -> list[tuple[int, int]]:
    """(offset, length) of one stretch at a random place of every `every` elements; the last one, and that of
    a smaller tensor, is shorter in proportion, so that every sampled element stands for equally many."""
    found = []
    for start in range(0, numel, every):
        span = min(every, numel - start)
        n = max(1, length * span // every)
        found.append((start + rng.randrange((span - n) // 8 + 1) * 8, n))
    return found


class Ranking:
    """One population: the blocks `first` to `first + number - 1` of the model, ranked for one cut."""

    def __init__(self, cut: Cut, first: int, number: int, numel: int) -> None:
        self.cut, self.first, self.number, self.numel = cut, first, number, numel
        self.low, self.high = -np.inf, np.inf
        self._margin = MARGIN
        self._samples: list[np.ndarray] = []
        self._sampled = 1
        self.restart()

    def restart(self) -> None:
        self.eligible = self._below = 0
        self._at_low = np.zeros(self.number, np.int64)
        self._at_high = np.zeros(self.number, np.int64)
        self._inside = Pool()

    @property
    def few(self) -> bool:
        return self.numel <= (FEW if self.cut.scope == "global" else FEW_IN_TENSOR)

    def sample(self, values: np.ndarray) -> None:
        """The values of one stretch, NaN where not eligible; the stretches come in a fixed order."""
        self._sampled += len(values)
        self._samples.append(values[~np.isnan(values)])

    def bracket(self) -> None:
        """Set [low, high] from the sample, so that the k-th value is inside almost certainly."""
        samples, self._samples = [values for values in self._samples if len(values)], []
        sampled, self._sampled = self._sampled, 1
        if not samples:
            return
        drawn = np.concatenate(samples)
        values, n = np.sort(drawn), len(drawn)
        eligible = max(round(self.numel * n / sampled), 1)
        share = self.cut.count(eligible) / eligible
        share = 1 - share if self.cut.end == "highest" else share
        under = drawn <= values[min(int(share * n), n - 1)]
        lengths = np.array([len(values) for values in samples])
        below = np.add.reduceat(under, np.cumsum(lengths) - lengths, dtype=np.int64)
        error = self._margin * _error(below, lengths, share) + 16 / n
        self._margin *= 4
        low, high = int((share - error) * n), int((share + error) * n) + 1
        self.low = float(values[low]) if low > 0 else -np.inf
        self.high = float(values[high]) if high < n else np.inf

    def count(self, index: int, values: np.ndarray, eligible: int) -> tuple:
        """What one block holds. `values` are float32, NaN where not eligible. Pure: `add` takes it in."""
        over, under = values > self.low, values < self.high
        at_low = np.count_nonzero(values == self.low)
        at_high = np.count_nonzero(values == self.high) if self.high != self.low else 0
        below = eligible - np.count_nonzero(over) - at_low
        inside = np.unique(values[over & under], return_counts=True)
        return index - self.first, eligible, below, at_low, at_high, inside

    def counted(
        self, index: int, eligible: int, over: int, at_low: int, at_high: int, inside: np.ndarray
    ) -> tuple:
        """As `count`, from counts: how many are over `low`, equal to it and to `high`."""
        below, at_high = eligible - over - at_low, at_high if self.high != self.low else 0
        return index - self.first, eligible, below, at_low, at_high, np.unique(inside, return_counts=True)

    def add(self, counted: tuple) -> None:
        at, eligible, below, at_low, at_high, inside = counted
        self.eligible += eligible
        self._below += below
        self._at_low[at], self._at_high[at] = at_low, at_high
        self._inside.put(at, *inside)

    def resolve(self) -> Kept | None:
        """The cut; None when the bracket missed it."""
        cut, n = self.cut, self.eligible
        k = cut.count(n)
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
        """(value, how many are smaller, its ties by block) of the element with this 0-based ascending
        rank."""
        less, n_low = self._below, int(self._at_low.sum())
        if rank < less:
            return None
        if rank < less + n_low:
            return self.low, less, self._at_low
        less += n_low
        if rank < less + len(self._inside):
            value, smaller = self._inside_at(rank - less)
            return float(value), less + smaller, self._ties(value)
        less += len(self._inside)
        if rank < less + int(self._at_high.sum()):
            return self.high, less, self._at_high
        return None

    def _inside_at(self, rank: int) -> tuple[np.float32, int]:
        """(value, how many inside are smaller) at an ascending rank among the values inside the bracket. They
        are first counted between a thousand edges, so that only those between two are ever brought
        together."""
        blocks = [
            (keys, np.append(0, np.cumsum(counts, dtype=np.int64)))
            for _, keys, counts in self._inside.items()
        ]
        first, last = min(keys[0] for keys, _ in blocks), max(keys[-1] for keys, _ in blocks)
        edges = np.unique(np.append(first, np.linspace(first, last, 1000).astype(np.float32)))
        edges = edges[(edges >= first) & (edges <= last)]
        under = sum(upto[np.searchsorted(keys, edges)] for keys, upto in blocks)
        at = int(np.searchsorted(under, rank, side="right")) - 1
        end = edges[at + 1] if at + 1 < len(edges) else np.float32(np.inf)
        parts = []
        for keys, upto in blocks:
            i, j = np.searchsorted(keys, (edges[at], end))
            parts.append((keys[i:j], np.diff(upto[i : j + 1])))
        keys, inverse = np.unique(np.concatenate([keys for keys, _ in parts]), return_inverse=True)
        counts = np.bincount(inverse, np.concatenate([counts for _, counts in parts]), len(keys)).astype(
            np.int64
        )
        upto = np.cumsum(counts) + under[at]
        place = int(np.searchsorted(upto, rank, side="right"))
        return keys[place], int(upto[place] - counts[place])

    def _ties(self, value: np.float32) -> np.ndarray:
        ties = np.zeros(self.number, np.int64)
        for at, keys, counts in self._inside.items():
            place = int(np.searchsorted(keys, value))
            if place < len(keys) and keys[place] == value:
                ties[at] = counts[place]
        return ties


def _error(below: np.ndarray, lengths: np.ndarray, share: float) -> float:
    """Standard error of the share of elements below a value, as the spread between groups of stretches shows
    it (neighbours are alike: rows of an embedding, say), and at least that of single draws."""
    groups = np.arange(len(below)) % GROUPS
    part = np.bincount(groups, below) / np.bincount(groups, lengths)
    between = float(part.std(ddof=1)) / len(part) ** 0.5 if len(part) > 1 else 1.0
    return max(between, (max(share * (1 - share), 0.0) / int(lengths.sum())) ** 0.5)


def check_cut(cut: Cut) -> None:
    """Raise `HarnessError` for a request outside the contract."""
    shares = cut.keep if isinstance(cut.keep, tuple) else (cut.keep,)
    if not all(0 <= share <= 1 for share in shares):
        raise HarnessError(f"`Cut` has keep {cut.keep!r}", "a share between 0 and 1")
    for name, known in (
        ("end", ("highest", "lowest")),
        ("scope", ("global", "tensor")),
        ("ties", ("exact", "all")),
    ):
        if getattr(cut, name) not in known:
            raise HarnessError(f"`Cut` has {name} {getattr(cut, name)!r}", "one of " + ", ".join(known))
