"""One evaluation through lm-eval's API: build the task once, ask, score, write the folder.

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

import lm_eval.api.task
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks import TaskManager

from harness.errors import HarnessError
from harness.evaluate import EvalRequest
from harness.evaluate.decoding import decoding
from harness.evaluate.engine import Engine
from harness.evaluate.lm import StoredLM
from harness.evaluate.lm_eval_tasks import local_data, own_hint
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
            built = _tasks(request, tasks)
            ready = time.perf_counter()
            lm = StoredLM(
                engine,
                store,
                request.model,
                numerics=numerics,
                seed=request.seed,
                progress=progress,
                prompts=prompts,
                ahead=_ahead(built),
            )
            found = evaluate(
                lm,
                built,
                limit=request.limit,
                bootstrap_iters=0,
                apply_chat_template=request.chat_template,
                fewshot_as_multiturn=True,
            )
        finally:
            store.close()
        answered = time.perf_counter()
        record = _record(request, built, lm, found)
        write_end = time.perf_counter()
        spent = {"task": ready - begun, "engine": lm.waited, "lm_eval": answered - ready - lm.waited,
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


def _record(
    request: EvalRequest, built: dict[str, ConfigurableTask], lm: StoredLM, found: dict
) -> dict[str, Any]:
    generative, judged = request.task.uses_generation, request.task.judge is not None
    parts = {name: found["samples"][name] for name in built}
    rows = sample_rows(parts, lm.answers, generative, judged, request.task.cluster)
    write_samples(rows, request.folder / "samples.parquet")
    tokens = [answer["tokens"] for given in lm.answers.values() for _, answer in given if generative]
    first = next(iter(built.values()))
    results = {name: found["results"][name] for name in built}
    record = {
        "metrics": metrics(results, parts, first.higher_is_better(), first.aggregation()),
        "rates": rates(rows) if generative else {},
        "tokens_per_response": sum(tokens) / len(tokens) if tokens else None,
        "generated": lm.generated,
        "from_store": lm.from_store,
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


def _tasks(request: EvalRequest, tasks: dict) -> dict[str, ConfigurableTask]:
    """The built lm-eval tasks by name, from `tasks` where their files have not changed, with this request's
    settings. A group has several."""
    key = (request.task.path, request.split, request.task.score_hash)
    if key not in tasks:
        tasks[key] = build(request.task, request.split)
    for task, settings in tasks[key].values():
        if settings is not None:
            task.set_config("generation_kwargs", decoding(settings, request.generation))
            _repeat(task, request.repeats)
    return {name: task for name, (task, _) in tasks[key].items()}


def _repeat(task: ConfigurableTask, count: int) -> None:
    """Ask each row `count` times and show the scorer all responses; lm-eval would show it the first."""
    if task.config.filter_list is not None and count == (task.config.repeats or 1):
        return  # the task says itself what it makes of its responses
    task.set_config("repeats", count)
    keep = ["take_first", None] if count == 1 else ["take_first_k", {"k": count}]
    task._filters = [build_filter_ensemble("none", [keep])]


def build(file: TaskFile, split: str) -> dict[str, tuple[ConfigurableTask, dict | None]]:
    """lm-eval's tasks for a benchmark by name, with their own generation settings. Reads the data;
    HarnessError where that, or the task's file, is at fault."""
    files = {part.config["task"]: part for part in file.members or (file,)}
    try:
        with _building, local_data(file):
            manager = TaskManager(
                include_defaults=False, include_path=str(file.path.parent) if file.members else None
            )
            wanted = list(files) if file.members else [str(file.path)]
            loaded = manager.load(wanted)["tasks"]
    except HarnessError as error:
        raise HarnessError(error.message, own_hint(file) or error.hint) from error
    except Exception as error:  # a task's YAML and Python are its author's; lm-eval raises all kinds
        reason = next(iter(str(error).strip().splitlines()), "")
        fact = f"task `{file.name}` cannot be built: {type(error).__name__}: {reason}"
        raise HarnessError(fact, own_hint(file) or f"mend {file.path}") from error
    return {name: _prepared(part, loaded[name], split) for name, part in files.items()}


def _prepared(file: TaskFile, task: ConfigurableTask, split: str) -> tuple[ConfigurableTask, dict | None]:
    task.set_config("test_split", file.split(split))
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    settings = task.config.generation_kwargs if file.uses_generation else None
    return task, settings and dict(settings)


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
