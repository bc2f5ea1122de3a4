"""The command line: verbs only. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness import __version__, beside, published, studied
from harness.libraries import leave
from harness.options import Group, options, settings_of, size, split

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Merge language models with many methods, evaluate every merge, write the table.

    `harness compare` with nothing else does all of it on an embedded tiny family, offline, in about a minute.
    """


@main.command()
@options("family", "methods", "tasks", "limit", "results", "engine", "keep_weights", "allow_nonfinite",
         "device", "unsandboxed", "executor", "address", "seeds", "with_paper", "allow_mixed",
         "baseline")  # fmt: skip
@click.option("--plan", "only_plan", is_flag=True, help="Say what it takes, and stop.")
@studied.equal_budget
def compare(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    engine: str,
    keep_weights: str,
    only_plan: bool,
    executor: str,
    address: str | None,
    seeds: int | None,
    **merging: Any,
) -> None:
    """Merge with every method, evaluate every merge, print and write the table."""
    from harness import verbs
    from harness.verbs import estimate

    wanted, weights = (family, split(methods), split(tasks), limit, results), {"keep_weights": keep_weights}
    place = {"executor": executor, "address": address}
    board = {name: merging.pop(name) for name in ("with_paper", "allow_mixed", "baseline")}
    tuning = {name: merging.pop(name) for name in studied.TUNING}
    tunes = studied.tunes(
        tuning, {"--executor": executor != "local", "--seeds": seeds, "--plan": only_plan}, board
    )
    if only_plan:
        sys.exit(estimate.print_plan(*wanted, engine=engine, **weights))
    if tunes:
        sys.exit(studied.tuned(*wanted, tuning, engine=engine, **weights, **merging))
    sys.exit(verbs.compare(*wanted, merging, engine=engine, seeds=seeds, board=board, **weights, **place))


@main.command()
@click.argument("method")
@options("family", "set", "results", "allow_nonfinite", "device")
@click.option(
    "--to", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The new checkpoint's folder."
)
@click.option(
    "--shard-size",
    default="5GB",
    show_default=True,
    metavar="SIZE",
    help="Most bytes of one file: 500MB, 2GiB.",
)
def merge(
    method: str,
    family: str,
    settings: tuple[str, ...],
    results: Path,
    to: Path,
    shard_size: str,
    **engine: Any,
) -> None:
    """Merge a family's models with one METHOD into a checkpoint folder."""
    from harness import verbs

    engine["shard_bytes"] = size(shard_size)
    sys.exit(verbs.merge(method, family, settings_of(settings), results, to, engine))


@main.command(name="eval")
@click.argument("checkpoint")
@options("family", "tasks", "limit", "results", "engine", "unsandboxed")
def evaluate(
    checkpoint: str, family: str, tasks: str | None, limit: int | None, results: Path, engine: str
) -> None:
    """Evaluate a CHECKPOINT (a folder or hub id) on a family's tasks, decoding as its merges do."""
    from harness import verbs

    sys.exit(verbs.evaluate(checkpoint, family, split(tasks), limit, results, engine))


@main.command(name="list")
@click.argument("kind", required=False, metavar="[methods|tasks|suites|reports|families|studies]")
@options("json")
def list_(kind: str | None, as_json: bool) -> None:
    """What can be used here: built in, in the working folder, and from installed packages."""
    from harness.verbs import catalogue

    catalogue.print_list(kind, as_json)


@main.command()
@click.argument("kind", metavar="method|task|suite|family|study")
@click.argument("name")
@options("json")
def show(kind: str, name: str, as_json: bool) -> None:
    """Everything about one method, task, suite, family or study."""
    from harness.verbs import catalogue

    catalogue.print_one(kind, name, as_json)


@main.command()
@options("family", "methods", "tasks", "limit", "results", "engine", "json")
def status(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    engine: str,
    as_json: bool,
) -> None:
    """Which steps of a comparison are done, failed or still to do."""
    from harness.verbs import stored

    stored.status(family, split(methods), split(tasks), limit, results, as_json, engine)


@main.command()
@options("family", "results")
@click.option(
    "--weights", is_flag=True, help="Delete merged weights; results stay, weights are rebuilt on demand."
)
@click.option("--failed", is_flag=True, help="Delete steps that failed or were left unfinished.")
@click.option("--rows", metavar="A,B", help="Delete these merge rows with their evaluations.")
@click.option("--all", "everything", is_flag=True, help="Delete everything stored for the family.")
@click.option("--dry-run", is_flag=True, help="Only say what would be deleted.")
def clean(
    family: str, results: Path, weights: bool, failed: bool, rows: str | None, everything: bool, dry_run: bool
) -> None:
    """Delete stored results that are no longer wanted."""
    from harness.verbs import stored

    stored.clean(
        family,
        results,
        weights=weights,
        failed=failed,
        rows=split(rows),
        everything=everything,
        dry_run=dry_run,
    )


for command in (published.report, published.leaderboard, published.explain, published.export,
                published.import_, beside.doctor, beside.plan, beside.check, beside.lock, beside.push,
                beside.new, beside.data, beside.judge, studied.analyse, studied.sweep,
                studied.study):  # fmt: skip
    main.add_command(command)


def run() -> None:
    """`harness`, as a process."""
    try:
        main()
    except SystemExit as end:
        leave(end.code)


if __name__ == "__main__":
    run()
