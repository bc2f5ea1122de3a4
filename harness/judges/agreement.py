"""Agreement of a judge with human labels. Light."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

UNPARSED = "unparsed"


def agreement(human: Sequence[Hashable], judged: Sequence[Hashable]) -> dict[str, Any]:
    """`n`, `accuracy`, Cohen's `kappa`, the `confusion` matrix (human -> judge -> count), `unparsed`.

    A judgement that could not be read is given as `UNPARSED` and agrees with nobody: it stays in n and is a
    class of its own. `kappa` = (p - e) / (1 - e), p the accuracy and e the agreement that the two would reach
    by chance with these shares of labels (Cohen 1960); None where e is 1, so that there is nothing to tell.
    """
    n = len(human)
    if n == 0 or n != len(judged):
        raise ValueError(f"{n} labels and {len(judged)} judgements")
    pairs = Counter(zip(human, judged, strict=True))
    rows, columns = Counter(human), Counter(judged)
    right = sum(count for (label, found), count in pairs.items() if label == found)
    chance = sum(rows[label] * columns[label] for label in rows)  # times n squared
    kappa = None if chance == n * n else (right * n - chance) / (n * n - chance)
    labels = sorted({*rows, *columns} - {UNPARSED}) + [UNPARSED] * (UNPARSED in columns)
    confusion = {label: {found: pairs[label, found] for found in labels} for label in labels if label in rows}
    return {
        "n": n,
        "accuracy": right / n,
        "kappa": kappa,
        "unparsed": columns[UNPARSED],
        "confusion": confusion,
    }
