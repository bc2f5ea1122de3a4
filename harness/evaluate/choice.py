"""Which engine a run uses, what it can do, and what of its settings changes an answer. Light."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest
from harness.evaluate.task_file import TaskFile
from harness.family.members import EngineSettings

__all__ = ["CHOICES", "EngineSettings", "numerics", "refuse", "resolve", "visible_gpus"]

CHOICES = ("auto", "hf", "vllm")
DEVICES = Path("/dev")
# What vLLM's sampler understands of lm-eval's generation settings.
SAMPLER = {
    "until", "max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens", "do_sample",
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty",
}  # fmt: skip
# Settings of transformers' generation that vLLM lacks, with the value at which they do nothing.
IDLE = {"num_beams": 1, "num_beam_groups": 1, "no_repeat_ngram_size": 0, "length_penalty": 1.0,
        "early_stopping": False, "use_cache": True, "typical_p": 1.0, "epsilon_cutoff": 0.0}  # fmt: skip


def resolve(engine: str, family: Any = None) -> str:
    """The engine that `auto`, `hf` or `vllm` stands for: `auto` is vllm where it is installed and a GPU is
    there, else hf. HarnessError for an unknown name, or for vllm where it cannot run the family."""
    if engine not in CHOICES:
        raise HarnessError(f"no engine is called `{engine}`", nearest(engine, CHOICES))
    if engine == "hf":
        return engine
    installed, gpus = find_spec("vllm") is not None, visible_gpus()
    if engine == "auto" and not (installed and gpus):
        return "hf"
    if not installed:
        raise HarnessError(
            "engine `vllm` is not installed",
            "`make vllm` (CPU), or `pip install vllm` where there is a GPU; or `--engine hf`",
        )
    wanted = family.engine.tensor_parallel if family is not None else 1
    if gpus and wanted > len(gpus):
        raise HarnessError(
            f"`engine.tensor_parallel` is {wanted}, and {len(gpus)} GPUs are there",
            "lower it in the family, or run where there are more",
        )
    return "vllm"


def visible_gpus() -> list[str]:
    """The GPUs of this machine that `CUDA_VISIBLE_DEVICES` leaves, as it would name them."""
    there = [path.name[6:] for path in DEVICES.glob("nvidia[0-9]*")]
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not there or chosen is None:
        return sorted(there, key=int)
    return [name.strip() for name in chosen.split(",") if name.strip() not in ("", "-1")]


def numerics(engine: str, settings: EngineSettings) -> dict[str, Any]:
    """What changes an answer besides model and request: part of what identifies a response."""
    found: dict[str, Any] = {"engine": engine, "dtype": settings.dtype}
    if engine == "vllm":
        found |= {"max_model_len": settings.max_model_len, "tensor_parallel": settings.tensor_parallel}
        found = {key: value for key, value in found.items() if value not in (None, 1)}
    return found


def refuse(task: TaskFile, engine: str, generation: Mapping[str, Any] | None = None) -> None:
    """Raise HarnessError for generation settings of the task, or of `generation` over them, that the engine
    would have to leave out."""
    if engine != "vllm" or not task.uses_generation:
        return
    for part in task.members or (task,):
        wanted = {**(part.config.get("generation_kwargs") or {}), **(generation or {})}
        for name in unsupported(wanted):
            raise HarnessError(
                f"task `{task.name}` generates with `{name}: {wanted[name]}`, which vLLM cannot do",
                "`--engine hf`, or leave the task out",
            )


def unsupported(settings: Mapping[str, Any]) -> list[str]:
    """Generation settings that vLLM lacks and that are not at the value at which they do nothing."""
    return [
        name
        for name, value in settings.items()
        if name not in SAMPLER and not (name in IDLE and value == IDLE[name])
    ]
