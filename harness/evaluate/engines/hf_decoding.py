"""The `hf` engine's decoding loop: a sequence that has ended leaves its batch. In the child process only.

transformers prepares everything as for its own loop (`generate(custom_generate=...)`), which would compute
every sequence until the last one ends.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import torch

SHRINK = 8  # the batch is made smaller when one in so many sequences has ended: that copies the cache


class Decoder:
    """To be given to `generate` as `custom_generate`, once.

    `ended(row, tokens)` is called as each sequence of the batch ends: at `end` or an end token of the model's
    generation_config.json (which are among the tokens), or at a text to stop at. `stopped` says of the last
    `window` tokens of each whether one is in them; 0 where there is none. `seeds`, one per sequence, are None
    for greedy decoding: what is drawn for a sequence depends on its seed alone, not on its batch.
    """

    def __init__(
        self,
        count: int,
        end: int,
        stopped: Callable[[list[list[int]]], list[bool]],
        window: int,
        seeds: Sequence[str] | None,
        ended: Callable[[int, list[int]], None],
    ) -> None:
        self.count, self.end, self.window = count, end, window
        self.stopped, self.seeds, self.ended = stopped, seeds, ended

    def __call__(
        self,
        model: Any,
        input_ids: torch.Tensor,
        logits_processor: Any,
        stopping_criteria: Any,
        generation_config: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """`input_ids` [batch, prompt]; returns what is left of them at the end, which nobody needs."""
        kwargs = {k: v for k, v in kwargs.items() if k not in ("synced_gpus", "streamer", "assistant_model")}
        prompt, device = input_ids.shape[1], input_ids.device
        rows = torch.arange(input_ids.shape[0])  # which sequence of the batch each line is
        live = torch.ones(len(rows), dtype=torch.bool)
        draws = self._draws(device)
        inputs = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **kwargs)
        for step in range(self.count):
            outputs = model(**inputs, return_dict=True)
            kwargs = model._update_model_kwargs_for_generation(outputs, kwargs)
            logits = outputs.logits[:, -1].to(copy=True, dtype=torch.float32, device=device)
            del outputs
            scores = logits_processor(input_ids, logits)
            tokens = scores.argmax(-1) if draws is None else _draw(scores, draws[rows, step])
            input_ids = torch.cat([input_ids, tokens[:, None]], dim=-1)
            over = ((tokens == self.end) | stopping_criteria(input_ids, None)).cpu()
            if self.window:
                tail = input_ids[:, max(prompt, input_ids.shape[1] - self.window) :].tolist()
                over |= torch.tensor(self.stopped(tail))
            over = live if step + 1 == self.count else over & live
            for line in over.nonzero().flatten().tolist():
                self.ended(int(rows[line]), input_ids[line, prompt:].tolist())
            live &= ~over
            if not live.any():
                break
            if (~live).sum() * SHRINK >= len(live) and _shrink(kwargs, live.to(device)):
                input_ids, rows = input_ids[live.to(device)], rows[live]
                live = live[live]
            inputs = model.prepare_inputs_for_generation(input_ids, next_sequence_length=1, **kwargs)
        return input_ids

    def _draws(self, device: Any) -> torch.Tensor | None:
        """[batch, steps] uniform numbers; None for greedy decoding."""
        if self.seeds is None:
            return None
        shape = {"size": (self.count,), "dtype": torch.float64}
        return torch.stack([torch.rand(generator=seeded(seed), **shape) for seed in self.seeds]).to(device)


def seeded(*seeds: str) -> torch.Generator:
    """A generator that depends on these alone."""
    digest = hashlib.sha256("\n".join(seeds).encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def _draw(scores: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Tokens [batch] drawn from logits [batch, vocabulary] by inverting the distribution function."""
    reached = scores.double().softmax(-1).cumsum(-1)
    wanted = (uniform.to(scores.device) * reached[:, -1])[:, None]
    return torch.searchsorted(reached, wanted, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


def _shrink(kwargs: dict[str, Any], live: torch.Tensor) -> bool:
    """Keep the live lines of all that is carried from step to step; False where the cache cannot do that."""
    cache = kwargs.get("past_key_values")
    layers = getattr(cache, "layers", None)
    carried = {
        name: value for name, value in kwargs.items() if isinstance(value, torch.Tensor) and value.dim()
    }
    if not layers or not all(hasattr(layer, "batch_select_indices") for layer in layers):
        return False
    if any(value.shape[0] != len(live) for value in carried.values()):
        return False
    cache.batch_select_indices(live.nonzero().flatten())
    kwargs.update({name: value[live] for name, value in carried.items()})
    return True
