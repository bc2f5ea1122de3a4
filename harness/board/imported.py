"""lm-eval's result files as rows of a table."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.board.cells import interval_of
from harness.board.model import BoardRow, Cell, Heading
from harness.errors import HarnessError
from harness.evaluate.intervals import pairs_of
from harness.store import Store, digest, reachable, slug, write_text

OURS = "harness_"  # what our tasks are called where lm-eval runs them
ENGINES = {"hf": "hf", "hf-auto": "hf", "huggingface": "hf", "vllm": "vllm"}


def import_results(path: Path, store: Store, tasks: Sequence[str], label: str | None = None) -> str:
    """Take a `results_*.json` of lm-eval into the store as a row; its label. Samples written beside it
    (`--log_samples`) come along, so that the row can be tested item by item. A row of that label is replaced.

    Raises HarnessError for a file that is none of lm-eval's, and one with none of `tasks`."""
    found = _read(path)
    named = {name: _ours(name) for name in found["results"]}
    known = {ours for ours in named.values() if ours in tasks or ours.removeprefix("lm_eval:") in tasks}
    if not known:
        raise HarnessError(
            f"{path} has none of the family's tasks, but {', '.join(sorted(named))}",
            "the family has " + ", ".join(tasks),
        )
    label = label or found.get("model_name") or path.stem
    folder = store.root / "imported" / slug(str(label), {}, digest(str(label)))
    record: dict[str, Any] = {"label": str(label), "file": path.name, "tasks": {}}
    with reachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, ours in named.items():
            if ours in known:
                record["tasks"][ours] = _task(found, name)
                _take_samples(path, name, folder / ours.replace(":", "-"))
        write_text(folder / "row.json", json.dumps(record, indent=1, ensure_ascii=False) + "\n")
    return str(label)


def imported_rows(store: Store, headings: Sequence[Heading]) -> list[BoardRow]:
    """The rows that were imported, with their cells of these columns; those without any are left out."""
    rows = []
    for file in sorted((store.root / "imported").glob("*/row.json")):
        told = json.loads(file.read_text(encoding="utf-8"))
        cells = {}
        for heading in headings:
            task = told["tasks"].get(heading.task) or {}
            metric = _metric(task.get("metrics", {}), heading.metric)
            if metric is not None:
                cells[heading.task, heading.metric] = _cell(metric, task, heading, file.parent)
        if cells:
            role = "imported"
            source = {"file": told["file"]}
            rows.append(
                BoardRow(told["label"], role, None, {}, str(file.parent), cells, recipe=source, imported=True)
            )
    return rows


def _cell(metric: Mapping[str, Any], task: Mapping[str, Any], heading: Heading, folder: Path) -> Cell:
    return Cell(
        metric["value"],
        metric["stderr"],
        metric["n"],
        folder=str(folder / heading.task.replace(":", "-")),
        interval=interval_of(dict(metric), heading.kind),
        imported=True,
        settings=dict(task["settings"]),
    )


def _metric(metrics: Mapping[str, Any], wanted: str) -> Mapping[str, Any] | None:
    """Under its own name, or the only filter's."""
    if wanted in metrics:
        return metrics[wanted]
    found = [value for key, value in metrics.items() if key.partition(",")[0] == wanted]
    return found[0] if len(found) == 1 else None


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise HarnessError(f"{path}: {error.strerror}", "name a results_*.json of lm-eval") from error
    except ValueError as error:
        raise HarnessError(f"{path} is no JSON: {error}", "name a results_*.json of lm-eval") from error
    if not isinstance(found, dict) or not isinstance(found.get("results"), dict) or "n-samples" not in found:
        raise HarnessError(
            f"{path} is no result file of lm-eval", "`lm_eval --output_path FOLDER` writes a results_*.json"
        )
    return found


def _ours(name: str) -> str:
    return name.removeprefix(OURS) if name.startswith(OURS) else f"lm_eval:{name}"


def _task(found: Mapping[str, Any], name: str) -> dict[str, Any]:
    given, config = found["results"][name], found.get("config") or {}
    n = (found["n-samples"].get(name) or {}).get("effective", 0)
    metrics = {}
    for key, value in given.items():
        metric, comma, chosen = key.partition(",")
        if not comma or metric.endswith("_stderr") or not isinstance(value, (int, float)):
            continue
        spread = given.get(f"{metric}_stderr,{chosen}")
        metrics[key] = {"value": value, "stderr": spread if isinstance(spread, float) else None, "n": n}
    limit = config.get("limit")
    settings = {
        "engine": ENGINES.get(str(config.get("model")), str(config.get("model"))),
        "chat template": bool(found.get("chat_template")),
        "limit": None if limit is None else n,
        "split": "test",
    }
    dtype = re.search(r"(?:^|,)dtype=([\w.]+)", str(config.get("model_args", "")))
    return {"metrics": metrics, "settings": settings | ({"dtype": dtype[1]} if dtype else {})}


def _take_samples(path: Path, name: str, folder: Path) -> None:
    """`samples_<task>_<date>.jsonl` of the same run as Parquet, under the names of our samples."""
    date = path.stem.removeprefix("results_")
    file = path.with_name(f"samples_{name}_{date}.jsonl")
    if not file.is_file():
        return
    from harness.evaluate.results import write_samples

    rows = []
    for line in file.read_text(encoding="utf-8").splitlines():
        sample = json.loads(line)
        row = {"doc_id": sample["doc_id"], "filter": sample.get("filter", "none"),
               "prompt": str(sample.get("arguments", "")), "target": str(sample.get("target", "")),
               "response": json.dumps(sample.get("filtered_resps"), ensure_ascii=False)}  # fmt: skip
        for metric in sample.get("metrics", ()):
            value = sample.get(metric)
            if pairs_of([value]):
                row |= {"loglikelihood": float(value[0]), "weight": float(value[1])}
            elif isinstance(value, (int, float)):
                row[metric] = float(value)
        rows.append(row)
    folder.mkdir(parents=True, exist_ok=True)
    write_samples(rows, folder / "samples.parquet")
