"""Running sums over samples, fed by hooks that free each gradient. Imports torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import safe_open

from harness.errors import HarnessError
from harness.scores.samples import Against


class Sums:
    """Running sums per kind and parameter. Votes are counted in int16; other sums are of `dtype`. With
    `offload` they lie in host memory, and what is added crosses over; the arithmetic stays on the device."""

    def __init__(
        self,
        model: torch.nn.Module,
        kinds: Sequence[str],
        dtype: torch.dtype,
        against: Against | None = None,
        offload: bool = False,
    ) -> None:
        self.kinds = kinds
        place = {"device": "cpu"} if offload else {}
        parameters = dict(model.named_parameters())  # tied weights come once
        self.of = {
            k: {
                n: torch.zeros_like(p, dtype=torch.int16 if k == "votes" else dtype, **place)
                for n, p in parameters.items()
            }
            for k in kinds
        }
        self.penalty = _penalty(parameters, against, place) if "votes" in kinds and against else {}
        for name, parameter in parameters.items():
            parameter.register_post_accumulate_grad_hook(lambda p, name=name: self._fold(name, p))

    def _fold(self, name: str, parameter: torch.nn.Parameter) -> None:
        gradient, parameter.grad = parameter.grad, None
        if "fisher" in self.kinds:
            self._add("fisher", name, gradient.square())
        if "gradient" in self.kinds:
            self._add("gradient", name, gradient.abs())
        if not {"snip", "snip_squared", "votes"} & set(self.kinds):
            return
        saliency = gradient.mul_(parameter.detach())
        if "votes" in self.kinds:  # RCP-Merging's s_j = g_j w_j + lambda F (theta_r - theta_t)^2
            self._add("votes", name, self.penalty[name].to(saliency.device).add(saliency) <= 0)
        saliency.abs_()
        if "snip" in self.kinds:
            self._add("snip", name, saliency)
        if "snip_squared" in self.kinds:
            self._add("snip_squared", name, saliency.square_())

    def _add(self, kind: str, name: str, value: torch.Tensor) -> None:
        total = self.of[kind][name]
        total.add_(value.to(total.device))

    def add(self, kind: str, file: Path) -> None:
        """Add the sums that another process left in a safetensors file."""
        with safe_open(str(file), "pt") as stored:
            for name, total in self.of[kind].items():
                total.add_(stored.get_tensor(name).to(total.device))

    def mean(self, kind: str, samples: int) -> dict[str, torch.Tensor]:
        """The mean over samples, float32 in host memory; gives the running sums away."""
        sums = self.of.pop(kind)
        return {name: sums.pop(name).float().div_(samples).cpu() for name in list(sums)}


def _penalty(
    parameters: Mapping[str, torch.nn.Parameter], against: Against, place: Mapping[str, str]
) -> dict[str, torch.Tensor]:
    """lambda F (theta_r - theta_t)^2 by parameter, float32; kept in `place`, {} for the parameter's own."""
    made = {}
    for name, weight, fisher in _both(against.model, against.fisher, parameters):
        own = parameters[name].detach()
        if weight.shape != own.shape or fisher.shape != own.shape:
            raise HarnessError(
                f"`{name}` is {list(own.shape)}, and {list(weight.shape)} in {against.model}",
                "votes compare two experts of one architecture",
            )
        apart = weight.to(own.device).float() - own.float()
        apart = apart.square_().mul_(fisher.to(own.device)).mul_(against.penalty)
        made[name] = apart.to(place.get("device", own.device))
    return made


def _both(one: Path, other: Path, names: Mapping[str, object]) -> Iterator[tuple]:
    """(name, tensor in `one`, tensor in `other`); one tensor of each in memory at a time."""
    from harness.checkpoint import Checkpoint

    infos = [Checkpoint.open(folder).tensors for folder in (one, other)]
    for name in names:
        for folder, held in zip((one, other), infos, strict=True):
            if name not in held:
                raise HarnessError(f"{folder} has no tensor `{name}`", "votes need one architecture")
        yield name, *(_tensor(held[name].file, name) for held in infos)


def _tensor(file: Path, name: str) -> torch.Tensor:
    with safe_open(str(file), "pt") as stored:
        return stored.get_tensor(name)
