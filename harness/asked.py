"""What was asked for on the command line: rows with their methods, and tasks; and whether it can be had."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from harness import lacking, registry
from harness import tasks as tasks_of
from harness.errors import HarnessError, nearest
from harness.evaluate.task_file import TaskFile
from harness.family import Family, Row
from harness.method import configure

Everything = tuple[list[tuple[Row, Any]], tuple[TaskFile, ...]]


def everything(
    family: Family,
    methods: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    existing: bool = True,
) -> Everything:
    """The rows with their configured methods, and the tasks, that were asked for.

    Raises HarnessError for what is not known, and one that lists all models and data that cannot be had
    (those of the family's `rows:` only where `existing`). Downloads nothing."""
    chosen = [(row, configure(registry.method(row.method), row.settings)) for row in rows(family, methods)]
    for _, method in chosen:  # before the inputs are read: whatever does not suit the family's roles
        if hasattr(method, "needs"):
            method.needs(family.roles)
    files = tasks(family, names)
    lacking.check(family, files, [method for _, method in chosen], existing)
    return chosen, files


def tasks(family: Family, names: Sequence[str] | None) -> tuple[TaskFile, ...]:
    """The tasks called `names`, or the family's, in its profile."""
    wanted = family.tasks if names is None else names
    if names is None and not wanted:
        raise HarnessError(
            f"family `{family.name}` names no tasks", "add `tasks: [...]` to it, or give --tasks"
        )
    files = tasks_of.named(wanted, family.profile)
    for key_, given in (("repeats", family.repeats), ("judges", family.judges)):
        for name in given:
            if name not in {file.name.removesuffix("_paper") for file in tasks_of.named([name])}:
                raise HarnessError(f"`{key_}` names `{name}`, which is many tasks", "name one task")
    return files


def rows(family: Family, methods: Sequence[str] | None) -> list[Row]:
    """The family's rows, or those that `methods` selects by label or method, or adds."""
    known_rows = family.rows()
    if methods is None:
        return known_rows
    chosen: list[Row] = []
    for name in methods:
        found = [r for r in known_rows if name in (r.label, r.method)]
        if not found:
            known = registry.find("methods")
            stem = name.partition(":")[0]
            if stem not in known and not stem.endswith(".py") and "/" not in name:
                raise HarnessError(
                    f"no method or row is called `{name}`",
                    nearest(name, {*known, *(r.label for r in known_rows)}),
                )
            found = [Row(label=registry.get("methods", name).name, method=name)]
        chosen += [r for r in found if r not in chosen]
    return chosen
