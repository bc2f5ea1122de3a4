"""From lm-eval's samples to metrics with n and standard error, rates, and the samples file.

Light: imports neither torch nor lm-eval at import time.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.task import strip_thinking

NGRAM = 4
REPETITIVE = 0.5  # a response is repetitive when over half of its word 4-grams occurred before in it
TOLD = ("unparsed", "unfinished")  # metrics that say how a response went, not how good it is


def mean_stderr(values: Sequence[float]) -> float | None:
    """Sample standard error of the mean: s / sqrt(n), s with n - 1. None below two values."""
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    return math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)


def perplexity_stderr(pairs: Sequence[tuple[float, float]]) -> float | None:
    """Standard error of exp(-sum l / sum w) over documents with log-likelihood l and w words.

    Delta method for a ratio estimator (Cochran, Sampling Techniques, 1977, section 6.4): with
    r = sum l / sum w, var r = n / (n - 1) * sum (l - r w)^2 / (sum w)^2, and |d exp(-r)| = exp(-r) dr.
    None below two documents.
    """
    n = len(pairs)
    words = math.fsum(w for _, w in pairs)
    if n < 2 or words <= 0:
        return None
    ratio = math.fsum(value for value, _ in pairs) / words
    spread = math.fsum((value - ratio * w) ** 2 for value, w in pairs)
    return _exp(-ratio) * math.sqrt(n / (n - 1) * spread) / words


def stderr(values: Sequence[Any]) -> float | None:
    """The standard error that fits per-document values: numbers, or (log-likelihood, words) pairs."""
    if not values or any(v is None for v in values):
        return None
    if all(isinstance(v, (tuple, list)) and len(v) == 2 for v in values):
        return perplexity_stderr([(float(a), float(b)) for a, b in values])
    if all(isinstance(v, (int, float)) or hasattr(v, "dtype") for v in values):
        return mean_stderr([float(v) for v in values])
    return None


def metrics(found: dict[str, Any], samples: list[dict], higher: dict[str, bool]) -> dict[str, dict[str, Any]]:
    """lm-eval's aggregated values by metric (`metric,filter` where there are several filters), each with the
    number of documents that count towards it and its standard error."""
    filters = {sample["filter"] for sample in samples}
    table = {}
    for name, value in found.items():
        metric, _, chosen = name.partition(",")
        if not chosen or metric.endswith("_stderr") or metric in TOLD:
            continue
        values = [s[metric] for s in samples if s["filter"] == chosen and metric in s["metrics"]]
        table[metric if len(filters) == 1 else name] = {
            "value": float(value), "stderr": stderr(values), "n": len(values),
            "higher_is_better": bool(higher.get(metric, True))}  # fmt: skip
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


def sample_rows(samples: list[dict], answers: dict[int, list], generative: bool) -> list[dict[str, Any]]:
    """One flat row per document (and filter): what was asked and answered, and what it scored."""
    return [_row(sample, answers[sample["doc_id"]], generative) for sample in samples]


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
        if isinstance(value, (tuple, list)) and len(value) == 2:
            row |= {"loglikelihood": float(value[0]), "weight": float(value[1])}
            value = _exp(-float(value[0]) / float(value[1])) if value[1] else None
        if name not in TOLD and (value is None or isinstance(value, (int, float)) or hasattr(value, "dtype")):
            row[name] = None if value is None else float(value)
    return row


def _conduct(sample: dict, texts: list[str], prompt: str, finish: list[str]) -> dict[str, Any]:
    told = sample["metrics"]
    left_open = [strip_thinking(text, prompt)[1] for text in texts]
    count = len(texts)
    return {
        "unparsed": float(sample["unparsed"]) if "unparsed" in told else None,
        "unfinished": float(sample["unfinished"]) if "unfinished" in told else sum(left_open) / count,
        "empty": sum(not text.strip() for text in texts) / count,
        "truncated": sum(reason == "length" for reason in finish) / count,
        "repetition": sum(repetition(text) > REPETITIVE for text in texts) / count,
    }


def write_samples(rows: list[dict], path: Path) -> None:
    """The rows as Parquet (zstd)."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    pq.write_table(table, path, compression="zstd")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _exp(value: float) -> float:
    return math.exp(value) if value < 709 else math.inf
