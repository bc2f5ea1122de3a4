"""Every question with every row's answer, aligned by question: an index by task, and blocks of texts."""

from __future__ import annotations

import os.path
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.page import answers
from harness.page.origins import placed
from harness.page.pack import Blocks, compact

BLOCK = 768 * 1024  # characters of JSON after which a block is full
PREVIEW = 140
LONG_HEAD = 200  # previews leave out a beginning that all prompts share (examples) when it is longer
MARKUP = re.compile(r"<[|｜][^>]{1,40}[|｜]>(?:\s*(?:system|user|assistant)\b)?|\s+")  # of chat templates


def add(board: Board, root: Path, blocks: Blocks) -> dict[str, Any]:
    """Pack the samples of the board's tasks: by task `{index: block, blocks: [block…], n, rows}`.

    An index block holds `rows` (labels), `ids`, `previews`, `starts` (first item of each text block), and
    `values[metric][row][item]` (null: not asked, or the item does not count). A text block is a list of items
    `{prompts, target, answers: [answer | null by row]}`.
    """
    found: dict[str, Any] = {}
    for number, task in enumerate(dict.fromkeys(h.task for h in board.headings)):
        read = [(row.label, answers.read(board, row, task, lambda f: placed(f, root))) for row in board.rows]
        read = [(label, items) for label, items in read if items]
        if read:
            found[task] = _pack(f"t{number}", board, task, read, blocks)
    return found


def _pack(name: str, board: Board, task: str, read: list[tuple[str, dict]], blocks: Blocks) -> dict[str, Any]:
    metrics = [h.metric for h in board.headings if h.task == task]
    ids = list(dict.fromkeys(key for _, items in read for key in items))
    index = {
        "rows": [label for label, _ in read],
        "ids": [key if isinstance(key, str) else str(key) for key in ids],
        "previews": _previews([_first(read, key)["prompt"] for key in ids]),
        "starts": [],
        "values": {
            metric: [
                [_short(items[key]["values"].get(metric)) if key in items else None for key in ids]
                for _, items in read
            ]
            for metric in metrics
        },
    }
    names = []
    for start, texts in _blocks(read, ids):
        index["starts"].append(start)
        names.append(f"{name}-{len(names)}")
        blocks.add_text(names[-1], texts)
    blocks.add(f"{name}-index", index)
    return {"index": f"{name}-index", "blocks": names, "n": len(ids), "rows": index["rows"]}


def _blocks(read: list[tuple[str, dict]], ids: list) -> Iterator[tuple[int, str]]:
    """(number of the first item, JSON of a list of items)."""
    start, full, size = 0, [], 0
    for number, key in enumerate(ids):
        text = compact(_item(read, key))
        if full and size + len(text) > BLOCK:
            yield start, f"[{','.join(full)}]"
            start, full, size = number, [], 0
        full.append(text)
        size += len(text)
    if full:
        yield start, f"[{','.join(full)}]"


def _item(read: list[tuple[str, dict]], key: Any) -> dict[str, Any]:
    prompts = list(dict.fromkeys(items[key]["prompt"] for _, items in read if key in items))
    given = [
        {**items[key]["answer"], "prompt": prompts.index(items[key]["prompt"])} if key in items else None
        for _, items in read
    ]
    return {"prompts": prompts, "target": _first(read, key)["target"], "answers": given}


def _first(read: list[tuple[str, dict]], key: Any) -> dict[str, Any]:
    return next(items[key] for _, items in read if key in items)


def _previews(prompts: list[str]) -> list[str]:
    head = len(os.path.commonprefix(prompts)) if len(prompts) > 1 else 0
    if head <= LONG_HEAD:
        head = 0
    return [MARKUP.sub(" ", prompt[head : head + 4 * PREVIEW]).strip()[:PREVIEW] for prompt in prompts]


def _short(value: float | None) -> float | int | None:
    """Six digits are enough to see; whole numbers without a point."""
    if value is None or value != value:
        return None
    return int(value) if value in (0, 1) else float(f"{value:.6g}")
