"""Kills a comparison at random moments and shows that nothing is lost: `python benchmarks/kills.py --help`.

Each round starts a fresh comparison of the tiny family, kills its engine or the whole of it (SIGKILL) at a
moment drawn from the time that it takes or from the responses that it stores, lets the same command finish,
and checks that it ends well, that no finished step was done again, that no stored response was asked again,
that the table is the same, and that no weights are left in memory. What is asked is written down by the
process itself: every request that is handed to an engine, with the key of its response.
"""

from __future__ import annotations

import argparse
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
from dataclasses import dataclass
from pathlib import Path

METHODS, TASKS, LIMIT = "linear,ties (paper)", "tiny_chain,tiny_refusal,tiny_prose", 24
FAMILY = "tiny-safety"


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
        keys: dict[tuple[str, str], str] = {}
        sent = []
        for line in (self.cwd / "asked.jsonl").read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            if "key" in entry:
                keys[entry["model"], entry["body"]] = entry["key"]
            elif entry["at"] > since:
                sent.append((entry["model"], entry["body"]))
        return {keys[one] for one in sent}


def engines_of(pid: int) -> list[int]:
    """The engine processes that `pid` has started."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError, IndexError):
                continue
            if parent == pid and b"harness.evaluate.serve" in words:
                found.append(int(folder.name))
    return found


@dataclass(frozen=True)
class Moment:
    """When to kill: after so many seconds, or once so many responses are stored."""

    seconds: float = 0.0
    responses: int = 0

    def wait(self, run: Run, process: subprocess.Popen) -> None:
        begun = time.monotonic()
        while process.poll() is None:
            if time.monotonic() - begun >= self.seconds and len(run.stored()) >= self.responses:
                return
            time.sleep(0.02)


def moment(index: int, seconds: float, responses: int, draw: random.Random) -> Moment:
    """Every other one is drawn from the time that a comparison takes, the rest from the responses it stores:
    most of the time of so small a one goes into starting."""
    return (
        Moment(seconds=draw.uniform(0.3, seconds)) if index % 2 else Moment(0.0, draw.randint(1, responses))
    )


def kill(run: Run, what: str, when: Moment, draw: random.Random) -> tuple[float, dict[str, str], dict]:
    """Start, and kill `what`; when that was, what was stored and finished by then. The comparison of a killed
    engine goes on by itself."""
    process = run.start()
    when.wait(run, process)
    victims = [process.pid]
    while what == "engine" and process.poll() is None and not (victims := engines_of(process.pid)):
        time.sleep(0.02)
    victim = draw.choice(victims) if victims else process.pid
    stored, finished, at = run.stored(), run.finished(), time.time()
    if process.poll() is None:
        try:
            os.kill(victim, signal.SIGKILL)
        except ProcessLookupError:  # it has just ended by itself
            pass
    code = process.wait()
    if what == "engine" and code != 0:
        raise AssertionError(f"exit code {code} after the engine was killed: {last(run)}")
    return at, stored, finished


def round_of(run: Run, what: str, when: Moment, expected: list[dict[str, str]], draw: random.Random) -> dict:
    """One kill and what follows; raises AssertionError for what is lost, done again or different."""
    at, stored, finished = kill(run, what, when, draw)
    if what == "parent":
        time.sleep(0.3)  # its engines notice
        if run.start().wait() != 0:
            raise AssertionError(f"the same command fails: {last(run)}")
    now = run.finished()
    again = [str(path) for path, when in finished.items() if now.get(path) != when]
    repeated = run.asked(at) & set(stored) if (run.cwd / "asked.jsonl").exists() else set()
    kept = run.stored()
    lost = [key for key, answer in stored.items() if kept.get(key) != answer]
    if again or repeated or lost:
        raise AssertionError(f"done again {again}, asked again {len(repeated)}, lost {len(lost)}")
    if left := weights_in_memory():
        raise AssertionError(f"left in memory: {left}")
    apart = differences(run.table(), expected)
    if run.engine == "hf" and apart:
        raise AssertionError(f"another table: {apart}")
    drawn = f"{when.responses} responses" if when.responses else f"{when.seconds:.1f} s"
    return {"after": drawn, "steps": len(finished), "responses": len(stored), "of": len(kept), "apart": apart}


def differences(table: list[dict[str, str]], expected: list[dict[str, str]]) -> list[tuple]:
    """(row, task, metric, value, expected value) of cells that are not equal."""
    if len(table) != len(expected):
        raise AssertionError(f"{len(table)} lines in the table, not {len(expected)}")
    return [
        (one["row"], one["task"], one["metric"], one["value"], other["value"])
        for one, other in zip(table, expected, strict=True)
        if one != other
    ]


def weights_in_memory() -> list[str]:
    """Folders of dead processes that the run that came after them has left in shared memory."""
    home = Path(f"/dev/shm/harness-{os.getuid()}")
    folders = [path.name for path in home.iterdir() if path.is_dir()] if home.is_dir() else []
    return [name for name in folders if not Path("/proc", name.partition("-")[0]).exists()]


def last(run: Run) -> str:
    return " | ".join((run.cwd / "said.txt").read_text(encoding="utf-8").splitlines()[-4:])


def reference(folder: Path, engine: str) -> tuple[list[dict[str, str]], float, int, list[tuple]]:
    """The table of a comparison that nobody kills, its seconds, its responses, and what differs in a second
    one (noise)."""
    begun, one = time.monotonic(), Run(folder / "reference", engine)
    if one.start().wait() != 0:
        raise SystemExit(last(one))
    seconds, asked, stored = time.monotonic() - begun, one.asked(0.0), set(one.stored())
    if not asked <= stored or len(asked) < len(stored) / 2:  # what is stored and was not asked are prompts
        raise SystemExit(f"{len(asked)} were seen to be asked, and {len(stored)} are stored")
    if engine == "hf":
        return one.table(), seconds, len(stored), []
    other = Run(folder / "again", engine)
    if other.start().wait() != 0:
        raise SystemExit(last(other))
    return one.table(), seconds, len(stored), differences(other.table(), one.table())


def child(arguments: list[str]) -> None:
    """The comparison itself; it writes down what it hands to engines."""
    from harness.cli import main
    from harness.evaluate import task_run
    from harness.evaluate.engine import Engine
    from harness.store import digest

    log = os.open("asked.jsonl", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    missing, answers = task_run.TaskRun.missing, Engine._answers

    def told(entries: list[dict]) -> None:
        os.write(log, "".join(json.dumps(entry) + "\n" for entry in entries).encode())

    def missing_told(self, kind):  # type: ignore[no-untyped-def]
        found = list(missing(self, kind))
        told([{"model": str(self.request.model), "body": digest(b), "key": k} for k, b in found])
        return iter(found)

    def answers_told(self, checkpoint, kind, left):  # type: ignore[no-untyped-def]
        told([{"model": str(checkpoint), "body": digest(b), "at": time.time()} for b in left.values()])
        return answers(self, checkpoint, kind, left)

    task_run.TaskRun.missing, Engine._answers = missing_told, answers_told
    sys.argv = ["harness", *arguments]
    main()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--engine", default="hf", choices=["hf", "vllm"])
    parser.add_argument("--what", default="parent", choices=["parent", "engine"])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    draw, done, noisy = random.Random(given.seed), 0, 0
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        expected, seconds, responses, noise = reference(Path(name), given.engine)
        print(
            f"{given.engine}: {seconds:.1f} s when nobody kills it; two runs differ in {noise or 'nothing'}"
        )
        for index in range(given.count):
            run = Run(Path(name) / f"kill-{index}", given.engine, ("all", "none")[index % 2])
            when = moment(index // 2, seconds, responses, draw)
            told = round_of(run, given.what, when, expected, draw)
            shutil.rmtree(run.cwd)
            done, noisy = done + 1, noisy + bool(told["apart"])
            print(f"{given.what} {index} --keep-weights {run.keep}: {told}", flush=True)
    print(f"{given.engine}, {given.what}: {done} kills, all finished; {noisy} tables differ from the first")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        main()
