"""A thread's buffers where blocks are computed in one go: stored bytes in rows, and the machine's registers.
Imports numba."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np

from harness import ops
from harness.checkpoint.read import TensorInfo
from harness.checkpoint.reader import Reader
from harness.merge.fused import codes as c
from harness.merge.fused import machine
from harness.merge.fused.graph import Graph, Program, Sink, Translator, bits_of
from harness.merge.fused.lazy import Lazy
from harness.merge.plain import PlainBuffers
from harness.method import CHUNK

OUTPUT = "output"
LINE = 64  # bytes


class LazyBuffers:
    """As `checkpoint.blocks.Buffers`, of `Lazy` blocks; one block at a time, from `begin` to the next."""

    usual_block = 2**20  # elements: the longer, the less is spent outside the machine

    def __init__(self, block: int) -> None:
        self._block, self._translator = block, Translator()
        self._rows = aligned(4, 4 * block)
        self._registers = aligned(8, 4 * machine.TILE).view(np.float32)
        self._inside = np.empty(block + 1, np.float32)
        self._places: dict[Hashable, int] = {(OUTPUT, 0): 0}  # key -> row
        self._watched: dict[int, Callable[[], Exception]] = {}
        self._made: dict[Hashable, int] = {}  # computed by numpy -> node
        self._halves: set[int] = set()  # nodes loaded from float16
        self.begin(0, 0)

    def begin(self, offset: int, length: int) -> None:
        """What follows is about the block at `offset` of its tensor."""
        self.offset, self.length, self.graph = offset, length, Graph()
        self._watched.clear()
        self._made.clear()
        self._halves.clear()

    def warm(self) -> None:
        """Compile the machine, or load what was compiled."""
        self.begin(0, 8)
        self.values(Lazy(self.graph, self.graph.add(c.ALL), self, True))

    def load(
        self, reader: Reader, info: TensorInfo, offset: int, n: int, key: Hashable, room: str = "raw"
    ) -> Lazy:
        size, code = (4, c.LOAD32) if info.dtype == "F32" else (2, c.LOAD16)
        at = self._row(key)
        if info.dtype != "F16":
            reader.read(info, offset * size, memoryview(self._rows[at, : n * size]))
            return Lazy(self.graph, self.graph.add(code, bits=at), self)
        stored = np.empty(n, np.float16)
        reader.read(info, offset * size, memoryview(stored).cast("B"))
        self._rows[at, : n * 4].view(np.float32)[:] = stored
        made = Lazy(self.graph, self.graph.add(c.LOAD32, bits=at), self)
        self._halves.add(made.node)
        return made

    def watch(self, values: Lazy, error: Callable[[], Exception]) -> None:
        """Raise `error()` when `values`, just loaded, turn out not to be finite."""
        self._watched[self.graph.nodes[values.node][4]] = error

    def difference(self, one: Lazy, other: Lazy, key: Hashable) -> Lazy:
        return one - other

    def drawn(self, share: float, seed: int, role: str, name: str) -> Lazy:
        """`ops.drawn` of this block."""
        limit = math.ceil(float(np.float32(share)) * 2**24)
        if limit >= 2**24:
            return Lazy(self.graph, self.graph.add(c.ALL), self, True)
        key = hashlib.sha256(f"{seed}\0{role}\0{name}".encode()).digest()
        node = self.graph.draw(int.from_bytes(key[:16], "little"), limit << 8)
        return Lazy(self.graph, node, self, True)

    def uniform(self, seed: int, role: str, name: str) -> Lazy:
        """`ops.uniform` of this block."""
        make = lambda: ops.words(seed, role, name, self.offset, self.length) >> np.uint32(8)  # noqa: E731
        return self._given(("uniform", seed, role), lambda: make().astype(np.float32) * np.float32(2.0**-24))

    def computed(self, name: str, function: Callable[..., np.ndarray], blocks: Sequence[Lazy]) -> Lazy:
        """`function(*arrays)`, for what the machine has no instruction for; computed once per block."""
        key = (name, *(block.node for block in blocks))
        return self._given(key, lambda: function(*(block.numpy() for block in blocks)))

    def _given(self, key: Hashable, make: Callable[[], np.ndarray]) -> Lazy:
        if key not in self._made:
            values, at = make(), self._row(("given", len(self._made)))
            self._rows[at, : 4 * self.length].view(np.float32)[:] = values
            self._made[key] = self.graph.add(c.LOAD32, bits=at)
        return Lazy(self.graph, self._made[key], self)

    def unlike(self, made: Any, n: int) -> str | None:
        """What `made` is, if it is no block of `n` elements."""
        if not isinstance(made, Lazy) or made.is_mask:
            return "a mask" if isinstance(made, Lazy) else type(made).__name__
        return None

    def eager(self) -> PlainBuffers:
        """Buffers that compute at once, for what is off the way."""
        return PlainBuffers(CHUNK)

    def values(self, block: Lazy) -> np.ndarray:
        """Its values, float32 or bool, fresh."""
        number = block.float()
        self.run([(c.STORE32, number.node, 0, 0, 0, 0)])
        found = self._rows[0, : 4 * self.length].view(np.float32)
        return found != 0 if block.is_mask else found.copy()

    def output(self, place: int) -> int:
        """The row that takes the stored bytes of the output at this place among those of a call."""
        return self._row((OUTPUT, place))

    def data(self, place: int, code: str) -> memoryview:
        """The stored bytes of an output, valid until the next call."""
        found = self._rows[self.output(place), : (2 if code == "BF16" else 4) * self.length]
        if code == "F16":
            found = found.view(np.float32).astype(np.float16).view(np.uint8)
        return memoryview(found)

    def rounded(self, block: Lazy, code: str) -> int:
        """The node of its values rounded to the dtype with code `code`."""
        if code == "BF16":
            stored = self.graph.nodes[block.node][0] in (c.LOAD16, c.ROUND16)
            return block.node if stored else self.graph.add(c.ROUND16, block.node)
        if code == "F16" and block.node not in self._halves:
            return self.computed("half", lambda x: x.astype(np.float16).astype(np.float32), [block]).node
        return block.node

    def ranked(self, values: Lazy, low: float, high: float) -> tuple[list[int], np.ndarray]:
        """How the values lie to [low, high]: how many are above `low`, equal to it, equal to `high`, not a
        number; and those strictly between (valid until the next call)."""
        sink = (c.RANK, values.node, 0, 0, bits_of(low), bits_of(high))
        counters, _, _, used = self.run([sink])
        return counters[:4].tolist(), self._inside[:used]

    def totals(self, values: Lazy) -> list[int] | None:
        """The sums of the values of every chunk, where they are known to be whole numbers."""
        if self.graph.nodes[values.node][0] not in (c.SIGN, c.AS_NUMBER):
            return None
        return self.run([(c.TOTAL, values.node, 0, 0, 0, 0)])[2][0].tolist()

    def run(self, sinks: Sequence[Sink]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
        """Carry out `sinks` and all they need: counters, energies [k, chunk], totals [k, chunk], how many
        are inside."""
        program = self._translator.program(self.graph, list(sinks))
        if program.registers > len(self._registers):
            self._registers = aligned(program.registers, 4 * machine.TILE).view(np.float32)
        chunks = -(-self.length // CHUNK)
        counters = np.zeros(program.counters, np.int64)
        energies = np.zeros((program.energies, chunks), np.float64)
        totals = np.zeros((program.totals, chunks), np.int64)
        used = machine.execute(
            program.rows,
            self.length,
            self.offset,
            self._rows.view(np.uint16),
            self._rows.view(np.float32),
            self._registers,
            self._registers.view(np.int32),
            self._registers.view(np.uint32),
            program.numbers,
            np.array(self.graph.draws, np.uint64).reshape(-1, 3),
            counters,
            energies,
            totals,
            self._inside,
        )
        self._check(program, counters)
        return counters, energies, totals, used

    def _check(self, program: Program, counters: np.ndarray) -> None:
        for row, at in program.loads.items():
            if counters[at] and row in self._watched:
                raise self._watched[row]()

    def _row(self, key: Hashable) -> int:
        at = self._places.setdefault(key, len(self._places))
        if at >= len(self._rows):
            more = aligned(2 * len(self._rows), self._rows.shape[1])
            more[: len(self._rows)] = self._rows
            self._rows = more
        return at


def aligned(rows: int, width: int) -> np.ndarray:
    """uint8 [rows, width], beginning at a cache line: vectors across two lines take half as long again."""
    held = np.empty(rows * width + LINE, np.uint8)
    start = -held.ctypes.data % LINE
    return held[start : start + rows * width].reshape(rows, width)
