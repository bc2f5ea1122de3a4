"""`harness analyse`: the commands that look into masks, gradients and task vectors."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from harness.options import Group, options, split


@click.group(cls=Group)
def analyse() -> None:
    """Look into a family's gradients, masks and task vectors."""


@analyse.command()
@options("family", "results", "device", "json")
@click.option("--sets", metavar="ROLE=SET,…", help="Also these `calibration_sets` of the family.")
@click.option("--samples", type=click.IntRange(min=1), metavar="N", help="Rows (default: calibration's `n`).")
@click.option(
    "--loss-on", type=click.Choice(["all", "completion"]), default="all", show_default=True,
    help="Tokens that carry the loss.",
)  # fmt: skip
def gradients(
    family: str,
    results: Path,
    device: str,
    as_json: bool,
    sets: str | None,
    samples: int | None,
    loss_on: str,
) -> None:
    """Nuclear and Frobenius norms of the gradients of q, k, v, o by layer (the paper's Figures 2 and 5)."""
    from harness.verbs import analyse as body

    sys.exit(body.gradients(family, results, split(sets), samples, loss_on, device, as_json))


@analyse.command()
@options("family", "methods", "results", "json")
def masks(family: str, methods: str | None, results: Path, as_json: bool) -> None:
    """Where stored merges select: modules, layers, overlap, energy, what was lost."""
    from harness.verbs import analyse as body

    sys.exit(body.masks(family, results, split(methods), as_json))


@analyse.command()
@options("family", "results", "json")
def vectors(family: str, results: Path, as_json: bool) -> None:
    """Norms, cosines and sign conflicts of the task vectors, by module and layer."""
    from harness.verbs import analyse as body

    sys.exit(body.vectors(family, results, as_json))
