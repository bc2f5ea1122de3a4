"""Runs generated code, which is hostile until proven otherwise, and says what came of it.

`run` gives a program its input and returns what it printed. `check` puts a function of a program through a
benchmark's tests, which run in another process. Neither verdict can be forged by the program: it has no way
to the process that decides (docs/sandbox.md).
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import sys
import time
from dataclasses import dataclass

from harness.errors import HarnessError
from harness.sandbox.blocks import blocks, last_block
from harness.sandbox.inside import Unsendable, dumps, framed, loads
from harness.sandbox.process import Child, Limits, pump

__all__ = [
    "UNSANDBOXED", "Limits", "Outcome", "allow_unsandboxed", "available", "blocks", "check", "last_block",
    "mode", "require", "run",
]  # fmt: skip

UNSANDBOXED = "HARNESS_UNSANDBOXED_CODE"  # in the environment, so that child processes know too
HINT = (
    "install bubblewrap (`apt install bubblewrap`) and allow user namespaces, or pass `--unsandboxed-code` "
    "to run generated code with nothing between it and your files"
)
PROGRAM = 2**20  # characters of a program, far more than any answer has
CPU_TIME = 128 + 24  # exit status after SIGXCPU
OVER = {
    "time": "it took too long",
    "memory": "it took too much memory",
    "output": "it printed too much",
    "start": "it did not start",
}


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    status: "ok" (it ended with status 0; all tests passed) or why not: "failed", "time", "memory", "output".
    stdout, stderr: what it printed, cut at the limit; `check` gives both as stderr.
    reason: one line, "" when ok.
    seconds: wall time.
    """

    status: str
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0
    reason: str = ""

    @property
    def ok(self) -> bool:
        return self.status == "ok"


def run(program: str, stdin: str = "", limits: Limits = Limits()) -> Outcome:  # noqa: B008 (it is frozen)
    """Run a Python program as `__main__` with `stdin` as its input.

    HarnessError when the sandbox does not start.
    """
    source = program.encode("utf-8", "surrogatepass")
    begun, boxed = time.monotonic(), _boxed()
    if len(source) > PROGRAM:
        return Outcome("failed", reason=f"a program of {len(source)} bytes, the limit is {PROGRAM}")
    with Child("script", limits, boxed, framed(source) + stdin.encode("utf-8", "surrogatepass")) as child:
        why = pump([child], limits.seconds)
        code = child.end()
    _started(child, why)
    status, reason = _status(why, code, child)
    return Outcome(status, _text(child.out), _text(child.err), time.monotonic() - begun, reason)


def check(
    program: str, entry: str, test: str, setup: str = "", limits: Limits = Limits(), call_seconds: float = 0.0  # noqa: B008
) -> Outcome:  # fmt: skip
    """Put `entry` of `program`, a function `f` or a method `Class.f`, through `test`.

    test: Python that defines `check(candidate)`, which raises for a wrong candidate; `setup` runs before it,
    in the same namespace, where `entry` then means the candidate as well. Both come from the benchmark, never
    from a model; they run in a sandbox of their own. Arguments and results cross as plain data: None, bool,
    numbers, str, list, tuple, dict, sets, ranges; a subclass as the type it derives from.
    call_seconds: the most that one call may take, 0 for no limit but the limits' own.
    HarnessError when the sandbox does not start, or when `setup` or `test` themselves do not run.
    """
    job = {"program": program, "entry": entry, "setup": setup, "test": test, "seconds": call_seconds}
    begun, boxed = time.monotonic(), _boxed()
    if len(program) > PROGRAM:
        return Outcome("failed", reason=f"a program of {len(program)} characters, the limit is {PROGRAM}")
    try:
        feed = framed(dumps(job))
    except Unsendable as error:
        raise HarnessError(
            f"the tests of this benchmark are too much: {error}", "give them in parts"
        ) from None
    with contextlib.ExitStack() as opened:
        ends = [
            opened.enter_context(open(fd, "rb", buffering=0))
            for pair in (os.pipe(), os.pipe())
            for fd in pair
        ]
        question, asked, answered, answer = (file.fileno() for file in ends)
        grader = opened.enter_context(Child("grade", limits, boxed, feed, keep=(answered, asked)))
        candidate = opened.enter_context(Child("serve", limits, boxed, stdin=question, stdout=answer))
        for file in ends:  # each end in one process only, so that both see when the other is gone
            file.close()
        why = pump([grader, candidate], limits.seconds)
        grader.end()
        code = candidate.end()
    _started(grader, why)
    _started(candidate, why)
    status, reason = _verdict(why, code, bytes(grader.out), grader)
    return Outcome(status, "", _text(candidate.err), time.monotonic() - begun, reason)


def _verdict(why: str, code: int, said: bytes, grader: Child) -> tuple[str, str]:
    """(status, reason) from how the two processes ended and what the grader said."""
    if why != "exit":
        return why, OVER[why]
    try:
        status, reason = loads(said[4:])
    except ValueError:
        return "failed", f"the grader ended without a verdict: {_last_line(grader) or 'killed'}"
    if status == "broken":
        raise HarnessError(
            f"the tests of this benchmark do not run: {reason}", "check the data that they come from"
        )
    if status != "ok" and code == CPU_TIME:
        return "time", OVER["time"]
    return status, reason


def _status(why: str, code: int, child: Child) -> tuple[str, str]:
    if why != "exit" or code == CPU_TIME:
        why = "time" if why == "exit" else why
        return why, OVER[why]
    if code:
        return "failed", _last_line(child) or f"it ended with status {code}"
    return "ok", ""


def _started(child: Child, why: str) -> None:
    if not child.started:
        said = _last_line(child) or ("too slow" if why == "start" else "no reason given")
        raise HarnessError(f"the sandbox did not start: {said}", HINT)


def _text(data: bytearray) -> str:
    return data.decode("utf-8", "replace")


def _last_line(child: Child) -> str:
    lines = _text(child.err[-2000:]).strip().splitlines()
    return lines[-1][:300] if lines else ""


@functools.cache
def _fault() -> str:
    """Why bubblewrap cannot be used here, "" when it can; tried once per process, with a program."""
    if shutil.which("bwrap") is None:
        return "`bwrap` is not installed"
    try:
        with Child("script", Limits(), True, framed(b"print('inside')")) as child:
            pump([child], Limits.seconds)
            child.end()
    except OSError as error:
        return str(error)
    return "" if child.out == b"inside\n" else _last_line(child) or "`bwrap` says nothing"


def available() -> bool:
    """Whether bubblewrap works here."""
    return not _fault()


def allow_unsandboxed() -> None:
    """From now on run generated code bare where bubblewrap does not work, in child processes too."""
    os.environ[UNSANDBOXED] = "1"


def mode() -> str:
    """What confines generated code, to be kept with its results.

    "bubblewrap", or "none" where that does not work and the user allowed to go without.
    """
    return "none" if not available() and os.environ.get(UNSANDBOXED) == "1" else "bubblewrap"


def require() -> None:
    """HarnessError when generated code may not be run here."""
    if sys.platform != "linux":
        raise HarnessError(
            f"generated code is run on Linux only, this is `{sys.platform}`", "evaluate it there"
        )
    if mode() == "bubblewrap" and not available():
        raise HarnessError(f"generated code cannot be run in a sandbox: {_fault()}", HINT)


def _boxed() -> bool:
    require()
    return mode() == "bubblewrap"
