"""Calibration rows: the text whose loss gradients rank an expert's parameters. Light: no torch, no datasets.

`data:` of a family's calibration names one of
    a file         data/safety.jsonl        .json (a list of objects), .jsonl, .csv or .parquet
    a hub data set qiaojin/PubMedQA         `name` (configuration) and `split` as there; @revision pins it
    a function     package.module:function  called with n= and seed=, and with `name` first where one is given
and `text:` is a format string over a row's columns: "{question}\\n{answers[0][text]}".
In it `{eos}` is a mark that becomes the end token of whichever tokenizer reads the row (`harness.endmark`).
"""

from __future__ import annotations

import csv
import importlib
import inspect
import json
import random
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from harness.endmark import END
from harness.errors import HarnessError, nearest
from harness.family.obtain import check
from harness.hub import HUB_ID, offline

FUNCTION = re.compile(r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$")


class Spec(Protocol):
    """What of a family's `calibration:` entry is read here."""

    data: str
    name: str | None
    split: str
    text: str
    completion: str | None
    completion_after: str | None
    n: int
    seed: int


def load_rows(spec: Spec, folder: Path | str = ".") -> list[dict[str, str]]:
    """`spec.n` rows, {"text"} or, where the spec says what the completion is, {"prompt", "completion"}.

    Files and data sets are taken from their beginning, as the released scripts of this field do; a `seed`
    other than 0 draws the rows at random instead. Relative paths start at `folder`. Raises HarnessError for
    data that is missing, a column that no row has, an empty text, and fewer than `n` rows.
    """
    rows = _drawn(_source(spec, Path(folder)), spec)
    if len(rows) < spec.n:
        raise HarnessError(
            f"calibration data `{spec.data}` has {len(rows)} rows; n is {spec.n}",
            "lower `n:` in the family's calibration, or give more rows",
        )
    return [_text(spec, row, index) for index, row in enumerate(rows)]


def columns(path: Path) -> list[str]:
    """The columns of the first row of a file of rows; [] for a file that holds none."""
    rows = _read(path, _READERS[path.suffix]) if path.suffix in _READERS else []
    return [str(column) for column in rows[0]] if rows else []


def _source(spec: Spec, folder: Path) -> Iterable[dict[str, Any]]:
    suffix = Path(spec.data).suffix
    if suffix in _READERS:
        path = folder / Path(spec.data).expanduser()
        if not path.is_file():
            raise HarnessError(
                f"no calibration file at {path}", "relative paths start at the family file's folder"
            )
        return _read(path, _READERS[suffix])
    if FUNCTION.match(spec.data):
        return _call(spec)
    if (folder / Path(spec.data).expanduser()).is_dir():  # a data set's files, as on the hub
        return _loaded(spec, str(folder / Path(spec.data).expanduser()), None)
    if HUB_ID.match(spec.data):
        return _hub(spec)
    raise HarnessError(
        f"calibration data is `{spec.data}`",
        f"a {', '.join(_READERS)} file, the folder of a data set, a hub id `org/name`, or "
        "`package.module:function`",
    )


def _drawn(rows: Iterable[dict[str, Any]], spec: Spec) -> list[dict[str, Any]]:
    if spec.seed == 0 or FUNCTION.match(spec.data):  # a function has used the seed itself
        return list(islice(rows, spec.n))
    pool = rows if isinstance(rows, Sequence) else list(rows)
    return [pool[i] for i in random.Random(spec.seed).sample(range(len(pool)), min(spec.n, len(pool)))]


def _read(path: Path, reader: Callable[[Path], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    try:
        rows = reader(path)
    except (ValueError, OSError, csv.Error) as error:  # json and unicode errors are ValueErrors, arrow's too
        raise HarnessError(f"{path}: {error}", f"expected {path.suffix} rows in UTF-8") from error
    for index, row in enumerate(rows):
        if not isinstance(row, dict):
            raise HarnessError(
                f"{path}: row {index} is {json.dumps(row)[:60]}", "each row is an object of columns"
            )
    return rows


def _json(path: Path) -> list[dict[str, Any]]:
    rows = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(rows, list):
        raise ValueError(f"holds a {type(rows).__name__}, not a list of objects")
    return rows


def _jsonl(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def _csv(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, strict=True))


def _parquet(path: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path).to_pylist()


_READERS: dict[str, Callable[[Path], list[dict[str, Any]]]] = {
    ".json": _json,
    ".jsonl": _jsonl,
    ".csv": _csv,
    ".parquet": _parquet,
}


def _call(spec: Spec) -> list[dict[str, Any]]:
    module_name, _, attribute = spec.data.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise HarnessError(
            f"cannot import `{module_name}` for calibration data: {error}", "is it installed?"
        ) from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [k for k, v in vars(module).items() if inspect.isfunction(v) and not k.startswith("_")]
        raise HarnessError(f"`{module_name}` has no function `{attribute}`", nearest(attribute, known))
    first = () if spec.name is None else (spec.name,)
    try:
        rows = function(*first, n=spec.n, seed=spec.seed)
    except ValueError as error:  # how a generator says that it cannot
        raise HarnessError(
            f"calibration data `{spec.data}`: {error}", "check `name:`, `n:` and `seed:`"
        ) from error
    return list(rows)


def _hub(spec: Spec) -> Sequence[dict[str, Any]]:
    name, _, revision = spec.data.partition("@")
    if not offline():  # the loader itself tries for half a minute where there is no network
        check(spec.data, "dataset")
    return _loaded(spec, name, revision or None)


def _loaded(spec: Spec, place: str, revision: str | None) -> Sequence[dict[str, Any]]:
    from datasets import load_dataset

    try:
        return load_dataset(place, spec.name, split=spec.split, revision=revision)
    except Exception as error:  # the hub client has many exception types; all mean: not obtained
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HarnessError(
            f"cannot load calibration data `{spec.data}`, split `{spec.split}`: {reason}",
            "check the id, `name:` and `split:`, and the network; or give a local file",
        ) from error


def _text(spec: Spec, row: dict[str, Any], index: int) -> dict[str, str]:
    text = _filled(spec.text, row, index, spec.data)
    if not text.strip():
        raise HarnessError(f"calibration row {index} of `{spec.data}` is empty", f"`text:` is {spec.text!r}")
    if spec.completion_after is not None:
        return _cut(text, spec.completion_after, index, spec.data)
    if spec.completion is None:
        return {"text": text}
    completion = _filled(spec.completion, row, index, spec.data)
    if not completion or not text.endswith(completion):
        raise HarnessError(
            f"calibration row {index} of `{spec.data}` does not end in its completion {completion[:40]!r}",
            "`text:` must end with what `completion:` says, as in text: '{prompt}{completion}'",
        )
    return {"prompt": text.removesuffix(completion), "completion": completion}


def _cut(text: str, after: str, index: int, data: str) -> dict[str, str]:
    prompt, found, completion = text.rpartition(after)
    if not found or not completion.strip():
        raise HarnessError(
            f"calibration row {index} of `{data}` has nothing behind {after!r}",
            "`completion_after:` is what stands before the answer in every row",
        )
    return {"prompt": prompt + found, "completion": completion}


def _filled(template: str, row: dict[str, Any], index: int, data: str) -> str:
    if any(END in value for value in row.values() if isinstance(value, str)):
        raise HarnessError(
            f"calibration row {index} of `{data}` holds U+FDD0, which is no character", "clean the row"
        )
    try:
        return template.format(**{**row, "eos": END})
    except KeyError as error:
        column = str(error.args[0])
        raise HarnessError(
            f"calibration row {index} of `{data}` has no column `{column}`", nearest(column, map(str, row))
        ) from error
    except (IndexError, ValueError, AttributeError, TypeError) as error:
        raise HarnessError(
            f"calibration template {template!r} does not fit row {index} of `{data}`: {error}",
            "a format string over the row's columns, such as '{question} {answer}' or '{turns[0][value]}'",
        ) from error
