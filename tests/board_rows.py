"""Boards made by hand."""

from harness.board import Board, BoardRow, Cell, Heading

CHAIN = Heading("chain", "exact", "Chains", "Reasoning", True, "accuracy")
SUMS = Heading("sums", "exact", "Sums", "Reasoning", True, "accuracy")
HARM = Heading("harm", "harmfulness", "Harm", "Safety", False, "score")
PPL = Heading("prose", "word_perplexity", "PPL", "Perplexity", False, "perplexity")
HEADINGS = [CHAIN, SUMS, HARM, PPL]
SETTINGS = {"profile": "standard", "engine": "hf", "dtype": "float32", "limit": None, "chat template": True}


def row(label, *values, role="merge", collapsed=(), **settings):
    """A row with its cells in the order of HEADINGS; None is not run."""
    cells = {
        (h.task, h.metric): Cell(value, 0.01, 100, settings={**SETTINGS, **settings})
        for h, value in zip(HEADINGS, values, strict=False)
        if value is not None
    }
    return BoardRow(label, role, label if role == "merge" else None, {}, "", cells, list(collapsed))


def board(*rows):
    return Board("fam", "a family", HEADINGS, list(rows), [])
