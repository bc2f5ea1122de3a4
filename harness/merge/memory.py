"""Memory while a merge runs: freed blocks stay in the process, written tensors leave the page cache where
they are too many for it. Torch-free."""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path

from harness.checkpoint.read import TensorInfo

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST = 32 << 20  # bytes; glibc's own upper limit of the moving threshold
CACHED = 0.25  # outputs up to this share of the memory stay in the page cache, where an evaluation finds them
BEHIND = 12  # tensors between the start of writing one back and its leaving


@contextlib.contextmanager
def kept_pages() -> Iterator[None]:
    """Temporaries of a few MB do not go back to the kernel at every free: page faults were half of a merge's
    time.

    The thresholds end where glibc's own adjustment would have taken them; the memory is given back at the
    end."""
    libc = ctypes.CDLL(None)
    glibc = hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim")
    if glibc:
        libc.mallopt(MMAP_THRESHOLD, LARGEST)
        libc.mallopt(TRIM_THRESHOLD, 2 * LARGEST)
    try:
        yield
    finally:
        if glibc:
            libc.malloc_trim(ctypes.c_size_t(0))


def too_many(nbytes: int) -> bool:
    """Whether outputs of this size had better not pile up in the page cache: beyond a part of the memory the
    kernel looks for free pages, and holds writers up until the disk has followed."""
    return nbytes > CACHED * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


class Passing:
    """Takes written tensors out of the page cache: writing back begins at once, and some tensors later the
    clean pages are let go, to be used again. A hint to the kernel: no byte depends on it."""

    def __init__(self) -> None:
        self._fds: dict[Path, int] = {}
        self._recent: deque[TensorInfo] = deque()

    def written(self, info: TensorInfo) -> None:
        self._advise(info)
        self._recent.append(info)
        if len(self._recent) > BEHIND:
            self._advise(self._recent.popleft())

    def close(self) -> None:
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    def _advise(self, info: TensorInfo) -> None:
        if info.file not in self._fds:
            self._fds[info.file] = os.open(info.file, os.O_RDONLY)
        os.posix_fadvise(self._fds[info.file], info.start, info.nbytes, os.POSIX_FADV_DONTNEED)
