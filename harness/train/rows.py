"""Rows that an expert is trained on: read, put into words, turned into tokens. Light at import."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from harness.data.read import load as load_source
from harness.data.read import rows_of
from harness.data.source import Source
from harness.errors import HarnessError, nearest
from harness.train.recipe import Train

FILE = re.compile(r"\.(json|jsonl|csv|parquet)(\.gz)?$")
GITHUB = re.compile(r"^github:([\w.-]+)/([\w.-]+)/(.+)@([0-9a-f]{7,40})$")
FUNCTION = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")
HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")


class Row(NamedTuple):
    """What is asked, its further context (often empty), and what is to be said."""

    question: str
    input: str
    completion: str


def load(train: Train, folder: Path) -> list[Row]:
    """The rows of `train.data`, those with an empty completion included. Relative paths start at `folder`.

    Raises `HarnessError` for data that cannot be had, a column that a row lacks, and fewer than `n` rows."""
    found = list(islice(_read(train, folder), train.n))
    if train.n is not None and len(found) < train.n:
        raise HarnessError(
            f"training data `{train.data}` has {len(found)} rows; n is {train.n}", "lower `n:` of `train:`"
        )
    return [_row(train, row, index) for index, row in enumerate(found)]


def _read(train: Train, folder: Path) -> Iterable[Any]:
    given = train.data
    if found := GITHUB.match(given):
        return _github(*found.groups())
    if given.startswith("github:"):
        raise HarnessError(
            f"training data is `{given}`", "write github:OWNER/REPO/PATH@COMMIT; the commit pins it"
        )
    if FILE.search(given):
        path = folder / Path(given).expanduser()
        if not path.is_file():
            raise HarnessError(
                f"no training data at {path}", "relative paths start at the family file's folder"
            )
        return rows_of(path)
    if FUNCTION.match(given):
        return _call(train)
    if HUB_ID.match(given):
        return _hub(train)
    raise HarnessError(
        f"training data is `{given}`",
        "a .json, .jsonl, .csv or .parquet file, a hub id `org/name`, `package.module:function`, or "
        "github:OWNER/REPO/PATH@COMMIT",
    )


def _github(owner: str, repository: str, path: str, commit: str) -> list[Any]:
    """A file of a repository, from `$HARNESS_DATA/REPOSITORY/PATH` (a clone will do), else fetched there."""
    source = Source(repository, {"train": [path]}, github=f"{owner}/{repository}", revision=commit)
    try:
        return load_source(source, "train", lambda row: row)
    except HarnessError as error:
        raise HarnessError(
            error.message,
            f"run once with network, put a clone of github.com/{owner}/{repository} at {source.folder}, "
            f"or name a file: `data: ./{Path(path).name}`",
        ) from error


def _call(train: Train) -> list[Any]:
    module_name, _, name = train.data.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as error:
        raise HarnessError(f"training data `{train.data}`: {error}", "is it installed?") from error
    first = () if train.name is None else (train.name,)
    given = {"seed": train.seed} if train.n is None else {"n": train.n, "seed": train.seed}
    try:
        return list(function(*first, **given))
    except ValueError as error:  # how a generator says that it cannot
        raise HarnessError(f"training data `{train.data}`: {error}", "check `name:` and `n:`") from error


def _hub(train: Train) -> Iterable[Any]:
    from datasets import load_dataset

    name, _, revision = train.data.partition("@")
    try:
        return load_dataset(name, train.name, split=train.split, revision=revision or None)
    except Exception as error:  # the hub client has many exception types; all mean: not obtained
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HarnessError(
            f"cannot load training data `{train.data}`, split `{train.split}`: {reason}",
            "check the id, `name:` and `split:`, and the network; or give a local file",
        ) from error


def _row(train: Train, row: Any, index: int) -> Row:
    if not isinstance(row, dict):
        raise HarnessError(
            f"row {index} of `{train.data}` is {type(row).__name__}", "each row is an object of columns"
        )
    filled = [_filled(train, key, row, index) for key in Row._fields]
    if not filled[0].strip():
        raise HarnessError(
            f"row {index} of `{train.data}` asks nothing", f"`question:` is {train.question!r}"
        )
    return Row(*filled)


def _filled(train: Train, key: str, row: dict[str, Any], index: int) -> str:
    template = getattr(train, key)
    if template is None:
        return ""
    try:
        return template.format(**{name: "" if value is None else value for name, value in row.items()})
    except KeyError as error:
        if key == "input":  # a data set without the column has rows without further context
            return ""
        column = str(error.args[0])
        raise HarnessError(
            f"row {index} of `{train.data}` has no column `{column}`, which `{key}:` names",
            nearest(column, map(str, row)),
        ) from error
    except (IndexError, ValueError, AttributeError, TypeError) as error:
        raise HarnessError(
            f"`{key}: {template}` does not fit row {index} of `{train.data}`: {error}",
            "a format string over the row's columns, such as '{instruction}' or '{turns[0][value]}'",
        ) from error
