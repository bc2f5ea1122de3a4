"""What teachers predict on rows, kept on disk, and the targets fused from it. Imports torch.

FuseLLM (arXiv:2401.10491, section 3.3): of each source the `top_k` highest logits at every position,
teacher-forced, and its cross-entropy on each row. MinCE takes a row's distribution from the source with the
lowest cross-entropy; AvgCE mixes all sources with weights softmax(1 / exp(cross-entropy)). A source's
distribution is the softmax of its top k alone, as in github.com/fanqiwan/FuseAI (folder FuseLLM, @4135974).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np
import torch
from numpy.lib.format import open_memmap
from torch import Tensor

from harness.train.models import padded


def nbytes(samples: Sequence[Sequence[int]], top_k: int) -> int:
    """Disk space that one source's predictions take."""
    return sum(len(tokens) - 1 for tokens in samples) * top_k * 6


@torch.no_grad()
def predict(
    model: torch.nn.Module,
    samples: Sequence[Sequence[int]],
    folder: Path,
    *,
    top_k: int,
    batch_size: int,
    device: str,
    progress: Callable[[int, int], None],
) -> None:
    """Write `folder`, whole or not at all: `logits.npy` (float16 [tokens, k], less the highest of its
    position, which a softmax does not see and which keeps the digits where the mass is), `ids.npy` (int32
    [tokens, k]) and `ce.npy` (float64 [rows], nats per token). Only predicted tokens count, row after row."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    total = sum(len(tokens) - 1 for tokens in samples)
    top_k = min(top_k, model.config.get_text_config().vocab_size)
    logits = open_memmap(part / "logits.npy", "w+", np.float16, (total, top_k))
    ids = open_memmap(part / "ids.npy", "w+", np.int32, (total, top_k))
    ce, at = np.zeros(len(samples)), 0
    for begin in range(0, len(samples), batch_size):
        batch = samples[begin : begin + batch_size]
        tokens, mask = padded(batch, device)
        out = model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(out.transpose(1, 2), tokens[:, 1:], reduction="none")
        values, index = out.topk(top_k, dim=-1)
        values = values - values[..., :1]
        for i, row in enumerate(batch):
            n = len(row) - 1
            logits[at : at + n] = values[i, :n].half().cpu().numpy()
            ids[at : at + n] = index[i, :n].int().cpu().numpy()
            ce[begin + i] = losses[i, :n].double().mean().item()
            at += n
        progress(min(begin + batch_size, len(samples)), len(samples))
    logits.flush()
    ids.flush()
    np.save(part / "ce.npy", ce)
    os.rename(part, folder)


class Targets:
    """The fused distributions of rows, from the folders that `predict` wrote. They stay on disk."""

    def __init__(self, folders: Sequence[Path], samples: Sequence[Sequence[int]], fusion: str) -> None:
        self.logits = [np.load(folder / "logits.npy", mmap_mode="r") for folder in folders]
        self.ids = [np.load(folder / "ids.npy", mmap_mode="r") for folder in folders]
        self.ce = np.stack([np.load(folder / "ce.npy") for folder in folders])  # float64 [sources, rows]
        self.starts = [0, *accumulate(len(tokens) - 1 for tokens in samples)]
        if fusion == "min_ce":  # of equals the first source
            self.weights = np.zeros_like(self.ce)
            self.weights[self.ce.argmin(0), np.arange(self.ce.shape[1])] = 1.0
        else:
            rewards = np.exp(np.exp(-self.ce))  # softmax of 1 / exp(ce), which lies in (0, 1]
            self.weights = rewards / rewards.sum(0)

    def batch(self, rows: Sequence[int], device: str) -> tuple[Tensor, Tensor]:
        """Ids (int64) and their probabilities (float32), both [rows, longest, m], padded with probability 0.
        An id may come several times; its probabilities add up."""
        found = [self._row(row) for row in rows]
        longest = max(ids.shape[0] for ids, _ in found)
        width = max(ids.shape[1] for ids, _ in found)
        ids = torch.zeros(len(rows), longest, width, dtype=torch.int64)
        probabilities = torch.zeros(len(rows), longest, width)
        for i, (index, values) in enumerate(found):
            ids[i, : index.shape[0], : index.shape[1]] = index
            probabilities[i, : values.shape[0], : values.shape[1]] = values
        return ids.to(device), probabilities.to(device)

    def _row(self, row: int) -> tuple[Tensor, Tensor]:
        span = slice(self.starts[row], self.starts[row + 1])
        ids, values = [], []
        for source, weight in enumerate(self.weights[:, row]):
            if weight:
                logits = torch.from_numpy(np.array(self.logits[source][span], np.float32))
                ids.append(torch.from_numpy(np.array(self.ids[source][span], np.int64)))
                values.append(logits.softmax(-1) * float(weight))
        return torch.cat(ids, -1), torch.cat(values, -1)


def fused_loss(log_probabilities: Tensor, ids: Tensor, probabilities: Tensor) -> Tensor:
    """Sum over all positions of the cross-entropy between the target and the student, in nats:
    -sum_t sum_v P(v) log Q(v). `log_probabilities` is [rows, longest, vocabulary]."""
    return -(probabilities * log_probabilities.gather(-1, ids)).sum()
