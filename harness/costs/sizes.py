"""How large a model is, without its weights: from safetensors headers, the hub's figures, or config.json."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import hub
from harness.checkpoint import Checkpoint
from harness.checkpoint.read import EMBEDDING, HEAD, SIZES

BITS = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
LLAMA_LIKE = ("qwen2", "llama", "mistral", "qwen3", "gemma2")  # a gated MLP and grouped-query attention


@dataclass(frozen=True)
class Size:
    """`parameters` of the model, each counted once, and `nbytes` of its weights as they are stored. `layer`,
    `embedding`, `largest`: parameters of the largest decoder layer, of the embedding, of the largest tensor;
    `layers`, `hidden`, `vocab`, `context` as in the config; `cached` numbers of keys and values per token; 0
    where not known. `how` says what they were read from."""

    parameters: int
    nbytes: int
    how: str
    layer: int = 0
    embedding: int = 0
    layers: int = 0
    hidden: int = 0
    vocab: int = 0
    cached: int = 0
    tied: bool = False
    context: int = 0
    largest: int = 0
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict, repr=False)

    @property
    def width(self) -> float:
        """Bytes of a stored parameter, on average."""
        return self.nbytes / self.parameters if self.parameters else 2.0


def of_folder(folder: Path) -> Size | None:
    """From the headers of its safetensors, or of a `.bin` model from its config. None for neither."""
    if any(folder.glob("*.safetensors")) and not (folder / "adapter_config.json").is_file():
        model = Checkpoint.open(folder)
        shapes = {
            name: info.shape for name, info in model.tensors.items() if not (name == HEAD and model.tied)
        }
        nbytes = sum(info.nbytes for info in model.tensors.values())
        return _made(shapes, nbytes, model.config, "safetensors headers")
    config = _read(folder / "config.json")
    return of_config(config) if config else None


def of_repository(ref: str, repository: hub.Repository) -> Size | None:
    """From the hub's own count of parameters and the sizes of the files; None where it does not say."""
    if not repository.known:
        return None
    config = hub.config_of(ref, repository)
    known = of_config(config)
    files = {n: s for n, s in hub.weights(repository).items() if n.endswith((".safetensors", ".bin"))}
    nbytes = sum(size or 0 for size in files.values())
    counted = sum(repository.dtypes.values())
    if not nbytes and repository.dtypes:
        nbytes = sum(SIZES.get(code, 2) * n for code, n in repository.dtypes.items())
    if not nbytes:
        return known
    parameters = counted or (known.parameters if known else nbytes // 2)
    if known is None:
        return Size(parameters, nbytes, "the hub's figures")
    return Size(**{**vars(known), "parameters": parameters, "nbytes": nbytes, "how": "the hub's figures"})


def of_config(config: Mapping[str, Any]) -> Size | None:
    """From the shapes that a config implies; None for an architecture whose shapes are not known here."""
    config = {**config, **(config.get("text_config") or {})}
    wanted = ("hidden_size", "intermediate_size", "num_hidden_layers", "vocab_size", "num_attention_heads")
    if config.get("model_type") not in LLAMA_LIKE or not all(isinstance(config.get(k), int) for k in wanted):
        return None
    hidden, inner, layers, vocab, heads = (config[key] for key in wanted)
    head = config.get("head_dim") or hidden // heads
    queries, keys = heads * head, (config.get("num_key_value_heads") or heads) * head
    shapes: dict[str, tuple[int, ...]] = {EMBEDDING: (vocab, hidden), "model.norm.weight": (hidden,)}
    for i in range(layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", queries), ("k", keys), ("v", keys)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows, hidden)
            if config["model_type"] == "qwen2" or config.get("attention_bias"):
                shapes[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        shapes[f"{at}self_attn.o_proj.weight"] = (hidden, queries)
        for name in ("gate", "up", "down"):
            shapes[f"{at}mlp.{name}_proj.weight"] = (inner, hidden)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}{name}.weight"] = (hidden,)
    if not config.get("tie_word_embeddings", False):
        shapes[HEAD] = (vocab, hidden)
    width = BITS.get(str(config.get("torch_dtype") or config.get("dtype") or "bfloat16"), 2)
    count = sum(math.prod(shape) for shape in shapes.values())
    return _made(shapes, count * width, config, "config.json's shapes")


def _made(shapes: Mapping[str, tuple[int, ...]], nbytes: int, config: Mapping[str, Any], how: str) -> Size:
    config = {**config, **(config.get("text_config") or {})}
    counts = {name: math.prod(shape) for name, shape in shapes.items()}
    per_layer: dict[str, int] = {}
    for name, count in counts.items():
        if ".layers." in name:
            number = name.partition(".layers.")[2].partition(".")[0]
            per_layer[number] = per_layer.get(number, 0) + count
    number = lambda key: config[key] if isinstance(config.get(key), int) else 0  # noqa: E731
    layers, heads, hidden = number("num_hidden_layers"), number("num_attention_heads"), number("hidden_size")
    head = number("head_dim") or (hidden // heads if heads else 0)
    return Size(
        parameters=sum(counts.values()),
        nbytes=nbytes,
        how=how,
        layer=max(per_layer.values(), default=0),
        embedding=counts.get(EMBEDDING, 0),
        layers=layers,
        hidden=hidden,
        vocab=number("vocab_size") or (shapes[EMBEDDING][0] if EMBEDDING in shapes else 0),
        cached=2 * layers * head * (number("num_key_value_heads") or heads),
        tied=HEAD not in shapes,
        context=number("max_position_embeddings"),
        largest=max(counts.values(), default=0),
        shapes=dict(shapes),
    )


def largest(sizes: Iterable[Size | None]) -> Size | None:
    """The one of most parameters; None when none is known."""
    return max((size for size in sizes if size is not None), key=lambda s: s.parameters, default=None)


def _read(file: Path) -> dict[str, Any]:
    try:
        held = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):  # what is wrong with it is told when the model is opened
        return {}
    return held if isinstance(held, dict) else {}
