"""ReasonAny with its gradient statistics, and Linear, on 7 B shapes: seconds and GPU memory.

python benchmarks/gpu_cost.py                               # a GPU of the H200's class, 110 GB of disk
python benchmarks/gpu_cost.py --size 0.001 --device cpu --samples 3 --tokens 16      # does it run?

The ReasonAny paper (arXiv:2601.05560) gives 76 s and 63.4 GB for its method on 100 samples of 512 tokens,
33 s for Linear; ours should need 45 s and 40 GB, 20 s. Weights are random, so are the texts (words of a made
vocabulary). Each part is a process of its own, with its start and imports in its time; the paper does not say
what it counts. GPU memory is at least 2 bytes per parameter for the weights and 4 for the sums
(46 GB at 7 B): 40 GB need `--sums bfloat16`, which is ReasonAny's own code's way."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import weights

ROLES = {"reasoning": "one", "task": "two"}
WORDS = 400
PAPER = {"reasonany": "76 s and 63.4 GB (goal 45 s, 40 GB)", "linear": "33 s (goal 20 s)"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=weights.SIZES, default="7", help="billions of parameters")
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--dtype", choices=["bfloat16", "float32"], default="bfloat16", help="of the weights")
    parser.add_argument(
        "--sums", choices=["bfloat16", "float32"], default="float32", help="of the statistics"
    )
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations")
    parser.add_argument("--folder", type=Path, help="for the weights; default: the temporary folder")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(options, *json.loads(options.child))
    with tempfile.TemporaryDirectory(prefix="gpu-cost-", dir=options.folder) as made:
        bench(Path(made), options)


def bench(folder: Path, options: argparse.Namespace) -> None:
    n = weights.elements(options.size)
    need, free = n * (3 * 2 + 2 * 4 + 2), shutil.disk_usage(folder).free
    if need > free:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB free, {need / 1e9:.0f} GB are needed")
    weights.make(folder, options.size)
    write_tokenizer(folder / "tokenizer")
    print(
        f"{n / 1e9:.2f}e9 parameters, {options.samples} x {options.tokens} tokens, weights {options.dtype}, "
        f"sums {options.sums}"
    )
    print(f"on {device_name(options.device)}, {os.cpu_count()} cores", flush=True)
    total, most = 0.0, 0.0
    for part in ("scores reasoning", "scores task", "merge reasonany", "merge linear"):
        seconds, gpu, host = run(folder, part, options)
        print(f"{part:18} {seconds:7.1f} s   GPU {gpu:5.1f} GB   host {host:5.1f} GB", flush=True)
        if part == "merge linear":
            print(f"{'linear':18} {seconds:7.1f} s   paper {PAPER['linear']}")
            break
        total, most = total + seconds, max(most, gpu)
        if part == "merge reasonany":
            print(f"{'reasonany, all':18} {total:7.1f} s   GPU {most:5.1f} GB   paper {PAPER['reasonany']}")


def run(folder: Path, part: str, options: argparse.Namespace) -> tuple[float, float, float]:
    """(seconds, GB at most on the GPU, GB at most in host memory) of one part, from start to exit."""
    command = [sys.executable, str(Path(__file__).resolve()), *sys.argv[1:]]
    begun = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--child", json.dumps([str(folder), *part.split()])],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(weights.ROOT), "HF_HUB_OFFLINE": "1"},
    )
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"{part} failed")
    seconds = time.perf_counter() - begun
    return seconds, json.loads(told.splitlines()[-1])["gpu"], usage.ru_maxrss * 1024 / 1e9


def child(options: argparse.Namespace, folder: str, what: str, which: str) -> None:
    import torch

    from harness.checkpoint.devices import check_device

    check_device(options.device)
    if what == "scores":
        scores(Path(folder), which, options)
    else:
        merge(Path(folder), which, options)
    cuda = options.device.startswith("cuda")
    print(json.dumps({"gpu": torch.cuda.max_memory_reserved(options.device) / 1e9 if cuda else 0.0}))


def scores(folder: Path, role: str, options: argparse.Namespace) -> None:
    from harness.scores import compute

    draw = random.Random(role)
    words = [[f"w{draw.randrange(WORDS)}" for _ in range(options.tokens)] for _ in range(options.samples)]
    compute(
        folder / ROLES[role],
        [{"text": " ".join(row)} for row in words],
        to=folder / f"gradient-{role}",
        max_tokens=options.tokens,
        tokenizer_path=folder / "tokenizer",
        dtype=options.dtype,
        accumulate=options.sums,
        checkpointing=options.checkpointing,
        devices=[options.device],
    )


def merge(folder: Path, method: str, options: argparse.Namespace) -> None:
    from harness import registry
    from harness.checkpoint import Checkpoint
    from harness.merge import Inputs, Job
    from harness.merge import merge as merged
    from harness.method import configure

    made = configure(registry.method(method), {})
    needs = made.needs(tuple(ROLES)) if method == "reasonany" else ()
    held = {need.key: Checkpoint.open(folder / f"gradient-{need.role}") for need in needs}
    experts = {role: Checkpoint.open(folder / name) for role, name in ROLES.items()}
    job = Job(made, folder / method, scores=held)
    merged(Inputs(Checkpoint.open(folder / "base"), experts, folder / "one"), [job], device=options.device)


def write_tokenizer(folder: Path) -> None:
    """Words between spaces: one token each, so that a text has as many tokens as it has words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{i}": i for i in range(WORDS)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(folder)


def device_name(device: str) -> str:
    import torch

    found = device.startswith("cuda") and torch.cuda.is_available()
    return torch.cuda.get_device_name(device) if found else device


if __name__ == "__main__":
    main()
