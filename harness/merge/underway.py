"""One job under way. Torch-free."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

from harness.merge.output import Output


class Run:
    """One job under way. `output` is None for a whole-model method, which has its own; `kind` is that of
    the buffers it is computed in."""

    def __init__(self, job: Any, output: Output | None, kind: str) -> None:
        self.job, self.output, self.kind = job, output, kind
        self.name = f"method `{type(job.method).method_name}`"
        statistics = tuple((key, str(model.path)) for key, model in sorted(job.scores.items()))
        self.view = (kind, job.seed, statistics)
        self.preparation: Any = None
        self.figures: Any = None  # `masks.Figures`, if the job wants them
        self.error: Exception | None = None
        self.record: dict[str, Any] | None = None  # of a finished job
        self.method_seconds = 0.0
        self.resumed = 0
        self.left: Counter[str] = Counter()  # blocks that are not written, by tensor

    @contextlib.contextmanager
    def guarded(self) -> Iterator[None]:
        """An exception of this job's method ends this job."""
        try:
            yield
        except Exception as error:
            self.error = error
