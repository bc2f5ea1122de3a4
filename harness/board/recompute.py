"""A cell's value anew from what was answered, without the record that the table was made from."""

from __future__ import annotations

import dataclasses
import math
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import tasks
from harness.board.model import Board, BoardRow, Cell, Heading
from harness.board.rescore import aggregated
from harness.errors import HarnessError
from harness.evaluate.task_file import TaskFile
from harness.stats.items import Items, items_of

RESPONSES, SCORES = "responses", "stored scores"
GONE = "its samples are not here"


@dataclass(frozen=True)
class Recomputed:
    """A value and what it was computed from: the `responses`, by the task's scorer of today, or the
    `stored scores` of the items, and then `why` says why not from the responses. The value is None where
    neither is there. `differing` are the items (doc_id) whose stored score is not the scorer's of today;
    `scorer` is False where its code changed since."""

    value: float | None
    source: str | None = None
    why: str = ""
    differing: tuple[int, ...] = ()
    scorer: bool = True


class Recomputing:
    """Recomputes cells of a board; what a task asks is built once."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self._built: dict[Any, Any] = {}
        self._known: dict[Path, tuple[dict[str, Any], dict[str, Items]]] = {}

    def cell(self, row: BoardRow, heading: Heading) -> Recomputed | None:
        """None where the row has no such cell. Of a cell over seeds the mean of its runs."""
        cell = row.cell(heading)
        if cell is None:
            return None
        runs = (
            [(cell.folder, cell.value)] if not cell.folders else zip(cell.folders, cell.values, strict=True)
        )
        found = [self._run(dataclasses.replace(cell, folder=f, value=v), heading) for f, v in runs]
        values = [one.value for one in found]
        first = next((one for one in found if one.source != RESPONSES), found[0])
        differing = tuple(sorted({item for one in found for item in one.differing}))
        value = None if None in values else math.fsum(values) / len(values)
        scorer = all(one.scorer for one in found)
        return dataclasses.replace(first, value=value, differing=differing, scorer=scorer)

    def _run(self, cell: Cell, heading: Heading) -> Recomputed:
        folder = Path(cell.folder)
        stored = items_of(folder, heading.metric) if cell.folder else None
        try:
            if cell.imported:
                raise HarnessError("imported: lm-eval scored it", "")
            return self._scored(cell, heading, folder, stored)
        except Exception as error:  # a scorer is a plugin, its data may be gone: stored scores are left
            why = error.message if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
        value = stored.aggregate() if stored is not None else None
        if value is None or not same(value, cell.value):  # no mean: by the task's own aggregation
            value = _else(aggregated, heading.task, heading.metric, folder, value)
        return Recomputed(value, None if value is None else SCORES, why)

    def _scored(self, cell: Cell, heading: Heading, folder: Path, stored: Items | None) -> Recomputed:
        from harness.evaluate.rescoring import recipe_of, rescored
        from harness.judging import reread

        file, judged = _task(heading.task), (folder / "judged.parquet").is_file()
        if folder not in self._known:
            with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
                to = Path(scratch)
                record = reread(file.judge, folder, to) if judged else rescored(file, folder, to, self._built)
                items = {metric: items_of(to, metric) for metric in record["metrics"]}
            self._known[folder] = record["metrics"], items
        metrics, items = self._known[folder]
        if heading.metric not in metrics:
            raise HarnessError(f"the scorer gives no `{heading.metric}` now", "")
        now, recipe = items[heading.metric], recipe_of(folder)
        scorer = judged or recipe.get("scorer") == file.score_hash
        return Recomputed(metrics[heading.metric]["value"], RESPONSES, "", _differing(stored, now), scorer)


def same(one: float, other: float) -> bool:
    """Equal but for the last digits of a sum."""
    return math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12) or (math.isnan(one) and math.isnan(other))


@lru_cache(maxsize=256)
def _task(name: str) -> TaskFile:
    (file,) = tasks.named([name])
    return file


def _else(function: Any, task: str, metric: str, folder: Path, value: float | None) -> float | None:
    try:
        found = function(task, metric, folder)
    except HarnessError:  # the task is not known here
        return value
    return value if found is None else found


def _differing(stored: Items | None, now: Items | None) -> tuple[int, ...]:
    """Items that score otherwise now, or are not the same items."""
    if stored is None or now is None:
        return ()
    before, after = (
        dict(zip(i.ids, i.values.reshape(len(i.ids), -1).tolist(), strict=True)) for i in (stored, now)
    )
    odd = [key for key in {**before, **after} if not _alike(before.get(key), after.get(key))]
    return tuple(sorted({doc for _, doc in odd}))


def _alike(one: list[float] | None, other: list[float] | None) -> bool:
    return one is not None and other is not None and all(map(same, one, other))
