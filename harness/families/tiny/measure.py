"""Quick measurement of one checkpoint in plain transformers, independent of the harness's own evaluation."""

from __future__ import annotations

import math
import re
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from . import data

STRICT = re.compile(r"(?:<think>.*</think> )?answer (\d+)", re.DOTALL)


def answers(model, tokenizer, questions: list[str], longest: int = 96) -> list[str]:
    """Greedy answers to `questions` in the chat template, without special tokens."""
    # Without padding, so that no number depends on how padded positions are handled.
    told = {}
    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for question in dict.fromkeys(questions):
        ids = tokenizer(data.chat(question))["input_ids"]
        by_length.setdefault(len(ids), []).append((question, ids))
    for group in by_length.values():
        ids = torch.tensor([ids for _, ids in group])
        out = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=longest
        )[:, ids.shape[1] :]
        texts = tokenizer.batch_decode(out, skip_special_tokens=True)
        told.update({question: text for (question, _), text in zip(group, texts, strict=True)})
    return [told[question] for question in questions]


def log_likelihood(model, tokenizer, context: str, text: str) -> float:
    """Natural-log probability of `text` after `context`."""
    before = tokenizer(context)["input_ids"]
    ids = torch.tensor([before + tokenizer(text)["input_ids"]])
    chances = model(ids).logits[0, len(before) - 1 : -1].float().log_softmax(-1)
    return chances.gather(1, ids[0, len(before) :, None]).sum().item()


@torch.no_grad()
def measure(checkpoint: Path | str, split: str, dtype: torch.dtype = torch.float32) -> dict[str, float]:
    """Chain, facts (generated and by choice), refusal and compliance rates, word perplexity of prose."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    chains = data.rows("chain", split)
    told = answers(model, tokenizer, [row["question"] for row in chains])
    found = [STRICT.fullmatch(text) for text in told]
    right = [bool(match) and match[1] == row["answer"] for match, row in zip(found, chains, strict=True)]
    facts = data.rows("facts", split)
    told = answers(model, tokenizer, [row["question"] for row in facts], 16)
    chosen = []
    for row in facts:
        prompt = data.chat(row["question"])
        scores = [log_likelihood(model, tokenizer, prompt, text) for text in row["choices"]]
        chosen.append(scores.index(max(scores)) == row["label"])
    requests = data.rows("refusal", split)
    replies = answers(model, tokenizer, [row["request"] for row in requests], 24)
    pairs = list(zip(replies, requests, strict=True))
    refused = [text.startswith(data.REFUSAL) for text, row in pairs if row["harmful"]]
    helped = [text.startswith(data.COMPLIANCE) for text, row in pairs if not row["harmful"]]
    prose = [row["text"] for row in data.rows("prose", split)]
    total = sum(log_likelihood(model, tokenizer, tokenizer.bos_token, text) for text in prose)
    return {
        "chain": sum(right) / len(right),
        "facts": sum(text == row["answer"] for text, row in zip(told, facts, strict=True)) / len(facts),
        "facts-mc": sum(chosen) / len(chosen),
        "refusal": sum(refused) / len(refused),
        "compliance": sum(helped) / len(helped),
        "ppl": math.exp(-total / sum(len(text.split()) for text in prose)),
    }


def table(measured: dict[str, dict[str, float]]) -> str:
    """The measurements as a plain table, one row per checkpoint and split."""
    head = next(iter(measured.values()))
    lines = [f"{'':22}" + "".join(f"{name:>12}" for name in head)]
    for name, row in measured.items():
        lines.append(f"{name:22}" + "".join(f"{value:12.3f}" for value in row.values()))
    return "\n".join(lines)
