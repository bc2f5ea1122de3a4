"""The `hf` engine: transformers through lm-eval's own class (`hf_requests`). In the child process only."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from harness.checkpoint.identity import TOKENIZER_FILES, present
from harness.evaluate.engines import LoadError
from harness.evaluate.engines.chunks import Emit
from harness.evaluate.engines.hf_requests import StreamingHFLM
from harness.evaluate.engines.loading import device_of, facts, line, read_model

SMALL = 100_000_000  # parameters up to which 128 sequences at once are no burden anywhere


class Engine:
    """See `engines/__init__.py`. Settings: device, dtype, batch_size, threads; `auto`, None: chosen here."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self.device = device_of(settings)
        self.lm: StreamingHFLM | None = None
        self._tokenizer: tuple[str, Any] = ("", None)

    def load(self, checkpoint: str) -> dict[str, Any]:
        begun = time.perf_counter()
        self.lm = None  # the old model's memory is free before the new one is read
        misfit = "the weights do not belong to this config.json"
        model = read_model(AutoModelForCausalLM, checkpoint, self.settings, misfit)
        count = sum(p.numel() for p in model.parameters())
        batch = self.settings["batch_size"] or (128 if count <= SMALL else 8)
        files = _identity(Path(checkpoint))
        same = self._tokenizer[1] if files == self._tokenizer[0] else None
        try:
            self.lm = StreamingHFLM(model, batch_size=batch, tokenizer=same)
        except (OSError, ValueError, KeyError) as error:
            fact = f"its tokenizer does not load: {line(error)}"
            raise LoadError(fact, f"check {checkpoint}/tokenizer.json") from error
        self._tokenizer = (files, self.lm.tokenizer)
        return facts(model, batch, self.device, time.perf_counter() - begun)

    def render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        if self.lm.tokenizer.chat_template is None:
            raise LoadError("its tokenizer has no chat template", "set `chat_template: false` in the family")
        return self.lm.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)

    def generate(self, requests: list, emit: Emit) -> None:
        self.lm.generate(requests, emit)

    def loglikelihood(self, requests: list, emit: Emit) -> None:
        self.lm.score(requests, emit)

    def loglikelihood_rolling(self, requests: list, emit: Emit) -> None:
        self.lm.score_rolling(requests, emit)


def _identity(checkpoint: Path) -> str:
    """sha256 of the files that a tokenizer is read from: merges of a family share theirs."""
    found = hashlib.sha256()
    for name in present(checkpoint, TOKENIZER_FILES):
        found.update(name.encode() + b"\0" + (checkpoint / name).read_bytes() + b"\0")
    return found.hexdigest()
