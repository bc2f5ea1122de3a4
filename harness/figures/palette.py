"""One colour for a method everywhere, and colours that the colour-blind tell apart.

The colours are those of Okabe and Ito (Color Universal Design, 2008) and of Tol's muted scheme (SRON
technical note, 2021). Rows of one method share its colour and differ by marker; references are grey.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

REFERENCE = "#555555"
METHODS = {
    "reasonany": "#D55E00",
    "linear": "#0072B2",
    "task_arithmetic": "#009E73",
    "ties": "#CC79A7",
    "dare": "#E69F00",
    "led": "#56B4E9",
    "sce": "#882255",
    "rcp": "#999933",
    "fusellm": "#332288",
}
OTHERS = ("#117733", "#AA4499", "#44AA99", "#661100", "#6699CC", "#888888", "#DDCC77", "#AA4466")
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = {"o": "circle", "s": "square", "^": "triangle-up", "D": "diamond", "v": "triangle-down",
           "P": "cross", "X": "x"}  # fmt: skip


def colour(method: str | None) -> str:
    """The colour (#rrggbb) of a method by its name; of a reference row for None."""
    if method is None:
        return REFERENCE
    if method in METHODS:
        return METHODS[method]
    return OTHERS[hashlib.sha256(method.encode()).digest()[0] % len(OTHERS)]


def markers(methods: Sequence[str | None]) -> list[str]:
    """A marker (matplotlib's code) for each row, in order: the n-th row of a method has the n-th marker."""
    seen: dict[str | None, int] = {}
    codes = list(MARKERS)
    found = []
    for method in methods:
        found.append(codes[seen.get(method, 0) % len(codes)])
        seen[method] = seen.get(method, 0) + 1
    return found
