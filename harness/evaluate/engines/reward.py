"""The `reward` engine: a sequence-classification model that gives a text a number. Child process only."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.evaluate.engines import LoadError

Emit = Callable[[list[tuple[int, Any]]], None]
BATCH = 32


class Engine:
    """`classify` answers {"text", "max_tokens"} requests with {"value", "tokens"}. Settings as of `hf`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        device = settings["device"]
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device

    def load(self, checkpoint: str) -> dict[str, Any]:
        begun = time.perf_counter()
        self.model = None  # the old model's memory is free before the new one is read
        self.model = self._read(checkpoint)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except Exception as error:  # tokenizers, json and transformers each have their own
            hint = f"check {checkpoint}/tokenizer.json"
            raise LoadError(f"its tokenizer does not load: {_line(error)}", hint) from error
        self.tokenizer.truncation_side = self.tokenizer.padding_side = "right"
        pad = self.tokenizer.pad_token_id
        # A decoder is read at its last token, found by the padding token of its config.
        self.model.config.pad_token_id = pad if pad is not None else self.model.config.pad_token_id
        # Without a padding token the last token of a shorter text could not be found.
        self.batch = (self.settings["batch_size"] or BATCH) if pad is not None else 1
        return {
            "batch_size": self.batch,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.device,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "seconds": time.perf_counter() - begun,
        }

    def _read(self, checkpoint: str) -> Any:
        if not (Path(checkpoint) / "config.json").is_file():
            raise LoadError("it has no config.json", "name a folder with a model in transformers' layout")
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                checkpoint, dtype=self._dtype(), output_loading_info=True
            )
        except Exception as error:  # safetensors, json and transformers each have their own
            raise LoadError(_line(error), "check the checkpoint's files") from error
        for kind in ("missing_keys", "mismatched_keys"):
            if info[kind]:  # transformers would go on with random numbers in their place
                names = ", ".join(sorted(str(key) for key in info[kind])[:3])
                raise LoadError(
                    f"{len(info[kind])} {kind.replace('_keys', '')} tensors ({names})",
                    "a reward model has its classification head in the checkpoint",
                )
        labels = model.config.num_labels
        if labels != 1:
            raise LoadError(
                f"its head has {labels} labels, a reward model has one",
                "use a regression head (`num_labels: 1`), or a generative judge (kind `classifier`)",
            )
        return model.to(self.device).eval()

    def _dtype(self) -> Any:
        wanted = self.settings["dtype"]
        if wanted == "auto":
            wanted = "float32" if self.device == "cpu" else "auto"
        return wanted if wanted == "auto" else getattr(torch, wanted)

    @torch.inference_mode()
    def classify(self, requests: list, emit: Emit) -> None:
        """Texts of like length share a batch; each is cut on the right at its `max_tokens`."""
        encoded = [
            (index, self.tokenizer(r["text"], truncation=True, max_length=r["max_tokens"])["input_ids"])
            for index, r in requests
        ]
        encoded.sort(key=lambda pair: len(pair[1]), reverse=True)
        for start in range(0, len(encoded), self.batch):
            part = encoded[start : start + self.batch]
            ids = [tokens for _, tokens in part]
            if self.batch > 1:
                inputs = self.tokenizer.pad({"input_ids": ids}, return_tensors="pt").to(self.device)
            else:
                one = torch.tensor(ids, device=self.device)
                inputs = {"input_ids": one, "attention_mask": torch.ones_like(one)}
            values = self.model(**inputs).logits[:, 0].float().tolist()
            emit(
                [
                    (index, {"value": value, "tokens": len(tokens)})
                    for (index, tokens), value in zip(part, values, strict=True)
                ]
            )


def _line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
