"""ReasonAny: add the task's highest-gradient elements and the reasoning expert's lowest, less the overlap.

ReasonAny (arXiv:2601.05560, Algorithm 1): `theta0 + scale_r (tau_r . M_r) + scale_t (tau_t . M_t)`. By
E|grad L| over the whole model, N_t is the task's top p, N_r reasoning's bottom p; M: less the other.
Ours differs where the paper is silent: exactly int(p * d) elements, ties broken by tensor order, then
index; what two task experts both select is dropped too. The code (github.com/jyyang26/ReasonAny @34c31f4) is
another method: whole tensors that hold a selected element, in the base too (`granularity: tensor,
elect: expert_and_base`), ranked by bf16 sums over padded text, which are not offered.
"""

from typing import Literal

from harness import merge_method, ops, param, selection


@merge_method("reasonany", title="ReasonAny", paper="arXiv:2601.05560")
class ReasonAny:
    p: float = param(0.05, "share of the elements that each side selects", low=0, high=1, noop=0.0)
    p_task: float | None = param(None, "the task side's share, instead of `p`", low=0, high=1)
    p_reasoning: float | None = param(None, "the reasoning side's share, instead of `p`", low=0, high=1)
    scale: float | list[float] = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    scale_task: float | list[float] | None = param(None, "the task side's, instead of `scale`")
    scale_reasoning: float | list[float] | None = param(None, "the reasoning side's, instead of `scale`")
    granularity: Literal["element", "tensor"] = param("element", "select elements, or tensors that hold one")
    scope: Literal["global", "tensor"] = param("global", "rank over the whole model, or within each tensor")
    score: Literal["gradient", "snip"] = param("gradient", "rank by E|g| or by E|w * g|")
    elect: Literal["expert", "expert_and_base"] = param("expert", "models that must select an element")
    reasoning_end: Literal["lowest", "highest", "random"] = param("lowest", "what the reasoning side selects")
    exclusion: selection.Rule = param("drop_both", "who keeps an element that several select")
    exclude_modules: list[str] = param([], "module types or tensor names (globs) that are never selected")
    zero_gradient: Literal["include", "exclude"] = param("include", "if score 0 can be selected")
    reasoning_seed: int = param(0, "draw of `reasoning_end: random`")
    interval: list[float] | None = param(None, "[lo, hi] of the reasoning ranks, not [0, p]", low=0, high=1)
    use_task: bool = param(True, "false: the task experts take no part, in exclusion neither")
    use_reasoning: bool = param(True, "false: the reasoning expert takes no part, in exclusion neither")
    loss_on: Literal["all", "completion"] = param("all", "tokens whose loss is differentiated")

    def bands(self, roles):
        ops.require_role("reasoning", roles, "reasonany")
        nonzero = self.zero_gradient == "exclude"
        shared = {"scope": self.scope, "nonzero": nonzero, "exclude": self.exclude_modules}
        task = selection.Band(self.score, ops.side(self, "p", "task"), **shared)
        ranks = self.interval or ops.side(self, "p", "reasoning")
        reasoning = selection.Band(self.score, ranks, self.reasoning_end, seed=self.reasoning_seed, **shared)
        return {r: reasoning if r == "reasoning" else task for r in roles if ops.side(self, "use", r)}

    def needs(self, roles):
        return selection.needs(self.bands(roles), self.elect, self.loss_on)

    def degenerate(self, roles):
        return selection.unselected(self.bands(roles), {r: ops.side(self, "scale", r) for r in roles})

    def prepare(self, layout):
        ops.check_patterns(self.exclude_modules, layout.names, "exclude_modules")
        bands = self.bands(layout.roles)
        return (yield from selection.select(bands, self.elect, self.granularity, self.exclusion))

    def merge(self, group, masks):
        scales = {role: group.at(ops.side(self, "scale", role)) for role in group.experts}
        return ops.add_selected(group.base, group.deltas, masks(group), scales)
