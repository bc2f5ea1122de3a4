"""Whether a model has a chat template, from its files alone."""

from __future__ import annotations

import json
from pathlib import Path

from harness.checkpoint.sources import Source

ALONE = ("chat_template.jinja", "chat_template.json")


def has_template(source: Source) -> bool:
    """Whether prompts to it can go through a chat template: its own, or of the model under an adapter."""
    return _in(source.origin) or (source.on is not None and has_template(source.on))


def _in(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ALONE):
        return True
    try:
        config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it is told when the tokenizer is loaded
        return False
    return isinstance(config, dict) and bool(config.get("chat_template"))
