"""Importing the large libraries: once, in one thread, and no more of them than is used."""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

UNUSED = "sklearn"  # and so scipy and pandas (a second): transformers wants it for assisted generation
EVALUATION = "harness.evaluate.measure"  # of a process that feeds engines and scores
REPORTS = ("scipy.stats", "pyarrow.dataset", "mpl_toolkits.mplot3d",
           *(f"matplotlib.backends.backend_{kind}" for kind in ("pdf", "svg")))  # fmt: skip


def load(*names: str) -> None:
    """Import transformers' models and tokenizers, then the modules `names`."""
    _load_transformers()
    for name in names:
        with uninterrupted(), uncollected():
            importlib.import_module(name)


@functools.cache
def _load_transformers() -> None:
    """Once: transformers looks its names up lazily, and two threads that do so at once can find one missing;
    nor may scikit-learn be hidden while another thread scores with it."""
    with uninterrupted():
        import torch  # noqa: F401
    with uninterrupted(), lean():
        from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase  # noqa: F401
        from transformers.utils.import_utils import is_sklearn_available
    is_sklearn_available.cache_clear()


def leave(code: Any) -> NoReturn:
    """End the process. Taking torch's modules apart takes a second, which is left to the system, unless a
    thread is still at work."""
    working = [one for one in threading.enumerate() if not one.daemon and one is not threading.main_thread()]
    if isinstance(code, int) and "torch" in sys.modules and not working:
        atexit._run_exitfuncs()
        with contextlib.suppress(OSError):  # nobody reads it any more
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    sys.exit(code)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C waits for an import to end: what torch registers is called from C++, where an exception ends the
    process or is lost. Other threads are not interrupted."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    pressed: list[int] = []
    usual = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, usual)
    if pressed:
        signal.raise_signal(signal.SIGINT)


@contextlib.contextmanager
def lean() -> Iterator[None]:
    """While transformers is imported here, it finds no scikit-learn; who needs it later does."""
    hidden = UNUSED not in sys.modules
    if hidden:
        sys.modules[UNUSED] = None
    try:
        with uncollected():
            yield
    finally:
        if hidden:
            sys.modules.pop(UNUSED, None)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Modules are no garbage, and are not searched for it: a tenth of the time of an import."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
