"""`harness new family`: a family file from options, or from questions where someone sits at the terminal."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from harness import registry, yamlfile
from harness.errors import HarnessError, nearest
from harness.family import Family, obtain, parse_family
from harness.scores.calibration import columns
from harness.store import write_text

NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
ROLE = re.compile(r"[A-Za-z]\w*")
PAIRS = (
    ("prompt", "completion"),
    ("question", "answer"),
    ("instruction", "output"),
    ("problem", "solution"),
)  # columns that are commonly asked and said
Ask = Callable[[str, str], str]  # (question, default) -> answer


@dataclass
class Wanted:
    """What the new family shall hold; refs are hub ids, or paths from the working folder."""

    title: str = ""
    extends: str = ""
    base: str = ""
    experts: dict[str, str] = field(default_factory=dict)
    calibration: dict[str, str] = field(default_factory=dict)
    tasks: Sequence[str] = ()


def new_family(name: str, to: Path | None, wanted: Wanted, ask: Ask | None = None) -> Path:
    """Write `./families/NAME.yaml`, or the file `to`, and check it; its path.

    `ask` is asked for what is lacking; without it that is an error. Raises HarnessError for a name that is
    taken or a file that exists; a file that does not pass as a family is not left behind.
    """
    path = Path("families", f"{name}.yaml") if to is None else to
    _free(name, path)
    _complete(name, wanted, ask)
    text = _text(wanted, path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text)
    try:
        family = parse_family(path)
        _known_tasks(family)
    except HarnessError:
        path.unlink()
        raise
    return path


def verb(name: str, to: Path | None, wanted: Wanted) -> int:
    """Write the file, asking for what is lacking where a person can answer; the exit code."""

    def ask(question: str, default: str) -> str:
        return click.prompt(question, default=default, show_default=bool(default), err=True)

    path = new_family(name, to, wanted, ask if sys.stdin.isatty() else None)
    click.echo(path)
    click.echo(f"next: harness show family {reference(path)}", err=True)
    return 0


def pairs(given: Sequence[str], option: str) -> dict[str, str]:
    """`role=value` options by role."""
    found: dict[str, str] = {}
    for text in given:
        role, sign, value = text.partition("=")
        if not sign or not value or not ROLE.fullmatch(role):
            raise HarnessError(
                f"{option} {text!r} is not ROLE=VALUE", f"for example `{option} reasoning=org/model`"
            )
        if role in found:
            raise HarnessError(f"{option} {role} is given twice", "keep one of them")
        found[role] = value
    return found


def _free(name: str, path: Path) -> None:
    if not NAME.fullmatch(name):
        raise HarnessError(
            f"a family cannot be called `{name}`",
            "letters, digits, `-`, `_` and `.`, a letter or digit first",
        )
    if path.exists():
        raise HarnessError(f"{path} exists", "choose another name, or edit the file")
    taken = registry.find("families").get(name)
    if taken is not None:
        raise HarnessError(
            f"a family is called `{name}` already: {taken.path}", f"`--extends {name}` builds on it"
        )


def _complete(name: str, wanted: Wanted, ask: Ask | None) -> None:
    if wanted.extends:
        return
    lacking = [
        option for option, given in (("--base", wanted.base), ("--expert", wanted.experts)) if not given
    ]
    if lacking and ask is None:
        raise HarnessError(
            f"`{name}` lacks {' and '.join(lacking)}",
            "`--base REF --expert reasoning=REF --expert task=REF`, or `--extends FAMILY`",
        )
    if ask is None:
        return
    if lacking:
        wanted.title = wanted.title or ask("title", name)
    wanted.base = wanted.base or ask("base model, a folder or hub id", "")
    if not wanted.experts:
        for role in ("reasoning", "task"):
            if ref := ask(f"{role} expert, a folder or hub id (empty: none)", ""):
                wanted.experts[role] = ref
    if lacking and not wanted.calibration:
        for role in wanted.experts:
            if data := ask(f"calibration data of {role}, a file or hub data set (empty: none)", ""):
                wanted.calibration[role] = data
    if lacking and not wanted.tasks:
        wanted.tasks = [t.strip() for t in ask("tasks or suites", "reasoning").split(",") if t.strip()]


def _text(wanted: Wanted, folder: Path) -> str:
    lines = ["# A family: `harness show family` prints it, docs/families.md says what every key means."]
    if wanted.extends:
        extended = registry.get("families", wanted.extends)
        by_path = extended.name != wanted.extends
        name = os.path.relpath(extended.path, folder) if by_path else wanted.extends
        lines += [f"extends: {_quoted(name)}    # all that is not said here"]
    if wanted.title or not wanted.extends:
        lines += [f"title: {_quoted(wanted.title or 'a base and its experts')}"]
    if wanted.base:
        lines += [
            f"base: {_model(wanted.base, folder)}    # a folder beside this file, or org/name[@revision]"
        ]
    if wanted.experts:
        lines += [
            "experts:    # the order is the order methods see; `reasoning` is the role of the reasoning model"
        ]
        lines += [f"  {role}: {_model(ref, folder)}" for role, ref in wanted.experts.items()]
    if wanted.calibration:
        lines += ["calibration:    # rows whose gradients LED, ReasonAny and RCP read"]
        for role, data in wanted.calibration.items():
            lines += _calibration(role, data, folder)
    if wanted.tasks:
        lines += [f"tasks: [{', '.join(map(_quoted, wanted.tasks))}]"]
    if not wanted.extends:
        lines += OTHERS
    return "\n".join(lines) + "\n"


OTHERS = """\
# tokenizer: reasoning                  # whose tokenizer and chat template merges get
# generation:                           # decoding by role: base, reasoning, task, merge
#   reasoning: {max_gen_toks: 32768, do_sample: true, temperature: 0.6, top_p: 0.95}
#   merge: {max_gen_toks: 32768, do_sample: true, temperature: 0.6, top_p: 0.95}
# methods:                              # rows; without this key every streaming method is one
#   task_arithmetic: {scale: 0.3}
#   ties: {density: 0.1, scale: 0.3}
# rows:                                 # checkpoints that exist, shown beside the merges
#   released: org/name""".splitlines()


def _calibration(role: str, data: str, folder: Path) -> list[str]:
    path = Path(data).expanduser()
    ref = _path(data, folder) if path.exists() else data
    held = columns(path) if path.is_file() else []
    asked, said = next((pair for pair in PAIRS if {*pair} <= {*held}), PAIRS[0])
    text = (
        {"text": "{text}"}
        if "text" in held
        else {"text": f"{{{asked}}}{{{said}}}", "completion": f"{{{said}}}"}
    )
    about = f"its columns are {', '.join(held)}" if held else "braces name the data's columns"
    return [
        f"  {role}:",
        f"    data: {_quoted(ref)}",
        *(f"    {key}: {_quoted(value)}" for key, value in text.items()),
        f"    n: 100    # {about}",
    ]


def _model(ref: str, folder: Path) -> str:
    found = obtain.local(ref, Path.cwd())  # an error where it is neither a folder nor a hub id
    return _quoted(ref if found is None else _path(ref, folder))


def _path(ref: str, folder: Path) -> str:
    """A path from the working folder, as the file in `folder` writes it."""
    path = Path(ref).expanduser()
    return str(path) if path.is_absolute() else os.path.relpath(path, folder)


def _quoted(value: str) -> str:
    """A YAML scalar: plain where that is safe."""
    plain = re.fullmatch(r"[A-Za-z./][\w./@-]*", value) and yamlfile.value(value) == value
    return value if plain else json.dumps(value, ensure_ascii=False)


def _known_tasks(family: Family) -> None:
    known = {*registry.find("tasks"), *registry.find("suites")}
    for name in family.tasks:
        if name not in known and ":" not in name and "/" not in name:
            raise HarnessError(f"no task is called `{name}`", nearest(name, known))


def reference(path: Path) -> str:
    """What `--family` takes for a file just written."""
    if path.parent == Path("families"):
        return path.stem
    return str(path) if path.is_absolute() else f"./{path}"
