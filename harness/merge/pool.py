"""Short arrays that outlive the block they come from, kept in two long ones. Imports numpy, not torch.

Left where they were made, between the blocks' large temporaries, thousands of them would keep the heap from
ever joining its free pieces: 1.7 GB instead of 0.4 GB were resident for TIES on 1.5 B parameters."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np


class Pool:
    """Sorted values and how often each occurs, by block."""

    def __init__(self) -> None:
        self._keys, self._counts = np.empty(0, np.float32), np.empty(0, np.int32)
        self._spans: dict[int, tuple[int, int]] = {}
        self._used = 0

    def __len__(self) -> int:
        """How many values in all, each as often as it occurs."""
        return int(self._counts[: self._used].sum(dtype=np.int64))

    def put(self, block: int, keys: np.ndarray, counts: np.ndarray) -> None:
        """Copy one block's values in."""
        if not len(keys):
            return
        start, self._used = self._used, self._used + len(keys)
        if self._used > len(self._keys):
            room = max(2 * len(self._keys), self._used)
            self._keys, self._counts = _longer(self._keys, room), _longer(self._counts, room)
        self._keys[start : self._used], self._counts[start : self._used] = keys, counts
        self._spans[block] = start, self._used

    def items(self) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """(block, values, counts), views."""
        for block, (start, end) in self._spans.items():
            yield block, self._keys[start:end], self._counts[start:end]


def _longer(array: np.ndarray, room: int) -> np.ndarray:
    longer = np.empty(room, array.dtype)
    longer[: len(array)] = array
    return longer
