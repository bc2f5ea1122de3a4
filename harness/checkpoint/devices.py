"""Which devices an option `--device` means. Imports torch only to look for CUDA."""

from __future__ import annotations

import re

from harness.errors import HarnessError


def check_device(text: str) -> None:
    """Raise `HarnessError` for what is no device, and for a CUDA device that is not here."""
    found = re.fullmatch(r"(auto|cpu|cuda)|cuda:(\d+)", text)
    if not found:
        raise HarnessError(f"--device `{text}` is no device", "cpu, cuda, cuda:1 or auto")
    if text.startswith("cuda"):
        import torch

        here = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(found[2] or 0) >= here:
            raise HarnessError(
                f"--device {text}, and {here or 'no'} CUDA device{'s are' if here > 1 else ' is'} here",
                "use --device cpu, or a PyTorch that is built for this machine's GPU",
            )


def devices_of(text: str) -> list[str] | None:
    """The devices gradients are taken on; None: every CUDA device, or else the CPU."""
    return None if text in ("auto", "cuda") else [text]
