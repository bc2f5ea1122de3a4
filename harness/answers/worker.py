"""Worker processes that compare expressions, each comparison under a limit of processor time and memory.

A comparison that runs away dies with its worker, and the next one starts a new worker. Workers start with the
first comparison and end with this process; several threads may compare at once.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import queue
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from harness.errors import HarnessError

SECONDS = 5  # processor time of one comparison
WALL = 6  # times that in elapsed time, for a machine so busy that processor time hardly passes
START = 60.0  # a first import of sympy from a cold disk
WORKERS = 2
CHILD = Path(__file__).with_name("worker_main.py")


class _Worker:
    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        command = [sys.executable, "-P", str(CHILD), str(seconds)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        self.rest = b""
        started = self._line(START)
        if started != b"ready":
            self.end()
            raise HarnessError(
                "the worker for mathematical answers did not start",
                f"`{sys.executable} -c 'import math_verify'` says why",
            )

    def ask(self, gold: str, found: str) -> bool | None:
        """The verdict, or None when the worker ended over it or was silent for too long."""
        question = json.dumps([gold, found]).encode() + b"\n"
        try:
            self.process.stdin.write(question)
            self.process.stdin.flush()
        except BrokenPipeError:
            return None
        answer = self._line(WALL * self.seconds)
        return {b"1": True, b"0": False}.get(answer)

    def _line(self, seconds: float) -> bytes:
        """The next line of the worker; empty when it ended or said nothing in time."""
        until, out = time.monotonic() + seconds, self.process.stdout.fileno()
        says = select.poll()  # not `select`, which takes no file descriptor above 1023
        says.register(out, select.POLLIN)
        while b"\n" not in self.rest:
            left = max(0.0, until - time.monotonic())
            more = os.read(out, 4096) if says.poll(1000 * left) else b""
            if not more:
                return b""
            self.rest += more
        line, _, self.rest = self.rest.partition(b"\n")
        return line

    def end(self) -> bool:
        """End it; whether it was at its limit (and not killed from outside, say for memory)."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(0.2)
        at_limit = self.process.poll() in (None, -signal.SIGXCPU)
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # what it was not able to read any more
                pipe.close()
        return at_limit


class Pool:
    """At most `WORKERS` workers, each comparison stopped after `seconds` of processor time."""

    def __init__(self, seconds: int = SECONDS) -> None:
        self.seconds = seconds
        self.idle: queue.LifoQueue[_Worker | None] = queue.LifoQueue()
        for _ in range(WORKERS):
            self.idle.put(None)  # a worker not started yet
        self.timeouts = 0
        self.lock = threading.Lock()

    def compare(self, gold: str, found: str) -> bool | None:
        """Whether Math-Verify finds `found` equal to `gold`; None when the comparison was stopped."""
        worker = self.idle.get()
        try:
            for _ in range(2):  # a worker that something else killed has not answered: asked once more
                worker = worker or _Worker(self.seconds)
                verdict = worker.ask(gold, found)
                if verdict is not None:
                    return verdict
                at_limit = worker.end()
                worker = None
                if at_limit:
                    break
            with self.lock:
                self.timeouts += 1
            return None
        finally:
            self.idle.put(worker)

    def close(self) -> None:
        """End the workers that are idle; the next comparison starts new ones."""
        idle = [self.idle.get_nowait() for _ in range(self.idle.qsize())]
        for worker in idle:
            if worker is not None:
                worker.process.kill()
                worker.end()
            self.idle.put(None)


_pool = Pool()


def _forget() -> None:
    """After a fork: the workers belong to the parent."""
    global _pool
    _pool = Pool()


os.register_at_fork(after_in_child=_forget)
atexit.register(lambda: _pool.close())


def compare(gold: str, found: str) -> bool | None:
    """Whether Math-Verify finds `found` equal to `gold`; None when the comparison was stopped."""
    return _pool.compare(gold, found)


def timeouts() -> int:
    """How many comparisons of this process were stopped."""
    return _pool.timeouts
