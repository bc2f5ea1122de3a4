"""FuseLLM's targets, loss and optimizer once more (arXiv:2401.10491): float64, numpy, whole vocabularies.

`logits` are [positions, vocabulary]; position t predicts token t + 1 of its row. Nothing here imports the
harness.
"""

from __future__ import annotations

import numpy as np


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def cross_entropy(logits, tokens):
    """Mean over the predicted tokens of one row, nats."""
    p = softmax(logits[:-1].astype(np.float64))
    return float(np.mean([-np.log(p[t, tokens[t + 1]]) for t in range(len(tokens) - 1)]))


def top(logits, k):
    """The distribution of the k highest logits of each position, zero elsewhere."""
    out = np.zeros(logits.shape)
    for t, row in enumerate(logits.astype(np.float64)):
        kept = np.argsort(row, kind="stable")[::-1][:k]
        out[t, kept] = softmax(row[kept])
    return out


def target(by_source, tokens, fusion, k):
    """The fused distribution of one row, [positions - 1, vocabulary]; `by_source` holds each one's logits."""
    errors = np.array([cross_entropy(logits, tokens) for logits in by_source])
    kept = [top(logits[:-1], k) for logits in by_source]
    if fusion == "min_ce":
        return kept[int(errors.argmin())]
    weights = softmax(1 / np.exp(errors))
    return sum(w * p for w, p in zip(weights, kept, strict=True))


def loss(student, rows, targets, weight):
    """(total, LM, fused) over a batch: `student` and `targets` by row; means over all predicted tokens."""
    count = sum(len(tokens) - 1 for tokens in rows)
    lm = fused = 0.0
    for logits, tokens, wanted in zip(student, rows, targets, strict=True):
        lm += cross_entropy(logits, tokens) * (len(tokens) - 1)
        q = np.log(softmax(logits[:-1].astype(np.float64)))
        fused -= (wanted * q).sum()
    return (1 - weight) * lm / count + weight * fused / count, lm / count, fused / count


def rates(steps, rate, warmup):
    rising = int(np.ceil(warmup * steps))
    up = [rate * (i + 1) / rising for i in range(rising)]
    return up + [rate * (1 + np.cos(np.pi * i / (steps - rising))) / 2 for i in range(steps - rising)]


def adamw(weights, gradients_of, rates, decay, betas=(0.9, 0.95), eps=1e-8, clip=1.0):
    """Plain AdamW (arXiv:1711.05101, algorithm 2) on name -> array, `decay` by name, with the gradients that
    `gradients_of(weights, step)` gives, scaled down to the joint norm `clip` (by norm + 1e-6, like torch)."""
    weights = {n: w.astype(np.float64).copy() for n, w in weights.items()}
    first = {n: np.zeros(w.shape) for n, w in weights.items()}
    second = {n: np.zeros(w.shape) for n, w in weights.items()}
    for step, rate in enumerate(rates):
        gradients = gradients_of(weights, step)
        norm = np.sqrt(sum((g**2).sum() for g in gradients.values()))
        factor = min(1.0, clip / (norm + 1e-6))
        for n, g in gradients.items():
            g = g * factor
            first[n] = betas[0] * first[n] + (1 - betas[0]) * g
            second[n] = betas[1] * second[n] + (1 - betas[1]) * g**2
            m = first[n] / (1 - betas[0] ** (step + 1))
            v = second[n] / (1 - betas[1] ** (step + 1))
            weights[n] = weights[n] * (1 - rate * decay[n]) - rate * m / (np.sqrt(v) + eps)
    return weights
