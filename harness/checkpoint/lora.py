"""LoRA adapters as PEFT stores them: which settings can be applied exactly, and which tensor changes which.

W' = W + scaling * B A, scaling = alpha / r, or alpha / sqrt(r) with `use_rslora` (arXiv:2106.09685;
arXiv:2312.03732; PEFT 0.21.2). Torch-free."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoint.read import HEAD, Checkpoint, TensorInfo, read_header
from harness.errors import HarnessError

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
# Keys that say nothing of the arithmetic, or whose effect is in the stored tensors.
INERT = {
    *("auto_mapping", "base_model_name_or_path", "revision", "peft_type", "peft_version", "task_type"),
    *("inference_mode", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern"),
    *("lora_dropout", "modules_to_save", "megatron_core", "qalora_group_size", "runtime_config", "bias"),
    *(
        "r",
        "lora_alpha",
        "rank_pattern",
        "alpha_pattern",
        "use_rslora",
        "fan_in_fan_out",
        "ensure_weight_tying",
    ),
    *("eva_config", "init_lora_weights"),
}
# Initialisations that leave W as it is; the others (pissa, olora, loftq, corda) also change the base's
# weights.
HARMLESS_STARTS = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class Lora:
    """The settings of adapter_config.json that the arithmetic needs."""

    r: int
    alpha: float
    rank_pattern: Mapping[str, int] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    rslora: bool = False
    transposed: bool = False
    base: str = ""

    def rank(self, module: str) -> int:
        return int(_pattern(self.rank_pattern, module, self.r))

    def scaling(self, module: str) -> float:
        rank = self.rank(module)
        return _pattern(self.alpha_pattern, module, self.alpha) / (math.sqrt(rank) if self.rslora else rank)


@dataclass(frozen=True)
class Change:
    """What an adapter does to one tensor: it is `replaced`, and then B A is added (`a` [r, in], `b` [out,
    r])."""

    replaced: TensorInfo | None = None
    a: TensorInfo | None = None
    b: TensorInfo | None = None
    scaling: float = 1.0
    transposed: bool = False


def _pattern(patterns: Mapping[str, float], module: str, default: float) -> float:
    """PEFT's rule: a pattern fits the whole module name, or the end of it after a dot; the first that
    fits."""
    for pattern, value in patterns.items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def read(folder: Path) -> Lora:
    """The settings in `folder`. Raises `HarnessError` naming whatever cannot be applied exactly."""
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
        kind = config.get("peft_type")
    except (ValueError, AttributeError) as error:
        raise HarnessError(f"{file} is not a JSON object ({error})", "download the file again") from error
    if kind != "LORA":
        raise HarnessError(
            f"{file} has peft_type {kind!r}", "only LORA can be applied; merge it with PEFT yourself"
        )
    for key, value in config.items():
        given = value not in (None, False, [], {}, "")
        odd_start = key == "init_lora_weights" and value not in HARMLESS_STARTS
        if odd_start or (given and key not in INERT):
            raise HarnessError(
                f"{file} has `{key}: {value}`, which cannot be applied here",
                "merge it with PEFT (`merge_and_unload`, `save_pretrained`) and give the merged model",
            )
    if not (folder / WEIGHTS).is_file():
        raise HarnessError(
            f"{folder} has an adapter_config.json and no {WEIGHTS}", "save the adapter as safetensors"
        )
    return _settings(file, config)


def _settings(file: Path, config: Mapping[str, Any]) -> Lora:
    try:
        found = Lora(
            int(config["r"]),
            float(config["lora_alpha"]),
            {str(key): int(value) for key, value in (config.get("rank_pattern") or {}).items()},
            {str(key): float(value) for key, value in (config.get("alpha_pattern") or {}).items()},
            bool(config.get("use_rslora")),
            bool(config.get("fan_in_fan_out")),
            str(config.get("base_model_name_or_path") or ""),
        )
        for pattern in (*found.rank_pattern, *found.alpha_pattern):
            re.compile(pattern)
    except (KeyError, TypeError, ValueError, AttributeError, re.error) as error:
        raise HarnessError(
            f"{file} is incomplete or damaged: {type(error).__name__} {error}", "save the adapter again"
        ) from error
    if min([found.r, *found.rank_pattern.values()]) < 1:
        raise HarnessError(f"{file} has a rank below 1", "save the adapter again")
    return found


def other_base(config: Lora, label: str) -> str | None:
    """A sentence when the adapter names another base than the one it is applied to."""
    named = config.base.rstrip("/")
    if not named or named.split("/")[-1].lower() == label.split("/")[-1].lower():
        return None
    return f"the adapter names `{named}` as its base and is applied to {label}; `on:` names another model"


def changes(folder: Path, config: Lora, on: Checkpoint) -> dict[str, Change]:
    """Tensor of `on` -> what the adapter does to it.

    Raises `HarnessError` for a tensor that `on` does not have or that has another shape, half a pair, an
    unknown kind of tensor, and a changed head of a model whose head is its embedding."""
    replaced: dict[str, TensorInfo] = {}
    halves: dict[tuple[str, bool], dict[str, TensorInfo]] = {}
    for info in read_header(folder / WEIGHTS):
        name = info.name.removeprefix(PREFIX)
        if pair := re.fullmatch(r"(.+)\.lora_(embedding_)?([AB])(?:\.weight)?", name):
            halves.setdefault((pair[1], bool(pair[2])), {})[pair[3]] = info
        elif "lora_" in name:
            raise HarnessError(
                f"{info.file} holds `{info.name}`, which cannot be applied here", "merge it with PEFT"
            )
        else:
            replaced[re.sub(r"\.(modules_to_save|base_layer)(?=\.)", "", name)] = info
    found = {name: Change(replaced=info) for name, info in replaced.items()}
    for (module, embedding), pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise HarnessError(
                f"{folder / WEIGHTS} holds half a pair for `{module}`", "save the adapter again"
            )
        turned = embedding or config.transposed  # an embedding is stored [tokens, width]: B A transposed
        name = f"{module}.weight"
        found[name] = Change(replaced.get(name), pair["A"], pair["B"], config.scaling(module), turned)
        _check_rank(folder, module, config.rank(module), pair)
    if not found:
        raise HarnessError(f"{folder / WEIGHTS} holds no tensor", "save the adapter again")
    for name, change in found.items():
        _check(folder, name, change, on)
    return found


def _check_rank(folder: Path, module: str, rank: int, pair: Mapping[str, TensorInfo]) -> None:
    a, b = pair["A"].shape, pair["B"].shape
    if len(a) != 2 or len(b) != 2 or not a[0] == b[1] == rank:
        raise HarnessError(
            f"{folder}: `{module}` has A {list(a)} and B {list(b)}, and adapter_config.json says rank {rank}",
            "the tensors and the config come from different adapters",
        )


def _check(folder: Path, name: str, change: Change, on: Checkpoint) -> None:
    if name == HEAD and on.tied:
        raise HarnessError(
            f"adapter {folder} changes `{name}`, and the head of {on.label} is its embedding",
            "untie the model first, or train the adapter without the head",
        )
    if name not in on.tensors:
        raise HarnessError(
            f"adapter {folder} changes `{name}`, which {on.label} does not have",
            "give the model it was trained on: `on: ./model` beside `model:`",
        )
    wanted = on.tensors[name].shape
    given = [change.replaced.shape] if change.replaced else []
    if change.a and change.b:
        shape = (change.b.shape[0], change.a.shape[1])
        given.append(shape[::-1] if change.transposed else shape)
    for shape in given:
        if tuple(shape) != wanted:
            raise HarnessError(
                f"adapter {folder} makes `{name}` {list(shape)} where {on.label} has {list(wanted)}",
                "give the model it was trained on: `on: ./model` beside `model:`",
            )
