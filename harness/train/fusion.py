"""FuseLLM: one teacher in memory at a time, then the student alone. Imports torch."""

from __future__ import annotations

import dataclasses
import gc
import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import nll_loss

from harness import __version__
from harness.checkpoint import Checkpoint, folder, write
from harness.checkpoint.pretrained import load_model, threads_for
from harness.measure import Meter
from harness.store import digest, reachable
from harness.train import models, teachers, written
from harness.train.loop import STATE, Schedule, gradients_of, optimize
from harness.train.work import CURVE, Work

MODULES = ("fusion", "loop", "models", "teachers", "work", "written")  # whose code the bytes follow from
IGNORED = -100  # label of a position that carries no loss
PER_PARAMETER = 12  # bytes of a checkpoint: weights and AdamW's two moments in float32


def run(context: Any, settings: Any) -> dict[str, Any]:
    """See `harness.train.fuse`."""
    job = context.job
    work = Work(job.to, _key(context, settings), job.replace)
    if (record := work.finished) is not None:
        work.sweep()
        return record
    with reachable(work.part), work:
        return _Fusion(context, settings, work).carry_out()


class _Fusion:
    """One training, phase by phase; what a phase leaves on disk is not done again."""

    def __init__(self, context: Any, settings: Any, work: Work) -> None:
        self.inputs, self.job, self.progress = context.inputs, context.job, context.progress
        self.settings, self.work, self.meter = settings, work, Meter()
        self.device = getattr(context, "device", "cpu")
        self.dtype = getattr(torch, settings.dtype)
        self.samples = self._encoded(context.rows)
        self.sources = self._sources()

    def carry_out(self) -> dict[str, Any]:
        out = written.layout(self.work.model, self.inputs.base, self.job.dtype)
        self._check_space(out)
        with self.meter.phase("teachers"):
            for index, (name, path) in enumerate(self.sources.items()):
                self._teach(f"teacher {name}", path, self.work.training / f"teacher-{index}")
        with self.meter.phase("train"):
            targets = self._targets()
            student, resumed = self._train(targets)
        with self.meter.phase("write"):
            facts = self._write(student, out)
        record = {**self.meter.record(), "resumed": resumed, **self._facts(targets), **facts}
        self.work.finish(record)
        return record

    def _encoded(self, rows: Mapping[str, Sequence[Mapping[str, str]]]) -> list[list[int]]:
        """The rows of all roles in the base's tokens, once all experts are known to share them."""
        tokenizer = models.load_tokenizer(self.inputs.base.path)
        experts = {role: models.load_tokenizer(model.path) for role, model in self.inputs.experts.items()}
        models.check_same_vocabulary(tokenizer, experts)
        limit = self.settings.max_tokens
        return [ids for role in rows for ids in models.encode(tokenizer, rows[role], limit, role)]

    def _sources(self) -> dict[str, Path]:
        """The models whose distributions are fused; none where they would weigh nothing."""
        if not (self.settings.steps and self.settings.fuse_weight):
            return {}
        found = {role: model.path for role, model in self.inputs.experts.items()}
        if self.settings.sources == "experts_and_base":
            found = {"base": self.inputs.base.path, **found}
        return found

    def _check_space(self, out: write.Layout) -> None:
        numel = sum(info.numel for info in out.tensors.values())
        missing = [i for i in range(len(self.sources)) if not (self.work.training / f"teacher-{i}").exists()]
        predictions = len(missing) * teachers.nbytes(self.samples, self.settings.top_k)
        copies = 1 if (self.work.training / STATE).exists() else 2  # the new state is written beside the old
        write.check_space(self.work.part, out.nbytes + copies * numel * PER_PARAMETER + predictions)

    def _teach(self, what: str, path: Path, to: Path) -> None:
        if to.exists():
            return
        model = load_model(path, self.dtype).to(self.device).eval()
        with threads_for(model.num_parameters()):
            teachers.predict(
                model,
                self.samples,
                to,
                top_k=self.settings.top_k,
                batch_size=self.settings.batch_size,
                device=self.device,
                progress=lambda i, n: self.progress(what, i, n),
            )
        del model
        _free()

    def _targets(self) -> teachers.Targets | None:
        folders = [self.work.training / f"teacher-{index}" for index in range(len(self.sources))]
        return teachers.Targets(folders, self.samples, self.settings.fusion) if folders else None

    def _train(self, targets: teachers.Targets | None) -> tuple[torch.nn.Module, int]:
        s = self.settings
        student = load_model(self.inputs.base.path, torch.float32).to(self.device)
        written.check_names(student.state_dict(), self.inputs.base)
        schedule = Schedule(s.steps, s.batch_size, s.learning_rate, s.warmup, s.weight_decay)

        def loss(rows: list[int]) -> dict[str, Tensor]:
            target = targets.batch(rows, self.device) if targets else None
            with torch.autocast(student.device.type, self.dtype, enabled=self.dtype != torch.float32):
                return batch_loss(student, [self.samples[row] for row in rows], target, s.fuse_weight)

        with threads_for(student.num_parameters()):
            resumed = optimize(
                student,
                gradients_of(loss),
                len(self.samples),
                schedule,
                self.work.training,
                seed=self.job.seed,
                progress=lambda i, n: self.progress("train", i, n),
            )
        return student, resumed

    def _write(self, student: torch.nn.Module, out: write.Layout) -> dict[str, Any]:
        shutil.rmtree(self.work.model, ignore_errors=True)
        self.work.model.mkdir()
        rounded = written.write_weights(
            student.state_dict(), self.inputs.base, out, lambda i, n: self.progress("write", i, n)
        )
        warnings = folder.complete(
            self.work.model,
            self.inputs.base,
            self.inputs.experts,
            Path(self.inputs.donor),
            [info.dtype for info in out.tensors.values()],
            type(self.job.method).method_name,
            self.job.recipe,
        )
        if rounded > 0.5:
            name = type(self.job.method).title
            warnings.append(
                f"{name}: {rounded:.0%} of the trained elements are stored as the base has them, since the "
                f"stored dtype cannot hold so small a change; raise learning_rate or steps"
            )
        return {"rounded_away": rounded, "warnings": warnings}

    def _facts(self, targets: teachers.Targets | None) -> dict[str, Any]:
        lines = [json.loads(line) for line in (self.work.training / CURVE).read_text("utf-8").splitlines()]
        few = max(1, len(lines) // 10)
        tokens = sum(len(sample) - 1 for sample in self.samples)
        facts: dict[str, Any] = {"steps": len(lines), "rows": len(self.samples), "tokens": tokens}
        facts |= {"first": _mean(lines[:few]), "last": _mean(lines[-few:])}
        if targets is not None:
            facts["ce"] = dict(zip(self.sources, targets.ce.mean(1).tolist(), strict=True))
            if self.settings.fusion == "min_ce":
                counts = (targets.weights == 1).sum(1).tolist()
                facts["chosen"] = dict(zip(self.sources, counts, strict=True))
        return facts


def batch_loss(
    student: torch.nn.Module,
    samples: Sequence[Sequence[int]],
    target: tuple[Tensor, Tensor] | None,
    weight: float,
) -> dict[str, Tensor]:
    """`loss` = (1 - weight) `lm` + weight `fused`, each the mean over the batch's predicted tokens, in nats.

    `target` is what `Targets.batch` gives for the rows `samples`; without one `loss` is `lm`.
    """
    tokens, mask = models.padded(samples, student.device)
    logits = student(input_ids=tokens, attention_mask=mask, use_cache=False).logits
    predicted = logits[:, :-1].float().log_softmax(-1)
    labels = tokens[:, 1:].masked_fill(mask[:, 1:] == 0, IGNORED)
    lm = nll_loss(predicted.flatten(0, 1), labels.flatten(), ignore_index=IGNORED)
    if target is None:
        return {"loss": lm, "lm": lm}
    fused = teachers.fused_loss(predicted, *target) / mask[:, 1:].sum()
    return {"loss": (1 - weight) * lm + weight * fused, "lm": lm, "fused": fused}


def _mean(lines: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = [name for name in ("loss", "lm", "fused") if lines and name in lines[0]]
    return {name: sum(line[name] for line in lines) / len(lines) for name in names}


def _key(context: Any, settings: Any) -> str:
    """Hash of all that the trained bytes follow from. Files count by path, size and time of change."""
    inputs, job = context.inputs, context.job
    here = [Path(__file__).with_name(f"{name}.py") for name in MODULES]
    return digest(
        {
            "base": _stat(inputs.base),
            "experts": [[role, _stat(model)] for role, model in inputs.experts.items()],
            "donor": str(inputs.donor),
            "method": type(job.method).method_name,
            "settings": dataclasses.asdict(settings),
            "rows": [[role, rows] for role, rows in context.rows.items()],
            "seed": job.seed,
            "dtype": job.dtype,
            "code": [hashlib.sha256(file.read_bytes()).hexdigest() for file in here],
            "versions": [__version__, torch.__version__],
        }
    )


def _stat(model: Checkpoint) -> list[list[Any]]:
    files = [*model.files, *sorted(model.path.glob("tokenizer*"))]
    stats = [(file, file.stat()) for file in files]
    return [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
