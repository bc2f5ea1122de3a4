"""A benchmark's rows, checked: what is malformed is named by file, row and field."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.data.parse import MEND, content_of, rows_of, stream
from harness.data.source import Source, local_files, missing
from harness.errors import HarnessError

__all__ = ["count", "load", "rows_of"]
Row = dict[str, Any]


def load(source: Source, split: str, row: Callable[..., Any], whole: bool = False) -> list[Row]:
    """The task's rows of a split: official rows, each through `row` (see `harness.benchmark`).

    The local copy is read; what it lacks is fetched into it first where the revision is pinned. Raises
    HarnessError when the data cannot be had, or a row is malformed.
    """
    paths = local_files(source, split) or _obtained(source, split)
    made = [found for found in _task_rows(source, split, paths, row, whole) if found is not None]
    if not made:
        raise HarnessError(f"no row of `{source.benchmark}` is left in split `{split}`", MEND)
    return made


def _obtained(source: Source, split: str) -> list[Path]:
    if (
        source.address and not source.revision
    ):  # it may differ tomorrow, and a stored result would not show it
        raise missing(source, split, "it is not pinned, so a run does not fetch it")
    from harness.data.fetch import fetch

    fetch(source)
    return local_files(source, split)


def count(source: Source, split: str, paths: list[Path], row: Callable[..., Any], whole: bool = False) -> int:
    """How many rows the local files of a split hold, each checked as `load` does: official rows, or what
    the task makes of whole files."""
    return sum(1 for _ in _task_rows(source, split, paths, row, whole))


def _task_rows(
    source: Source, split: str, paths: list[Path], row: Callable[..., Any], whole: bool
) -> Iterator[Row | None]:
    """A task row for each official row, None where it is left out; with `whole`, all that a file gives."""
    check = _Check(source)
    if whole:
        for path in paths:
            made = _called(str(path), lambda path=path: list(row(content_of(path), path)))
            for number, found in enumerate(made, 1):
                yield _row_of(f"{path} task row {number}", check(f"{path} task row {number}", found))
        return
    takes_split = len(inspect.signature(row).parameters) > 1
    for where, found in (pair for path in paths for pair in stream(path)):
        given = (check(where, found), split) if takes_split else (check(where, found),)
        made = _called(where, lambda given=given: row(*given))
        yield None if made is None else _row_of(where, made)


class _Check:
    """Whether official rows have the fields that they must have, and ids of their own."""

    def __init__(self, source: Source) -> None:
        self.fields = source.fields
        self.names = (source.id,) if isinstance(source.id, str) else source.id or ()
        self.seen: dict[str, str] = {}

    def __call__(self, where: str, row: Any) -> Row:
        if not isinstance(row, dict):
            raise HarnessError(f"{where} is {type(row).__name__}, not fields with values", MEND)
        for name in (*self.fields, *self.names):
            if name not in row:
                has = ", ".join(f"`{key}`" for key in row) or "nothing"
                raise HarnessError(f"{where}: field `{name}` is missing; it has {has}", MEND)
            if row[name] is None:
                raise HarnessError(f"{where}: field `{name}` is null", MEND)
        if self.names:
            self._unique(where, json.dumps([row[name] for name in self.names], default=str))
        return row

    def _unique(self, where: str, key: str) -> None:
        if key in self.seen:
            named = ", ".join(f"`{name}`" for name in self.names)
            raise HarnessError(f"{where}: {named} {key[1:-1][:80]} stands already in {self.seen[key]}", MEND)
        self.seen[key] = where


def _row_of(where: str, made: Any) -> Row:
    if not isinstance(made, dict):
        raise HarnessError(
            f"{where}: the task's function returned {type(made).__name__}", "it returns a dict, or None"
        )
    return made


def _called(where: str, call: Callable[[], Any]) -> Any:
    try:
        return call()
    except HarnessError:
        raise
    except KeyError as error:
        raise HarnessError(f"{where}: field `{error.args[0]}` is missing", MEND) from error
    except Exception as error:  # the task's function meets what it was not written for
        raise HarnessError(f"{where}: {type(error).__name__}: {error}", MEND) from error
