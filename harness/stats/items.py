"""What each item of an evaluation scored, read from its folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

CLUSTER = "cluster"  # column of the samples of a task whose items share something
ItemId = tuple[str, int]  # lm-eval's task (of a group), document


@dataclass(frozen=True)
class Items:
    """Items in order of their ids. `values` is float64 [n]; of a perplexity [n, 2], log-likelihood (nats) and
    weight (words) of each document. `clusters` names what items share (a passage), or is None."""

    ids: tuple[ItemId, ...]
    values: np.ndarray
    clusters: tuple[str, ...] | None = None

    @property
    def ratio(self) -> bool:
        return self.values.ndim == 2

    def aggregate(self) -> float:
        """The mean, or exp(-sum of log-likelihoods / sum of weights)."""
        return float(aggregated(self.values))


def aggregated(values: np.ndarray) -> Any:
    """The mean over the items of `values` [n], or the perplexity of [n, 2]."""
    import numpy as np

    if values.ndim == 1:
        return values.mean()
    with np.errstate(over="ignore"):
        return np.exp(-values[:, 0].sum() / values[:, 1].sum())


def items_of(folder: Path, metric: str) -> Items | None:
    """The items behind the metric of an evaluation's or a judgement's folder; None where there are none (rows
    that were imported without samples, metrics that are no mean)."""
    judged = (folder / "judged.parquet").is_file()
    found = _judged(folder, metric) if judged else _sampled(folder, metric)
    if not found:
        return None
    import numpy as np

    ids = tuple(sorted(found))
    values = np.array([found[i][0] for i in ids], dtype=np.float64)
    named = [found[i][1] for i in ids]
    return Items(ids, values, None if None in named else tuple(map(str, named)))


def _sampled(folder: Path, metric: str) -> dict[ItemId, tuple[Any, Any]]:
    import pyarrow.parquet as pq

    path = folder / "samples.parquet"
    if not path.is_file():
        return {}
    known = set(pq.read_schema(path).names)
    name, _, chosen = metric.partition(",")
    pair = ["loglikelihood", "weight"] if {"loglikelihood", "weight"} <= known else []
    wanted = pair or [name]
    if not set(wanted) <= known:
        return {}
    beside = [c for c in ("task", "doc_id", "filter", CLUSTER) if c in known]
    columns = list(dict.fromkeys([*beside, *wanted, *([name] if name in known else [])]))
    found: dict[ItemId, tuple[Any, Any]] = {}
    for row in pq.read_table(path, columns=columns).to_pylist():
        if chosen and row.get("filter") != chosen:
            continue
        values = [row[column] for column in wanted]
        if all(_number(value) for value in values):
            key = (row.get("task") or "", row["doc_id"])
            value = _weighted(*values, row.get(name)) if pair else values[0]
            found[key] = (value, row.get(CLUSTER))
    return found


def _weighted(loglikelihood: float, weight: float, value: float | None) -> list[float]:
    """The pair of one metric. A task with several perplexities has one `weight` in its samples (words, or
    bytes): that of this metric follows from the document's own value, exp(-loglikelihood / weight)."""
    if value is not None and value > 1 and math.isfinite(value):
        own = -loglikelihood / math.log(value)
        if abs(own - weight) > 1e-6 * weight:
            return [loglikelihood, float(round(own))]
    return [loglikelihood, weight]


def _judged(folder: Path, metric: str) -> dict[ItemId, tuple[Any, Any]]:
    """A document's mean over its responses, as the judgement's own record has it."""
    import pyarrow.parquet as pq

    given: dict[ItemId, list[float]] = {}
    for row in pq.read_table(folder / "judged.parquet", columns=["doc_id", "values"]).to_pylist():
        value = json.loads(row["values"]).get(metric)
        if _number(value):
            given.setdefault(("", row["doc_id"]), []).append(float(value))
    return {key: (sum(values) / len(values), None) for key, values in given.items()}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and value == value


def matched(one: Items, other: Items) -> tuple[Items, Items]:
    """The items that both have, in one order."""
    import numpy as np

    if one.ids == other.ids:
        return one, other
    common = sorted(set(one.ids) & set(other.ids))

    def of(items: Items) -> Items:
        place: Mapping[ItemId, int] = {key: i for i, key in enumerate(items.ids)}
        at = np.array([place[key] for key in common], dtype=int)
        clusters = None if items.clusters is None else tuple(items.clusters[i] for i in at)
        return Items(tuple(common), items.values[at], clusters)

    return of(one), of(other)


def mean_of(runs: Sequence[Items]) -> Items | None:
    """Several runs on the same items, each item at its mean; None where the items differ, or are of a
    perplexity (whose mean over runs is no mean over items)."""
    import numpy as np

    first = runs[0]
    if first.ratio or any(other.ids != first.ids or other.ratio for other in runs):
        return None
    return Items(first.ids, np.mean([items.values for items in runs], axis=0), first.clusters)
