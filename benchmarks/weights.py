"""Random checkpoints and gradient statistics of real models' shapes, for the benchmarks."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIZES = {  # layers, hidden, inner, heads, key-value heads, vocabulary, tied: Qwen2.5's, and smaller ones
    "0.001": (2, 64, 192, 4, 2, 512, True),
    "0.02": (4, 256, 1024, 4, 2, 32000, True),
    "0.1": (12, 512, 2560, 8, 2, 65536, True),
    "0.5": (24, 896, 4864, 14, 2, 151936, True),
    "1.5": (28, 1536, 8960, 12, 2, 151936, True),
    "7": (28, 3584, 18944, 28, 4, 152064, False),
}
ROLES = ("one", "two")
STEP = 2**21  # elements made at a time


def config(size: str) -> dict:
    layers, hidden, inner, heads, kv_heads, vocab, tied = SIZES[size]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": tied,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1e6,
        "max_position_embeddings": 4096,
        "torch_dtype": "bfloat16",
    }


def shapes(size: str) -> dict[str, tuple[int, ...]]:
    layers, hidden, inner, heads, kv_heads, vocab, tied = SIZES[size]
    kv = hidden // heads * kv_heads
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            found |= {
                f"{at}self_attn.{name}_proj.weight": (rows, hidden),
                f"{at}self_attn.{name}_proj.bias": (rows,),
            }
        found |= {
            at + "self_attn.o_proj.weight": (hidden, hidden),
            at + "mlp.gate_proj.weight": (inner, hidden),
            at + "mlp.up_proj.weight": (inner, hidden),
            at + "mlp.down_proj.weight": (hidden, inner),
            at + "input_layernorm.weight": (hidden,),
            at + "post_attention_layernorm.weight": (hidden,),
        }
    return found if tied else {**found, "lm_head.weight": (vocab, hidden)}


def elements(size: str) -> int:
    return sum(math.prod(shape) for shape in shapes(size).values())


def make(folder: Path, size: str, statistics: Sequence[str] = ()) -> None:
    """`base`, `one`, `two` (bf16) and `statistics` (float32) in `folder`: written by a process of its own,
    which gives its memory back."""
    task = json.dumps([str(folder), size, list(statistics)])
    subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), task],
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def write_all(folder: str, size: str, statistics: Sequence[str]) -> None:
    import torch

    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2 * STEP, generator=draw)  # drawn once: the statistics of every tensor are the same
    opened = {role: _opened(Path(folder) / role, size, "BF16") for role in ("base", *ROLES)}
    opened |= {name: _opened(Path(folder) / name, size, "F32") for name in statistics}
    for name, shape in shapes(size).items():
        numel = math.prod(shape)
        middle = 1.0 if "norm" in name else 0.0
        for at in range(0, numel, STEP):
            n = min(STEP, numel - at)
            base = (noise[:n] * 0.02 + middle).bfloat16()
            for i, (role, files) in enumerate(opened.items()):
                shift = 7919 * (at // STEP + 1) * i % STEP
                other = noise[shift : shift + n]
                if role in statistics:
                    values = other.abs() * 1e-4
                else:
                    values = base if i == 0 else (base.float() + other * 0.0008).bfloat16()
                data = memoryview(values.view(torch.uint8).numpy())
                files.write(name, values.element_size() * at, data)
    for files in opened.values():
        files.close()


def _opened(folder: Path, size: str, code: str):
    from harness.checkpoint import write

    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config(size)))
    tensors = {name: (code, shape) for name, shape in shapes(size).items()}
    files = write.Files(write.plan(folder, tensors, 10**12))
    files.create()
    files.open()
    return files


if __name__ == "__main__":
    write_all(*json.loads(sys.argv[1]))
