"""What a worker is told: what was asked, as plain data, and whether it means the same on its node."""

from __future__ import annotations

import hashlib
import os
import platform
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from harness import registry
from harness.errors import HarnessError
from harness.family import Family
from harness.plan import Plan
from harness.planner import make_plan
from harness.recipe import file_of, key, made_with
from harness.store import Store

# Settings of the user's shell that workers take over; what may be a secret stays where it is.
PREFIXES, SECRET = ("HARNESS_", "HF_", "TRANSFORMERS_"), ("TOKEN", "KEY", "SECRET", "PASSWORD")
SUFFIXES = {".py", ".yaml", ".json", ".safetensors", ".jinja"}


@dataclass(frozen=True)
class Order:
    """`family` is the family as JSON (pinned, its experts trained), `wanted` keywords of `make_plan`,
    `results` and `folder` the store's parent and the working folder, `files` plugin files by path with their
    sha256, `steps` the key of every step by its folder in the store."""

    family: str
    wanted: dict[str, Any]
    results: str
    folder: str
    files: dict[str, str]
    steps: dict[str, str]
    environment: dict[str, str]

    @property
    def mark(self) -> str:
        """Equal for equal orders."""
        return hashlib.sha256(repr(self).encode()).hexdigest()


def order_of(plan: Plan, wanted: Mapping[str, Any]) -> Order:
    """What must be known elsewhere to make `plan` again; `wanted` are the keywords it was made with."""
    family = plan.family
    if (folder := family.folder.resolve()).is_relative_to(registry.PACKAGE):  # it may be elsewhere on a node
        folder = Path("harness:") / folder.relative_to(registry.PACKAGE)
    return Order(
        family=family.model_copy(update={"folder": folder}).model_dump_json(),
        wanted={k: list(v) if isinstance(v, Sequence) and not isinstance(v, str) else v
                for k, v in wanted.items()},
        results=str(plan.store.root.resolve().parent),
        folder=os.getcwd(),
        files={str(path): _sha256(path) for path in sorted(set(_plugins(plan)))},
        steps={name: key(step.recipe) for name, step in plan.named().items()},
        environment=_environment(),
    )  # fmt: skip


def made_again(order: Order) -> Plan:
    """The plan of an order, on this node. HarnessError where it is not the one that the driver has."""
    os.environ.update(order.environment)
    if Path(order.folder).is_dir():  # only files in it need it, and these are looked at by themselves
        os.chdir(order.folder)
    if lacking := lacks(order.files):
        raise HarnessError(*lacking)
    family = Family.model_validate_json(order.family)
    if family.folder.parts[:1] == ("harness:",):
        folder = registry.PACKAGE.joinpath(*family.folder.parts[1:])
        family = family.model_copy(update={"folder": folder})
    plan = make_plan(family, Store(Path(order.results), family.name), **order.wanted)
    found = {name: key(step.recipe) for name, step in plan.named().items()}
    for name in sorted({*found, *order.steps}):
        if found.get(name) != order.steps.get(name):
            raise HarnessError(
                f"step `{name}` is {_short(order.steps.get(name))} where the run was started and "
                f"{_short(found.get(name))} on node {platform.node()}",
                "models, data, tasks and methods must be the same files for every node",
            )
    return plan


def lacks(files: Mapping[str, str]) -> tuple[str, str] | None:
    """Fact and hint about the first of `files` that is not here as it should be; None where all are."""
    for path, mark in files.items():
        try:
            found = _sha256(Path(path))
        except OSError as error:
            found = error.strerror or str(error)
        if found != mark:
            why = "has another content" if len(found) == 64 else f"cannot be read: {found}"
            where = "keep your methods, tasks and families on the file system that all nodes share"
            return f"{path} {why} on node {platform.node()}", where
    return None


@lru_cache
def software() -> dict[str, str]:
    """What must be the same everywhere: our code (sha256), Python, and what changes a number."""
    found = hashlib.sha256()
    roots = {registry.PACKAGE, *(registry.BUILT_IN / name for name in ("methods", "tasks", "reports"))}
    for root in sorted(roots):
        for file in sorted(f for f in root.rglob("*") if f.suffix in SUFFIXES and f.is_file()):
            if root == registry.PACKAGE and "builtin" in file.parts:
                continue
            found.update(f"{file.relative_to(root)}\0".encode() + file.read_bytes())
    versions = {name: str(value) for name, value in made_with().items() if name != "host"}
    return {"harness's code": found.hexdigest()[:12], **versions}


def _plugins(plan: Plan) -> Iterator[Path]:
    """Files of methods and tasks that did not come with the harness or another installed package."""
    found = [file_of(type(row.method)) for row in plan.rows if row.is_merge]
    found += [path for task in plan.tasks for path in (task.path, *(m.path for m in task.members))]
    installed = [registry.PACKAGE, registry.BUILT_IN / "methods", registry.BUILT_IN / "tasks"]
    installed += [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")]
    for path in (Path(path).resolve() for path in found):
        if not any(path.is_relative_to(root.resolve()) for root in installed):
            yield path


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith(PREFIXES) and not any(part in name for part in SECRET)
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _short(mark: str | None) -> str:
    return mark[:8] if mark else "not there"
