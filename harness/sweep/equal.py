"""Who is tuned with an equal budget, over which settings. Light."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import yamlfile
from harness.errors import HarnessError, nearest
from harness.family import Family, Row
from harness.sweep import grid
from harness.sweep.contest import Contender

SPACES = Path(__file__).with_name("spaces.yaml")


def spaces(family: Family) -> dict[str, dict[str, grid.Axis]]:
    """method -> parameter -> axis: the family's `tune:`, and of other methods what is built in."""
    built_in, _ = yamlfile.read(SPACES)
    return {name: _axes(name, space) for name, space in {**built_in, **family.tune}.items()}


def _axes(method: str, space: Mapping[str, Any]) -> dict[str, grid.Axis]:
    found: dict[str, grid.Axis] = {}
    for key, axis in space.items():
        if isinstance(axis, list):
            if not axis:
                raise HarnessError(f"`tune:` gives `{method}` no values of `{key}`", grid.SPELLINGS)
            found[key] = axis
        else:
            found |= grid.axes([f"{key}={axis}"])
    return found


def contenders(family: Family, rows: Sequence[Row]) -> tuple[list[Contender], list[Row]]:
    """Those that are tuned, and the rows that keep their settings for want of a space.

    Rows of one method that differ only in what is searched are one contender, called as the first of them;
    what its rows set besides is part of it. Raises HarnessError for a space that does not fit its method, and
    where nobody is tuned."""
    known = spaces(family)
    for name in family.tune:
        if all(name != row.method for row in family.rows()) and all(name != row.method for row in rows):
            raise HarnessError(
                f"`tune:` names `{name}`, which is no row's method",
                nearest(name, {row.method for row in rows}),
            )
    found: dict[str, Contender] = {}
    kept: list[Row] = []
    for row in rows:
        axes = known.get(row.method)
        if not axes:
            kept.append(row)
            continue
        fixed = {key: value for key, value in row.settings.items() if key not in axes}
        grid.check(row.method, axes, fixed)
        same = json.dumps([row.method, fixed], sort_keys=True, default=str)
        found.setdefault(same, Contender(row.label, row.method, fixed, axes))
    if not found:
        raise HarnessError(
            "none of these methods has settings to search",
            "add `tune: {METHOD: {PARAMETER: 0.1:2}}` to the family",
        )
    return list(found.values()), kept
