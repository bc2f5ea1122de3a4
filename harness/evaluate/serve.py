"""The child's side of an engine: `python -m harness.evaluate.serve ENGINE READ_FD WRITE_FD`.

Reads messages, lets the engine do the work, sends answers. See `engines/__init__.py` for what an engine is.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import signal
import sys
import threading
import traceback
from pathlib import Path
from typing import Any, BinaryIO

from harness import libraries
from harness.evaluate import wire
from harness.evaluate.engines import LoadError


def main() -> None:
    serve(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))


def serve(name: str, read: int, write: int) -> None:
    """An engine that reads and writes these pipes, until the parent is gone."""
    if sys.platform == "linux":  # as `ps` and `top` show it
        with contextlib.suppress(OSError):
            Path("/proc/self/comm").write_text(f"engine {name}", encoding="utf-8")
    inbox: queue.Queue = queue.Queue()
    threading.Thread(target=_listen, args=(os.fdopen(read, "rb"), inbox), daemon=True).start()
    out = os.fdopen(write, "wb")
    settings = inbox.get()
    try:
        module = name if "." in name else f"harness.evaluate.engines.{name}"
        with libraries.lean():
            made = importlib.import_module(module).Engine
        engine = made(settings)
    except Exception as error:
        _report(out, "start", error)
        return
    wire.send(out, {"ready": True})
    while True:
        _answer(engine, inbox.get(), inbox, out)


class _Answers:
    """Sends a chunk once the one before it is stored: one is on its way while the next is made, and no more
    is lost with either process."""

    def __init__(self, inbox: queue.Queue, out: BinaryIO) -> None:
        self._inbox, self._out, self._sent = inbox, out, False

    def send(self, answers: list) -> None:
        self.stored()
        wire.send(self._out, {"answers": answers})
        self._sent = True

    def stored(self) -> None:
        """Wait until the parent says that it has what was sent."""
        if self._sent:
            self._inbox.get()
            self._sent = False


def _listen(pipe: BinaryIO, inbox: queue.Queue) -> None:
    # A thread of its own notices at once that the parent is gone, even in the middle of a generation.
    # (A death signal of the kernel would fire when the thread ends that started this process.)
    while True:
        try:
            inbox.put(wire.receive(pipe))
        except EOFError:
            if os.getpgrp() == os.getpid():  # with the processes that the engine started
                os.killpg(0, signal.SIGKILL)
            os._exit(0)


def _answer(engine: Any, message: dict, inbox: queue.Queue, out: BinaryIO) -> None:
    what = message["do"]
    try:
        if what == "load":
            wire.send(out, {"loaded": engine.load(message["checkpoint"])})
        elif what == "render":
            wire.send(out, {"text": engine.render(message["messages"], message["generate"])})
        else:
            answers = _Answers(inbox, out)
            getattr(engine, what)(message["requests"], answers.send)
            answers.stored()
            wire.send(out, {"done": True})
    except LoadError as error:
        fact, hint = error.args
        wire.send(out, {"error": fact, "hint": hint, "where": "load"})
    except Exception as error:
        _report(out, what, error)


def _report(out: BinaryIO, where: str, error: Exception) -> None:
    traceback.print_exc()
    wire.send(out, {"error": f"{type(error).__name__}: {error}", "where": where})


if __name__ == "__main__":
    main()
