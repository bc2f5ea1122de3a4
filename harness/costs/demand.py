"""What a step needs: bytes of memory and seconds, from a model's size. Formulas and constants, no state.

Memory counts what is held at once: weights, sums, gradients, keys and values, logits, and what Python and its
libraries take by themselves (measured: torch 2.13, transformers 5.19, lm-eval 0.4.13 on Linux). Time is
rough: a device does so many operations and reads so many bytes a second, at the shares given here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.costs.machine import MIB, Machine
from harness.costs.sizes import Size

LIBRARIES = 560 * MIB  # resident in the harness's own process once torch, transformers and lm-eval are loaded
ENGINE = 420 * MIB  # the same of an engine's process
VLLM = 1100 * MIB  # the same of vLLM's
CUDA = 600 * MIB  # on the GPU, before the first tensor
BLOCK = 4 << 18  # bytes of a block of float32 in the merge engine
TEMPORARY = 24  # blocks that methods and masks hold beside the inputs', per thread
SMALL, MANY, FEW = 100_000_000, 128, 8  # engine `hf`: sequences at once up to so many parameters, and above
WORDS = 300  # tokens of a prompt
SHARE = 0.25  # of the longest response allowed, the mean response
LOADING = 1.1  # weights while they are read, over weights
NUMBERS = {"float32": 4, "bfloat16": 2, "float16": 2}
COMPUTES, READS = 0.35, 0.6  # shares of a device's peak that are reached in training or prompts, in decoding
# bfloat16 operations and bytes of memory a second, dense, from the makers' data sheets
GPUS = {
    "H200": (989e12, 4.8e12),
    "H100": (989e12, 3.35e12),
    "A100": (312e12, 2.0e12),
    "L40S": (362e12, 0.86e12),
    "4090": (165e12, 1.0e12),
}
OTHER_GPU = (300e12, 2.0e12)
CORE = (40e9, 10e9)  # of one core
MERGED = 4e-9  # seconds of one core per parameter, method and pass
DISK = 1e9  # bytes a second


@dataclass(frozen=True)
class Need:
    """Bytes of host and GPU memory held at once, seconds, and what is to be said of them.

    `gpu` is held on each of `processes` GPUs, or where it is `spread` on all together. `offload`: sums lie in
    host memory, and activations are computed twice. `scratch` are bytes of disk that go when the step ends.
    `timed` is False where nothing says how long it takes."""

    host: int
    gpu: int = 0
    seconds: float = 0.0
    note: str = ""
    spread: bool = False
    processes: int = 1
    offload: bool = False
    scratch: int = 0
    timed: bool = True

    @property
    def devices(self) -> list[str] | None:
        """Those of its processes; None where it takes no GPU."""
        return [f"cuda:{i}" for i in range(self.processes)] if self.gpu else None


def speed(machine: Machine) -> tuple[float, float, str]:
    """Operations and bytes per second of the device, and its name."""
    if machine.gpus:
        name = machine.gpus[0].name
        found = next((figures for part, figures in GPUS.items() if part in name), OTHER_GPU)
        return (*found, name)
    return CORE[0] * machine.cores, CORE[1] * machine.cores, f"CPU of {machine.cores} cores"


def batch(size: Size) -> int:
    return MANY if size.parameters <= SMALL else FEW


def evaluation(
    size: Size, machine: Machine, *, items: int, longest: int, generates: bool, choices: int = 4
) -> Need:
    """One engine with the model of `size`, on `items` prompts. `longest` is the most tokens of a response."""
    operations, memory, _ = speed(machine)
    width = size.width if machine.gpus else 4.0
    weights, together = int(size.parameters * width), min(batch(size), max(items, 1))
    context = size.context or WORDS + longest
    tokens = min(WORDS + longest, context) if generates else min(WORDS, context)
    kept = int(together * tokens * size.cached * width) if generates else 0
    logits = together * size.vocab * 4 * (2 if generates else 2 * tokens)
    held = weights + kept + logits
    prompts = items * WORDS * (1 if generates else choices)
    seconds = prompts * 2 * size.parameters / (operations * COMPUTES)
    if generates:
        answer = min(longest, context) * SHARE
        seconds += items / together * answer * (weights + kept / 2) / (memory * READS)
    if machine.gpus:
        return Need(ENGINE + 2 * MIB * 1024, CUDA + held, seconds)
    return Need(ENGINE + int(weights * LOADING) + kept + logits, 0, seconds)


def served(need: Need, size: Size, machine: Machine, settings: Any) -> Need:
    """The same evaluation by vLLM, as `EngineSettings` say: it takes its share of GPU memory at once, or
    a cache of its own on a CPU, however little is asked."""
    if not machine.gpus:
        weights = int(size.parameters * 4.0 * LOADING)
        return replace(need, host=VLLM + weights + (settings.kv_cache_gib << 30))
    ranks, room = settings.tensor_parallel, max(gpu.total for gpu in machine.gpus)
    least = int(size.parameters * size.width) + ranks * CUDA
    return replace(
        need,
        host=ranks * (VLLM + 2 * MIB * 1024),
        gpu=max(least, int(ranks * room * settings.memory_fraction)),
        spread=ranks > 1,
        seconds=need.seconds / ranks,
    )


def held(need: Need, machine: Machine, each: int, count: int) -> tuple[Need, int]:
    """Merges whose `count` outputs of `each` bytes lie in memory until they are evaluated: what that takes,
    and the bytes of disk, which it takes where half of the memory does not hold one."""
    room = machine.available // 2
    if each > room:
        return need, each
    return replace(need, host=need.host + min(count, room // max(each, 1)) * each), 0


def scores(
    size: Size,
    machine: Machine,
    *,
    kinds: int,
    votes: bool,
    rows: int,
    tokens: int,
    dtype: str,
    accumulate: str,
) -> Need:
    """Gradient statistics: weights, a sum per kind, one layer's gradients, activations of one row; a process
    per GPU, as many as host memory allows.

    Where these do not fit each GPU, the sums lie in host memory and activations are computed anew in the
    backward pass: `Need.offload`, by which the computation itself goes too."""
    width, held = NUMBERS[dtype], NUMBERS[accumulate]
    weights, sums = size.parameters * width, kinds * size.parameters * held
    if votes:  # counted in 16 bits, beside what they weigh against
        sums += size.parameters * (2 + 4 - held)
    gradients = width * (size.layer + (size.embedding if size.tied else max(0, size.embedding - size.layer)))
    activations = tokens * _activations(size) * width
    logits = 3 * tokens * size.vocab * 4
    device, memory, _ = speed(machine)
    slower = 2 if width == 4 and machine.gpus else 1
    seconds = rows * tokens * 6 * size.parameters * slower / (device * COMPUTES)
    whole = weights + sums + gradients + activations + logits
    if not machine.gpus:
        return Need(LIBRARIES + max(whole, int(weights * LOADING)), 0, seconds)
    offload = CUDA + whole > min(gpu.total for gpu in machine.gpus)
    each = LIBRARIES + max(weights, sums if offload else 0)  # weights are read before they go to the GPU
    most = min(len(machine.gpus), rows) if accumulate == "float32" else 1
    processes = max(1, min(most, machine.memory // each))
    given = {"processes": processes, "offload": offload, "scratch": (processes - 1) * sums}
    host = max(processes * each, LIBRARIES + 4 * size.parameters)  # the means are float32, one kind at a time
    if not offload:
        return Need(host, CUDA + whole, seconds, **given)
    few = (
        weights + gradients + activations // max(1, size.layers) + tokens * size.layers * size.hidden * width
    )
    seconds += seconds / 3 + rows * sums / 12e9  # gradients cross the bus
    note = "sums in host memory, activations computed twice"
    return Need(host, CUDA + few + logits, seconds, note, **given)


def statistics(size: Size, machine: Machine, recipes: Sequence[Any], rows: int) -> Need:
    """`scores` of score recipes that are computed together. The plan and the computation ask it alike."""
    first, kinds = recipes[0], {recipe.kind for recipe in recipes}
    return scores(
        size,
        machine,
        kinds=len(kinds),
        votes="votes" in kinds,
        rows=rows,
        tokens=first.max_tokens,
        dtype=first.dtype,
        accumulate=first.accumulate,
    )


def _activations(size: Size) -> int:
    """Numbers that all layers keep per token for the backward pass."""
    inner = max(0, size.layer - 4 * size.hidden**2) // max(1, 3 * size.hidden)
    return size.layers * (10 * size.hidden + 4 * inner)


def merging(size: Size, machine: Machine, *, models: int, statistics: int, methods: int) -> Need:
    """All streaming methods in shared passes: blocks, whatever the model's size."""
    threads = machine.cores
    host = LIBRARIES + threads * (models + statistics + TEMPORARY) * BLOCK
    seconds = size.parameters * MERGED * (methods + models) * 2 / threads
    return Need(host, 0, seconds + models * size.nbytes / DISK + methods * size.nbytes / DISK)


def whole(size: Size, machine: Machine, *, trains: bool, rows: int = 0, tokens: int = 0) -> Need:
    """A method that makes a whole model: one that trains (weights, gradients and Adam's two moments, all
    float32), or one that another program carries out tensor by tensor."""
    if not trains:
        return Need(2 * LIBRARIES + 2 * size.nbytes, 0, 10 * size.nbytes / DISK)
    device, _, _ = speed(machine)
    held = 16 * size.parameters + 3 * tokens * size.vocab * 4
    seconds = rows * tokens * 6 * size.parameters / (device * COMPUTES)
    return Need(LIBRARIES + (0 if machine.gpus else held), held + CUDA if machine.gpus else 0, seconds)


def training(
    size: Size,
    machine: Machine,
    *,
    rows: int | None,
    tokens: int,
    micro: int,
    dtype: str,
    checkpointing: bool = False,
    spread: bool = False,
    processes: int | None = None,
) -> Need:
    """A LoRA expert: frozen weights, small factors, the activations of a micro-batch; then its factors are
    merged into the weights tensor by tensor. A copy per process, one per GPU where `processes` is None; or
    one, `spread` over the GPUs. `rows` is None where they cannot be counted yet."""
    width = NUMBERS[dtype]
    activations = micro * tokens * _activations(size) * width
    if checkpointing:  # one layer's, and what goes into each
        activations = activations // max(1, size.layers) + micro * tokens * size.layers * size.hidden * width
    weights = size.parameters * width
    held = weights + activations + 3 * micro * tokens * size.vocab * 4
    copies = 1 if spread else processes or max(1, len(machine.gpus))
    device, _, _ = speed(machine)
    per_token = (6 if checkpointing else 4) * size.parameters  # the forward pass once more
    seconds = (rows or 0) * tokens * per_token / (device * COMPUTES)
    told = {"processes": copies, "timed": rows is not None}
    if machine.gpus:
        return Need(copies * (LIBRARIES + weights), CUDA + held, seconds, spread=spread, **told)
    return Need(copies * (LIBRARIES + int(held * LOADING)), 0, seconds, **told)


def assumptions(machine: Machine) -> list[str]:
    """What the figures rest on, in sentences."""
    operations, memory, name = speed(machine)
    return [
        f"{name}: {operations / 1e12:.3g} TFLOP/s and {memory / 1e12:.2g} TB/s, of which prompts and "
        f"training reach {COMPUTES:.0%} and decoding {READS:.0%}",
        f"a prompt has {WORDS} tokens; a response {SHARE:.0%} of the longest that is allowed",
        f"{MANY} sequences are decoded at once up to {SMALL / 1e6:.0f} M parameters, {FEW} above, each with "
        f"the memory of the longest response",
        "every expert has the size of the base where its own is not known",
    ]
