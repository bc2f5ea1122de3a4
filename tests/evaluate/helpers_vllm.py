"""Small models of two architectures, tied and untied, and what the vLLM tests ask of them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from harness.evaluate.choice import EngineSettings
from harness.evaluate.engine import Engine
from tests.evaluate.conftest import make_model

KINDS = ("qwen2", "llama")


def model_of(folder: Path, kind: str, tied: bool, seed: int, near: Path | None = None) -> Path:
    """A random model with a real tokenizer (heads of 32, the least that vLLM's CPU kernels take). `near`:
    another one's weights with small changes, so that two models differ as a merge differs from its base."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import LlamaConfig, LlamaForCausalLM

    make_model(folder, seed=seed, tie_word_embeddings=tied, hidden_size=128, initializer_range=0.2)
    if kind == "llama":
        config = json.loads((folder / "config.json").read_text())
        kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
        ids = ("bos_token_id", "eos_token_id", "pad_token_id")
        torch.manual_seed(seed)
        made = LlamaConfig(
            **{name: config[name] for name in (*kept, *ids)},
            num_key_value_heads=2,
            max_position_embeddings=512,
            tie_word_embeddings=tied,
            initializer_range=0.2,
        )
        for name in ("config.json", "model.safetensors", "generation_config.json"):
            (folder / name).unlink(missing_ok=True)
        LlamaForCausalLM(made).to(torch.bfloat16).save_pretrained(folder)
    if near is not None:
        draw = torch.Generator().manual_seed(seed)
        changed = {
            name: (t.float() * (1 + 0.05 * torch.randn(t.shape, generator=draw))).to(t.dtype)
            for name, t in load_file(near / "model.safetensors").items()
        }
        save_file(changed, folder / "model.safetensors", {"format": "pt"})
    return folder


def copy_of(model: Path, to: Path, **config) -> Path:
    """The same model at another place, with changes to its config."""
    shutil.copytree(model, to)
    data = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps({**data, **config}))
    return to


def engine(log: Path, name: str = "vllm", **settings) -> Engine:
    given = {**EngineSettings(**settings).model_dump(), "device": "auto", "threads": 2, "gpus": ""}
    return Engine(name, given, log)


def prompts(count: int) -> list[str]:
    return [
        f"<|im_start|>user\nwhat is {i} and then {3 * i}?<|im_end|>\n<|im_start|>assistant\n"
        for i in range(count)
    ]


def asked(count: int = 12, tokens: int = 24) -> dict[str, list[dict]]:
    """Requests of all kinds: greedy and drawn responses, continuations, documents (some of more windows than
    one)."""
    greedy = {"until": ["\n\n"], "do_sample": False, "max_gen_toks": tokens}
    drawn = {"until": [], "do_sample": True, "temperature": 0.8, "top_p": 0.9, "max_gen_toks": tokens}
    seeds = [0, 0], [0, 1]
    said = prompts(count)
    return {
        "generate": [{"context": c, "kwargs": greedy, "seed": seeds[0]} for c in said]
        + [{"context": c, "kwargs": drawn, "seed": seed} for c in said for seed in seeds],
        "loglikelihood": [
            {"context": c, "continuation": w, "seed": [0, 0]} for c in said for w in (" a", " no")
        ],
        "loglikelihood_rolling": [{"text": "".join(said[: i + 1]) * 3, "seed": [0, 0]} for i in range(count)],
    }


def answers(one: Engine, model: Path, requests: dict[str, list[dict]]) -> dict[str, list]:
    """What the engine says, in the order of the requests."""
    found = {}
    for kind, sent in requests.items():
        pairs = sorted((pair for part in one.run(model, kind, sent) for pair in part), key=lambda p: p[0])
        assert [index for index, _ in pairs] == list(range(len(sent)))
        found[kind] = [answer for _, answer in pairs]
    return found
