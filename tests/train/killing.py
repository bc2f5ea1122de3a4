"""Work that kills its own process. A forked child cannot use torch once its parent has, so the children come
from a server that has imported torch and not used it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from pathlib import Path

import torch

from harness.train import loop, work
from harness.train.fusion import batch_loss
from tests.train.conftest import SMALL, Bigram, fused

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    ["torch", "transformers.models.qwen2.modeling_qwen2", "harness.train.fusion", "tests.train.killing"]
)


def killed(function, *arguments) -> None:
    """Call `function` in a process of its own, which must not survive it."""
    child = CONTEXT.Process(target=_child, args=(function, *arguments))
    child.start()
    child.join(120)
    assert child.exitcode == -signal.SIGKILL


def _child(function, *arguments) -> None:
    loop.SECONDS = loop.TIMES = 0.0
    function(*arguments)


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(inputs, rows, to, phase, done) -> None:
    """Die when `phase` reports `done` ("last": the end of it)."""

    def progress(what, i, n):
        if (what, i) == (phase, n if done == "last" else done):
            die()

    fused(inputs, rows, to, SMALL, progress=progress)


def train_and_die_naming(inputs, rows, to, after) -> None:
    """Die just before or after the model gets its name."""
    real = os.rename

    def rename(source, target):
        if target == to and not after:
            die()
        real(source, target)
        if target == to:
            die()

    work.os.rename = rename
    fused(inputs, rows, to, SMALL)


def noisy(table: torch.Tensor, samples: list[list[int]], folder: Path, kill_at: int | None = None):
    """Twelve steps on a loss that draws numbers, as dropout does: (steps found done, weights, curve)."""
    student, seen = Bigram(table), []

    def loss(rows):
        if len(seen) == kill_at:
            die()
        seen.append(rows)
        found = batch_loss(student, [samples[r] for r in rows], None, 0.0)
        return {**found, "loss": found["loss"] * (1 + torch.rand(()))}

    schedule = loop.Schedule(12, 2, 0.01, 0.1, 0.1)
    gradients = loop.gradients_of(loss)
    begun = loop.optimize(
        student, gradients, len(samples), schedule, folder, seed=0, progress=lambda *_: None
    )
    return begun, student.state_dict(), (folder / loop.CURVE).read_text().splitlines()


def noisy_with_half_a_checkpoint(table: torch.Tensor, samples: list[list[int]], folder: Path) -> None:
    """Die while the fourth checkpoint is written."""
    save, calls = torch.save, []

    def half(state, file):
        calls.append(1)
        if len(calls) == 4:
            file.write(b"PK half of it")
            file.flush()
            die()
        save(state, file)

    torch.save = half
    noisy(table, samples, folder)
