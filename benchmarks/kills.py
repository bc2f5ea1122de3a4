"""Kills a comparison at random moments and shows that nothing is lost: `python benchmarks/kills.py --help`.

Each life is a fresh comparison of the tiny family. Its engine or the whole of it is killed (SIGKILL) at a
moment drawn from the time that it takes or from the responses that it stores; then the same command goes on,
and is killed again. In the end it must have ended well, no finished step done again, no stored response asked
again, the table the same, and no weights left in memory. What is asked is written down by the process itself:
every request that is handed to an engine, with the key of its response.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FAMILY, LIMIT = "tiny-safety", 8
LOG = "asked.jsonl"
METHODS, TASKS = "linear,ties (paper)", "tiny_chain,tiny_refusal,tiny_prose"
LIFE = {"parent": 5, "engine": 2, "nursery": 2}  # kills; three of an engine without an answer fail its step


@dataclass(frozen=True)
class Run:
    """One comparison in the folder `cwd`."""

    cwd: Path
    engine: str = "hf"
    keep: str = "all"

    def start(self) -> subprocess.Popen:
        command = [sys.executable, __file__, "--child", "compare", "--family", FAMILY, "--methods", METHODS,
                   "--tasks", TASKS, "--limit", str(LIMIT), "--engine", self.engine, "--keep-weights",
                   self.keep]  # fmt: skip
        self.cwd.mkdir(parents=True, exist_ok=True)
        with (self.cwd / "said.txt").open("a") as said:
            return subprocess.Popen(command, cwd=self.cwd, stdout=said, stderr=said, start_new_session=True)

    @property
    def store(self) -> Path:
        return self.cwd / "results" / FAMILY

    def table(self) -> list[dict[str, str]]:
        """The table without what a step cost and where it lies."""
        with (self.store / "report" / "table.csv").open(encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        cost = ("merge_seconds", "peak_mib", "model_folder", "eval_folder", "eval_folders")
        return [{k: v for k, v in line.items() if k not in cost} for line in lines]

    def finished(self) -> dict[Path, int]:
        """When each step was completed."""
        return {path: path.stat().st_mtime_ns for path in self.store.rglob("done.json")}

    def stored(self) -> dict[str, str]:
        """Every stored response by its key."""
        found: dict[str, str] = {}
        for path in self.store.glob("responses/*/*.sqlite"):
            with sqlite3.connect(path, timeout=30) as db:
                if db.execute("select 1 from sqlite_master where name = 'responses'").fetchone():
                    found |= dict(db.execute("select key, answer from responses"))
        return found

    def asked(self, since: float) -> set[str]:
        """The keys of what was handed to an engine from a moment on."""
        log = self.cwd / LOG
        keys: dict[tuple[str, str], str] = {}
        sent = []
        for line in log.read_text(encoding="utf-8").splitlines() if log.exists() else ():
            entry = json.loads(line)
            if "key" in entry:
                keys[entry["model"], entry["body"]] = entry["key"]
            elif entry["at"] > since:
                sent.append((entry["model"], entry["body"]))
        return {keys[one] for one in sent}


def engines_of(pid: int) -> list[int]:
    """The engine processes of `pid`: its own children, or forked by one of them."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "comm").read_text().startswith("engine "):
                parent = parent_of(int(folder.name))
                found += [int(folder.name)] if pid in (parent, parent_of(parent)) else []
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@dataclass(frozen=True)
class Hit:
    """A kill: when it was, and what was stored and finished by then."""

    drawn: str
    at: float
    stored: dict[str, str]
    finished: dict[Path, int]


@dataclass
class Undisturbed:
    """A comparison that nobody kills: its table, how long it takes, how much it stores, and the cells in
    which a second one differs."""

    table: list[dict[str, str]]
    seconds: float
    responses: int
    noise: list[tuple]


def now(run: Run, drawn: str = "") -> Hit:
    """A kill at this moment."""
    stored, finished = run.stored(), run.finished()
    return Hit(drawn, time.time(), stored, finished)


def strike(
    run: Run, process: subprocess.Popen, what: str, usual: Undisturbed, draw: random.Random
) -> Hit | None:
    """Kill `what` at a random moment: after a share of the time that a comparison takes, or when so many more
    responses are stored (most of the time of so small a one goes into starting). None where it had ended."""
    begun, had = time.monotonic(), len(run.stored())
    late = draw.random() < 0.5 or had >= usual.responses
    while_there = usual.seconds * (1 if what == "parent" else 0.6)  # before the end there are only reports
    seconds = draw.uniform(0.3, while_there) if late else 0.0
    responses = 0 if late else draw.randint(had + 1, usual.responses)
    while process.poll() is None:
        ripe = time.monotonic() - begun >= seconds and len(run.stored()) >= responses
        victims = [process.pid] if what == "parent" else engines_of(process.pid)
        if ripe and victims:
            hit = now(run, f"{seconds:.1f} s" if late else f"{responses} responses")
            with contextlib.suppress(OSError):  # it has just ended by itself
                first = draw.choice(victims)
                rest = [*victims, parent_of(first)] if what == "nursery" else []  # as where memory runs out
                os.kill(first, signal.SIGKILL)
                for one in rest:
                    with contextlib.suppress(ProcessLookupError):  # the kill counts: it has been
                        os.kill(one, signal.SIGKILL)
                return hit
        time.sleep(0.02)
    return None


def life(run: Run, what: str, usual: Undisturbed, draw: random.Random, most: int) -> list[Hit]:
    """One comparison, killed up to `most` times on its way to its end."""
    hits: list[Hit] = []
    process = run.start()
    while len(hits) < most and (hit := strike(run, process, what, usual, draw)):
        hits.append(hit)
        if what == "parent":  # an engine's comparison goes on by itself
            process.wait()
            process = run.start()
    if (code := process.wait()) != 0:
        raise AssertionError(f"exit code {code} after {len(hits)} kills: {last(run)}")
    return hits


def check(run: Run, hits: list[Hit], usual: Undisturbed) -> list[tuple]:
    """What a comparison that was killed must show in the end; raises AssertionError. Returns the cells of its
    table that are not as usual: for `hf` there are none."""
    finished, stored = run.finished(), run.stored()
    for hit in hits:
        again = [str(path) for path, when in hit.finished.items() if finished.get(path) != when]
        repeated = run.asked(hit.at) & set(hit.stored)
        lost = [key for key, answer in hit.stored.items() if stored.get(key) != answer]
        if again or repeated or lost:
            raise AssertionError(f"done again {again}, asked again {len(repeated)}, lost {len(lost)}")
    if left := weights_in_memory():
        raise AssertionError(f"left in memory: {left}")
    apart = differences(run.table(), usual.table)
    if run.engine == "hf" and apart:
        raise AssertionError(f"another table: {apart}")
    return apart


def campaign(
    folder: Path, engine: str, what: str, count: int, usual: Undisturbed, draw: random.Random
) -> Iterator[str]:
    """Lives until there were `count` kills; says what each was."""
    done, lives = 0, 0
    while done < count:
        run = Run(folder / f"life-{lives}", engine, ("all", "none")[lives % 2])
        hits = life(run, what, usual, draw, min(LIFE[what], count - done))
        apart = check(run, hits, usual)
        done, lives = done + len(hits), lives + 1
        if not hits:  # this machine has become faster
            usual.seconds *= 0.8
        when = [f"{hit.drawn} ({len(hit.finished)} steps, {len(hit.stored)} responses)" for hit in hits]
        yield f"{what} --keep-weights {run.keep}: killed after {'; '.join(when) or '-'}; apart: {apart}"
        shutil.rmtree(run.cwd)


def differences(table: list[dict[str, str]], expected: list[dict[str, str]]) -> list[tuple]:
    """(row, task, metric, column, value, expected value) where they are not equal."""
    if len(table) != len(expected):
        raise AssertionError(f"{len(table)} lines in the table, not {len(expected)}")
    return [
        (one["row"], one["task"], one["metric"], name, one.get(name), other.get(name))
        for one, other in zip(table, expected, strict=True)
        for name in one | other
        if one.get(name) != other.get(name)
    ]


def weights_in_memory() -> list[str]:
    """Folders of dead processes that the run that came after them has left in shared memory."""
    home = Path(f"/dev/shm/harness-{os.getuid()}")
    folders = [path.name for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    return [name for name in folders if not Path("/proc", name.partition("-")[0]).exists()]


def last(run: Run) -> str:
    return " | ".join((run.cwd / "said.txt").read_text(encoding="utf-8").splitlines()[-4:])


def reference(folder: Path, engine: str) -> Undisturbed:
    """A comparison that nobody kills, shown to write down what it asks; for vLLM two."""
    begun, one = time.monotonic(), Run(folder / "reference", engine)
    if one.start().wait() != 0:
        raise SystemExit(last(one))
    seconds, asked, stored = time.monotonic() - begun, one.asked(0.0), set(one.stored())
    if not asked <= stored or len(asked) < len(stored) / 2:  # what is stored and was not asked are prompts
        raise SystemExit(f"{len(asked)} were seen to be asked, and {len(stored)} are stored")
    if engine == "hf":
        return Undisturbed(one.table(), seconds, len(stored), [])
    other = Run(folder / "again", engine)
    if other.start().wait() != 0:
        raise SystemExit(last(other))
    return Undisturbed(one.table(), seconds, len(stored), differences(other.table(), one.table()))


def watch(log: str) -> None:
    """From now on this process appends what it hands to engines to the file `log`."""
    from harness.evaluate import task_run
    from harness.evaluate.engine import Engine
    from harness.store import digest

    file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    missing, answers = task_run.TaskRun.missing, Engine._answers

    def told(entries: list[dict]) -> None:
        os.write(file, "".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def missing_told(self, kind):  # type: ignore[no-untyped-def]
        found = list(missing(self, kind))
        told([{"model": str(self.request.model), "body": digest(b), "key": k} for k, b in found])
        return iter(found)

    def answers_told(self, checkpoint, kind, left):  # type: ignore[no-untyped-def]
        told([{"model": str(checkpoint), "body": digest(b), "at": time.time()} for b in left.values()])
        return answers(self, checkpoint, kind, left)

    task_run.TaskRun.missing, Engine._answers = missing_told, answers_told


def child(arguments: list[str]) -> None:
    """The comparison itself; it writes down what it hands to engines."""
    from harness.cli import main

    watch(LOG)
    sys.argv = ["harness", *arguments]
    main()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="hf", choices=["hf", "vllm"])
    parser.add_argument("--what", default="parent", choices=list(LIFE))
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    if given.what == "nursery" and given.engine != "hf":
        parser.error("only hf engines are forked")
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        usual, draw = reference(Path(name), given.engine), random.Random(given.seed)
        print(f"{given.engine}: {usual.seconds:.1f} s undisturbed; two differ in {usual.noise or 'nothing'}")
        for line in campaign(Path(name), given.engine, given.what, given.count, usual, draw):
            print(line, flush=True)
    print(f"{given.engine}: {given.count} kills of the {given.what}, seed {given.seed}: all went on")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
