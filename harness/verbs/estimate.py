"""`harness plan`: what a comparison takes, before it begins; and the refusal of one that cannot end well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from harness import asked, contamination
from harness.costs import demand
from harness.costs.bill import SLACK, Bill, Item, Room, bill
from harness.costs.draft import Draft, drafted, find_models
from harness.errors import HarnessError
from harness.family import Family
from harness.plan import Plan
from harness.store import Store
from harness.verbs.locked import locked_family

WIDTH = 110


def print_plan(
    family: str,
    methods: Sequence[str] | None,
    tasks: Sequence[str] | None,
    limit: int | None,
    results: Path,
    as_json: bool = False,
    *,
    engine: str = "auto",
    keep_weights: str = "all",
) -> int:
    """Print the steps and what they take; 2 when the comparison would be refused, else 0."""
    loaded, store = locked_family(family, results)
    with drafted(loaded, store, methods=methods, tasks=tasks, limit=limit, engine=engine) as draft:
        found = bill(draft, keep=keep_weights == "all")
        overlaps = contamination.sentences(contamination.of_plan(draft.plan, set(draft.missing)))
        refusals = _refusals(found)
        if as_json:
            click.echo(json.dumps(_data(draft, found, overlaps, refusals), indent=1, ensure_ascii=False))
        else:
            _print(draft, found, overlaps)
    if refusals and not as_json:
        raise refusals[0]
    return 2 if refusals else 0


def refuse(
    family: Family, store: Store, device: str = "auto", keep_weights: str = "all", **wanted: Any
) -> None:
    """Raise HarnessError when something cannot be had, or disk or memory cannot suffice for a comparison,
    before anything is fetched or trained for it. `device` is that of gradients and merges; `wanted` are
    keywords of `make_plan`. A family that is all here is left to `refuse_plan`: its plan costs nothing."""
    here = all(model.path for model in find_models(family, ask=False).values())
    if here and not any(expert.train for expert in family.experts.values()):
        return
    known = wanted.pop("known", None)
    known = known or asked.everything(family, wanted.get("methods"), wanted.get("tasks"))
    with drafted(family, store, known=known, **wanted) as draft:
        found = bill(draft, device=device, keep=keep_weights == "all")
    for error in _refusals(found):
        raise error


def refuse_plan(plan: Plan, device: str = "auto", keep_weights: str = "all") -> None:
    """The same of a plan whose models are all here, for what it has left to do."""
    draft = Draft(plan.family, plan, find_models(plan.family, ask=False))
    for error in _refusals(bill(draft, ask=False, device=device, keep=keep_weights == "all")):
        raise error


def _refusals(found: Bill) -> list[HarnessError]:
    errors = [error for room in found.rooms if (error := _full(room))]
    for item in found.items:
        if item.need and (error := _too_large(item, found)):
            errors.append(error)
    return errors


def _full(room: Room) -> HarnessError | None:
    if not room.needed or room.needed + min(SLACK, room.needed) <= room.free:
        return None
    parts = ", ".join(f"{what} {size(nbytes)}" for what, nbytes in room.parts.items())
    return HarnessError(
        f"{room.folder} needs {size(room.needed)} ({parts}) and its disk has {size(room.free)} free",
        "free some space, choose another disk (`--results DIR`, HF_HOME), or fewer rows (`--methods`)",
    )


def _too_large(item: Item, found: Bill) -> HarnessError | None:
    what = f"{item.kind} `{item.what}`"
    room = max((gpu.total for gpu in found.machine.gpus), default=0)
    count = max(1, len(found.machine.gpus)) if item.need.spread else 1
    if item.need.gpu > room * count:
        where = "on all GPUs and these have" if item.need.spread else "on a GPU and the largest here has"
        return HarnessError(
            f"{what} needs {size(item.need.gpu)} {where} {size(room * count)}",
            "use a GPU with more memory, or leave that row or task out",
        )
    if item.need.host > found.machine.memory:
        return HarnessError(
            f"{what} needs {size(item.need.host)} of memory; this machine has {size(found.machine.memory)}",
            "use a machine with more memory, or a GPU; or leave that row or task out",
        )
    return None


def size(nbytes: float | None) -> str:
    """Bytes for people; `unknown` for None."""
    if nbytes is None:
        return "unknown"
    for unit, digits in (("B", 0), ("KB", 0), ("MB", 0), ("GB", 1)):
        if abs(nbytes) < 1000:
            return f"{nbytes:.{digits}f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.2f} TB"


def _print(draft: Draft, found: Bill, overlaps: list[str]) -> None:
    console = Console(highlight=False, width=WIDTH, markup=False)
    loose = Console(highlight=False, soft_wrap=True, markup=False)
    loose.print(f"{draft.family.name}  {draft.family.title}")
    stored = ", ".join(f"{n} {kind}" for kind, n in found.done.items() if n)
    loose.print(f"in the store already: {stored or 'nothing'}")
    if found.items:
        console.print(_table(found))
    else:
        loose.print("nothing is left to do")
    if found.downloads:
        loose.print(f"to fetch: {_total(found)}")
        for one in found.downloads:
            about = f"{one.about} " if one.about and one.nbytes is not None else ""
            loose.print(f"  {one.ref}  {about}{size(one.nbytes)}  ({one.what})")
    for room in found.rooms:
        if room.needed:
            parts = ", ".join(f"{what} {size(nbytes)}" for what, nbytes in room.parts.items())
            loose.print(f"disk: {size(room.needed)} ({parts}); {size(room.free)} free at {room.folder}")
    loose.print(_memory(found))
    kind = "GPU" if found.machine.gpus else "CPU"
    least = "more than" if found.untimed else "about"
    loose.print(f"time: {least} {found.seconds / 3600:.2g} {kind}-hours, if")
    for line in demand.assumptions(found.machine):
        loose.print(f"  {line}")
    for what, why in draft.missing.items():
        loose.print(f"not final: {what}: {why}; what follows from it counts as to do")
    for model in draft.models.values():
        if model.fault:
            loose.print(f"! {model.use}: {model.fault}")
    for line in overlaps:
        loose.print(f"contamination: {line}")
    for line in found.unknown:
        loose.print(f"unknown: {line}")


def _table(found: Bill) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("step", "what", "memory", "GPU", "disk", "time"):
        table.add_column(title, overflow="fold", no_wrap=title in ("step", "memory", "GPU", "disk", "time"))
    for item in found.items:
        need = item.need
        note = f"  ({need.note})" if need and need.note else ""
        table.add_row(
            item.kind,
            item.what + note,
            size(need and need.host),
            size(need.gpu) if need and need.gpu else "–",
            size(item.disk) if item.disk else "–",
            _time(need.seconds) if need and need.timed else "unknown",
        )
    return table


def _time(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 3600:.2g} h"


def _total(found: Bill) -> str:
    known = sum(one.nbytes for one in found.downloads if one.nbytes is not None)
    open_ = sum(one.nbytes is None for one in found.downloads)
    return size(known) + (f" and {open_} of unknown size" if open_ else "")


def _memory(found: Bill) -> str:
    gpus = f"; GPU {size(found.gpu)} of {size(max(g.total for g in found.machine.gpus))}" if found.gpu else ""
    engines = f", with {found.engines} engines evaluating" if found.engines > 1 else ""
    bound = "at least" if found.partial else "at most"
    return f"memory: {bound} {size(found.host)}{engines}; {size(found.machine.memory)} here{gpus}"


def _data(draft: Draft, found: Bill, overlaps: list[str], refusals: list[HarnessError]) -> dict[str, Any]:
    return {
        "family": draft.family.name,
        "machine": asdict(found.machine),
        "done": found.done,
        "steps": [asdict(item) for item in found.items],
        "downloads": [{**asdict(one), "folder": str(one.folder)} for one in found.downloads],
        "disks": [{**asdict(room), "folder": str(room.folder)} for room in found.rooms],
        "host_bytes": found.host,
        "gpu_bytes": found.gpu,
        "device_seconds": found.seconds,
        "assumptions": demand.assumptions(found.machine),
        "missing": draft.missing,
        "contamination": overlaps,
        "unknown": found.unknown,
        "refused": [str(error) for error in refusals],
    }
