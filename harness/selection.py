"""Selection by rank, a part of `prepare` that LED-Merging and ReasonAny share.

Importing it does not import torch. Masks are 1-D bool, one block long.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError
from harness.masking import above, lazy
from harness.method import Cut, Need, Reduce, TensorGroup
from harness.ops import matches, refuse, require_role, said, side, uniform, zero

if TYPE_CHECKING:
    from torch import Tensor

MODELS = {"expert": ("expert",), "expert_and_base": ("expert", "base")}  # who must select an element
Models = Literal["expert", "expert_and_base"]
Rule = Literal["drop_both", "task_first", "reasoning_first", "none"]


@dataclass(frozen=True)
class Masks:
    """What `select` ends with: `masks(group)` is role -> bool, `masks.pairs(group)` role -> (that, before
    exclusion)."""

    elected: Callable[[TensorGroup], dict[str, Tensor]]
    rule: str

    def __call__(self, group: TensorGroup) -> dict[str, Tensor]:
        return {role: after for role, (after, _) in self.pairs(group).items()}

    def pairs(self, group: TensorGroup) -> dict[str, tuple[Tensor, Tensor]]:
        return group.once(self, lambda: self._pairs(group))

    def _pairs(self, group: TensorGroup) -> dict[str, tuple[Tensor, Tensor]]:
        before = self.elected(group)
        return {role: (after, before[role]) for role, after in exclude(before, self.rule).items()}


def masks(method: Any, group: TensorGroup, state: Masks) -> dict[str, tuple[Tensor, Tensor]]:
    """`masks` of the contract, for a method whose state is what `select` ends with."""
    return state.pairs(group)


@dataclass(frozen=True)
class Band:
    """Elements selected by their rank from one `end` of the statistic `kind`.

    `share`: the first int(share * n) of n eligible elements; with scope `tensor` it may be a list over depth.
    `interval` [lo, hi], instead: the ranks from int(lo * n) to int(hi * n). `nonzero` (only scores above 0)
    and `exclude` (globs over modules and tensor names) narrow the eligible elements. `end: random` draws the
    ranks, by `seed`. `profile: official` cuts as ReasonAny's code does, on statistics of that profile: all
    elements equal to the threshold, which is the k-th smallest, or the (n - k)-th smallest from the top.
    """

    kind: str
    share: float | Sequence[float]
    end: Literal["highest", "lowest", "random"] = "highest"
    scope: Literal["global", "tensor"] = "global"
    nonzero: bool = False
    exclude: Sequence[str] = ()
    seed: int = 0
    interval: Sequence[float] | None = None
    profile: Literal["paper", "official"] = "paper"

    def __post_init__(self) -> None:
        if self.interval is not None:
            if len(self.interval) != 2 or not 0 <= self.interval[0] <= self.interval[1] <= 1:
                raise HarnessError(
                    f"an interval of ranks is {list(self.interval)}", "[lo, hi] with 0 <= lo <= hi <= 1"
                )
            if self.profile == "official":
                raise HarnessError("`interval` under `profile: official`", "the code has none; use `paper`")
            return
        shares = self.share if isinstance(self.share, (list, tuple)) else [self.share]
        if not all(0 <= share <= 1 for share in shares):
            raise HarnessError(f"a share of elements is {self.share!r}", "0 <= share <= 1")
        if len(shares) > 1 and self.scope == "global":
            raise HarnessError(
                f"a share of elements is {self.share!r}, over depth, and the ranking is over the whole model",
                "give one number, or rank within each tensor: `scope: tensor`",
            )

    @property
    def ends(self) -> tuple[Any, Any]:
        """(lo, hi) as shares of the eligible elements; hi may be a tuple over depth."""
        if self.interval is not None:
            return tuple(self.interval)
        return 0.0, tuple(self.share) if isinstance(self.share, (list, tuple)) else self.share

    @property
    def empty(self) -> bool:
        """Whether nothing can be selected (the official threshold of the highest always keeps one)."""
        low, high = self.ends
        return low == high or (zero(high) and not (self.profile == "official" and self.end == "highest"))

    def need(self, role: str, model: str, loss_on: str = "all") -> Need:
        """The statistic that ranks this band's elements on one model."""
        return Need(role, self.kind, model, loss_on, self.profile)

    @property
    def reads(self) -> bool:
        """Whether the band looks at the statistic at all."""
        return self.end != "random" or self.nonzero

    def cuts(self, role: str, model: str) -> dict[Any, Cut]:
        """The requests this band needs on one role and model, by share."""
        key = self.need(role, model).key
        draw = partial(_drawn, f"select {role}", self.seed)
        values = draw if self.end == "random" else partial(_score, key)
        narrow = partial(_eligible, key if self.nonzero else None, tuple(self.exclude))
        where = narrow if self.nonzero or self.exclude else None
        end = "highest" if self.end == "highest" else "lowest"
        code = self.profile == "official"
        how = {"ties": "all" if code else "exact", "extra": int(code and end == "highest")}
        low, high = self.ends
        wanted = [low] * (not zero(low)) + [high] * (not zero(high) or how["extra"])
        return {share: Cut(values, share, end, self.scope, where, **how) for share in wanted}


# Module-level functions under `partial`: methods that rank the same values then share the answer.
def _score(key: str, group: TensorGroup) -> Tensor:
    return group.scores[key]


def _drawn(label: str, seed: int, group: TensorGroup) -> Tensor:
    if lazy(group.base):
        return group.base.buffers.uniform(seed + group.seed, label, group.name)
    numbers = uniform(seed + group.seed, label, group.name, group.offset, group.base.numel())
    return numbers.to(group.base.device)


def _eligible(key: str | None, patterns: tuple[str, ...], group: TensorGroup) -> Tensor:
    if matches(group.name, patterns):
        return group.base.new_zeros(group.base.shape).bool()
    return above(group.scores[key], 0) if key else group.base.new_ones(group.base.shape).bool()


def draws(method: Any) -> bool:
    """Whether a method's reasoning side is drawn."""
    return method.reasoning_end == "random"


def needs(bands: Mapping[str, Band], elect: str, loss_on: str) -> tuple[Need, ...]:
    """The statistics that `select` reads."""
    code = any(band.profile == "official" for band in bands.values())
    refuse(
        (
            code and loss_on == "completion",
            "`loss_on` is `completion` under `profile: official`",
            "the official statistics take the loss on every token; use `profile: paper`",
        )
    )
    return tuple(
        band.need(role, model, loss_on)
        for role, band in bands.items()
        for model in MODELS[elect]
        if band.reads
    )


def select(
    bands: Mapping[str, Band], elect: str = "expert", granularity: str = "element", rule: str = "drop_both"
) -> Generator[Any, Any, Masks]:
    """Select each role's band on each model that `elect` names, intersect, resolve overlaps (`exclude`).

    A part of `prepare`: `masks = yield from select(...)`. With granularity `tensor` a whole tensor
    is selected as soon as one of its elements is, before anything else.
    """
    pairs = [(role, model) for role in bands for model in MODELS[elect]]
    cuts = {(*pair, share): cut for pair in pairs for share, cut in bands[pair[0]].cuts(*pair).items()}
    found = (yield cuts) if cuts else {}

    def ranked(group: TensorGroup, role: str, model: str) -> Tensor:
        low, high = bands[role].ends
        low = None if zero(low) else found[role, model, low]
        high = found.get((role, model, high))
        mask = group.base.new_zeros(group.base.shape).bool() if high is None else high.mask(group)
        return mask if low is None else mask & ~low.mask(group)

    touched = None
    if granularity == "tensor" and cuts:
        touched = yield {
            pair: Reduce(lambda group, pair=pair: ranked(group, *pair).float(), op="max", scope="tensor")
            for pair in pairs
        }

    def elected(group: TensorGroup, pair: tuple[str, str]) -> Tensor:
        if touched is None:
            return ranked(group, *pair)
        return above(group.base.new_full(group.base.shape, float(touched[pair].value(group))), 0)

    def everywhere(group: TensorGroup) -> dict[str, Tensor]:
        made: dict[str, Tensor] = {}
        for pair in pairs:
            mask = elected(group, pair)
            made[pair[0]] = made[pair[0]] & mask if pair[0] in made else mask
        return made

    return Masks(everywhere, rule)


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
    idle = [role for role, band in bands.items() if band.empty or zero(scales[role])]
    if len(idle) == len(bands):
        return ["nothing is selected or added: the result is the base"]
    return [f"nothing of `{role}` is selected or added" for role in idle]


def sides(method: Any, roles: Sequence[str]) -> dict[str, Band]:
    """ReasonAny's bands by role: the highest for task experts, those of `reasoning_end` for reasoning."""
    require_role("reasoning", roles, "reasonany")
    shared = {"scope": method.scope, "nonzero": method.zero_gradient == "exclude", "profile": method.profile}
    shared["exclude"] = method.exclude_modules
    task = Band(method.score, side(method, "p", "task"), **shared)
    ranks = {"interval": method.interval, "seed": method.reasoning_seed}
    reasoning = Band(method.score, side(method, "p", "reasoning"), method.reasoning_end, **ranks, **shared)
    return {r: reasoning if r == "reasoning" else task for r in roles if side(method, "use", r)}


def elected_by(method: Any) -> str:
    """The models that must select an element: the code has the base do so too, the paper does not."""
    return method.elect or ("expert_and_base" if method.profile == "official" else "expert")


def unread(method: Any) -> list[str]:
    """What `degenerate` says of ReasonAny's settings that others override."""
    own = method.scale_task is not None and method.scale_reasoning is not None
    ranks = method.p_task is not None and (method.p_reasoning is not None or method.interval is not None)
    return said(
        (
            method.interval is not None and method.p_reasoning is not None,
            "`interval` overrides `p_reasoning`",
        ),
        (method.reasoning_seed != 0 and method.reasoning_end != "random", "`reasoning_seed` is not read"),
        (own and method.scale != 1, "`scale` is not read: both sides have their own"),
        (ranks and method.p != 0.05, "`p` is not read: both sides have their own"),
    )
