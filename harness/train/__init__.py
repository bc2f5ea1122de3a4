"""Training that a merge is made of: a budget of steps, progress, and a resume that changes no bit.

Importing this package does not import torch; `fuse` does."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from harness.train.work import CURVE, MARK


class FuseSettings(Protocol):
    """What `fuse` reads of a method: see `methods/fusellm.py` for meaning and ranges."""

    fusion: Literal["min_ce", "avg_ce"]
    sources: Literal["experts", "experts_and_base"]
    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    top_k: int
    fuse_weight: float
    max_tokens: int
    dtype: Literal["float32", "bfloat16"]


def fuse(context: Any, settings: FuseSettings) -> dict[str, Any]:
    """Train the base on `context.rows` towards the fused token distributions of the experts (FuseLLM,
    arXiv:2401.10491), and write the finished model to `context.job.to`. Returns the record.

    `context` is what a whole-model method's `build` is given: `inputs`, `job`, `rows` (role -> rows as
    `harness.scores.load_rows` returns them), `progress(phase, done, total)`; training runs on
    `context.device` where there is one, else on the CPU. Until the model is whole it lies in `.NAME.part`
    beside `job.to`; the same call after a kill goes on at the last checkpoint, and on the CPU with the same
    number of threads it ends in the same bytes.

    The folder has what a streamed merge has, and the loss curve, `training.jsonl`: one JSON object per step
    (`step` from 0, `rate`, `loss`, `lm`, `fused` in nats per token, `norm` of the gradient before clipping).
    The record holds `seconds` and `peak_mib` by phase, `steps`, `resumed` (those found done), `rows`,
    `tokens` (predicted ones), `ce` (nats per token by source, mean over rows), `chosen` (rows whose target is
    that source, for `min_ce`), `first` and `last` (losses, means over a tenth of the steps), `rounded_away`
    (share of the changed elements that the stored dtype shows unchanged), and `warnings`.

    Raises `HarnessError` for tokenizers that differ, rows without two tokens, weights that are missing, a
    loss that is not finite, a disk too small, and a `job.to` that holds something else.
    """
    from harness.train.fusion import run

    return run(context, settings)


__all__ = ["CURVE", "MARK", "FuseSettings", "fuse"]
