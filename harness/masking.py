"""Comparisons and masks over blocks, as fast as memory allows. Importing it does not import torch.

Torch's own kernels that read or write bools are 4 to 30 times slower on a CPU than its float kernels (`where`
and `masked_fill` even branch per element), so on a CPU numpy does these over the same memory. Bits are the
same on every device. Tensors are float32 and masks bool, of one shape; results are fresh.
A lazy block (`harness.merge.fused`) has operations of its own for these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def above(values: Tensor, limit: Tensor | float) -> Tensor:
    """values > limit."""
    return _compared("gt", values, limit)


def at_least(values: Tensor, limit: Tensor | float) -> Tensor:
    """values >= limit."""
    return _compared("ge", values, limit)


def below(values: Tensor, limit: Tensor | float) -> Tensor:
    """values < limit."""
    return _compared("lt", values, limit)


def at_most(values: Tensor, limit: Tensor | float) -> Tensor:
    """values <= limit."""
    return _compared("le", values, limit)


def equal(values: Tensor, limit: Tensor | float) -> Tensor:
    """values == limit."""
    return _compared("eq", values, limit)


NUMPY = {"gt": "greater", "ge": "greater_equal", "lt": "less", "le": "less_equal", "eq": "equal"}


def lazy(tensor: Any) -> bool:
    """Whether a block is one that is computed later."""
    return getattr(type(tensor), "lazy", False)


def _on_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _compared(name: str, values: Tensor, limit: Any) -> Tensor:
    if lazy(values):
        return values.compared(name, limit)
    import numpy
    import torch

    if not _on_cpu(values):
        return getattr(torch, name)(values, limit)
    made = values.new_empty(values.shape, dtype=torch.bool)
    other = limit.numpy() if isinstance(limit, torch.Tensor) else limit
    getattr(numpy, NUMPY[name])(values.numpy(), other, out=made.numpy())
    return made


def masked(values: Tensor, mask: Tensor) -> Tensor:
    """values * mask: where the mask is false 0 of the value's sign, NaN for infinity."""
    if lazy(values):
        return values.masked(mask)
    import numpy

    if not _on_cpu(values):
        return values * mask
    made = values.new_empty(values.shape)
    numpy.multiply(values.numpy(), mask.numpy(), out=made.numpy())
    return made


def count_in(sums: Tensor, mask: Tensor) -> None:
    """Add 1 to `sums`, in place, where the mask is true."""
    if lazy(sums):
        sums.add_(mask.float())
        return
    import numpy

    if _on_cpu(sums):
        numpy.add(sums.numpy(), mask.numpy(), out=sums.numpy())
    else:
        sums.add_(mask)


def chosen(mask: Tensor, values: Tensor, others: Tensor) -> Tensor:
    """`values` where the mask is true, else `others`, bit for bit (by bits, so without a branch)."""
    if lazy(mask):
        return mask.chosen(values, others)
    import torch

    bits, other = values.view(torch.int32), others.view(torch.int32)
    every = mask.to(torch.int32).neg_()  # all bits, or none
    return torch.bitwise_xor(bits, other).bitwise_and_(every).bitwise_xor_(other).view(torch.float32)
