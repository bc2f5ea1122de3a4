"""The commands for what comes out of a comparison: its reports, where numbers come from, what is sent on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness.options import Command, options, split


@click.command(cls=Command)
@options("family", "methods", "tasks", "limit", "results", "engine", "seeds", "with_paper",
         "allow_mixed", "baseline")  # fmt: skip
@click.option(
    "--only", metavar="A,B", help="Only these reports (default: every one; `harness list reports`)."
)
@click.option("--again", is_flag=True, help="Render anew what has not changed, too.")
@click.option("--watch", is_flag=True, help="Look again and again while a run goes on, until it is done.")
@click.option(
    "--every", type=click.FloatRange(min=0.5), default=10, show_default=True, help="Seconds between looks."
)
def report(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    engine: str,
    seeds: int | None,
    only: str | None,
    again: bool,
    watch: bool,
    every: float,
    **board: Any,
) -> None:
    """Write the reports of what is stored, without running anything."""
    from harness.verbs import reporting

    sys.exit(
        reporting.report(
            family,
            split(methods),
            split(tasks),
            limit,
            results,
            engine=engine,
            seeds=seeds,
            names=split(only),
            watch=every if watch else None,
            again=again,
            **board,
        )
    )


@click.command(cls=Command)
@options("results", "json")
@click.option("--families", metavar="A,B", help="Only these families (default: every one with a report).")
@click.option("--methods", "-m", metavar="A,B", help="Only rows of these methods, or with these labels.")
def leaderboard(results: Path, families: str | None, methods: str | None, as_json: bool) -> None:
    """Ranks, with their uncertainty, of all rows of all families in a results folder."""
    from harness.verbs import leaderboard as body

    sys.exit(body.leaderboard(results, split(methods), split(families), as_json))


@click.command(cls=Command)
@click.argument("cell", required=False, metavar="[ROW/TASK[/METRIC]]")
@options("family", "results", "json")
@click.option("--item", type=int, metavar="N", help="Show what was asked and answered in this item (doc_id).")
@click.option("--all", "everything", is_flag=True, help="Recompute every cell and compare with the table.")
@click.option(
    "--board", type=click.Path(path_type=Path), metavar="FILE", help="A board.json, for example of an export."
)
def explain(
    cell: str | None,
    family: str,
    results: Path,
    item: int | None,
    everything: bool,
    board: Path | None,
    as_json: bool,
) -> None:
    """Where a number of the table comes from, down to the sample; recomputed from what was answered."""
    from harness.verbs import explain as body

    sys.exit(body.explain(cell, family, results, board, item=item, everything=everything, as_json=as_json))


@click.command(cls=Command)
@options("family", "results")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Default: ./FAMILY.zip.")
def export(family: str, results: Path, to: Path | None) -> None:
    """Pack reports, recipes, locks, samples and commands: what a reviewer needs to check every number."""
    from harness.verbs import export as body

    sys.exit(body.export(family, results, to))


@click.command(name="import", cls=Command)
@click.argument("file", type=click.Path(path_type=Path))
@options("family", "tasks", "results")
@click.option("--as", "label", metavar="LABEL", help="What the row is called (default: the model's name).")
def import_(file: Path, family: str, tasks: str | None, results: Path, label: str | None) -> None:
    """Take an lm-eval result FILE as a row of a family's table, marked as imported."""
    from harness.verbs import importing

    sys.exit(importing.import_file(file, family, results, label, split(tasks)))
