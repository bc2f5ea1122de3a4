"""The process that an engine is: a new interpreter, or a fork of one that has imported what it needs."""

from __future__ import annotations

import contextlib
import json
import os
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
REPLY = 10  # seconds in which a nursery kills


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
        end(self.pid, patience)
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
        self._environment = surroundings()
        with theirs, self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "harness.evaluate.nursery", str(theirs.fileno()), *self._modules],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                env=self._environment,
            )

    def fork(self, name: str, pipes: tuple[int, int], environment: Mapping[str, str], log: int) -> Forked:
        """An engine, as `Spawned` takes it; returns at once, also while the imports go on."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._guard:
            descriptors = [theirs.fileno(), *pipes, log]
            try:
                socket.send_fds(self._gate, [self._letter(name, environment)], descriptors)
            except (BrokenPipeError, ConnectionResetError):  # it was killed: another one
                self.close()
                self._begin()
                socket.send_fds(self._gate, [self._letter(name, environment)], descriptors)
        return Forked(ours)

    def _letter(self, name: str, environment: Mapping[str, str]) -> bytes:
        """What an engine is to be; of its environment what differs from the nursery's."""
        born = self._environment
        try:
            folder = os.getcwd()
        except FileNotFoundError:  # deleted: nor does a new interpreter have one
            folder = None
        return json.dumps({
            "name": name, "cwd": folder, "unset": [key for key in born if key not in environment],
            "set": {key: value for key, value in environment.items() if born.get(key) != value},
        }).encode()  # fmt: skip

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
    """A fork of a nursery, which tells its process id over `line`, and ends it when asked: it is the parent.
    Where the nursery is gone the engine ends by itself, for its pipes are closed."""

    def __init__(self, line: socket.socket) -> None:
        self._line, self._guard, self._pid = line, threading.Lock(), None

    @property
    def pid(self) -> int | None:
        """None while the nursery still imports, and where it died before it forked."""
        with self._guard, contextlib.suppress(OSError, ValueError):  # nothing yet; nobody there; closed
            if self._pid is None:
                self._pid = int(self._line.recv(32, socket.MSG_DONTWAIT))
        return self._pid

    def kill(self, patience: float) -> int | None:
        forked = self.pid is not None
        with self._guard, self._line, contextlib.suppress(OSError, ValueError):
            if forked:
                self._line.settimeout(patience + REPLY)
                self._line.send(str(patience).encode())
                return int(self._line.recv(32))
        return None  # a line that is closed is an engine given up


def end(pid: int, patience: float) -> None:
    """Kill a child of this process and its group, after some seconds to end by itself. It is not taken yet:
    its id, and its group's, stay its own."""
    deadline, look = time.monotonic() + patience, os.WEXITED | os.WNOHANG | os.WNOWAIT
    while os.waitid(os.P_PID, pid, look) is None and time.monotonic() < deadline:
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def surroundings() -> dict[str, str]:
    """The environment of a child, in which it finds this package."""
    package = str(Path(harness.__file__).resolve().parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, **QUIET, **PATIENT, "PYTHONPATH": path}
