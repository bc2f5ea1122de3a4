"""`harness analyse gradients|masks|vectors`: what lies behind a family's merges."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.text import Text

from harness.checkpoint.devices import check_device, devices_of
from harness.errors import HarnessError, nearest
from harness.figures import write
from harness.plan import Plan
from harness.planner import make_plan
from harness.screen import Screen
from harness.store import Folder, Store, digest, made, slug, write_text
from harness.sweep.partial import write_csv
from harness.train import experts
from harness.verbs import tables as tables_of
from harness.verbs.locked import locked_family

Rows = list[dict[str, Any]]
MASKS = """selected: share of the line's elements that the mask selects; of elements, of selected: the line's
share of the whole model and of the whole selection; energy: |M·τ|² / |τ|²; embeddings, zero gradient, zero
delta, unchanged (once stored): shares of the selected; removed: what exclusion took, of all that was selected
before it; jaccard: overlap before it"""
VECTORS = """relative: |τ| / |θ₀|; cosine: of two task vectors; conflicts: opposite signs, of the elements
that both change"""
GRADIENTS = "means over samples and layers; mad: mean absolute difference from one layer to the next"
LONGEST = 24  # rows of a table that are printed; the CSV has all


def gradients(
    family: str,
    results: Path,
    sets: Sequence[str] | None,
    samples: int | None,
    loss_on: str,
    device: str,
    as_json: bool,
) -> int:
    """Spectra of gradients of the experts and the base on the family's calibration data; the exit code."""
    from harness.analyse import gradients as body
    from harness.figures import layers

    check_device(device)
    plan = _plan(family, results, methods=None)
    wanted = _series(plan, sets)
    found: dict[Any, list] = {}
    with Screen() as screen:
        for series in wanted:
            found[series] = _spectrum(plan, series, samples, loss_on, device, screen)
    by_label = {series.label: norms for series, norms in found.items()}
    drawn = [
        {"module": module, "series": label, "layer": layer, "value": value, "name": "nuclear norm"}
        for label, norms in by_label.items()
        for module, values in body.by_layer(norms).items()
        for layer, value in enumerate(values)
    ]
    folder = _folder(plan.store, "gradients")
    write(layers, "nuclear-norm", drawn, folder)
    return _tell(folder, {"gradients": body.table(by_label)}, body.findings(found), GRADIENTS, as_json)


def masks(family: str, results: Path, methods: Sequence[str] | None, as_json: bool) -> int:
    """What the masks of the stored merges consist of; the exit code."""
    from harness.analyse import forensics
    from harness.figures import masks as figure

    plan = _plan(family, results, methods=methods)
    told = {
        row.label: figures
        for row in plan.rows
        if row.is_merge and (figures := forensics.read(row.folder.path)) is not None
    }
    if not told:
        raise HarnessError(
            f"no stored merge of family `{plan.family.name}` in {results} has masks",
            "run `harness compare` first; linear and task_arithmetic select nothing",
        )
    methods_of = {row.label: type(row.method).method_name for row in plan.rows if row.is_merge}
    tables: dict[str, Rows] = {"totals": [], "modules": [], "layers": []}
    shares: Rows = []
    for label, figures in told.items():
        tables["totals"] += forensics.totals(label, figures)
        tables["modules"] += forensics.composition(label, figures, "module")
        tables["layers"] += forensics.composition(label, figures, "layer")
        shares += figure.shares(label, methods_of[label], figures)
    folder = _folder(plan.store, "masks")
    write(figure, "composition", shares, folder)
    return _tell(folder, tables, [], MASKS, as_json)


def vectors(family: str, results: Path, as_json: bool) -> int:
    """Norms, cosines and sign conflicts of the family's task vectors; the exit code."""
    from harness import inputs
    from harness.analyse import vectors as body
    from harness.figures import layers

    plan = _plan(family, results, methods=None)
    opened = inputs.opened(plan)
    with Screen() as screen:
        rows = body.vectors(
            opened.base, opened.experts, lambda i, n: screen.now("vectors", "the models", i, n)
        )
    roles = list(opened.experts)
    parts = {"all": {"whole model": rows}, "module": _by(rows, "module"), "layer": _by(rows, "layer")}
    tables = {
        name: [{name: part, **body.summed(own, roles)} for part, own in groups.items()]
        for name, groups in parts.items()
    }
    folder = _folder(plan.store, "vectors")
    pairs = [f"{a},{b}" for a, b in itertools.combinations(roles, 2)]
    names = [f"relative:{role}" for role in roles]
    names += [f"{what}:{pair}" for what in ("cosine", "conflicts") for pair in pairs]
    drawn = [
        {"module": name.partition(":")[0], "series": name.partition(":")[2], "layer": row["layer"],
         "value": row[name], "name": name.partition(":")[0]}
        for name in names
        for row in tables["layer"]
        if row["layer"] is not None and row[name] is not None
    ]  # fmt: skip
    write(layers, "by-layer", drawn, folder)
    return _tell(folder, {**tables, "tensors": rows}, [], VECTORS, as_json)


def _plan(family: str, results: Path, methods: Sequence[str] | None) -> Plan:
    """The family's models, ready to be read."""
    from harness import inputs

    loaded, store = locked_family(family, results)
    made = experts.steps(loaded, store)
    if waiting := [step.role for step in made if not step.ready]:
        raise HarnessError(
            f"the expert `{waiting[0]}` of family `{loaded.name}` is not trained yet",
            "run `harness compare` first; it trains what the family says",
        )
    plan = make_plan(experts.trained(loaded, made), store, methods=methods, tasks=[], prepare=True)
    inputs.make(plan)
    return plan


def _series(plan: Plan, sets: Sequence[str] | None) -> list[Any]:
    """Each expert and the base on each role's data, then on the named `ROLE=SET` of `calibration_sets`."""
    from harness.analyse.gradients import Series

    family = plan.family
    if not family.calibration:
        raise HarnessError(
            f"family `{family.name}` has no calibration data", "add `calibration: {reasoning: {data: ...}}`"
        )
    wanted = [(role, None) for role in family.calibration]
    for text in sets or ():
        role, equals, name = text.partition("=")
        if not equals:
            raise HarnessError(f"--sets {text!r} names no set", "write ROLE=SET, as in reasoning=opencode")
        if role not in family.calibration_sets:
            raise HarnessError(f"`{role}` has no `calibration_sets`", nearest(role, family.calibration_sets))
        family.with_calibration(role, name)  # refuses a set that is not there
        wanted.append((role, name))
    return [Series(model, role, name) for role, name in wanted for model in (role, "base")]


def _spectrum(
    plan: Plan, series: Any, samples: int | None, loss_on: str, device: str, screen: Screen
) -> list:
    """From the store, or computed into it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from harness.analyse.spectra import spectra
    from harness.scores.calibration import load_rows

    family = plan.family if series.set is None else plan.family.with_calibration(series.data, series.set)
    spec = family.calibration[series.data]
    rows = load_rows(spec.model_copy(update={"n": samples}) if samples else spec, family.folder)
    recipe = {
        "model": plan.prints[series.model], "rows": digest(rows), "loss_on": loss_on,
        "max_tokens": spec.max_tokens, "dtype": "float32",
    }  # fmt: skip
    name = f"{series.model}--{series.data}" + (f"-{series.set}" if series.set else "")
    folder = Folder(plan.store.root / "spectra" / slug(name, {}, digest(recipe)))
    path = folder.path / "norms.parquet"
    if not folder.complete:
        with folder.working(recipe):
            norms = spectra(
                plan.inputs[series.model], rows, loss_on=loss_on, max_tokens=spec.max_tokens,
                device=(devices_of(device) or _fastest())[0],
                progress=lambda i, n: screen.now("spectra", series.label, i, n),
            )  # fmt: skip
            pq.write_table(pa.Table.from_pylist(norms), path, compression="zstd")
            folder.finish({"samples": len(rows)})
        screen.done("spectra", series.label, f"{len(rows)} samples")
    return pq.read_table(path).to_pylist()


def _fastest() -> list[str]:
    import torch

    return ["cuda:0"] if torch.cuda.is_available() else ["cpu"]


def _by(rows: Rows, key: str) -> dict[Any, Rows]:
    found: dict[Any, Rows] = {}
    for row in rows:
        found.setdefault(row[key], []).append(row)
    return found


def _folder(store: Store, kind: str) -> Path:
    return made(store.root / "analyse" / kind)


def _tell(folder: Path, tables: dict[str, Rows], findings: Sequence[Any], key: str, as_json: bool) -> int:
    """Write every table as CSV, print those that are short, and the `key` to their columns."""
    for name, rows in tables.items():
        write_csv(folder / f"{name}.csv", rows)
    sentences = list(map(str, findings))
    write_text(folder / "findings.txt", "".join(f"{line}\n" for line in sentences))
    if as_json:
        click.echo(json.dumps({**tables, "findings": sentences}, indent=1, ensure_ascii=False))
        return 0
    console = tables_of.console()
    for name, rows in tables.items():
        if len(rows) <= LONGEST:
            console.print(tables_of.table_of(name, rows))
    console.print(Text(" ".join(key.split()), style="dim"))
    if findings:
        tables_of.verdicts("ratios with the 95 % interval of a bootstrap over samples", findings)
    console.print(Text(f"all of it: {folder}/", style="dim"))
    return 0
