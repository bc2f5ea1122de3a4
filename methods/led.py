"""LED-Merging: locate what matters in base and expert, elect what both agree on, drop what experts share.

LED-Merging (ACL 2025, arXiv:2502.16770); code github.com/MqLeet/LED-Merging @c0644a2. Per expert i, on its
data: T_i = top p_i of E|theta * grad L| in the base and in the expert, tensor by tensor, less the
elements that another expert elects too; `theta0 + sum_i scale_i * 1[T_i] tau_i`.
Ours differs: the release does not run as published (random scores swapped in, a debugger call, negated
dumps), so this is the paper, with positive SNIP scores; exactly int(p * n) elements per tensor, ties broken
by index; 1-D tensors are ranked like any other; `scope: global` is an addition. The original rates were
safety 0.1, math 0.4, code 0.5 (see `p_of`); the default is what ReasonAny's paper compared with.
"""

from typing import Literal

from harness import merge_method, ops, param, selection

Depth = float | list[float]


@merge_method("led", title="LED-Merging", paper="arXiv:2502.16770", plain=True)
class Led:
    p: Depth = param(0.1, "share located in each model; a list is over depth", low=0, high=1, noop=0.0)
    p_of: dict[str, float] = param({}, "this share for single experts by role, instead of `p`")
    scale: Depth = param(1.0, "lambda, factor of what is added; a list is over depth", noop=0.0)
    scale_of: dict[str, float] = param({}, "this factor for single experts by role, instead of `scale`")
    scope: Literal["tensor", "global"] = param("tensor", "rank within each tensor, or over the whole model")
    loss_on: Literal["all", "completion"] = param("completion", "tokens whose loss is differentiated")

    def bands(self, roles):
        shares = ops.by_role(self.p_of, self.p, roles, "p_of")
        return {role: selection.Band("snip", share, scope=self.scope) for role, share in shares.items()}

    def scales(self, roles):
        return ops.by_role(self.scale_of, self.scale, roles, "scale_of")

    def needs(self, roles):
        self.scales(roles)
        return selection.needs(self.bands(roles), "expert_and_base", self.loss_on)

    def degenerate(self, roles):
        said = selection.unselected(self.bands(roles), self.scales(roles))
        return said + ops.overridden(self, roles, "p", "scale")

    def prepare(self, layout):
        return (yield from selection.select(self.bands(layout.roles), "expert_and_base"))

    def merge(self, group, masks):
        scales = {role: group.at(scale) for role, scale in self.scales(group.experts).items()}
        return ops.add_selected(group.base, group.deltas, masks(group), scales)

    masks = selection.masks
