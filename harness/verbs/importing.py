"""`harness import`: a result file of lm-eval as a row of a family's table."""

from __future__ import annotations

from pathlib import Path

import click

from harness import asked
from harness.board.imported import import_results
from harness.verbs.locked import locked_family


def import_file(file: Path, family: str, results: Path, label: str | None) -> int:
    """Take the file in; the exit code."""
    loaded, store = locked_family(family, results)
    tasks = [task.name for task in asked.tasks(loaded, None)]
    store.prepare()
    name = import_results(file, store, tasks, label)
    click.echo(f"imported as row `{name}` (‡); `harness report --family {family}` shows it")
    return 0
