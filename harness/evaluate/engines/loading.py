"""How an engine reads a checkpoint. In the child process only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from harness.evaluate.engines import LoadError


def device_of(settings: dict[str, Any]) -> str:
    """The device that is asked for; `auto` is CUDA where there is one."""
    wanted = settings["device"]
    return ("cuda" if torch.cuda.is_available() else "cpu") if wanted == "auto" else wanted


def read_model(kind: Any, checkpoint: str, settings: dict[str, Any], misfit: str) -> Any:
    """The model of a checkpoint by the `AutoModel...` class `kind`, in the settings' dtype, on its device.

    Raises LoadError for a folder that is no checkpoint, and (with the hint `misfit`) for weights that are
    missing or of other shapes.
    """
    if not (Path(checkpoint) / "config.json").is_file():
        raise LoadError("it has no config.json", "name a folder with a model in transformers' layout")
    device = device_of(settings)
    try:
        model, info = kind.from_pretrained(
            checkpoint, dtype=_dtype(settings["dtype"], device), output_loading_info=True
        )
    except Exception as error:  # safetensors, json and transformers each have their own
        hint = "check the checkpoint's files; merge again if it was made here"
        raise LoadError(line(error), hint) from error
    for name in ("missing_keys", "mismatched_keys"):
        if info[name]:  # transformers would go on with random numbers in their place
            names = ", ".join(sorted(str(key) for key in info[name])[:3])
            raise LoadError(f"{len(info[name])} {name.replace('_keys', '')} tensors ({names})", misfit)
    return model.to(device).eval()


def facts(model: Any, batch: int, device: str, seconds: float) -> dict[str, Any]:
    """What an engine says of a model that it has loaded."""
    return {
        "batch_size": batch,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": device,
        "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": seconds,
    }


def line(error: Exception) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def _dtype(wanted: str, device: str) -> Any:
    # On a CPU float32 is as fast as bfloat16, and its responses do not depend on the batch: of 550 greedy
    # ones of a tiny model none changed between batches of 1, 16, 64 and 256; in bfloat16 up to 3 did.
    if wanted == "auto":
        wanted = "float32" if device == "cpu" else "auto"
    return wanted if wanted == "auto" else getattr(torch, wanted)
