"""`harness explain`: where a number of the table comes from, down to the sample."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from harness.board import Board, BoardRow, Cell, Heading, read_board
from harness.board.places import absolute
from harness.board.recompute import GONE, RESPONSES, Recomputed, Recomputing, same
from harness.errors import HarnessError, nearest
from harness.family import load_family
from harness.store import Store

LONGEST = 4000  # characters of a prompt or response that are shown


def explain(
    cell: str | None,
    family: str,
    results: Path,
    board: Path | None,
    *,
    item: int | None,
    everything: bool,
    as_json: bool,
) -> int:
    """Tell of one cell, of one item of it, or recompute every cell; 1 where a recomputed value differs."""
    file = board or Store(results, load_family(family).name).report / "board.json"
    found = _read(file)
    if everything:
        return _check_all(found, as_json)
    if cell is None:
        raise HarnessError("no cell was named", "ROW/TASK, as in 'TIES/gsm8k'; or --all")
    row, heading = _named(found, cell)
    given = row.cell(heading)
    if given is None:
        raise HarnessError(
            f"`{row.label}` was not run on {heading.title}", "`harness compare` runs what is missing"
        )
    if item is not None:
        told = _item(Path(given.folder), item, heading)
    else:
        told = _told(found, row, heading, given)
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False, default=str))
    else:
        _print(told)
    return 1 if told.get("agrees") is False else 0


def _read(file: Path) -> Board:
    """The board, its folders where the results that it is of lie now, whatever the working folder is."""
    try:
        return absolute(read_board(file), Path(os.path.relpath(file.resolve().parent.parent)))
    except FileNotFoundError as error:
        raise HarnessError(
            f"there is no {file}", "run `harness compare` or `harness report` first"
        ) from error
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HarnessError(f"{file} cannot be read: {error}", "`harness report` writes it anew") from error


def _named(board: Board, text: str) -> tuple[BoardRow, Heading]:
    """ROW/TASK[/METRIC]; a row by its label here or in the family, its role, or its method where that is of
    one row."""
    rows = _names(board)
    for cut in [match.start() for match in re.finditer("/", text)][::-1]:
        row, column = text[:cut].strip(), text[cut + 1 :].strip()
        headings = [h for h in board.headings if column in (h.key, h.task, h.title)]
        if row in rows and headings:
            return rows[row], next((h for h in headings if h.main), headings[0])
    if "/" not in text:
        raise HarnessError(f"`{text}` names no cell", "ROW/TASK or ROW/TASK/METRIC, as in 'TIES/gsm8k'")
    row, _, column = text.partition("/")
    if row.strip() not in rows:
        raise HarnessError(f"no row is called `{row.strip()}`", nearest(row.strip(), rows))
    known = [name for h in board.headings for name in (h.task, h.key)]
    raise HarnessError(f"no column is called `{column.strip()}`", nearest(column.strip(), known))


def _names(board: Board) -> dict[str, BoardRow]:
    found = {row.label: row for row in board.rows}
    for row in board.rows:
        found.setdefault(row.recipe.get("label", row.label), row)
        if row.role not in ("merge", "checkpoint", "imported"):
            found.setdefault(row.role, row)
    for row in board.rows:
        if row.method and sum(other.method == row.method for other in board.rows) == 1:
            found.setdefault(row.method, row)
    return found


def _told(board: Board, row: BoardRow, heading: Heading, cell: Cell) -> dict[str, Any]:
    folder, test = Path(cell.folder), cell.test
    found = Recomputing(board).cell(row, heading)
    told: dict[str, Any] = {
        "cell": f"{row.label} · {heading.title} {heading.arrow} ({heading.key})",
        "printed": board.text(row, heading),
        "value": cell.value,
        "n": cell.n,
        "interval": cell.interval,
        **_compared(cell, found),
    }
    if test is not None:
        told["test"] = f"{test.test} against {board.baseline} on {test.n} items"
        told |= {"difference": test.difference, "difference_interval": test.interval,
                 "p": test.p, "p_holm": test.p_holm}  # fmt: skip
    if cell.paper is not None:
        told |= {"paper": cell.paper, "paper_note": cell.paper_note}
    told |= {"rates": cell.rates, "settings": cell.settings, "collapsed": row.collapsed}
    told["measured_in"] = str(folder)
    told["samples"] = str(folder / "samples.parquet")
    made = folder / "done.json"
    if made.is_file():
        done = json.loads(made.read_text(encoding="utf-8"))
        told |= {"engine": done.get("engine"), "model_sha256": done.get("fingerprint")}
    told["model"] = row.folder
    told["recipe"] = row.recipe
    told["again"] = row.command
    return {key: known for key, known in told.items() if known not in (None, [], {}, "")}


def _compared(cell: Cell, found: Recomputed) -> dict[str, Any]:
    """The value from the stored responses beside the printed one, and how far that can be trusted."""
    if found.value is None:
        return {"recomputed": GONE, "agrees": None}
    told = {
        "recomputed": found.value,
        "recomputed_from": found.source,
        "agrees": same(found.value, cell.value) and not found.differing,
        "not_from_responses": found.why,
        "items_scored_otherwise_now": list(found.differing),
    }
    return told | ({} if found.scorer else {"scorer": "its code changed since this was measured"})


def _item(folder: Path, item: int, heading: Heading) -> dict[str, Any]:
    """One row of the samples."""
    import pyarrow.parquet as pq

    path = folder / "samples.parquet"
    if not path.is_file():
        raise HarnessError(
            f"there is no {path}", "the row was imported without samples, or its folder was deleted"
        )
    rows = pq.read_table(path).to_pylist()
    found = [row for row in rows if row["doc_id"] == item]
    if not found:
        known = sorted(row["doc_id"] for row in rows)
        raise HarnessError(f"there is no item {item}", f"items go from {known[0]} to {known[-1]}")
    told = {key: value for key, value in found[0].items() if value is not None}
    judged = folder / "judged.parquet"
    if judged.is_file():
        told["judged"] = [row for row in pq.read_table(judged).to_pylist() if row["doc_id"] == item]
    return {"scored_by": heading.metric, **told}


def _check_all(board: Board, as_json: bool) -> int:
    told, again = [], Recomputing(board)
    for row in board.rows:
        for heading in board.headings:
            cell = row.cell(heading)
            if cell is not None:
                compared = _compared(cell, again.cell(row, heading))
                told.append({"row": row.label, "column": heading.key, "printed": cell.value, **compared})
    if as_json:
        click.echo(json.dumps(told, indent=1, ensure_ascii=False, default=str))
    else:
        for line in _lines(told):
            click.echo(_shown(line))
    return 1 if any(one["agrees"] is False for one in told) else 0


def _lines(told: list[dict[str, Any]]) -> Iterator[str]:
    """What is wrong or unknown, cell by cell; why cells are of stored scores; the sum."""
    for one in told:
        if not one["agrees"]:
            items = one.get("items_scored_otherwise_now")
            what = (
                f", {len(items)} items score otherwise than stored (the first: {items[0]})" if items else ""
            )
            known = f"recomputed {one['recomputed']!r}" if one["agrees"] is False else one["recomputed"]
            changed = f"; of the scorer, {one['scorer']}" if "scorer" in one else ""
            yield f"{one['row']} · {one['column']}: printed {one['printed']!r}, {known}{what}{changed}"
    reasons = Counter(
        (one["column"], one["not_from_responses"]) for one in told if one.get("not_from_responses")
    )
    for (column, why), count in reasons.items():
        yield f"{column}: {count} cells from their stored scores, not from responses: {why}"
    right = [one for one in told if one["agrees"]]
    scored = sum(one["recomputed_from"] == RESPONSES for one in right)
    wrong = sum(one["agrees"] is False for one in told)
    yield (
        f"{len(right)} of {len(told)} cells recomputed and equal, {scored} of them by scoring the stored "
        f"responses again; {wrong} differ"
    )


def _print(told: dict[str, Any]) -> None:
    console = Console(highlight=False, soft_wrap=True)
    for key, value in told.items():
        text = (
            json.dumps(value, ensure_ascii=False, default=str)
            if isinstance(value, (dict, list))
            else str(value)
        )
        if len(text) > LONGEST:
            text = text[:LONGEST] + f" … ({len(text)} characters)"
        console.print(Text(f"{key.replace('_', ' '):<20} ", style="bold"), Text(_shown(text)), sep="")


def _shown(text: str) -> str:
    """What a model wrote, without what a terminal would obey."""
    return "".join(
        c if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Cf") else "\ufffd" for c in text
    )
