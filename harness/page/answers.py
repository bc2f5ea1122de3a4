"""What one row answered in one task: its samples file, and what judges said of it, by question."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from harness.board import Board, BoardRow

FLAGS = ("unparsed", "unfinished", "empty", "truncated", "repetition")


def read(board: Board, row: BoardRow, task: str, place: Callable[[str], Path]) -> dict[Any, dict[str, Any]]:
    """By question (doc_id, with the task's name before it where a task has several): `{prompt, target,
    values: {metric: number}, answer}`; {} where nothing is stored. An answer has `texts` (or `choices`, with
    their log-likelihoods, or `loglikelihood`), `tokens`, `finish`, `flags` and `judged`."""
    metrics = [h.metric for h in board.headings if h.task == task]
    cells = [row.cells.get((task, metric)) for metric in metrics]
    folders = dict.fromkeys(place(cell.folder) for cell in cells if cell is not None and cell.folder)
    found: dict[Any, dict[str, Any]] = {}
    judged = [folder for folder in folders if (folder / "judged.parquet").is_file()]
    asked = dict.fromkeys([f for f in folders if f not in judged] + [_evaluation(f) for f in judged])
    for folder in asked:
        if folder is not None and (folder / "samples.parquet").is_file():
            _samples(folder, metrics, found)
    for folder in judged:
        _judgements(folder, found)
    return found


def _samples(folder: Path, metrics: list[str], found: dict[Any, dict[str, Any]]) -> None:
    import pyarrow.parquet as pq

    repeats = (_yaml(folder / "recipe.yaml").get("repeats") or 1) > 1
    for line in pq.read_table(folder / "samples.parquet").to_pylist():
        key = f"{line['task']} {line['doc_id']}" if "task" in line else line["doc_id"]
        if key not in found:
            found[key] = {"prompt": line["prompt"], "target": line["target"], "values": {},
                          "answer": _answer(line, repeats)}  # fmt: skip
        for metric in metrics:
            column, _, chosen = metric.partition(",")
            value = line.get(column)
            if value is not None and chosen in ("", line["filter"]):
                found[key]["values"].setdefault(metric, float(value))


def _answer(line: dict[str, Any], repeats: bool) -> dict[str, Any]:
    told = line["response"]
    if line.get("finish") is None:
        choices = _json(told)
        if isinstance(choices, list):
            return {"choices": [[str(c["text"]), c["logprob"]] for c in choices]}
        return {"loglikelihood": told}
    texts = _json(line.get("responses") or (told if repeats else ""))
    texts = texts if isinstance(texts, list) else [told]
    flags = [name for name in FLAGS if line.get(name)]
    return {"texts": [str(text) for text in texts], "tokens": line.get("tokens"), "finish": line["finish"],
            "flags": flags}  # fmt: skip


def _judgements(folder: Path, found: dict[Any, dict[str, Any]]) -> None:
    """Values of the judge's metrics (the mean over an item's responses), and its words."""
    import pyarrow.parquet as pq

    given: dict[tuple[Any, str], list[float]] = {}
    for line in pq.read_table(folder / "judged.parquet").to_pylist():
        item = found.get(line["doc_id"])
        if item is None:
            continue
        item["answer"].setdefault("judged", []).append([line["part"], line["answer"]])
        for metric, value in (_json(line["values"]) or {}).items():
            given.setdefault((line["doc_id"], metric), []).append(float(value))
    for (key, metric), values in given.items():
        found[key]["values"][metric] = sum(values) / len(values)


def _evaluation(judged: Path) -> Path | None:
    """The folder of the evaluation that a judge's folder is about: beside it, by the key in its recipe."""
    recipe = _yaml(judged / "recipe.yaml")
    key = str(recipe.get("evaluation", ""))[:8]
    found = [path for path in judged.parent.glob(f"*--{key}") if path != judged] if key else []
    return found[0] if found else None


def _yaml(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        return {}
    return found if isinstance(found, dict) else {}


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None
