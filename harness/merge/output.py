"""One output: a private folder beside the wanted one, that takes its name when everything is in it.

A journal names the tensors that are written, so a killed merge goes on at the first missing one. What a merge
is made of is hashed into a key; work under another key is thrown away. Finished weights are not flushed to
the disk: they survive the death of any process, not a power failure (after a reboot nothing is resumed)."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness import __version__, masking, ops, selection, signs
from harness.checkpoint import fit, folder, write
from harness.checkpoint.part import Part
from harness.checkpoint.read import FLOATS, Checkpoint, TensorInfo
from harness.errors import HarnessError
from harness.merge import fused
from harness.merge.memory import Passing
from harness.store import digest, reachable, write_text

ARITHMETIC = [  # what methods compute with
    *(Path(module.__file__) for module in (ops, masking, signs, selection)),
    *sorted(Path(fused.__file__).parent.glob("*.py")),
]
CODES = {name: code for code, name in FLOATS.items()}


class Output:
    """The files of one job. `open` makes or resumes them, `write` and `written` fill them, `finish` completes
    them."""

    def __init__(self, inputs: Any, job: Any, shard_bytes: int) -> None:
        self.inputs, self.job = inputs, job
        self.to = Path(job.to)
        self.tensors = {
            name: (_stored_dtype(info, job.dtype), info.shape)
            for name, info in fit.outputs(inputs.base).items()
        }
        self._work = Part(self.to, _key(inputs, job, self.tensors, shard_bytes))
        self.part = self._work.path
        self.layout = write.plan(self.part, self.tensors, shard_bytes)
        self.files = write.Files(self.layout)
        self.done: set[str] = set()
        self.facts: dict[str, Any] = {}  # what is known of a tensor in `done`: its figures of `masks.json`
        self.passing: Passing | None = None  # where the outputs are too many for the page cache
        self._journal: int | None = None
        self._again = False
        self._guard = threading.Lock()

    @property
    def finished(self) -> dict[str, Any] | None:
        """The record of an earlier merge of exactly this; None if there is none. Refuses other content of
        `to`."""
        if self._work.vacant():
            return None
        record = self._work.earlier()
        if record is not None and all((self.to / file.name).is_file() for file in self.layout.headers):
            if self.job.masks is None or Path(self.job.masks).is_file():
                return record
            self._again = True  # the figures can only be had by merging
            return None
        if not self.job.replace:
            raise self._work.occupied()
        return None

    @property
    def missing_bytes(self) -> int:
        """Bytes of disk that `open` will take."""
        return 0 if self._resumable() else self.layout.nbytes

    def open(self) -> dict[str, Any] | None:
        """Hold the private folder and the files in it. Where another process has made exactly this since
        `finished` was asked, its record is returned, and nothing is held."""
        with reachable(self.part):
            self._work.lock()
            if (record := self.finished) is not None:
                self.discard()
                return record
            if self._resumable():
                self.facts = self._journalled()
                self.done = set(self.facts)
                lines = "".join(_line(name, self.facts[name]) for name in sorted(self.done))
                write_text(self.part / ".journal", lines)
            else:
                self._start()
            self.files.open()
            self._journal = os.open(self.part / ".journal", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return None

    def write(self, name: str, offset: int, data: memoryview) -> None:
        self.files.write(name, offset, data)

    def written(self, name: str, facts: Any = None) -> None:
        """All bytes of tensor `name` are in the file; `facts` (JSON) outlive a kill."""
        with self._guard:
            self.done.add(name)
            self.facts[name] = facts
            os.write(self._journal, _line(name, facts).encode())
            if self.passing:
                self.passing.written(self.layout.tensors[name])

    def finish(self, record: Mapping[str, Any], masks: str | None = None) -> list[str]:
        """Add index, config, tokenizer and card, and give the folder its name. `masks` is the text of
        `job.masks`. Returns warnings."""
        if self.done != set(self.tensors):
            raise RuntimeError(f"{len(self.tensors) - len(self.done)} tensors of {self.to} are not written")
        method = type(self.job.method).method_name
        with reachable(self.part):
            if index := write.index(self.layout):
                write_text(self.part / "model.safetensors.index.json", index)
            dtypes = [dtype for dtype, _ in self.tensors.values()]
            warnings = folder.complete(
                self.part,
                self.inputs.base,
                self.inputs.experts,
                Path(self.inputs.donor),
                dtypes,
                method,
                self.job.recipe,
            )
            record = {**record, "warnings": [*record["warnings"], *warnings]}
            if masks is not None:
                write_text(self._masks(), masks)
            self._work.mark(self.part, record)
            self._close_files()
            if self.to.exists() and (self.job.replace or self._again):
                shutil.rmtree(self.to)
            os.rename(self.part, self.to)
            for name in (".journal", ".key"):  # not before: until the rename the work can be resumed
                (self.to / name).unlink(missing_ok=True)
            self._work.named()
        return warnings

    def close(self) -> None:
        """Let go of files and folder; what is unfinished can be resumed."""
        self._close_files()
        self._work.unlock()

    def discard(self) -> None:
        """Delete unfinished work that can never be finished, if this object holds it."""
        self._close_files()
        self._work.discard()

    def _close_files(self) -> None:
        self.files.close()
        if self.passing:
            self.passing.close()
        if self._journal is not None:
            os.close(self._journal)
        self._journal = None

    def _start(self) -> None:
        self._work.clear()
        try:
            self.files.create()
            self._work.begin(_boot())
        except OSError:
            self.discard()  # no weight is lost, and a full disk gets its room back
            raise

    def _resumable(self) -> bool:
        try:
            return self._work.resumable(_boot()) and all(
                file.stat().st_size == size for file, size in self.layout.sizes.items()
            )
        except OSError:
            return False

    def _masks(self) -> Path:
        """Where the figures are written: what goes into `to` is in the private folder until then."""
        file, to = Path(self.job.masks).absolute(), self.to.absolute()
        file = self.part / file.relative_to(to) if to in file.parents else file
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def _journalled(self) -> dict[str, Any]:
        """name -> facts, from whole lines; the kill may have cut the last one. A tensor that was written
        without the figures that are wanted now is not done."""
        try:
            lines = (self.part / ".journal").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return {}
        entries = [json.loads(line) for line in lines]
        facts = dict(entry for entry in entries if isinstance(entry, list))
        wanted = self.job.masks is not None
        return {n: f for n, f in facts.items() if n in self.tensors and not (wanted and f is None)}


def _line(name: str, facts: Any) -> str:
    return json.dumps([name, facts]) + "\n"


def _stored_dtype(info: TensorInfo, dtype: str | None) -> str:
    if dtype is not None and dtype not in CODES:
        raise HarnessError(
            f"the output dtype is `{dtype}`", "one of " + ", ".join(f"`{name}`" for name in CODES)
        )
    return info.dtype if dtype is None or info.dtype not in FLOATS else CODES[dtype]


def _key(inputs: Any, job: Any, tensors: Mapping[str, tuple], shard_bytes: int) -> str:
    """Hash of all that the written bytes follow from. Files count by path, size and time of change."""
    method = type(job.method)
    parameters = {f.name: getattr(job.method, f.name) for f in dataclasses.fields(job.method)}
    try:
        code = hashlib.sha256(Path(inspect.getfile(method)).read_bytes()).hexdigest()
    except (OSError, TypeError):  # a class made at a prompt has no file: nothing to resume against
        code = os.urandom(8).hex()
    models = {
        "base": inputs.base,
        **{f"expert {role}": model for role, model in inputs.experts.items()},
        **{f"score {key}": model for key, model in job.scores.items()},
    }
    return digest(
        {
            "models": {name: _stat(model) for name, model in models.items()},
            "roles": list(inputs.experts),
            "donor": str(inputs.donor),
            "method": method.method_name,
            "parameters": parameters,
            "code": code,
            "ops": [hashlib.sha256(file.read_bytes()).hexdigest() for file in ARITHMETIC],
            "seed": job.seed,
            "tensors": tensors,
            "shard_bytes": shard_bytes,
            "harness": __version__,
        }
    )


def _stat(model: Checkpoint) -> list[list[Any]]:
    stats = [(file, file.stat()) for file in model.files]
    return [[str(file.resolve()), stat.st_size, stat.st_mtime_ns] for file, stat in stats]


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return ""
