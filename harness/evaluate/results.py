"""From lm-eval's samples to metrics with n and standard error, rates, and the samples file.

Light: imports neither torch nor lm-eval at import time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from harness.evaluate.intervals import bootstrap, exp, pairs_of, stderr
from harness.store import digest
from harness.task import TOLD, strip_thinking

NGRAM = 4
REPETITIVE = 0.5  # a response is repetitive when over half of its word 4-grams occurred before in it


def metrics(
    found: dict[str, dict[str, Any]],
    samples: dict[str, list[dict]],
    higher: dict[str, bool],
    aggregations: Mapping[str, Callable[[list], float]],
) -> dict[str, dict[str, Any]]:
    """lm-eval's aggregated values by metric (`metric,filter` where there are several filters), each with the
    number of documents that count towards it, its standard error, and an interval where the value is no mean
    of the documents'. `found` and `samples` are by lm-eval task; several (a group) are pooled by size."""
    filters = {sample["filter"] for part in samples.values() for sample in part}
    table = {}
    for name in dict.fromkeys(name for part in found.values() for name in part):
        metric, _, chosen = name.partition(",")
        if not chosen or metric.endswith("_stderr") or metric in TOLD:
            continue
        by_task = {
            task: [s[metric] for s in part if s["filter"] == chosen and metric in s["metrics"]]
            for task, part in samples.items()
        }
        values = [value for part in by_task.values() for value in part]
        weighted = [float(found[task][name]) * len(part) for task, part in by_task.items() if part]
        entry = {
            "value": math.fsum(weighted) / len(values)
            if len(found) > 1
            else float(found[next(iter(found))][name])
        }
        entry |= {
            "stderr": stderr(values),
            "n": len(values),
            "higher_is_better": bool(higher.get(metric, True)),
        }
        if entry["stderr"] is None or pairs_of(values):
            entry |= bootstrap(values, aggregations.get(metric))
        table[metric if len(filters) == 1 else name] = entry
    return table


def repetition(text: str) -> float:
    """Share of word 4-grams that occurred before in the text (rep-4 of Welleck et al., arXiv:1908.04319)."""
    words = text.split()
    grams = [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def rates(rows: list[dict]) -> dict[str, float | None]:
    """Shares of generated responses that went wrong, 0 to 1; None where the task does not say."""

    def share(name: str) -> float | None:
        told = [row[name] for row in rows if row[name] is not None]
        return sum(map(float, told)) / len(told) if told else None

    return {name: share(name) for name in (*TOLD, "empty", "truncated", "repetition")}


def sample_rows(
    samples: dict[str, list[dict]],
    answers: dict[tuple[str, int], list],
    generative: bool,
    judged: bool,
    cluster: str | None = None,
) -> list[dict[str, Any]]:
    """One flat row per document (and filter): what was asked and answered, and what it scored. For a judge
    also the task's row and all responses, as JSON. `cluster` is the column of the task's rows that items
    share (a passage); the samples have its hash."""
    rows = []
    for task, part in samples.items():
        for sample in part:
            row = _row(sample, answers[task, sample["doc_id"]], generative)
            if len(samples) > 1:
                row = {"task": task, **row}
            if cluster is not None:
                row["cluster"] = digest(sample["doc"][cluster])[:16]
            if judged:
                texts = [told["text"] for _, told in answers[task, sample["doc_id"]]]
                row |= {"row": _text(sample["doc"]), "responses": json.dumps(texts, ensure_ascii=False)}
            rows.append(row)
    return rows


def _row(sample: dict, given: list, generative: bool) -> dict[str, Any]:
    instance, answer = given[0]
    prompt = str(instance.args[0])
    row = {"doc_id": sample["doc_id"], "filter": sample["filter"], "prompt": prompt,
           "target": _text(sample["target"])}  # fmt: skip
    if generative:
        texts = [told["text"] for _, told in given]
        row |= {"response": texts[0] if len(texts) == 1 else _text(texts), "finish": answer["finish"],
                "tokens": sum(told["tokens"] for _, told in given)}  # fmt: skip
        row |= _conduct(sample, texts, prompt, [told["finish"] for _, told in given])
    else:
        choices = [{"text": call.args[-1], "logprob": told["logprob"]} for call, told in given]
        row["response"] = _text(choices) if len(choices) > 1 else str(answer["logprob"])
    for name in sample["metrics"]:
        value = sample[name]
        if pairs_of([value]):
            row |= {"loglikelihood": float(value[0]), "weight": float(value[1])}
            value = exp(-float(value[0]) / float(value[1])) if value[1] else None
        if name not in TOLD and (value is None or isinstance(value, (int, float)) or hasattr(value, "dtype")):
            row[name] = None if value is None else float(value)
        elif name not in TOLD and isinstance(value, (tuple, list)):  # what an aggregation is made of
            row[name] = _text(value)
    return row


def _conduct(sample: dict, texts: list[str], prompt: str, finish: list[str]) -> dict[str, Any]:
    told = sample["metrics"]
    left_open = [strip_thinking(text, prompt)[1] for text in texts]
    count = len(texts)
    return {
        "unparsed": float(sample["unparsed"]) if "unparsed" in told else None,
        "unfinished": float(sample["unfinished"]) if "unfinished" in told else sum(left_open) / count,
        "empty": sum(not _said(text, prompt) for text in texts) / count,
        "truncated": sum(reason == "length" for reason in finish) / count,
        "repetition": sum(repetition(text) > REPETITIVE for text in texts) / count,
    }


def _said(text: str, prompt: str) -> bool:
    """Whether there is an answer, or thinking that never ended (which is another failing)."""
    answer, unfinished = strip_thinking(text, prompt)
    return bool(answer.strip()) or (unfinished and bool(text.strip()))


def write_samples(rows: list[dict], path: Path) -> None:
    """The rows as Parquet (zstd)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, path, compression="zstd")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
