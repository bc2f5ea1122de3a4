"""The table: one model of it, made from a plan, rendered by `reports/`."""

from harness.board.make import check_options, make_board
from harness.board.model import (
    NOT_RUN,
    Average,
    Board,
    BoardRow,
    Cell,
    Heading,
    Test,
    number,
    read_board,
)

__all__ = [
    "NOT_RUN",
    "Average",
    "Board",
    "BoardRow",
    "Cell",
    "Heading",
    "Test",
    "check_options",
    "make_board",
    "number",
    "read_board",
]
