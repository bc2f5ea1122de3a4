"""Whether models fit together, said before any work: hard misfits are errors, suspicious ones warnings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def check_fit(base: Checkpoint, experts: Mapping[str, Checkpoint]) -> list[str]:
    """Warnings about experts whose settings differ from the base's; [] when all agree.

    Raises `HarnessError` when names or shapes do not fit: up to five tensors with both shapes are listed.
    """
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
    found = misfits(base, expert)
    problems = [line for lines in found.values() for line in lines]
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise HarnessError(
            f"expert `{role}` ({expert.label}) does not fit base {base.label}: "
            + "; ".join(problems[:SHOWN])
            + more,
            _advice(found["missing"], found["extra"], found["shapes"]),
        )
    held = _held(base, expert)
    return {name: held[name] for name in outputs(base)}


def misfits(base: Checkpoint, expert: Checkpoint) -> dict[str, list[str]]:
    """What stops a merge: tensors that are `missing` or `extra`, unequal `shapes`, and `kinds` of numbers."""
    wanted, held = outputs(base), _held(base, expert)
    both = [name for name in wanted if name in held]
    shapes = [name for name in both if held[name].shape != wanted[name].shape]
    kinds = [name for name in both if name not in shapes and not _alike(held[name].dtype, wanted[name].dtype)]
    return {
        "missing": [f"`{n}` {list(info.shape)} is missing" for n, info in wanted.items() if n not in held],
        "extra": [f"`{n}` {list(i.shape)} is not in the base" for n, i in held.items() if n not in wanted],
        "shapes": [f"`{n}` {list(held[n].shape)} where the base has {list(wanted[n].shape)}" for n in shapes],
        "kinds": [f"`{n}` is {held[n].dtype} where the base has {wanted[n].dtype}" for n in kinds],
    }


def _held(base: Checkpoint, expert: Checkpoint) -> dict[str, TensorInfo]:
    """The expert's tensors as the base counts them: see `matched`."""
    wanted, held = outputs(base), dict(expert.tensors)
    if HEAD in wanted and HEAD not in held and expert.tied and EMBEDDING in held:
        held[HEAD] = held[EMBEDDING]
    if HEAD in held and HEAD not in wanted and redundant(expert):
        del held[HEAD]
    return held


def _advice(missing: list[str], extra: list[str], unequal: list[str]) -> str:
    if unequal and not (missing or extra) and all(EMBEDDING in line or HEAD in line for line in unequal):
        return "the vocabularies differ in size: `vocab: base` (or intersect, union) matches rows by token"
    return "use experts that were fine-tuned from this base"


def _alike(one: str, other: str) -> bool:
    return one == other or (one in FLOATS and other in FLOATS)


def redundant(expert: Checkpoint) -> bool:
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
    """One sentence per setting that differs."""
    return [
        f"expert `{role}` has {key} {theirs!r}, the base {mine!r}: the merge keeps the base's"
        for key, (mine, theirs) in unequal_settings(base, expert).items()
    ]


def unequal_settings(base: Checkpoint, expert: Checkpoint) -> dict[str, tuple[Any, Any]]:
    """Setting -> (the base's, the expert's), where they differ; one absent on one side is not compared."""
    mine, theirs = settings(base), settings(expert)
    return {
        key: (mine[key], theirs[key])
        for key in CONFIG_KEYS
        if key in mine and key in theirs and mine[key] != theirs[key]
    }


def settings(model: Checkpoint) -> dict[str, Any]:
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
