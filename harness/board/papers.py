"""The paper's numbers beside ours (`--with-paper`)."""

from __future__ import annotations

from collections.abc import Sequence

from harness import paper
from harness.board.model import BoardRow, Heading
from harness.errors import HarnessError
from harness.family import Family

# The paper's name of a row of ours: by role, or else by method.
ROLES = {"reasoning": "expert_reasoning", "task": "expert_task"}
STAND_INS = {"sce": "fusellm"}  # what the paper calls FuseLLM is most likely this


def check(family: Family) -> None:
    """Raise HarnessError for a family that the paper has no table of."""
    if family.paper is None:
        raise HarnessError(
            f"the paper has no numbers of family `{family.name}`",
            "families with some: " + ", ".join(paper.FAMILIES),
        )


def add(family: Family, headings: Sequence[Heading], rows: Sequence[BoardRow]) -> None:
    """Fill `Cell.paper` (in our scale) and `paper_note` (what contradicts the number). The paper has one row
    for each method: of several rows of ours the first has it, which is the one with the paper's settings."""
    check(family)
    found = {
        (n.method, paper.COLUMNS[n.benchmark][:2]): n
        for n in paper.numbers(family.paper)
        if n.benchmark in paper.COLUMNS
    }
    taken: set[str] = set()
    for row in rows:
        method = row.method or ROLES.get(row.role, row.role)
        method = STAND_INS.get(method, method)
        if row.imported or method in taken:
            continue
        taken.add(method)
        for heading in headings:
            number = found.get((method, (heading.task.removesuffix("_paper"), heading.metric)))
            cell = row.cell(heading)
            if number is None or cell is None:
                continue
            cell.paper = number.value * paper.COLUMNS[number.benchmark][2]
            told = [note.text for note in paper.notes([number])]
            told += ["printed as collapsed"] * number.collapsed
            cell.paper_note = "; ".join(told)
