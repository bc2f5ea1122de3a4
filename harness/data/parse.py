"""Reads the files that benchmarks are published in, row by row; errors name file and row."""

from __future__ import annotations

import contextlib
import csv
import gzip
import json
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from harness.errors import HarnessError

MEND = "mend the file, or fetch it again with `harness data fetch`"
BOM = b"\xef\xbb\xbf"
READ = "json, jsonl, csv, tsv, parquet or txt, also with .gz behind"


def rows_of(path: Path) -> list[Any]:
    """The rows of a file; see `stream`."""
    return [row for _, row in stream(path)]


def stream(path: Path) -> Iterator[tuple[str, Any]]:
    """(place, row) of every row of a `.jsonl`, `.json` (a list, rows by id, or one row per line), `.csv`,
    `.tsv`, `.parquet` or `.txt` file (one row, `text`), also with `.gz` behind.

    A row of an object of rows is given its key as `_key`. Raises HarnessError for a file that cannot be
    read, is malformed, or holds no rows.
    """
    kind, number = _kind(path), 0
    if kind in ("jsonl", "ndjson"):
        found = _lines(path)
    elif kind in ("csv", "tsv"):
        found = _table(path, "\t" if kind == "tsv" else ",")
    elif kind == "parquet":
        found = _parquet(path)
    else:
        found = _listed(path, content_of(path))
    for number, pair in enumerate(found, 1):  # noqa: B007 - asked for after the loop
        yield pair
    if not number:
        raise HarnessError(f"{path} holds no rows", MEND)


def content_of(path: Path) -> Any:
    """A file's whole content: what a `.json` file holds, the text of a `.txt` file as a row, a list of rows
    of any other."""
    kind = _kind(path)
    if kind == "json":
        return _whole(path, _text(path))
    if kind == "txt":
        return [{"text": _text(path)}]
    if kind in ("jsonl", "ndjson", "csv", "tsv", "parquet"):
        return rows_of(path)
    raise HarnessError(f"{path}: `.{kind}` files are not read", f"{READ} are")


def _kind(path: Path) -> str:
    return path.name.lower().removesuffix(".gz").rpartition(".")[2]


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[IO[bytes]]:
    opened = gzip.open if path.name.lower().endswith(".gz") else open
    try:
        with opened(path, "rb") as file:
            yield file
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise HarnessError(f"{path} cannot be read: {reason}", MEND) from error


def _text(path: Path) -> str:
    with _reading(path) as file:
        data = file.read()
    text = _decoded(path, data.removeprefix(BOM))
    if not text.strip():
        raise HarnessError(f"{path} is empty", MEND)
    return text


def _decoded(path: Path, data: bytes, line: int = 1) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        raise HarnessError(f"{path}:{line}: byte {data[error.start]:#04x} is not UTF-8", MEND) from error


def _lines(path: Path) -> Iterator[tuple[str, Any]]:
    """Of JSON lines; only a line feed ends a line, since JSON text may hold all other separators."""
    number, blank = 0, True
    with _reading(path) as file:
        for number, line in enumerate(file, 1):
            text = _decoded(path, line.removeprefix(BOM) if number == 1 else line, number)
            if text.strip():
                blank = False
                yield f"{path}:{number}", _json(text, f"{path}:{number}")
    if blank:
        raise HarnessError(f"{path} is empty", MEND)


def _json(text: str, where: str, **given: Any) -> Any:
    try:
        return json.loads(text, **given)
    except (ValueError, RecursionError) as error:  # ValueError also for a number of too many digits
        raise HarnessError(f"{where}: not JSON: {error}", MEND) from error


def _whole(path: Path, text: str) -> Any:
    last: list[tuple[str, Any]] = []

    def kept(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        last[:] = pairs
        return dict(pairs)

    try:
        found = json.loads(text, object_pairs_hook=kept)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and "\n" in text[: error.pos]:  # one row per line under the name `.json`
            return [row for _, row in _lines(path)]
        raise HarnessError(f"{path}:{error.lineno}: not JSON: {error}", MEND) from error
    except (ValueError, RecursionError) as error:
        raise HarnessError(f"{path}: not JSON: {error}", MEND) from error
    if isinstance(found, dict) and len(found) < len(last):  # the outermost object is finished last
        names = [name for name, _ in last]
        twice = next(name for name in names if names.count(name) > 1)
        places = [str(at) for at, name in enumerate(names, 1) if name == twice]
        raise HarnessError(f"{path}: key `{twice}` stands in rows {' and '.join(places)}", MEND)
    return found


def _listed(path: Path, content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, dict):
        by_key = all(isinstance(value, dict) for value in content.values())
        content = [{**value, "_key": key} for key, value in content.items()] if by_key else [content]
    if not isinstance(content, list):
        raise HarnessError(f"{path} holds {type(content).__name__}, not rows", MEND)
    for number, row in enumerate(content, 1):
        yield f"{path} row {number}", row


def _table(path: Path, delimiter: str) -> Iterator[tuple[str, Any]]:
    csv.field_size_limit(sys.maxsize)
    with _reading(path) as file:
        lines = (
            _decoded(path, line.removeprefix(BOM) if at == 1 else line, at) for at, line in enumerate(file, 1)
        )
        reader = csv.reader(lines, delimiter=delimiter, strict=True)
        number = 0
        try:
            names = next(filter(None, reader), None)
            if not names or not any(name.strip() for name in names):
                raise HarnessError(f"{path} is empty", MEND)
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise HarnessError(f"{path}: two columns are called `{twice}`", MEND)
            for number, cells in enumerate(filter(None, reader), 1):
                if len(cells) != len(names):
                    fact = f"it has {len(cells)} columns, the first line {len(names)}"
                    raise HarnessError(f"{path} row {number} (to line {reader.line_num}): {fact}", MEND)
                yield f"{path} row {number}", dict(zip(names, cells, strict=True))
        except csv.Error as error:
            raise HarnessError(
                f"{path} row {number + 1} (to line {reader.line_num}): {error}", MEND
            ) from error


def _parquet(path: Path) -> Iterator[tuple[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path} row {number}", row
    except (OSError, pa.ArrowException) as error:
        after = f" after row {number}" if number else ""
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HarnessError(f"{path} cannot be read{after}: {reason}", MEND) from error
