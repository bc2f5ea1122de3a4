"""The merge-method contract: what a method declares, what it is given, what it gives back.

A method is a class tagged with `@merge_method`. Its fields are its parameters: the same names are YAML
keys, `--set` keys, sweep axes and parts of a row's name. Every parameter has a default, a range, a value
at which it changes nothing (where there is one) and a sentence of help.

A *streaming* method implements `merge(group, state) -> Tensor`: arithmetic on one block (a flat run of
elements) of one tensor. What it must know beyond the block it asks for in `prepare`, a generator that
yields requests (`Cut`, `Reduce`) and receives their results; the engine answers the requests of all
methods of a run in shared passes over the inputs. A *whole-model* method implements `build(context)`.
"""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError, nearest
from harness.values import Param, at_depth, check_value

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 65_536  # elements; every reduction is a float64 sum over chunks of this size, taken in order


@dataclass(frozen=True)
class Need:
    """A gradient statistic a method asks for; it reaches `merge` as `group.scores[need.key]`.

    `role` names the expert whose calibration data is used; `model` says whether the statistic is taken on
    that expert or on the base with the same data. Kinds: `gradient` E|g|, `snip` E|w*g|, `fisher` E[g^2],
    `snip_squared` E[(w*g)^2]; expectations over samples, batch size 1. `votes` is the share of samples with
    g*w + penalty * F * (theta_against - theta)^2 <= 0, F the `snip_squared` statistic of the expert `against`
    on its own data. `profile: official` computes as ReasonAny's code does: text padded to `max_tokens`, loss
    on the padding too, the base's tokenizer, and weights, gradients and sums in bfloat16.
    """

    role: str
    kind: Literal["gradient", "snip", "fisher", "snip_squared", "votes"] = "gradient"
    model: Literal["expert", "base"] = "expert"
    loss_on: Literal["all", "completion"] = "all"
    profile: Literal["paper", "official"] = "paper"
    against: str | None = None
    penalty: float = 0.0

    @property
    def key(self) -> str:
        name = f"{self.role}.{self.kind}" + (".base" if self.model == "base" else "")
        name += ".official" if self.profile == "official" else ""
        return name if self.against is None else f"{name}.{self.against}.{self.penalty:g}"


@dataclass
class TensorGroup:
    """One block of one tensor, the same elements of every input. All blocks are 1-D float32.

    `offset` is the index of the block's first element in the flattened tensor (a multiple of `CHUNK`),
    `numel` the tensor's size. `layer` is None outside the decoder layers; `depth` is their number.
    The tensors live in buffers that the engine reuses: a method returns a new tensor or works on copies.
    """

    name: str
    module: str
    layer: int | None
    depth: int
    shape: tuple[int, ...]
    offset: int
    base: Tensor
    experts: Mapping[str, Tensor]
    scores: Mapping[str, Tensor]
    seed: int = 0
    _deltas: dict[str, Tensor] | None = None
    _made: dict[Any, Any] = field(default_factory=dict)

    @property
    def numel(self) -> int:
        """Elements of the whole tensor, not of the block."""
        n = 1
        for side in self.shape:
            n *= side
        return n

    @property
    def deltas(self) -> dict[str, Tensor]:
        """Task vectors by role, expert minus base, float32 (arXiv:2212.04089). Read-only: they are shared
        by all methods of the pass."""
        if self._deltas is None:
            self._deltas = {role: expert - self.base for role, expert in self.experts.items()}
        return self._deltas

    def uniform(self, role: str) -> Tensor:
        """Uniform random numbers in [0, 1) for this block, float32; they depend on (seed, role, tensor
        name, element index) alone, so never on threads, blocks, shards or device."""
        from harness import ops

        return ops.uniform(*self._stream(role)).to(self.base.device)

    def drawn(self, role: str, share: float) -> Tensor:
        """`uniform(role) < share`, bool, faster."""
        from harness import ops

        return ops.drawn(share, *self._stream(role)).to(self.base.device)

    def _stream(self, role: str) -> tuple[int, str, str, int, int]:
        return self.seed, role, self.name, self.offset, self.base.numel()

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()`, kept under `key` for this block and method, where `merge` and `masks` need the same.
        Read-only."""
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def at(self, value: Any) -> Any:
        """`value` at this tensor's depth: a list is interpolated linearly from the first layer to the last
        (tensors outside the layers take the nearer end); anything else is returned as it is."""
        return at_depth(value, self.layer, self.depth, self.module)


BlockFunction = Callable[[TensorGroup], "Tensor"]


@dataclass(frozen=True)
class Cut:
    """Request: the exact cut that keeps a share of all elements, ranked by `values`.

    `values(group)` gives one non-negative float32 per element; `where(group)` (bool) narrows the elements
    that are ranked. `keep` is the share of them that is kept: k = int(keep * eligible) elements (of the
    whole model, or of each tensor for `scope="tensor"`, where `keep` may be a list over depth).
    `ties="exact"` keeps exactly k, broken by tensor order then index; `ties="all"` keeps every element equal
    to the threshold.
    k is raised to `at_least`, then by `extra`, and is never more than the eligible elements: `count` says it.
    The result is a `Threshold`.
    """

    values: BlockFunction
    keep: float | Sequence[float]
    end: Literal["highest", "lowest"] = "highest"
    scope: Literal["global", "tensor"] = "global"
    where: BlockFunction | None = None
    ties: Literal["exact", "all"] = "exact"
    at_least: int = 0
    extra: int = 0  # TIES' code keeps int(d * K) + 1: its threshold is the (d - int(d * K))-th smallest

    def __post_init__(self) -> None:
        if isinstance(self.keep, (list, tuple)):
            object.__setattr__(self, "keep", tuple(self.keep))
            if self.scope == "global":
                raise HarnessError(
                    f"a share over depth, {list(self.keep)}, in a ranking over the whole model",
                    "one number, or rank within each tensor (`scope: tensor`)",
                )

    def at(self, layer: int | None, depth: int, module: str) -> Cut:
        """This cut for one tensor: a `keep` over depth becomes the number at its place."""
        if not isinstance(self.keep, tuple):
            return self
        return dataclasses.replace(self, keep=at_depth(self.keep, layer, depth, module))

    def count(self, eligible: int) -> int:
        """k, the number of elements to keep of `eligible` ones (ties under `ties="all"` come on top)."""
        return min(eligible, max(self.at_least, int(self.keep * eligible)) + self.extra)


class Threshold(typing.Protocol):
    """Result of a `Cut`."""

    def mask(self, group: TensorGroup) -> Tensor:
        """Which elements of this block are kept (bool, the block's length)."""

    def value(self, group: TensorGroup) -> float:
        """The threshold itself; infinite when nothing is kept."""

    def kept(self, group: TensorGroup) -> int:
        """Number of elements kept in all (global scope) or in this tensor."""


@dataclass(frozen=True)
class Reduce:
    """Request: `values(group)` (1-D per element, or [m, block] for m quantities) reduced over all elements.

    `op` is `sum` (float64, fixed chunks in order), `max` or `min`. The result is a `Reduced`.
    With scope `tensor`, `about(group)` may say about what the values will be: the exact ones are then made in
    the pass of the next request, tensor by tensor, instead of in a pass of their own, and what stands in for
    them is only seen by samples, which decide how long a `Cut` takes and never what it is.
    """

    values: BlockFunction
    op: Literal["sum", "max", "min"] = "sum"
    scope: Literal["global", "tensor"] = "global"
    about: Callable[[TensorGroup], Sequence[float]] | None = None


class Reduced(typing.Protocol):
    """Result of a `Reduce`."""

    def value(self, group: TensorGroup) -> Tensor:
        """float64, shape () or [m]: over the model (global scope) or over this block's tensor."""


@dataclass(frozen=True)
class Layout:
    """What `prepare` may know of the inputs before anything is read: roles in family order."""

    roles: tuple[str, ...]
    names: tuple[str, ...]
    seed: int = 0


def merge_method(
    name: str,
    *,
    title: str,
    paper: str = "",
    plain: bool = False,
    draws: Callable[[Any], bool] | None = None,
) -> Callable[[type], type]:
    """Tag a class as the merge method `name`.

    `draws(self)` says whether the method uses random numbers with these settings: `--seeds` repeats it.

    `plain`: nothing is done to blocks but `+ - * /`, `clone`, `add_`, `sub_`, `mul_`, `div_`; with `prepare`
    or `masks` also comparisons, `& | ~`, `abs`, `sign`, and all that the shared modules do. Large models are
    then merged by compiled code, small ones without torch where the former is all there is; same bits.

    The class becomes a frozen dataclass. It must define `merge(self, group, state)` (and may define the
    generator `prepare(self, layout)`), or `build(self, context)`. It may define `needs(self, roles)` -> the
    statistics it reads, `reads_rows(self, roles)` -> the roles whose calibration rows it trains on,
    `degenerate(self, roles)` -> sentences about settings that change nothing, and, beside `merge`,
    `masks(self, group, state)` -> by role, which elements of the task vector are added (bool [block]), or
    (those, those before exclusion): `masks.json` says what they are.
    """

    def tag(cls: type) -> type:
        made = dataclass(frozen=True, kw_only=True)(cls)
        if not (hasattr(made, "merge") or hasattr(made, "build")):
            raise HarnessError(
                f"method `{name}` has neither `merge` nor `build`",
                "define `merge(self, group, state)` and return the merged block",
            )
        bare = [
            f.name
            for f in dataclasses.fields(made)
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        ]
        if bare:
            raise HarnessError(
                f"method `{name}`: parameter `{bare[0]}` has no default",
                f'write `{bare[0]}: float = param(1.0, "what it does")`',
            )
        made.method_name, made.title, made.paper, made.plain = name, title, paper, plain
        made.draws = property(draws or (lambda self: False))
        return made

    return tag


def displayed(label: str, method: type) -> str:
    """A row's label as tables show it: a method's name that it begins with becomes the method's title."""
    return re.sub(rf"^{re.escape(method.method_name)}(?=$| )", lambda _: method.title, label)


def reads_data(method: Any, roles: Sequence[str]) -> bool:
    """Whether a method reads statistics or rows, which are kept by the models' content."""
    return any(
        bool(getattr(method, what)(roles)) for what in ("needs", "reads_rows") if hasattr(method, what)
    )


def parameters(method: type) -> dict[str, tuple[Any, Any, Param]]:
    """name -> (type, default, Param) of a method class, in order of declaration."""
    hints = typing.get_type_hints(method)
    found = {}
    for f in dataclasses.fields(method):
        default = f.default if f.default is not dataclasses.MISSING else f.default_factory()
        found[f.name] = (hints.get(f.name, Any), default, f.metadata.get("param", Param()))
    return found


def configure(method: type, settings: Mapping[str, Any]) -> Any:
    """An instance of `method` with `settings`, every value checked against its type and range."""
    known, name = parameters(method), method.method_name
    for key, value in settings.items():
        if key not in known:
            raise HarnessError(f"method `{name}` has no parameter `{key}`", nearest(key, known))
        hint, _, spec = known[key]
        check_value(f"`{key}` of method `{name}`", value, hint, spec)
    try:
        return method(**settings)
    except ValueError as error:  # a method's own __post_init__ says what does not go together
        raise HarnessError(f"method `{name}`: {error}", f"see `harness show method {name}`") from error
