"""How reports print: the table as lines of entries, text that is safe in Markdown and LaTeX, tidy records."""

from harness.typeset.escape import latex, latex_note, markdown, markdown_note, visible
from harness.typeset.grid import LEAST, Column, Entry, Grid, Line, grid, kept, notes, pack, spans
from harness.typeset.printer import Printer
from harness.typeset.prose import paragraphs
from harness.typeset.tabular import signs, tabular
from harness.typeset.tidy import FIELDS, records

__all__ = ["FIELDS", "LEAST", "Column", "Entry", "Grid", "Line", "Printer", "grid", "kept", "latex",
           "latex_note", "markdown", "markdown_note", "notes", "pack", "paragraphs", "records", "signs",
           "spans", "tabular", "visible"]  # fmt: skip
