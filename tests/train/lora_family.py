"""A family whose safety expert is trained by a recipe, small enough for tests, and its killing."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from harness.family import load_family
from harness.store import Store
from harness.train import experts, loop, lora
from harness.train.recipe import Train

SMALL = {
    "base": "tiny/base",
    "data": "harness.families.tiny.data:calibration",
    "name": "task",
    "n": 24,
    "template": "none",
    "question": "{prompt}",
    "completion": "{completion}",
    "r": 4,
    "alpha": 8,
    "dropout": 0.1,
    "epochs": 2,
    "batch_size": 8,
    "micro_batch_size": 4,
    "learning_rate": 2e-3,
    "warmup_steps": 2,
    "dtype": "float32",
}


def family_with(**settings):
    """tiny-safety, its safety expert trained by SMALL with other `settings`."""
    family = load_family("tiny-safety")
    expert = family.experts["task"].model_copy(
        update={"model": None, "train": Train(**{**SMALL, **settings}), "label": "safety"}
    )
    return family.model_copy(update={"experts": {**family.experts, "task": expert}})


class Told:
    """A screen that remembers; `at(done)` is called at every step."""

    def __init__(self, at=lambda done: None) -> None:
        self.notes, self.results, self.steps, self.at = [], [], [], at

    def now(self, kind, what, done=0, total=0):
        if total:
            self.steps.append(done)
            self.at(done)

    def done(self, kind, what, result):
        self.results.append(result)

    def note(self, text):
        self.notes.append(text)

    def title(self, text):
        pass


def made(results: Path, screen=None, **settings):
    """Train in `results`: the family, and the step."""
    family, store = family_with(**settings), Store(results, "tiny")
    found = experts.make(family, store, screen or Told())
    return found, experts.steps(family, store)[0]


def content(folder: Path) -> dict[str, bytes]:
    """All that a finished expert holds, but for what tells of seconds and memory."""
    files = {str(f.relative_to(folder)): f for f in sorted(folder.rglob("*")) if f.is_file()}
    return {name: f.read_bytes() for name, f in files.items() if name not in ("done.json", ".lock")}


def die(*_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train_until(results: Path, step: int, processes: int = 1) -> None:
    """Die when so many steps are done."""
    made(results, Told(lambda done: done == step and die()), processes=processes)


def die_at(results: Path, where: str) -> None:
    """Die at a moment between the last step and the end: see the names below."""
    real, save = os.rename, lora._save

    def rename(source, target):
        after = {"adapter": "adapter", "model": "model"}.get(where)
        real(source, target)
        if after and Path(target).name == after and Path(target).parent.name.startswith("task--"):
            die()

    def merge(*given):
        (Path(given[2]) / "model.safetensors").write_bytes(b"half of it")
        die()

    if where == "saved":
        lora._save = lambda *given: (save(*given), die())
    elif where == "merging":
        from harness.train import making

        making.adapters.apply = merge
    os.rename = rename
    made(results)


def half_a_checkpoint(results: Path) -> None:
    """Die while the third checkpoint is written."""
    save, calls = loop.torch.save, []

    def half(state, file):
        calls.append(1)
        if len(calls) == 3:
            file.write(b"PK half of it")
            file.flush()
            die()
        save(state, file)

    loop.torch.save = half
    made(results)
