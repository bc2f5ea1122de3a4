"""Thin, trim, and merge by sign: parts of `prepare` of TIES and DARE, in the papers' forms and mergekit's.

Importing it does not import torch. All return `merged(group)`, the block of the merged task vector, fresh.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.masking import above, masked
from harness.method import Cut, Reduce, TensorGroup
from harness.ops import (
    agreeing,
    blend,
    disjoint_mean,
    divisor,
    elect_sign,
    magnitudes,
    one,
    total,
    weighted_sum,
)

if TYPE_CHECKING:
    from torch import Tensor

Deltas = Callable[[TensorGroup, str], "Tensor"]  # (block, role) -> a task vector, however it was thinned


@dataclass(frozen=True)
class Merged:
    """What the parts of `prepare` end with: `merged(group)`, and the masks that the contract's `masks` gives:
    the entries that are added; for TIES also those before the election, (added, trimmed)."""

    merged: Callable[[TensorGroup], Tensor]
    masks: Callable[[TensorGroup], dict[str, Any]]

    def __call__(self, group: TensorGroup) -> Tensor:
        return self.merged(group)


def masks(method: Any, group: TensorGroup, state: Merged) -> dict[str, Any]:
    """`masks` of the contract, for a method whose state is a `Merged`."""
    return state.masks(group)


def ties(delta: Deltas, roles: Sequence[str], density: float) -> Generator[Any, Any, Merged]:
    """TIES on the deltas `delta(group, role)`: trim, elect, disjoint mean (arXiv:2306.01708, Algorithm 1).

    A part of `prepare`: `merged = yield from ties(...)`. `merged(group)` is the block of tau_m, fresh. An
    expert's entries are kept from the (d - int(d * density))-th smallest magnitude of the model upwards.
    """
    cuts = None
    if density < 1:
        cuts = yield {
            role: Cut(lambda group, role=role: delta(group, role).abs(), density, ties="all", extra=1)
            for role in roles
        }

    def trimmed(group: TensorGroup) -> list[Tensor]:
        if cuts is None:
            return [delta(group, role) for role in roles]
        return [masked(delta(group, role), cuts[role].mask(group)) for role in roles]

    majority = None
    if len(roles) > 1:  # entries without an elected sign exist only where experts cancel out
        majority = yield Reduce(lambda group: total(trimmed(group)).sign_())

    def voted(group: TensorGroup) -> tuple[list[Tensor], list[Tensor]]:
        deltas = trimmed(group)
        most = float(majority.value(group)) if majority else 0.0
        sign = elect_sign(total(deltas), most)
        return deltas, [above(delta * sign, 0) for delta in deltas]

    def once(group: TensorGroup) -> tuple[list[Tensor], list[Tensor]]:
        return group.once(voted, lambda: voted(group))

    def masks(group: TensorGroup) -> dict[str, tuple[Tensor, Tensor]]:
        deltas, agree = once(group)
        return {r: (a, d.bool()) for r, a, d in zip(roles, agree, deltas, strict=True)}

    return Merged(lambda group: disjoint_mean(*once(group)), masks)


def mergekit_ties(
    delta: Deltas,
    weights: Mapping[str, float],
    density: float | Sequence[float],
    normalize: bool,
) -> Generator[Any, Any, Merged]:
    """mergekit's `ties`, and with density 1 the second half of its `dare_ties`.

    Per tensor and expert the max(1, int(density * numel)) largest magnitudes are kept, all at density 1 and
    none at 0; the sign is that of the sum of the weighted rest (0: positive). With `normalize` the sum of
    what has that sign is divided by the sum of its weights (0: by 1). `density` may be a list over depth.
    """
    cuts = None
    if not one(density):
        cuts = yield {
            role: Cut(lambda group, r=role: delta(group, r).abs(), density, scope="tensor", at_least=1)
            for role in weights
        }

    def weighted(group: TensorGroup, role: str) -> Tensor:
        made = delta(group, role)
        if cuts is not None:
            made = masked(made, cuts[role].mask(group)) if group.at(density) > 0 else made * 0.0
        return made * weights[role]

    def voted(group: TensorGroup) -> tuple[list[Tensor], list[Tensor]]:
        deltas = [weighted(group, role) for role in weights]
        return deltas, agreeing(deltas)

    def once(group: TensorGroup) -> tuple[list[Tensor], list[Tensor]]:
        return group.once(voted, lambda: voted(group))

    def merged(group: TensorGroup) -> Tensor:
        found, whole = blend(*once(group), weights.values())
        return found.div_(whole.masked_fill_(whole == 0, 1)) if normalize else found

    def masks(group: TensorGroup) -> dict[str, tuple[Tensor, Tensor]]:
        deltas, agree = once(group)
        return {r: (a, d.bool()) for r, a, d in zip(weights, agree, deltas, strict=True)}

    return Merged(merged, masks)


def kept(group: TensorGroup, role: str, density: float | Sequence[float]) -> Tensor:
    """DARE's survivors: the task vector, 0 where the draw drops an entry (arXiv:2311.03099, section 3)."""
    return masked(group.deltas[role], survives(group, role, density))


def survives(group: TensorGroup, role: str, density: float | Sequence[float]) -> Tensor:
    """Which entries DARE's draw keeps, bool."""
    share = group.at(density)
    if share == 1:
        return group.base.new_ones(group.base.shape).bool()
    return group.once(("survives", role, share), lambda: group.drawn(role, share))


def norms(roles: Iterable[str], density: float | Sequence[float]) -> dict[str, Reduce]:
    """Requests by role: each tensor's L1 norm before and after the draw."""
    return {
        role: Reduce(
            lambda g, r=role: magnitudes(g.deltas[r], kept(g, r, density)),
            scope="tensor",
            about=lambda g: (1.0, g.at(density)),
        )
        for role in roles
    }


def thins(method: Any) -> bool:
    """Whether DARE drops anything, and so draws."""
    return not one(method.density)


def dare(
    method: Any, weights: Mapping[str, float], rescale: str, norms: Mapping[str, Any]
) -> Generator[Any, Any, Merged]:
    """DARE by the settings of `method`: thinned task vectors, added or merged by the profile's TIES.

    `norms`, by role, holds each tensor's L1 norm before and after the draw, where `rescale` is `l1`.
    """

    def thinned(group: TensorGroup, role: str) -> Tensor:
        density = group.at(method.density)
        if density == 1:
            return group.deltas[role]
        before, after = norms[role].value(group).tolist() if norms else (1.0, density)
        factor = before / after if rescale != "none" and min(before, after) >= 1e-7 else 1.0
        return kept(group, role, method.density).mul_(factor)

    def weighted(group: TensorGroup, role: str) -> Tensor:
        return thinned(group, role) if weights[role] == 1 else thinned(group, role) * weights[role]

    if method.trims:
        return (yield from ties(weighted, tuple(weights), method.trim))
    if method.variant == "ties":
        return (yield from mergekit_ties(thinned, weights, 1.0, method.normalize))

    def merged(group: TensorGroup) -> Tensor:
        mixed = weighted_sum({role: thinned(group, role) for role in weights}, weights)
        whole = divisor(weights, method.normalize)
        return mixed if whole == 1 else mixed.div_(whole)

    return Merged(merged, lambda group: {role: survives(group, role, method.density) for role in weights})
