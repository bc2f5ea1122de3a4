"""Which revision each model and data set of a family is pinned to. What is not pinned is said to be so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from harness import hub
from harness.family import Family
from harness.family.files import is_hub_id
from harness.train.rows import GITHUB

UNPINNED = "not pinned"


def references(family: Family) -> Iterator[tuple[str, str]]:
    """(what it is for, the reference) of every model and data set that the family itself names."""
    yield "base", family.base
    for role, expert in family.experts.items():
        given = {role: expert.model, f"{role}, adapter's model": expert.on}
        if expert.train is not None:
            given |= {
                f"{role}, trained model": expert.train.base,
                f"{role}, training data": expert.train.data,
            }
        yield from ((use, ref) for use, ref in given.items() if ref is not None)
    yield from ((f"row {label}", ref) for label, ref in family.checkpoints.items())
    for role, rows in family.calibration.items():
        yield f"calibration of {role}", rows.data
        if rows.official is not None and rows.official.data is not None:
            yield f"calibration of {role}, official", rows.official.data


def pins(family: Family) -> dict[str, str]:
    """What it is for -> `org/name @ revision`, `org/name, not pinned`, or the path."""
    return {use: _pin(ref, family.folder) for use, ref in references(family)}


def _pin(ref: str, folder: Path) -> str:
    if found := GITHUB.match(ref):
        owner, repository, path, commit = found.groups()
        return f"github.com/{owner}/{repository}/{path} @ {commit[:12]}"
    if not is_hub_id(ref, folder):
        return ref
    name, revision = hub.split(ref)
    return f"{name} @ {revision}" if revision else f"{name}, {UNPINNED}"
