"""Evaluates checkpoints on tasks: lm-eval decides what is asked and how it is scored, an engine answers.

Light at import: torch and lm-eval come with the first evaluation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.evaluate.child import Nursery
from harness.evaluate.choice import EngineSettings, numerics
from harness.evaluate.engine import ENGINES, Engine, EvaluationError
from harness.evaluate.task_file import Column, TaskFile, load_task

__all__ = ["Column", "EngineSettings", "EvalRequest", "EvaluationError", "Evaluator", "TaskFile", "load_task"]


@dataclass(frozen=True)
class EvalRequest:
    """One model on one task. `fingerprint` is the model's content hash (weights, config and tokenizer).

    `folder` receives `samples.parquet` and `log.txt`. `responses` is the SQLite file of this (fingerprint,
    task). `generation` holds lm-eval generation settings (`max_gen_toks`, `do_sample`, `temperature`,
    `top_p`, ...) that replace the task's own. `limit` is the number of documents, None for all. `split` is
    `test` or `validation`. `seed` decides what is drawn when sampling; `repeats` is how
    often each row is asked.
    """

    model: Path
    fingerprint: str
    task: TaskFile
    folder: Path
    responses: Path
    generation: dict[str, Any] = field(default_factory=dict)
    chat_template: bool = True
    limit: int | None = None
    seed: int = 0
    split: str = "test"
    repeats: int = 1


class Evaluator:
    """A context manager around one engine process; several may live in one process, one per thread.

    `settings.dtype` `auto`: float32 on a CPU (the weights are widened exactly, and no answer of `hf` depends
    on its batch), the checkpoint's own on a GPU. `settings.batch_size` None: `hf` takes 128 up to 0.1 B
    parameters, else 8; `vllm` 256. `threads` None: torch's choice. `gpus` are all that the engine sees, as
    `CUDA_VISIBLE_DEVICES` names them; () for what is there. What the engine prints goes to `log`. In a
    `nursery` it shares the imports of others.
    """

    def __init__(
        self,
        engine: str = "hf",
        *,
        settings: EngineSettings | None = None,
        batch_size: int | None = None,
        device: str = "auto",
        threads: int | None = None,
        gpus: tuple[str, ...] = (),
        log: Path | None = None,
        nursery: Nursery | None = None,
    ) -> None:
        if engine not in ENGINES:
            raise HarnessError(f"no engine is called `{engine}`", nearest(engine, ENGINES))
        settings = settings or EngineSettings(batch_size=batch_size)
        given = {**settings.model_dump(), "device": device, "threads": threads, "gpus": ",".join(gpus)}
        self.engine = Engine(engine, given, log, nursery)
        self._numerics = numerics(engine, settings)
        self._tasks: dict[Any, Any] = {}
        self._prompts: dict[str, str] = {}

    def start(self) -> None:
        """Begin starting the engine (its imports take seconds); returns at once."""
        self.engine.start()

    def evaluate(self, request: EvalRequest, progress: Callable[[int, int], None] | None = None) -> dict:
        """Carry out one request; `progress(done, all)` is called as responses arrive.

        Returns {"metrics": {metric: {"value", "stderr", "n", "higher_is_better"}}, "rates": {"unparsed",
        "unfinished", "empty", "truncated", "repetition"} (0 to 1; {} for a task that generates nothing),
        "tokens_per_response", "generated", "from_store", "seconds": {...}, "engine": {...}}. Raises
        HarnessError for a checkpoint or task that cannot be used, EvaluationError when the engine fails.
        """
        from harness.evaluate.row import evaluate_alone

        return evaluate_alone(self, request, progress or (lambda done, total: None))

    def peak_mib(self) -> float:
        """Highest resident set of the engine process so far, MiB."""
        return self.engine.peak_mib()

    def close(self) -> None:
        """End the engine process."""
        self.engine.close()

    def __enter__(self) -> Evaluator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
