"""torch's elementwise functions on a CPU, before threads may call them.

oneMKL's VML finds the kernel of a function at its first call. Two threads of one first call can meet there,
and one of them computes its part of the tensor with a kernel of a few digits (PyTorch issue 188792; seen
with torch 2.13: cosines off by 1.5e-4, and so a rotary table, a gradient or a score of that process is not
the next one's). One element is one thread: after such a call of every function none is a first one.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

FUNCTIONS = ("acos", "asin", "atan", "cos", "erf", "erfc", "erfinv", "exp", "log", "log10", "log2", "sin",
             "sqrt", "tan", "tanh", "trunc")  # fmt: skip


def settle(torch: Any) -> None:
    """Call every function that torch leaves to VML, on one element of each dtype that VML knows."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in FUNCTIONS:
            getattr(torch, name)(one)


class _Torch(importlib.abc.MetaPathFinder):
    """Whoever imports torch, it is settled when the import ends."""

    def find_spec(self, name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "torch":
            return None
        others = [one for one in sys.meta_path if one is not self and hasattr(one, "find_spec")]
        spec = next(filter(None, (finder.find_spec(name, path, target) for finder in others)), None)
        if spec and spec.loader:
            execute = spec.loader.exec_module

            def execute_and_settle(module: ModuleType) -> None:
                execute(module)
                settle(module)

            spec.loader.exec_module = execute_and_settle  # type: ignore[method-assign]
        return spec


def watch() -> None:
    """Settle torch as soon as this process imports it: now, if it has."""
    if "torch" in sys.modules:
        settle(sys.modules["torch"])
    elif not any(isinstance(finder, _Torch) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Torch())
