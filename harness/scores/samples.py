"""What a computation of statistics is told: rows as token ids and labels, checked before anything is
computed, and what votes weigh. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from harness.endmark import filled
from harness.errors import HarnessError

IGNORED = -100  # label of a token that carries no loss


class Sample(NamedTuple):
    """One row: token ids, labels (`IGNORED` where no loss is), and for a padded row its attention mask."""

    tokens: list[int]
    labels: list[int]
    seen: list[int] | None = None


@dataclass(frozen=True)
class Against:
    """What the kind `votes` weighs an element against: the reasoning expert's folder, the folder of its F
    (`snip_squared`), and lambda."""

    model: Path
    fisher: Path
    penalty: float


def encode(
    rows: Sequence[Mapping[str, str]],
    tokenizer_path: Path | str,
    max_tokens: int,
    loss_on: str,
    pad: bool = False,
) -> list[Sample]:
    """See `harness.scores.compute`. Raises HarnessError for a row that cannot be scored."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_path), truncation_side="right")
    rows = filled(rows, tokenizer, str(tokenizer_path))
    if pad and tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return [_sample(tokenizer, row, index, max_tokens, loss_on, pad) for index, row in enumerate(rows)]


def _sample(
    tokenizer: Any, row: Mapping[str, str], index: int, max_tokens: int, loss_on: str, pad: bool
) -> Sample:
    text = row["text"] if "text" in row else row["prompt"] + row["completion"]
    coded = tokenizer(
        text,
        truncation=True,
        max_length=max_tokens,
        padding="max_length" if pad else False,
        return_offsets_mapping=tokenizer.is_fast,
    )
    tokens = labels = list(coded["input_ids"])
    if sum(coded["attention_mask"]) < 2:
        raise HarnessError(
            f"calibration row {index} has {sum(coded['attention_mask'])} tokens: {text[:40]!r}",
            "a row needs two tokens or more: the loss is on predicted tokens",
        )
    if loss_on == "completion":
        labels = _completion(tokenizer, coded, row, index)
        if all(label == IGNORED for label in labels[1:]):
            raise HarnessError(
                f"calibration row {index} has no token of its completion within {max_tokens} tokens",
                "raise `max_tokens:`, or leave out rows with so long a prompt",
            )
    return Sample(tokens, labels, list(coded["attention_mask"]) if pad else None)


def _completion(tokenizer: Any, coded: Mapping[str, Any], row: Mapping[str, str], index: int) -> list[int]:
    if "completion" not in row:
        raise HarnessError(
            f"the loss is on the completion, and calibration row {index} has none",
            "add `completion:` to the family's calibration, the template of the answer part of `text:`",
        )
    tokens = coded["input_ids"]
    if "offset_mapping" in coded:  # a token that straddles the border belongs to the completion
        border = len(row["prompt"])
        return [
            t if end > border else IGNORED
            for t, (_, end) in zip(tokens, coded["offset_mapping"], strict=True)
        ]
    prompt = tokenizer(row["prompt"])["input_ids"]
    shared = next(
        (i for i, pair in enumerate(zip(prompt, tokens, strict=False)) if pair[0] != pair[1]), len(prompt)
    )
    return [IGNORED] * min(shared, len(tokens)) + tokens[shared:]
