"""The command line: verbs only. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness import __version__
from harness.options import Group, options, settings_of, size, split

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Merge language models with many methods, evaluate every merge, write the table.

    `harness compare` with nothing else does all of it on an embedded tiny family, offline, in about a minute.
    """


@main.command()
@options("family", "methods", "tasks", "limit", "results", "allow_nonfinite", "device", "unsandboxed")
@click.option("--plan", "only_plan", is_flag=True, help="Say what it takes, and stop.")
def compare(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    only_plan: bool,
    **engine: Any,
) -> None:
    """Merge with every method, evaluate every merge, print and write the table."""
    from harness import estimate, verbs

    if only_plan:
        sys.exit(estimate.print_plan(family, split(methods), split(tasks), limit, results))
    sys.exit(verbs.compare(family, split(methods), split(tasks), limit, results, engine))


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
@options("family", "tasks", "limit", "results", "unsandboxed")
def evaluate(checkpoint: str, family: str, tasks: str | None, limit: int | None, results: Path) -> None:
    """Evaluate a CHECKPOINT (a folder or hub id) on a family's tasks, decoding as its merges do."""
    from harness import verbs

    sys.exit(verbs.evaluate(checkpoint, family, split(tasks), limit, results))


@main.command(name="list")
@click.argument("kind", required=False, metavar="[methods|tasks|suites|reports|families]")
@options("json")
def list_(kind: str | None, as_json: bool) -> None:
    """What can be used here: built in, in the working folder, and from installed packages."""
    from harness import catalogue

    catalogue.print_list(kind, as_json)


@main.command()
@click.argument("kind", metavar="method|task|suite|family")
@click.argument("name")
@options("json")
def show(kind: str, name: str, as_json: bool) -> None:
    """Everything about one method, task, suite or family."""
    from harness import catalogue

    catalogue.print_one(kind, name, as_json)


@main.command()
@click.option("--family", "-f", metavar="F", help="Ask for what this family needs (default: any family).")
@options("results", "json")
def doctor(family: str | None, results: Path, as_json: bool) -> None:
    """What this machine has, lacks and does not need, with the command that mends it."""
    from harness import doctor as body

    sys.exit(body.doctor(family, results, as_json))


@main.command()
@options("family", "methods", "tasks", "limit", "results", "json")
def plan(
    family: str, methods: str | None, tasks: str | None, limit: int | None, results: Path, as_json: bool
) -> None:
    """What a comparison takes: steps, downloads, disk, memory, hours. Downloads nothing."""
    from harness import estimate

    sys.exit(estimate.print_plan(family, split(methods), split(tasks), limit, results, as_json))


@main.command()
@click.argument("name")
@click.option("--deep", is_flag=True, help="Of a family: measure the lineage of large models too.")
@options("results", "json")
def check(name: str, deep: bool, results: Path, as_json: bool) -> None:
    """Check a family (a NAME or .yaml file) whole, or put a merge method through the contract."""
    from harness import checking, contract

    if checking.is_family(name):
        sys.exit(checking.check_family(name, results, deep, as_json))
    sys.exit(contract.check_file(name))


@main.command()
@options("family", "results", "json")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Another lock file.")
def lock(family: str, results: Path, to: Path | None, as_json: bool) -> None:
    """Pin every model and data set of a family to a revision and a content hash."""
    from harness import lock as body

    sys.exit(body.lock(family, results, to, as_json))


@main.command()
@click.argument("row")
@click.option("--to", required=True, metavar="ORG/NAME", help="The repository on the hub.")
@options("family", "results")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--force", is_flag=True, help="Push what is unfinished or collapsed, or over other weights.")
@click.option("--dry-run", is_flag=True, help="Only say what would be uploaded.")
def push(row: str, to: str, family: str, results: Path, private: bool, force: bool, dry_run: bool) -> None:
    """Upload the merge ROW (a label, or its folder's name in the store) with its card to the hub."""
    from harness import push as body

    sys.exit(body.push(row, to, family, results, private=private, force=force, dry_run=dry_run))


@main.group()
def new() -> None:
    """Begin a file of your own."""


@new.command(name="family")
@click.argument("name")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Default: ./families/NAME.yaml.")
@click.option("--title", default="", help="What the table is called.")
@click.option("--extends", default="", metavar="FAMILY", help="A family whose settings are taken over.")
@click.option("--base", default="", metavar="MODEL", help="A folder or hub id.")
@click.option("--expert", "experts", multiple=True, metavar="ROLE=MODEL", help="Repeatable, in order.")
@click.option("--calibration", multiple=True, metavar="ROLE=DATA", help="A file or hub data set; repeatable.")
@options("tasks")
def new_family(
    name: str,
    to: Path | None,
    title: str,
    extends: str,
    base: str,
    experts: tuple[str, ...],
    calibration: tuple[str, ...],
    tasks: str | None,
) -> None:
    """Write a commented family file; asks for what is lacking when you sit at a terminal."""
    from harness import new_family as body

    roles, data = body.pairs(experts, "--expert"), body.pairs(calibration, "--calibration")
    sys.exit(body.verb(name, to, body.Wanted(title, extends, base, roles, data, split(tasks) or ())))


@main.command()
@options("family", "methods", "tasks", "limit", "results", "json")
def status(
    family: str, methods: str | None, tasks: str | None, limit: int | None, results: Path, as_json: bool
) -> None:
    """Which steps of a comparison are done, failed or still to do."""
    from harness import verbs

    verbs.status(family, split(methods), split(tasks), limit, results, as_json)


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
    from harness import verbs

    verbs.clean(
        family,
        results,
        weights=weights,
        failed=failed,
        rows=split(rows),
        everything=everything,
        dry_run=dry_run,
    )


@main.group()
def data() -> None:
    """The benchmarks' data: fetch a local copy, or see what is there (HARNESS_DATA names the folder)."""


@data.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
def fetch(tasks: tuple[str, ...]) -> None:
    """Fill the local copy of the data of tasks or suites, on a machine with network."""
    from harness import data_verbs

    sys.exit(data_verbs.fetch(tasks))


@data.command(name="check")
@click.argument("tasks", nargs=-1, metavar="[TASK...]")
@options("json")
def check_data(tasks: tuple[str, ...], as_json: bool) -> None:
    """Which data is here: files, row counts, hashes (default: of every task)."""
    from harness import data_verbs

    sys.exit(data_verbs.check(tasks, as_json))


@main.group()
def judge() -> None:
    """Judges: models and rules that grade responses."""


@judge.command(name="check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", metavar="TASK", help="Ask and read as this task's judge is.")
@click.option("--rule", metavar="NAME", help="A rule instead of a model: refusal, refusal-phrases.")
@click.option(
    "--model", metavar="MODEL", help="Another model than the task's: a folder, hub id, or API name."
)
@click.option("--metric", metavar="NAME", help="Which value, where the judge gives several.")
@click.option("--threshold", type=float, help="A value above it is `yes`.")
@options("set", "results", "json")
def check_judge(
    file: Path,
    task: str | None,
    rule: str | None,
    model: str | None,
    metric: str | None,
    threshold: float | None,
    settings: tuple[str, ...],
    results: Path,
    as_json: bool,
) -> None:
    """How far a judge agrees with people: FILE has rows with prompt, response and label."""
    from harness import verbs

    parameters = settings_of(settings)
    sys.exit(verbs.judge_check(file, task, rule, model, parameters, metric, threshold, results, as_json))


if __name__ == "__main__":
    main()
