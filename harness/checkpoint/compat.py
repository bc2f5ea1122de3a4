"""What does not fit, or is merely odd, between a base and its experts: the report behind `compat.json`.
Torch-free."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.checkpoint import fit
from harness.checkpoint.read import EMBEDDING, Checkpoint
from harness.checkpoint.vocabulary import differences, read_tokens

# Weights of one size that were trained independently are |tau| / |theta0| = sqrt(2) apart: their cosine, 1
# - r^2 / 2, is 0. At 0.5 it is 0.875, far from both that and a fine-tune (0.1 gives 0.995).
FAR = 0.5
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
SHOWN = 3
LISTED = 20


def report(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> dict[str, Any]:
    """Everything compared, by expert; raises for no misfit (that is `check_fit`'s)."""
    tokens = {role: read_tokens(model.path) for role, model in {"base": base, **experts}.items()}
    return {
        "models": {role: _facts(model, tokens[role]) for role, model in {"base": base, **experts}.items()},
        "experts": {
            role: _compared(base, model, tokens["base"], tokens[role]) for role, model in experts.items()
        },
    }


def token_warnings(found: Mapping[str, Any]) -> list[str]:
    """One sentence per expert some of whose ids stand for other tokens than the base's."""
    said = []
    for role, compared in found["experts"].items():
        clashes = (compared["tokens"] or {}).get("clashes")
        if clashes:
            index, mine, theirs = clashes["examples"][0]
            said.append(
                f"expert `{role}`: {clashes['count']} ids stand for other tokens than in the base, "
                f"such as {index}: `{mine}` in the base, `{theirs}` in the expert; their rows are merged by "
                f"id (`vocab: base` goes by token)"
            )
    return said


def lineage_warnings(found: Mapping[str, Any], base: str) -> list[str]:
    """One sentence per expert that is evidently not a fine-tune of the base, or is the base itself."""
    said = []
    for role, ratio in found["relative_norm"].items():
        if ratio == 0:
            said.append(f"expert `{role}` is the base itself: its task vector is zero")
        elif ratio is not None and ratio > FAR:
            said.append(
                f"expert `{role}` is evidently not a fine-tune of {base}: "
                f"|tau|/|theta0| is {ratio:.3g} > {FAR:g} (independent models: about 1.4): its task vector "
                f"is not what it learned"
            )
    return said


def _facts(model: Checkpoint, tokens: Mapping[str, int] | None) -> dict[str, Any]:
    embedding = model.tensors.get(EMBEDDING)
    return {
        "model": model.label,
        "tensors": len(model.tensors),
        "elements": sum(info.numel for info in model.tensors.values()),
        "dtypes": dict(Counter(info.dtype for info in model.tensors.values())),
        "tied": model.tied,
        "embedding_rows": embedding.shape[0] if embedding else None,
        "tokens": None if tokens is None else len(tokens),
        "special_tokens": special_tokens(model.path),
        "chat_template": _chat_template(model.path),
        "settings": fit.settings(model),
    }


def _compared(
    base: Checkpoint, expert: Checkpoint, mine: Mapping[str, int] | None, theirs: Mapping[str, int] | None
) -> dict[str, Any]:
    wrong = fit.misfits(base, expert)
    specials = special_tokens(base.path), special_tokens(expert.path)
    return {
        **{what: lines[:LISTED] for what, lines in wrong.items()},
        "misfits": sum(map(len, wrong.values())),
        "settings": fit.unequal_settings(base, expert),
        "tokens": None if mine is None or theirs is None else _tokens(mine, theirs),
        "special_tokens": {
            k: [s.get(k) for s in specials] for k in SPECIAL if specials[0].get(k) != specials[1].get(k)
        },
        "chat_template_differs": _chat_template(base.path) != _chat_template(expert.path),
    }


def _tokens(mine: Mapping[str, int], theirs: Mapping[str, int]) -> dict[str, Any]:
    found = {
        what: {"count": len(tokens), "examples": tokens[:SHOWN]}
        for what, tokens in differences(mine, theirs).items()
    }
    base, expert = ({index: token for token, index in ids.items()} for ids in (mine, theirs))
    clashes = [
        (index, base[index], expert[index])
        for index in sorted(base)
        if expert.get(index, base[index]) != base[index]
    ]
    return {**found, "clashes": {"count": len(clashes), "examples": clashes[:SHOWN]} if clashes else None}


def special_tokens(folder: Path) -> dict[str, str]:
    """The named special tokens of a tokenizer, by role."""
    found: dict[str, str] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        held = _json(folder / name)
        for key in SPECIAL:
            value = held.get(key)
            value = value.get("content") if isinstance(value, dict) else value
            if isinstance(value, str):
                found[key] = value
    return found


def _chat_template(folder: Path) -> str | None:
    """sha256 (hex, 16 digits) of the chat template; None without one."""
    if (folder / "chat_template.jinja").is_file():
        text = (folder / "chat_template.jinja").read_text("utf-8", errors="replace")
    else:
        text = _json(folder / "tokenizer_config.json").get("chat_template")
        text = _json(folder / "chat_template.json").get("chat_template") if text is None else text
    return None if text is None else hashlib.sha256(json.dumps(text).encode()).hexdigest()[:16]


def _json(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text("utf-8"))
    except (
        OSError,
        ValueError,
    ):  # a tokenizer file that cannot be read is the tokenizer's own error to raise
        return {}
    return held if isinstance(held, dict) else {}
