"""Where engines are forked: `python -m harness.evaluate.nursery FD MODULE ...`, the other side of
`child.Nursery`.

Imports the modules, with one thread, then forks whenever the parent asks for an engine. Ends when the parent
does.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from typing import Any

CALM = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LARGEST = 1 << 20  # bytes of a message: the environment
LOOK = 0.2  # seconds between looks at the parent while modules are imported


def main() -> None:
    gate = socket.socket(fileno=int(sys.argv[1]))
    prepare(gate, sys.argv[2:])
    lines: dict[int, int] = {}  # a child's line to the parent -> its process id
    while True:
        ready, _, _ = select.select([gate, *lines], [], [])
        for line in ready:
            if line is gate:
                body, descriptors, *_ = socket.recv_fds(gate, LARGEST, 4)
                if not body:
                    return
                pid = fork(gate, list(lines), json.loads(body), descriptors)
                lines[descriptors[0]] = pid
            else:
                taken(line, lines.pop(line))


def prepare(gate: socket.socket, modules: list[str]) -> None:
    """The imports. A module that fails to import fails again in the engine, which says so."""
    os.environ.update(CALM)  # no library starts a thread: a fork has none but its own
    parent = select.poll()
    parent.register(gate, select.POLLHUP)
    gone = lambda *_: os._exit(0) if any(e & select.POLLHUP for _, e in parent.poll(0)) else None  # noqa: E731
    signal.signal(signal.SIGALRM, gone)
    signal.setitimer(signal.ITIMER_REAL, LOOK, LOOK)
    try:
        import harness.evaluate.serve  # noqa: F401
        from harness import libraries

        with libraries.lean():
            for module in modules:
                importlib.import_module(module)
    except Exception:
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # what is shared stays shared: no collection touches it
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def fork(gate: socket.socket, lines: list[int], message: dict[str, Any], descriptors: list[int]) -> int:
    """A child that serves; its process id, which the parent is told."""
    line, read, write, log = descriptors
    pid = os.fork()
    if pid == 0:
        try:
            os.setpgid(0, 0)
            gate.close()
            for other in (*lines, line):
                os.close(other)
            serve(message, read, write, log)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(1)
    try:
        os.setpgid(pid, pid)  # whoever comes first
    except OSError:
        pass
    for descriptor in (read, write, log):
        os.close(descriptor)
    told(line, pid)
    return pid


def serve(message: dict[str, Any], read: int, write: int, log: int) -> None:
    """In the child: an engine, until the parent is gone."""
    from harness.evaluate.serve import serve as begin

    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(message["environment"])
    os.chdir(message["cwd"])
    begin(message["name"], read, write)


def taken(line: int, pid: int) -> None:
    """The parent asks how a child ended, or is done with it. It has killed it before."""
    asked = os.read(line, 1)
    _, status = os.waitpid(pid, 0) if asked else os.waitpid(pid, os.WNOHANG)
    if asked:
        told(line, os.waitstatus_to_exitcode(status))
    os.close(line)


def told(line: int, number: int) -> None:
    try:
        os.write(line, str(number).encode())
    except OSError:  # the parent has given this engine up; its pipes are closed
        pass


if __name__ == "__main__":
    main()
