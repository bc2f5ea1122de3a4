"""The `reward` engine: a sequence-classification model that gives a text a number. Child process only."""

from __future__ import annotations

import time
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from harness.evaluate.engines import LoadError
from harness.evaluate.engines.chunks import Emit
from harness.evaluate.engines.loading import device_of, facts, line, read_model

BATCH = 32


class Engine:
    """`classify` answers {"text", "max_tokens"} requests with {"value", "tokens"}. Settings as of `hf`."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self.device = device_of(settings)

    def load(self, checkpoint: str) -> dict[str, Any]:
        begun = time.perf_counter()
        self.model = None  # the old model's memory is free before the new one is read
        self.model = self._read(checkpoint)
        try:
            self.tokenizer = AutoTokenizer.from_pretrained(checkpoint)
        except Exception as error:  # tokenizers, json and transformers each have their own
            hint = f"check {checkpoint}/tokenizer.json"
            raise LoadError(f"its tokenizer does not load: {line(error)}", hint) from error
        self.tokenizer.truncation_side = self.tokenizer.padding_side = "right"
        pad = self.tokenizer.pad_token_id
        # A decoder is read at its last token, found by the padding token of its config.
        self.model.config.pad_token_id = pad if pad is not None else self.model.config.pad_token_id
        # Without a padding token the last token of a shorter text could not be found.
        self.batch = (self.settings["batch_size"] or BATCH) if pad is not None else 1
        return facts(self.model, self.batch, self.device, time.perf_counter() - begun)

    def _read(self, checkpoint: str) -> Any:
        misfit = "a reward model has its classification head in the checkpoint"
        model = read_model(AutoModelForSequenceClassification, checkpoint, self.settings, misfit)
        labels = model.config.num_labels
        if labels != 1:
            raise LoadError(
                f"its head has {labels} labels, a reward model has one",
                "use a regression head (`num_labels: 1`), or a generative judge (kind `classifier`)",
            )
        return model

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
