"""`harness judge check`: how far a judge agrees with people on a labelled file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.data.read import rows_of
from harness.errors import HarnessError
from harness.judges import Judge, Spec
from harness.judges.agreement import UNPARSED, agreement
from harness.task import Score, strip_thinking

FIELDS = ("prompt", "response", "label")
WORDS = {"yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
FORM = "a row needs `prompt`, `response` and `label`: yes/no, true/false, or a number as the judge gives"


def check_file(
    file: Path,
    spec: Spec,
    ask: Callable[[dict, str], Any],
    read: Callable[[Any, dict], Score],
    *,
    metric: str = "",
    store: Path,
    threshold: float | None = None,
    settings: dict[str, Any] | None = None,
    as_json: bool = False,
    progress: Callable[[int, int], None] | None = None,
    echo: Callable[[str], None] = print,
) -> int:
    """Judge every row of `file` (jsonl, json, csv, tsv or parquet) and print the agreement; returns 0.

    `ask` and `read` are the task's (see docs/judges.md); further fields of a row are handed to them. The
    response is judged after its last `</think>`. `metric` picks the value where `read` gives several. With
    `threshold`, a value above it is `yes` (1) and any other `no` (0): a judge that gives numbers needs one
    where the labels are classes. Answers are kept in the SQLite file `store`. Raises HarnessError for a file
    that is not understood.
    """
    rows = [_row(file, number, row) for number, row in enumerate(rows_of(file), 1)]
    finished = [row for row in rows if not strip_thinking(row["response"])[1]]  # the others are never graded
    with Judge(spec, settings=settings, cache=store.parent) as one:
        texts = one.clip([strip_thinking(row["response"])[0] for row in finished])
        prompts = [ask(row, text) for row, text in zip(finished, texts, strict=True)]
        answers = one.ask(prompts, store, progress)
    values = [_value(read(answer, row), metric) for answer, row in zip(answers, finished, strict=True)]
    graded = {id(row): _class(value, threshold) for row, value in zip(finished, values, strict=True)}
    classes = [graded.get(id(row), UNPARSED) for row in rows]
    found = agreement([row["label"] for row in rows], classes)
    found = {"judge": spec.model, "kind": spec.kind, "threshold": threshold, **found, **answers.facts}
    echo(json.dumps(_named(found), indent=1) if as_json else _table(found))
    return 0


def _row(file: Path, number: int, row: Any) -> dict:
    where = f"{file} row {number}"
    if not isinstance(row, dict):
        raise HarnessError(f"{where} is {type(row).__name__}, not fields with values", FORM)
    for name in FIELDS:
        if row.get(name) is None:
            raise HarnessError(f"{where}: field `{name}` is missing", FORM)
    for name in ("prompt", "response"):
        if not isinstance(row[name], str):
            raise HarnessError(f"{where}: field `{name}` is {type(row[name]).__name__}, not text", FORM)
    text = str(row["label"]).strip().lower()
    try:
        label = WORDS[text] if text in WORDS else float(text)
    except ValueError:
        raise HarnessError(f"{where}: field `label` is {row['label']!r}", FORM) from None
    if label != label:
        raise HarnessError(f"{where}: field `label` is not a number", FORM)
    return {**row, "label": label}


def _value(score: Score, metric: str) -> float | None:
    values = score.values(metric)
    if score.unparsed or not values:
        return None
    return values[metric] if metric in values else next(iter(values.values()))


def _class(value: float | None, threshold: float | None) -> float | str:
    if value is None:
        return UNPARSED
    if threshold is not None:
        return float(value > threshold)
    if not float(value).is_integer():
        raise HarnessError(
            f"the judge gives {value:.4g}, the labels are classes",
            "give `--threshold T`: above it the judge says yes",
        )
    return float(value)


def _named(found: dict) -> dict:
    matrix = {_name(a): {_name(b): n for b, n in row.items()} for a, row in found["confusion"].items()}
    return {**found, "confusion": matrix}


def _name(label: Any) -> str:
    return f"{label:g}" if isinstance(label, float) else label


def _table(found: dict) -> str:
    kappa = "–" if found["kappa"] is None else f"{found['kappa']:.3f}"
    matrix = found["confusion"]
    heads = [_name(label) for label in next(iter(matrix.values()))]
    width = max(map(len, [*heads, "human"])) + 2
    lines = [
        f"judge     {found['judge']} ({found['kind']})",
        f"rows      {found['n']}, {found['unparsed']} unparsed",
        f"accuracy  {found['accuracy']:.3f}",
        f"kappa     {kappa}",
    ]
    if found.get("cost") is not None:
        lines.append(f"cost      {found['cost']:.4f} USD")
    lines.append("human".ljust(width) + "".join(head.rjust(width) for head in heads) + "   (judge)")
    for label, row in matrix.items():
        lines.append(_name(label).ljust(width) + "".join(str(n).rjust(width) for n in row.values()))
    return "\n".join(lines)
