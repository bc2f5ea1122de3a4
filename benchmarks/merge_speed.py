"""Merging against mergekit and against plain copies: seconds of whole commands, ratios, peak memory.

python benchmarks/merge_speed.py                      # Qwen2.5-1.5B's shapes, base + two experts, bf16 (12 GB
of disk) python benchmarks/merge_speed.py --size 0.1 --only ties

Weights are random: experts are the base plus small noise. They are made in a temporary folder and deleted
after. Every command is a process of its own, from start to exit, inputs in the page cache as the run before
left them."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIZES = {  # layers, hidden, inner, heads, key-value heads, vocabulary
    "0.02": (4, 256, 1024, 4, 2, 32000),
    "0.1": (12, 512, 2560, 8, 2, 65536),
    "0.5": (24, 896, 4864, 14, 2, 151936),
    "1.5": (28, 1536, 8960, 12, 2, 151936),
    "7": (28, 3584, 18944, 28, 4, 152064),
}
ROLES = ("one", "two")
RECIPES = {  # ours: method and settings; mergekit: merge_method, parameters of the whole, of every expert
    "linear": (("linear", {}), ("linear", {}, {"weight": 0.5})),
    "task_arithmetic": (
        ("task_arithmetic", {"scale": 0.5}),
        ("task_arithmetic", {"normalize": False}, {"weight": 0.5}),
    ),
    "ties": (("ties", {"density": 0.2}), ("ties", {"normalize": True}, {"weight": 1.0, "density": 0.2})),
    "dare": (
        ("dare", {"density": 0.5}),
        ("dare_linear", {"normalize": False}, {"weight": 0.5, "density": 0.5}),
    ),
}
NINE = [("task_arithmetic", {"scale": 0.1 * i}) for i in range(1, 10)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", choices=SIZES, default="1.5", help="billions of parameters")
    parser.add_argument("--only", nargs="*", choices=[*RECIPES, "nine"], help="default: everything")
    parser.add_argument("--repeats", type=int, default=1, help="of every command; the fastest counts")
    parser.add_argument("--no-mergekit", action="store_true")
    parser.add_argument("--threads", type=int, default=None)
    parser.add_argument(
        "--folder", type=Path, default=None, help="for the weights; default: the temporary folder"
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        return child(**json.loads(options.child))
    with tempfile.TemporaryDirectory(prefix="merge-speed-", dir=options.folder) as made:
        bench(Path(made), options)


def bench(folder: Path, options: argparse.Namespace) -> None:
    need = 2 * 5 * elements(options.size) * (1 if options.only and "nine" not in options.only else 3)
    free = shutil.disk_usage(folder).free
    if need > free:
        sys.exit(f"{folder} has {free / 1e9:.0f} GB free, {need / 1e9:.0f} GB are needed")
    make_weights(folder, options.size)
    copies = run(copy_command(folder), folder, options.repeats)
    print(f"size {options.size} B, {os.cpu_count()} cores; plain copies {copies[0]:.1f} s", flush=True)
    for name in [name for name in RECIPES if not options.only or name in options.only]:
        ours = run(our_command(folder, [RECIPES[name][0]], options), folder, options.repeats)
        line = f"{name:16} ours {ours[0]:6.1f} s {ours[1]:6.0f} MiB   copies x {ours[0] / copies[0]:.2f}"
        if not options.no_mergekit:
            theirs = run(mergekit_command(folder, *RECIPES[name][1]), folder, options.repeats)
            line += (
                f"   mergekit {theirs[0]:6.1f} s {theirs[1]:6.0f} MiB   {theirs[0] / ours[0]:.1f} x faster"
            )
        print(line, flush=True)
    if not options.only or "nine" in options.only:
        together = run(our_command(folder, NINE, options), folder, options.repeats)
        alone = sum(run(our_command(folder, [one], options), folder, options.repeats)[0] for one in NINE)
        print(
            f"nine outputs     one pass {together[0]:.1f} s {together[1]:.0f} MiB   "
            f"nine runs {alone:.1f} s   share {together[0] / alone:.2f}",
            flush=True,
        )


def run(command: list[str], folder: Path, repeats: int) -> tuple[float, float]:
    """(seconds, peak MiB) of the fastest of `repeats` runs; the output is deleted after each."""
    found = []
    for _ in range(repeats):
        shutil.rmtree(folder / "out", ignore_errors=True)
        (folder / "out").mkdir()
        warm(folder)
        begun = time.perf_counter()
        process = subprocess.Popen(
            command,
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        )
        message = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{' '.join(command)} failed:\n{message.decode()[-2000:]}")
        found.append((time.perf_counter() - begun, usage.ru_maxrss / 1024))
    shutil.rmtree(folder / "out", ignore_errors=True)
    return min(found)


def warm(folder: Path) -> None:
    """The same start for every command: the disk idle, the inputs in the page cache (as far as they fit)."""
    os.sync()
    for role in ("base", *ROLES):
        with (folder / role / "model.safetensors").open("rb", buffering=0) as file:
            while file.read(1 << 24):
                pass


def copy_command(folder: Path) -> list[str]:
    files = [str(folder / name / "model.safetensors") for name in ("base", *ROLES)]
    return ["sh", "-c", f"cat {files[1]} {files[2]} > /dev/null && cp {files[0]} {folder / 'out'}"]


def our_command(folder: Path, methods: list[tuple[str, dict]], options: argparse.Namespace) -> list[str]:
    task = {"folder": str(folder), "methods": methods, "threads": options.threads}
    return [sys.executable, str(Path(__file__).resolve()), "--child", json.dumps(task)]


def mergekit_command(folder: Path, method: str, whole: dict, each: dict) -> list[str]:
    models = [{"model": str(folder / role), "parameters": each} for role in ROLES]
    config = {"merge_method": method, "models": models, "parameters": whole, "dtype": "bfloat16"}
    if method != "linear":
        config["base_model"] = str(folder / "base")
    (folder / "mergekit.yaml").write_text(json.dumps(config))
    return [
        str(Path(sys.executable).with_name("mergekit-yaml")),
        str(folder / "mergekit.yaml"),
        str(folder / "out"),
        "--no-copy-tokenizer",
    ]


def child(folder: str, methods: list[tuple[str, dict]], threads: int | None) -> None:
    """One of our commands: merge with `methods` in one pass."""
    from harness import registry
    from harness.checkpoint import Checkpoint
    from harness.merge import Inputs, Job, merge
    from harness.method import configure

    at = Path(folder)
    inputs = Inputs(
        Checkpoint.open(at / "base"), {role: Checkpoint.open(at / role) for role in ROLES}, at / "base"
    )
    jobs = [
        Job(configure(registry.method(name), settings), at / "out" / str(i))
        for i, (name, settings) in enumerate(methods)
    ]
    merge(inputs, jobs, threads=threads)


def shapes(size: str) -> dict[str, tuple[int, ...]]:
    layers, hidden, inner, heads, kv_heads, vocab = SIZES[size]
    kv = hidden // heads * kv_heads
    found: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (vocab, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", hidden), ("k", kv), ("v", kv)):
            found |= {
                f"{at}self_attn.{name}_proj.weight": (rows, hidden),
                f"{at}self_attn.{name}_proj.bias": (rows,),
            }
        found |= {
            at + "self_attn.o_proj.weight": (hidden, hidden),
            at + "mlp.gate_proj.weight": (inner, hidden),
            at + "mlp.up_proj.weight": (inner, hidden),
            at + "mlp.down_proj.weight": (hidden, inner),
            at + "input_layernorm.weight": (hidden,),
            at + "post_attention_layernorm.weight": (hidden,),
        }
    return found


def elements(size: str) -> int:
    total = 0
    for shape in shapes(size).values():
        total += shape[0] * (shape[1] if len(shape) > 1 else 1)
    return total


def make_weights(folder: Path, size: str) -> None:
    """base, one, two: written in a process of its own, which gives its memory back."""
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import merge_speed; "
        f"from pathlib import Path; merge_speed.write_weights(Path({str(folder)!r}), {size!r})"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def write_weights(folder: Path, size: str) -> None:
    import torch

    from harness.checkpoint import write

    layers, hidden, inner, heads, kv_heads, vocab = SIZES[size]
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocab,
        "tie_word_embeddings": True,
        "rms_norm_eps": 1e-6,
        "torch_dtype": "bfloat16",
    }
    tensors = {name: ("BF16", shape) for name, shape in shapes(size).items()}
    opened = {}
    for role in ("base", *ROLES):
        (folder / role).mkdir()
        (folder / role / "config.json").write_text(json.dumps(config))
        opened[role] = write.Files(write.plan(folder / role, tensors, 10**12))
        opened[role].create()
        opened[role].open()
    draw = torch.Generator().manual_seed(0)
    noise = torch.randn(2**22, generator=draw)  # drawn once: the statistics of every tensor are the same
    for name, shape in shapes(size).items():
        numel, step = torch.Size(shape).numel(), 2**21
        for at in range(0, numel, step):
            n = min(step, numel - at)
            base = (noise[:n] * 0.02).bfloat16()
            for i, role in enumerate(("base", *ROLES)):
                shift = 7919 * (at // step + 1) * i % step
                values = base if i == 0 else (base.float() + noise[shift : shift + n] * 0.0008).bfloat16()
                opened[role].write(name, 2 * at, memoryview(values.view(torch.uint8).numpy()))
    for files in opened.values():
        files.close()


if __name__ == "__main__":
    main()
