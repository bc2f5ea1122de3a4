"""What the verbs share: errors on two lines, options, and how their values are read."""

from __future__ import annotations

import functools
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from harness.errors import HarnessError


class Command(click.Command):
    """A verb whose wrong input prints two lines and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except HarnessError as error:
            click.echo(f"error: {error}", err=True)
            ctx.exit(2)
        except OSError as error:
            from harness.store import refusal

            if (told := refusal(error)) is None:
                raise
            click.echo(f"error: {told}", err=True)
            ctx.exit(2)
        except KeyboardInterrupt:
            click.echo("stopped; the same command goes on from here", err=True)
            ctx.exit(130)


class Group(click.Group):
    """The verbs; wrong usage is told in two lines as well."""

    command_class = Command
    group_class = type

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
        "unsandboxed": click.option(
            "--unsandboxed-code",
            is_flag=True,
            expose_value=False,
            callback=_unsandboxed,
            help="Run generated code without bubblewrap; said in the report.",
        ),
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
        "engine": click.option(
            "--engine",
            default="auto",
            show_default=True,
            metavar="auto|hf|vllm",
            help="What evaluates. auto: vllm where it is installed and a GPU is there, else hf.",
        ),
        "keep_weights": click.option(
            "--keep-weights",
            type=click.Choice(["all", "none"]),
            default="all",
            show_default=True,
            help="Of merges. none: they lie in memory, and are gone when they are evaluated.",
        ),
        "executor": click.option(
            "--executor",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where steps are carried out: here, or on the nodes of a Ray cluster.",
        ),
        "address": click.option(
            "--address",
            metavar="HOST:PORT",
            help="The Ray cluster's head (default: RAY_ADDRESS, or Ray on this machine alone).",
        ),
        "seeds": click.option(
            "--seeds",
            type=click.IntRange(min=1),
            metavar="K",
            help="Runs of what is drawn, each with its seed; cells are mean ± sd (default: the family's).",
        ),
        "with_paper": click.option(
            "--with-paper", is_flag=True, help="The paper's numbers beside ours, with what contradicts them."
        ),
        "allow_mixed": click.option(
            "--allow-mixed", is_flag=True, help="Show cells that were not measured alike, with footnotes."
        ),
        "baseline": click.option(
            "--baseline", metavar="ROW", help="What differences are tested against (default: the family's)."
        ),
        "device": click.option(
            "--device",
            default="auto",
            metavar="cpu|cuda|auto",
            help="Of gradients and merges. auto: what takes gradients on CUDA if it can, merges on the CPU.",
        ),
    }
    return lambda function: functools.reduce(lambda f, name: known[name](f), reversed(names), function)


def _unsandboxed(context: click.Context, parameter: click.Parameter, given: bool) -> None:
    if given:  # the variable that `harness.sandbox` reads, here and in child processes
        os.environ["HARNESS_UNSANDBOXED_CODE"] = "1"


def split(text: str | None) -> list[str] | None:
    """`a,b` as a list; None stays None."""
    if text is None:
        return None
    names = [part.strip() for part in text.split(",") if part.strip()]
    if not names:
        raise HarnessError(f"an empty list: {text!r}", "write names with commas between them: `ties,dare`")
    return names


def size(text: str) -> int:
    """`5GB`, `500MB`, `2GiB` or a plain number."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT]?)(i?)B?", text.strip(), re.IGNORECASE)
    size = 0
    if found:
        size = int(float(found[1]) * (1024 if found[3] else 1000) ** " KMGT".index(found[2].upper() or " "))
    if size < 1:
        raise HarnessError(f"--shard-size {text!r} is no size", "for example 5GB, 500MB or 2GiB")
    return size


def settings_of(pairs: tuple[str, ...]) -> dict[str, Any]:
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
