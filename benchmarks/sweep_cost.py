"""What a sweep costs beside the evaluation of its points: `harness sweep` of 9 points, a ratio of wall times.

python benchmarks/sweep_cost.py          # the tiny family as it is, and with 10 times the chains
python benchmarks/sweep_cost.py 20       # with 20 times the chains

`sweep` is the whole command on an empty store: its start, gradient statistics, merges, two starting engines,
the evaluation of the base and of 9 points of lambda x p (probes included), table and figure. `alone` is the
time in which as many engines, running and with their libraries loaded, evaluate the same 9 merges, which lie
on disk: weights read, every request asked, answers stored and scored. The ratios are sweep / alone, of wall
time and of the CPU time of all processes."""

from __future__ import annotations

import dataclasses
import itertools
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GRID = {"scale": (0.1, 0.5, 1.0), "p": (0.01, 0.05, 0.1)}
FAMILY = """extends: tiny-safety
title: tiny Qwen2, asked more chains
tasks: [many_chain, tiny_facts, tiny_facts_mc, tiny_refusal, tiny_prose]
"""


def main() -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(ROOT))
    for times in map(int, sys.argv[1:] or ("1", "10")):
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            family = many(Path(folder), times) if times > 1 else "tiny-safety"
            whole, points = swept(family), alone(family)
            os.chdir(ROOT)
        shown = [f"{wall:.1f} s ({cpu:.1f} s CPU)" for wall, cpu in (whole, points)]
        told = f"sweep {shown[0]}, its 9 points alone {shown[1]}"
        ratios = [a / b for a, b in zip(whole, points, strict=True)]
        print(f"{200 * times} chains: {told}, ratio {ratios[0]:.2f} (CPU {ratios[1]:.2f})", flush=True)


def many(folder: Path, times: int) -> str:
    """The tiny family with more chains, as a file."""
    (folder / "tasks").mkdir()
    for suffix in ("yaml", "py"):
        text = (ROOT / "tasks" / f"tiny_chain.{suffix}").read_text().replace("tiny_chain", "many_chain")
        text = text.replace('data.rows("chain", split)', f'data.rows("chain", split, {200 * times})')
        (folder / "tasks" / f"many_chain.{suffix}").write_text(text)
    (folder / "many.yaml").write_text(FAMILY)
    return "./many.yaml"


def swept(family: str) -> tuple[float, float]:
    """Seconds of the command, and its CPU time."""
    command = [sys.executable, "-m", "harness.cli", "sweep", "reasonany", "--family", family]
    command += [f"--grid={key}={','.join(map(str, values))}" for key, values in GRID.items()]
    begun, before = time.perf_counter(), os.times()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    now = os.times()
    cpu = now.children_user + now.children_system - before.children_user - before.children_system
    return time.perf_counter() - begun, cpu


def alone(family: str) -> tuple[float, float]:
    """Seconds of evaluating the points, everything else being done, and CPU time of it."""
    from harness import libraries
    from harness.evaluate.pool import engines_for
    from harness.family import load_family
    from harness.planner import make_plan
    from harness.run import carry_out
    from harness.run.evaluating import row_groups
    from harness.run.local import _Run
    from harness.screen import Screen
    from harness.store import Store
    from harness.sweep import grid

    points = [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]
    rows = {grid.label("reasonany", point): {"method": "reasonany", **point} for point in points}
    loaded, screen = grid.family_of(load_family(family), rows, "validation"), Screen(quiet=True)
    plan = make_plan(loaded, Store(Path("merged"), loaded.name), references=False, prepare=True)
    carry_out(dataclasses.replace(plan, evals=(), probes=()), screen)
    groups = row_groups(plan.evals_to_make())
    assert len(groups) == 9
    libraries.load(libraries.EVALUATION)
    with engines_for(9, None, plan.store.root / "log") as evaluators:
        for evaluator in evaluators:
            evaluator.engine.render(plan.inputs["reasoning"], [{"role": "user", "content": "a"}], True)
        pids = [evaluator.engine.pid for evaluator in evaluators]
        run, begun, before = _Run(plan, screen), time.perf_counter(), used(pids)
        with run.evaluating(evaluators) as waiting:
            for group in groups:
                waiting.put(group)
        return time.perf_counter() - begun, used(pids) - before


def used(pids: list[int]) -> float:
    """CPU seconds of this process and of others so far."""
    ticks = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13] for pid in pids]
    return time.process_time() + sum(int(t) for own in ticks for t in own) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
