"""All tasks of one model as one stream of requests to its engine; each is scored while the engine goes on.

Heavy once used: imports lm-eval.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from typing import Any

from harness.evaluate import EvalRequest, Evaluator

Progress = Callable[[EvalRequest, int, int], None]
Finished = Callable[[EvalRequest, "dict[str, Any] | Exception"], None]


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

    `progress(request, done, all)` is called in this thread as responses arrive; what it raises ends the row
    and is raised here, and what was answered until then is stored. `finished(request, record or exception)`
    is called once for each request, mostly in another thread: the record is that of `Evaluator.evaluate`, the
    exception says why this task (alone) failed. Returns when the engine has nothing more to do for the row;
    `wait` on what is returned before relying on `finished`.
    """
    for request in requests:
        try:
            record = evaluator.evaluate(request, lambda done, total, r=request: progress(r, done, total))
        except Exception as error:
            finished(request, error)
        else:
            finished(request, record)
    return Scoring()
