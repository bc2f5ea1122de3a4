"""Whether a study's sentences hold here: effect, interval, n, and a verdict. It may be that they do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.board import BoardRow, Heading
from harness.errors import HarnessError, nearest
from harness.stats.items import Items
from harness.stats.paired import Difference, by_cluster, interval_of, pooled, resampled
from harness.sweep.study import Claim, Variant, pairs

NO_DOMAIN = {"Reasoning", "Knowledge", "Perplexity"}
HOW = "+ is better; points with the 95 % interval of a bootstrap over items, each claim by itself"

Pair = tuple[str, str]  # labels of two rows
Compared = list[tuple[Items, Items]]  # the items of two rows, a pair for each column


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

    @property
    def evidence(self) -> str:
        """What was compared, and what came of it."""
        if self.difference is None:
            return f"{self.compared}: {self.why}"
        d = self.difference
        low, high = d.interval
        margin = "" if self.within is None else f", margin ±{100 * self.within:g}"
        effect = f"{100 * d.effect:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}], n = {d.n}{margin}"
        return f"{self.compared}, on {', '.join(self.columns)}: {effect}"

    def __str__(self) -> str:
        return f"{self.sentence}: {self.verdict} ({self.evidence})"

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
    return [h for h in shares if h.group == group]


def check_group(group: str, headings: Sequence[Heading]) -> None:
    """Raise HarnessError for a group of which no column is."""
    known = {h.group for h in headings} | {"all", "domain"}
    if group not in known:
        raise HarnessError(f"no column is of the group `{group}`", nearest(group, known))


def judge(
    claim: Claim,
    found: Sequence[Variant],
    rows: Mapping[str, BoardRow],
    headings: Sequence[Heading],
    items: Callable[[BoardRow, Heading], Items | None],
) -> Verdict:
    """The verdict on one claim. `rows` are the board's by variant label and `base`; `items` gives what each
    item of a cell scored."""
    wanted, columns = pairs(claim, found), columns_of(claim.group, headings)

    def untold(why: str) -> Verdict:
        return Verdict(claim.sentence, spelled(claim), "cannot be told here", why=why)

    if not columns:
        return untold(f"no column of `{claim.group}` that is a share was measured")
    given: list[Compared] = []
    for names in wanted:
        given.append([])
        for heading in columns:
            pair = tuple(items(rows[name], heading) if name in rows else None for name in names)
            if None in pair:
                return untold(f"{heading.title} of `{names[0]}` or `{names[1]}` was not measured")
            given[-1].append(pair)
    signs = [1 if heading.higher_is_better else -1 for heading in columns]
    compared, difference = _difference(claim, wanted, given, signs, found)
    if difference is None or difference.interval is None:
        return untold("too few items in common")
    told = _verdict(difference, claim.within)
    titles = tuple(h.title for h in columns)
    return Verdict(claim.sentence, compared, told, difference, titles, claim.within)


def _difference(
    claim: Claim, wanted: list[Pair], given: list[Compared], signs: list[int], found: Sequence[Variant]
) -> tuple[str, Difference | None]:
    """What is compared, in words, and how it differs."""
    if claim.steadier_over is not None:
        words = f"standard deviation over {claim.steadier_over}, {spelled(claim, swapped=True)}"
        return words, _steadier(_groups(claim.steadier_over, wanted, given, found))
    if claim.within is None:
        several = f" (mean of {len(wanted)} pairs)" if len(wanted) > 1 else ""
        return spelled(claim) + several, _averaged(given, signs)
    differences = [pooled(pair, signs) for pair in given]
    if None in differences:
        return spelled(claim), None
    names, farthest = max(zip(wanted, differences, strict=True), key=lambda one: _far(one[1]))
    several = f" (the farthest of {len(wanted)} pairs)" if len(wanted) > 1 else ""
    return " − ".join(names) + several, farthest


def _far(difference: Difference) -> float:
    return max(abs(end) for end in difference.interval)


def _averaged(given: Sequence[Compared], signs: Sequence[int]) -> Difference | None:
    """Several pairs of rows ask the same items: their differences are averaged item by item, so that an item
    counts once. A column's items are resampled together."""
    import numpy as np

    from harness.stats.items import matched

    merged = []
    for own in zip(*given, strict=True):
        same = [matched(*pair) for pair in own]
        first = same[0][0]
        if any(one.ids != first.ids for one, _ in same):
            return None
        deltas = np.mean([one.values - other.values for one, other in same], axis=0)
        nothing = Items(first.ids, np.zeros(len(first.ids)), first.clusters)
        merged.append((Items(first.ids, deltas, first.clusters), nothing))
    return pooled(merged, signs)


def _groups(
    axis: str, wanted: list[Pair], given: list[Compared], found: Sequence[Variant]
) -> list[list[Compared]]:
    """The pairs that differ only in `axis` together."""
    points = {variant.label: variant.point for variant in found}
    groups: dict[str, list[Compared]] = {}
    for (name, _), pair in zip(wanted, given, strict=True):
        rest = {key: value for key, value in points[name].items() if key != axis}
        groups.setdefault(repr(rest), []).append(pair)
    return list(groups.values())


def _steadier(groups: Sequence[Sequence[Compared]]) -> Difference | None:
    """By how much the standard deviation of the second rows' means is larger than that of the first rows',
    averaged over groups and columns. The items of a column are resampled for all rows together."""
    import numpy as np

    effects, draws, n = [], [], 0
    for group in groups:
        for index, own in enumerate(zip(*group, strict=True)):
            rows = [one for one, _ in own] + [other for _, other in own]
            ids = rows[0].ids
            if len(own) < 2 or len(ids) < 2 or any(row.ratio or row.ids != ids for row in rows):
                return None
            stacked = np.stack([*(row.values for row in rows), np.ones(len(ids))], axis=1)
            if rows[0].clusters is not None:
                stacked = by_cluster(rows[0].clusters, stacked)
            sums = np.vstack([stacked.sum(axis=0), resampled(stacked, seed=index)])
            ones, others = np.split(sums[:, :-1] / sums[:, -1:], 2, axis=1)
            wider = others.std(axis=1, ddof=1) - ones.std(axis=1, ddof=1)
            effects.append(wider[0])
            draws.append(wider[1:])
            n += len(ids) if group is groups[0] else 0
    interval = interval_of(np.mean(draws, axis=0))
    return Difference(float(np.mean(effects)), interval, None, "bootstrap of standard deviations", n)


def _verdict(difference: Difference, within: float | None) -> str:
    low, high = difference.interval
    if within is not None:
        return "supported here" if -within < low and high < within else "not supported here"
    if low > 0:
        return "supported here"
    return "the opposite holds here" if high < 0 else "not supported here"


def asked(claim: Claim) -> str:
    """What a claim compares, in which columns, and how."""
    if claim.steadier_over is not None:
        return f"spread over {claim.steadier_over}, {spelled(claim, swapped=True)}, on {claim.group}"
    margin = "" if claim.within is None else f", within ±{100 * claim.within:g} points"
    return f"{spelled(claim)}, on {claim.group}{margin}"


def spelled(claim: Claim, swapped: bool = False) -> str:
    """The difference that a claim is about."""

    def shown(side: str | dict[str, Any]) -> str:
        return side if isinstance(side, str) else ", ".join(_setting(*item) for item in side.items())

    sides = [shown(claim.row), shown(claim.than)]
    return " − ".join(reversed(sides) if swapped else sides)


def _setting(key: str, value: Any) -> str:
    return str(value) if key == "row" else f"{key}={value}"
