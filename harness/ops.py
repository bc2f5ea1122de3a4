"""Tensor maths that merge methods share. Importing it does not import torch.

Blocks are 1-D float32, masks 1-D bool of the same length. No function writes into its arguments, save
those that its docstring calls owned. All arithmetic is element-wise, one operation at a time (no fused
multiply-add), so a block's bits do not depend on where its tensor was cut.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError, nearest
from harness.masking import above, at_least, below, chosen, count_in, lazy, masked

if TYPE_CHECKING:
    from torch import Tensor

PER_COUNTER = 8  # numbers of 32 bits from one Philox counter


def uniform(seed: int, role: str, name: str, offset: int, n: int) -> Tensor:
    """`n` uniform random numbers in [0, 1), float32 multiples of 2^-24, shape [n].

    Counter-based (Philox 4x64, keyed by sha256): number i of (seed, role, name) is the same in whatever
    stretch it is asked for.
    """
    import numpy
    import torch

    drawn = words(seed, role, name, offset, n) >> numpy.uint32(8)
    return torch.from_numpy(drawn.astype(numpy.float32)).mul_(2.0**-24)


def drawn(share: float, seed: int, role: str, name: str, offset: int, n: int) -> Tensor:
    """`uniform(...) < share`, bool, without making the numbers: `share` (a float32) in units of 2^-24."""
    import numpy
    import torch

    limit = math.ceil(float(numpy.float32(share)) * 2**24)
    if limit >= 2**24:
        return torch.ones(n, dtype=torch.bool)
    return torch.from_numpy(words(seed, role, name, offset, n) < numpy.uint32(limit << 8))


def words(seed: int, role: str, name: str, offset: int, n: int) -> Any:
    """The 32-bit words of the stream, numpy uint32 [n]: halves of its 64-bit words, the lower one first."""
    import numpy

    key = hashlib.sha256(f"{seed}\0{role}\0{name}".encode()).digest()
    stream = numpy.random.Philox(key=int.from_bytes(key[:16], "little"))
    stream.advance(offset // PER_COUNTER)
    skipped = offset % PER_COUNTER
    # All 64-bit numbers are as likely: these are the stream's own, drawn faster than by `random_raw`.
    whole = numpy.random.Generator(stream).integers(
        2**64 - 1, size=(skipped + n + 1) // 2, dtype=numpy.uint64, endpoint=True
    )
    return whole.astype("<u8", copy=False).view("<u4")[skipped : skipped + n]


def total(tensors: Iterable[Tensor]) -> Tensor:
    """The sum, in order, as a fresh tensor."""
    first, *rest = tensors
    result = first.clone()
    for tensor in rest:
        result.add_(tensor)
    return result


def weighted_sum(tensors: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """sum_i w_i t_i in the order of `tensors`, as a fresh tensor."""
    return total(t if weights[role] == 1 else t * weights[role] for role, t in tensors.items())


def add_scaled(base: Tensor, delta: Tensor, scale: float) -> Tensor:
    """base + scale * delta; `delta` is owned. Scale 0 gives the base bit for bit (-0.0 + 0.0 is 0.0)."""
    if scale == 0:
        return base.clone()
    return (delta if scale == 1 else delta.mul_(scale)).add_(base)


def add_selected(
    base: Tensor,
    deltas: Mapping[str, Tensor],
    masks: Mapping[str, Tensor],
    scales: Mapping[str, float],
    rounded: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> Tensor:
    """base + sum_i scale_i * (mask_i . delta_i), every product and sum `rounded`; where no mask selects, the
    base bit for bit."""
    merged = base
    for role, mask in masks.items():
        if scales[role] != 0:
            added = deltas[role] if scales[role] == 1 else rounded(deltas[role] * scales[role])
            merged = chosen(mask, rounded(merged + added), merged)
    return base.clone() if merged is base else merged


def add_in_bf16(
    base: Tensor, experts: Mapping[str, Tensor], masks: Mapping[str, Tensor], scales: Mapping[str, float]
) -> Tensor:
    """As `add_selected`, with the models, the task vectors and every product and sum in bfloat16."""
    base = bf16(base)
    deltas = {role: bf16(bf16(experts[role]) - base) for role in masks}
    return add_selected(base, deltas, masks, scales, bf16)


def bf16(tensor: Tensor) -> Tensor:
    """Rounded to bfloat16, as float32: what one operation of a computation in bfloat16 gives."""
    return tensor.rounded() if lazy(tensor) else tensor.bfloat16().float()


def elect_sign(sums: Tensor, majority: float) -> Tensor:
    """TIES' elected sign (arXiv:2306.01708, section 3): that of `sums`; zeros take that of `majority`."""
    sign = sums.sign()
    most = (majority > 0) - (majority < 0)
    return sign.mul_(2).add_(most).sign_() if most else sign


def disjoint_mean(deltas: Sequence[Tensor], masks: Sequence[Tensor]) -> Tensor:
    """TIES' disjoint merge: the mean of the entries that `masks` select; 0 where there is none."""
    sums, count = deltas[0].new_zeros(deltas[0].shape), deltas[0].new_zeros(deltas[0].shape)
    for delta, mask in zip(deltas, masks, strict=True):
        sums.add_(masked(delta, mask))
        count_in(count, mask)
    return sums.div_(count.clamp_(min=1))


def agreeing(deltas: Sequence[Tensor]) -> list[Tensor]:
    """mergekit's sign consensus: the entries that have the sign of the sum. A sum of 0 counts as positive."""
    positive = at_least(total(deltas), 0)
    return [(above(delta, 0) & positive) | (below(delta, 0) & ~positive) for delta in deltas]


def blend(
    deltas: Iterable[Tensor], masks: Iterable[Tensor], weights: Iterable[float]
) -> tuple[Tensor, Tensor]:
    """(sum_i mask_i . delta_i, sum_i w_i mask_i), fresh: a disjoint merge and its divisor."""
    pairs = list(zip(deltas, masks, weights, strict=True))
    whole = total(masked(d.new_full(d.shape, float(weight)), mask) for d, mask, weight in pairs)
    return total(masked(delta, mask) for delta, mask, _ in pairs), whole


def variance(tensors: Sequence[Tensor]) -> Tensor:
    """Element-wise population variance over the tensors, in float64, returned as float32."""
    if lazy(tensors[0]):
        return tensors[0].buffers.computed("variance", _variance, tensors)
    mean = total(t.double() for t in tensors).div_(len(tensors))
    return total((t.double() - mean).square_() for t in tensors).div_(len(tensors)).float()


def _variance(*blocks: Any) -> Any:
    """`variance` of numpy arrays."""
    wide = [block.astype("float64") for block in blocks]
    mean = sum(wide[1:], wide[0]) / len(wide)
    squares = [(block - mean) ** 2 for block in wide]
    return (sum(squares[1:], squares[0]) / len(wide)).astype("float32")


def magnitudes(*tensors: Tensor) -> Tensor:
    """Absolute values stacked, [m, block]: what a `Reduce` sums into m L1 norms."""
    return stacked([tensor.abs() for tensor in tensors])


def divisor(weights: Mapping[str, float], normalize: bool) -> float:
    """What a weighted sum is divided by: 1, or with `normalize` the weights' sum (1 below 1e-8: mergekit)."""
    whole = sum(weights.values())
    return whole if normalize and abs(whole) >= 1e-8 else 1.0


def alike(weights: Mapping[str, float], normalize: bool = True) -> list[str]:
    """What `degenerate` says of weights that `normalize` cancels."""
    given = set(weights.values())
    useless = normalize and len(given) == 1 and given != {1} and 0 not in given
    return said(
        (useless, f"all weights are {min(given, default=1):g}: `normalize` makes them change nothing")
    )


def squares(tensors: Sequence[Tensor]) -> Tensor:
    """Squares stacked, [m, block]."""
    return stacked([tensor.square() for tensor in tensors])


def stacked(tensors: Sequence[Tensor]) -> Any:
    """[m, block], for a `Reduce`."""
    if lazy(tensors[0]):
        return list(tensors)
    import torch

    return torch.stack(list(tensors))


def by_role(given: Mapping[str, Any], default: Any, roles: Iterable[str], what: str) -> dict[str, Any]:
    """role -> given value, or `default`. Raises HarnessError for a role that the family does not have."""
    roles = tuple(roles)
    for role in given:
        if role not in roles:
            raise HarnessError(f"`{what}` names the role `{role}`", nearest(role, roles))
    return {role: given.get(role, default) for role in roles}


def require_role(role: str, roles: Sequence[str], method: str) -> None:
    """Raise HarnessError unless the family has an expert of this role."""
    if role not in roles:
        raise HarnessError(
            f"`{method}` needs an expert with the role `{role}`; the family has {', '.join(roles)}",
            f"name one of the family's experts `{role}:`",
        )


def side(method: Any, what: str, role: str) -> Any:
    """`what_reasoning` of a method for the role `reasoning`, else `what_task`; `what` where that is None."""
    own = getattr(method, f"{what}_reasoning" if role == "reasoning" else f"{what}_task")
    return getattr(method, what) if own is None else own


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Whether a tensor fits one of the globs: by full name or by the end of it: `up_proj`."""
    module = name.removesuffix(".weight").removesuffix(".bias")
    return any(
        fnmatchcase(name, p) or fnmatchcase(module, p) or fnmatchcase(module, f"*.{p}") for p in patterns
    )


def check_patterns(patterns: Iterable[str], names: Sequence[str], what: str) -> None:
    """Raise HarnessError for a glob that fits no tensor: it would silently exclude nothing."""
    for pattern in patterns:
        if not any(matches(name, [pattern]) for name in names):
            modules = {name.removesuffix(".weight").removesuffix(".bias").split(".")[-1] for name in names}
            raise HarnessError(
                f"`{what}` names `{pattern}`, and no tensor fits it", nearest(pattern, modules)
            )


def zero(value: Any) -> bool:
    """Whether a parameter, or every entry of one that runs over depth, is 0."""
    return all(v == 0 for v in value) if isinstance(value, (list, tuple)) else value == 0


def overridden(method: Any, roles: Iterable[str], *names: str) -> list[str]:
    """Settings that nobody reads because `name_of` gives every role its own."""
    roles = set(roles)
    return [
        f"`{n}` is not read: `{n}_of` names every role"
        for n in names
        if roles <= set(getattr(method, n + "_of"))
    ]


def one(value: Any) -> bool:
    """Whether a parameter, or every entry of one that runs over depth, is 1."""
    return all(v == 1 for v in value) if isinstance(value, (list, tuple)) else value == 1


def refuse(*cases: tuple[bool, str, str]) -> None:
    """Raise HarnessError(message, hint) for the first of (condition, message, hint) whose condition holds."""
    for holds, message, hint in cases:
        if holds:
            raise HarnessError(message, hint)


def reserved(profile: str, owner: str, **given: Any) -> None:
    """Raise HarnessError when a parameter is given (is true) that only the profile `owner` has."""
    refuse(
        *(
            (
                profile != owner and bool(value),
                f"this `{name}` is not of `profile: {profile}`",
                f"leave it out, or set `profile: {owner}`",
            )
            for name, value in given.items()
        )
    )


def said(*pairs: tuple[bool, str]) -> list[str]:
    """The sentences whose condition holds."""
    return [sentence for holds, sentence in pairs if holds]
