"""What a sweep costs beside the evaluation of its points: `harness sweep` of 9 points, a ratio of wall times.

python benchmarks/sweep_cost.py          # the tiny family as it is, and with 10 times the chains
python benchmarks/sweep_cost.py 20       # with 20 times the chains

`sweep` is the whole command on an empty store: its start, gradient statistics, merges, two starting engines,
the evaluation of the base and of 9 points of lambda x p (probes included), table and figure. `alone` is the
time in which as many engines, running and with their libraries loaded, evaluate the same 9 merges, which lie
on disk: weights read, every request asked, answers stored and scored. The ratio is sweep / alone."""

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
        told = f"sweep {whole:.1f} s, its 9 points alone {points:.1f} s"
        print(f"{200 * times} chains: {told}, ratio {whole / points:.2f}", flush=True)


def many(folder: Path, times: int) -> str:
    """The tiny family with more chains, as a file."""
    (folder / "tasks").mkdir()
    for suffix in ("yaml", "py"):
        text = (ROOT / "tasks" / f"tiny_chain.{suffix}").read_text().replace("tiny_chain", "many_chain")
        text = text.replace('data.rows("chain", split)', f'data.rows("chain", split, {200 * times})')
        (folder / "tasks" / f"many_chain.{suffix}").write_text(text)
    (folder / "many.yaml").write_text(FAMILY)
    return "./many.yaml"


def swept(family: str) -> float:
    """Seconds of the command."""
    command = [sys.executable, "-m", "harness.cli", "sweep", "reasonany", "--family", family]
    command += [f"--grid={key}={','.join(map(str, values))}" for key, values in GRID.items()]
    begun = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return time.perf_counter() - begun


def alone(family: str) -> float:
    """Seconds of evaluating the points, everything else being done."""
    from harness import steps
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
    steps.load_libraries()
    with engines_for(9, None, plan.store.root / "log") as evaluators:
        for evaluator in evaluators:
            evaluator.engine.render(plan.inputs["reasoning"], [{"role": "user", "content": "a"}], True)
        run, begun = _Run(plan, screen), time.perf_counter()
        with run.evaluating(evaluators) as waiting:
            for group in groups:
                waiting.put(group)
        return time.perf_counter() - begun


if __name__ == "__main__":
    main()
