"""What a vLLM worker is taught: other weights in place, and the proof that they are what runs.

vLLM's `reload_weights` copies a checkpoint into the tensors of the live model. Two things are left as they
were (vLLM 0.32, `reload/layerwise.py`): on a CPU every linear layer runs on a packed copy of its weight, and
that of an output head which shares the embedding's weight is never packed again, for no tensor of the
checkpoint belongs to the head itself. So `swap` packs it again, and `differences` compares the live model
with one that is freshly loaded from the same files. In the worker process only.
"""

from __future__ import annotations

import copy

import torch
from vllm.config import CompilationMode, set_current_vllm_config
from vllm.model_executor.model_loader import get_model_loader

RUNTIME = {"kv_cache"}  # tensors of a layer that hold no weights


class Swap:
    """Mixed into vLLM's worker class (`worker_extension_cls`)."""

    def harness_swap(self, path: str) -> list[str]:
        """Read the checkpoint at `path` into the live model. Returns the parameters whose memory has moved,
        which a captured graph would not notice: [] when all is well."""
        model = self.model_runner.get_model()
        before = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
        self.model_runner.reload_weights(weights_path=path)
        for module in model.modules():
            if hasattr(module, "cpu_linear") and module.weight.numel():  # packed, and the weight is kept
                module.quant_method.process_weights_after_loading(module)
        after = {name: tensor.data_ptr() for name, tensor in model.named_parameters()}
        return [name for name in after if before.get(name) != after[name]]

    def harness_differences(self, path: str) -> list[str]:
        """Where the live model differs from the checkpoint at `path` freshly loaded (into host memory), bit
        for bit: parameters, buffers, tensors derived from them, and what packed layers compute. [] for
        nowhere."""
        live, fresh = self.model_runner.get_model(), self._fresh(path)
        theirs = dict(fresh.named_modules())
        found = [f"{name}: only in one" for name in theirs.keys() ^ dict(live.named_modules()).keys()]
        for name, module in live.named_modules() if not found else ():
            found += [f"{name}.{part}" for part in _unlike(module, theirs[name])]
        return found

    def _fresh(self, path: str) -> torch.nn.Module:
        config = copy.copy(self.vllm_config)
        config.model_config = copy.copy(config.model_config)
        config.model_config.model = path
        config.load_config = copy.copy(config.load_config)
        config.load_config.device = "cpu"
        # Layers enter themselves in these two; the live model's entries must stay.
        config.compilation_config = copy.copy(config.compilation_config)
        config.compilation_config.static_forward_context = {}
        config.compilation_config.static_all_moe_layers = []
        config.compilation_config.mode = CompilationMode.NONE
        with set_current_vllm_config(config):
            return get_model_loader(config.load_config).load_model(config, config.model_config)


def _unlike(one: torch.nn.Module, other: torch.nn.Module) -> list[str]:
    mine, theirs = _tensors(one), _tensors(other)
    found = list(mine.keys() ^ theirs.keys())
    for name in mine.keys() & theirs.keys():
        alike = _close if name in one._non_persistent_buffers_set else _same
        if not alike(mine[name], theirs[name]):
            found.append(name)
    if hasattr(one, "cpu_linear") and not _same(_probe(one), _probe(other)):
        found.append("cpu_linear")
    return found


def _tensors(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    own = {name: value for name, value in vars(module).items() if isinstance(value, torch.Tensor)}
    held = {**own, **module._parameters, **module._buffers}
    return {name: value for name, value in held.items() if value is not None and name not in RUNTIME}


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    one, other = (t.detach().cpu().contiguous().view(-1).view(torch.uint8) for t in (one, other))
    return torch.equal(one, other)


def _close(one: torch.Tensor, other: torch.Tensor) -> bool:
    """For tables that are made of the config alone (rotary angles): a GPU's cosine is not quite a CPU's."""
    return one.shape == other.shape and torch.allclose(one.cpu().float(), other.cpu().float(), atol=1e-2)


def _probe(module: torch.nn.Module) -> torch.Tensor:
    """What a packed layer makes of fixed inputs: with `+1` and `-1` no column can hide."""
    width = module.input_size_per_partition
    draw = torch.Generator().manual_seed(width)
    inputs = torch.randint(0, 2, (4, width), generator=draw) * 2 - 1
    return module.cpu_linear(inputs.to(module.weight.dtype), module.weight, None)
