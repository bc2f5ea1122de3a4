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
    cells = [cell for metric in metrics if (cell := row.cells.get((task, metric)))]
    folders = dict.fromkeys(place(f) for cell in cells for f in cell.folders or [cell.folder] if f)
    judges: dict[Path, list[Path]] = {}  # by the evaluation that they are about
    for folder in folders:
        judge = (folder / "judged.parquet").is_file()
        about = _evaluation(folder) if judge else folder
        if about is not None and (about / "samples.parquet").is_file():
            judges.setdefault(about, []).extend([folder] * judge)
    runs = []
    for folder, own in judges.items():
        runs.append(_samples(folder, metrics))
        for judge in own:
            _judgements(judge, runs[-1])
    return _together(runs)


def _together(runs: list[dict[Any, dict[str, Any]]]) -> dict[Any, dict[str, Any]]:
    """Over seeds an item has the responses of all runs, and the mean of their values."""
    found = runs[0] if runs else {}
    for run in runs[1:]:
        for key in found.keys() & run.keys():
            for part in ("texts", "judged"):
                found[key]["answer"].setdefault(part, []).extend(run[key]["answer"].get(part, []))
    for key, item in found.items():
        given = [run[key]["values"] for run in runs if key in run]
        for metric in item["values"]:
            values = [values[metric] for values in given if metric in values]
            item["values"][metric] = sum(values) / len(values)
    return found


def _samples(folder: Path, metrics: list[str]) -> dict[Any, dict[str, Any]]:
    import pyarrow.parquet as pq

    found: dict[Any, dict[str, Any]] = {}
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
    return found


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
