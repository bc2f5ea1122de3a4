"""Open files that all threads read blocks from. Torch-free."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from harness.checkpoint.read import TensorInfo
from harness.errors import HarnessError


class Reader:
    """Open files shared by all threads; `preadv` has no position, so no lock is needed to read."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        self._lock = threading.Lock()
        self.nbytes = 0  # read so far, by all threads

    def read(self, info: TensorInfo, offset: int, into: memoryview) -> None:
        """Fill `into` with the bytes of `info` from byte `offset` on."""
        fd = self._fds.get(info.file)
        if fd is None:
            fd = self._open(info.file)
        at, wanted = info.start + offset, into.nbytes
        while into.nbytes:
            n = os.preadv(fd, [into], at)
            if not n:
                raise HarnessError(f"{info.file} became shorter while it was read", "write the file again")
            into, at = into[n:], at + n
        with self._lock:
            self.nbytes += wanted

    def _open(self, file: Path) -> int:
        with self._lock:
            if file not in self._fds:
                self._fds[file] = os.open(file, os.O_RDONLY)
            return self._fds[file]

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
