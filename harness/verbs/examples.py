"""The first calibration row of a role as its tokenizer reads it: how long, and where the loss lies."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.scores.calibration import load_rows
from harness.scores.samples import IGNORED, encode

SHOWN = 60  # characters of a text


@dataclass(frozen=True)
class Example:
    """`tokens` of the first row of `rows`; the loss is on its tokens `loss_from` to `loss_to`. `head` is how
    its text begins, `loss_head` how the part begins that carries the loss; `mean` and `longest` are tokens
    over all rows, `cut` the number of rows that are as long as they may be."""

    role: str
    data: str
    rows: int
    mean: float
    longest: int
    cut: int
    tokens: int
    head: str
    loss_from: int
    loss_to: int
    loss_head: str

    def lines(self) -> Iterator[str]:
        yield (
            f"calibration of {self.role}: {self.data}, {self.rows} rows, {self.mean:.0f} tokens on average, "
            f"{self.longest} at most"
        )
        yield f"  row 0: {self.tokens} tokens, {self.head!r}"
        span = f"tokens {self.loss_from} to {self.loss_to}" if self.loss_from else "all predicted tokens"
        yield f"  loss on {span}: {self.loss_head!r}"


def example(role: str, spec: Any, folder: Path, model: Path, loss_on: str) -> Example:
    """Of the calibration set `spec`, read by the tokenizer of the model in folder `model`. Raises
    HarnessError for a row that cannot be scored."""
    from transformers import AutoTokenizer

    rows = load_rows(spec, folder)
    coded = encode(rows, model, spec.max_tokens, loss_on)
    lengths = [len(sample.tokens) for sample in coded]
    first, tokenizer = coded[0], AutoTokenizer.from_pretrained(str(model))
    carrying = [i for i, label in enumerate(first.labels) if label != IGNORED and i > 0]
    whole = len(carrying) == len(first.tokens) - 1
    return Example(
        role=role,
        data=spec.data,
        rows=len(rows),
        mean=sum(lengths) / len(lengths),
        longest=max(lengths),
        cut=sum(length == spec.max_tokens for length in lengths),
        tokens=len(first.tokens),
        head=_head(tokenizer, first.tokens),
        loss_from=0 if whole else carrying[0],
        loss_to=carrying[-1],
        loss_head=_head(tokenizer, first.tokens[carrying[0] :]),
    )


def _head(tokenizer: Any, tokens: list[int]) -> str:
    text = tokenizer.decode(tokens[: 2 * SHOWN])
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"
