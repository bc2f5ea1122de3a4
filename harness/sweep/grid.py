"""Grids of settings: how they are written, checked, and made rows of a family. Light."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from harness import registry, yamlfile
from harness.errors import HarnessError, nearest
from harness.family import Family
from harness.method import configure, parameters

MOST = 1000  # points without a budget
DIGITS = 12  # of a range's values: 0.1 + 0.2 is written 0.3
SPELLINGS = (
    "KEY=A,B,C, KEY=FROM:TO:STEP or KEY=log:FROM:TO:COUNT; for a search also KEY=FROM:TO, KEY=log:FROM:TO"
)

Point = dict[str, Any]


@dataclass(frozen=True)
class Span:
    """All numbers from `low` to `high`: an axis of a search, no values of a grid."""

    low: float
    high: float
    log: bool = False


Axis = "list[Any] | Span"


def axes(texts: Sequence[str]) -> dict[str, Axis]:
    """`--grid` options as parameter -> values or span, in order. Raises HarnessError for what is neither."""
    found: dict[str, Axis] = {}
    for text in texts:
        key, equals, values = text.partition("=")
        if not equals or not key.strip():
            raise HarnessError(f"--grid {text!r} names no values", SPELLINGS)
        if key.strip() in found:
            raise HarnessError(f"--grid names `{key.strip()}` twice", "give all its values in one --grid")
        found[key.strip()] = _values(text, values.strip())
    return found


def _values(text: str, written: str) -> Axis:
    parts = written.split(":")
    if "[" not in written and len(parts) > 1:
        log = parts[0] == "log"
        ends = parts[1:] if log else parts
        if len(ends) == 2:
            return _span(text, *ends, log)
        if len(ends) == 3:
            return _log(text, *ends) if log else _range(text, *ends)
    try:
        values = yaml.load(f"[{written}]", yamlfile.Loader)
    except yaml.YAMLError as error:
        raise HarnessError(f"--grid {text!r} cannot be read", SPELLINGS) from error
    if not values or any(value is None or isinstance(value, dict) for value in values):
        raise HarnessError(f"--grid {text!r} has no values, or an empty one", SPELLINGS)
    kept = list({repr(value): value for value in values}.values())
    if len(kept) < len(values):
        raise HarnessError(f"--grid {text!r} names a value twice", "name each value once")
    return values


def _span(text: str, first: str, last: str, log: bool) -> Span:
    low, high = _number(text, first), _number(text, last)
    if low >= high or (log and low <= 0):
        raise HarnessError(f"--grid {text!r} is an empty range", "FROM:TO with FROM < TO; above 0 under log")
    return Span(low, high, log)


def _number(text: str, part: str) -> float:
    try:
        value = float(part)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise HarnessError(f"--grid {text!r}: {part!r} is no number", SPELLINGS)
    return value


def _range(text: str, *parts: str) -> list[float]:
    low, high, step = (_number(text, part) for part in parts)
    if step <= 0 or high < low:
        raise HarnessError(f"--grid {text!r} is an empty range", "FROM:TO:STEP with FROM <= TO and STEP > 0")
    count = int((high - low) / step + 1e-9) + 1
    if count == 1 and low < high:
        raise HarnessError(
            f"--grid {text!r} is one value: its step is larger than its range",
            "FROM:TO:STEP, or log:FROM:TO:COUNT for so many values",
        )
    _refuse_many(text, count)
    return [round(low + i * step, DIGITS) for i in range(count)]


def _log(text: str, first: str, last: str, count: str) -> list[float]:
    low, high = _number(text, first), _number(text, last)
    if not (0 < low < high) or not count.isdigit() or int(count) < 2:
        raise HarnessError(
            f"--grid {text!r} is no logarithmic range", "log:FROM:TO:COUNT with 0 < FROM < TO and COUNT >= 2"
        )
    _refuse_many(text, int(count))
    ratio = math.log(high / low) / (int(count) - 1)
    return [float(f"{low * math.exp(i * ratio):.6g}") for i in range(int(count))]


def _refuse_many(text: str, count: int) -> None:
    if count > MOST:
        raise HarnessError(f"--grid {text!r} has {count} values", f"at most {MOST}; take larger steps")


def points(grid: Mapping[str, Axis]) -> list[Point]:
    """Every combination, the last axis fastest. Raises HarnessError for none, for a span, and for more than
    `MOST`."""
    if not grid:
        raise HarnessError("there is nothing to sweep over", f"--grid {SPELLINGS}")
    for key, axis in grid.items():
        if isinstance(axis, Span):
            raise HarnessError(
                f"--grid {key}={axis.low:g}:{axis.high:g} is a span, and a grid needs values",
                f"add a step, {key}={axis.low:g}:{axis.high:g}:STEP; or --search random --budget N",
            )
    count = math.prod(len(values) for values in grid.values())
    if count > MOST:
        raise HarnessError(
            f"the grid has {count} points", f"at most {MOST}; or --search random --budget N takes N of them"
        )
    return [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]


def check(method: str, grid: Mapping[str, Axis], fixed: Mapping[str, Any]) -> None:
    """Raise HarnessError for a parameter that the method lacks and a value that does not fit, before any
    work: each value is tried with the `fixed` settings."""
    cls = registry.method(method)
    known = parameters(cls)
    for key, values in grid.items():
        if key not in known:
            raise HarnessError(f"method `{cls.method_name}` has no parameter `{key}`", nearest(key, known))
        if key in fixed:
            raise HarnessError(f"`{key}` is swept and set at once", "leave it out of --set, or of --grid")
        for value in (values.low, values.high) if isinstance(values, Span) else values:
            configure(cls, {**fixed, key: value})


def label(method: str, point: Mapping[str, Any]) -> str:
    """What a point's row is called: `reasonany scale=0.5, p=0.05`."""
    shown = ", ".join(f"{key}={_shown(value)}" for key, value in point.items())
    return f"{method} {shown}".strip()


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.{DIGITS}g}" if isinstance(value, float) else str(value).replace(" ", "")


def family_of(family: Family, rows: Mapping[str, Mapping[str, Any]], split: str) -> Family:
    """The family with these rows (label -> `method` and settings) and no checkpoints, measured on `split`."""
    rows = {name: dict(row) for name, row in rows.items()}
    return family.model_copy(update={"methods": rows, "split": split, "checkpoints": {}})
