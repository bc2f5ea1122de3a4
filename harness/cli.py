"""The command line: verbs only. Heavy imports wait until a verb needs them."""

from __future__ import annotations

import functools
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness import __version__
from harness.errors import HarnessError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


class Command(click.Command):
    """A verb whose wrong input prints two lines and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("stopped; the same command goes on from here", err=True)
            ctx.exit(130)


class Group(click.Group):
    """The verbs; wrong usage is told in two lines as well."""

    command_class = Command

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except click.UsageError as error:
            verb = error.ctx.command_path if error.ctx else "harness"
            click.echo(
                f"error: {error.format_message()}\nhint: `{verb} --help` lists what it takes", err=True
            )
            code = 2
        except click.Abort:
            code = 130
        sys.exit(code if isinstance(code, int) else 0)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        if args and not args[0].startswith("-") and self.get_command(ctx, args[0]) is None:
            from harness.errors import nearest

            click.echo(
                f"error: no command is called `{args[0]}`\nhint: {nearest(args[0], self.commands)}", err=True
            )
            ctx.exit(2)
        return super().resolve_command(ctx, args)


@click.group(cls=Group, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="harness")
def main() -> None:
    """Merge language models with many methods, evaluate every merge, write the table.

    `harness compare` with nothing else does all of it on an embedded tiny family, offline, in about a minute.
    """


def options(*names: str) -> Callable[[Callable], Callable]:
    """Options that several verbs share."""
    known = {
        "family": click.option(
            "--family",
            "-f",
            default="tiny-safety",
            show_default=True,
            help="A family's name, or the path of its YAML file.",
        ),
        "results": click.option(
            "--results",
            type=click.Path(path_type=Path),
            default=Path("results"),
            show_default=True,
            metavar="DIR",
            help="Where results are stored.",
        ),
        "methods": click.option(
            "--methods",
            "-m",
            metavar="A,B,./C.py",
            help="Only these rows: labels or methods of the family, any other method, or files.",
        ),
        "tasks": click.option(
            "--tasks", "-t", metavar="A,B", help="Only these tasks (default: the family's)."
        ),
        "limit": click.option(
            "--limit",
            type=click.IntRange(min=1),
            metavar="N",
            help="Only the first N items of each task; marked in the table.",
        ),
        "json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        "set": click.option(
            "--set",
            "settings",
            multiple=True,
            metavar="KEY=VALUE",
            help="A parameter of the method; repeatable.",
        ),
        "allow_nonfinite": click.option(
            "--allow-nonfinite", is_flag=True, help="Merge models that hold NaN or infinity."
        ),
        "device": click.option(
            "--device",
            default="auto",
            metavar="cpu|cuda|auto",
            help="Of gradients and merges. auto: gradients on CUDA if it is here, merges on the CPU.",
        ),
    }
    return lambda function: functools.reduce(lambda f, name: known[name](f), reversed(names), function)


@main.command()
@options("family", "methods", "tasks", "limit", "results", "allow_nonfinite", "device")
def compare(
    family: str,
    methods: str | None,
    tasks: str | None,
    limit: int | None,
    results: Path,
    **engine: Any,
) -> None:
    """Merge with every method, evaluate every merge, print and write the table."""
    from harness import verbs

    sys.exit(verbs.compare(family, _split(methods), _split(tasks), limit, results, engine))


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

    engine["shard_bytes"] = _bytes(shard_size)
    sys.exit(verbs.merge(method, family, _settings(settings), results, to, engine))


@main.command(name="eval")
@click.argument("checkpoint")
@options("family", "tasks", "limit", "results")
def evaluate(checkpoint: str, family: str, tasks: str | None, limit: int | None, results: Path) -> None:
    """Evaluate a CHECKPOINT (a folder or hub id) on a family's tasks, decoding as its merges do."""
    from harness import verbs

    sys.exit(verbs.evaluate(checkpoint, family, _split(tasks), limit, results))


@main.command(name="list")
@click.argument("kind", required=False, metavar="[methods|tasks|families|reports]")
@options("json")
def list_(kind: str | None, as_json: bool) -> None:
    """What can be used here: built in, in the working folder, and from installed packages."""
    from harness import catalogue

    catalogue.print_list(kind, as_json)


@main.command()
@click.argument("kind", metavar="method|task|family")
@click.argument("name")
@options("json")
def show(kind: str, name: str, as_json: bool) -> None:
    """Everything about one method, task or family."""
    from harness import catalogue

    catalogue.print_one(kind, name, as_json)


@main.command()
@click.argument("file")
def check(file: str) -> None:
    """Put a merge method (a FILE, or a name) through the contract, on small random models."""
    from harness import contract

    sys.exit(contract.check_file(file))


@main.command()
@options("family", "methods", "tasks", "limit", "results", "json")
def status(
    family: str, methods: str | None, tasks: str | None, limit: int | None, results: Path, as_json: bool
) -> None:
    """Which steps of a comparison are done, failed or still to do."""
    from harness import verbs

    verbs.status(family, _split(methods), _split(tasks), limit, results, as_json)


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
        rows=_split(rows),
        everything=everything,
        dry_run=dry_run,
    )


def _split(text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise HarnessError(f"an empty list: {text!r}", "write names with commas between them: `ties,dare`")
    return names


def _bytes(text: str) -> int:
    """`5GB`, `500MB`, `2GiB` or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    size = 0
    if found:
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))
    if size < 1:
        raise HarnessError(f"--shard-size {text!r} is no size", "for example 5GB, 500MB or 2GiB")
    return size


def _settings(pairs: tuple[str, ...]) -> dict[str, Any]:
    """`key=value` pairs; values are read as YAML, so numbers, booleans and lists keep their type."""
    import yaml

    from harness import yamlfile

    found: dict[str, Any] = {}
    for pair in pairs:
        key, sign, value = pair.partition("=")
        if not sign or not key:
            raise HarnessError(f"--set {pair!r} is not KEY=VALUE", "for example `--set scale=0.5`")
        if key in found:
            raise HarnessError(f"--set {key} is given twice", "keep one of them")
        try:
            found[key] = yamlfile.value(value)
        except yaml.YAMLError as error:
            raise HarnessError(
                f"--set {pair!r}: the value cannot be read", "quote it for the shell"
            ) from error
    return found


def print_json(data: Any) -> None:
    click.echo(json.dumps(data, indent=1, ensure_ascii=False, default=str))


if __name__ == "__main__":
    main()
