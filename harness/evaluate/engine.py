"""The parent's side of an engine: a child process that holds a model and answers requests.

Light: imports neither torch nor lm-eval; the child does.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from harness.errors import HarnessError
from harness.evaluate import wire
from harness.evaluate.child import Child, Nursery, Spawned, surroundings
from harness.measure import peak_mib

STRIKES = 3
ENGINES = ("hf", "vllm")


class EvaluationError(HarnessError):
    """The engine could not do its work; the message holds its own last words."""


class Stopped(BaseException):
    """The run was interrupted while an engine was answering; not a failure of the step."""


class _Died(Exception):
    """The child ended without an answer."""


class Engine:
    """One engine process. It is started when first needed (or by `start`) and again when it dies, until it is
    closed: who still waits for answers then, in another thread, is told by `Stopped`.

    `settings` go to the engine as they are (device, dtype, batch_size, threads). What the child prints goes
    to `log`. The child ends by itself when this process does, however that ends. With a `nursery` it is a
    fork of that.
    """

    def __init__(
        self, name: str, settings: dict[str, Any], log: Path | None = None, nursery: Nursery | None = None
    ) -> None:
        self.name, self.settings = name, settings
        self.asked = 0  # requests handed to a child, repeats after a death included
        self.loaded: dict[str, Any] = {}
        self.warnings: list[str] = []  # why a child was replaced that should have been able to go on
        self._checkpoint: tuple | None = None
        self._child: Child | None = None
        self._nursery = nursery
        self.exit_code: int | None = None  # of the last child that ended
        self._ready = self._gone = self._closed = False
        self._peak = 0.0
        self._own_log = tempfile.NamedTemporaryFile(suffix=".log") if log is None else None
        self.log = Path(self._own_log.name) if log is None else log

    def start(self) -> None:
        """Begin starting the child; returns at once."""
        if self._closed:
            raise Stopped
        if self._child is not None:
            return
        begin = Spawned if self._nursery is None else self._nursery.fork
        self.log.parent.mkdir(parents=True, exist_ok=True)
        to_child, from_parent = os.pipe()
        to_parent, from_child = os.pipe()
        self._to, self._from = os.fdopen(from_parent, "wb"), os.fdopen(to_parent, "rb")
        self._ready, self._gone, self._checkpoint = False, False, None
        try:
            with self.log.open("ab") as log:
                self._child = begin(self.name, (to_child, from_child), self._environment(), log.fileno())
        finally:
            os.close(to_child)
            os.close(from_child)
        if self._closed:  # meanwhile
            self.kill()
            raise Stopped
        with contextlib.suppress(_Died):  # whoever waits for an answer finds that out, and counts it
            self._send(self.settings)

    def _environment(self) -> dict[str, str]:
        threads, gpus = self.settings.get("threads"), self.settings.get("gpus")
        chosen = {"OMP_NUM_THREADS": str(threads)} if threads else {}
        return {**surroundings(), **chosen, **({"CUDA_VISIBLE_DEVICES": gpus} if gpus else {})}

    def run(self, checkpoint: Path, kind: str, requests: Sequence[dict]) -> Iterator[list[tuple[int, Any]]]:
        """Answers to `requests` by the model at `checkpoint`, as (index, answer) lists in the order in which
        batches finish. `kind` is `generate`, `loglikelihood` or `loglikelihood_rolling`. Keep a list before
        asking for the next: the child goes on to the one after that only then.

        When the child dies it is started again and what it had not answered is repeated; three deaths
        without an answer between them raise EvaluationError.
        """
        left, strikes = dict(enumerate(requests)), 0
        while left:
            try:
                for part in self._answers(checkpoint, kind, left):
                    strikes = 0
                    for index, _ in part:
                        del left[index]
                    yield part
            except _Died:
                strikes += 1
                self._strike(strikes, f"{kind} on {checkpoint}")

    def render(self, checkpoint: Path, messages: list[dict], add_generation_prompt: bool) -> str:
        """A chat as the prompt of the model at `checkpoint`, by its tokenizer's template."""
        strikes = 0
        while True:
            try:
                self._load(checkpoint)
                self._send({"do": "render", "messages": messages, "generate": add_generation_prompt})
                return self._receive(checkpoint)["text"]
            except _Died:
                strikes += 1
                self._strike(strikes, f"chat template of {checkpoint}")

    def _answers(self, checkpoint: Path, kind: str, left: dict[int, dict]) -> Iterator[list]:
        self._load(checkpoint)
        self.asked += len(left)
        finished = False
        try:
            self._send({"do": kind, "requests": list(left.items())})
            while not finished:
                message = self._receive(checkpoint)
                finished = "done" in message
                if not finished:
                    yield [(index, answer) for index, answer in message["answers"]]
                    self._send({"stored": True})  # whoever asks for more has kept what there was
        finally:
            if not finished:  # given up half-way: the pipe holds answers to questions nobody asks any more
                self.kill()

    def _load(self, checkpoint: Path) -> None:
        self._begin(checkpoint)
        state = _state(checkpoint)
        if self._checkpoint == state:
            return
        answer = self._loaded_by_child(checkpoint)
        if "restart" in answer:  # that process cannot have this checkpoint; a new one can
            if answer.get("warning"):
                self.warnings.append(answer["restart"])
            self.kill()
            self._begin(checkpoint)
            answer = self._loaded_by_child(checkpoint)
        if "restart" in answer:
            raise EvaluationError(
                f"engine `{self.name}` does not take {checkpoint}: {answer['restart']}",
                f"the engine's log: {self.log}",
            )
        self.loaded, self._checkpoint = answer, state

    def _begin(self, checkpoint: Path) -> None:
        self.start()
        if not self._ready:
            self._receive(checkpoint)
            self._ready = True

    def _loaded_by_child(self, checkpoint: Path) -> dict[str, Any]:
        self._checkpoint = None
        self._send({"do": "load", "checkpoint": str(checkpoint)})
        return self._receive(checkpoint)["loaded"]

    def _send(self, message: Any) -> None:
        try:
            wire.send(self._to, message)
        except (OSError, ValueError) as error:
            self._lost(error)

    def _lost(self, error: Exception) -> NoReturn:
        """The child is gone, or another thread has closed its pipes."""
        if isinstance(error, ValueError) and not self._to.closed:
            raise error
        self._gone = True
        raise _Died from None

    def _receive(self, checkpoint: Path) -> dict:
        try:
            message = wire.receive(self._from)
        except (EOFError, OSError, ValueError) as error:
            self._lost(error)
        if "error" not in message:
            return message
        if message["where"] == "load":  # the child is well, the checkpoint is not
            raise HarnessError(
                f"checkpoint {checkpoint} cannot be evaluated: {message['error']}",
                message.get("hint") or f"the engine's log: {self.log}",
            )
        self.kill()
        raise EvaluationError(
            f"engine `{self.name}` failed in {message['where']} on {checkpoint}: {message['error']}",
            f"the engine's log: {self.log}",
        )

    def _strike(self, count: int, doing: str) -> None:
        self.kill()
        if self._closed:
            raise Stopped
        if count >= STRIKES:
            last = " | ".join(self.last_lines(3)) or "it said nothing"
            raise EvaluationError(
                f"engine `{self.name}` died {count} times (exit code {self.exit_code}) in {doing}: {last}",
                f"the engine's log: {self.log}",
            )

    def last_lines(self, count: int) -> list[str]:
        """The last lines the child printed."""
        text = self.log.read_text(encoding="utf-8", errors="replace") if self.log.exists() else ""
        return [line.strip() for line in text.splitlines() if line.strip()][-count:]

    def peak_mib(self) -> float:
        """Highest resident set of any child so far, MiB."""
        if self._child is not None:
            self._peak = max(self._peak, peak_mib(self._child.pid or 0))
        return self._peak

    @property
    def pid(self) -> int | None:
        """Process id of the child, None when there is none."""
        return self._child.pid if self._child else None

    def kill(self) -> None:
        """End the child at once."""
        child, self._child = self._child, None
        if child is None:
            return
        try:
            self.exit_code = child.kill(0.5 if self._gone else 0)
        finally:
            for pipe in (self._to, self._from):
                with contextlib.suppress(OSError):  # unsent bytes to a dead child
                    pipe.close()

    def close(self) -> None:
        """End the child, and start no other."""
        self._closed = True
        self.kill()


def _state(checkpoint: Path) -> tuple:
    """A folder and what is in it now: the same place may hold another model later."""
    files = sorted(checkpoint.iterdir()) if checkpoint.is_dir() else []
    stats = [(file.name, file.stat()) for file in files if file.is_file()]
    return (str(checkpoint), *((name, s.st_ino, s.st_size, s.st_mtime_ns) for name, s in stats))
