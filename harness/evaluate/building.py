"""What a task asks: lm-eval's requests, built once for all models that are asked the same.

Heavy: imports lm-eval.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakValueDictionary

import lm_eval.api.task
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask
from lm_eval.filters import build_filter_ensemble
from lm_eval.tasks import TaskManager

from harness.errors import HarnessError
from harness.evaluate import EvalRequest
from harness.evaluate.decoding import decoding
from harness.evaluate.lm import ChatTemplate
from harness.evaluate.lm_eval_tasks import local_data, own_hint
from harness.evaluate.store import canonical
from harness.evaluate.task_file import TaskFile
from harness.evaluate.task_run import KINDS

FEWSHOT_SEED = 1234  # lm-eval's command line
ARGUMENTS = {"generate": ("context", "kwargs"), "loglikelihood": ("context", "continuation"),
             "loglikelihood_rolling": ("text",)}  # fmt: skip
Loaded = dict[str, tuple[ConfigurableTask, dict | None]]

_building = threading.Lock()  # lm-eval's loader writes to sys.modules
_once = threading.Lock()  # threads that want the same task load it once
_loaded: WeakValueDictionary[Any, _Kept] = WeakValueDictionary()
_asked: WeakValueDictionary[Any, Asked] = WeakValueDictionary()
lm_eval.api.task.tqdm = lambda items, **_: items  # its bar over request building would tear our own screen


@dataclass(frozen=True)
class Question:
    """One request: what the engine gets, and the canonical text that identifies it."""

    instance: Instance
    body: dict[str, Any]
    text: str


@dataclass
class Asked:
    """All that a task asks with one set of settings. `questions` are by lm-eval's type of request, in the
    order in which lm-eval asks its model; `rendered` are the chats that became prompts. Shared by rows and
    threads: `tasks` gives copies to score with."""

    built: dict[str, ConfigurableTask]
    questions: dict[str, list[Question]]
    rendered: dict[str, str] = field(default_factory=dict)

    def tasks(self) -> dict[str, ConfigurableTask]:
        """The built tasks by name, to be scored once: lm-eval keeps responses in them."""
        return {name: _unanswered(task) for name, task in self.built.items()}


@dataclass
class _Kept:
    tasks: Loaded


def asked_by(
    request: EvalRequest,
    numerics: Mapping[str, Any],
    template: str | None,
    chats: ChatTemplate | None,
    kept: dict[Any, Any],
) -> Asked:
    """What `request` asks. `kept` (by settings) holds what one evaluator has built, other threads find it
    there as long as it does. `template` identifies the chat template, None for plain prompts."""
    file = (request.task.path, request.split, request.task.score_hash)
    settings = {
        "generation": request.generation,
        "repeats": request.repeats,
        "limit": request.limit,
        "seed": request.seed,
        "numerics": dict(numerics),
        "template": template,
    }
    key = (file, canonical(settings))
    found = kept.get(key) or _asked.get(key)
    if found is None:
        with _once:
            loaded = kept.get(file) or _loaded.get(file) or _Kept(build(request.task, request.split))
            kept[file] = _loaded[file] = loaded
        found = _ask(request, numerics, chats, loaded.tasks)
    kept[key] = _asked[key] = found
    return found


def _ask(
    request: EvalRequest, numerics: Mapping[str, Any], chats: ChatTemplate | None, loaded: Loaded
) -> Asked:
    tasks = {name: _set(task, own, request) for name, (task, own) in loaded.items()}
    for task in tasks.values():
        task.build_all_requests(
            limit=request.limit,
            apply_chat_template=chats is not None,
            fewshot_as_multiturn=True,
            chat_template=chats,
        )
    calls: dict[str, list[Instance]] = {}
    for task in tasks.values():
        for instance in task.instances:
            calls.setdefault(instance.request_type, []).extend([instance] * instance.repeats)
    for kind in calls:
        if kind not in KINDS:
            raise HarnessError(
                f"task `{request.task.name}` asks for `{kind}`, which no engine answers",
                f"it can be one of {', '.join(KINDS)}",
            )
    questions = {kind: _questions(kind, given, numerics, request.seed) for kind, given in calls.items()}
    return Asked(tasks, questions, chats.rendered if chats else {})


def _questions(
    kind: str, instances: list[Instance], numerics: Mapping[str, Any], seed: int
) -> list[Question]:
    """A request that occurs more than once (repeats) is asked as often; a seed belongs to a request only
    where something is drawn."""
    seen: Counter[str] = Counter()
    found = []
    for instance in instances:
        body = dict(zip(ARGUMENTS[KINDS[kind]], instance.args, strict=True))
        text = json.dumps(body, sort_keys=True)
        drawn = {"seed": seed} if body.get("kwargs", {}).get("do_sample") else {}
        identity = {"kind": KINDS[kind], **body, **numerics, **drawn, "repeat": seen[text]}
        found.append(Question(instance, body | {"seed": [seed, seen[text]]}, canonical(identity)))
        seen[text] += 1
    return found


def _set(task: ConfigurableTask, own: dict | None, request: EvalRequest) -> ConfigurableTask:
    """A copy of a loaded task with the request's settings; its examples are drawn as in lm-eval's command."""
    task = _copy(task)
    task._config = copy.copy(task.config)
    if hasattr(task, "sampler"):
        task.sampler = copy.copy(task.sampler)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    if own is not None:
        task.set_config("generation_kwargs", decoding(own, request.generation))
        _repeat(task, request.repeats)
    return task


def _copy(task: ConfigurableTask) -> ConfigurableTask:
    made = object.__new__(type(task))
    made.__dict__.update(task.__dict__)
    return made


def _unanswered(task: ConfigurableTask) -> ConfigurableTask:
    task, instances = _copy(task), []
    for instance in task.instances:
        fresh = copy.copy(instance)
        fresh.resps, fresh.filtered_resps = [], {}
        instances.append(fresh)
    task._instances = instances
    docs = {instance.doc_id: instance.doc for instance in instances}
    # What was asked is scored: neither built again nor read from the data, which costs as much as scoring.
    task.build_all_requests = lambda **_: None
    task.doc_iterator = lambda **_: iter(docs.items())
    return task


def _repeat(task: ConfigurableTask, count: int) -> None:
    """Ask each row `count` times and show the scorer all responses; lm-eval would show it the first."""
    if task.config.filter_list is not None and count == (task.config.repeats or 1):
        return  # the task says itself what it makes of its responses
    task.set_config("repeats", count)
    keep = ["take_first", None] if count == 1 else ["take_first_k", {"k": count}]
    task._filters = [build_filter_ensemble("none", [keep])]


def build(file: TaskFile, split: str) -> Loaded:
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
    if task.get_config("num_fewshot") is None:
        task.set_config("num_fewshot", 0)
    settings = task.config.generation_kwargs if file.uses_generation else None
    return task, settings and dict(settings)
