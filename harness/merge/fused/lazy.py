"""Blocks that remember what was done to them, and compute it when they are stored, counted or looked at.

They have torch's names of the operations, and the bits that torch's operations give."""

from __future__ import annotations

from typing import Any

import numpy as np

from harness.merge.fused import codes as c
from harness.merge.fused.graph import NONE, Graph, bits_of

ZERO, UNIT = bits_of(0.0), bits_of(1.0)
COMPARED = {"gt": (c.GT, c.GT_C), "ge": (c.GE, c.GE_C), "lt": (c.GT, c.LT_C), "le": (c.GE, c.LE_C)}
COMPARED["eq"] = (c.EQ, c.EQ_C)
TURNED = ("lt", "le")  # a < b is b > a


class Lazy:
    """A block under way: float32 numbers, or with `is_mask` truth values. `buffers` computes it."""

    __slots__ = ("_version", "buffers", "graph", "is_mask", "node")
    __hash__ = None
    lazy = True

    def __init__(self, graph: Graph, node: int, buffers: Any, is_mask: bool = False) -> None:
        self.graph, self.node, self.buffers, self.is_mask = graph, node, buffers, is_mask
        self._version = 0

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a block of a `plain=True` method has no `{name}`: leave `plain=True` out")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.buffers.length,)

    @property
    def dtype(self) -> str:
        return "torch.bool" if self.is_mask else "torch.float32"

    def made(self, code: int, a: int = NONE, b: int = NONE, mask: int = NONE, bits: int = 0) -> Lazy:
        """The block that this instruction gives; comparisons and masks' own give masks."""
        node = self.graph.add(code, a, b, mask, bits)
        return Lazy(self.graph, node, self.buffers, code in c.MASKS)

    def numpy(self) -> np.ndarray:
        """Its values, float32 or bool: fresh."""
        return self.buffers.values(self)

    def cpu(self) -> Lazy:
        return self

    def clone(self) -> Lazy:
        return Lazy(self.graph, self.node, self.buffers, self.is_mask)

    def new_zeros(self, shape: Any) -> Lazy:
        return self.new_full(shape, 0.0)

    def new_ones(self, shape: Any) -> Lazy:
        return self.new_full(shape, 1.0)

    def new_full(self, shape: Any, value: float) -> Lazy:
        if tuple(shape) != self.shape:
            raise ValueError(f"a new block of shape {tuple(shape)} beside one of {self.shape}")
        if self.is_mask:
            every = self.made(c.ALL)
            return every if value else ~every
        return self.made(c.FILL, bits=bits_of(value))

    def float(self) -> Lazy:
        return self.made(c.AS_NUMBER, self.node) if self.is_mask else self

    def bool(self) -> Lazy:
        """Whether it is not 0."""
        return self if self.is_mask else ~self.compared("eq", 0.0)

    def abs(self) -> Lazy:
        return self.made(c.ABS, self.node)

    def sign(self) -> Lazy:
        return self.made(c.SIGN, self.node)

    def square(self) -> Lazy:
        return self * self

    def rounded(self) -> Lazy:
        """To bfloat16 and back."""
        return self.made(c.ROUND16, self.node)

    def compared(self, name: str, other: Any) -> Lazy:
        """The mask of `self > other` (`gt`) and its like; `other` is a block or a number."""
        pair, with_number = COMPARED[name]
        if not isinstance(other, Lazy):
            return self.made(with_number, self.node, bits=bits_of(other))
        a, b = (other, self) if name in TURNED else (self, other)
        return self.made(pair, a.node, b.node)

    def masked(self, mask: Lazy) -> Lazy:
        """self * mask."""
        return self.made(c.MASKED, self.node, mask.node)

    def chosen(self, values: Lazy, others: Lazy) -> Lazy:
        """`values` where this mask is true, else `others`."""
        return self.made(c.CHOOSE, values.node, others.node, self.node)

    def first(self, number: int) -> Lazy:
        """The first `number` true places of this mask."""
        return self.made(c.FIRST, self.node, bits=bits_of(number))

    def __gt__(self, other: Any) -> Lazy:
        return self.compared("gt", other)

    def __ge__(self, other: Any) -> Lazy:
        return self.compared("ge", other)

    def __lt__(self, other: Any) -> Lazy:
        return self.compared("lt", other)

    def __le__(self, other: Any) -> Lazy:
        return self.compared("le", other)

    def __eq__(self, other: Any) -> Lazy:
        return self.compared("eq", other)

    def __ne__(self, other: Any) -> Lazy:
        return ~self.compared("eq", other)

    def __and__(self, other: Lazy) -> Lazy:
        return self._of_masks(c.AND, other)

    def __or__(self, other: Lazy) -> Lazy:
        return self._of_masks(c.OR, other)

    def __xor__(self, other: Lazy) -> Lazy:
        return self._of_masks(c.XOR, other)

    def __invert__(self) -> Lazy:
        self._need_mask("~")
        return self.made(c.NOT, self.node)

    def __add__(self, other: Any) -> Lazy:
        return self._calculated(c.ADD, c.ADD_TO, other)

    def __sub__(self, other: Any) -> Lazy:
        return self._calculated(c.SUB, c.SUB_TO, other)

    def __mul__(self, other: Any) -> Lazy:
        return self._calculated(c.MUL, c.MUL_BY, other)

    def __truediv__(self, other: Any) -> Lazy:
        return self._calculated(c.DIV, c.DIV_BY, other)

    __radd__, __rmul__ = __add__, __mul__

    def add_(self, other: Any) -> Lazy:
        return self._becomes(self + other)

    def sub_(self, other: Any) -> Lazy:
        return self._becomes(self - other)

    def mul_(self, other: Any) -> Lazy:
        return self._becomes(self * other)

    def div_(self, other: Any) -> Lazy:
        return self._becomes(self / other)

    def sign_(self) -> Lazy:
        return self._becomes(self.sign())

    def clamp_(self, *, min: float) -> Lazy:
        return self._becomes(self.made(c.CLAMP, self.node, bits=bits_of(min)))

    def masked_fill_(self, mask: Lazy, value: float) -> Lazy:
        filled = self.made(c.FILL, bits=bits_of(value))
        return self._becomes(mask.chosen(filled, self))

    def _calculated(self, code: int, with_number: int, other: Any) -> Lazy:
        if self.is_mask:
            raise TypeError("a mask is no number: use `.float()`")
        if not isinstance(other, Lazy):
            return self.made(with_number, self.node, bits=bits_of(other))
        if not other.is_mask:
            return self.made(code, self.node, other.node)
        return self.masked(other) if code == c.MUL else self.made(code, self.node, other.float().node)

    def _of_masks(self, code: int, other: Lazy) -> Lazy:
        self._need_mask("& | ^")
        other._need_mask("& | ^")
        return self.made(code, self.node, other.node)

    def _need_mask(self, what: str) -> None:
        if not self.is_mask:
            raise TypeError(f"`{what}` is for masks")

    def _becomes(self, other: Lazy) -> Lazy:
        self.node, self.is_mask = other.node, other.is_mask
        self._version += 1
        return self
