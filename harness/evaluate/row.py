"""All tasks of one model as one stream of requests to its engine; each is scored while the engine goes on.

Light at import; what it calls imports lm-eval.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from harness.evaluate.engine import STRIKES
from harness.evaluate.task_run import KINDS, TaskRun

if TYPE_CHECKING:
    from harness.evaluate import EvalRequest, Evaluator

    Progress = Callable[[EvalRequest, int, int, int], None]
    Finished = Callable[[EvalRequest, dict[str, Any] | Exception], None]


class Scoring:
    """What is still being scored of a row whose requests are all answered."""

    def __init__(self, left: Sequence[Future] = ()) -> None:
        self._left = left

    def wait(self) -> None:
        """Until `finished` has been called for every request of the row; raises what it raised."""
        wait(self._left)
        for future in self._left:
            future.result()


def evaluate_row(
    evaluator: Evaluator, requests: Sequence[EvalRequest], progress: Progress, finished: Finished
) -> Scoring:
    """Evaluate one model (all `requests` have the same `model` and `fingerprint`) on several tasks.

    `progress(request, done, all, tokens generated for those done)` is called in this thread as responses
    arrive; what it raises ends the row and is raised here, and what was answered until then is stored.
    `finished(request, record or exception)` is called once for each request, mostly in another thread: the
    record is that of `Evaluator.evaluate`, the exception says why this task (alone) failed. Returns when the
    engine has nothing more to do for the row; `wait` on what is returned before relying on `finished`.
    """
    row = _Row(evaluator, progress, finished)
    try:
        row.answer([task for request in requests if (task := row.gathered(request))])
    except BaseException:
        row.scorer.shutdown(wait=True, cancel_futures=True)
        raise
    finally:
        row.close()
    return Scoring(row.scored)


def evaluate_alone(
    evaluator: Evaluator, request: EvalRequest, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """A row of one task; see `Evaluator.evaluate`."""
    told: list[dict[str, Any] | Exception] = []
    show = lambda _, done, total, tokens: progress(done, total)  # noqa: E731
    evaluate_row(evaluator, [request], show, lambda _, record: told.append(record)).wait()
    if isinstance(told[0], Exception):
        raise told[0]
    return told[0]


class _EngineFailed(Exception):
    """args: what the engine raised, as opposed to what whoever uses its answers raised."""


class _Row:
    """The tasks of one model on their way through one engine."""

    def __init__(self, evaluator: Evaluator, progress: Progress, finished: Finished) -> None:
        self.evaluator, self.progress, self.finished = evaluator, progress, finished
        self.scorer = ThreadPoolExecutor(1, "scoring")
        self.scored: list[Future] = []
        self.tasks: list[TaskRun] = []
        self.answered = 0

    def close(self) -> None:
        """Nothing more is scored than what is queued; stores of tasks that were given up are closed."""
        self.scorer.shutdown(wait=False)
        for task in self.tasks:
            task.store.close()

    def gathered(self, request: EvalRequest) -> TaskRun | None:
        """What a task asks and what is known of it; None where it has failed."""
        try:
            task = TaskRun(request, self.evaluator)
        except Exception as error:
            self.finished(request, error)
            return None
        self.tasks.append(task)
        return task

    def answer(self, tasks: Sequence[TaskRun]) -> None:
        """Ask for what is missing. Where the engine fails, each task is asked for alone, so that one request
        that it cannot take costs one task; failures without an answer between them are the model's."""
        for task in tasks:
            self._tell(task)
        groups, strikes = [list(tasks)], 0
        while groups:
            group = [task for task in groups.pop(0) if task.open]
            before = self.answered
            try:
                self._stream(group)
            except _EngineFailed as failure:
                strikes = strikes + 1 if self.answered == before else 1
                left = [task for task in group if task.open]
                if strikes >= STRIKES:
                    left += [task for others in groups for task in others if task.open]
                    groups = []
                elif len(left) > 1:
                    groups = [[task] for task in left]
                    continue
                for task in left:
                    self._fail(task, failure.args[0])

    def _stream(self, tasks: Sequence[TaskRun]) -> None:
        for kind in KINDS.values():
            asking: dict[str, tuple[dict, list[TaskRun]]] = {}
            for task in tasks:
                for key, body in task.missing(kind):
                    asking.setdefault(key, (body, []))[1].append(task)
            if not asking:
                continue
            keys, left, since = list(asking), len(asking), time.perf_counter()
            with contextlib.closing(self._parts(kind, [body for body, _ in asking.values()])) as parts:
                for part in parts:
                    self.answered += len(part)
                    left -= len(part)
                    answers: dict[TaskRun, dict[str, Any]] = {}
                    for index, answer in part:
                        for task in asking[keys[index]][1]:
                            answers.setdefault(task, {})[keys[index]] = answer
                    now = time.perf_counter()
                    self._keep(answers, now - since)
                    since = now
                    # answers that nobody waits for any more cost a new engine, so only then
                    if left and not any(task.open for _, asked_by in asking.values() for task in asked_by):
                        break

    def _parts(self, kind: str, bodies: list[dict]) -> Iterator[list[tuple[int, Any]]]:
        try:
            yield from self.evaluator.engine.run(self.tasks[0].request.model, kind, bodies)
        except Exception as error:
            raise _EngineFailed(error) from error

    def _keep(self, answers: dict[TaskRun, dict[str, Any]], seconds: float) -> None:
        count = sum(map(len, answers.values()))
        for task, given in answers.items():
            if not task.open:
                continue
            task.seconds["engine"] += seconds * len(given) / count
            try:
                task.keep(given)
            except Exception as error:  # its store's
                self._fail(task, error)
            else:
                self._tell(task)

    def _tell(self, task: TaskRun) -> None:
        self.progress(task.request, task.done, task.total, task.tokens)
        if task.done == task.total:
            task.close()
            self.scored.append(self.scorer.submit(self._score, task, dict(self.evaluator.engine.loaded)))

    def _score(self, task: TaskRun, engine: dict[str, Any]) -> None:
        try:
            record = task.record(engine)
        except Exception as error:
            self.finished(task.request, error)
        else:
            self.finished(task.request, record)

    def _fail(self, task: TaskRun, error: Exception) -> None:
        task.close()
        self.finished(task.request, error)
