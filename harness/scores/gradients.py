"""Per-sample gradient statistics of a model on calibration rows: E|g|, E|w*g|, E[g^2], E[(w*g)^2].

Sources: E|g| is I(theta, D) of ReasonAny (arXiv:2601.05560, Algorithm 1); E|w*g| is SNIP as LED-Merging
uses it (arXiv:2502.16770); E[g^2] is the diagonal of the empirical Fisher matrix; E[(w*g)^2] is RCP-Merging's
F (arXiv:2508.03140). The expectation runs over samples, each a batch of its own: the mean of absolute
gradients is not the absolute mean gradient.

A hook on each parameter folds its gradient into the accumulators the moment it is complete, and frees it:
memory = weights + one accumulator per kind + the gradients of about one layer. Importing this module does
not import torch.
"""

from __future__ import annotations

import contextlib
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import HarnessError

if TYPE_CHECKING:
    import torch

KINDS = ("gradient", "snip", "fisher", "snip_squared")
IGNORED = -100  # label of a token that carries no loss
SMALL = 50_000_000  # parameters; below, threads wait for each other more than they work


def compute(
    checkpoint: Path | str,
    rows: Sequence[Mapping[str, str]],
    *,
    kind: str | Sequence[str] = "gradient",
    to: Path | Mapping[str, Path],
    loss_on: Literal["all", "completion"] = "all",
    max_tokens: int = 512,
    tokenizer_path: Path | str | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    accumulate: str = "float32",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the statistic `kind` of the causal language model in folder `checkpoint` into the folder `to`.

    `to` receives float32 safetensors, one tensor per parameter under its name in the checkpoint (tied weights
    once), and the model's config.json. Several kinds cost one backward pass: give a sequence of kinds and a
    mapping kind -> folder.

    Each row is {"text"} or {"prompt", "completion"}: taken as it is (no chat template; the tokenizer adds
    what it always adds, such as a start token), cut at `max_tokens` tokens, never padded. The loss of a
    sample is the mean cross-entropy, in nats, of its predicted tokens: all, or those of the completion.
    `dtype` is that of weights and gradients, `accumulate` that of the running sums. `threads` are
    torch's; None takes one for a small model and leaves them as they are for others. No bit depends on them.
    Returns samples, tokens, the mean loss, and per kind the share of elements that are exactly zero.
    Raises HarnessError for a row with fewer than two tokens or none that carries loss, a loss or statistic
    that is not finite, and weights that the checkpoint lacks.
    """
    import torch

    kinds = (kind,) if isinstance(kind, str) else tuple(kind)
    folders = {kinds[0]: to} if isinstance(to, (str, Path)) and len(kinds) == 1 else to
    _check(kinds, folders, rows)
    samples = _encode(rows, tokenizer_path or checkpoint, max_tokens, loss_on)
    model = _load(Path(checkpoint), getattr(torch, dtype)).to(device)
    with _threads(threads or (1 if model.num_parameters() < SMALL else torch.get_num_threads())):
        sums = _Sums(model, kinds, getattr(torch, accumulate))
        losses = []
        for index, (tokens, labels) in enumerate(samples):
            loss = _loss(model, tokens, labels, device)
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                raise HarnessError(
                    f"the loss of calibration row {index} is {losses[-1]} on {checkpoint}",
                    "the checkpoint holds weights that are not finite, or overflows in " + dtype,
                )
            loss.backward()
            if progress:
                progress(index + 1, len(samples))
        zero = {k: _write(sums.mean(k, len(samples)), Path(checkpoint), Path(folders[k]), k) for k in kinds}
    return {
        "samples": len(samples),
        "tokens": sum(len(tokens) for tokens, _ in samples),
        "loss": sum(losses) / len(losses),
        "zero_share": zero,
    }


def _check(kinds: Sequence[str], folders: Any, rows: Sequence[Any]) -> None:
    for kind in kinds:
        if kind not in KINDS:
            raise ValueError(f"kind is {kind!r}, not one of {', '.join(KINDS)}")
    if not isinstance(folders, Mapping) or set(folders) != set(kinds):
        raise ValueError("`to` is a folder for one kind, or maps each of several kinds to its folder")
    if not rows:
        raise HarnessError("there are no calibration rows", "give at least one")


def _encode(
    rows: Sequence[Mapping[str, str]], tokenizer_path: Path | str, max_tokens: int, loss_on: str
) -> list[tuple[list[int], list[int]]]:
    """Token ids and labels of every row, checked before anything is computed."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(tokenizer_path), truncation_side="right")
    samples = []
    for index, row in enumerate(rows):
        text = row["text"] if "text" in row else row["prompt"] + row["completion"]
        coded = tokenizer(
            text, truncation=True, max_length=max_tokens, return_offsets_mapping=tokenizer.is_fast
        )
        tokens = labels = coded["input_ids"]
        if len(tokens) < 2:
            raise HarnessError(
                f"calibration row {index} has {len(tokens)} tokens: {text[:40]!r}",
                "a row needs two tokens or more: the loss is on predicted tokens",
            )
        if loss_on == "completion":
            labels = _completion_labels(tokenizer, coded, row, index)
            if all(label == IGNORED for label in labels[1:]):
                raise HarnessError(
                    f"calibration row {index} has no token of its completion within {max_tokens} tokens",
                    "raise `max_tokens:`, or leave out rows with so long a prompt",
                )
        samples.append((list(tokens), list(labels)))
    return samples


def _completion_labels(
    tokenizer: Any, coded: Mapping[str, Any], row: Mapping[str, str], index: int
) -> list[int]:
    if "completion" not in row:
        raise HarnessError(
            f"the loss is on the completion, and calibration row {index} has none",
            "add `completion:` to the family's calibration, the template of the answer part of `text:`",
        )
    tokens = coded["input_ids"]
    if "offset_mapping" in coded:  # a token that straddles the border belongs to the completion
        border = len(row["prompt"])
        return [
            t if end > border else IGNORED
            for t, (_, end) in zip(tokens, coded["offset_mapping"], strict=True)
        ]
    prompt = tokenizer(row["prompt"])["input_ids"]
    shared = next(
        (i for i, pair in enumerate(zip(prompt, tokens, strict=False)) if pair[0] != pair[1]), len(prompt)
    )
    return [IGNORED] * min(shared, len(tokens)) + tokens[shared:]


def _load(path: Path, dtype: torch.dtype) -> torch.nn.Module:
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        model, report = AutoModelForCausalLM.from_pretrained(str(path), dtype=dtype, output_loading_info=True)
    finally:
        if bars:
            logging.enable_progress_bar()
    for what in ("missing_keys", "mismatched_keys"):
        if report[what]:
            names = sorted(str(key) for key in report[what])
            raise HarnessError(
                f"{path} lacks weights of its architecture: {names[0]}"
                + f" and {len(names) - 1} more" * (len(names) > 1),
                "gradients of randomly filled weights would mean nothing; mend the checkpoint",
            )
    model.config.use_cache = False
    return model.eval().requires_grad_(True)


def _loss(model: torch.nn.Module, tokens: list[int], labels: list[int], device: str) -> torch.Tensor:
    import torch

    logits = model(input_ids=torch.tensor([tokens], device=device)).logits[0, :-1].float()
    return torch.nn.functional.cross_entropy(
        logits, torch.tensor(labels[1:], device=device), ignore_index=IGNORED
    )


class _Sums:
    """Running sums per kind and parameter; the hooks that feed them free each gradient."""

    def __init__(self, model: torch.nn.Module, kinds: Sequence[str], dtype: torch.dtype) -> None:
        import torch

        self.kinds = kinds
        parameters = dict(model.named_parameters())  # tied weights come once
        self.of = {k: {n: torch.zeros_like(p, dtype=dtype) for n, p in parameters.items()} for k in kinds}
        for name, parameter in parameters.items():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: self._fold(name, p))

    def _fold(self, name: str, parameter: torch.nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if "fisher" in self.kinds:
            self.of["fisher"][name].add_(gradient.square())
        if "gradient" in self.kinds:
            self.of["gradient"][name].add_(gradient.abs())
        if "snip" in self.kinds or "snip_squared" in self.kinds:
            saliency = gradient.mul_(parameter.detach()).abs_()
            if "snip" in self.kinds:
                self.of["snip"][name].add_(saliency)
            if "snip_squared" in self.kinds:
                self.of["snip_squared"][name].add_(saliency.square_())

    def mean(self, kind: str, samples: int) -> dict[str, torch.Tensor]:
        """The mean over samples, float32 in host memory; gives the running sums away."""
        sums = self.of.pop(kind)
        return {name: sums.pop(name).float().div_(samples).cpu() for name in list(sums)}


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


@contextlib.contextmanager
def _threads(count: int) -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
