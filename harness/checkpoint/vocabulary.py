"""Which row of an embedding stands for which token: rows of different vocabularies matched by token string.

The rules, `vocab:` of a family (the merged model's rows are always in the order its tokenizer's ids say):
- `error`: all embeddings have one shape and are merged row by row; other shapes are an error.
- `base`: the base's vocabulary. A token that an expert lacks has no task vector there.
- `intersect`: the base's vocabulary; only rows of tokens that all models have are merged, others stay the
  base's.
- `union`: the tokens of all models, the base's first. A token that the base lacks has for its row the mean
  of the experts' that have it.

Torch-free; `rows` writes the matched embeddings."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from harness.errors import HarnessError

Rule = Literal["error", "base", "intersect", "union"]
ABSENT = -1
SHOWN = 3


@dataclass(frozen=True)
class Vocabulary:
    """One model's tokens and the number of rows of its embedding; rows beyond the tokens are padding."""

    ids: Mapping[str, int]
    rows: int

    def row(self, token: str) -> int:
        """The row of a token; `ABSENT` when there is none."""
        index = self.ids.get(token, ABSENT)
        return index if index < self.rows else ABSENT


@dataclass(frozen=True)
class Arrangement:
    """`rows` of the merged embedding; by role (`base` included) the row of that model for each of them,
    `ABSENT` where it has none. A role that needs no change is left out."""

    rows: int
    sources: Mapping[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_tokens(folder: Path) -> dict[str, int] | None:
    """token -> id, added tokens included, from tokenizer.json; None without that file.

    Raises `HarnessError` for a file that cannot be read.
    """
    file = folder / "tokenizer.json"
    if not file.is_file():
        return None
    try:
        held = json.loads(file.read_text("utf-8"))
        vocab = held["model"]["vocab"]
        pairs = vocab.items() if isinstance(vocab, dict) else ((entry[0], i) for i, entry in enumerate(vocab))
        found = {str(token): int(index) for token, index in pairs}
        found |= {str(entry["content"]): int(entry["id"]) for entry in held.get("added_tokens") or []}
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise HarnessError(
            f"{file} is damaged or of an unknown kind: no vocabulary can be read ({type(error).__name__})",
            "save the tokenizer again with `save_pretrained`",
        ) from error
    return found


def arrange(
    rule: Rule,
    base: Vocabulary,
    experts: Mapping[str, Vocabulary],
    donor: str,
    donor_tokens: Mapping[str, int],
) -> Arrangement:
    """The rows of a merge under `rule` (not `error`). `donor` is the role whose tokenizer the merge gets.

    Raises `HarnessError` when that tokenizer would number the merged rows otherwise than they lie.
    """
    if rule == "union":
        return _union(base, experts, donor, donor_tokens)
    if _odd(base.ids, donor_tokens) or set(donor_tokens) != set(base.ids):
        raise HarnessError(
            f"vocab: {rule} keeps the base's vocabulary, and the tokenizer is that of `{donor}`, another one",
            "set `tokenizer: base` in the family",
        )
    shared = [t for t in base.ids if base.row(t) >= 0 and all(e.row(t) >= 0 for e in experts.values())]
    kept = base.ids if rule == "base" else shared
    sources, notes = {}, []
    for role, expert in experts.items():
        if expert.ids == base.ids and expert.rows == base.rows and len(kept) == len(base.ids):
            continue
        sources[role] = _rows(base.ids, expert, base.rows, kept)
        notes += _said(role, rule, base, expert, sources[role])
    return Arrangement(base.rows, sources, tuple(notes))


def _rows(
    ids: Mapping[str, int], model: Vocabulary, rows: int, kept: Sequence[str] | Mapping[str, int]
) -> list[int]:
    """The model's row for each of `rows` rows; padding rows have none."""
    found = [ABSENT] * rows
    for token in kept:
        if 0 <= ids[token] < rows:
            found[ids[token]] = model.row(token)
    return found


def _said(role: str, rule: Rule, base: Vocabulary, expert: Vocabulary, rows: list[int]) -> list[str]:
    matched = sum(row >= 0 for row in rows)
    lacking = [token for token in base.ids if base.row(token) >= 0 and expert.row(token) < 0]
    extra = [token for token in expert.ids if token not in base.ids]
    unmatched = sum(base.row(token) >= 0 for token in base.ids) - matched
    notes = []
    if unmatched:
        where = f", such as {_some(lacking)}" if lacking else " (other experts lack their tokens)"
        notes.append(
            f"expert `{role}`: vocab {rule}: {unmatched} of the base's {len(base.ids)} tokens are not "
            f"merged, their rows stay the base's{where}"
        )
    if extra:
        notes.append(
            f"expert `{role}`: {len(extra)} of its tokens are not in the base, and left out: {_some(extra)}"
        )
    return notes


def _union(
    base: Vocabulary, experts: Mapping[str, Vocabulary], donor: str, donor_tokens: Mapping[str, int]
) -> Arrangement:
    everyone = {"base": base, **experts}
    union = dict.fromkeys(token for model in everyone.values() for token in model.ids)
    lacking = [token for token in union if token not in donor_tokens]
    if lacking:
        raise HarnessError(
            f"vocab: union needs a tokenizer with all {len(union)} tokens, and that of `{donor}` lacks "
            f"{len(lacking)}, such as {_some(lacking)}",
            "name another `tokenizer`, or use `vocab: base`: two tokenizers cannot be joined soundly",
        )
    if moved := _odd(base.ids, donor_tokens):
        raise HarnessError(
            f"vocab: union keeps the base's ids, and the tokenizer of `{donor}` numbers {len(moved)} of the "
            f"base's tokens otherwise, such as {_some(moved)}",
            "use `vocab: base` with `tokenizer: base`",
        )
    held = everyone[donor]
    rows = max(base.rows, held.rows, max(donor_tokens.values(), default=-1) + 1)
    sources, notes = {}, []
    for role, model in everyone.items():
        if model.ids == donor_tokens and model.rows == rows:
            continue
        sources[role] = _rows(donor_tokens, model, rows, donor_tokens)
        absent = [token for token in donor_tokens if model.row(token) < 0]
        if absent:
            who = "the base" if role == "base" else f"expert `{role}`"
            notes.append(
                f"{who}: vocab union: {len(absent)} of {len(union)} tokens have no row: {_some(absent)}"
            )
    return Arrangement(rows, sources, tuple(notes))


def _odd(ids: Mapping[str, int], others: Mapping[str, int]) -> list[str]:
    """Tokens that both have, under different ids."""
    return [token for token, index in ids.items() if others.get(token, index) != index]


def differences(base: Mapping[str, int], expert: Mapping[str, int]) -> dict[str, list[str]]:
    """Tokens that only one of two tokenizers has, and those that both have under different ids."""
    return {
        "missing": [token for token in base if token not in expert],
        "extra": [token for token in expert if token not in base],
        "moved": _odd(base, expert),
    }


def _some(tokens: Sequence[str]) -> str:
    more = ", ..." if len(tokens) > SHOWN else ""
    return ", ".join(f"`{token}`" for token in tokens[:SHOWN]) + more
