"""What is to be computed of a block, and its translation into instructions: equal parts are computed once,
registers are used again."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from harness.merge.fused import codes as c

MOST_PROGRAMS = 512  # kept translations; blocks of a merge need few different ones
NONE = -1
Node = tuple[int, int, int, int, int]  # code, three operands (earlier nodes), a constant's bits or a row
Sink = tuple[int, int, int, int, int, int]  # code, node, node or row, result, bits of one or two constants


def bits_of(number: float) -> int:
    """Of a float32: constants that differ in their bits (0.0 and -0.0) are different ones."""
    return int(np.float32(number).view(np.int32))


@dataclass
class Graph:
    """The computations of one block. A node's operands are numbers of earlier nodes."""

    nodes: list[Node] = field(default_factory=list)
    places: dict[Node, int] = field(default_factory=dict)
    draws: list[tuple[int, int, int]] = field(default_factory=list)

    def add(self, code: int, a: int = NONE, b: int = NONE, mask: int = NONE, bits: int = 0) -> int:
        """The node that computes this: the same one as before, where there is one."""
        node = (code, a, b, mask, bits)
        at = self.places.get(node)
        if at is None:
            at = self.places[node] = len(self.nodes)
            self.nodes.append(node)
        return at

    def draw(self, key: int, limit: int) -> int:
        """The node of the mask that a draw gives: word i of the stream `key` (128 bits) is below `limit`."""
        row = (key & (2**64 - 1), key >> 64, limit)
        if row not in self.draws:
            self.draws.append(row)
        return self.add(c.DRAWN, bits=self.draws.index(row))


@dataclass(frozen=True)
class Program:
    """Instructions for the machine."""

    rows: np.ndarray
    numbers: np.ndarray  # float32, an instruction's constant
    registers: int
    counters: int
    energies: int
    totals: int
    loads: dict[int, int]  # row of stored bytes -> counter of tiles that hold what is not finite


class Translator:
    """Makes programs, and remembers them."""

    def __init__(self) -> None:
        self._known: dict[Any, Program] = {}

    def program(self, graph: Graph, sinks: list[Sink]) -> Program:
        """Instructions for `sinks`: and for all they need."""
        key = (tuple(graph.nodes), tuple(sinks))
        if key not in self._known:
            if len(self._known) >= MOST_PROGRAMS:
                self._known.clear()
            self._known[key] = translated(graph.nodes, sinks)
        return self._known[key]


OPERANDS = {c.LOAD16: 0, c.LOAD32: 0, c.FILL: 0, c.ALL: 0, c.DRAWN: 0}
SINK_OPERANDS = {c.COUNT_BOTH: 2}


def translated(nodes: list[Node], sinks: list[Sink]) -> Program:
    """See `Translator.program`. Sinks come as soon as their operands are there, in their order."""
    ready = [max(_read(sink)) for sink in sinks]
    wanted, last = set(), {}
    todo = [at for sink in sinks for at in _read(sink)]
    while todo:
        at = todo.pop()
        if at not in wanted:
            wanted.add(at)
            todo.extend(_operands(nodes[at]))
    order: list[tuple[bool, int]] = []
    for at in sorted(wanted):
        order.append((False, at))
        order.extend((True, i) for i, node in enumerate(ready) if node == at)
    for step, (is_sink, at) in enumerate(order):
        for used in _read(sinks[at]) if is_sink else _operands(nodes[at]):
            last[used] = step
    return _Writer(nodes, sinks).written(order, last)


def _operands(node: Node) -> list[int]:
    if node[0] in OPERANDS:
        return []
    return [at for at in node[1:4] if at != NONE]


def _read(sink: Sink) -> list[int]:
    return list(sink[1 : 1 + SINK_OPERANDS.get(sink[0], 1)])


class _Writer:
    """Writes one program: gives every node a register, and takes it back after its last use."""

    def __init__(self, nodes: list[Node], sinks: list[Sink]) -> None:
        self.nodes, self.sinks = nodes, sinks
        self.rows: list[list[int]] = []
        self.place: dict[int, int] = {}
        self.free: list[int] = []
        self.registers = 0
        self.counters = 1 + max((s[3] + 4 for s in sinks if s[0] in COUNTERS), default=0)
        self.loads: dict[int, int] = {}

    def written(self, order: list[tuple[bool, int]], last: dict[int, int]) -> Program:
        for step, (is_sink, at) in enumerate(order):
            self._sink(self.sinks[at]) if is_sink else self._node(at)
            for used in _read(self.sinks[at]) if is_sink else _operands(self.nodes[at]):
                if last[used] == step and used in self.place:
                    self.free.append(self.place.pop(used))
        numbers = np.array([row[4] for row in self.rows], np.int32).view(np.float32)
        kinds = {
            code: 1 + max((s[3] for s in self.sinks if s[0] == code), default=-1)
            for code in (c.ENERGY, c.TOTAL)
        }
        rows = np.array([[*row[:4], 0, row[5]] for row in self.rows], np.int64)
        return Program(
            rows, numbers, self.registers, self.counters, kinds[c.ENERGY], kinds[c.TOTAL], self.loads
        )

    def _register(self) -> int:
        if self.free:
            return self.free.pop()
        self.registers += 1
        return self.registers - 1

    def _counter(self) -> int:
        self.counters += 1
        return self.counters - 1

    def _node(self, at: int) -> None:
        code, a, b, mask, bits = self.nodes[at]
        target = self._register()  # never that of an operand: the loops may not overlap
        extra = 0
        if code in (c.LOAD16, c.LOAD32):
            extra = self.loads.setdefault(bits, self._counter())
            a, bits = bits, 0
        elif code == c.DRAWN:
            a, bits = bits, 0
        else:
            a, b, extra = (self.place.get(one, 0) for one in (a, b, mask))
            if code == c.FIRST:
                extra = self._counter()
        self.rows.append([code, target, a, b, bits, extra])
        self.place[at] = target

    def _sink(self, sink: Sink) -> None:
        code, node, other, result, bits, more = sink
        a = self.place[node]
        if code in (c.STORE16, c.STORE32):  # `other` is a row
            self.rows.append([code, 0, a, other, 0, result])
        elif code == c.COUNT_BOTH:
            self.rows.append([code, result, a, self.place[other], 0, 0])
        elif code == c.ENERGY:
            scratch = self._register()
            self.free.append(scratch)
            self.rows.append([code, result, a, scratch, 0, 0])
        elif code == c.RANK:  # the second end stands in a row of its own, that does nothing
            at, scratch = len(self.rows), self._register()
            self.free.append(scratch)
            self.rows.append([code, result, a, at + 1, bits, scratch])
            self.rows.append([c.NOTHING, 0, 0, 0, more, 0])
        else:
            self.rows.append([code, result, a, 0, bits, 0])


COUNTERS = (c.STORE16, c.STORE32, c.COUNT, c.COUNT_BOTH, c.RANK)
