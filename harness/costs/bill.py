"""What carrying out a draft takes: steps to do with memory and time, bytes to fetch, room on the disks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.checkpoint.identity import TOKENIZER_FILES, present
from harness.checkpoint.part import Part
from harness.costs import demand, fetching
from harness.costs.demand import Need
from harness.costs.draft import Draft
from harness.costs.machine import Machine, disk, held, machine
from harness.costs.sizes import BY_NAME, Size
from harness.evaluate.lm_eval_tasks import PREFIX
from harness.plan import EvalStep, Plan, RowStep, ScoreStep

LONGEST = 256  # tokens of a response where neither task nor family says, as lm-eval takes it
# Test rows of lm-eval's tasks whose data says how many only once it is here.
ROWS = {"arc_challenge": 1172, "arc_easy": 2376, "medqa_4options": 1273, "mmlu": 14042, "wikitext": 62}
UNKNOWN = 1000  # rows of a benchmark that does not say how many it has
TEXTS = 16 << 20  # bytes beside the weights of a model that is not here: tokenizer, card, config
ANSWER, ASKED = 6, 3000  # bytes that a response store and its samples keep per token, and per item
SLACK = 1 << 30  # bytes that a disk is to keep free


@dataclass(frozen=True)
class Item:
    """One line of the bill: steps of one kind that are done together. `need` is None where a size is not
    known; `disk` are the bytes it leaves in the results."""

    kind: str
    what: str
    steps: int
    need: Need | None
    disk: int = 0


@dataclass(frozen=True)
class Room:
    """A disk, by a folder on it: bytes that will be added, bytes free now, and what takes them."""

    folder: Path
    needed: int
    free: int
    parts: dict[str, int]


@dataclass
class Bill:
    """See the module. `done` counts by kind the steps that the store has, `unknown` names what could not be
    counted."""

    machine: Machine
    items: list[Item]
    downloads: list[fetching.Download]
    rooms: list[Room]
    engines: int
    done: dict[str, int]
    unknown: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """Of the device, all steps one after the other."""
        return sum(item.need.seconds for item in self.items if item.need)

    @property
    def partial(self) -> bool:
        """Whether a step's size is not known, so that all sums are too small."""
        return any(item.need is None for item in self.items)

    @property
    def untimed(self) -> bool:
        """Whether the time of a step is not known, so that their sum is too small."""
        return any(item.need is None or not item.need.timed for item in self.items)

    @property
    def host(self) -> int:
        """Most bytes of host memory held at once."""
        merging = max((i.need.host for i in self.items if i.need and i.kind != "eval"), default=0)
        evaluating = max((i.need.host for i in self.items if i.need and i.kind == "eval"), default=0)
        return merging + self.engines * evaluating

    @property
    def gpu(self) -> int:
        """Most bytes that one step holds on a GPU."""
        return max((item.need.gpu for item in self.items if item.need), default=0)


def bill(
    draft: Draft, *, ask: bool = True, here: Machine | None = None, device: str = "auto", keep: bool = True
) -> Bill:
    """The bill of a draft on this machine, or on `here`. `device` is where gradients and merges are computed;
    experts are trained and rows evaluated where there is a GPU on that. `keep`: merged weights are kept."""
    one, plan, unknown = here or machine(), draft.plan, []
    items = [*_trainings(draft, one, unknown), *_conversions(draft, one)]
    merges, chosen = plan.merges_to_make(), one.on(device)
    items += [*_scores(draft, plan.scores_to_make(merges), chosen), *_merges(draft, merges, chosen, keep)]
    items += [*_evaluations(draft, plan.evals_to_make(), one, unknown)]
    judges = fetching.judges(plan, ask)
    items += [*_judgements(draft, judges, one, unknown)]
    downloads = fetching.downloads(draft, judges, ask)
    guessed = [m.ref for m in (*draft.models.values(), *judges.values()) if m.size and m.size.how == BY_NAME]
    if guessed:
        names = ", ".join(dict.fromkeys(guessed))
        what = "their sizes are what the names say; keys and values, gradients, activations do not count"
        unknown.append(f"the shapes of {names}: {what}")
    if draft.size("base") is None:
        unknown.append("the size of the models, so no step's memory, disk and time")
    rows = {step.row.folder.path for step in plan.evals_to_make()}
    engines = min(len(rows), 1 if plan.engine == "vllm" else 2, one.cores)
    return Bill(one, items, downloads, _rooms(plan, items, downloads), engines,
                _done(plan), list(dict.fromkeys(unknown)))  # fmt: skip


def _trainings(draft: Draft, here: Machine, unknown: list[str]) -> Iterator[Item]:
    for role, train in draft.pending.items():
        model = draft.models.get(f"{role} (trained on)")
        size = (model and model.size) or draft.size(role)
        step = draft.begun.get(role)
        rows = len(step.rows) if step else train.n
        if rows is None:
            unknown.append(f"the rows that {role} is trained on, and so the time of that")
        need = size and demand.training(
            size,
            here,
            rows=rows and int(rows * train.epochs),
            tokens=train.max_tokens,
            micro=train.micro_batch_size,
            dtype=train.dtype,
            checkpointing=train.gradient_checkpointing,
            spread=train.placement == "layers",
            processes=train.processes,
        )
        kept = _lacking(_kept(draft, size), step and step.folder.path / "part")
        yield Item("train", f"{role}: {train.label}", 1, need, kept)


def _conversions(draft: Draft, here: Machine) -> Iterator[Item]:
    for role, source in draft.plan.sources.items():
        if not source.ready:
            size = draft.size(role)
            host = demand.LIBRARIES + 12 * size.largest if size else 0
            need = Need(host, 0, 2 * size.nbytes / demand.DISK) if size else None
            kept = _lacking(_kept(draft, size), source.folder and source.folder.path / "part")
            yield Item("convert", f"{role}: {source.kind}", 1, need, kept)


def _scores(draft: Draft, steps: Sequence[ScoreStep], here: Machine) -> Iterator[Item]:
    groups: dict[str, list[ScoreStep]] = {}
    for step in steps:
        groups.setdefault(step.recipe.together, []).append(step)
    for group in groups.values():
        role = group[0].need.role
        size = draft.size("base" if group[0].need.model == "base" else role)
        recipes, rows = [step.recipe for step in group], draft.family.calibration[role].n
        need = size and demand.statistics(size, here, recipes, rows)
        what = ", ".join(step.label for step in group)
        each = 4 * size.parameters if size else 0
        yield Item("scores", what, len(group), need, sum(_lacking(each, s.folder.path) for s in group))


def _merges(draft: Draft, rows: Sequence[RowStep], here: Machine, keep: bool) -> Iterator[Item]:
    size = draft.size("base")
    streaming = [row for row in rows if hasattr(row.method, "merge")]
    models = len(draft.plan.inputs)
    if streaming:
        statistics = {s.folder.path for row in streaming for s in row.scores.values()}
        counts = {"models": models, "statistics": len(statistics), "methods": len(streaming)}
        need = size and demand.merging(size, here, **counts)
        kept = sum(_lacking(_kept(draft, size), Part(row.checkpoint, "").path) for row in streaming)
        if not keep:
            need, kept = need and demand.held(need, here, _kept(draft, size), len(streaming))
        yield Item("merge", f"{len(streaming)} in shared passes", len(streaming), need, kept)
    for row in rows:
        if row not in streaming:
            steps, batch = getattr(row.method, "steps", 0), getattr(row.method, "batch_size", 1)
            tokens, trains = getattr(row.method, "max_tokens", 0), bool(row.recipe.rows)
            need = size and demand.whole(size, here, trains=trains, rows=steps * batch, tokens=tokens)
            kept = _lacking(_kept(draft, size), Part(row.checkpoint, "").path)
            yield Item("merge", row.label, 1, need, kept)


def _evaluations(
    draft: Draft, steps: Sequence[EvalStep], here: Machine, unknown: list[str]
) -> Iterator[Item]:
    groups: dict[Path, list[EvalStep]] = {}
    for step in steps:
        groups.setdefault(step.row.folder.path, []).append(step)
    for group in groups.values():
        row = group[0].row
        size, needs, kept = draft.size(row.role if row.role in draft.models else "base"), [], 0
        for step in group:
            items = _items(step, unknown) * step.recipe.repeats
            own = step.task.config.get("generation_kwargs") or {}
            longest = step.recipe.generation.get("max_gen_toks") or own.get("max_gen_toks") or LONGEST
            writes = step.task.uses_generation
            kept += int(items * (ASKED + ANSWER * longest * demand.SHARE * writes))
            if size:
                given = {"items": items, "longest": longest, "generates": writes}
                need = demand.evaluation(size, here, **given)
                vllm = draft.plan.engine == "vllm"
                needs.append(demand.served(need, size, here, draft.family.engine) if vllm else need)
        whole = Need(
            max((n.host for n in needs), default=0),
            max((n.gpu for n in needs), default=0),
            sum(n.seconds for n in needs),
            spread=any(n.spread for n in needs),
        )
        yield Item("eval", row.label, len(group), whole if needs else None, kept)


def _items(step: EvalStep, unknown: list[str]) -> int:
    """Rows that are asked; a benchmark that does not say how many it has counts as `UNKNOWN`."""
    task, split = step.task, step.recipe.split
    found = None
    if task.source is not None:
        found = task.source.rows.get(task.split(split))
    elif (made := task.dataset()) is not None and hasattr(made, "rows"):
        found = len(made.rows(task.split(split)))
    else:
        found = ROWS.get(task.name.removeprefix(PREFIX))
    if found is None and (step.recipe.limit is None or step.recipe.limit > UNKNOWN):
        unknown.append(f"the rows of `{task.name}` (counted as {UNKNOWN})")
    return min(found or UNKNOWN, step.recipe.limit or found or UNKNOWN)


def _judgements(draft: Draft, judges: dict[str, Any], here: Machine, unknown: list[str]) -> Iterator[Item]:
    groups: dict[str, list[Any]] = {}
    for step in draft.plan.judges:
        if not step.folder.complete:
            groups.setdefault(step.judge.model, []).append(step)
    for name, group in groups.items():
        items = sum(_items(step.evaluation, unknown) * step.evaluation.recipe.repeats for step in group)
        if group[0].judge.kind in ("chat", "rules"):
            yield Item("judge", f"{name}: {items} responses", len(group), Need(demand.LIBRARIES))
            continue
        size = judges[name].size if name in judges else None
        need = size and demand.evaluation(size, here, items=items, longest=1, generates=True)
        yield Item("judge", f"{name}: {items} responses", len(group), need)


def _kept(draft: Draft, size: Size | None) -> int:
    """Bytes of a whole model in the store: its weights, and what the donor of its tokenizer has beside."""
    donor = draft.models.get(draft.plan.donor)
    texts = TEXTS
    if donor is not None and donor.path is not None:
        names = present(donor.path, ("config.json", *TOKENIZER_FILES))
        texts = sum((donor.path / name).stat().st_size for name in names)
    return size.nbytes + texts if size else 0


def _lacking(nbytes: int, begun: Path | None) -> int:
    """Bytes that are still to be taken for `nbytes` in a folder that a killed run may have begun: the files
    have their full size then."""
    return max(0, nbytes - held(begun)) if begun else nbytes


def _rooms(plan: Plan, items: Sequence[Item], downloads: Sequence[fetching.Download]) -> list[Room]:
    """Disks with what each will take; folders on one disk count together."""
    places: dict[int, tuple[Path, int, dict[str, int]]] = {}
    wanted = [(plan.store.root, item.kind, item.disk) for item in items]
    meanwhile = max((item.need.scratch for item in items if item.need), default=0)
    wanted.append((plan.store.root, "sums of the processes", meanwhile))
    wanted += [(one.folder, "downloads", one.nbytes or 0) for one in downloads]
    for folder, what, nbytes in wanted:
        number, free = disk(folder)
        _, _, parts = places.setdefault(number, (folder, free, {}))
        if nbytes:
            parts[what] = parts.get(what, 0) + nbytes
    return [Room(folder, sum(parts.values()), free, parts) for folder, free, parts in places.values()]


def _done(plan: Plan) -> dict[str, int]:
    kinds = {
        "scores": plan.scores,
        "merge": [row for row in plan.rows if row.is_merge],
        "eval": [*plan.probes, *plan.evals],
        "judge": plan.judges,
    }
    return {kind: sum(step.folder.complete for step in steps) for kind, steps in kinds.items()}
