"""The commands for papers: sweeps over settings, and what lies behind gradients, masks and task vectors."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness.errors import HarnessError
from harness.options import Command, Group, options, settings_of, split

keep_weights = click.option(
    "--keep-weights", type=click.Choice(["all", "none"]), default="none", show_default=True,
    help="Of the merges. none: they lie in memory, and are gone when they are evaluated.",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("method")
@options("family", "set", "tasks", "limit", "results", "device", "engine")
@keep_weights
@click.option(
    "--grid", "grids", multiple=True, metavar="KEY=VALUES",
    help="Values of a parameter: A,B,C or FROM:TO:STEP or log:FROM:TO:COUNT; repeatable.",
)  # fmt: skip
@click.option(
    "--search", "kind", default="grid", show_default=True, metavar="grid|random|tpe|halving",
    help="Every point, or as many as --budget says. A search also takes spans: FROM:TO, log:FROM:TO.",
)  # fmt: skip
@click.option("--budget", type=int, metavar="N", help="Trials of a search.")
@click.option(
    "--objective", metavar="TASK/METRIC", help="What is maximised (default: the mean of all shares)."
)
@click.option(
    "--tune-on", type=click.Choice(["validation", "test"]), default="validation", show_default=True,
    help="Which split settings are compared on.",
)  # fmt: skip
@click.option("--allow-test", is_flag=True, help="Let --tune-on test be; said under the table.")
@click.option("--seed", default=0, show_default=True, help="Of the search.")
def sweep(
    method: str,
    family: str,
    settings: tuple[str, ...],
    tasks: str | None,
    limit: int | None,
    results: Path,
    grids: tuple[str, ...],
    kind: str,
    budget: int | None,
    objective: str | None,
    tune_on: str,
    allow_test: bool,
    seed: int,
    **options: Any,
) -> None:
    """Merge and evaluate many settings of one METHOD, in shared passes; the best is written down."""
    from harness.verbs import sweep as body

    not_on_test(tune_on, allow_test)
    code = body.sweep(
        method, family, grids, settings_of(settings), results, kind=kind, budget=budget, tune_on=tune_on,
        wanted=objective, tasks=split(tasks), limit=limit, seed=seed, **options,
    )  # fmt: skip
    sys.exit(code)


def equal_budget(command: Any) -> Any:
    """The options of `compare` that tune every method alike."""
    for option in (
        click.option("--allow-test", is_flag=True, help="Let --tune-on test be; said under the table."),
        click.option(
            "--tune-on", type=click.Choice(["validation", "test"]),
            help="Which split --equal-budget compares settings on (default: validation).",
        ),
        click.option("--objective", metavar="TASK/METRIC", help="What --equal-budget maximises."),
        click.option(
            "--search", type=click.Choice(["random", "tpe"]), help="Of --equal-budget (default: random)."
        ),
        click.option(
            "--equal-budget", type=click.IntRange(min=1), metavar="N",
            help="First tune every method with N trials on the validation split.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


TUNING = ("equal_budget", "search", "objective", "tune_on", "allow_test")


def tunes(tuning: dict[str, Any], others: dict[str, Any], board: dict[str, Any]) -> bool:
    """Whether `compare` tunes first. HarnessError for options that go with that only, or not with it."""
    if tuning["equal_budget"] is None:
        for name in (name for name in TUNING if tuning[name]):
            raise HarnessError(f"{_flag(name)} without a budget", "add --equal-budget N")
        return False
    refused = [flag for flag, given in others.items() if given]
    refused += [_flag(name) for name, given in board.items() if given]
    if refused:
        raise HarnessError(
            f"--equal-budget does not go with {', '.join(refused)}",
            "it runs here, once, and is tested against the base; its best.yaml holds rows for a family",
        )
    not_on_test(tuning["tune_on"], tuning["allow_test"])
    return True


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def tuned(*wanted: Any, **how: Any) -> int:
    """Tune and compare; the exit code."""
    from harness.verbs import tuned as body

    *wanted, tuning = wanted
    return body.compare(
        *wanted, budget=tuning["equal_budget"], kind=tuning["search"] or "random",
        tune_on=tuning["tune_on"] or "validation", wanted=tuning["objective"], **how,
    )  # fmt: skip


def not_on_test(tune_on: str | None, allowed: bool) -> None:
    """Raise HarnessError for tuning on the test split that is not allowed."""
    if tune_on == "test" and not allowed:
        raise HarnessError(
            "--tune-on test would choose settings by the numbers that are reported",
            "tune on the validation split; or add --allow-test, which is said under the table",
        )


@click.command(cls=Command)
@click.argument("name")
@options("family", "tasks", "limit", "results", "device", "engine", "unsandboxed")
@click.option("--families", metavar="A,B", help="Several families instead; one table of all of them, too.")
@click.option(
    "--split", type=click.Choice(["validation", "test"]), default="test", show_default=True,
    help="Of the tasks. A study reports and chooses nothing, so it is the test split.",
)  # fmt: skip
@keep_weights
def study(
    name: str,
    family: str,
    families: str | None,
    tasks: str | None,
    results: Path,
    **how: Any,
) -> None:
    """Carry out the study NAME (`harness list studies`; or a file): an experiment of the paper, anywhere."""
    from harness.verbs import study as body

    sys.exit(body.study(name, split(families) or [family], results, tasks=split(tasks), **how))


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
