"""Nuclear and Frobenius norms of the gradients of projection matrices, sample by sample.

s_X(x; l) = sum of the singular values of the gradient of the loss on sample x with respect to projection X
of layer l (arXiv:2601.05560, equation 3, after Li et al. 2025). The weight gradient of a linear layer is
G = D^T X, with X the layer's inputs [tokens, in] and D the loss's gradient at its outputs [tokens, out]. It
is never formed where there are fewer tokens than rows and columns: with D^T = Q R and X^T = P S the singular
values of G are those of R S^T [tokens, tokens]. No weight needs a gradient: memory = weights + activations.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import HarnessError
from harness.merge.block import place_of
from harness.scores.samples import IGNORED, Sample, encode

if TYPE_CHECKING:
    from torch import Tensor

PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj")
Norm = dict[str, Any]  # sample, layer, module (q_proj ...), nuclear, frobenius


def spectra(
    checkpoint: Path,
    rows: Sequence[Mapping[str, str]],
    *,
    loss_on: str = "all",
    max_tokens: int = 512,
    dtype: str = "float32",
    device: str = "cpu",
    threads: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[Norm]:
    """The norms of every sample, layer and projection of the causal language model in folder `checkpoint`.

    `rows`, `loss_on`, `max_tokens`, `threads` as of `harness.scores.compute`: each row is a batch of its own,
    its loss the mean cross-entropy (nats) of its predicted tokens. Norms are computed in float64. Raises
    HarnessError for a model without linear layers called q_proj, k_proj, v_proj, o_proj, and for a loss that
    is not finite.
    """
    import torch

    from harness.checkpoint.pretrained import load_model, threads_for

    samples = encode(rows, checkpoint, max_tokens, loss_on)
    model = load_model(checkpoint, getattr(torch, dtype)).to(device).eval().requires_grad_(False)
    model.config.use_cache = False
    model.enable_input_require_grads()  # else nothing would flow back
    watched, found = _Watched(model, checkpoint), []
    with threads_for(model.num_parameters(), threads):
        for index, sample in enumerate(samples):
            _loss(model, sample, device, index, checkpoint).backward()
            found += [{"sample": index, **norm} for norm in watched.norms()]
            if progress:
                progress(index + 1, len(samples))
    return found


def mean_absolute_difference(values: Sequence[float]) -> float:
    """MAD over layers: mean of |s_{l+1} - s_l| (arXiv:2601.05560, equation 11). NaN for a single layer."""
    steps = [abs(b - a) for a, b in zip(values, values[1:], strict=False)]
    return math.fsum(steps) / len(steps) if steps else math.nan


def _loss(model: Any, sample: Sample, device: str, index: int, checkpoint: Path) -> Tensor:
    import torch

    logits = model(input_ids=torch.tensor([sample.tokens], device=device)).logits[0, :-1].float()
    labels = torch.tensor(sample.labels[1:], device=device)
    loss = torch.nn.functional.cross_entropy(logits, labels, ignore_index=IGNORED)
    if not loss.isfinite():
        raise HarnessError(
            f"the loss of calibration row {index} is {loss.item()} on {checkpoint}",
            "the checkpoint holds weights that are not finite, or overflows",
        )
    return loss


class _Watched:
    """Hooks on the projections that keep what flows through them, until `norms` asks."""

    def __init__(self, model: Any, checkpoint: Path) -> None:
        from torch.nn import Linear

        self._flows: dict[tuple[int, str], list[Tensor]] = {}
        self._outputs: dict[tuple[int, str], Tensor] = {}
        for name, module in model.named_modules():
            last = name.rpartition(".")[2]
            layer, _ = place_of(name)
            if last in PROJECTIONS and layer is not None and isinstance(module, Linear):
                module.register_forward_hook(self._forward((layer, last)))
                module.register_full_backward_hook(self._backward((layer, last)))
                self._flows[layer, last] = []
        if not self._flows:
            raise HarnessError(
                f"{checkpoint} has no linear layers called {', '.join(PROJECTIONS)}",
                "the analysis is of attention with separate projections",
            )

    def _forward(self, place: tuple[int, str]) -> Callable[..., None]:
        def keep(module: Any, inputs: tuple, output: Any) -> None:
            self._outputs[place] = inputs[0].detach()

        return keep

    def _backward(self, place: tuple[int, str]) -> Callable[..., None]:
        def keep(module: Any, grad_input: Any, grad_output: tuple) -> None:
            inputs = self._outputs.pop(place)
            self._flows[place] = [grad_output[0].flatten(0, -2), inputs.flatten(0, -2)]

        return keep

    def norms(self) -> list[Norm]:
        """Of the last backward pass; forgets it."""
        told = []
        for (layer, module), flow in self._flows.items():
            values = singular_values(*flow)
            told.append({"layer": layer, "module": module, "nuclear": values.sum().item(),
                         "frobenius": values.square().sum().sqrt().item()})  # fmt: skip
            flow.clear()
        return told


def singular_values(outward: Tensor, inward: Tensor) -> Tensor:
    """Singular values (float64) of outward^T inward; `outward` [tokens, out], `inward` [tokens, in]."""
    import torch

    outward, inward = outward.double(), inward.double()
    tokens = len(outward)
    if tokens >= min(outward.shape[1], inward.shape[1]):
        return torch.linalg.svdvals(outward.T @ inward)
    one = torch.linalg.qr(outward.T, mode="r").R
    other = torch.linalg.qr(inward.T, mode="r").R
    return torch.linalg.svdvals(one @ other.T)
