"""The merge methods once more, from the papers' formulas: float64, numpy, whole models, slow on purpose.

A model is name -> float32 array; experts and statistics are role -> model. Task vectors are float32
differences (that is their definition); everything after is float64. Nothing here imports the harness.
"""

from __future__ import annotations

import numpy as np


def taus(base, experts):
    return {
        role: {n: (e[n] - base[n]).astype(np.float32).astype(np.float64) for n in base}
        for role, e in experts.items()
    }


def linear(base, experts, weights):
    total = sum(weights.values())
    return {n: sum(weights[r] * e[n].astype(np.float64) for r, e in experts.items()) / total for n in base}


def task_arithmetic(base, experts, weights, scale):
    tau = taus(base, experts)
    return {n: base[n] + scale * sum(weights[r] * tau[r][n] for r in tau) for n in base}


def ties_vector(tau, names, density):
    """tau_m of TIES from task vectors that may have been thinned before."""
    trimmed = {}
    for role, t in tau.items():
        everything = np.sort(np.concatenate([np.abs(t[n]).ravel() for n in names]))
        d = len(everything)
        k = d - int(d * density)
        threshold = everything[k - 1] if k > 0 else 0.0
        trimmed[role] = {n: np.where(np.abs(t[n]) >= threshold, t[n], 0.0) for n in names}
    gamma = {n: np.sign(sum(t[n] for t in trimmed.values())) for n in names}
    majority = np.sign(sum(g.sum() for g in gamma.values()))
    merged = {}
    for n in names:
        out = np.zeros(gamma[n].shape)
        for at in np.ndindex(*gamma[n].shape):
            sign = gamma[n][at] if gamma[n][at] != 0 else majority
            agreeing = [t[n][at] for t in trimmed.values() if t[n][at] != 0 and np.sign(t[n][at]) == sign]
            if agreeing:
                out[at] = sum(agreeing) / len(agreeing)
        merged[n] = out
    return merged


def ties(base, experts, density, scale):
    merged = ties_vector(taus(base, experts), list(base), density)
    return {n: base[n] + scale * merged[n] for n in base}


def dare(base, experts, kept, density, scale, weights, rescale, variant, trim):
    """`kept` is role -> name -> bool: which entries survived the draw."""
    tau, thinned = taus(base, experts), {}
    for role, t in tau.items():
        thinned[role] = {}
        for n in base:
            survivors = np.where(kept[role][n], t[n], 0.0)
            if rescale == "exact":
                survivors = survivors / density
            elif rescale == "l1":
                before, after = np.abs(t[n]).sum(), np.abs(survivors).sum()
                survivors = survivors * (before / after) if before >= 1e-7 and after >= 1e-7 else survivors
            thinned[role][n] = weights[role] * survivors
    if variant == "ties":
        merged = ties_vector(thinned, list(base), trim)
    else:
        merged = {n: sum(t[n] for t in thinned.values()) for n in base}
    return {n: base[n] + scale * merged[n] for n in base}


def ranked(scores, end, eligible, names):
    """Positions (name, flat index) from one end on; ties by tensor order, then index."""
    found = [
        (float(v), order, i, n)
        for order, n in enumerate(names)
        for i, v in enumerate(scores[n].ravel())
        if (n, i) in eligible
    ]
    found.sort(key=lambda f: (-f[0] if end == "highest" else f[0], f[1], f[2]))
    return [(n, i) for _, _, i, n in found]


def band(scores, lo, hi, end, scope="global", exclude=(), nonzero=False):
    """The set of positions ranked from int(lo * n) to int(hi * n)."""
    selected = set()
    for names in [list(scores)] if scope == "global" else [[n] for n in scores]:
        eligible = {
            (n, i)
            for n in names
            for i, v in enumerate(scores[n].ravel())
            if n not in exclude and (v > 0 or not nonzero)
        }
        order = ranked(scores, end, eligible, names)
        selected |= set(order[int(lo * len(order)) : int(hi * len(order))])
    return selected


def whole_tensors(positions, scores):
    touched = {n for n, _ in positions}
    return {(n, i) for n in touched for i in range(scores[n].size)}


def resolve(chosen, rule):
    """`chosen` is role -> set of positions."""
    if rule == "none":
        return dict(chosen)
    kept = {}
    for role, mine in chosen.items():
        others = [r for r in chosen if r != role]
        if rule in ("task_first", "reasoning_first"):
            tasks = [r for r in chosen if r != "reasoning"]
            order = [*tasks, "reasoning"] if rule == "task_first" else ["reasoning", *tasks]
            others = [r for r in order[: order.index(role)] if r in chosen]
        kept[role] = mine - set().union(*[chosen[r] for r in others])
    return kept


def add(base, experts, chosen, scales):
    tau = taus(base, experts)
    merged = {n: base[n].astype(np.float64).copy() for n in base}
    for role, positions in chosen.items():
        for n, i in positions:
            merged[n].ravel()[i] += scales[role] * tau[role][n].ravel()[i]
    return merged


def led_masks(on_expert, on_base, shares, scope):
    """`on_expert`, `on_base`: role -> SNIP statistic of the expert, and of the base on that expert's data."""
    elected = {
        role: band(on_expert[role], 0, share, "highest", scope)
        & band(on_base[role], 0, share, "highest", scope)
        for role, share in shares.items()
    }
    return resolve(elected, "drop_both")


def reasonany_masks(
    on_expert, on_base, spans, ends, *, scope, granularity, elect, exclusion, exclude, nonzero
):
    """`spans` is role -> (lo, hi), `ends` role -> highest or lowest; only the roles in `spans` take part."""
    chosen = {}
    for role, (lo, hi) in spans.items():
        models = [on_expert[role]] + ([on_base[role]] if elect == "expert_and_base" else [])
        found = [band(scores, lo, hi, ends[role], scope, exclude, nonzero) for scores in models]
        if granularity == "tensor":
            found = [whole_tensors(positions, on_expert[role]) for positions in found]
        chosen[role] = set.intersection(*found)
    return resolve(chosen, exclusion)
