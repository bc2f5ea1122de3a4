"""The paper's numbers beside ours (`--with-paper`)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from harness import paper
from harness.board.model import NOT_RUN, BoardRow, Heading
from harness.errors import HarnessError
from harness.family import Family

# The paper's name of a row of ours: by role, or else by method.
ROLES = {"reasoning": "expert_reasoning", "task": "expert_task"}
PERCENT = 0.01  # factor of what the paper prints as accuracies
STAND_INS = {"sce": "fusellm"}  # what the paper calls FuseLLM is most likely this


def check(family: Family) -> None:
    """Raise HarnessError for a family that the paper has no table of."""
    if family.paper is None:
        raise HarnessError(
            f"the paper has no numbers of family `{family.name}`",
            "families with some: " + ", ".join(paper.FAMILIES),
        )


def add(family: Family, headings: Sequence[Heading], rows: Sequence[BoardRow]) -> list[str]:
    """Fill `Cell.paper` (in our scale) and `paper_note` (what contradicts the number); sentences for under
    the table. The paper has one row for each method: of several rows of ours the first has it, which is the
    one with the paper's settings."""
    check(family)
    found = {
        (n.method, paper.COLUMNS[n.benchmark][:2]): n
        for n in paper.numbers(family.paper)
        if n.benchmark in paper.COLUMNS
    }
    theirs: dict[str, BoardRow] = {}
    for row in rows:
        method = row.method or ROLES.get(row.role, row.role)
        method = STAND_INS.get(method, method)
        if row.imported or method in theirs:
            continue
        theirs[method] = row
        for heading in headings:
            number = found.get((method, (heading.task.removesuffix("_paper"), heading.metric)))
            cell = row.cell(heading)
            if number is None or cell is None:
                continue
            cell.paper = number.value * paper.COLUMNS[number.benchmark][2]
            told = [note.text for note in paper.notes([number])]
            told += ["printed as collapsed"] * number.collapsed
            cell.paper_note = "; ".join(told)
    return _averages(family, headings, theirs)


def _averages(family: Family, headings: Sequence[Heading], theirs: Mapping[str, BoardRow]) -> list[str]:
    """The paper's column `Average` is over its accuracies of several groups, which no column here is; ours
    over the same benchmarks where a row has them all."""
    numbers = [n for n in paper.numbers(family.paper) if n.table == paper.TABLES[family.paper]]
    columns = {paper.COLUMNS[n.benchmark][:2] for n in numbers
               if n.benchmark in paper.COLUMNS and paper.COLUMNS[n.benchmark][2] == PERCENT}  # fmt: skip
    own = [h for h in headings if (h.task.removesuffix("_paper"), h.metric) in columns]
    parts = []
    for number in numbers:
        if number.benchmark != "average" or (row := theirs.get(number.method)) is None:
            continue
        cells = [row.cell(heading) for heading in own]
        whole = len(own) == len(columns) and None not in cells
        ours = f"{math.fsum(c.value for c in cells) / len(cells) * 100:.2f}" if whole else NOT_RUN
        parts.append(f"{row.label} {number.value:.2f}{'*' * number.collapsed} ({ours})")
    said = f"the paper's Average, over its {len(columns)} accuracies of all groups (in brackets ours): "
    return [said + "; ".join(parts)] if parts else []
