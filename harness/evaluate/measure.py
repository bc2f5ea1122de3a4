"""One evaluation through lm-eval's API: build the task once, ask, score, write the folder.

Heavy: imports lm-eval.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from harness.errors import HarnessError
from harness.evaluate import EvalRequest
from harness.evaluate.engine import Engine
from harness.evaluate.lm import StoredLM
from harness.evaluate.results import metrics, rates, sample_rows, write_samples
from harness.evaluate.store import ResponseStore
from harness.evaluate.task_file import TaskFile

FEWSHOT_SEED = 1234  # lm-eval's command line
_building = threading.Lock()  # lm-eval's loader writes to sys.modules
lm_eval.api.task.tqdm = lambda items, **_: items  # its bar over request building would tear our own screen


def measure(
    request: EvalRequest,
    engine: Engine,
    numerics: dict[str, Any],
    tasks: dict,
    prompts: dict[str, str],
    progress: Callable[[int, int], None],
) -> dict[str, Any]:
    """See `Evaluator.evaluate`. `tasks` and `prompts` keep built tasks and rendered chats between calls."""
    begun = time.perf_counter()
    with _log_to(request.folder / "log.txt") as log:
        store = ResponseStore(request.responses, request.fingerprint)
        try:
            task = _task(request, tasks)
            built = time.perf_counter()
            lm = StoredLM(
                engine,
                store,
                request.model,
                numerics=numerics,
                seed=request.seed,
                progress=progress,
                prompts=prompts,
            )
            found = evaluate(
                lm,
                {"tasks": {task.config.task: task}},
                limit=request.limit,
                bootstrap_iters=0,
                apply_chat_template=request.chat_template,
                fewshot_as_multiturn=True,
            )
        finally:
            store.close()
        answered = time.perf_counter()
        record = _record(request, task, lm, found)
        write_end = time.perf_counter()
        spent = {"task": built - begun, "engine": lm.waited, "lm_eval": answered - built - lm.waited,
                 "write": write_end - answered, "all": write_end - begun}  # fmt: skip
        record["seconds"] = {name: round(seconds, 4) for name, seconds in spent.items()}
        record["engine"] = {**numerics, **{k: v for k, v in engine.loaded.items() if k != "seconds"}}
        log.info(
            "%s on %s: %d generated, %d from store; %s",
            request.task.name,
            request.model,
            lm.generated,
            lm.from_store,
            record["metrics"],
        )
    return record


def _record(request: EvalRequest, task: ConfigurableTask, lm: StoredLM, found: dict) -> dict[str, Any]:
    name, generative = task.config.task, request.task.uses_generation
    samples = found["samples"][name]
    rows = sample_rows(samples, lm.answers, generative)
    write_samples(rows, request.folder / "samples.parquet")
    tokens = [answer["tokens"] for given in lm.answers.values() for _, answer in given if generative]
    return {
        "metrics": metrics(found["results"][name], samples, task.higher_is_better()),
        "rates": rates(rows) if generative else {},
        "tokens_per_response": sum(tokens) / len(tokens) if tokens else None,
        "generated": lm.generated,
        "from_store": lm.from_store,
    }


def _task(request: EvalRequest, tasks: dict) -> ConfigurableTask:
    """The built lm-eval task, from `tasks` where its files have not changed, with this request's settings."""
    key = (request.task.path, request.split, request.task.score_hash)
    if key not in tasks:
        tasks[key] = _build(request.task, request.split)
    task, settings = tasks[key]
    if settings is not None:
        task.set_config("generation_kwargs", _decoding(settings, request.generation))
    return task


def _build(file: TaskFile, split: str) -> tuple[ConfigurableTask, dict | None]:
    try:
        with _building:
            loaded = TaskManager(include_defaults=False).load([str(file.path)])["tasks"]
        task = loaded[file.config["task"]]
    except Exception as error:  # a task's YAML and Python are its author's; lm-eval raises all kinds
        fact = f"task `{file.name}` cannot be built: {type(error).__name__}: {error}"
        raise HarnessError(fact, f"mend {file.path}") from error
    task.set_config("test_split", file.split(split))
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    settings = task.config.generation_kwargs if file.uses_generation else None
    return task, settings and dict(settings)


def _decoding(own: dict[str, Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """The task's generation settings with the request's over them. A temperature means sampling."""
    merged = {**own, **wanted}
    if "do_sample" not in wanted and "temperature" in wanted:
        merged["do_sample"] = wanted["temperature"] > 0
    if not merged.get("do_sample"):  # greedy: settings of a sampler would only make equal requests differ
        merged = {k: v for k, v in merged.items() if k not in ("temperature", "top_p", "top_k", "min_p")}
    return merged


class _OwnThread(logging.Filter):
    """Lets through what this thread logs: evaluators in other threads have logs of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.thread = threading.get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        return record.thread == self.thread


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[logging.Logger]:
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
