"""The implementation details of a table, in sentences: back-ticks mean code, and the unknown is not told."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from harness.board import NOT_RUN, Board

LIBRARIES = {"merge-harness": "merge-harness", "torch": "PyTorch", "transformers": "transformers",
             "lm_eval": "lm-evaluation-harness", "vllm": "vLLM", "python": "Python"}  # fmt: skip
ENGINES = {"hf": "transformers", "vllm": "vLLM"}
STATISTICS = {
    "gradient": "mean absolute gradients E|g|", "snip": "mean saliencies E|w·g|",
    "fisher": "mean squared gradients E[g²]", "snip_squared": "mean squared saliencies E[(w·g)²]",
    "votes": "per-sample votes on each element",
}  # fmt: skip
SMALL = "no one two three four five six seven eight nine ten eleven twelve".split()


def paragraphs(board: Board) -> list[tuple[str, str]]:
    """(heading, sentences) on models, merging, calibration, decoding, evaluation, statistics, software; a
    part of which nothing is known is left out."""
    told = board.details
    parts = (
        ("Models", _models(told)),
        ("Merging", _merging(told)),
        ("Calibration", _calibration(told)),
        ("Decoding", _decoding(told)),
        ("Benchmarks", _benchmarks(board)),
        ("Statistics", _statistics(board)),
        ("Software", _software(told)),
    )
    made = ((heading, " ".join(sentences)) for heading, sentences in parts)
    return [(heading, text) for heading, text in made if text]


def listed(items: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`; items that hold commas are parted by semicolons."""
    found = list(items)
    if len(found) < 2:
        return "".join(found)
    mark = ";" if any(", " in item for item in found) else ","
    head = f"{mark} ".join(found[:-1])
    return f"{head}{';' if mark == ';' else ''} {last} {found[-1]}"


def counted(n: int, noun: str) -> str:
    """`one merge`, `13 merges`."""
    return f"{SMALL[n] if n < len(SMALL) else n} {noun}{'s' * (n != 1)}"


def _models(told: dict[str, Any]) -> Iterable[str]:
    for model in told.get("models", ()):
        name = "The base model" if model["role"] == "base" else f"The {model['row']} expert"
        name = f"The checkpoint {model['row']}" if model["role"] == "checkpoint" else name
        if model.get("training"):
            yield from _training(name, model["training"])
            continue
        yield f"{name} is {_code(model['model'])} ({_identity(model)})."
    if told.get("merges") and told.get("tokenizer"):
        yield f"Merges have the tokenizer and the chat template of {_the(told, told['tokenizer'])}."
    if told.get("merges") and told.get("vocab", "error") != "error":
        yield f"Embeddings are matched token by token where vocabularies differ (`vocab: {told['vocab']}`)."


def _the(told: dict[str, Any], label: str) -> str:
    role = next((m["role"] for m in told.get("models", ()) if m["row"] == label), "")
    return "the base model" if role == "base" else f"the {label} expert"


def _named(board: Board, label: str) -> str:
    models = {model["row"] for model in board.details.get("models", ())}
    return _the(board.details, label) if label in models else label


def _identity(model: dict[str, Any]) -> str:
    if model.get("revision"):
        return f"revision {_code(model['revision'])}"
    content = f"content hash {_code(model['sha256'][:12])}" if model.get("sha256") else ""
    if model.get("hub"):
        return "revision not pinned" + f", {content}" * bool(content)
    return f"a local checkpoint, {content}" if content else "a local checkpoint"


def _training(name: str, recipe: dict[str, Any]) -> Iterable[str]:
    kind = "LoRA" if recipe.get("recipe", "lora") == "lora" else str(recipe["recipe"])
    rows = f"the first {recipe['n']} rows of " if recipe.get("n") else ""
    at = f" (revision {_code(recipe['revision'])})" if recipe.get("revision") else ""
    data = rows + _code(recipe["data"])
    yield f"{name} was trained with {kind} on {_code(recipe['base'])}{at}, with {data}."
    targets = recipe.get("targets")
    spelled = listed(map(_code, targets)) if isinstance(targets, list) else _code(targets)
    names = (("rank", "r"), ("alpha", "alpha"), ("dropout", "dropout"), ("epochs", "epochs"),
             ("batch size", "batch_size"), ("learning rate", "learning_rate"),
             ("warm-up steps", "warmup_steps"), ("maximum length", "max_tokens"),
             ("seed", "seed"))  # fmt: skip
    found = [f"{title} {_value(recipe[key])}" for title, key in names if recipe.get(key) is not None]
    if targets:
        found.append(f"adapters on {spelled}")
    yield f"Its settings: {', '.join(found)}."


def _merging(told: dict[str, Any]) -> Iterable[str]:
    merges, cited = told.get("merges", []), set()
    if not merges:
        return
    items = []
    for merge in merges:
        new = merge["paper"] and merge["title"] not in cited
        cited.add(merge["title"])
        settings = listed(f"{name} = {_value(value)}" for name, value in merge["settings"].items())
        with_ = f" with {settings}" if settings else " without settings of its own"
        paper = f" ({merge['paper']})" if new else ""
        seeds = merge.get("seeds", ())
        drawn = f", run with seeds {listed(map(str, seeds))}" if len(seeds) > 1 else ""
        items.append(f"{merge['row']}{paper}{with_}{drawn}")
    yield f"The table has {counted(len(items), 'merge')}: {'; '.join(items)}."
    yield "Parameters that are not named have their defaults."
    if told.get("seed") is not None:
        yield f"The seed is {told['seed']} where nothing else is said."


def _calibration(told: dict[str, Any]) -> Iterable[str]:
    used: dict[str, list[str]] = {}
    for merge in told.get("merges", ()):
        for kind in merge["statistics"]:
            used.setdefault(STATISTICS.get(kind, kind), []).append(merge["row"])
    for kind, rows in used.items():
        yield f"{listed(rows)} {'uses' if len(rows) == 1 else 'use'} {kind} over calibration data."
    sets = told.get("calibration", [])
    alike = sets[0]["for"] if sets and all(one["for"] == sets[0]["for"] for one in sets) else []
    for one in sets:
        rows = f"the first {one['n']} rows" if not one["seed"] else f"{one['n']} rows (seed {one['seed']})"
        parts = [f"split {_code(one['split'])}"] + [f"configuration {_code(one['config'])}"] * bool(
            one["config"]
        )
        if one["revision"]:
            parts.append(f"revision {_code(one['revision'])}")
        elif one["hub"]:
            parts.append("revision not pinned")
        yield (
            f"Calibration data of {_the(told, one['row'])} are {rows} of {_code(one['data'])} "
            f"({', '.join(parts)}), at most {one['max_tokens']} tokens each"
            f"{'' if alike else ', read by ' + listed(one['for'])}."
        )
    if alike:
        yield f"They are read by {listed(alike)}."


def _decoding(told: dict[str, Any]) -> Iterable[str]:
    own = [one for one in told.get("decoding", ()) if not one["settings"]]
    for one in told.get("decoding", ()):
        if one["settings"]:
            yield f"{_first(_rows(told, one['rows']))} decode {_way(one['settings'])}."
    ways: dict[str, list[str]] = {}
    for task in told.get("tasks", ()):
        if task["decoding"] and (own or task["own_decoding"]):
            ways.setdefault(_way(task["decoding"]), []).append(task["title"])
    if own and ways:
        who = _rows(told, own[0]["rows"]) if len(told["decoding"]) > 1 else "all models"
        each = listed(f"{listed(titles)} {way}" for way, titles in ways.items())
        yield f"{_first(who)} decode as each benchmark says: {each}."
    elif ways:
        each = (f"{listed(t)} {'is' if len(t) == 1 else 'are'} decoded {way}" for way, t in ways.items())
        yield f"Whatever the model, {listed(each)}."
    template = told.get("chat_template")
    if template is not None and told.get("tasks"):
        yield {
            True: "Prompts go through the model's chat template where the benchmark allows it.",
            False: "No chat template is used.",
            "auto": "Prompts go through the model's chat template where it has one.",
        }[template]


def _rows(told: dict[str, Any], rows: Sequence[str]) -> str:
    names = ["the merges" if row == "merges" else _the(told, row) for row in rows]
    return listed(names)


def _way(settings: dict[str, Any]) -> str:
    sampled = settings.get("do_sample", "temperature" in settings)
    how = ["greedily"]
    if sampled:
        named = (("temperature", "temperature"), ("top-p", "top_p"), ("top-k", "top_k"), ("min-p", "min_p"))
        drawn = [f"{title} {_value(settings[key])}" for title, key in named if key in settings]
        how = [f"by sampling at {listed(drawn)}" if drawn else "by sampling"]
    if "max_gen_toks" in settings:
        how.append(f"with at most {settings['max_gen_toks']} new tokens")
    return " ".join(how)


def _benchmarks(board: Board) -> Iterable[str]:
    tasks = board.details.get("tasks", [])
    if not tasks:
        return
    counts = {h.task: board.n(h) for h in board.headings}
    each = []
    for task in tasks:
        parts = _benchmark(task, counts.get(task["name"], NOT_RUN))
        each.append(task["title"] + (f" ({', '.join(parts)})" if parts else ""))
    yield f"The table has {counted(len(tasks), 'benchmark')}: {'; '.join(each)}."
    profiles = sorted({task["profile"] for task in tasks} - {"lm_eval"})
    if profiles:
        noun = "profile is" if len(profiles) == 1 else "profiles are"
        yield f"The task {noun} {listed(map(_code, profiles))}."
    if board.limit is not None:
        yield f"Only the first {board.limit} items of each benchmark were used."


def _benchmark(task: dict[str, Any], n: str) -> list[str]:
    title, name = (re.sub(r"\W|_", "", task[key].lower()) for key in ("title", "name"))
    parts = [] if title in name else [_code(task["name"])]  # `ppl` says little of lm-eval's wikitext
    if str(task.get("paper") or "").startswith("arXiv:"):
        parts.append(task["paper"])
    if task.get("split"):
        parts.append(f"split {_code(task['split'])}")
    if n != NOT_RUN:
        parts.append(f"{n} items")
    if task.get("place"):
        at = f" at revision {_code(task['revision'])}" if task.get("revision") else ", revision not pinned"
        parts.append(_code(task["place"]) + at)
    if task["repeats"] > 1:
        parts.append(f"mean of {task['repeats']} responses to each item")
    if judge := task.get("judge"):
        at = f" at revision {_code(judge['revision'])}" if judge.get("revision") else ""
        parts.append(f"judged by {_code(judge['model'])}{at}")
    return parts


def _statistics(board: Board) -> Iterable[str]:
    cells = [cell for row in board.rows for cell in row.cells.values()]
    if any(cell.stderr is not None for cell in cells):
        yield "Standard errors are over the items of a benchmark."
    if any(cell.interval for cell in cells):
        yield "Intervals are 95 % confidence intervals."
    seeds = sorted({len(cell.values) for cell in cells if cell.sd is not None})
    if seeds:
        runs = listed(map(str, seeds), "or")
        yield f"Cells with a standard deviation are means over {runs} seeds."
        yield from _components(board)
    tests = sorted({cell.test.test for cell in cells if cell.test is not None and cell.test.p is not None})
    if tests and board.baseline:
        reference = _named(board, board.baseline)
        yield f"Merges were compared with {reference} on the same items: {'; '.join(tests)}."
        yield "The p-values are corrected over the whole table by Holm's method, and significant below 0.05."
    if rule := board.settings.get("collapse"):
        yield f"A merge counts as collapsed where {rule}."


def _components(board: Board) -> Iterable[str]:
    """Where the spread of cells over seeds comes from."""
    parts = []
    for heading in board.headings:
        cells = [cell for row in board.rows if (cell := row.cell(heading)) and cell.sd_items is not None]
        if cells:
            between, within = (
                median(given) for given in zip(*((c.sd, c.sd_items) for c in cells), strict=True)
            )
            parts.append(f"{heading.title} {heading.text(between)} and {heading.text(within)}")
    if parts:
        yield (
            "Their standard deviation between seeds, beside the standard error that the draw of items gives "
            f"a single run (medians over the rows): {'; '.join(parts)}."
        )


def _software(told: dict[str, Any]) -> Iterable[str]:
    for engine in told.get("engines", ()):
        dtype = engine.get("dtype")
        computed = {None: "", "checkpoint": " in the dtype of the checkpoint"}.get(dtype, f" in {dtype}")
        yield f"Models were run by {ENGINES.get(engine['engine'], engine['engine'])}{computed}."
    named = [(title, told.get("versions", {}).get(name)) for name, title in LIBRARIES.items()]
    found = [f"{title} {listed(versions)}" for title, versions in named if versions]
    if found:
        yield f"Versions: {', '.join(found)}."


def _first(text: str) -> str:
    return text[:1].upper() + text[1:]


def _code(text: Any) -> str:
    return "`" + str(text).replace("`", "'") + "`"


def _value(value: Any) -> str:
    if isinstance(value, bool) or value is None or isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, default=str, separators=(",", ":"))
    return f"{value:g}" if isinstance(value, float) else str(value)
