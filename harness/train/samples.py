"""Rows of words into tokens and the place where the loss begins. Light at import."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from harness.errors import HarnessError
from harness.train.recipe import Train
from harness.train.rows import Row

# The prompt templates of Stanford Alpaca, which Alpaca-LoRA and Safety-Tuned LLaMAs train and ask with.
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\n{question}\n\n### Response:\n"
)
ALPACA_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n### Instruction:\n{question}\n\n"
    "### Input:\n{input}\n\n### Response:\n"
)


class Sample(NamedTuple):
    """Token ids, and the number of them at the beginning that are not learned."""

    tokens: list[int]
    given: int

    @property
    def predicted(self) -> int:
        """Tokens that carry loss; the first of a row is predicted by nothing."""
        return len(self.tokens) - max(self.given, 1)


@dataclass(frozen=True)
class Encoded:
    """The samples of a training set, and what became of its rows."""

    samples: list[Sample]
    rows: int
    facts: dict[str, int] = field(default_factory=dict)

    @property
    def notes(self) -> list[str]:
        """What is to be said of rows that were not taken as they are."""
        said = {
            "empty": "have an empty completion and are left out",
            "cut": "are cut to `max_tokens`",
            "dropped": "are longer than `max_tokens` and are left out",
            "lost": "have no token to learn within `max_tokens` and are left out",
        }
        shares = {name: (count, count / self.rows) for name, count in self.facts.items() if name in said}
        return [
            f"{count} of {self.rows} rows ({share:.1%}) {said[name]}"
            for name, (count, share) in shares.items()
            if count
        ]


def encode(rows: Sequence[Row], train: Train, base: Path) -> Encoded:
    """The rows in the tokens of the model in the folder `base`.

    Raises `HarnessError` for no tokenizer, no chat template where one is asked for, and fewer rows left than
    a batch has."""
    tokenizer = _tokenizer(base)
    facts = dict.fromkeys(("empty", "cut", "dropped", "lost", "tokens"), 0)
    samples = []
    taken = [row for row in rows if row.completion]
    facts["empty"] = len(rows) - len(taken)
    for row in taken:
        sample = _sample(row, train, tokenizer, base)
        if len(sample.tokens) > train.max_tokens:
            facts["cut" if train.too_long == "cut" else "dropped"] += 1
            if train.too_long == "drop":
                continue
            sample = sample._replace(tokens=sample.tokens[: train.max_tokens])
        if sample.predicted < 1:
            facts["lost"] += 1
            continue
        samples.append(sample)
        facts["tokens"] += sample.predicted
    encoded = Encoded(samples, len(rows), facts)
    if len(samples) < train.batch_size:
        why = "; ".join(encoded.notes)
        raise HarnessError(
            f"training data `{train.data}` gives {len(samples)} rows, and batch_size is {train.batch_size}"
            + (f": {why}" if why else ""),
            "lower `batch_size:`, raise `max_tokens:`, or give more rows",
        )
    return encoded


def _tokenizer(base: Path) -> Any:
    from harness.train.models import load_tokenizer  # imports torch

    return load_tokenizer(base)


def _sample(row: Row, train: Train, tokenizer: Any, base: Path) -> Sample:
    """All tokens of a row, however long it is."""
    if train.template == "chat":
        prompt, text = _chat(row, tokenizer, base)
        return _coded(tokenizer, prompt, text, train.loss_on, special=False)
    if train.template == "none":
        prompt = f"{row.question}\n\n{row.input}" if row.input else row.question
        return _coded(tokenizer, prompt, prompt + row.completion, train.loss_on)
    prompt = (ALPACA_INPUT if row.input else ALPACA).format(question=row.question, input=row.input)
    sample = _coded(tokenizer, prompt, prompt + row.completion, train.loss_on)
    if sample.tokens[-1] != tokenizer.eos_token_id and tokenizer.eos_token_id is not None:
        sample.tokens.append(tokenizer.eos_token_id)
    return sample


def _chat(row: Row, tokenizer: Any, base: Path) -> tuple[str, str]:
    if not tokenizer.chat_template:
        raise HarnessError(
            f"{base} has no chat template", "use `template: alpaca`, or another `base:` of `train:`"
        )
    question = f"{row.question}\n\n{row.input}" if row.input else row.question
    turns = [{"role": "user", "content": question}, {"role": "assistant", "content": row.completion}]
    prompt = tokenizer.apply_chat_template(turns[:1], tokenize=False, add_generation_prompt=True)
    text = tokenizer.apply_chat_template(turns, tokenize=False)
    if not text.startswith(prompt):
        raise HarnessError(
            f"the chat template of {base} begins an answer otherwise than it asks for one: {prompt[-40:]!r}",
            "use `template: alpaca`, or `none` with questions written out",
        )
    return prompt, text


def _coded(tokenizer: Any, prompt: str, text: str, loss_on: str, special: bool = True) -> Sample:
    coded = tokenizer(text, add_special_tokens=special, return_offsets_mapping=tokenizer.is_fast)
    tokens = list(coded["input_ids"])
    if loss_on == "all":
        return Sample(tokens, 0)
    if tokenizer.is_fast:  # a token that straddles the border belongs to the completion
        ends = [end for _, end in coded["offset_mapping"]]
        return Sample(tokens, next((i for i, end in enumerate(ends) if end > len(prompt)), len(tokens)))
    before = tokenizer(prompt, add_special_tokens=special)["input_ids"]
    same = (i for i, pair in enumerate(zip(before, tokens, strict=False)) if pair[0] != pair[1])
    return Sample(tokens, next(same, min(len(before), len(tokens))))
