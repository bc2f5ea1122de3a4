"""The scorer contract of a benchmark: one response and its row in, one `Score` out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

THINK_OPEN, THINK_CLOSE = "<think>", "</think>"


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


def scorer(metric: str) -> Callable[[Callable[[str, dict], Score]], Callable[[dict, list], dict[str, Any]]]:
    """Turn `score(response, row) -> Score` into lm-eval's `process_results(doc, results)`.

    The thinking is stripped before `score` sees the response. An unfinished response is never shown to it:
    the row gets 0 for each metric that it counts towards. The result holds `metric` (or the metrics of a
    mapping value) plus `unparsed` and `unfinished`, which lm-eval averages like any metric. A metric to
    which the row does not count is left out.
    """

    def wrap(score: Callable[[str, dict], Score]) -> Callable[[dict, list], dict[str, Any]]:
        def process_results(doc: dict, results: list) -> dict[str, Any]:
            answer, unfinished = strip_thinking(results[0])
            verdict = score(answer, doc)
            values = verdict.value if isinstance(verdict.value, Mapping) else {metric: verdict.value}
            counted = {key: value for key, value in values.items() if value is not None}
            if unfinished:  # the scorer saw an empty answer, to tell which metrics the row counts towards
                return {**dict.fromkeys(counted, 0.0), "unparsed": 0.0, "unfinished": 1.0}
            told = {"unparsed": float(verdict.unparsed), "unfinished": float(verdict.unfinished)}
            return {key: float(value) for key, value in counted.items()} | told

        process_results.score = score  # type: ignore[attr-defined]
        return process_results

    return wrap


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
