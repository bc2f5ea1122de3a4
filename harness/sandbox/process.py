"""Starting confined processes, feeding and reading them under limits, and ending all that they started."""

from __future__ import annotations

import contextlib
import json
import os
import select
import selectors
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.sandbox import bubblewrap
from harness.sandbox.inside import READY, limit

TICK = 0.1  # seconds between looks at the memory
START = 60.0  # seconds that a sandbox may take to start on a busy machine
END = 10.0  # seconds that the kernel may take to end one
CHUNK = 2**16


@dataclass(frozen=True)
class Limits:
    """What a program may use.

    seconds: time from the moment it starts. cpu_seconds: of each process. memory_mib: address space of
    each process, and resident memory of all of them together. processes: at once, threads included.
    output_bytes: stdout and stderr together. file_mib: each file, and the private `/tmp`. Without
    bubblewrap `processes` and the size of `/tmp` are not enforced.
    """

    seconds: float = 10.0
    cpu_seconds: int = 10
    memory_mib: int = 1024
    processes: int = 16
    output_bytes: int = 2**20
    file_mib: int = 16

    def sizes(self, boxed: bool) -> tuple[int, int, int, int]:
        """Bytes of memory, CPU seconds, processes (0: any number), bytes of a file."""
        processes = self.processes if boxed else 0
        return self.memory_mib * 2**20, self.cpu_seconds, processes, self.file_mib * 2**20


class Child:
    """One confined Python process: its pipes, what it wrote so far, and how to end it.

    feed: bytes for its stdin, unless `stdin` and `stdout` are descriptors of its own. keep: descriptors that
    it inherits and is told of. A context manager: nothing of it runs after the block.
    """

    def __init__(self, mode: str, limits: Limits, boxed: bool, feed: bytes = b"", keep: Sequence[int] = (),
                 stdin: int = subprocess.PIPE, stdout: int = subprocess.PIPE) -> None:  # fmt: skip
        self.limits, self.feed = limits, memoryview(feed)
        self.out, self.err, self.started = bytearray(), bytearray(), False
        self.first = -1  # pidfd of the sandbox's first process: all of the sandbox dies with it
        self.folder = None if boxed else tempfile.TemporaryDirectory(prefix="harness-code-")
        user = bubblewrap.next_user() if boxed else 0
        self.sizes = limits.sizes(boxed)
        site = bubblewrap.SITE if boxed else _links(Path(self.folder.name) / "site")
        command = bubblewrap.python([mode, *map(str, (user, *self.sizes, site, *keep))])
        streams = {"stdin": stdin, "stdout": stdout, "stderr": subprocess.PIPE}
        if boxed:
            self._start_boxed(command, keep, streams)
        else:
            environment = bubblewrap.ENVIRONMENT | {"HOME": self.folder.name}
            self._start(command, keep, streams, self.folder.name, environment)
        for stream in self.streams:
            os.set_blocking(stream.fileno(), False)
            if user:
                os.fchown(stream.fileno(), user, user)  # else it could not open `/dev/stdin`

    def _start_boxed(self, command: list[str], keep: Sequence[int], streams: dict[str, int]) -> None:
        self._info, info = os.pipe()
        calls = bubblewrap.filter_pipe()
        try:
            line, inherited = bubblewrap.wrapped(command, self.limits.file_mib * 2**20, info, calls)
            self._start(line, [*keep, *inherited], streams, "/", {})
        except BaseException:
            os.close(self._info)
            raise
        finally:
            for fd in {info, calls} - {-1}:
                os.close(fd)

    def _start(self, command: list[str], keep: Sequence[int], streams: dict[str, int], where: str,
               environment: dict[str, str]) -> None:  # fmt: skip
        self.process = subprocess.Popen(
            command, **streams, cwd=where, env=environment, pass_fds=keep, start_new_session=True, bufsize=0
        )
        self.pid, self.exit = self.process.pid, os.pidfd_open(self.process.pid)
        given = (self.process.stdin, self.process.stdout, self.process.stderr)
        self.streams = [stream for stream in given if stream is not None]

    def attach(self) -> None:
        """Learn from bwrap which process is the sandbox's first, and limit that too.

        A program of the same user could write into its memory. It forks once, and counts as a process.
        """
        if self.folder is not None:
            return
        with open(self._info, "rb") as file:
            text = file.read()
        if not text or self.process.poll() is not None:
            return
        self.pid = json.loads(text)["child-pid"]
        with contextlib.suppress(
            ProcessLookupError, PermissionError
        ):  # it ended; a bwrap that is set-user-id
            self.first = os.pidfd_open(self.pid)
            memory, cpu, processes, file_bytes = self.sizes
            limit(self.pid, memory, cpu, processes + 2, file_bytes)

    def step(self, what: str) -> bool:
        """Do what a ready stream allows; True when the stream is done."""
        try:
            if what == "stdin":
                self.feed = self.feed[os.write(self.process.stdin.fileno(), self.feed[:CHUNK]) :]
                return not self.feed
            stream, data = (
                (self.process.stdout, self.out) if what == "stdout" else (self.process.stderr, self.err)
            )
            part = os.read(stream.fileno(), CHUNK)
        except BlockingIOError:
            return False
        except BrokenPipeError:
            return True
        data += part
        if not self.started and self.err.startswith(READY):
            self.started = True
            del self.err[: len(READY)]
        return not part

    @property
    def flooded(self) -> bool:
        return len(self.out) + len(self.err) > self.limits.output_bytes

    def greedy(self) -> bool:
        """Whether all its processes together hold more memory than one of them may."""
        return _resident(self.pid) > self.limits.memory_mib * 2**20

    def end(self) -> int:
        """Kill and reap all of it, read what is left in its pipes; the exit status as a shell gives it."""
        if self.first >= 0:
            if not _ready(self.first, 0):
                signal.pidfd_send_signal(self.first, signal.SIGKILL)
                _ready(self.first, END)  # it is dead when all that it contained is
        elif self.folder is not None:
            _kill_group(self.process.pid)
        else:
            self.process.kill()
        try:
            code = self.process.wait(END)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        for what in ("stdout", "stderr"):
            if getattr(self.process, what) is not None:
                while (
                    not self.flooded
                    and _ready(getattr(self.process, what).fileno(), 0)
                    and not self.step(what)
                ):
                    pass
        return 128 - code if code < 0 else code

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: Any) -> None:
        if self.process.returncode is None:
            self.end()
        for stream in self.streams:
            stream.close()
        for fd in {self.first, self.exit} - {-1}:
            os.close(fd)
        if self.folder is not None:
            self.folder.cleanup()


def pump(children: list[Child], seconds: float) -> str:
    """Serve the children's pipes until the first of them exits or a limit is passed. Time in which this
    process stood still (stopped, swapped out, its machine paused) is not counted against them.

    "exit", or why they have to be ended: "time", "output", "memory"; "start" when one did not start in time.
    """
    started, left, last = False, START, time.monotonic()
    look = last + TICK
    with selectors.DefaultSelector() as selector:
        for child in children:
            child.attach()
            for name in ("stdin", "stdout", "stderr"):
                if (stream := getattr(child.process, name)) is not None:
                    event = selectors.EVENT_WRITE if name == "stdin" else selectors.EVENT_READ
                    selector.register(stream, event, (child, name))
        selector.register(children[0].exit, selectors.EVENT_READ, None)
        while left > 0:
            ready, now = selector.select(min(TICK, left)), time.monotonic()
            left, last = left - min(now - last, 2 * TICK), now
            if any(key.data is None for key, _ in ready):
                return "exit"
            for key, _ in ready:
                child, name = key.data
                if child.step(name):
                    selector.unregister(key.fileobj)
                    if name == "stdin":
                        child.process.stdin.close()
                if child.flooded:
                    return "output"
            if not started and all(child.started for child in children):
                started, left = True, seconds
            if now >= look:
                look = now + TICK
                if any(child.greedy() for child in children):
                    return "memory"
    return "time" if started else "start"


def _links(site: Path) -> Path:
    site.mkdir()
    for name, source in bubblewrap.optional_packages().items():
        (site / name).symlink_to(source)
    return site


def _ready(fd: int, seconds: float) -> bool:
    """Whether a stream can be read, or the process of a pidfd is dead, within `seconds`."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def _resident(pid: int) -> int:
    """Resident bytes of a process and its descendants, files and shared libraries left out."""
    total, waiting = 0, [str(pid)]
    while waiting:
        folder = Path("/proc") / waiting.pop()
        try:
            _, resident, shared, *_ = (folder / "statm").read_text().split()
            total += (int(resident) - int(shared)) * os.sysconf("SC_PAGESIZE")
            for task in (folder / "task").iterdir():
                waiting += (task / "children").read_text().split()
        except OSError:
            continue  # it ended while we looked
    return total
