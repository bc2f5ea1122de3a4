"""ReasonAny: add the task's highest-gradient elements and the reasoning expert's lowest, less the overlap.

ReasonAny (arXiv:2601.05560, Algorithm 1): `theta0 + scale_r (tau_r . M_r) + scale_t (tau_t . M_t)`. By
E|grad L| over the whole model, N_t is the task's top p, N_r reasoning's bottom p; M: less the other.
Ours differs where the paper is silent: exactly int(p * d) elements, ties broken by tensor order, then
index; what two task experts both select is dropped too. `profile: official` is the code
(github.com/jyyang26/ReasonAny @34c31f4): whole tensors holding an element beyond the threshold (k-th lowest,
N-k-th for the highest, its equals too), in the base too; official statistics (`Need`), bf16 arithmetic.
"""

from typing import Literal

from harness import merge_method, ops, param, selection

Depth = float | list[float]


@merge_method("reasonany", title="ReasonAny", paper="arXiv:2601.05560", plain=True, draws=selection.draws)
class ReasonAny:
    profile: Literal["paper", "official"] = param("paper", "the paper's Algorithm 1, or the released code")
    p: Depth = param(0.05, "share each side selects; a list is over depth", low=0, high=1, noop=0.0)
    p_task: Depth | None = param(None, "the task side's share, instead of `p`", low=0, high=1)
    p_reasoning: Depth | None = param(None, "the reasoning side's share, instead of `p`", low=0, high=1)
    scale: Depth = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    scale_task: Depth | None = param(None, "the task side's, instead of `scale`")
    scale_reasoning: Depth | None = param(None, "the reasoning side's, instead of `scale`")
    granularity: Literal["element", "tensor"] | None = param(None, "what to select; official: tensor")
    scope: Literal["global", "tensor"] = param("global", "rank over the whole model, or within each tensor")
    score: Literal["gradient", "snip"] = param("gradient", "rank by E|g| or by E|w * g|")
    elect: selection.Models | None = param(None, "models that must select it; official: expert_and_base")
    reasoning_end: Literal["lowest", "highest", "random"] = param("lowest", "what the reasoning side selects")
    exclusion: selection.Rule = param("drop_both", "who keeps an element that several select")
    exclude_modules: list[str] = param([], "module types or tensor names (globs) that are never selected")
    zero_gradient: Literal["include", "exclude"] = param("include", "if score 0 can be selected")
    reasoning_seed: int = param(0, "draw of `reasoning_end: random`", low=0)
    interval: list[float] | None = param(None, "[lo, hi] of the reasoning ranks, not [0, p]", low=0, high=1)
    use_task: bool = param(True, "false: the task experts take no part, in exclusion neither")
    use_reasoning: bool = param(True, "false: the reasoning expert takes no part, in exclusion neither")
    loss_on: Literal["all", "completion"] = param("all", "tokens whose loss is differentiated")

    def needs(self, roles):
        return selection.needs(selection.sides(self, roles), selection.elected_by(self), self.loss_on)

    def degenerate(self, roles):
        scales = {role: ops.side(self, "scale", role) for role in roles}
        return selection.unselected(selection.sides(self, roles), scales) + selection.unread(self)

    def prepare(self, layout):
        ops.check_patterns(self.exclude_modules, layout.names, "exclude_modules")
        bands, grain = selection.sides(self, layout.roles), self.granularity
        grain = grain or ("tensor" if self.profile == "official" else "element")
        return (yield from selection.select(bands, selection.elected_by(self), grain, self.exclusion))

    def merge(self, group, masks):
        scales = {role: group.at(ops.side(self, "scale", role)) for role in group.experts}
        if self.profile == "official":
            return ops.add_in_bf16(group.base, group.experts, masks(group), scales)
        return ops.add_selected(group.base, group.deltas, masks(group), scales)

    masks = selection.masks
