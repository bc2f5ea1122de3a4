"""`harness list` and `harness show`: what can be used here, and everything about one of it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness import registry, tasks
from harness.errors import HarnessError, nearest
from harness.method import parameters


def print_list(kind: str | None, as_json: bool) -> None:
    """Plugins of one kind, or of all."""
    if kind is not None and kind not in registry.KINDS:
        raise HarnessError(f"nothing is listed under `{kind}`", nearest(kind, registry.KINDS))
    kinds = [kind] if kind else list(registry.KINDS)
    found = {k: [e for plugin in registry.find(k).values() for e in _entries(plugin)] for k in kinds}
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    console = Console(highlight=False, soft_wrap=True)
    for k, entries in found.items():
        console.print(k, style="bold")
        width = max((len(e["name"]) for e in entries), default=0)
        for e in entries:
            line = Text(f"  {e['name']:<{width}}  ")
            line.append(f"does not load: {e['error']}" if e["error"] else e["title"])
            line.append(f"  {e['source']}", style="dim")
            console.print(line)


def _entries(plugin: registry.Plugin) -> list[dict[str, Any]]:
    """What a plugin file offers: itself, or all the variants of a method file that has variants."""
    try:
        if plugin.kind != "methods" or not registry.has_variants(plugin):
            return [_entry(plugin)]
        names = registry.load(plugin).variants()
    except HarnessError as error:
        return [{**_entry(plugin), "error": f"{error.message}; {error.hint}"}]
    return [_entry(replace(plugin, name=f"{plugin.name}:{name}")) for name in names]


def _entry(plugin: registry.Plugin) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": plugin.name,
        "title": "",
        "source": plugin.source,
        "path": str(plugin.path),
        "error": None,
    }
    try:
        entry["title"] = _title(plugin)
    except HarnessError as error:
        entry["error"] = error.message
    return entry


def _title(plugin: registry.Plugin) -> str:
    if plugin.kind == "methods":
        _, colon, variant = plugin.name.partition(":")
        method = registry.method(f"{plugin.path}{colon}{variant}")
        return f"{method.title}  {method.paper}".rstrip()
    if plugin.kind == "reports":
        registry.report(str(plugin.path))
        return (registry.load(plugin).__doc__ or "").strip().splitlines()[0]
    if plugin.kind == "families":
        from harness.family import parse_family

        return parse_family(plugin.path).title
    if plugin.kind == "studies":
        from harness.sweep.study import load_study

        return load_study(str(plugin.path)).title
    if plugin.kind == "suites":
        return ", ".join(tasks.expanded(plugin.name))
    from harness.evaluate.task_file import load_task

    return load_task(plugin.path).header["title"]


def print_one(kind: str, name: str, as_json: bool) -> None:
    """One method, task, suite, family or study."""
    about = {"method": _method, "task": _task, "suite": _suite, "family": _family, "study": _study}
    if kind not in about:
        raise HarnessError(f"nothing to show of kind `{kind}`", nearest(kind, about))
    facts = about[kind](name)
    if as_json:
        click.echo(json.dumps(facts, indent=1, ensure_ascii=False, default=str))
        return
    console = Console(highlight=False)
    table, about = facts.pop("parameters", None), facts.pop("about", None)
    for key, value in facts.items():
        for index, line in enumerate(_lines(value)):
            console.print(
                Text(f"{key if index == 0 else '':<18}", style="bold").append(line, style="not bold")
            )
    if about:
        console.print(Text(f"\n{about}\n"), soft_wrap=True)
    if table:
        console.print(_parameter_table(table))


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return value.strip().splitlines() or [""]
    if isinstance(value, dict):
        return [
            f"{k}: {json.dumps(v, ensure_ascii=False, default=str) if not isinstance(v, str) else v}"
            for k, v in value.items()
        ] or ["–"]
    return [", ".join(map(str, value))] if isinstance(value, (list, tuple)) else [str(value)]


def _method(name: str) -> dict[str, Any]:
    method = registry.method(name)
    plugin = registry.get("methods", name)
    listed = {
        key: {
            "type": _type(hint),
            "default": default,
            "low": spec.low,
            "high": spec.high,
            "no_op": spec.noop,
            "help": spec.help,
        }
        for key, (hint, default, spec) in parameters(method).items()
    }
    return {
        "name": method.method_name,
        "title": method.title,
        "paper": method.paper,
        "source": plugin.source,
        "path": str(plugin.path),
        "about": (registry.load(plugin).__doc__ or "").strip(),
        "parameters": listed,
    }


def _type(hint: Any) -> str:
    text = getattr(hint, "__name__", None) if isinstance(hint, type) else str(hint)
    return str(text).replace("typing.", "").replace("NoneType", "null")


def _parameter_table(listed: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in ("parameter", "default", "range", "no-op", "what it does"):
        table.add_column(title)
    for key, spec in listed.items():
        low, high = spec["low"], spec["high"]
        span = (
            ""
            if low is None and high is None
            else f"{'' if low is None else f'{low:g}'} … {'' if high is None else f'{high:g}'}"
        )
        if "Literal" in spec["type"]:
            span = spec["type"].removeprefix("Literal[").rstrip("]").replace("'", "")
        table.add_row(
            key,
            "" if spec["default"] is None else str(spec["default"]),
            span,
            "" if spec["no_op"] is None else str(spec["no_op"]),
            spec["help"],
        )
    return table


def _task(name: str) -> dict[str, Any]:
    (task,) = tasks.named([name])
    facts = {
        "name": task.name,
        "path": str(task.path),
        **task.header,
        "columns": {
            c.key: f"{c.title} {'↑' if c.higher_is_better else '↓'} ({c.group})" for c in task.columns
        },
    }
    if task.source is not None:
        source = task.source
        files = {split: " or ".join(names) for split, names in source.files.items()}
        facts["data"] = {"folder": str(source.folder), **files, "published at": source.address or source.hint}
    return facts


def _suite(name: str) -> dict[str, Any]:
    plugin = registry.get("suites", name)
    return {"name": name, "path": str(plugin.path), "tasks": list(tasks.expanded(name))}


def _study(name: str) -> dict[str, Any]:
    from harness.sweep.claims import asked
    from harness.sweep.study import load_study

    study = load_study(name)
    facts = study.model_dump(mode="json", exclude_defaults=True, exclude={"claims"})
    facts |= {"path": str(registry.get("studies", name).path)}
    claims = {asked(claim): claim.sentence for claim in study.claims}
    return {**facts, "claims": claims} if claims else facts


def _family(name: str) -> dict[str, Any]:
    from harness.family import load_family
    from harness.family.pins import pins

    family = load_family(name)
    facts = family.model_dump(mode="json", exclude_none=True, by_alias=True)
    methods = {row.label: {"method": row.method, **row.settings} for row in family.rows()}
    return {**facts, "methods": methods, "revisions": pins(family)}
