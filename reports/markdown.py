"""`table.md`: the table for a README or an issue; more than eight columns are split by group."""

from harness.store import write_text
from harness.typeset import grid, kept, markdown, markdown_note, notes, pack, spans

ROOM = 8  # columns side by side


def render(board, folder):
    """Write `folder/table.md`."""
    lines = [f"**{markdown(board.family)}** — {markdown(board.title)}", "", *_tables(grid(board))]
    if (shares := kept(board)) is not None:
        lines += [markdown(shares.title), "", *_tables(shares)]
    lines += [f"- {_mark(mark)}{markdown_note(note)}" for mark, note in notes(board)]
    path = folder / "table.md"
    write_text(path, "\n".join(lines).rstrip("\n") + "\n")
    return [path]


def _tables(table):
    blocks = pack(table, ROOM)
    several = len(blocks) > 1
    return [line for block in blocks for line in [*_table(table, block, several), ""]]


def _table(table, block, named):
    columns = [table.columns[i] for i in block]
    yield _row("", [f"{markdown(c.title)} {c.arrow}" for c in columns])
    yield "|---|" + "---:|" * len(columns)
    if named or len({c.group for c in columns}) > 1:
        groups = [[f"*{markdown(group)}*", *[""] * (count - 1)] for group, count in spans(columns)]
        yield _row("", sum(groups, []))
    for name, texts in table.counts(block):
        yield _row(f"*{name}*", [f"*{text}*" * bool(text) for text in texts])
    for line in table.lines:
        entries = [line.entries[i] for i in block]
        if line.aside and any(entry.text for entry in entries):
            yield _row("*· paper*", [entry.text + entry.tail for entry in entries])
        elif not line.aside:
            yield _row(_label(line), [_cell(entry) for entry in entries])


def _row(label, cells):
    return "|" + "|".join(f" {text} " if text else " " for text in (label, *cells)) + "|"


def _label(line):
    text = markdown(line.label)
    return (f"*{text}*" if line.reference and text else text) + f" {line.signs}" * bool(line.signs)


def _cell(entry):
    text = entry.text + f" ±{entry.spread}" * bool(entry.spread)
    tail = entry.tail.replace("*", "\\*").replace("[", "<sup>").replace("]", "</sup>")
    if entry.collapsed:
        text = f"*{text}*"
    return (f"**{text}**" if entry.best else f"<ins>{text}</ins>" if entry.second else text) + tail


def _mark(mark):
    return f"<sup>{mark}</sup> " if mark.isascii() and mark else f"{mark} " * bool(mark)
