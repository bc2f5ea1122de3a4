"""Standard errors and intervals of what lm-eval aggregates over documents. Light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

RESAMPLES = 1000
LEVEL = 0.95


def mean_stderr(values: Sequence[float]) -> float | None:
    """Sample standard error of the mean: s / sqrt(n), s with n - 1. None below two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def perplexity_stderr(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Standard error of exp(-sum l / sum w) over documents with log-likelihood l and w words.

    Delta method for a ratio estimator (Cochran, Sampling Techniques, 1977, section 6.4): with
    r = sum l / sum w, var r = n / (n - 1) * sum (l - r w)^2 / (sum w)^2, and |d exp(-r)| = exp(-r) dr.
    None below two documents.
    """
    n = len(pairs)
    words = math.fsum(w for _, w in pairs)
    if n < 2 or words <= 0:
        return None
    ratio = math.fsum(value for value, _ in pairs) / words
    spread = math.fsum((value - ratio * w) ** 2 for value, w in pairs)
    return exp(-ratio) * math.sqrt(n / (n - 1) * spread) / words


def pairs_of(values: Sequence[Any]) -> list[tuple[float, float]]:
    """The values as (log-likelihood, words) pairs of numbers; [] when they are something else."""
    found = []
    for value in values:
        if not (isinstance(value, (tuple, list)) and len(value) == 2 and all(map(_number, value))):
            return []
        found.append((float(value[0]), float(value[1])))
    return found


def stderr(values: Sequence[Any]) -> float | None:
    """The standard error that fits per-document values: numbers, or (log-likelihood, words) pairs; None for
    values of another kind."""
    if not values:
        return None
    if pairs := pairs_of(values):
        return perplexity_stderr(pairs)
    return mean_stderr([float(v) for v in values]) if all(map(_number, values)) else None


def bootstrap(values: Sequence[Any], aggregate: Callable[[list], float] | None) -> dict[str, Any]:
    """{"interval": [low, high]} of an aggregated value, and its "stderr" where no formula gives one.

    Percentile bootstrap over documents (Efron and Tibshirani, 1993, chapter 13), 95 %, 1000 resamples drawn
    from a fixed seed. {} below two documents, or where the aggregate cannot be computed.
    """
    if aggregate is None or len(values) < 2:
        return {}
    import numpy as np

    draw, n = np.random.default_rng(0), len(values)
    pairs = pairs_of(values)
    if pairs:  # perplexity: sums do what the aggregate does, at once for all resamples
        loglikelihood, words = np.array(pairs).T
        chosen = [draw.integers(n, size=n) for _ in range(RESAMPLES)]
        found = [exp(-loglikelihood[c].sum() / words[c].sum()) for c in chosen]
    else:
        found = [float(aggregate([values[i] for i in draw.integers(n, size=n)])) for _ in range(RESAMPLES)]
    tail = (1 - LEVEL) / 2
    told: dict[str, Any] = {"interval": [float(np.quantile(found, q)) for q in (tail, 1 - tail)]}
    return told if pairs else {**told, "stderr": float(np.std(found, ddof=1))}


def exp(value: float) -> float:
    """e to the value; infinity where it does not fit."""
    return math.exp(value) if value < 709 else math.inf


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) or hasattr(value, "dtype")
