"""Whether models fit together, said before any work: hard misfits are errors, suspicious ones warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from harness.checkpoint.read import EMBEDDING, FLOATS, HEAD, Checkpoint, TensorInfo
from harness.errors import HarnessError

# Same shapes with a different value of one of these are a different computation, or different text.
CONFIG_KEYS = (
    "model_type",
    "hidden_act",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rms_norm_eps",
    "layer_norm_eps",
    "sliding_window",
    "tie_word_embeddings",
    "vocab_size",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "dtype",
)
SHOWN = 5


def check_fit(
    base: Checkpoint, experts: Mapping[str, Checkpoint], vocab: Literal["error"] = "error"
) -> list[str]:
    """Warnings about experts whose settings differ from the base's; [] when all agree.

    Raises `HarnessError` when names or shapes do not fit: up to five tensors with both shapes are listed.
    """
    if vocab != "error":
        raise HarnessError(f"vocab rule `{vocab}` is unknown", "known: `error`")
    if not base.config:
        raise HarnessError(
            f"no config.json in {base.path}", "the merged model takes its config from the base"
        )
    warnings: list[str] = []
    for role, expert in experts.items():
        matched(base, expert, role)
        warnings += _differences(base, expert, role)
    return warnings


def outputs(base: Checkpoint) -> dict[str, TensorInfo]:
    """The tensors that a merge writes: the base's, without a stored copy of a head that is tied."""
    return {name: info for name, info in base.tensors.items() if not (name == HEAD and base.tied)}


def matched(base: Checkpoint, expert: Checkpoint, role: str) -> dict[str, TensorInfo]:
    """Which tensor of `expert` belongs to each tensor that a merge writes.

    A tied expert of an untied base gives its embedding for the head as well. A head stored by an expert of a
    tied base is left out if it is a copy of the expert's embedding, and is a misfit otherwise.
    """
    wanted, held = outputs(base), dict(expert.tensors)
    if HEAD in wanted and HEAD not in held and expert.tied and EMBEDDING in held:
        held[HEAD] = held[EMBEDDING]
    if HEAD in held and HEAD not in wanted and _redundant(expert):
        del held[HEAD]
    missing = [f"`{name}` {list(info.shape)} is missing" for name, info in wanted.items() if name not in held]
    extra = [
        f"`{name}` {list(info.shape)} is not in the base" for name, info in held.items() if name not in wanted
    ]
    unequal = [
        f"`{name}` {list(held[name].shape)} where the base has {list(info.shape)}"
        for name, info in wanted.items()
        if name in held and held[name].shape != info.shape
    ]
    odd = [
        f"`{name}` is {held[name].dtype} where the base has {info.dtype}"
        for name, info in wanted.items()
        if name in held and held[name].shape == info.shape and not _alike(held[name].dtype, info.dtype)
    ]
    problems = [*missing, *extra, *unequal, *odd]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise HarnessError(
            f"expert `{role}` ({expert.label}) does not fit base {base.label}: "
            + "; ".join(problems[:SHOWN])
            + more,
            _advice(missing, extra, unequal),
        )
    return {name: held[name] for name in wanted}


def _advice(missing: list[str], extra: list[str], unequal: list[str]) -> str:
    if unequal and not (missing or extra) and all(EMBEDDING in line or HEAD in line for line in unequal):
        return "the vocabularies differ in size: use experts that kept the base's"
    return "use experts that were fine-tuned from this base"


def _alike(one: str, other: str) -> bool:
    return one == other or (one in FLOATS and other in FLOATS)


def _redundant(expert: Checkpoint) -> bool:
    """Whether the stored head says nothing new: the expert is tied, or the head equals its embedding."""
    if expert.tied:
        return True
    head, embedding = expert.tensors[HEAD], expert.tensors.get(EMBEDDING)
    if embedding is None or (head.dtype, head.shape) != (embedding.dtype, embedding.shape):
        return False
    with head.file.open("rb") as one, embedding.file.open("rb") as other:
        one.seek(head.start)
        other.seek(embedding.start)
        left = head.nbytes
        while left:
            n = min(left, 1 << 22)
            if one.read(n) != other.read(n):
                return False
            left -= n
    return True


def _differences(base: Checkpoint, expert: Checkpoint, role: str) -> list[str]:
    """One sentence per setting that differs; a setting absent on one side is not compared."""
    mine, theirs = _settings(base), _settings(expert)
    found = []
    for key in CONFIG_KEYS:
        if key in mine and key in theirs and mine[key] != theirs[key]:
            found.append(
                f"expert `{role}` has {key} {theirs[key]!r}, the base {mine[key]!r}: "
                f"the merge keeps the base's"
            )
    return found


def _settings(model: Checkpoint) -> dict[str, Any]:
    """The compared settings, under one name whatever version of transformers wrote them."""
    config = {**model.config, **(model.config.get("text_config") or {})}
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = {key: config[key] for key in CONFIG_KEYS if config.get(key) is not None}
    if rope.get("rope_theta") is not None:
        found["rope_theta"] = rope["rope_theta"]
    scaling = {key: value for key, value in rope.items() if key not in ("rope_theta", "type", "rope_type")}
    kind = rope.get("rope_type", rope.get("type", "default"))
    found["rope_scaling"] = {"rope_type": kind, **scaling}
    found["tie_word_embeddings"] = model.tied
    if "torch_dtype" in config:
        found.setdefault("dtype", config["torch_dtype"])
    return found
