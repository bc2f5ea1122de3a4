"""A LoRA trained by PEFT's layers and our loop of steps, alone or as one of several processes. Imports torch.

What a step draws (dropout) follows from the seed, the step and the number of the micro-batch, so any number
of processes draws the same, and only the order in which gradients are added differs."""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor
from torch.nn.functional import cross_entropy

from harness.checkpoint.pretrained import load_model, threads_for
from harness.train import loop, models
from harness.train.recipe import Train
from harness.train.samples import Sample

IGNORED = -100  # label of a position that carries no loss
ADAPTER = "adapter"  # in the training's folder, once all steps are done


class Group(Protocol):
    """Processes that share the work, as accelerate's `Accelerator` describes them."""

    process_index: int
    num_processes: int
    device: torch.device

    def reduce(self, tensor: Tensor, reduction: str = "sum") -> Tensor: ...


@dataclass(frozen=True)
class Schedule(loop.Schedule):
    """Warm-up counted in steps, then a straight fall, half a cosine, or nothing."""

    rising: int = 0
    decay: str = "linear"

    def rate(self, step: int) -> float:
        if step < self.rising:
            return self.learning_rate * (step + 1) / self.rising
        share = (step - self.rising) / max(1, self.steps - self.rising)
        falls = {"linear": 1 - share, "cosine": 0.5 * (1 + math.cos(math.pi * share)), "none": 1.0}
        return self.learning_rate * falls[self.decay]

    @classmethod
    def of(cls, train: Train, rows: int) -> Schedule:
        given = (train.batch_size, train.learning_rate, 0.0, train.weight_decay, (0.9, 0.999), train.clip)
        return cls(train.steps(rows), *given, rising=train.warmup_steps, decay=train.decay)


def fit(
    base: Path,
    train: Train,
    targets: Sequence[str],
    samples: Sequence[Sample],
    folder: Path,
    progress: Callable[[int, int], None],
    group: Group | None = None,
) -> int:
    """Train, and write the adapter as PEFT stores it into `folder`/adapter; the number of steps found done.

    `targets` are the ends of the names of the modules that are adapted. Of a `group`, every process is given
    the same, and the first writes. Raises `HarnessError` when weights are missing or a loss is not finite."""
    device = str(group.device) if group else default_device()
    dtype = getattr(torch, train.dtype)
    spread = train.placement == "layers" and device != "cpu"
    model = load_model(base, dtype, spread)
    model = model if spread else model.to(device)
    model.config.use_cache = False
    with threads_for(model.num_parameters()), torch.random.fork_rng():
        torch.manual_seed(train.seed)
        adapted = get_peft_model(model, _config(train, targets))
        if train.gradient_checkpointing:
            adapted.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        found_done = loop.optimize(
            adapted,
            _Gradients(adapted, train, samples, dtype, group),
            len(samples),
            Schedule.of(train, len(samples)),
            folder,
            seed=train.seed,
            progress=progress,
            writes=group is None or group.process_index == 0,
        )
        if group is None or group.process_index == 0:
            _save(adapted, folder)
    return found_done


def default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _config(train: Train, targets: Sequence[str]) -> LoraConfig:
    return LoraConfig(
        r=train.r,
        lora_alpha=train.alpha,
        lora_dropout=train.dropout,
        target_modules=list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )


class _Gradients:
    """A step's gradients, micro-batch by micro-batch, summed over the group."""

    def __init__(
        self,
        model: torch.nn.Module,
        train: Train,
        samples: Sequence[Sample],
        dtype: torch.dtype,
        group: Group | None,
    ) -> None:
        self.model, self.train, self.samples, self.dtype, self.group = model, train, samples, dtype, group
        self.own = [p for p in model.parameters() if p.requires_grad]

    def __call__(self, step: int, rows: list[int]) -> dict[str, float]:
        # rows of a length together: less padding, and the sum over the batch is the same
        rows = sorted(rows, key=lambda row: (len(self.samples[row].tokens), row))
        total = sum(self.samples[row].predicted for row in rows)
        rank, count = (self.group.process_index, self.group.num_processes) if self.group else (0, 1)
        size = self.train.micro_batch_size
        loss = torch.zeros((), device=self.model.device)
        for index, begin in enumerate(range(0, len(rows), size)):
            if index % count == rank:
                torch.manual_seed(_seed(self.train.seed, step, index))
                part = self._loss([self.samples[row] for row in rows[begin : begin + size]]) / total
                part.backward()
                loss += part.detach().to(loss.device)
        return {"loss": self._together(loss).item()}

    def _loss(self, batch: Sequence[Sample]) -> Tensor:
        """Summed over the learned tokens of `batch`, in nats."""
        tokens, mask = models.padded([sample.tokens for sample in batch], self.model.device)
        labels = tokens.masked_fill(mask == 0, IGNORED)
        for row, sample in enumerate(batch):
            labels[row, : sample.given] = IGNORED
        with torch.autocast(tokens.device.type, self.dtype, enabled=self.dtype != torch.float32):
            logits = self.model(input_ids=tokens, attention_mask=mask, use_cache=False).logits[:, :-1]
        labels = labels[:, 1:].to(logits.device)
        learned = labels != IGNORED  # what carries no loss is not made float32
        return cross_entropy(logits[learned].float(), labels[learned], reduction="sum")

    def _together(self, loss: Tensor) -> Tensor:
        """The sums over the group: of the loss, returned, and of the gradients, in place."""
        if self.group is None or self.group.num_processes == 1:
            return loss
        for parameter in self.own:
            if parameter.grad is None:  # a process without a micro-batch in this step
                parameter.grad = torch.zeros_like(parameter)
        flat = torch.cat([loss.reshape(1), *(p.grad.reshape(-1) for p in self.own)])
        flat = self.group.reduce(flat, reduction="sum")
        at = 1
        for parameter in self.own:
            parameter.grad.copy_(flat[at : at + parameter.numel()].view_as(parameter))
            at += parameter.numel()
        return flat[0]


def _seed(seed: int, step: int, index: int) -> int:
    return (seed * 1_000_003 + step) * 1_000_003 + index & (1 << 62) - 1


def _save(model: Any, folder: Path) -> None:
    """The adapter, whole or not at all. Its config does not tell where the base lay, and lists are sorted, so
    that the same training gives the same bytes on any machine."""
    part = folder / (ADAPTER + ".part")
    shutil.rmtree(part, ignore_errors=True)
    model.save_pretrained(str(part), save_embedding_layers=False)
    config = part / "adapter_config.json"
    settings = json.loads(config.read_text("utf-8"))
    settings |= {"base_model_name_or_path": None, "target_modules": sorted(settings["target_modules"])}
    config.write_text(json.dumps(settings, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    (part / "README.md").unlink(missing_ok=True)
    shutil.rmtree(folder / ADAPTER, ignore_errors=True)
    os.rename(part, folder / ADAPTER)
