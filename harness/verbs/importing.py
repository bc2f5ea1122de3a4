"""`harness import`: a result file of lm-eval as a row of a family's table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from harness import asked, registry
from harness.board import read_board
from harness.board.imported import import_results
from harness.family import Family
from harness.method import displayed
from harness.store import Store
from harness.verbs.locked import locked_family


def import_file(
    file: Path, family: str, results: Path, label: str | None, tasks: Sequence[str] | None = None
) -> int:
    """Take the file in and tell what of it; the exit code."""
    loaded, store = locked_family(family, results)
    taken = import_results(file, store, asked.tasks(loaded, tasks), label, _labels(loaded, store))
    columns = ", ".join(f"{heading.task} ({heading.metric})" for heading in taken.columns)
    click.echo(f"imported as row `{taken.label}` (‡): {columns}")
    if taken.replaced:
        click.echo(f"it replaces the row that was imported from {taken.replaced}")
    without = dict.fromkeys(h.task for h in taken.columns if h.task not in taken.sampled)
    if without:
        click.echo(
            f"without samples (`lm_eval --log_samples` writes them), so not tested: {', '.join(without)}"
        )
    if taken.left_out:
        click.echo(f"left out, as no column of the table: {', '.join(taken.left_out)}")
    more = f" --tasks {','.join(tasks)}" if tasks else ""
    click.echo(f"`harness report --family {family}{more}`, with the comparison's other options, shows it")
    return 0


def _labels(family: Family, store: Store) -> set[str]:
    """What other rows are called: those of the family, and of its last report."""
    labels = {"base", *map(family.label, family.roles), *family.roles, *family.checkpoints}
    for row in family.rows():
        labels |= {row.label, displayed(row.label, registry.method(row.method))}
    try:
        board = read_board(store.report / "board.json")
    except (OSError, ValueError, TypeError, KeyError, AttributeError):  # none yet, or none of this version
        return labels
    return labels | {row.label for row in board.rows if not row.imported}
