"""Small random checkpoints, written without transformers."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

CONFIG = {
    "architectures": ["Qwen2ForCausalLM"],
    "model_type": "qwen2",
    "hidden_size": 64,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 3000,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
    "hidden_act": "silu",
    "max_position_embeddings": 64,
    "rope_theta": 10000.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "torch_dtype": "bfloat16",
}


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """The tensors of a Qwen2 model."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    found = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        at = f"model.layers.{i}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            found[f"{at}self_attn.{name}_proj.weight"] = (rows, hidden)
            found[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        found[at + "self_attn.o_proj.weight"] = (hidden, hidden)
        found |= {
            at + "mlp.gate_proj.weight": (inner, hidden),
            at + "mlp.up_proj.weight": (inner, hidden),
            at + "mlp.down_proj.weight": (hidden, inner),
        }
        found |= {at + "input_layernorm.weight": (hidden,), at + "post_attention_layernorm.weight": (hidden,)}
    found["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (config["vocab_size"], hidden)
    return found


def weights(config: dict, seed: int = 0, dtype: torch.dtype = torch.bfloat16) -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    return {
        name: (torch.randn(shape, generator=draw) * 0.05).to(dtype) for name, shape in shapes(config).items()
    }


def tuned(
    base: dict[str, torch.Tensor], seed: int, dtype: torch.dtype | None = None
) -> dict[str, torch.Tensor]:
    """An expert: the base plus small changes; a third of the embedding's rows and one whole tensor unchanged,
    so that many differences are exactly zero, and bf16 makes many of the others equal."""
    draw, found = torch.Generator().manual_seed(seed), {}
    for name, tensor in base.items():
        change = torch.randn(tensor.shape, generator=draw) * 0.004
        if "embed" in name:
            change[torch.rand(len(change), generator=draw) < 0.33] = 0
        if name.endswith("layers.0.mlp.up_proj.weight"):
            change.zero_()
        found[name] = (tensor.float() + change).to(dtype or tensor.dtype)
    return found


def write(
    folder: Path, tensors: dict[str, torch.Tensor], config: dict | None = CONFIG, shards: int = 1
) -> Path:
    """A model folder; with `shards` > 1 the tensors are dealt out in turn, so that shards hold mixed
    layers."""
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer_config.json").write_text(json.dumps({"made_for": folder.name}))
    if shards == 1:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    places = {}
    for i in range(shards):
        file = f"model-{i + 1:05}-of-{shards:05}.safetensors"
        own = {name: tensor for j, (name, tensor) in enumerate(tensors.items()) if j % shards == i}
        save_file(own, folder / file, {"format": "pt"})
        places |= dict.fromkeys(own, file)
    index = {"metadata": {"total_size": 0}, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder
