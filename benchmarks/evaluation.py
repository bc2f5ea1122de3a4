"""Evaluation against a shell loop of lm-eval's command: whole commands, ratios, the same scores.

python benchmarks/evaluation.py                         # hf: 6 merges x 4 tasks of the tiny family
python benchmarks/evaluation.py --engine vllm --untied  # vLLM, on copies whose output embedding is their own
python benchmarks/evaluation.py --loop 2                # the loop over 2 of the 6 merges, times 3

`ours` is `harness compare` of the six rows from nothing: the merges are made, the three references are
evaluated as well, there are probes and a report. The loop is `lm_eval --model E --tasks T` once per merge
and task, on the merges that ours made, with the same task files, the same batch size and dtype. What both
score is compared: with hf it has to be equal, with vLLM the largest difference of a metric is printed."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ROOT / "harness" / "families"
METHODS = ("linear", "task_arithmetic", "task_arithmetic (paper)", "ties", "ties (paper)", "dare")
TASKS = ("tiny_chain", "tiny_facts_mc", "tiny_refusal", "tiny_prose")
ENVIRONMENT = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
BATCH = {"hf": "128", "vllm": "auto"}  # what the harness takes for a model of this size
# The loop gets vLLM's faster start as well: nothing compiled, a small cache, no second process.
EAGER = ",enforce_eager=True"
VLLM = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}


def main() -> None:
    asked = arguments()
    with tempfile.TemporaryDirectory() as temporary:
        where = Path(temporary)
        family = untied(where / "family") if asked.untied else FAMILIES / "tiny-safety.yaml"
        ours = timed(compare(asked, family), where)
        print(f"ours  {ours}", flush=True)
        merges = made(where / "results" / family.stem)
        part = dict(list(merges.items())[: asked.loop or len(merges)])
        spent, found = [], {}
        for name, (folder, _) in part.items():
            model = where / f"model-{len(found)}"  # lm-eval takes no path with a comma
            model.symlink_to(folder)
            for task in TASKS:
                out = where / "loop" / name / task
                spent.append(timed(lm_eval(asked, model, task, out), where))
                print(f"loop  {name} {task}: {spent[-1]}", flush=True)
                found[name, task] = scores(out)
        scale = len(merges) / len(part)
        loop = Spent(sum(s.wall for s in spent) * scale, sum(s.cpu for s in spent) * scale)
        report(asked, ours, loop, len(part), differences(part, found))


def arguments() -> argparse.Namespace:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    asked.add_argument("--engine", choices=tuple(BATCH), default="hf")
    asked.add_argument("--untied", action="store_true")
    asked.add_argument("--loop", type=int, metavar="N", help="merges that the loop evaluates (default: all)")
    return asked.parse_args()


class Spent:
    """Seconds of a whole command and of all its processes."""

    def __init__(self, wall: float, cpu: float) -> None:
        self.wall, self.cpu = wall, cpu

    def __str__(self) -> str:
        return f"{self.wall:.1f} s wall, {self.cpu:.1f} s CPU"


def timed(command: list[str], where: Path) -> Spent:
    def used() -> float:
        spent = resource.getrusage(resource.RUSAGE_CHILDREN)
        return spent.ru_utime + spent.ru_stime

    begun, before = time.perf_counter(), used()
    done = subprocess.run(command, cwd=where, env=ENVIRONMENT | VLLM, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Spent(time.perf_counter() - begun, used() - before)


def compare(asked: argparse.Namespace, family: Path) -> list[str]:
    methods, tasks = ",".join(METHODS), ",".join(TASKS)
    return [sys.executable, "-m", "harness.cli", "compare", "--family", str(family), "--methods", methods,
            "--tasks", tasks, "--engine", asked.engine]  # fmt: skip


def lm_eval(asked: argparse.Namespace, model: Path, task: str, out: Path) -> list[str]:
    module = "lm_eval" if asked.engine == "hf" else "harness.evaluate.lm_eval_cli"
    device = ["--device", "cpu"] if asked.engine == "hf" else []
    settings = f"pretrained={model},dtype=float32{EAGER if asked.engine == 'vllm' else ''}"
    return [sys.executable, "-m", module, "--model", asked.engine, "--model_args", settings, "--tasks",
            f"harness_{task}", "--include_path", str(ROOT / "tasks"), "--apply_chat_template", "--batch_size",
            BATCH[asked.engine], "--output_path", str(out), *device]  # fmt: skip


def made(results: Path) -> dict[str, tuple[Path, dict[str, dict]]]:
    """Merge -> (its checkpoint, metric cells by task), as the harness wrote them."""
    found = {}
    for folder in sorted((results / "models").iterdir()):
        if (folder / "model").is_dir():
            cells = {}
            for done in folder.glob("evals/*/done.json"):
                name = done.parent.name.split("--")
                if "limit=" not in done.parent.name:  # no probe
                    cells[name[0]] = json.loads(done.read_text())["metrics"]
            found[folder.name] = (folder / "model", cells)
    return found


def scores(out: Path) -> dict[str, float]:
    """Metric -> value of lm-eval's command."""
    (path,) = out.glob("*/results_*.json")
    (results,) = json.loads(path.read_text())["results"].values()
    return {name.removesuffix(",none"): value for name, value in results.items() if name.endswith(",none")}


def differences(merges: dict, found: dict) -> dict[str, float]:
    """Task -> the largest difference of a metric between the two."""
    largest = dict.fromkeys(TASKS, 0.0)
    for (name, task), theirs in found.items():
        for metric, cell in merges[name][1][task].items():
            largest[task] = max(largest[task], abs(cell["value"] - theirs[metric]))
    return largest


def report(asked: argparse.Namespace, ours: Spent, loop: Spent, part: int, largest: dict[str, float]) -> None:
    if asked.engine == "hf":
        assert not any(largest.values()), f"scores differ: {largest}"
    family = "untied" if asked.untied else "tied"
    shown = (
        "all scores equal to the digit" if not any(largest.values()) else f"largest differences: {largest}"
    )
    print(
        f"{asked.engine}, {family}: ours {ours}; loop {loop} (from {part} of {len(METHODS)} merges); "
        f"{loop.wall / ours.wall:.1f} times faster, {loop.cpu / ours.cpu:.1f} times less CPU; {shown}"
    )


def untied(folder: Path) -> Path:
    """The tiny family with an output embedding of its own, equal to the input's."""
    from safetensors.torch import load_file, save_file

    for name in ("base", "reasoning", "safety"):
        copy = Path(shutil.copytree(FAMILIES / "tiny" / name, folder / "tiny" / name))
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": False}))
        tensors = load_file(copy / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].clone()
        save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    family = folder / "tiny-untied.yaml"
    shutil.copy(FAMILIES / "tiny-safety.yaml", family)
    return family


if __name__ == "__main__":
    main()
