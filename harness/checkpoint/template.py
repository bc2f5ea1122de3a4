"""Whether a model has a chat template, from its files alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from harness.checkpoint.sources import Source

ALONE = ("chat_template.jinja", "chat_template.json")


def has_template(source: Source) -> bool:
    """Whether prompts to it can go through a chat template: its own, or of the model under an adapter."""
    return _in(source.origin) or (source.on is not None and has_template(source.on))


def template_hash(source: Source) -> str | None:
    """sha256 (hex) of the template's text, as lm-eval's `chat_template_sha`; None without one."""
    if not _in(source.origin):
        return template_hash(source.on) if source.on is not None else None
    file = source.origin / ALONE[0]
    text = file.read_text("utf-8", errors="replace") if file.is_file() else None
    for name in ("tokenizer_config.json", ALONE[1]):
        text = text or _held(source.origin / name).get("chat_template")
    if isinstance(text, list):  # several by name: the one that is used unless another is asked for
        text = next((one.get("template") for one in text if one.get("name") == "default"), None)
    return hashlib.sha256(str(text).encode()).hexdigest()


def _in(folder: Path) -> bool:
    if any((folder / name).is_file() for name in ALONE):
        return True
    return bool(_held(folder / "tokenizer_config.json").get("chat_template"))


def _held(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # what is wrong with it is told when the tokenizer is loaded
        return {}
    return found if isinstance(found, dict) else {}
