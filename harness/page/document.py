"""The page's HTML: template, style, scripts and data, under a policy that names each by its hash."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from pathlib import Path
from typing import Any

from harness.page.pack import Blocks, embedded

SLOT = re.compile(r"\{\{(\w+)\}\}")
# What plotly adds to the page when it loads: an empty sheet, and the style of its maps.
MAP_STYLE = re.compile(r"\.textContent='(\.maplibregl-map\{[^'\\]*\})',document\.head\.appendChild")


def compose(assets: Path, data: Any, blocks: Blocks, plotly: str | None) -> bytes:
    """The whole page. `plotly` is the library's source when a figure needs it; it lies packed in the block
    `plotly` and runs when asked for."""
    style = (assets / "page.css").read_text(encoding="utf-8")
    script = "\n".join(path.read_text(encoding="utf-8") for path in sorted(assets.glob("page-*.js")))
    script = f'"use strict";\n(() => {{\n{script}\nstart();\n}})();\n'
    if plotly is not None:
        blocks.add_text("plotly", plotly)
    lying = (
        f'<script type="text/plain" id="block-{name}">{text}</script>' for name, text in blocks.packed.items()
    )
    board = data["boards"][0]
    parts = {
        "policy": policy(script, style, plotly),
        "title": html.escape(f"{board['family']}: {board['title']}"),
        "style": style,
        "script": script,
        "data": embedded(data),
        "blocks": "\n".join(lying),
    }
    template = (assets / "page.html").read_text(encoding="utf-8")
    return SLOT.sub(lambda m: parts[m[1]], template).encode("utf-8", "replace")


def policy(script: str, style: str, plotly: str | None) -> str:
    """The content-security policy. A script runs when its hash is here or when such a script put it in
    (`strict-dynamic`: the chunks, whose origin on disk is nobody's); text never becomes markup
    (`trusted-types`)."""
    scripts, styles = [hashed(script)], [hashed(style)]
    if plotly is not None:
        scripts.append(hashed(plotly))
        styles += [hashed(found) for found in ("", *MAP_STYLE.findall(plotly))]
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src 'strict-dynamic' {' '.join(scripts)}",
            f"style-src {' '.join(styles)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types harness",
        ]
    )


def hashed(text: str) -> str:
    """A source expression: 'sha256-…' of the text as UTF-8."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
