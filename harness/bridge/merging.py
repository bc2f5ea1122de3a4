"""A mergekit merge into a checkpoint folder that equals any other merge's.

Work is done in a private folder beside the wanted one: views of the inputs (links, and the base's config for
all, so that nothing depends on which model mergekit takes a config from), the child's log, the new weights. A
merge that was killed starts over; one that failed leaves its log there.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

import harness
from harness.bridge.definitions import Definition, installed
from harness.bridge.settings import configuration
from harness.checkpoint import Checkpoint, TensorInfo, fit, folder, write
from harness.checkpoint.part import Part
from harness.checkpoint.read import FLOATS
from harness.errors import HarnessError
from harness.store import digest, reachable, write_text

CONFIG = "mergekit_config.yml"
LOG = "mergekit.log"
SEEDS = 2**32  # numpy takes no others


def build(method: Any, definition: Definition, context: Any) -> dict[str, Any]:
    """Merge `context.inputs` with mergekit into `context.job.to`; the record of it.

    float32 arithmetic, stored in the base's dtype (or `job.dtype`); seeded with `job.seed`. Raises
    `HarnessError` when mergekit fails (with the last lines it printed), or computes NaN or infinity.
    """
    work = _Work(method, definition, context.inputs, context.job)
    if (record := work.finished()) is not None:
        return record
    context.progress("mergekit", 0, 1)
    with reachable(work.part), work.held():
        record = work.carry_out()
    context.progress("mergekit", 1, 1)
    return record


def environment() -> dict[str, str]:
    """The child's environment: this package importable, the hub unreachable, sets in one order (mergekit
    draws its random numbers in an order that follows from them)."""
    package = str(Path(harness.__file__).resolve().parent.parent)
    path = os.pathsep.join([package, *filter(None, [os.environ.get("PYTHONPATH")])])
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    # Idle OpenMP threads spin by default, which on busy cores costs ten times the work itself.
    calm = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "0", "KMP_BLOCKTIME": "0"}
    fixed = {"PYTHONHASHSEED": "0", "TQDM_DISABLE": "1", "PYTHONPATH": path}
    return {**calm, **os.environ, **offline, **fixed}


def launch(part: Path) -> int:
    """Run the child in the private folder; its exit code. It ends when this process does."""
    command = [sys.executable, "-m", "harness.bridge.child", "spec.json"]
    with (part / LOG).open("wb") as log:
        child = subprocess.Popen(
            command,
            cwd=part,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C reaches this process, which then ends the child
            env=environment(),
        )
    try:
        return child.wait()
    finally:
        child.kill()
        child.wait()
        child.stdin.close()


class _Work:
    """One merge under way."""

    def __init__(self, method: Any, definition: Definition, inputs: Any, job: Any) -> None:
        self.definition, self.inputs, self.job = definition, inputs, job
        self.to = Path(job.to).absolute()
        self.warnings: list[str] = []
        self.tensors = fit.outputs(inputs.base)
        self.dtype = self._dtype()
        self.names = _names(inputs.experts)
        config = configuration(method, definition, tuple(inputs.experts), FLOATS[self.dtype])
        self.config = _renamed(config, self.names)
        self._check()
        self._work = Part(self.to, self._key(method))
        self.part = self._work.path
        self.model = self.part / "model"

    def finished(self) -> dict[str, Any] | None:
        """The record of an earlier merge of exactly this; refuses a folder that holds something else."""
        record = None if self._work.vacant() else self._work.earlier()
        if record is None and not (self._work.vacant() or self.job.replace):
            raise self._work.occupied()
        return record

    def carry_out(self) -> dict[str, Any]:
        """Merge, unless another process has done it just before the folder was held."""
        done = False
        try:
            if (record := self.finished()) is None:
                self._prepare()
                self._run()
                record = self._complete()
            done = True
        finally:
            if not done and (self.part / LOG).is_file():
                self._work.clear(LOG)
            else:
                self._work.discard()
        return record

    @contextlib.contextmanager
    def held(self) -> Any:
        """Keep other processes out of the private folder."""
        self._work.lock()
        try:
            yield
        finally:
            self._work.unlock()

    def _dtype(self) -> str:
        """The stored dtype as the format's code; a base of several gives the most frequent, and a warning."""
        codes = {name: code for code, name in FLOATS.items()}
        if self.job.dtype is not None:
            if self.job.dtype not in codes:
                raise HarnessError(
                    f"the output dtype is `{self.job.dtype}`", "one of " + ", ".join(f"`{c}`" for c in codes)
                )
            return codes[self.job.dtype]
        held = [info.dtype for info in self.tensors.values()]
        floats = sorted(set(held) & set(FLOATS), key=held.count)
        if not floats:
            raise HarnessError(f"the base has no tensor of a dtype that can be merged ({held[0]})", "")
        if len(floats) > 1:
            self.warnings.append(
                f"{self.definition.label}: the base holds {', '.join(floats)}; "
                f"mergekit stores all as {floats[-1]}"
            )
        return floats[-1]

    def _check(self) -> None:
        named = self.inputs.base.config.get("architectures")
        if not isinstance(named, list) or len(named) != 1:
            raise HarnessError(
                f"the base's config.json has architectures {named!r}",
                "mergekit needs exactly one to be named",
            )
        if not 0 <= self.job.seed < SEEDS:
            raise HarnessError(f"the seed is {self.job.seed}", f"mergekit takes 0 <= seed < {SEEDS}")

    def _key(self, method: Any) -> str:
        models = {"base": self.inputs.base, **self.inputs.experts}
        return digest(
            {
                "models": {role: [_stat(file) for file in model.files] for role, model in models.items()},
                "donor": str(self.inputs.donor),
                "config": self.config,
                "method": {f.name: getattr(method, f.name) for f in dataclasses.fields(method)},
                "seed": self.job.seed,
                "mergekit": installed(),
                "harness": harness.__version__,
            }
        )

    def _prepare(self) -> None:
        """An empty private folder with views of the inputs, and the child's orders."""
        self._work.clear()
        size = {"F32": 4}.get(self.dtype, 2)
        write.check_space(self.part, sum(info.numel * size for info in self.tensors.values()))
        self._view("base", self.tensors)
        for role, expert in self.inputs.experts.items():
            self._view(self.names[role], fit.matched(self.inputs.base, expert, role))
        spec = {"config": self.config, "seed": self.job.seed, "threads": _threads(), "to": self.model.name}
        write_text(self.part / "spec.json", json.dumps(spec))

    def _view(self, name: str, tensors: Mapping[str, TensorInfo]) -> None:
        """A model folder of links. Its index names what is merged, and hides a copy of a tied head."""
        view = self.part / name
        view.mkdir()
        for file in {info.file for info in tensors.values()}:
            (view / file.name).symlink_to(file.resolve())
        places = {info.name: info.file.name for info in tensors.values()}
        write_text(view / "model.safetensors.index.json", json.dumps({"metadata": {}, "weight_map": places}))
        config = {key: value for key, value in self.inputs.base.config.items() if key != "auto_map"}
        write_text(view / "config.json", json.dumps(config))

    def _run(self) -> None:
        if code := launch(self.part):
            raise HarnessError(
                f"mergekit's `{self.definition.name}` failed (exit code {code}): {_last(self.part / LOG)}",
                f"its log: {self.part / LOG}",
            )

    def _complete(self) -> dict[str, Any]:
        """What mergekit wrote, checked, completed as every merge is, under its final name."""
        for entry in self.model.iterdir():
            if ".safetensors" not in entry.name:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        made = Checkpoint.open(self.model)
        for file in made.files:
            file.chmod(0o644)  # like every other file: safetensors' writer makes it private
        self._compare(made)
        version = installed()
        text = yaml.safe_dump(self.config, sort_keys=False, allow_unicode=True)
        write_text(self.model / CONFIG, text)
        shutil.copyfile(self.part / LOG, self.model / LOG)
        recipe = {**self.job.recipe, "mergekit": version, "mergekit_config": self.config}
        base, experts, donor = self.inputs.base, self.inputs.experts, Path(self.inputs.donor)
        dtypes = [info.dtype for info in made.tensors.values()]
        self.warnings += folder.complete(
            self.model, base, experts, donor, dtypes, self.definition.label, recipe
        )
        peak = json.loads((self.part / "result.json").read_text("utf-8"))["peak_mib"]
        record = {"mergekit": version, "mergekit_peak_mib": peak, "warnings": self.warnings}
        self._work.mark(self.model, record)
        if self.to.exists() and self.job.replace:
            shutil.rmtree(self.to)
        os.rename(self.model, self.to)
        return record

    def _compare(self, made: Checkpoint) -> None:
        """mergekit must have written the tensors that every merge of these models has."""
        wanted = {n: (i.shape, self.dtype if i.dtype in FLOATS else i.dtype) for n, i in self.tensors.items()}
        found = {name: (info.shape, info.dtype) for name, info in made.tensors.items()}
        wrong = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
        if wrong:
            raise HarnessError(
                f"mergekit wrote {len(wrong)} tensors unlike the base's, such as `{wrong[0]}`: "
                f"{found.get(wrong[0])} for {wanted.get(wrong[0])}",
                "mergekit's definition of this architecture does not fit the checkpoint",
            )


def _names(roles: Mapping[str, Any]) -> dict[str, str]:
    """role -> a folder name that mergekit does not read as a revision (`@`) or an adapter (`+`)."""
    plain = all(re.fullmatch(r"\w[\w-]*", role) for role in roles) and "model" not in roles
    return {role: role if plain else f"expert{i}" for i, role in enumerate(roles, 1)}


def _renamed(config: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The configuration with folder names for roles."""
    models = [{**entry, "model": names.get(entry["model"], entry["model"])} for entry in config["models"]]
    base = (
        {"base_model": names.get(config["base_model"], config["base_model"])}
        if "base_model" in config
        else {}
    )
    return {**config, **base, "models": models}


def _stat(file: Path) -> list[Any]:
    stat = file.stat()
    return [str(file.resolve()), stat.st_size, stat.st_mtime_ns]


def _threads() -> int:
    return min(16, len(os.sched_getaffinity(0)))


def _last(log: Path, count: int = 3) -> str:
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line.strip() for line in text.splitlines() if line.strip(" ^~")]
    return " | ".join(lines[-count:]) or "it said nothing"
