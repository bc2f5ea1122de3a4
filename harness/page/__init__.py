"""The page: one HTML file of a board with its samples and figures, that opens from disk and asks no network.

Everything that a model or a user wrote goes in as data, and the page's policy runs no script but ours.
"""

from __future__ import annotations

from pathlib import Path

from harness.board import Board
from harness.page import figures, origins, samples, siblings
from harness.page.document import compose
from harness.page.pack import Blocks
from harness.page.view import view
from harness.store import whole

LARGEST = 20 * 2**20  # bytes of one file; beyond, the answers lie in chunks beside it
CHUNKS = "samples"


def write(board: Board, folder: Path, assets: Path, largest: int = LARGEST) -> list[Path]:
    """Write `folder/index.html`, and `folder/samples/*.js` when it would be larger than `largest` bytes;
    the paths. `assets` holds page.html, page.css and page-*.js."""
    blocks, root = Blocks(), folder.parent
    tasks = samples.add(board, root, blocks)
    blocks.add("origins", origins.of(board, root))
    drawn, plotly = figures.add(folder / "figures", blocks)
    others, unread = siblings.views(folder)
    data = {
        "boards": [view(board), *others],
        "unread": unread,
        "tasks": tasks,
        "figures": drawn,
        "chunks": {},
    }
    names = [name for task in tasks.values() for name in task["blocks"]]
    chunks: dict[str, str] = {}
    if blocks.size + len(plotly or "") > largest:
        data["chunks"], chunks = blocks.take_out(names)
    html = compose(assets, data, blocks, plotly)
    path = folder / "index.html"
    written = _write_chunks(folder / CHUNKS, chunks)
    with whole(path) as part:
        part.write_bytes(html)
    _remove_others(folder / CHUNKS, chunks)
    return [path, *written]


def _write_chunks(folder: Path, chunks: dict[str, str]) -> list[Path]:
    paths = [folder / f"{name}.js" for name in chunks]
    if paths:
        folder.mkdir(exist_ok=True)
    for path, text in zip(paths, chunks.values(), strict=True):
        with whole(path) as part:
            part.write_text(text, encoding="ascii")
    return paths


def _remove_others(folder: Path, chunks: dict[str, str]) -> None:
    """The chunks of an earlier page go when this page is there."""
    for old in folder.glob("*.js"):
        if old.stem not in chunks and len(old.stem) == 16 and set(old.stem) <= set("0123456789abcdef"):
            old.unlink()
