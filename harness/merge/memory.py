"""Keep freed blocks in the process while a merge runs. Torch-free."""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST = 32 << 20  # bytes; glibc's own upper limit of the moving threshold


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
