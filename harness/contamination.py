"""Calibration rows that occur in an evaluation set: counted, named in the plan, footnoted in the report.

A row counts where its id is an id of the evaluation set, both having ids of one kind (PubMedQA's pmid; whole
numbers of at most 5 digits are mostly running numbers and count for nothing), or where a run of 13 words in
it occurs in an item. The length is that of GPT-3's overlap analysis (Brown et al., arXiv:2005.14165, appendix
C), as are its normal form, words in lower case without punctuation, and its leaving out runs that are common:
here those in more than 10 items, which are templates. Unlike there, a sign of arithmetic that stands alone
belongs to the word behind it, so that `a + 2` is not `a - 2`. An item of 8 to 12 words counts where all of it
stands in a row.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.evaluate.task_file import TaskFile
from harness.plan import Plan
from harness.scores.calibration import load_rows
from harness.store import digest, write_text

RUN, SHORTEST, COMMON = 13, 8, 10
IDS = ("pubid", "pmid", "PMID", "id", "ID", "question_id", "task_id", "unique_id")
PUNCTUATION = str.maketrans(string.punctuation, " " * len(string.punctuation))
SIGNS = {"+", "-", "*", "/", "=", "<", ">", "^", "%"}
FILE = "contamination.json"
RUNNING = re.compile(r"\d{1,5}")
VERSION = 2  # of the rule; a change forgets what is kept


@dataclass(frozen=True)
class Overlap:
    """Of one calibration set and one task: rows found by id, by a run of words, by either; of `rows` rows
    against `items` items. `examples` are the numbers of the first rows found."""

    role: str
    data: str
    task: str
    rows: int
    items: int
    by_id: int
    by_words: int
    found: int
    examples: list[int] = field(default_factory=list)


def of_plan(plan: Plan, missing: Iterable[str] = ()) -> list[Overlap]:
    """Every pair of the plan's calibration sets and tasks that share rows. Sets in `missing` and benchmarks
    that are not here are left out. Kept in the store by the identity of both."""
    kept = _kept(plan)
    fresh, found = dict(kept), []
    for role, spec in _read(plan):
        if f"calibration of {role}" in missing:
            continue
        rows = load_rows(spec, plan.family.folder)
        for task in plan.tasks:
            place = digest({"rule": VERSION, "rows": rows, "data": spec.data, "task": task.prompt_hash,
                            "split": plan.family.split})  # fmt: skip
            if place not in fresh:
                items = _items(task, plan.family.split)
                if items is None:
                    continue
                ids = _ids(spec, plan.family.folder)
                fresh[place] = compare([_text(row) for row in rows], ids, items)
            if (told := fresh[place])["found"]:
                found.append(Overlap(role, spec.data, task.name, **told))
    if fresh != kept and plan.store.root.is_dir():
        write_text(plan.store.root / FILE, json.dumps(fresh))
    return found


def sentences(found: Sequence[Overlap]) -> list[str]:
    """What the plan and the table say of it."""
    said = []
    for one in found:
        how = [f"{n} by {what}" for n, what in ((one.by_id, "id"), (one.by_words, "words")) if n]
        said.append(
            f"{one.found} of {one.rows} calibration rows of `{one.role}` ({one.data}) are in {one.task}"
            f"'s test set of {one.items} ({', '.join(how)}), such as row {one.examples[0]}"
        )
    return said


def footnotes(plan: Plan) -> list[str]:
    """The lines under the table, from what `of_plan` keeps in the store: nothing is read but that."""
    return sentences(of_plan(plan))


def compare(
    texts: Sequence[str], ids: Sequence[str | None], items: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Counts as in `Overlap`: calibration texts with their ids (None where a row has none) against items of
    an evaluation set, each with its own `id` and any texts."""
    theirs = {str(item["id"]) for item in items if item.get("id") is not None}
    runs, whole = _runs(items)
    by_id = {i for i, own in enumerate(ids) if own in theirs and not RUNNING.fullmatch(str(own))}
    by_words = {i for i, text in enumerate(texts) if _occurs(words(text), runs, whole)}
    either = sorted(by_id | by_words)
    return {"rows": len(texts), "items": len(items), "by_id": len(by_id), "by_words": len(by_words),
            "found": len(either), "examples": either[:5]}  # fmt: skip


def words(text: str) -> list[str]:
    """Lower case, without punctuation but signs of arithmetic that stand alone, before the next word."""
    found, sign = [], ""
    for word in text.lower().split():
        if word in SIGNS:
            sign = word
            continue
        for part in word.translate(PUNCTUATION).split():
            found.append(sign + part)
            sign = ""
    return found


def _runs(items: Sequence[dict[str, Any]]) -> tuple[set[int], set[tuple[str, ...]]]:
    """Hashes of the runs of words that few items have, and the items too short for one."""
    counts: dict[int, int] = {}
    whole = set()
    for item in items:
        own: set[int] = set()
        for text in _texts(item):
            spelled = words(text)
            own.update(_hashes(spelled))
            if SHORTEST <= len(spelled) < RUN:
                whole.add(tuple(spelled))
        for value in own:
            counts[value] = counts.get(value, 0) + 1
    return {value for value, n in counts.items() if n <= COMMON}, whole


def _occurs(spelled: list[str], runs: set[int], whole: set[tuple[str, ...]]) -> bool:
    if any(value in runs for value in _hashes(spelled)):
        return True
    lengths = {len(short) for short in whole}
    return any(tuple(spelled[i : i + n]) in whole for n in lengths for i in range(len(spelled) - n + 1))


def _hashes(spelled: list[str]) -> Iterator[int]:
    for i in range(len(spelled) - RUN + 1):
        yield hash(tuple(spelled[i : i + RUN]))


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for part in value.values():
            yield from _texts(part)
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)


def _text(row: dict[str, str]) -> str:
    return row["text"] if "text" in row else row["prompt"] + row["completion"]


def _items(task: TaskFile, split: str) -> list[dict[str, Any]] | None:
    """The task's rows as they are here; None for data that is not here, or that lm-eval loads itself."""
    made = task.dataset()
    if made is None:
        return None
    if hasattr(made, "rows"):
        return made.rows(task.split(split))
    from harness.data.read import load
    from harness.data.source import local_files

    try:
        if not local_files(task.source, task.split(split)):
            return None
        rows = load(task.source, task.split(split), made.row, made.whole)
    except HarnessError:  # what is wrong with it is told where it is read for use
        return None
    name = task.source.id if isinstance(task.source.id, str) else None
    return [{**row, "id": row.get("id", row.get(name) if name else None)} for row in rows]


def _ids(spec: Any, folder: Path) -> list[str | None]:
    """The id of every calibration row, None where the data has no column of ids."""
    for column in IDS:
        asked = {"text": f"{{{column}}}", "completion": None, "completion_after": None}
        try:
            return [row["text"] for row in load_rows(spec.model_copy(update=asked), folder)]
        except HarnessError:  # no such column
            continue
    return [None] * spec.n


def _read(plan: Plan) -> Iterator[tuple[str, Any]]:
    """(role, calibration set) of the rows that the plan's merges read, each once."""
    wanted = {(step.need.role, step.need.profile) for step in plan.scores}
    for row in plan.rows:
        wanted |= {(role, "paper") for role in row.recipe.rows} if row.is_merge else set()
    seen = []
    for role, profile in sorted(wanted):
        spec = plan.family.calibration[role].in_profile(profile)
        place = (role, spec.data, spec.name, spec.split, spec.n, spec.seed)
        if place not in seen:
            seen.append(place)
            yield role, spec


def _kept(plan: Plan) -> dict[str, Any]:
    try:
        held = json.loads((plan.store.root / FILE).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}
