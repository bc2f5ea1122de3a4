"""Threads that pull blocks in order, each with its own buffers. Torch comes with buffers that need it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

MOST = 16  # threads by default: more gain nothing on a disk, and each holds its buffers


def available() -> int:
    """Threads to use when nobody says."""
    return min(MOST, len(os.sched_getaffinity(0)))


class Workers:
    """A pool for one merge; `makes[kind](block)` makes a thread's buffers of a kind. Torch's own threads are
    off inside, so that reductions run in one order."""

    def __init__(self, threads: int, block: int, makes: Mapping[str, Callable[[int], Any]]) -> None:
        self.threads, self.block, self._makes = threads, block, makes
        self._own = threading.local()

    def __enter__(self) -> Workers:
        torch = sys.modules.get("torch")  # absent where the buffers are numpy's
        self._before = torch and torch.get_num_threads()

        def begin() -> None:
            np.seterr(all="ignore")  # of this thread; what is not finite is counted, not warned of
            if torch:
                torch.set_num_threads(1)

        self._pool = ThreadPoolExecutor(self.threads, "merge", begin)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._before:
            sys.modules["torch"].set_num_threads(self._before)

    def buffers(self, kind: str) -> Any:
        """The calling thread's buffers of a kind."""
        own = self._own.__dict__
        if kind not in own:
            own[kind] = self._makes[kind](self.block)
        return own[kind]

    def each(self, items: Iterable[Any], work: Callable[[Any], None]) -> None:
        """`work(item)` for all items, begun in their order. The first exception stops all and is raised."""
        source, lock, stop = iter(items), threading.Lock(), threading.Event()

        def pull() -> Iterator[Any]:
            while not stop.is_set():
                with lock:
                    item = next(source, stop)
                if item is stop:
                    return
                yield item

        def loop() -> None:
            try:
                for item in pull():
                    work(item)
            except BaseException:
                stop.set()
                raise

        loops = [self._pool.submit(loop) for _ in range(self.threads)]
        try:
            for future in loops:
                future.result()
        finally:
            stop.set()
            for future in loops:
                future.exception()
