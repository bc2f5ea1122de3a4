"""The process that an engine is: a new interpreter, or a fork of one that has imported what it needs."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import harness

QUIET = {"TQDM_DISABLE": "1", "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "warning"}
# Idle OpenMP threads spin by default: on two busy cores 64 chains took 6.5 s, and 0.7 s with these.
PATIENT = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
IMPORTS = (  # of the `hf` engine; most architectures consist of Llama's parts
    "transformers.models.llama.modeling_llama",
    "harness.evaluate.engines.hf",
)


class Child(Protocol):
    """A running engine, leader of a process group of its own. `kill` ends it with whatever it started, after
    `patience` seconds to end by itself; its exit code, None where nobody can tell."""

    @property
    def pid(self) -> int | None: ...

    def kill(self, patience: float) -> int | None: ...


class Spawned:
    """A new interpreter. `pipes` are the ends that it reads and writes; what it prints goes to `log`."""

    def __init__(self, name: str, pipes: tuple[int, int], environment: Mapping[str, str], log: int) -> None:
        # A session of its own: Ctrl-C reaches the parent, which then ends the child in order.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "harness.evaluate.serve", name, *map(str, pipes)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=pipes,
            start_new_session=True,
            env=dict(environment),
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self, patience: float) -> int:
        deadline = time.monotonic() + patience
        look = os.WEXITED | os.WNOHANG | os.WNOWAIT  # not taken yet: its id, and its group's, stay its own
        while os.waitid(os.P_PID, self.pid, look) is None and time.monotonic() < deadline:
            time.sleep(0.01)
        os.killpg(self.pid, signal.SIGKILL)
        return self._process.wait()


class Nursery:
    """Engines that share their imports: one process imports `modules` (`harness.evaluate.nursery`), which
    begins when this is made, and every engine is a fork of it, so that several cost the imports of one and
    one that died is back at once. A context manager; the engines are ended before it is left.

    Linux only, and not where engines use a GPU: CUDA does not survive a fork."""

    def __init__(self, log: Path, modules: Sequence[str] = IMPORTS) -> None:
        self._log, self._modules, self._guard = log, modules, threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._gate, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.evaluate.nursery", str(theirs.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=surroundings(),
            )

    def fork(self, name: str, pipes: tuple[int, int], environment: Mapping[str, str], log: int) -> Forked:
        """An engine, as `Spawned` takes it; returns at once, also while the imports go on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        message = json.dumps({"name": name, "environment": dict(environment), "cwd": os.getcwd()}).encode()
        with theirs, self._guard:
            descriptors = [theirs.fileno(), *pipes, log]
            try:
                socket.send_fds(self._gate, [message], descriptors)
            except OSError:  # it was killed: another one
                self.close()
                self._begin()
                socket.send_fds(self._gate, [message], descriptors)
        return Forked(ours)

    @property
    def pid(self) -> int:
        return self._process.pid

    def close(self) -> None:
        """End the process."""
        self._gate.close()
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> Nursery:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Forked:
    """A fork of a nursery, which tells its process id, and its exit code when asked, over `line`."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._pid, self._handle = line, None, None

    @property
    def pid(self) -> int | None:
        """None while the nursery still imports, and where it died before it forked."""
        if self._pid is None and select.select([self._line], [], [], 0)[0]:
            told = self._line.recv(32)
            if told:
                self._pid = int(told)
                self._handle = os.pidfd_open(self._pid)  # not taken yet: its id stays its own
        return self._pid

    def kill(self, patience: float) -> int | None:
        with self._line:
            if self.pid is None:  # its pipes are closed: it ends as it begins
                return None
            select.select([self._handle], [], [], patience)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._pid, signal.SIGKILL)
            select.select([self._handle], [], [])  # it is over
            os.close(self._handle)
            try:
                self._line.sendall(b"?")
                told = self._line.recv(32)
                return int(told) if told else None
            except OSError:  # the nursery is gone
                return None


def surroundings() -> dict[str, str]:
    """The environment of a child, in which it finds this package."""
    package = str(Path(harness.__file__).resolve().parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **QUIET, **PATIENT, "PYTHONPATH": path}
