"""Reads a benchmark's rows and checks them: what is malformed is named by file, row and field."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from harness.data.source import Source, local_files, missing
from harness.errors import HarnessError

MEND = "mend the file, or fetch it again with `harness data fetch`"
Row = dict[str, Any]


def load(source: Source, split: str, row: Callable[..., Any], whole: bool = False) -> list[Row]:
    """The task's rows of a split: official rows, each through `row` (see `harness.benchmark`).

    Raises HarnessError when the data is neither in the local copy nor on the hub, or a row is malformed.
    """
    paths = local_files(source, split)
    if not paths and source.github:
        from harness.data.fetch import fetch

        paths = fetch(source, split)
    if whole and not paths:
        raise missing(source, split, "its layout needs the files themselves")
    made: list[Row] = []
    seen: dict[Any, str] = {}
    for where, found in _official(source, split, paths, row if whole else None):
        checked = found if whole else _made(where, _checked(source, where, found, seen), row)
        if checked is not None:
            made.append(checked)
    if not made:
        raise HarnessError(f"no row of `{source.benchmark}` is left in split `{split}`", MEND)
    return made


def _official(
    source: Source, split: str, paths: list[Path], row: Callable[..., Any] | None
) -> Iterator[tuple[str, Any]]:
    """(place, row) of every official row; with `row`, of every task row that it makes of a whole file."""
    if not paths:
        for number, found in enumerate(_from_hub(source, split), 1):
            yield f"{source.hub} split {split} row {number}", found
    for path in paths:
        if row is None:
            for number, found in enumerate(rows_of(path), 1):
                yield f"{path} row {number}", found
        else:
            content = content_of(path)
            made = _made(str(path), (content, path), lambda pair: list(row(*pair)))
            for number, found in enumerate(made, 1):
                yield f"{path} row {number}", found


def _from_hub(source: Source, split: str) -> Iterable[Row]:
    if source.hub is None:
        raise missing(source, split, "not in the local copy")
    import datasets

    try:
        return datasets.load_dataset(source.hub, source.config, split=split, revision=source.revision)
    except Exception as error:  # the hub client has many exception types; all mean: not obtained
        reason = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise missing(source, split, reason[:200]) from error


def _checked(source: Source, where: str, row: Any, seen: dict[Any, str]) -> Row:
    if not isinstance(row, dict):
        raise HarnessError(f"{where} is {type(row).__name__}, not fields with values", MEND)
    for name in source.fields:
        if row.get(name) is None:
            has = ", ".join(f"`{key}`" for key in row) or "nothing"
            raise HarnessError(f"{where}: field `{name}` is missing (it has {has})", MEND)
    if source.id is not None:
        names = (source.id,) if isinstance(source.id, str) else source.id
        key = json.dumps([row.get(name) for name in names], default=str)
        if key in seen:
            raise HarnessError(f"{where}: `{source.id}` {key} stands already in {seen[key]}", MEND)
        seen[key] = where
    return row


def _made(where: str, given: Any, row: Callable[..., Any]) -> Any:
    try:
        return row(given)
    except HarnessError:
        raise
    except (KeyError, ValueError, TypeError, IndexError, AttributeError) as error:
        reason = (
            f"field {error} is missing" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        )
        raise HarnessError(f"{where}: {reason}", MEND) from error


def rows_of(path: Path) -> list[Any]:
    """The rows of a `.jsonl`, `.json` (a list, or rows by id), `.csv`, `.tsv`, `.parquet` or `.txt` file
    (one row, `text`), also with `.gz` behind. A row of an object is given its key as `_key`."""
    content = content_of(path)
    if isinstance(content, dict):
        whole = all(isinstance(value, dict) for value in content.values())
        content = [{**value, "_key": key} for key, value in content.items()] if whole else [content]
    if not content:
        raise HarnessError(f"{path} holds no rows", MEND)
    return content


def count(path: Path) -> int:
    """How many rows a file holds, as far as its layout tells."""
    return len(rows_of(path))


def content_of(path: Path) -> Any:
    """A file's content: a list of rows, or whatever a `.json` file holds."""
    kind = path.name.removesuffix(".gz").rpartition(".")[2].lower()
    if kind == "parquet":
        return _parquet(path)
    text = _text(path)
    if not text.strip():
        raise HarnessError(f"{path} is empty", MEND)
    if kind in ("jsonl", "ndjson"):
        return [
            _json(line, f"{path}:{number}")
            for number, line in enumerate(text.splitlines(), 1)
            if line.strip()
        ]
    if kind == "json":
        return _json(text, str(path))
    if kind in ("csv", "tsv"):
        return _table(path, text, "\t" if kind == "tsv" else ",")
    if kind == "txt":
        return [{"text": text}]
    raise HarnessError(f"{path}: `.{kind}` files are not read", "json, jsonl, csv, tsv, parquet or txt")


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if path.name.endswith(".gz") else data
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise HarnessError(f"{path}:{line}: byte {data[error.start]:#04x} is not UTF-8", MEND) from error
    except (OSError, EOFError) as error:
        raise HarnessError(f"{path} cannot be read: {error}", MEND) from error


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise HarnessError(f"{where}: not JSON: {error}", MEND) from error


def _table(path: Path, text: str, delimiter: str) -> list[Row]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    found = list(reader)
    for number, row in enumerate(found, 1):
        if None in row or None in row.values():
            columns = len(reader.fieldnames or ())
            raise HarnessError(f"{path} row {number}: it does not have {columns} columns", MEND)
    return found


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise HarnessError(f"{path} cannot be read: {error}", MEND) from error
