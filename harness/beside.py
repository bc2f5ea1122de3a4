"""The commands around a comparison: before it, after it, and for what it needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from harness.options import Command, Group, options, settings_of, split


@click.command(cls=Command)
@click.option("--family", "-f", metavar="F", help="Ask for what this family needs (default: any family).")
@options("results", "json")
def doctor(family: str | None, results: Path, as_json: bool) -> None:
    """What this machine has, lacks and does not need, with the command that mends it."""
    from harness.verbs import doctor as body

    sys.exit(body.doctor(family, results, as_json))


@click.command(cls=Command)
@options("family", "methods", "tasks", "limit", "results", "engine", "keep_weights", "json")
def plan(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    as_json: bool,
    **run: Any,
) -> None:
    """What a comparison takes: steps, downloads, disk, memory, hours. Downloads nothing."""
    from harness.verbs import estimate

    sys.exit(estimate.print_plan(family, split(methods), split(tasks), limit, results, as_json, **run))


@click.command(cls=Command)
@click.argument("name")
@click.option("--deep", is_flag=True, help="Of a family: measure the lineage of large models too.")
@options("results", "json")
def check(name: str, deep: bool, results: Path, as_json: bool) -> None:
    """Check a family (a NAME or .yaml file) whole, or put a merge method through the contract."""
    from harness import contract
    from harness.verbs import checking

    if checking.is_family(name):
        sys.exit(checking.check_family(name, results, deep, as_json))
    sys.exit(contract.check_file(name))


@click.command(cls=Command)
@options("family", "results", "json")
@click.option("--to", type=click.Path(path_type=Path), metavar="FILE", help="Another lock file.")
def lock(family: str, results: Path, to: Path | None, as_json: bool) -> None:
    """Pin every model and data set of a family to a revision and a content hash."""
    from harness import lock as body

    sys.exit(body.lock(family, results, to, as_json))


@click.command(cls=Command)
@click.argument("row")
@click.option("--to", required=True, metavar="ORG/NAME", help="The repository on the hub.")
@options("family", "results")
@click.option("--private", is_flag=True, help="Make the repository private.")
@click.option("--force", is_flag=True, help="Push what is unfinished or collapsed, or over other weights.")
@click.option("--dry-run", is_flag=True, help="Only say what would be uploaded.")
def push(row: str, to: str, family: str, results: Path, private: bool, force: bool, dry_run: bool) -> None:
    """Upload the merge ROW (a label, or its folder's name in the store) with its card to the hub."""
    from harness.verbs import push as body

    sys.exit(body.push(row, to, family, results, private=private, force=force, dry_run=dry_run))


@click.group(cls=Group)
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
    from harness.verbs import new_family as body

    roles, data = body.pairs(experts, "--expert"), body.pairs(calibration, "--calibration")
    sys.exit(body.verb(name, to, body.Wanted(title, extends, base, roles, data, split(tasks) or ())))


@click.group(cls=Group)
def data() -> None:
    """The benchmarks' data: fetch a local copy, or see what is there (HARNESS_DATA names the folder)."""


@data.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
def fetch(tasks: tuple[str, ...]) -> None:
    """Fill the local copy of the data of tasks or suites, on a machine with network."""
    from harness.verbs import data as body

    sys.exit(body.fetch(tasks))


@data.command(name="check")
@click.argument("tasks", nargs=-1, metavar="[TASK...]")
@options("json")
def check_data(tasks: tuple[str, ...], as_json: bool) -> None:
    """Which data is here: files, row counts, hashes (default: of every task)."""
    from harness.verbs import data as body

    sys.exit(body.check(tasks, as_json))


@click.group(cls=Group)
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
