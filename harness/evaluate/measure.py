"""From the answers to one task's requests to its record and samples, through lm-eval's own scoring.

Heavy: imports lm-eval.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate

from harness.evaluate import EvalRequest
from harness.evaluate.building import Asked, build
from harness.evaluate.lm import AnsweredLM
from harness.evaluate.results import metrics, rates, sample_rows, write_samples

__all__ = ["build", "log_to", "scored"]


def scored(request: EvalRequest, asked: Asked, answers: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Score a task whose answers (by lm-eval's type of request, in its order) are all there, and write its
    samples. The record has the metrics, rates and tokens of `Evaluator.evaluate`, and the seconds of both."""
    begun = time.perf_counter()
    built = asked.tasks()
    lm = AnsweredLM(answers, _ahead(built))
    found = evaluate(
        lm,
        built,
        limit=request.limit,
        bootstrap_iters=0,
        apply_chat_template=False,  # the prompts are built
    )
    evaluated = time.perf_counter()
    record = _record(request, asked, answers, built, found)
    seconds = {"lm_eval": evaluated - begun, "write": time.perf_counter() - evaluated}
    return {**record, "seconds": seconds}


def _record(
    request: EvalRequest,
    asked: Asked,
    answers: dict[str, list[dict[str, Any]]],
    built: dict[str, ConfigurableTask],
    found: dict,
) -> dict[str, Any]:
    generative, judged = request.task.uses_generation, request.task.judge is not None
    parts = {name: found["samples"][name] for name in built}
    by_document: dict[tuple[str, int], list] = {}
    for kind, questions in asked.questions.items():
        for question, answer in zip(questions, answers[kind], strict=True):
            instance = question.instance
            by_document.setdefault((instance.task_name, instance.doc_id), []).append((instance, answer))
    rows = sample_rows(parts, by_document, generative, judged)
    write_samples(rows, request.folder / "samples.parquet")
    tokens = [answer["tokens"] for given in by_document.values() for _, answer in given if generative]
    first = next(iter(built.values()))
    results = {name: found["results"][name] for name in built}
    record = {
        "metrics": metrics(results, parts, first.higher_is_better(), first.aggregation()),
        "rates": rates(rows) if generative else {},
        "tokens_per_response": sum(tokens) / len(tokens) if tokens else None,
    }
    if request.task.executes_code:
        from harness import sandbox

        record["sandbox"] = sandbox.mode()
    return record


def _ahead(built: dict[str, ConfigurableTask]) -> Callable[[list[tuple[dict, str]]], None] | None:
    """Scores responses several at once before lm-eval asks one by one, for scorers that wait on a process."""
    (task, *others) = built.values()
    ahead = getattr(task.config.process_results, "ahead", None)
    if ahead is None or others:
        return None
    return lambda pairs: ahead(pairs, os.cpu_count() or 1)


class _OwnThread(logging.Filter):
    """Lets through what this thread logs: tasks in other threads have logs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread == self.thread


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[logging.Logger]:
    """lm-eval's warnings, and ours, go to the run's folder instead of the screen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ours = logging.getLogger("lm_eval.harness")
    theirs = logging.getLogger("lm_eval")
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    handler.addFilter(_OwnThread())
    theirs.addHandler(handler)
    theirs.propagate = False
    theirs.setLevel(logging.INFO)
    try:
        yield ours
    finally:
        theirs.removeHandler(handler)
        handler.close()
