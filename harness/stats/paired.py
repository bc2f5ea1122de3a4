"""Two models on the same items: the difference, its interval, and whether chance explains it.

Resampling is seeded: equal items give equal numbers. Sources: percentile bootstrap (Efron and Tibshirani,
1993, chapter 13), of whole clusters where items share something (Davison and Hinkley, 1997, section 3.8);
McNemar's exact test for scores of 0 and 1 (Psychometrika 12, 1947; binomial form); for other scores the
paired permutation test that flips the signs of the differences (Fisher, 1935); Holm (Scandinavian Journal
of Statistics 6, 1979).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.stats.items import Items, matched

if TYPE_CHECKING:
    import numpy as np

DRAWS = 2000  # of a bootstrap
FLIPS = 9999  # of a permutation test
TAIL = 0.025
CELLS = 4_000_000  # numbers held at a time while resampling


@dataclass(frozen=True)
class Difference:
    """`effect` = one - other (of perplexities their difference), with its 95 % `interval`; `p` of the
    two-sided `test` that there is none (None below two items); `n` items in common. `discordance` is the
    share of them on which scores of 0 and 1 differ, else None; `spread` / sqrt(n) is the standard error of
    the mean difference, clusters counted."""

    effect: float
    interval: tuple[float, float] | None
    p: float | None
    test: str
    n: int
    discordance: float | None = None
    spread: float | None = None


def compare(one: Items, other: Items) -> Difference | None:
    """`one` against `other` on the items that both have; None where they have none."""
    import numpy as np

    one, other = matched(one, other)
    n = len(one.ids)
    if n == 0 or one.ratio != other.ratio:
        return None
    effect = one.aggregate() - other.aggregate()
    if not math.isfinite(effect):
        return Difference(effect, None, None, "none: a value is not finite", n)
    interval = _interval(one, other) if n > 1 else None
    if one.ratio:
        deltas = one.values[:, 0] - other.values[:, 0]
        if not np.array_equal(one.values[:, 1], other.values[:, 1]):
            return Difference(effect, interval, None, "none: the documents have other weights", n)
    else:
        deltas = one.values - other.values
    binary = not one.ratio and _binary(one.values) and _binary(other.values)
    spread = spread_of(deltas, one.clusters) if n > 1 else None
    if binary and one.clusters is None:
        won, lost = int((deltas > 0).sum()), int((deltas < 0).sum())
        return Difference(effect, interval, mcnemar(won, lost), "McNemar, exact", n, (won + lost) / n, spread)
    sums = deltas if one.clusters is None else by_cluster(one.clusters, deltas)
    name = "sign-flip permutation" + (" of clusters" if one.clusters else "")
    share = float((deltas != 0).mean()) if binary else None
    return Difference(effect, interval, sign_flip(sums), name, n, share, spread)


def mcnemar(won: int, lost: int) -> float:
    """Exact two-sided p of `won` against `lost` discordant pairs."""
    if won + lost == 0:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost, 0.5).pvalue)


def sign_flip(deltas: np.ndarray, flips: int = FLIPS) -> float | None:
    """Two-sided p of the sum of paired differences [n] under random signs; exact for n up to 13. None below
    two differences."""
    import numpy as np

    n = len(deltas)
    if n < 2:
        return None
    deltas = deltas[deltas != 0]
    observed = abs(deltas.sum())
    if len(deltas) == 0:
        return 1.0
    slack = 1e-12 * np.abs(deltas).sum()
    if 2 ** len(deltas) <= flips + 1:
        codes = np.arange(2 ** len(deltas))[:, None] >> np.arange(len(deltas)) & 1
        return float((np.abs((2 * codes - 1) @ deltas) >= observed - slack).mean())
    draw, extreme, left = np.random.default_rng(0), 0, flips
    while left:
        count = min(left, max(1, CELLS // len(deltas)))
        signs = draw.integers(0, 2, size=(count, len(deltas)), dtype=np.int8) * 2 - 1
        extreme += int((np.abs(signs @ deltas) >= observed - slack).sum())
        left -= count
    return (extreme + 1) / (flips + 1)


def holm(p: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction of those that are given; None stays None."""
    known = sorted((value, i) for i, value in enumerate(p) if value is not None)
    found: list[float | None] = [None] * len(p)
    highest = 0.0
    for rank, (value, i) in enumerate(known):
        highest = max(highest, min(1.0, value * (len(known) - rank)))
        found[i] = highest
    return found


def _binary(values: np.ndarray) -> bool:
    return bool(((values == 0) | (values == 1)).all())


def by_cluster(clusters: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Sums [clusters, ...] of values [items, ...], clusters in order of first appearance."""
    import numpy as np

    place = {name: i for i, name in enumerate(dict.fromkeys(clusters))}
    summed = np.zeros((len(place), *values.shape[1:]))
    np.add.at(summed, [place[name] for name in clusters], values)
    return summed


def spread_of(deltas: np.ndarray, clusters: Sequence[str] | None) -> float | None:
    """Standard deviation of a difference as far as it counts: that of single items, or what clusters make of
    it, so that spread / sqrt(n) is the mean's standard error. None for a single cluster."""
    if clusters is None:
        return float(deltas.std(ddof=1))
    sums = by_cluster(clusters, deltas - deltas.mean())
    k = len(sums)
    return float(math.sqrt((sums**2).sum() * k / (k - 1) / len(deltas))) if k > 1 else None


def _interval(one: Items, other: Items) -> tuple[float, float]:
    """Of the difference, by resampling items (or clusters) in pairs."""
    import numpy as np

    if one.ratio:
        stacked = np.concatenate([one.values, other.values], axis=1)
    else:
        stacked = np.stack([one.values - other.values, np.ones(len(one.ids))], axis=1)
    if one.clusters is not None:
        stacked = by_cluster(one.clusters, stacked)
    sums = resampled(stacked)
    with np.errstate(over="ignore", invalid="ignore"):
        if one.ratio:
            found = np.exp(-sums[:, 0] / sums[:, 1]) - np.exp(-sums[:, 2] / sums[:, 3])
        else:
            found = sums[:, 0] / sums[:, 1]
    return interval_of(found)


def interval_of(draws: np.ndarray) -> tuple[float, float]:
    """The 95 % percentile interval of a bootstrap's draws [n]."""
    import numpy as np

    low, high = np.quantile(draws, [TAIL, 1 - TAIL])
    return float(low), float(high)


def resampled(rows: np.ndarray, draws: int = DRAWS, seed: int = 0) -> np.ndarray:
    """Sums [draws, columns] of rows [n, columns] drawn n times with replacement. Equal rows are counted, not
    drawn one by one: scores of 0 and 1 have three differences, however many items there are."""
    import numpy as np

    draw = np.random.default_rng(seed)
    distinct, counts = np.unique(rows, axis=0, return_counts=True)
    n = len(rows)
    if len(distinct) * 4 <= n:
        sums, step = np.empty((draws, rows.shape[1])), max(1, CELLS // len(distinct))
        for start in range(0, draws, step):
            picked = draw.multinomial(n, counts / n, size=min(step, draws - start))
            sums[start : start + step] = picked @ distinct
        return sums
    sums, step = np.empty((draws, rows.shape[1])), max(1, CELLS // n)
    for start in range(0, draws, step):
        chosen = draw.integers(n, size=(min(step, draws - start), n))
        sums[start : start + step] = rows[chosen].sum(axis=1)
    return sums


def pooled(pairs: Sequence[tuple[Items, Items]], signs: Sequence[int]) -> Difference | None:
    """Mean over several columns of the difference in each (times its sign, -1 where low is good).

    The interval is a bootstrap's that resamples the items of every column; p comes from flipping the signs of
    items (of clusters, where they share something), each weighted as the mean weighs it. None where a column
    has no two items in common."""
    import numpy as np

    effects, draws, weighted, n = [], [], [], 0
    for index, ((one, other), sign) in enumerate(zip(pairs, signs, strict=True)):
        one, other = matched(one, other)
        if len(one.ids) < 2 or one.ratio or other.ratio:
            return None
        stacked = np.stack([one.values - other.values, np.ones(len(one.ids))], axis=1)
        if one.clusters is not None:
            stacked = by_cluster(one.clusters, stacked)
        sums = resampled(stacked, seed=index)
        effects.append(sign * (one.aggregate() - other.aggregate()))
        draws.append(sign * sums[:, 0] / sums[:, 1])
        weighted.append(sign * stacked[:, 0] / len(one.ids))
        n += len(one.ids)
    if not effects:
        return None
    name = "sign-flip permutation over the items of every column"
    p = sign_flip(np.concatenate(weighted))
    return Difference(float(np.mean(effects)), interval_of(np.mean(draws, axis=0)), p, name, n)
