"""What is said under a table."""

from __future__ import annotations

from collections.abc import Sequence

from harness import contamination, inputs, lock
from harness.board import mixing
from harness.board.model import IMPORTED, NOT_RUN, SIGNIFICANT, BoardRow
from harness.collapse import spelled
from harness.plan import Plan


def footnotes(plan: Plan, rows: Sequence[BoardRow], baseline: BoardRow | None) -> list[str]:
    """Sentences for under the table, the most general first."""
    rule, notes = plan.family.collapse, []
    if plan.family.note:
        notes.append(" ".join(plan.family.note.split()))
    marks = f"bold: best merge, underlined: second · * collapsed: {spelled(rule)}"
    notes.append(f"{marks}; {NOT_RUN} not run · ± standard error")
    if baseline is not None and any(cell.test for row in rows for cell in row.cells.values()):
        notes.append(
            f"{SIGNIFICANT} differs from {baseline.label} on the same items (McNemar's exact test of scores "
            "of 0 and 1, else sign-flip permutation; 5 % after Holm over the table)"
        )
    elif len(rows) > 1:
        notes.append(_untested(plan, baseline))
    if any(row.imported for row in rows):
        notes.append(f"{IMPORTED} imported from a result file of lm-eval")
    if plan.limit is not None:
        notes.append(f"--limit {plan.limit}: only the first {plan.limit} items of each task were used")
    if plan.family.split != "test":
        notes.append(f"measured on the {plan.family.split} split")
    notes += [f"* {row.label}: {'; '.join(row.collapsed)}" for row in rows if row.collapsed]
    notes += [f"{row.label}: {note}" for row in rows for note in row.notes]
    if any(row.stale for row in rows):
        notes.append(
            "† merged by an older version of the method's code; `harness clean --rows LABEL` makes it anew"
        )
    notes += inputs.footnotes(plan)
    notes += contamination.footnotes(plan) + lock.footnotes(plan)
    notes += _unread(plan) + _unsandboxed(plan)
    profiles = sorted({task.profile for task in plan.tasks})
    notes.append(f"task profile: {', '.join(profiles)} · decoding by role: " + _decoding(plan))
    notes += _untemplated(plan) + _templates(rows)
    own = [task.name for task in plan.tasks if task.own_decoding]
    if own:
        notes.append(f"decoded as the task says, whatever the role: {', '.join(own)}")
    notes += [
        f"{task.name}: mean of {count} responses to each item (avg@{count})"
        for task in plan.tasks
        if (count := max((s.recipe.repeats for s in plan.evals if s.task is task), default=1)) > 1
    ]
    for task in plan.tasks:
        if task.judge:
            own = plan.family.judges.get(task.name.removesuffix("_paper"), {})
            notes.append(f"{task.name}: judged by {own.get('model', task.judge.model)}")
    return notes


def _untested(plan: Plan, baseline: BoardRow | None) -> str:
    if baseline is None:
        return f"nothing was tested: the family's baseline `{plan.family.baseline}` is not among the rows"
    return f"nothing was tested against {baseline.label}: no other row was measured on items that it has"


def _untemplated(plan: Plan) -> list[str]:
    """Under `chat_template: auto`, who has none."""
    asked = (s for s in plan.evals if plan.family.chat_template == "auto" and s.task.chat_template)
    plain = dict.fromkeys(s.row.label for s in asked if not s.recipe.chat_template)
    return [f"asked in plain text, for want of a chat template: {', '.join(plain)}"] if plain else []


def _templates(rows: Sequence[BoardRow]) -> list[str]:
    """Who is asked through which chat template, where there are several."""
    groups: dict[str, dict[str, None]] = {}
    for row in rows:
        for cell in row.cells.values():
            if isinstance(given := cell.settings.get(mixing.TEMPLATE), str) and given != mixing.DECLARED:
                groups.setdefault(given[:8], {})["merges" if row.is_merge else row.label] = None
    if len(groups) < 2:
        return []
    spelled = "; ".join(f"{'/'.join(who)}: {template}" for template, who in groups.items())
    return [f"each model is asked through its own chat template (sha256): {spelled}"]


def _unread(plan: Plan) -> list[str]:
    """Judgements that could not be read: they are part of no mean, and not to be lost sight of."""
    counts: dict[str, list[int]] = {}
    for step in plan.judges:
        done = step.folder.done()
        told = counts.setdefault(step.evaluation.task.name, [0, 0])
        told[0] += sum(done.get("unparsed", {}).values())
        told[1] += done.get("judged", 0)
    return [f"{task}: {n} of {all_} judgements could not be read" for task, (n, all_) in counts.items() if n]


def _unsandboxed(plan: Plan) -> list[str]:
    bare = {step.task.name for step in plan.evals if step.folder.done().get("sandbox") == "none"}
    return [f"{', '.join(sorted(bare))}: generated code ran without a sandbox"] if bare else []


def _decoding(plan: Plan) -> str:
    groups: dict[str, list[str]] = {}
    for row in plan.rows:
        kind = row.decodes_as
        spelled = (
            ", ".join(f"{k} {v}" for k, v in plan.family.generation_for(kind).items()) or "as the task says"
        )
        if kind not in groups.setdefault(spelled, []):
            groups[spelled].append(kind)
    return "; ".join(f"{'/'.join(kinds)}: {spelled}" for spelled, kinds in groups.items())
