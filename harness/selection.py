"""Parts of `prepare` that methods share: TIES (also DARE's), and selection by rank (LED-Merging, ReasonAny).

Importing it does not import torch. Masks are 1-D bool, one block long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError
from harness.method import Cut, Need, Reduce, TensorGroup
from harness.ops import disjoint_mean, elect_sign, matches, total, uniform, zero

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {"expert": ("expert",), "expert_and_base": ("expert", "base")}  # who must select an element
Rule = Literal["drop_both", "task_first", "reasoning_first", "none"]
Masks = Callable[[TensorGroup], dict[str, "Tensor"]]
Deltas = Callable[[TensorGroup, str], "Tensor"]  # (block, role) -> a task vector, however it was thinned


def ties(
    delta: Deltas, roles: Sequence[str], density: float
) -> Generator[Any, Any, Callable[[TensorGroup], Tensor]]:
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
        return [delta(group, role) * cuts[role].mask(group) for role in roles]

    majority = None
    if len(roles) > 1:  # entries without an elected sign exist only where experts cancel out
        majority = yield Reduce(lambda group: total(trimmed(group)).sign_())

    def merged(group: TensorGroup) -> Tensor:
        deltas = trimmed(group)
        most = float(majority.value(group)) if majority else 0.0
        return disjoint_mean(deltas, elect_sign(total(deltas), most))

    return merged


@dataclass(frozen=True)
class Band:
    """Elements selected by their rank from one `end` of the statistic `kind`.

    `share` is a number, the first int(share * n) of n eligible elements, or a pair [lo, hi]: the ranks from
    int(lo * n) to int(hi * n). `nonzero` (only scores above 0) and `exclude` (globs over modules and tensor
    names) narrow the eligible elements. `end: random` draws the ranks, by `seed`.
    """

    kind: str
    share: float | Sequence[float]
    end: Literal["highest", "lowest", "random"] = "highest"
    scope: Literal["global", "tensor"] = "global"
    nonzero: bool = False
    exclude: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        ends = self.ends
        if len(ends) != 2 or not 0 <= ends[0] <= ends[1] <= 1:
            raise HarnessError(
                f"a share of elements is {self.share!r}", "0 <= share <= 1, or [lo, hi] with lo <= hi"
            )

    @property
    def ends(self) -> tuple[float, ...]:
        """(lo, hi) as shares of the eligible elements."""
        return tuple(self.share) if isinstance(self.share, (list, tuple)) else (0.0, self.share)

    @property
    def reads(self) -> bool:
        """Whether the band looks at the statistic at all."""
        return self.end != "random" or self.nonzero

    def cuts(self, role: str, model: str) -> dict[float, Cut]:
        """The requests this band needs on one role and model, by share."""
        key = Need(role, self.kind, model).key
        draw = partial(_drawn, f"select {role}", self.seed)
        values = draw if self.end == "random" else partial(_score, key)
        narrow = partial(_eligible, key if self.nonzero else None, tuple(self.exclude))
        where = narrow if self.nonzero or self.exclude else None
        end = "highest" if self.end == "highest" else "lowest"
        return {share: Cut(values, share, end, self.scope, where) for share in self.ends if share > 0}


# Module-level functions under `partial`: methods that rank the same values then share the answer.
def _score(key: str, group: TensorGroup) -> Tensor:
    return group.scores[key]


def _drawn(label: str, seed: int, group: TensorGroup) -> Tensor:
    return uniform(seed, label, group.name, group.offset, group.base.numel())


def _eligible(key: str | None, patterns: tuple[str, ...], group: TensorGroup) -> Tensor:
    if matches(group.name, patterns):
        return group.base.new_zeros(group.base.shape).bool()
    return group.scores[key] > 0 if key else group.base.new_ones(group.base.shape).bool()


def needs(bands: Mapping[str, Band], elect: str, loss_on: str) -> tuple[Need, ...]:
    """The statistics that `select` reads."""
    return tuple(
        Need(role, band.kind, model, loss_on)
        for role, band in bands.items()
        for model in MODELS[elect]
        if band.reads
    )


def select(
    bands: Mapping[str, Band], elect: str = "expert", granularity: str = "element", rule: str = "drop_both"
) -> Generator[Any, Any, Masks]:
    """Select each role's band on each model that `elect` names, intersect, resolve overlaps (`exclude`).

    A part of `prepare`: `masks = yield from select(...)`. `masks(group)` is role -> bool. With granularity
    `tensor` a whole tensor is selected as soon as one of its elements is, before anything else.
    """
    sides = [(role, model) for role in bands for model in MODELS[elect]]
    cuts = {(*side, share): cut for side in sides for share, cut in bands[side[0]].cuts(*side).items()}
    found = (yield cuts) if cuts else {}

    def ranked(group: TensorGroup, role: str, model: str) -> Tensor:
        low, high = (found.get((role, model, share)) for share in bands[role].ends)
        mask = group.base.new_zeros(group.base.shape).bool() if high is None else high.mask(group)
        return mask if low is None else mask & ~low.mask(group)

    touched = None
    if granularity == "tensor" and cuts:
        touched = yield {
            side: Reduce(lambda group, side=side: ranked(group, *side).float(), op="max", scope="tensor")
            for side in sides
        }

    def elected(group: TensorGroup, side: tuple[str, str]) -> Tensor:
        if touched is None:
            return ranked(group, *side)
        return (touched[side].value(group).to(group.base) > 0).expand(group.base.shape)

    def masks(group: TensorGroup) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for side in sides:
            mask = elected(group, side)
            made[side[0]] = made[side[0]] & mask if side[0] in made else mask
        return exclude(made, rule)

    return masks


def exclude(masks: Mapping[str, Tensor], rule: str) -> dict[str, Tensor]:
    """Resolve the elements that several roles select.

    `drop_both` takes them from all (ReasonAny, Algorithm 1; LED's disjoint step), `none` leaves them to all;
    `reasoning_first` and `task_first` give them to one, task experts among themselves in family order.
    """
    if rule == "none" or len(masks) < 2:
        return dict(masks)
    order = list(masks)
    if rule != "drop_both":
        order.sort(key=lambda role: (role == "reasoning") == (rule == "task_first"))
    seen = several = None
    kept = {}
    for role in order:
        mask = masks[role]
        again = mask.new_zeros(mask.shape) if seen is None else mask & seen
        several = again if several is None else several | again
        kept[role] = mask & ~again
        seen = mask if seen is None else seen | mask
    if rule == "drop_both":
        kept = {role: mask & ~several for role, mask in kept.items()}
    return {role: kept[role] for role in masks}


def unselected(bands: Mapping[str, Band], scales: Mapping[str, Any]) -> list[str]:
    """What `degenerate` says of a method that adds selected elements."""
    idle = [role for role, band in bands.items() if band.ends[0] == band.ends[1] or zero(scales[role])]
    if len(idle) == len(bands):
        return ["nothing is selected or added: the result is the base"]
    return [f"nothing of `{role}` is selected or added" for role in idle]
