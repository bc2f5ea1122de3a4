"""Whether a study's sentences hold here: effect, interval, n, and a verdict. It may be that they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from harness.board import BoardRow, Heading
from harness.errors import HarnessError, nearest
from harness.stats.items import Items
from harness.stats.paired import Difference, pooled
from harness.sweep.study import Claim, Variant, pairs

NO_DOMAIN = {"Reasoning", "Knowledge", "Perplexity"}


@dataclass(frozen=True)
class Verdict:
    """A claim with its evidence. `verdict` is `supported here`, `not supported here`, `the opposite holds
    here` or `cannot be told here`; `why` says what is missing in the last case."""

    sentence: str
    compared: str
    verdict: str
    difference: Difference | None = None
    columns: tuple[str, ...] = ()
    within: float | None = None
    why: str = ""

    def __str__(self) -> str:
        if self.difference is None:
            return f"{self.sentence}: {self.verdict} ({self.why})"
        d = self.difference
        low, high = d.interval
        margin = "" if self.within is None else f", margin ±{100 * self.within:g}"
        evidence = f"{100 * d.effect:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], n = {d.n}{margin}"
        return f"{self.sentence}: {self.verdict} ({self.compared} on {', '.join(self.columns)}: {evidence})"

    def row(self) -> dict[str, Any]:
        """For a CSV."""
        d = self.difference
        low, high = d.interval if d and d.interval else (None, None)
        return {"sentence": self.sentence, "compared": self.compared, "verdict": self.verdict,
                "columns": ", ".join(self.columns), "effect": d and d.effect, "low": low, "high": high,
                "p": d and d.p, "n": d and d.n, "within": self.within, "why": self.why}  # fmt: skip


def columns_of(group: str, headings: Sequence[Heading]) -> list[Heading]:
    """Main columns that are shares: of a group, of the `domain` (no reasoning, no knowledge), or `all`."""
    shares = [h for h in headings if h.main and h.kind == "accuracy"]
    if group == "all":
        return shares
    if group == "domain":
        return [h for h in shares if h.group not in NO_DOMAIN]
    known = {h.group for h in headings}
    if group not in known:
        raise HarnessError(f"no column is of the group `{group}`", nearest(group, {*known, "all", "domain"}))
    return [h for h in shares if h.group == group]


def judge(
    claim: Claim,
    found: Sequence[Variant],
    rows: dict[str, BoardRow],
    headings: Sequence[Heading],
    items: Callable[[BoardRow, Heading], Items | None],
) -> Verdict:
    """The verdict on one claim. `rows` are the board's by variant label and `base`; `items` gives what each
    item of a cell scored."""
    wanted = pairs(claim, found)
    spelled = _spelled(claim)
    columns = columns_of(claim.group, headings)
    if not columns:
        return Verdict(claim.sentence, spelled, "cannot be told here", why="no column is a share")
    given, signs = [], []
    for one, other in wanted:
        for heading in columns:
            pair = tuple(items(rows[name], heading) if name in rows else None for name in (one, other))
            if None in pair:
                why = f"{heading.title} of `{one}` or `{other}` was not measured"
                return Verdict(claim.sentence, spelled, "cannot be told here", why=why)
            given.append(pair)
            signs.append(1 if heading.higher_is_better else -1)
    difference = _averaged(given, signs, len(columns))
    if difference is None or difference.interval is None:
        return Verdict(claim.sentence, spelled, "cannot be told here", why="too few items in common")
    told = _verdict(difference, claim.within)
    titles = tuple(h.title for h in columns)
    return Verdict(claim.sentence, spelled, told, difference, titles, claim.within)


def _averaged(given: Sequence[tuple[Items, Items]], signs: Sequence[int], columns: int) -> Difference | None:
    """Several pairs of rows ask the same items: their differences are averaged item by item, so that an item
    counts once. A column's items are resampled together."""
    import numpy as np

    from harness.stats.items import matched

    merged = []
    for column in range(columns):
        own = [matched(*pair) for pair in given[column::columns]]
        ids = own[0][0].ids
        if any(one.ids != ids for one, _ in own):
            return None
        deltas = np.mean([one.values - other.values for one, other in own], axis=0)
        clusters = own[0][0].clusters
        merged.append((Items(ids, deltas, clusters), Items(ids, np.zeros(len(ids)), clusters)))
    return pooled(merged, signs[:columns])


def _verdict(difference: Difference, within: float | None) -> str:
    low, high = difference.interval
    if within is not None:
        if -within < low and high < within:
            return "supported here"
        return "not supported here"
    if low > 0:
        return "supported here"
    return "the opposite holds here" if high < 0 else "not supported here"


def _spelled(claim: Claim) -> str:
    def shown(side: str | dict[str, Any]) -> str:
        return side if isinstance(side, str) else ", ".join(f"{k}={v}" for k, v in side.items())

    return f"{shown(claim.row)} − {shown(claim.than)}"
