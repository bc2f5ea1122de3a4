"""RCP-Merging: take the task expert's change where most calibration samples vote that reasoning permits it.

RCP-Merging (arXiv:2508.03140). Sample j of the task's data votes for an element where
s_j = g_j w_j + penalty * F (theta_r - theta_t)^2 <= 0, with gradient g_j and weight w_j of the task expert;
F = E[(g w)^2] is taken on the reasoning expert, on its own data. Where more samples vote s_j <= 0 than not,
the element is `theta_r + scale * tau_t`; elsewhere it stays theta_r.
Ours differs where the paper is silent: data and loss are those of ReasonAny's statistics, see `loss_on`;
votes are counted in 16 bits, never held per sample; several task experts vote and are added each by itself;
`scale` is an addition, neutral by default. A changed `penalty` is a new pass over the task's data.
"""

from typing import Literal

from harness import Need, merge_method, ops, param


@merge_method("rcp", title="RCP-Merging", paper="arXiv:2508.03140", plain=True)
class Rcp:
    penalty: float = param(1000.0, "lambda, weight of what reasoning would lose", low=0)
    scale: float | list[float] = param(1.0, "factor of what is added; a list is over depth", noop=0.0)
    loss_on: Literal["all", "completion"] = param("all", "tokens whose loss is differentiated")

    def votes(self, roles):
        ops.require_role("reasoning", roles, "rcp")
        asked = {"kind": "votes", "against": "reasoning", "penalty": self.penalty, "loss_on": self.loss_on}
        return {role: Need(role, **asked) for role in roles if role != "reasoning"}

    def needs(self, roles):
        return tuple(self.votes(roles).values())

    def degenerate(self, roles):
        nothing = ops.zero(self.scale) or len(roles) == 1
        return ops.said(
            (nothing, "nothing is added: the result is the expert `reasoning`"),
            (self.penalty == 0, "penalty 0: reasoning has no part in the votes"),
        )

    def voted(self, group):
        votes = self.votes(tuple(group.experts))
        return {role: group.scores[need.key] > 0.5 for role, need in votes.items()}

    def merge(self, group, state):
        masks = self.voted(group)
        scales = dict.fromkeys(masks, group.at(self.scale))
        return ops.add_selected(group.experts["reasoning"], group.deltas, masks, scales)

    def masks(self, group, state):
        return {"reasoning": group.base.new_ones(group.base.shape).bool(), **self.voted(group)}
