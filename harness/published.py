"""The commands for what comes out of a comparison: its reports, where numbers come from, what is sent on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness.options import Command, options, split


@click.command(cls=Command)
@options("family", "methods", "tasks", "limit", "results")
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
            names=split(only),
            watch=every if watch else None,
            again=again,
            **board,
        )
    )
