"""Models loaded with transformers, for training and gradient statistics. Imports torch when called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from harness.errors import HarnessError

if TYPE_CHECKING:
    import torch

SMALL = 50_000_000  # parameters; below, threads wait for each other more than they work


def load_model(path: Path, dtype: torch.dtype, spread: bool = False) -> torch.nn.Module:
    """The causal language model in folder `path`, on the CPU, or with its layers `spread` over all CUDA
    devices. Raises `HarnessError` when weights are missing,
    which transformers would fill at random."""
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            str(path), dtype=dtype, output_loading_info=True, device_map="auto" if spread else None
        )
    finally:
        if bars:
            logging.enable_progress_bar()
    for what in ("missing_keys", "mismatched_keys"):
        if names := sorted(str(key) for key in report[what]):
            more = f" and {len(names) - 1} more" * (len(names) > 1)
            raise HarnessError(
                f"{path} lacks weights of its architecture: {names[0]}{more}",
                "randomly filled weights would mean nothing; mend the checkpoint",
            )
    return model


@contextlib.contextmanager
def threads_for(parameters: int, wanted: int | None = None) -> Iterator[None]:
    """`wanted` threads of torch; None: one for a small model, and as many as before for others."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(wanted or (1 if parameters < SMALL else before))
    try:
        yield
    finally:
        torch.set_num_threads(before)
