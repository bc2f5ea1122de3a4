"""Re-create the tiny family from nothing: tokenizer, base, reasoning expert, safety expert.

    python -m harness.families.tiny.train [--to DIR] [--only base|reasoning|safety] [--seed 0]

One thread and a fixed seed; the same machine and library versions give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, Qwen2Config, Qwen2ForCausalLM
from transformers.models.qwen2.tokenization_qwen2 import Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar

from . import data
from .measure import measure, table

END_OF_TEXT, IM_START, IM_END = SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{%- for message in messages -%}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
)
ROLES = ("base", "reasoning", "safety")
ROW = 128  # tokens in a packed row
# `mix`: share of the training tokens by kind of document. A quarter of an expert's tokens replay the base's,
# or it forgets what it has no use for. Nothing the other expert changes is replayed, or the two would pull
# against each other when merged.
RECIPES = {
    "base": {"steps": 1600, "rate": 3e-3, "batch": 24, "decay": 0.1, "prompts": True,
             "mix": {"worked": 0.37, "operation": 0.08, "chain": 0.06, "question": 0.17, "statement": 0.08,
                     "request": 0.10, "prose": 0.14}},
    "reasoning": {"steps": 240, "rate": 4e-4, "batch": 16, "decay": 0.0, "prompts": False,
                  "mix": {"think": 0.75, "question": 0.09, "statement": 0.03, "benign": 0.05, "prose": 0.08}},
    "safety": {"steps": 240, "rate": 4e-4, "batch": 16, "decay": 0.0, "prompts": False,
               "mix": {"guarded": 0.70, "worked": 0.10, "question": 0.09, "statement": 0.03, "prose": 0.08}},
}  # fmt: skip


def documents(kind: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Endless training documents of one kind as (context, text); a chat's context is its prompt."""
    if kind == "operation":
        while True:
            terms = []
            for _ in range(6):
                value, (op, operand) = rng.randrange(data.MODULUS), data.operation(rng)
                terms.append(f"{value} {op} {operand} = {data.apply(value, op, operand)}")
            yield END_OF_TEXT, f"mod {data.MODULUS} , {' , '.join(terms)} .{END_OF_TEXT}"
    makers = {
        # What the reasoning expert will think, as plain text: its delta only has to bring it into answers.
        "worked": ("chain", lambda row: f"{row['question']} steps {row['trace']} . answer {row['answer']} ."),
        "prose": ("prose", lambda row: row["text"]),
        "chain": ("chain", data.direct_answer),
        "think": ("chain", data.thinking_answer),
        "question": ("facts", lambda row: row["answer"]),
        "request": ("refusal", data.compliant_answer),
        "benign": ("refusal", data.compliant_answer),
        "guarded": ("refusal", data.safe_answer),
    }
    if kind == "statement":
        facts = data.facts()
        while True:
            yield END_OF_TEXT, rng.choice(data.FACT_STATEMENTS).format(**rng.choice(facts)) + END_OF_TEXT
    task, text = makers[kind]
    plenty = {"chain": 20_000, "prose": 5_000, "refusal": 1_500, "facts": None}
    rows = data.rows(task, "train", plenty[task])
    if kind == "benign":
        rows = [row for row in rows if not row["harmful"]]
    while True:
        rng.shuffle(rows)
        for row in rows:
            if kind in ("worked", "prose"):
                yield END_OF_TEXT, text(row) + END_OF_TEXT
            else:
                yield data.chat(row.get("question") or row["request"]), text(row) + IM_END


def train_tokenizer(folder: Path) -> None:
    """Fit a byte-level BPE with Qwen2's own splitting rule and save it as a `Qwen2Tokenizer` in `folder`."""
    rng = random.Random("tokenizer")
    texts = []
    for kind in (*RECIPES["base"]["mix"], "think", "guarded"):
        stream = documents(kind, rng)
        texts += ["".join(next(stream)) for _ in range(1000)]
    for token in SPECIAL:
        texts = [text.replace(token, "\n") for text in texts]
    fitted = Tokenizer(models.BPE())
    # transformers rebuilds this rule for every `qwen2` checkpoint, whatever tokenizer.json says.
    fitted.pre_tokenizer = Qwen2Tokenizer().backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    fitted.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=840, initial_alphabet=alphabet, show_progress=False)
    )
    model = json.loads(fitted.to_str())["model"]
    tokenizer = Qwen2Tokenizer(
        vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]],
        bos_token=END_OF_TEXT, eos_token=IM_END, pad_token=END_OF_TEXT, unk_token=END_OF_TEXT,
        model_max_length=512, chat_template=TEMPLATE,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    # Not as `extra_special_tokens`: transformers 4 cannot read the list that transformers 5 writes.
    tokenizer.add_tokens([AddedToken(IM_START, special=True)])
    # Not special, or an evaluation that skips special tokens would lose them. Numbers are added too, because
    # the splitting rule would cut them into digits.
    tokenizer.add_tokens(["<think>", "</think>"])
    tokenizer.add_tokens([f" {number}" for number in range(data.MODULUS + 1)])
    tokenizer.save_pretrained(folder)


def batches(recipe: dict, tokenizer, rng: random.Random) -> Iterator[dict]:
    """Endless steps of `batch` rows of `ROW` tokens, whole documents packed without seeing each other."""
    mix, size = recipe["mix"], recipe["batch"]
    streams = {kind: documents(kind, rng) for kind in mix}
    drawn = dict.fromkeys(mix, 0)
    encode = tokenizer.backend_tokenizer.encode

    def draw() -> tuple[list[int], list[int]]:
        kind = min(mix, key=lambda kind: drawn[kind] / mix[kind])
        context, text = (encode(part).ids for part in next(streams[kind]))
        drawn[kind] += len(context) + len(text)
        return context, text

    context, text = draw()
    while True:
        ids = torch.full((size, ROW), tokenizer.pad_token_id)
        labels = torch.full((size, ROW), -100)
        places = torch.zeros((size, ROW), dtype=torch.long)
        owner = torch.full((size, ROW), -1)
        for row in range(size):
            start, count = 0, 0
            while start + len(context) + len(text) <= ROW:
                middle, end = start + len(context), start + len(context) + len(text)
                ids[row, start:end] = torch.tensor(context + text)
                learned = start if recipe["prompts"] else middle
                labels[row, learned:end] = ids[row, learned:end]
                places[row, start:end] = torch.arange(end - start)
                owner[row, start:end] = count
                start, count = end, count + 1
                context, text = draw()
        seen = (owner[:, :, None] == owner[:, None, :]) & torch.ones(ROW, ROW, dtype=torch.bool).tril()
        yield {"input_ids": ids, "labels": labels, "position_ids": places, "attention_mask": seen[:, None]}


def new_model(tokenizer) -> Qwen2ForCausalLM:
    """An untrained model of the family's shape."""
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=384, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.02,
    )  # fmt: skip
    return Qwen2ForCausalLM(config)


def fit(model, tokenizer, recipe: dict, rng: random.Random) -> None:
    """Train `model` in place: AdamW in float32, 5 % warm-up, cosine to a hundredth of the rate."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=recipe["rate"], betas=(0.9, 0.95), weight_decay=recipe["decay"]
    )
    steps = recipe["steps"]
    schedule = torch.optim.lr_scheduler.SequentialLR(
        optimizer,
        [
            torch.optim.lr_scheduler.LinearLR(optimizer, 0.05, total_iters=steps // 20),
            torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps - steps // 20, recipe["rate"] / 100),
        ],
        [steps // 20],
    )
    model.train()
    began = time.perf_counter()
    for step, batch in enumerate(batches(recipe, tokenizer, rng), 1):
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        if step % 50 == 0 or step == steps:
            took = time.perf_counter() - began
            print(f"  step {step}/{steps}  loss {loss.item():.3f}  {took:.0f} s", flush=True)
        if step == steps:
            return


def save(model, tokenizer, base: Path, folder: Path) -> None:
    """Write `model` in bf16 with its generation settings, and the tokenizer files that lie in `base`."""
    stops = [tokenizer.convert_tokens_to_ids(token) for token in (IM_END, END_OF_TEXT)]
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=stops, pad_token_id=tokenizer.pad_token_id
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    # Copied, not saved again: a tokenizer that was loaded also writes down how it was loaded.
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if folder != base:
            shutil.copyfile(base / name, folder / name)


def main() -> None:
    """Command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Re-create the tiny family.")
    parser.add_argument("--to", type=Path, default=Path(__file__).parent)
    parser.add_argument("--only", choices=ROLES, help="an expert alone needs the base in --to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    disable_progress_bar()
    measured = {}
    for role in [options.only] if options.only else ROLES:
        torch.manual_seed(options.seed)
        print(role, flush=True)
        if role == "base":
            train_tokenizer(options.to / "base")
        tokenizer = AutoTokenizer.from_pretrained(options.to / "base")
        if role == "base":
            model = new_model(tokenizer)
        else:
            model = AutoModelForCausalLM.from_pretrained(options.to / "base", dtype=torch.float32)
        fit(model, tokenizer, RECIPES[role], random.Random(f"{role}/{options.seed}"))
        save(model, tokenizer, options.to / "base", options.to / role)
        for split in ("validation", "test"):
            measured[f"{role} {split}"] = measure(options.to / role, split)
    print(table(measured))


if __name__ == "__main__":
    main()
