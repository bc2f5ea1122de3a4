"""A loop of optimizer steps that can be killed at any moment and goes on to the same bytes. Imports torch.

What comes after a step follows from the step's number, the weights, the optimizer's state and the random
state alone; these are kept together in one file that is replaced whole."""

from __future__ import annotations

import json
import math
import os
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.train.work import CURVE

SECONDS = 30.0  # a checkpoint is written when the last is older than this,
TIMES = 10.0  # and than this many times what writing one took
STATE = "state.pt"


@dataclass(frozen=True)
class Schedule:
    """AdamW's settings; the rate rises linearly over the share `warmup` of the steps, then falls as half a
    cosine to zero."""

    steps: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0

    def rate(self, step: int) -> float:
        """The rate of step `step`, counted from 0. No step has rate 0: a budget of one step moves."""
        rising = math.ceil(self.warmup * self.steps)
        if step < rising:
            return self.learning_rate * (step + 1) / rising
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (step - rising) / (self.steps - rising)))


def rows_of(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """The rows of a step: every epoch is an order of its own, and a batch may reach into the next one."""
    places = range(step * batch_size, (step + 1) * batch_size)
    return [_order(count, seed, place // count)[place % count] for place in places]


@lru_cache(maxsize=2)
def _order(count: int, seed: int, epoch: int) -> list[int]:
    order = list(range(count))
    random.Random(f"{seed}/{epoch}").shuffle(order)
    return order


Gradients = Callable[[int, list[int]], Mapping[str, float]]


def gradients_of(loss: Callable[[list[int]], Mapping[str, Tensor]]) -> Gradients:
    """What `optimize` is given, of a function from rows to losses; that called `loss` is differentiated."""

    def gradients(step: int, rows: list[int]) -> Mapping[str, float]:
        losses = loss(rows)
        shown = {name: value.item() for name, value in losses.items()}
        losses["loss"].backward()
        return shown

    return gradients


def optimize(
    model: torch.nn.Module,
    gradients: Gradients,
    count: int,
    schedule: Schedule,
    folder: Path,
    *,
    seed: int,
    progress: Callable[[int, int], None],
    writes: bool = True,
) -> int:
    """Carry out the steps of `schedule` on the parameters of `model` that require a gradient, in place; the
    number of steps that were found done.

    `gradients(step, rows)` adds the gradients of a batch of row numbers below `count` to the parameters and
    returns its losses, `loss` among them; they are written to `folder`/training.jsonl, one line per step.
    Parameters of one dimension (norms, biases) are not decayed. Of several processes that share the work and
    add up their gradients one `writes`. Raises `HarnessError` when a loss is not finite.
    """
    optimizer = _adamw(model, schedule)
    devices = [model.device] if model.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        begun = _resume(model, optimizer, folder)
        saved, cost = time.perf_counter(), 0.0
        model.train()
        progress(begun, schedule.steps)
        with _curve(folder / CURVE, begun, writes) as curve:
            for step in range(begun, schedule.steps):
                batch = rows_of(step, schedule.batch_size, count, seed)
                curve.write(json.dumps(_step(model, optimizer, gradients, batch, schedule, step)) + "\n")
                curve.flush()
                due = time.perf_counter() - saved >= max(SECONDS, TIMES * cost)
                if writes and due and step + 1 < schedule.steps:
                    begin = time.perf_counter()
                    _save(model, optimizer, folder, step + 1)
                    saved = time.perf_counter()
                    cost = saved - begin
                progress(step + 1, schedule.steps)
    return begun


def _adamw(model: torch.nn.Module, schedule: Schedule) -> torch.optim.AdamW:
    parameters = [p for p in model.parameters() if p.requires_grad]  # tied weights come once
    groups = [
        {"params": [p for p in parameters if p.dim() > 1], "weight_decay": schedule.weight_decay},
        {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]], lr=schedule.learning_rate, betas=schedule.betas
    )


def _step(
    model: torch.nn.Module,
    optimizer: torch.optim.AdamW,
    gradients: Gradients,
    batch: list[int],
    schedule: Schedule,
    step: int,
) -> dict[str, float]:
    for group in optimizer.param_groups:
        group["lr"] = schedule.rate(step)
    shown = gradients(step, batch)
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip).item()
    if not (math.isfinite(shown["loss"]) and math.isfinite(norm)):
        raise HarnessError(
            f"at step {step} the loss is {shown['loss']} and its gradient's norm {norm}",
            "lower `learning_rate`, or check the base for weights that are not finite",
        )
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return {"step": step, "rate": schedule.rate(step), **shown, "norm": norm}


def _curve(file: Path, steps: int, writes: bool) -> IO[str]:
    """The losses of the first `steps` steps, open for more; the kill came some steps after the checkpoint,
    maybe within a line."""
    if not writes:
        return open(os.devnull, "w")
    lines = file.read_text("utf-8").splitlines(keepends=True)[:steps] if file.exists() else []
    file.write_text("".join(lines), encoding="utf-8")
    return file.open("a", encoding="utf-8")


def _save(model: torch.nn.Module, optimizer: torch.optim.AdamW, folder: Path, step: int) -> None:
    """Replace the checkpoint: all of it or nothing."""
    state: dict[str, Any] = {
        "step": step,
        "weights": {name: p.detach() for name, p in model.named_parameters() if p.requires_grad},
        "optimizer": optimizer.state_dict(),
        "random": torch.get_rng_state(),
    }
    if model.device.type == "cuda":
        state["random_cuda"] = torch.cuda.get_rng_state(model.device)
    temporary = folder / (STATE + ".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / STATE)


def steps_done(folder: Path) -> int:
    """How many steps the checkpoint in `folder` has behind it; 0 without one."""
    file = folder / STATE
    return torch.load(file, map_location="cpu", weights_only=True, mmap=True)["step"] if file.exists() else 0


def _resume(model: torch.nn.Module, optimizer: torch.optim.AdamW, folder: Path) -> int:
    """Load the checkpoint, if there is one; the number of steps it has behind it."""
    file = folder / STATE
    if not file.exists():
        return 0
    state = torch.load(file, map_location="cpu", weights_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    torch.set_rng_state(state["random"])
    if "random_cuda" in state:
        torch.cuda.set_rng_state(state["random_cuda"], model.device)
    return state["step"]
