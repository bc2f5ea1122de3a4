"""Merging against mergekit and against plain copies: whole commands, ratios, CPU time, peak memory.

python benchmarks/merge_speed.py                       # Qwen2.5-1.5B's shapes, base + two experts, bf16
python benchmarks/merge_speed.py --size 0.1 --only ties --no-mergekit

Weights are random: experts are the base plus small noise. They are made in a temporary folder and deleted
after (15 GB of disk at 1.5; the sweep needs 40 GB more). Every command is a process of its own, from start to
exit, inputs in the page cache. With `--repeats` the commands of a line take turns, so that a busy machine
hits all of them, and the fastest of each counts. `ours` is `harness merge METHOD --family F --to DIR`, and
`merge` in its line the seconds of its shared passes alone."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import weights

RECIPES = {  # ours: method and settings; mergekit: merge_method, parameters of the whole, of every expert
    "linear": (("linear", {}), ("linear", {}, {"weight": 0.5})),
    "task_arithmetic": (
        ("task_arithmetic", {"scale": 0.5}),
        ("task_arithmetic", {"normalize": False}, {"weight": 0.5}),
    ),
    "dare": (
        ("dare", {"density": 0.5}),
        ("dare_linear", {"normalize": False}, {"weight": 0.5, "density": 0.5}),
    ),
    "ties": (("ties", {"density": 0.2}), ("ties", {"normalize": True}, {"weight": 1.0, "density": 0.2})),
}
NINE = [("task_arithmetic", {"scale": round(0.1 * i, 1)}) for i in range(1, 10)]
SWEEP = [("reasonany", {"scale": scale, "p": p}) for scale in (0.5, 0.75, 1.0) for p in (0.02, 0.05, 0.1)]
STATISTICS = {"reasoning.gradient": "gradient-one", "task.gradient": "gradient-two"}
EXPERTS = {"reasoning": "one", "task": "two"}


@dataclass(frozen=True, order=True)
class Spent:
    """What a command took: `merge` is the seconds of its passes alone, where it says so."""

    wall: float
    cpu: float
    mib: float
    merge: float | None = None
    record: str = ""

    def __str__(self) -> str:
        merge = "" if self.merge is None else f", merge {self.merge:.2f} s"
        return f"{self.wall:.2f} s ({self.cpu:.2f} s CPU{merge}, {self.mib:.0f} MiB)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=weights.SIZES, default="1.5", help="billions of parameters")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, "nine", "masks", "sweep"])
    parser.add_argument("--repeats", type=int, default=1, help="of every command; the fastest counts")
    parser.add_argument("--no-mergekit", action="store_true")
    parser.add_argument(
        "--cold", action="store_true", help="from and to the disk, not of masks and sweep (root)"
    )
    parser.add_argument("--threads", type=int, help="of nine, masks and sweep; default: every core")
    parser.add_argument("--folder", type=Path, help="for the weights; default: the temporary folder")
    parser.add_argument("--kept", type=Path, help="a folder whose weights are made once and kept")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(**json.loads(options.child))
    options.only = options.only or [*RECIPES, "nine"]
    if options.kept:
        options.kept.mkdir(parents=True, exist_ok=True)
        return bench(options.kept, options)
    with tempfile.TemporaryDirectory(prefix="merge-speed-", dir=options.folder) as made:
        bench(Path(made), options)


def bench(folder: Path, options: argparse.Namespace) -> None:
    sweep, n = "sweep" in options.only, weights.elements(options.size)
    outputs = 9 if sweep or "nine" in options.only else 1
    need, free = 2 * n * (3 + 4 * sweep + outputs), shutil.disk_usage(folder).free
    if need > free:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB free, {need / 1e9:.0f} GB are needed")
    wanted = [*weights.ROLES, *(STATISTICS.values() if sweep else ())]
    if not all((folder / name / "model.safetensors").is_file() for name in wanted):
        weights.make(folder, options.size, tuple(STATISTICS.values()) if sweep else ())
    experts = {role: str(folder / name) for role, name in EXPERTS.items()}
    family = {"title": "benchmark", "base": str(folder / "base"), "experts": experts}
    (folder / "family.yaml").write_text(json.dumps(family))
    print(f"size {options.size} B ({n / 1e9:.2f}e9), {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    for name in [name for name in RECIPES if name in options.only]:
        against(folder, name, options)
    if "masks" in options.only:
        masks(folder, options)
    if "nine" in options.only:
        nine(folder, options)
    if sweep:
        show_sweep(folder, options)


def against(folder: Path, name: str, options: argparse.Namespace) -> None:
    """One method: ours, plain copies of the same files, mergekit."""
    ours, theirs = RECIPES[name]
    commands = {"copies": copy_command(folder), "ours": harness_command(folder, *ours)}
    if not options.no_mergekit:
        commands["mergekit"] = mergekit_command(folder, *theirs)
    found = best(commands, folder, options.repeats, options.cold)
    copies, mine = found["copies"], found["ours"]
    print(f"{name}\n  ours {mine}\n  copies {copies}: command x {mine.wall / copies.wall:.2f}", end="")
    print(f", merge alone x {mine.merge / copies.wall:.2f}, CPU x {mine.cpu / copies.cpu:.2f}")
    if "mergekit" in found:
        other = found["mergekit"]
        print(f"  mergekit {other}: ours is {other.wall / mine.wall:.1f} x faster", end="")
        print(f", {other.cpu / mine.cpu:.1f} x less CPU")
    print(f"  load {os.getloadavg()[0]:.1f}", flush=True)


def masks(folder: Path, options: argparse.Namespace) -> None:
    """What `masks.json` adds to a merge."""
    for name, (ours, _) in RECIPES.items():
        commands = {
            "without": our_command(folder, [ours], options),
            "with": our_command(folder, [ours], options, masks=True),
        }
        found = best(commands, folder, options.repeats)
        more = found["with"].cpu / found["without"].cpu - 1
        print(f"masks.json of {name}: {found['without']} -> {found['with']}: CPU {more:+.0%}", flush=True)


def nine(folder: Path, options: argparse.Namespace) -> None:
    commands = {f"run {i}": our_command(folder, [one], options) for i, one in enumerate(NINE)}
    found = best(
        {"pass": our_command(folder, NINE, options), **commands}, folder, options.repeats, options.cold
    )
    together = found.pop("pass")
    wall, cpu = sum(one.wall for one in found.values()), sum(one.cpu for one in found.values())
    print(
        f"nine outputs of task_arithmetic\n  one pass {together}\n  nine runs {wall:.2f} s ({cpu:.2f} s CPU)"
    )
    print(f"  share: wall {together.wall / wall:.2f}, CPU {together.cpu / cpu:.2f}", flush=True)


def show_sweep(folder: Path, options: argparse.Namespace) -> None:
    commands = {
        "nine": our_command(folder, SWEEP, options, scored=True),
        "one": our_command(folder, SWEEP[:1], options, scored=True),
    }
    found = best(commands, folder, options.repeats)
    print(f"ReasonAny, 9 points of scale x p, stored statistics, no backward pass\n  nine {found['nine']}")
    print(f"  {found['nine'].record}\n  one {found['one']}\n  {found['one'].record}")
    print(f"  share of nine runs: {found['nine'].wall / (9 * found['one'].wall):.2f}", flush=True)


def best(commands: dict[str, list[str]], folder: Path, repeats: int, cold: bool = False) -> dict[str, Spent]:
    """The fastest of `repeats` rounds, in each of which every command runs once."""
    rounds = [{name: run(one, folder, cold) for name, one in commands.items()} for _ in range(repeats)]
    return {name: min(one[name] for one in rounds) for name in commands}


def run(command: list[str], folder: Path, cold: bool = False) -> Spent:
    """One command; its output is deleted after it. `cold`: nothing is in the page cache before, and the time
    ends when all is on the disk."""
    shutil.rmtree(folder / "out", ignore_errors=True)
    (folder / "out").mkdir()
    if cold:
        os.sync()
        Path("/proc/sys/vm/drop_caches").write_text("3")
    else:
        warm(folder)
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(weights.ROOT)},
    )
    message = process.stderr.read()
    _, status, usage = os.wait4(process.pid, 0)
    if cold:
        os.sync()
    wall = time.perf_counter() - begun
    if status:
        sys.exit(f"{' '.join(command)} failed:\n{message.decode()[-2000:]}")
    merge, record = None, ""
    if (mark := folder / "out" / "0" / "merge.json").is_file():
        told = json.loads(mark.read_text())["record"]
        merge = told["seconds"]["prepare"] + told["seconds"]["merge"]
        record = f"{told['passes']} passes, {told['bytes_read'] / 1e9:.1f} GB read"
    shutil.rmtree(folder / "out", ignore_errors=True)
    return Spent(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, merge, record)


def warm(folder: Path) -> None:
    """The same start for every command: the disk idle, the inputs in the page cache (as far as they fit)."""
    os.sync()
    for file in sorted(folder.glob("*/model.safetensors")):
        with file.open("rb", buffering=0) as stream:
            while stream.read(1 << 24):
                pass


def copy_command(folder: Path) -> list[str]:
    """Read what the merge reads (`linear` too, whose `masks.json` is about what changed) and write one model,
    with cat and cp."""
    read, copied = (str(folder / role / "model.safetensors") for role in weights.ROLES), folder / "base"
    return [
        "sh",
        "-c",
        f"cat {' '.join(read)} > /dev/null && cp {copied / 'model.safetensors'} {folder / 'out'}",
    ]


def harness_command(folder: Path, method: str, settings: dict) -> list[str]:
    given = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    command = [str(Path(sys.executable).with_name("harness")), "merge", method, *given]
    family = ["--family", str(folder / "family.yaml"), "--results", str(folder / "results")]
    return [*command, *family, "--to", str(folder / "out" / "0")]


def our_command(
    folder: Path, methods: list, options: argparse.Namespace, scored: bool = False, masks: bool = False
) -> list[str]:
    task = {"folder": str(folder), "methods": methods, "threads": options.threads}
    task |= {"scored": scored, "masks": masks}
    return [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(task)]


def mergekit_command(folder: Path, method: str, whole: dict, each: dict) -> list[str]:
    models = [{"model": str(folder / role), "parameters": each} for role in weights.ROLES]
    config = {"merge_method": method, "models": models, "parameters": whole, "dtype": "bfloat16"}
    if method != "linear":
        config["base_model"] = str(folder / "base")
    (folder / "mergekit.yaml").write_text(json.dumps(config))
    script = str(Path(sys.executable).with_name("mergekit-yaml"))
    return [script, str(folder / "mergekit.yaml"), str(folder / "out"), "--no-copy-tokenizer"]


def child(folder: str, methods: list, threads: int | None, scored: bool, masks: bool) -> None:
    """One of our commands with several outputs: merge with `methods` in one pass."""
    from harness import registry
    from harness.checkpoint import Checkpoint
    from harness.merge import Inputs, Job, merge
    from harness.method import configure

    at = Path(folder)
    experts = {role: Checkpoint.open(at / name) for role, name in EXPERTS.items()}
    scores = {key: Checkpoint.open(at / name) for key, name in STATISTICS.items()} if scored else {}
    jobs = []
    for i, (name, settings) in enumerate(methods):
        to = at / "out" / str(i)
        file = to / "masks.json" if masks else None
        jobs.append(Job(configure(registry.method(name), settings), to, scores=scores, masks=file))
    merge(Inputs(Checkpoint.open(at / "base"), experts, at / "base"), jobs, threads=threads)


if __name__ == "__main__":
    main()
