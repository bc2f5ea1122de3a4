"""Data as it lies in a page: JSON that no parser takes for markup, and packed blocks decoded when needed."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import zlib
from collections.abc import Iterable, Mapping
from typing import Any


def plain(value: Any) -> Any:
    """The value with numbers that JSON lacks as text (`NaN`, `Infinity`), and so what it does not know."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value if value is None or isinstance(value, (str, int, float, bool)) else str(value)


def compact(value: Any) -> str:
    """JSON in ASCII: line separators, lone surrogates and the like are escapes."""
    return json.dumps(plain(value), separators=(",", ":"), allow_nan=False)


def embedded(value: Any) -> str:
    """JSON that may stand in a `script` element: it has no `<`, so it cannot end the element."""
    return compact(value).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(text: str) -> str:
    """Raw deflate of the text as UTF-8, in base64."""
    squeeze = zlib.compressobj(6, zlib.DEFLATED, -15)
    return base64.b64encode(squeeze.compress(text.encode("utf-8")) + squeeze.flush()).decode("ascii")


class Blocks:
    """Packed data by name, in the order of adding."""

    def __init__(self) -> None:
        self.packed: dict[str, str] = {}

    def add(self, name: str, value: Any) -> None:
        """Pack `value` as JSON."""
        self.add_text(name, compact(value))

    def add_text(self, name: str, text: str) -> None:
        """Pack text as it is."""
        self.packed[name] = packed(text)

    @property
    def size(self) -> int:
        return sum(map(len, self.packed.values()))

    def take_out(self, names: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
        """Remove blocks: (file stem by block, script text by file stem). A stem is the hash of the content,
        so that a page never reads the chunk of another."""
        stems: dict[str, str] = {}
        files: dict[str, str] = {}
        for name in names:
            text = f'harnessChunk("{name}","{self.packed.pop(name)}");\n'
            stems[name] = hashlib.sha256(text.encode("ascii")).hexdigest()[:16]
            files[stems[name]] = text
        return stems, files
