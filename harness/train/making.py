"""Make one expert: check, train, merge. Imports torch."""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import json
import os
import shutil
from functools import cached_property
from pathlib import Path
from typing import Any

import psutil  # accelerate needs it
import torch

from harness.checkpoint import Checkpoint, adapters, sources, write
from harness.checkpoint.identity import GENERATION_FILE, TOKENIZER_FILES, present
from harness.checkpoint.read import EMBEDDING, HEAD
from harness.errors import HarnessError, nearest
from harness.measure import Meter
from harness.store import digest, write_text
from harness.train import copies, lora
from harness.train.experts import Screen, Step, named
from harness.train.loop import STATE
from harness.train.samples import Encoded, encode
from harness.train.work import CURVE

MODULES = ("lora", "loop", "models", "copies")  # whose code the bytes of a training follow from
LIBRARIES = ("torch", "transformers", "peft", "accelerate")
LOSSES = "loss.jsonl"
PER_PARAMETER = (
    24  # bytes on disk of a trained one: weight and AdamW's two moments, the old state and the new
)


class Making:
    """One expert on its way."""

    def __init__(self, step: Step, screen: Screen) -> None:
        self.step, self.train, self.screen = step, step.train, screen
        self.path, self.meter = step.folder.path, Meter()
        self.training, self.adapter = self.path / "training", self.path / lora.ADAPTER

    def check(self) -> None:
        """Tell what cannot work, before any work."""
        self._say(*sources.make(self.step.base))
        base = Checkpoint.open(self.step.base.path)
        shapes = self._shapes(base)
        trained = sum(self.train.r * sum(shape) for shape in shapes.values())
        if self._merged_from_adapter:
            return
        steps = self.train.steps(len(self.encoded.samples))
        if self.train.warmup_steps >= steps:
            raise self._error(
                f"warmup_steps is {self.train.warmup_steps}, and {len(self.encoded.samples)} rows in batches "
                f"of {self.train.batch_size} give {steps} steps",
                "lower `warmup_steps:` or `batch_size:`, or raise `epochs:`",
            )
        self._check_processes()
        self._check_disk(sum(info.nbytes for info in base.tensors.values()) + PER_PARAMETER * trained)
        self._check_memory(base, trained)

    def carry_out(self) -> None:
        """Train and merge; what an earlier start left is not done again."""
        with self.step.folder.working(self.step.recipe):
            if not self.step.ready:  # another process may have made it while this one waited
                record = self._trained()
                sources.complete(self.step.folder, self.path / "model", lambda to: self._merge(to, record))
            shutil.rmtree(self.training, ignore_errors=True)

    @cached_property
    def encoded(self) -> Encoded:
        with named(self.step.role):
            return encode(self.step.rows, self.train, self.step.base.path)

    @cached_property
    def targets(self) -> list[str]:
        if self.train.targets != "all-linear":
            return sorted(self.train.targets)
        return sorted({name.split(".")[-1] for name in self._shapes(Checkpoint.open(self.step.base.path))})

    @property
    def _merged_from_adapter(self) -> bool:
        """Whether only the merged weights are gone."""
        return self.step.folder.complete and self.adapter.is_dir()

    def _trained(self) -> dict[str, Any]:
        """What is to be recorded of the training, which is done if it was not."""
        if self._merged_from_adapter:
            self.screen.done("train", self.step.label, "rebuilt from its adapter")
            return self.step.folder.done()
        self._begin()
        what = f"{self.step.label} · {self.train.label}"
        self.screen.now("train", what)
        resumed = 0
        if not self.adapter.is_dir():
            self._say(*self.encoded.notes)
            with self.meter.phase("train"):
                if not (self.training / lora.ADAPTER).is_dir():
                    resumed = self._fit(lambda i, n: self.screen.now("train", what, i, n))
            shutil.copyfile(self.training / CURVE, self.path / LOSSES)
            os.rename(self.training / lora.ADAPTER, self.adapter)
        return self._record(resumed, what)

    def _begin(self) -> None:
        """A folder for the training; what is left of one by other code or libraries is deleted."""
        here = [Path(__file__).with_name(f"{name}.py") for name in MODULES]
        code = [hashlib.sha256(file.read_bytes()).hexdigest() for file in here]
        versions = [importlib.metadata.version(name) for name in LIBRARIES]
        key, file = digest([self.step.key, code, versions]), self.training / ".key"
        if not (file.is_file() and file.read_text("utf-8") == key):
            if (self.training / STATE).exists():
                self._say("the training under way was begun by other versions; it begins anew")
            for left in (self.training, self.adapter):
                shutil.rmtree(left, ignore_errors=True)
            self.training.mkdir(parents=True)
            write_text(file, key)

    def _fit(self, progress: Any) -> int:
        given = (self.step.base.path, self.train, self.targets, self.encoded.samples, self.training, progress)
        count = self.processes
        with named(self.step.role), copies.memory_told():
            found_done = copies.fit(*given, count) if count > 1 else lora.fit(*given)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return found_done

    @property
    def processes(self) -> int:
        if self.train.placement == "layers":
            return 1
        return self.train.processes or max(1, torch.cuda.device_count())

    def _record(self, resumed: int, what: str) -> dict[str, Any]:
        lines = [json.loads(line) for line in (self.path / LOSSES).read_text("utf-8").splitlines()]
        few = max(1, len(lines) // 10)
        first, last = (sum(line["loss"] for line in part) / few for part in (lines[:few], lines[-few:]))
        seconds = self.meter.record()["seconds"].get("train", 0.0)
        again = f" · {resumed} of them found done" if resumed else ""
        self.screen.done(
            "train", what, f"{len(lines)} steps{again} · loss {first:.3f} → {last:.3f} · {seconds:.1f} s"
        )
        facts = {"steps": len(lines), "resumed": resumed, "rows": len(self.encoded.samples)}
        facts |= {"first": first, "last": last, "processes": self.processes, "device": lora.default_device()}
        return {**facts, **self.encoded.facts, "notes": self.encoded.notes, "targets": self.targets}

    def _merge(self, to: Path, record: dict[str, Any]) -> dict[str, Any]:
        """Write the whole model into `to`; its record."""
        on = self.step.base.path
        with self.meter.phase("merge"):
            written = adapters.apply(self.adapter, on, to)
        for name in present(on, ("config.json", *TOKENIZER_FILES, GENERATION_FILE)):
            shutil.copyfile(on / name, to / name)
        for code in sorted(on.glob("*.py")):
            shutil.copyfile(code, to / code.name)
        if (on / "additional_chat_templates").is_dir():
            shutil.copytree(on / "additional_chat_templates", to / "additional_chat_templates")
        return {**record, **self.meter.record(), **written}

    def _shapes(self, base: Checkpoint) -> dict[str, tuple[int, ...]]:
        """Modules that are adapted, and the shapes of their weights."""
        modules = {
            name.removesuffix(".weight"): info.shape
            for name, info in base.tensors.items()
            if name.endswith(".weight") and len(info.shape) == 2 and name != EMBEDDING
            and not (name == HEAD and (base.tied or self.train.targets == "all-linear"))
        }  # fmt: skip
        if self.train.targets == "all-linear":
            return modules
        found = {}
        for target in self.train.targets:
            fits = {name for name in modules if name == target or name.endswith(f".{target}")}
            if not fits:
                raise self._error(
                    f"`targets` names `{target}`, and {self.step.base.label} has no such module to adapt",
                    nearest(target, {name.split(".")[-1] for name in modules}),
                )
            found |= {name: modules[name] for name in fits}
        return found

    def _check_processes(self) -> None:
        wanted, here = self.train.processes or 1, torch.cuda.device_count()
        if 0 < here < wanted:
            raise self._error(
                f"`processes` is {wanted}, and this machine has {here} GPU{'s' * (here > 1)}",
                f"`processes: {here}`, or leave it out: one per GPU",
            )

    def _check_disk(self, nbytes: int) -> None:
        try:
            write.check_space(self.path, nbytes)
        except HarnessError as error:
            raise self._error(
                error.message, "free some space, or choose another disk with `--results DIR`"
            ) from error

    def _check_memory(self, base: Checkpoint, trained: int) -> None:
        """The weights, the factors, and their gradients and moments; activations come on top."""
        numel = sum(info.numel for info in base.tensors.values())
        needed = numel * (4 if self.train.dtype == "float32" else 2) + 16 * trained
        if not torch.cuda.is_available():
            free, where = psutil.virtual_memory().available, "this machine"
        elif self.train.placement == "layers":
            count = torch.cuda.device_count()
            free = sum(torch.cuda.mem_get_info(i)[0] for i in range(count))
            where = f"all {count} GPUs together"
        else:
            free, where = torch.cuda.mem_get_info()[0], "a GPU"
        if needed > free:
            raise self._error(
                f"training {self.step.base.label} takes {needed / 1e9:.1f} GB of memory and more, and "
                f"{where} has {free / 1e9:.1f} GB free",
                "`placement: layers` spreads the model over several GPUs, `dtype: bfloat16` halves it",
            )

    def _say(self, *notes: str) -> None:
        for note in notes:
            self.screen.note(f"expert {self.step.label}: {note}")

    def _error(self, message: str, hint: str | None) -> HarnessError:
        return HarnessError(f"expert `{self.step.role}`: {message}", hint)
