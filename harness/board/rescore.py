"""The value of a metric that is no mean (an F1), by its task's own aggregation over the samples."""

from __future__ import annotations

import json
from pathlib import Path

from harness import tasks
from harness.evaluate.syntax import load_module
from harness.evaluate.task_yaml import Function


def aggregated(task: str, metric: str, folder: Path) -> float | None:
    """From what the samples in `folder` hold of each item; None where they hold nothing, or the aggregation
    is none of the task's own functions."""
    import pyarrow.parquet as pq

    path = folder / "samples.parquet"
    if task.startswith("lm_eval:") or not path.is_file() or metric not in pq.read_schema(path).names:
        return None
    (file,) = tasks.named([task])
    entries = file.config.get("metric_list") or []
    aggregation = next((e.get("aggregation") for e in entries if e.get("metric") == metric), None)
    if not isinstance(aggregation, Function):
        return None
    name, _, function = str(aggregation).rpartition(".")
    texts = pq.read_table(path, columns=[metric]).column(metric).to_pylist()
    values = [tuple(json.loads(text)) for text in texts if isinstance(text, str)]
    if not values:
        return None
    return float(getattr(load_module(file.path.parent / f"{name}.py"), function)(values))
