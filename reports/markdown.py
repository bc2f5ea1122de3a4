"""`table.md`: the table for a README or an issue."""


def render(board, folder):
    """Write `folder/table.md`."""
    lines = [
        f"**{board.family}** — {board.title}",
        "",
        "| | " + " | ".join(f"{h.title} {h.arrow}" for h in board.headings) + " |",
        "|---|" + "---:|" * len(board.headings),
        "| *n* | " + " | ".join(f"*{board.n(h)}*" for h in board.headings) + " |",
    ]
    for row in board.rows:
        label = board.label(row) if row.is_merge else f"*{board.label(row)}*"
        cells = [_cell(board, row, h) for h in board.headings]
        lines.append("| " + " | ".join([_escape(label) if row.is_merge else label, *cells]) + " |")
    lines += ["", *(f"- {_escape(note)}" for note in board.footnotes)]
    path = folder / "table.md"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [path]


def _cell(board, row, heading):
    text, cell = board.text(row, heading), row.cells.get((heading.task, heading.metric))
    if cell is not None and cell.best:
        return f"**{text}**"
    return f"*{text[:-1]}*\\*" if text.endswith("*") else text


def _escape(text):
    return text.replace("|", "\\|").replace("*", "\\*")
