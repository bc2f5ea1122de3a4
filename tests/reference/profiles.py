"""More merge methods from their formulas: mergekit's forms, SCE, ReasonAny's code, RCP-Merging.

As in `oracles`: float64, numpy, element by element where that is plainer, nothing of the harness.
"""

from __future__ import annotations

import numpy as np

from tests.reference.oracles import taus


def signed_merge(parts, weights, normalize):
    """mergekit's consensus on one tensor: `parts` role -> weighted task vector."""
    shape = next(iter(parts.values())).shape
    out = np.zeros(shape)
    for at in np.ndindex(*shape):
        positive = sum(p[at] for p in parts.values()) >= 0
        agree = [r for r, p in parts.items() if (p[at] > 0 if positive else p[at] < 0)]
        divisor = sum(weights[r] for r in agree) if normalize else 1.0
        out[at] = sum(parts[r][at] for r in agree) / (divisor if divisor != 0 else 1.0)
    return out


def largest(values, k):
    """Boolean mask of the k largest of an array; equal values by index."""
    mask = np.zeros(values.size, bool)
    mask[np.argsort(-values.ravel(), kind="stable")[:k]] = True
    return mask.reshape(values.shape)


def ties_mergekit(base, experts, density, weights, normalize, scale):
    tau, merged = taus(base, experts), {}
    for n in base:
        parts = {}
        for role, t in tau.items():
            k = 0 if density == 0 else max(1, int(density * t[n].size))
            parts[role] = weights[role] * np.where(largest(np.abs(t[n]), k), t[n], 0.0)
        merged[n] = base[n] + scale * signed_merge(parts, weights, normalize)
    return merged


def dare_mergekit(base, experts, kept, weights, normalize, scale, variant):
    """`kept` is role -> name -> bool."""
    tau, merged = taus(base, experts), {}
    for n in base:
        parts = {}
        for role, t in tau.items():
            thinned = np.where(kept[role][n], t[n], 0.0)
            before, after = np.abs(t[n]).sum(), np.abs(thinned).sum()
            if before >= 1e-7 and after >= 1e-7:
                thinned = thinned * before / after
            parts[role] = weights[role] * thinned
        if variant == "ties":
            added = signed_merge(parts, weights, normalize)
        else:
            total = sum(weights.values())
            added = sum(parts.values()) / (total if normalize and abs(total) >= 1e-8 else 1.0)
        merged[n] = base[n] + scale * added
    return merged


def sce(base, experts, topk, scale):
    tau, merged = taus(base, experts), {}
    for n in base:
        vectors = [t[n] for t in tau.values()]
        if topk < 1:
            variance = np.var(np.stack(vectors), axis=0).astype(np.float32)
            mask = largest(variance, int(topk * np.count_nonzero(variance)))
            vectors = [np.where(mask, v, 0.0) for v in vectors]
        sizes = [np.mean(v**2) for v in vectors]
        whole = sum(sizes)
        w = [s / whole if whole >= 1e-6 else 1 / len(sizes) for s in sizes]
        out = np.zeros(base[n].shape)
        for at in np.ndindex(*out.shape):
            positive = sum(v[at] for v in vectors) >= 0
            agree = [i for i, v in enumerate(vectors) if (v[at] > 0 if positive else v[at] < 0)]
            out[at] = sum(w[i] * vectors[i][at] for i in agree) / max(sum(w[i] for i in agree), 1e-6)
        merged[n] = base[n] + scale * out
    return merged


def official_names(scores, p, end):
    """ReasonAny's code: the tensors that hold an element beyond one global threshold."""
    flat = np.sort(np.concatenate([s.ravel() for s in scores.values()]))
    k = int(len(flat) * p)
    if end == "lowest":
        return {n for n, s in scores.items() if k > 0 and (s <= flat[k - 1]).any()}
    return {n for n, s in scores.items() if (s >= flat[len(flat) - k - 1 if k < len(flat) else 0]).any()}


def reasonany_official(bf16, base, experts, on_expert, on_base, shares, ends, scales):
    """`bf16` rounds an array; all arithmetic is in it. Selection, exclusion, intersection on names."""
    chosen = {
        role: official_names(on_expert[role], shares[role], ends[role])
        & official_names(on_base[role], shares[role], ends[role])
        for role in experts
    }
    merged = {}
    for n in base:
        start = bf16(base[n])
        takers = [role for role in experts if n in chosen[role]]
        merged[n] = start
        if len(takers) == 1:
            tau = bf16(bf16(experts[takers[0]][n]) - start)
            merged[n] = bf16(start + bf16(np.float32(scales[takers[0]]) * tau))
    return merged


def rcp(base, experts, gradients, fisher, penalty, scale):
    """`gradients`: role -> per-sample gradients [samples, ...] by name, of the task experts on their data."""
    tau, start = taus(base, experts), experts["reasoning"]
    merged = {n: v.astype(np.float64).copy() for n, v in start.items()}
    for role, by_name in gradients.items():
        for n, g in by_name.items():
            w = experts[role][n].astype(np.float64)
            lost = penalty * fisher[n].astype(np.float64) * (start[n].astype(np.float64) - w) ** 2
            votes = sum((sample * w + lost <= 0).astype(int) for sample in g.astype(np.float64))
            merged[n] += scale * np.where(2 * votes > len(g), tau[role][n], 0.0)
    return merged
