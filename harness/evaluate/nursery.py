"""Where engines are forked: `python -m harness.evaluate.nursery FD MODULE ...`, the other side of
`child.Nursery`.

Imports the modules, with one thread, then forks whenever the parent asks for an engine. Ends when the parent
does.
"""

from __future__ import annotations

import contextlib
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

from harness.evaluate.child import end

CALM = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
LARGEST = 1 << 18  # bytes of a message; the kernel takes fewer


def main() -> None:
    gate = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, children would be gone before they are asked for
    born = dict(os.environ)
    prepare(gate, sys.argv[2:])
    lines: dict[int, int] = {}  # a child's line to the parent -> its process id
    while True:
        ready, _, _ = select.select([gate, *lines], [], [])
        for line in ready:
            if line is not gate:
                over(line, lines.pop(line))
                continue
            body, descriptors, *_ = socket.recv_fds(gate, LARGEST, 4)
            if not body:
                return
            with contextlib.suppress(OSError):  # no process to be had: the engine counts as dead
                lines[descriptors[0]] = fork(gate, list(lines), json.loads(body), descriptors, born)


def prepare(gate: socket.socket, modules: list[str]) -> None:
    """The imports, while the parent lives. A module that fails to import fails again in the engine, which
    says so."""
    os.environ.update(CALM)  # no library starts a thread: a fork has none but its own
    parent = select.poll()  # looked at between imports; nothing may interrupt torch's in the middle
    parent.register(gate, select.POLLHUP)
    try:
        import harness.evaluate.serve  # noqa: F401
        from harness import libraries

        with libraries.lean():
            for module in modules:
                if any(event & select.POLLHUP for _, event in parent.poll(0)):
                    os._exit(0)
                importlib.import_module(module)
    except Exception:
        traceback.print_exc()
    gc.collect()
    gc.freeze()  # what is shared stays shared: no collection touches it


def fork(
    gate: socket.socket,
    lines: list[int],
    letter: dict[str, Any],
    descriptors: list[int],
    born: dict[str, str],
) -> int:
    """A child that serves; its process id, which the parent is told."""
    line, *own = descriptors
    try:
        pid = os.fork()
    except OSError:
        traceback.print_exc()
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    if pid == 0:
        try:
            os.setpgid(0, 0)
            gate.close()
            for other in (*lines, line):
                os.close(other)
            serve(letter, own, born)
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError):  # the disk of its log is full
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(1)  # never back into the loop of the nursery
    with contextlib.suppress(OSError):  # whoever comes first
        os.setpgid(pid, pid)
    for descriptor in own:
        os.close(descriptor)
    told(line, pid)
    return pid


def serve(letter: dict[str, Any], descriptors: list[int], born: dict[str, str]) -> None:
    """In the child: an engine, until the parent is gone."""
    from harness.evaluate.serve import serve as begin

    read, write, log = descriptors
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update({key: value for key, value in born.items() if key not in letter["unset"]})
    os.environ.update(letter["set"])
    if letter["cwd"] is not None:
        os.chdir(letter["cwd"])
    begin(letter["name"], read, write)


def over(line: int, pid: int) -> None:
    """The parent is done with a child: ask it how long to wait, kill, and tell how it ended."""
    try:
        asked = os.read(line, 32)
    except OSError:  # closed before it read the process id
        asked = b""
    end(pid, float(asked or 0))
    _, status = os.waitpid(pid, 0)
    if asked:
        told(line, os.waitstatus_to_exitcode(status))
    os.close(line)


def told(line: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the parent has given this engine up; its pipes are closed
        os.write(line, str(number).encode())


if __name__ == "__main__":
    main()
