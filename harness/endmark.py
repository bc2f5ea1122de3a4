"""The end token in a calibration text: a mark, until the tokenizer that reads the text is known. Light."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import HarnessError

END = "\ufdd0"  # a code point that Unicode keeps out of all text


def filled(rows: Sequence[Mapping[str, str]], tokenizer: Any, name: str) -> list[dict[str, str]]:
    """The rows with the tokenizer's end token for the mark. Raises HarnessError where it has none."""
    end = tokenizer.eos_token
    if end is None and any(END in text for row in rows for text in row.values()):
        raise HarnessError(
            f"the tokenizer of {name} has no end token, and the calibration text asks for `{{eos}}`",
            "give it an `eos_token`, or leave `{eos}` out of `text:`",
        )
    return [{part: text.replace(END, end or "") for part, text in row.items()} for row in rows]
