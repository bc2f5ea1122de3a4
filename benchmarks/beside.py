"""Several commands at once in one results folder: `python benchmarks/beside.py --seed 1 --lives 8`.

A life is an empty folder in which commands begin at random moments, some together, some the same. Each must
end well, or, where it only reads and finds nothing yet, with two lines. Then all of them once more, one after
the other: nothing may be left to evaluate. Last, the table of the whole comparison must be that of one that
nothing disturbed, and nothing half written and no failure may be left.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.kills import Run  # noqa: E402

FEW = ("--limit", "24")
WORK = [
    ("compare", *FEW),
    ("compare", "--methods", "linear,ties", "--tasks", "tiny_chain,tiny_prose", *FEW),
    ("compare", "--methods", "ties,linear", "--keep-weights", "none", *FEW),
    ("compare", "--methods", "ties,linear", "--equal-budget", "2", "--search", "random", *FEW),
    ("sweep", "reasonany", "--grid", "scale=0.1,0.5", *FEW),
    ("study", "selection", *FEW),
]
READ = [("status",), ("report",), ("leaderboard",), ("explain", "--all"), ("analyse", "masks"),
        ("clean", "--failed")]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lives", type=int, default=2)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        alone = Path(scratch) / "alone"
        run(alone, WORK[0])
        expected, wrong = Run(alone).table(), 0
        for number in range(given.lives):
            found = life(Path(scratch) / str(number), random.Random(f"{given.seed}-{number}"), expected)
            print(f"life {number}: {'; '.join(found) or 'well'}", flush=True)
            wrong += bool(found)
    print(f"{given.lives - wrong} of {given.lives} lives went well")
    return 1 if wrong else 0


def life(cwd: Path, draw: random.Random, expected: list[dict[str, str]]) -> list[str]:
    """What went wrong in one folder."""
    chosen = [draw.choice(WORK) for _ in range(4)] + [draw.choice(READ) for _ in range(2)]
    if draw.random() < 0.5:
        chosen[1] = chosen[0]
    draw.shuffle(chosen)
    begun = []
    for number, command in enumerate(chosen):
        begun.append(begin(cwd, command, number))
        time.sleep(draw.choice([0, 0, draw.uniform(0, 2), draw.uniform(0, 12)]))
    print(f"  {', '.join(' '.join(command[:2]) for command in chosen)}", flush=True)
    wrong = []
    for command, (process, said) in zip(chosen, begun, strict=True):
        code, text = process.wait(600), said.read_text(errors="replace")
        empty = command in READ and code == 2 and "hint: " in text
        if "Traceback" in text or (code and not empty):
            wrong.append(f"{' '.join(command)} ended with {code}: {text[-1500:]}")
    for command in dict.fromkeys(chosen):
        if command in WORK and "✓ eval" in (text := run(cwd, command)):
            wrong.append(f"{' '.join(command)} had something left to do: {text[-1500:]}")
    run(cwd, WORK[0])
    wrong += ["another table"] * (Run(cwd).table() != expected)
    left = [*cwd.rglob("*.tmp"), *cwd.rglob("error.txt"), *cwd.rglob(".writable*")]
    return wrong + [f"left: {path}" for path in left]


def begin(cwd: Path, command: tuple[str, ...], mark: object) -> tuple[subprocess.Popen, Path]:
    cwd.mkdir(exist_ok=True)
    said = cwd / f"said-{mark}.txt"
    root = str(Path(__file__).resolve().parent.parent)
    environment = {**os.environ, "PYTHONPATH": root, "HF_HUB_OFFLINE": "1"}
    with said.open("w") as file:
        line = [sys.executable, "-m", "harness.cli", *command]
        return subprocess.Popen(line, cwd=cwd, env=environment, stdout=file, stderr=file), said


def run(cwd: Path, command: tuple[str, ...]) -> str:
    """A command by itself, which must end well; what it said."""
    process, said = begin(cwd, command, "alone")
    if process.wait(600):
        raise SystemExit(f"{' '.join(command)} failed:\n{said.read_text()[-3000:]}")
    return said.read_text()


if __name__ == "__main__":
    sys.exit(main())
