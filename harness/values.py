"""Values from YAML or the command line: do they fit a parameter's annotation and range, what are they at a
depth."""

from __future__ import annotations

import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from harness.errors import HarnessError


class Range(typing.Protocol):
    """What of a `Param` is read here: inclusive bounds, or None."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class Param:
    """Range and meaning of one parameter. `low` and `high` are inclusive."""

    help: str = ""
    low: float | None = None
    high: float | None = None
    noop: Any = None


def param(
    default: Any, help: str, *, low: float | None = None, high: float | None = None, noop: Any = None
) -> Any:
    """A field of a method: its default, one sentence of help, its inclusive range and its no-op value."""
    spec = {"param": Param(help, low, high, noop)}
    if isinstance(default, (list, dict)):
        return field(default_factory=lambda: type(default)(default), metadata=spec)
    return field(default=default, metadata=spec)


def check_value(what: str, value: Any, hint: Any, spec: Range) -> None:
    """Raise `HarnessError` unless `value` fits the annotation `hint` and the range of `spec`."""
    if not fits(value, hint):
        raise HarnessError(f"{what} is {value!r}", f"expected {_spell(hint)}")
    numbers: Iterable[Any] = value if isinstance(value, (list, tuple)) else [value]
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            continue
        low, high = spec.low, spec.high
        if number != number or (low is not None and number < low) or (high is not None and number > high):
            span = f"{'' if low is None else f'{low:g} <= '}value{'' if high is None else f' <= {high:g}'}"
            raise HarnessError(f"{what} is {number!r}, out of range", span)


def fits(value: Any, hint: Any) -> bool:
    """Whether a value, as YAML or `--set` gives it, is of the annotated type."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return True
    if origin is Literal:
        return value in args
    if origin is list:
        return isinstance(value, (list, tuple)) and bool(value) and all(fits(v, args[0]) for v in value)
    if origin is dict:
        return isinstance(value, Mapping) and all(fits(v, args[1]) for v in value.values())
    if args:  # a union
        return any(fits(value, a) for a in args)
    if hint is type(None) or hint is None:
        return value is None
    if hint is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint)


def _spell(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return "one of " + ", ".join(f"`{a}`" for a in typing.get_args(hint))
    if typing.get_args(hint) and typing.get_origin(hint) not in (list, dict):
        return " or ".join(_spell(a) for a in typing.get_args(hint))
    return {
        float: "a number",
        int: "a whole number",
        bool: "true or false",
        str: "text",
        type(None): "null",
    }.get(hint, str(hint).replace("typing.", ""))


def at_depth(value: Any, layer: int | None, depth: int, module: str) -> Any:
    """See `TensorGroup.at`."""
    if not isinstance(value, (list, tuple)):
        return value
    if layer is None or depth < 2 or len(value) == 1:
        return value[0] if layer is not None or module.startswith("embed") else value[-1]
    place = layer / (depth - 1) * (len(value) - 1)
    low = min(int(place), len(value) - 2)
    return value[low] + (value[low + 1] - value[low]) * (place - low)
