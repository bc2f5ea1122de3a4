"""Searches of one or several methods side by side: each round's settings share the passes, and trials are
written down as they come."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.sweep import grid
from harness.sweep.grid import Axis, Point
from harness.sweep.partial import write_csv
from harness.sweep.running import Runs, Values
from harness.sweep.search import Asking, Trial, best


@dataclass
class Contender:
    """A method whose settings are searched: `fixed` hold in every trial, `axes` vary."""

    label: str
    method: str
    fixed: Mapping[str, Any]
    axes: Mapping[str, Axis]
    trials: list[Trial] = field(default_factory=list)

    @property
    def best(self) -> Trial | None:
        return best(self.trials)

    def name(self, point: Point) -> str:
        """A trial's row."""
        return grid.label(self.label, point)

    def settings(self, point: Point) -> dict[str, Any]:
        return {"method": self.method, **self.fixed, **point}


def listed(points: Sequence[Point], limit: int | None) -> Asking:
    """A search that asks for these settings, at once."""
    values = yield list(points), limit
    return [Trial(p, v, limit) for p, v in zip(points, values, strict=True)]


def hold(
    runs: Runs, contenders: Sequence[Contender], begin: Callable[[Contender], Asking], path: Path
) -> None:
    """Carry the searches out, in rounds; fills `trials` of each. The file at `path` has every trial whose
    round has begun, its value empty until it is known."""
    searches = {one.label: begin(one) for one in contenders}
    wanted = {label: next(search) for label, search in searches.items()}
    while wanted:
        limit = next(iter(wanted.values()))[1]
        now = [one for one in contenders if one.label in wanted and wanted[one.label][1] == limit]
        asked = {one.label: wanted.pop(one.label)[0] for one in now}
        rows = {one.name(p): one.settings(p) for one in now for p in asked[one.label]}
        before = {one.label: list(one.trials) for one in contenders}

        def so_far(values: Values, now=now, asked=asked, limit=limit, before=before) -> None:
            for one in now:
                found = [Trial(p, values[one.name(p)], limit) for p in asked[one.label]]
                one.trials = [*before[one.label], *found]
            write(contenders, path)

        values = runs.measure(rows, limit, so_far)
        for one in now:
            try:
                found = [values[one.name(p)] for p in asked[one.label]]
                wanted[one.label] = searches[one.label].send(found)
            except StopIteration as ended:
                one.trials = ended.value
    write(contenders, path)


def write(contenders: Sequence[Contender], path: Path) -> None:
    """All trials: the contender where there are several, its settings, the value, the items per task (empty:
    all)."""
    keys = list(dict.fromkeys(key for one in contenders for key in one.axes))
    lines = [
        {
            **({"row": one.label} if len(contenders) > 1 else {}),
            **{key: trial.point.get(key, "") for key in keys},
            "value": trial.value,
            "limit": trial.limit,
        }
        for one in contenders
        for trial in one.trials
    ]
    write_csv(path, lines)
