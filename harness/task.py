"""What a benchmark's file gives: its rows, and a scorer: one response and its row in, one `Score` out."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import comb
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"
TOLD = ("unparsed", "unfinished")  # metrics that say how a response went, not how good it is


@dataclass(frozen=True)
class Score:
    """What a scorer says of one response.

    `value` is the metric's value for this row, or a mapping of metric -> value when one response feeds
    several columns; None means that the row does not count towards the metric. `unparsed`: an answer was
    expected and none was found. `unfinished`: the thinking was never closed, so there is no answer to grade.
    """

    value: float | None | Mapping[str, float | None]
    unparsed: bool = False
    unfinished: bool = False

    def values(self, metric: str) -> dict[str, float]:
        """Metric -> value for the metrics that the row counts towards."""
        found = self.value if isinstance(self.value, Mapping) else {metric: self.value}
        return {key: float(value) for key, value in found.items() if value is not None}


def opens_thinking(prompt: str) -> bool:
    """Whether the prompt ends in `<think>`, so that the response begins inside the thinking."""
    return prompt.rstrip().endswith(THINK_OPEN)


def strip_thinking(response: str, prompt: str = "") -> tuple[str, bool]:
    """(the text after the last `</think>`, whether thinking was left open).

    The tail of `prompt` counts as text before the response, because some chat templates open `<think>` there.
    """
    _, closed, answer = response.rpartition(THINK_CLOSE)
    if not closed:
        answer = response
    opened = THINK_OPEN in answer or (not closed and opens_thinking(prompt))
    return ("", True) if opened else (answer, False)


def thinking_of(response: str) -> str:
    """The text before the last `</think>`, without tags; of thinking never closed, all after `<think>`."""
    thought, closed, _ = response.rpartition(THINK_CLOSE)
    if not closed:
        _, _, thought = response.partition(THINK_OPEN)
    return thought.replace(THINK_OPEN, "").strip()


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of the chance that one of `k` responses is right, from `correct` of `n` that are:
    1 - C(n - c, k) / C(n, k) (Chen et al., arXiv:2107.03374, equation 1)."""
    if not 0 <= correct <= n or not 1 <= k <= n:
        raise ValueError(f"pass@{k} of {correct} right among {n}")
    return 1.0 - comb(n - correct, k) / comb(n, k)


def scorer(metric: str, *, lower: bool = False, parallel: bool = False) -> Callable[..., Any]:
    """Turn `score(response, row) -> Score` into lm-eval's `process_results(doc, results)`.

    The thinking is stripped before `score` sees the response. An unfinished response is never shown to it:
    the row gets 0 for each metric that it counts towards, and where `lower` is better it does not count at
    all (a model that never answers is not safe). The result holds `metric` (or the metrics of a mapping
    value) plus `unparsed` and `unfinished`, which lm-eval averages like any metric. A metric to which the
    row does not count is left out.

    With several responses to a row (lm-eval's `repeats`) each value is their mean (avg@k), and `pass@j` is
    added for j = 1, 2, 4, ... up to their number, a response counting as right at a value of 1.

    `parallel`: `score` waits on another process; the harness calls it for several rows at once. Its rows need
    a unique `id`.
    """

    def wrap(score: Callable[[str, dict], Score]) -> Callable[[dict, list], dict[str, Any]]:
        known: dict[tuple[str, str], Score] = {}
        lock = threading.Lock()

        def judged(answer: str, doc: dict) -> Score:
            if not parallel:
                return score(answer, doc)
            key = (str(doc["id"]), hashlib.sha256(answer.encode("utf-8", "surrogatepass")).hexdigest())
            if key not in known:
                found = score(answer, doc)
                with lock:
                    known[key] = found
            return known[key]

        def one(doc: dict, response: str) -> tuple[dict[str, float], bool, bool]:
            answer, unfinished = strip_thinking(response)
            if unfinished and lower:
                return {}, False, True
            verdict = judged(answer, doc)
            values = verdict.values(metric)
            if unfinished:  # the scorer saw an empty answer, to tell which metrics the row counts towards
                return dict.fromkeys(values, 0.0), False, True
            return values, verdict.unparsed, verdict.unfinished

        def process_results(doc: dict, results: list) -> dict[str, Any]:
            given = results[0] if isinstance(results[0], (list, tuple)) else [results[0]]
            told = [one(doc, response) for response in given]
            values = _means([found for found, _, _ in told])
            if len(given) > 1:
                values |= _passes([found.get(metric) for found, _, _ in told])
            share = [sum(flags) / len(given) for flags in zip(*(t[1:] for t in told), strict=True)]
            return values | dict(zip(TOLD, map(float, share), strict=True))

        def ahead(pairs: Iterable[tuple[dict, str]], workers: int) -> None:
            """Score (row, response) pairs, `workers` at once; `process_results` then finds them done."""
            with ThreadPoolExecutor(workers) as pool:
                list(pool.map(lambda pair: one(*pair), pairs))

        process_results.score = score  # type: ignore[attr-defined]
        if parallel:
            process_results.ahead = ahead  # type: ignore[attr-defined]
        return process_results

    return wrap


def _means(found: Sequence[dict[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for values in found for name in values)
    by_name = {name: [values[name] for values in found if name in values] for name in names}
    return {name: sum(values) / len(values) for name, values in by_name.items()}


def _passes(values: Sequence[float | None]) -> dict[str, float]:
    counted = [value for value in values if value is not None]
    correct = sum(value == 1.0 for value in counted)
    sizes = [1 << power for power in range(len(counted).bit_length())]
    return {f"pass@{k}": pass_at_k(len(counted), correct, k) for k in sizes}


def generated(*splits: str) -> Callable[[Callable[[str], list[dict]]], Callable[..., dict[str, Any]]]:
    """Turn `rows(split) -> list[dict]` into lm-eval's `custom_dataset`, for data made by a program.

    `rows` must return the same rows whenever it is asked; it enters a task's identity by what it returns.
    """

    def wrap(rows: Callable[[str], list[dict]]) -> Callable[..., dict[str, Any]]:
        def custom_dataset(**_: Any) -> dict[str, Any]:
            from datasets import Dataset

            return {split: Dataset.from_list(rows(split)) for split in splits}

        custom_dataset.rows = rows  # type: ignore[attr-defined]
        custom_dataset.splits = splits  # type: ignore[attr-defined]
        return custom_dataset

    return wrap


def benchmark(function: Callable[..., Any] | None = None, *, whole: bool = False) -> Callable[..., Any]:
    """Turn a function of one official row into lm-eval's `custom_dataset`, for data that is fetched.

    The function gets a row of the official data (a dict) and returns the task's row, or None to leave it
    out. With `@benchmark(whole=True)` it gets (content of a file, the file's path) and returns an iterable of
    task rows, for layouts that are not one row per item. Where the data is stands in the YAML under
    `dataset_kwargs` (see docs/tasks.md). Raises HarnessError where data is missing or malformed.
    """

    def wrap(row: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
        def custom_dataset(**given: Any) -> dict[str, Any]:
            from datasets import Dataset

            from harness.data import Source, load

            source = Source.of(given)
            return {split: Dataset.from_list(load(source, split, row, whole)) for split in source.files}

        custom_dataset.row = row  # type: ignore[attr-defined]
        custom_dataset.whole = whole  # type: ignore[attr-defined]
        return custom_dataset

    return wrap if function is None else wrap(function)
