"""What mergekit registers: names, parameters, how many models a method takes.

`mergekit.json` holds mergekit's own definitions, written by `python -m harness.bridge.child --describe`, so
that planning and listing need not import it (and torch with it). With another version than the file's, the
installed one is asked.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.errors import HarnessError, nearest

FILE = Path(__file__).with_name("mergekit.json")
INSTALL = "pip install 'merge-harness[mergekit]'"


@dataclass(frozen=True)
class Parameter:
    """One parameter by mergekit's name. `scope` is `shared`, `input` (one value per model) or `non_base` (per
    model other than the base). `type` is `float`, `int`, `bool`, `str` or another annotation as text."""

    name: str
    type: str
    scope: str
    required: bool
    default: Any = None


@dataclass(frozen=True)
class Definition:
    """One method. `base` is mergekit's policy: `required`, `optional`, `ignored` or `forbidden`; `inputs` and
    `non_base` are the least and the largest number of models (None: no limit), the base included or not."""

    name: str
    title: str
    url: str
    base: str
    inputs: tuple[int, int | None]
    non_base: tuple[int | None, int | None]
    parameters: tuple[Parameter, ...]

    @property
    def label(self) -> str:
        return f"mergekit:{self.name}"

    @property
    def is_pair(self) -> bool:
        """Whether it goes from one model (mergekit's `base_model`) to another."""
        return self.base == "required" and self.inputs == (2, 2)


def installed() -> str:
    """mergekit's version. Raises `HarnessError` when it is not there; does not import it."""
    try:
        if importlib.util.find_spec("mergekit") is not None:
            return version("mergekit")
    except (PackageNotFoundError, ValueError):
        pass
    raise HarnessError("mergekit is not installed", INSTALL)


def names() -> list[str]:
    """The methods that the installed mergekit registers."""
    return sorted(_definitions(installed()))


def definition(name: str) -> Definition:
    """The method that mergekit calls `name`; `HarnessError` when there is none."""
    known = _definitions(installed())
    if name not in known:
        raise HarnessError(f"mergekit has no method `{name}`", nearest(name, known))
    return known[name]


@functools.cache
def _definitions(wanted: str) -> dict[str, Definition]:
    found = json.loads(FILE.read_text(encoding="utf-8"))
    if found["mergekit"] != wanted:
        found = _asked()
    return {name: _read(name, entry) for name, entry in found["methods"].items()}


def _read(name: str, entry: dict[str, Any]) -> Definition:
    parameters = tuple(Parameter(**parameter) for parameter in entry["parameters"])
    limits = {key: tuple(entry[key]) for key in ("inputs", "non_base")}
    return Definition(name, entry["title"], entry["url"], entry["base"], **limits, parameters=parameters)


def _asked() -> dict[str, Any]:
    """The definitions of the installed mergekit, from a child process."""
    from harness.bridge.merging import environment

    command = [sys.executable, "-m", "harness.bridge.child", "--describe"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise HarnessError(f"mergekit {installed()} cannot be asked for its methods: {last}", INSTALL)
    return json.loads(done.stdout)
