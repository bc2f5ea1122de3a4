"""Tokenizers and batches for training. Imports torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer

from harness.endmark import filled
from harness.errors import HarnessError

SHOWN = 3


def load_tokenizer(path: Path) -> Any:
    try:
        return AutoTokenizer.from_pretrained(str(path), truncation_side="right")
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise HarnessError(
            f"no tokenizer can be loaded from {path}: {reason}", "add the tokenizer's files to that folder"
        ) from error


def check_same_vocabulary(base: Any, experts: Mapping[str, Any]) -> None:
    """Raise `HarnessError` unless every tokenizer maps exactly the base's tokens to the base's ids: a
    distribution over ids can only be taken over where every id means the same text."""
    mine = base.get_vocab()
    for role, tokenizer in experts.items():
        theirs = tokenizer.get_vocab()
        if theirs == mine:
            continue
        odd = sorted(t for t in mine.keys() | theirs.keys() if mine.get(t) != theirs.get(t))
        listed = "; ".join(
            f"{t!r} is {_id(theirs.get(t))} where the base has {_id(mine.get(t))}" for t in odd[:SHOWN]
        )
        raise HarnessError(
            f"the tokenizer of expert `{role}` differs from the base's in {len(odd)} tokens: {listed}",
            "token distributions are fused over one vocabulary; use experts that kept the base's tokenizer",
        )


def _id(index: int | None) -> str:
    return "no token" if index is None else str(index)


def encode(tokenizer: Any, rows: Sequence[Mapping[str, str]], max_tokens: int, role: str) -> list[list[int]]:
    """Token ids of every row, taken as it is (no chat template; the tokenizer adds what it always adds) and
    cut at `max_tokens`. Raises `HarnessError` for no rows, and a row with fewer than two tokens."""
    samples = []
    for index, row in enumerate(filled(rows, tokenizer, f"expert `{role}`")):
        text = row["text"] if "text" in row else row["prompt"] + row["completion"]
        tokens = tokenizer(text, truncation=True, max_length=max_tokens)["input_ids"]
        if len(tokens) < 2:
            raise HarnessError(
                f"calibration row {index} of `{role}` has {len(tokens)} tokens: {text[:40]!r}",
                "a row needs two tokens or more: the loss is on predicted tokens",
            )
        samples.append(list(tokens))
    if not samples:
        raise HarnessError(f"there are no calibration rows of `{role}`", "give at least one")
    return samples


def padded(samples: Sequence[Sequence[int]], device: str | torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask, int64 [rows, longest], padded on the right with id 0."""
    longest = max(map(len, samples))
    tokens = torch.zeros(len(samples), longest, dtype=torch.int64)
    mask = torch.zeros(len(samples), longest, dtype=torch.int64)
    for i, sample in enumerate(samples):
        tokens[i, : len(sample)] = torch.tensor(sample)
        mask[i, : len(sample)] = 1
    return tokens.to(device), mask.to(device)
