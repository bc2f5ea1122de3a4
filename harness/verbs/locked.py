"""The family that a verb names, at the revisions of its lock."""

from __future__ import annotations

from pathlib import Path

from harness import lock
from harness.family import Family, load_family
from harness.store import Store


def locked_family(name: str, results: Path) -> tuple[Family, Store]:
    """The family called `name` (or in that file), and its store in `results`. HarnessError for a family
    or a lock that cannot be read."""
    family = load_family(name)
    store = Store(results, family.name)
    return lock.pinned(family, store), store
