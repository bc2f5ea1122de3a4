"""Per-sample gradient statistics of a model on calibration rows: E|g|, E|w*g|, E[g^2], E[(w*g)^2], votes.

Sources: E|g| is I(theta, D) of ReasonAny (arXiv:2601.05560, Algorithm 1); E|w*g| is SNIP as LED-Merging
uses it (arXiv:2502.16770); E[g^2] is the diagonal of the empirical Fisher matrix; E[(w*g)^2] and the votes
are RCP-Merging's (arXiv:2508.03140). The expectation runs over samples, each a batch of its own: the mean of
absolute gradients is not the absolute mean gradient.

A hook on each parameter folds its gradient into the accumulators the moment it is complete, and frees it:
memory = weights + one accumulator per kind + the gradients of about one layer. Importing this module does
not import torch.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError
from harness.scores.samples import IGNORED, Against, Sample, encode

if TYPE_CHECKING:
    import torch

    from harness.scores.sums import Sums

KINDS = ("gradient", "snip", "fisher", "snip_squared", "votes")
MOST_VOTES = 32_767  # they are counted in 16 bits


@dataclass(frozen=True)
class Work:
    """What every process of one computation is told."""

    checkpoint: str
    kinds: tuple[str, ...]
    samples: list[Sample]
    dtype: str
    accumulate: str
    checkpointing: bool
    threads: int | None
    against: Against | None
    offload: bool = False


def compute(
    checkpoint: Path | str,
    rows: Sequence[Mapping[str, str]],
    *,
    kind: str | Sequence[str] = "gradient",
    to: Path | Mapping[str, Path],
    loss_on: Literal["all", "completion"] = "all",
    max_tokens: int = 512,
    tokenizer_path: Path | str | None = None,
    pad: bool = False,
    dtype: str = "float32",
    accumulate: str = "float32",
    against: Against | None = None,
    checkpointing: bool = False,
    offload: bool = False,
    devices: Sequence[str] | None = None,
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the statistic `kind` of the causal language model in folder `checkpoint` into the folder `to`.

    `to` receives float32 safetensors, one tensor per parameter under its name in the checkpoint (tied weights
    once), and the model's config.json. Several kinds cost one backward pass: give a sequence of kinds and a
    mapping kind -> folder. The kind `votes` needs `against`: the share of samples with
    g*w + penalty * F * (theta_against - w)^2 <= 0 (RCP-Merging).

    Each row is {"text"} or {"prompt", "completion"}: taken as it is (no chat template; the tokenizer adds
    what it always adds, such as a start token), cut at `max_tokens` tokens. The loss of a sample is the mean
    cross-entropy, in nats, of its predicted tokens: all, or those of the completion. With `pad` rows are
    filled up to `max_tokens` with the padding token (the end token where there is none), which the attention
    mask hides and the loss counts, as ReasonAny's code does (@34c31f4; there also `dtype` and `accumulate`
    bfloat16). `dtype` is that of weights and gradients, `accumulate` that of the running sums.

    `checkpointing` recomputes each layer's activations in the backward pass: less memory, the same bits.
    `offload` keeps the running sums in host memory and hands every gradient over; the device then holds the
    weights and about a layer's gradients. `devices` names a torch device per process ("cuda:0", "cpu");
    samples are dealt out to them. None takes every CUDA device, or else the CPU; but one where the sums are
    bfloat16, which depend on the order too much. Several devices change float32 sums by the order of
    addition. `threads` are torch's, per process; None takes one for a small model and leaves them as they
    are for others; no bit depends on them.

    Returns samples, tokens, the mean loss, the devices, whether memory was saved, and per kind the share of
    elements that are zero. Raises HarnessError for a row with fewer than two tokens or none that carries
    loss, a token that the model lacks, a loss or statistic that is not finite, and weights that the
    checkpoint lacks.
    """
    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    folders = {kinds[0]: to} if isinstance(to, (str, Path)) and len(kinds) == 1 else to
    _check(kinds, folders, rows, against)
    if pad and loss_on == "completion":
        raise ValueError("padded rows have their loss on all tokens")
    samples = encode(rows, tokenizer_path or checkpoint, max_tokens, loss_on, pad)
    work = Work(str(checkpoint), kinds, samples, dtype, accumulate, checkpointing, threads, against, offload)
    places = _devices(devices, len(samples), accumulate)
    sums, losses = _dealt(work, places, Path(folders[kinds[0]]).parent, progress)
    zero = {k: _write(sums.mean(k, len(samples)), Path(checkpoint), Path(folders[k]), k) for k in kinds}
    return {
        "samples": len(samples),
        "tokens": sum(len(sample.tokens) for sample in samples),
        "loss": sum(losses) / len(losses),
        "devices": places,
        "offload": offload,
        "checkpointing": checkpointing,
        "zero_share": zero,
    }


def _check(kinds: Sequence[str], folders: Any, rows: Sequence[Any], against: Any) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    if not isinstance(folders, Mapping) or set(folders) != set(kinds):
        raise ValueError("`to` is a folder for one kind, or maps each of several kinds to its folder")
    if not rows:
        raise HarnessError("there are no calibration rows", "give at least one")
    if ("votes" in kinds) != (against is not None):
        raise ValueError("`votes` and `against` belong together")
    if against is not None and len(rows) > MOST_VOTES:
        raise HarnessError(f"{len(rows)} calibration rows vote", f"at most {MOST_VOTES}: lower `n:`")


def _devices(given: Sequence[str] | None, samples: int, accumulate: str) -> list[str]:
    if given is not None:
        if not given:
            raise ValueError("`devices` is empty")
        return list(given)[:samples]
    import torch

    found = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cpu"]
    return found[: samples if accumulate == "float32" else 1]


def work_from(stored: Mapping[str, Any]) -> Work:
    """A `Work` that went through JSON."""
    against = stored["against"] and Against(**stored["against"])
    samples = [Sample(*sample) for sample in stored["samples"]]
    return Work(**{**stored, "kinds": tuple(stored["kinds"]), "samples": samples, "against": against})


def _dealt(
    work: Work, devices: list[str], beside: Path, progress: Callable[[int, int], None] | None
) -> tuple[Sums, list[float]]:
    """The sums and losses of all samples; those of this process first, then the others' in order."""
    count, whole = len(devices), len(work.samples)
    report = progress and (lambda done: progress(min(done * count, whole), whole))
    if count == 1:
        return share(work, range(whole), devices[0], report)
    from harness.scores.parallel import started

    with started(work, devices, beside) as parts:
        sums, losses = share(work, range(0, whole, count), devices[0], report)
        for part in parts:
            losses += part.losses()
            for kind in work.kinds:
                sums.add(kind, part.folder / f"{kind}.safetensors")
    return sums, losses


def share(
    work: Work, indices: Sequence[int], device: str, progress: Callable[[int], None] | None = None
) -> tuple[Sums, list[float]]:
    """The sums over some of the samples, on one device, and their losses."""
    import torch

    from harness.checkpoint.pretrained import threads_for
    from harness.scores.sums import Sums

    model = _load(Path(work.checkpoint), getattr(torch, work.dtype)).to(device)
    if work.checkpointing:
        _recompute(model)
    _check_tokens(model, work)
    with threads_for(model.num_parameters(), work.threads):
        sums = Sums(model, work.kinds, getattr(torch, work.accumulate), work.against, work.offload)
        losses = []
        for done, index in enumerate(indices, 1):
            loss = _loss(model, work.samples[index], device)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise HarnessError(
                    f"the loss of calibration row {index} is {losses[-1]} on {work.checkpoint}",
                    f"the checkpoint holds weights that are not finite, or overflows in {work.dtype}",
                )
            loss.backward()
            if progress:
                progress(done)
    return sums, losses


def _check_tokens(model: Any, work: Work) -> None:
    known, largest = model.get_input_embeddings().num_embeddings, max(max(s.tokens) for s in work.samples)
    if largest >= known:
        raise HarnessError(
            f"the calibration text holds the token {largest}, and {work.checkpoint} has {known}",
            "the tokenizer is of another vocabulary than the model",
        )


def _recompute(model: Any) -> None:
    """Gradient checkpointing. transformers does it in training mode only, where dropout would act: so the
    layers that recompute are told that they train, and nothing inside them is."""
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def _load(path: Path, dtype: torch.dtype) -> torch.nn.Module:
    from harness.checkpoint.pretrained import load_model

    model = load_model(path, dtype)
    model.config.use_cache = False
    return model.eval().requires_grad_(True)


def _loss(model: torch.nn.Module, sample: Sample, device: str) -> torch.Tensor:
    import torch

    given = {"input_ids": torch.tensor([sample.tokens], device=device)}
    if sample.seen is not None:
        given["attention_mask"] = torch.tensor([sample.seen], device=device)
    logits = model(**given).logits[0, :-1].float()
    labels = torch.tensor(sample.labels[1:], device=device)
    return torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)


def _write(means: dict[str, torch.Tensor], checkpoint: Path, folder: Path, kind: str) -> float:
    """Write one statistic; the share of its elements that are exactly zero."""
    from huggingface_hub import save_torch_state_dict

    for name, mean in means.items():
        if not mean.isfinite().all():
            raise HarnessError(
                f"the {kind} statistic of `{name}` is not finite on {checkpoint}",
                "a gradient overflowed; use dtype float32",
            )
    folder.mkdir(parents=True, exist_ok=True)
    # One metadata key: safetensors writes several in random order, and equal statistics make equal files.
    save_torch_state_dict(means, folder, max_shard_size="5GB", metadata={"format": "pt"})
    shutil.copyfile(checkpoint / "config.json", folder / "config.json")
    zeros = sum(mean.numel() - int(mean.count_nonzero()) for mean in means.values())
    return zeros / sum(mean.numel() for mean in means.values())
