"""Which checkpoints may share a running vLLM engine, and the canary that a swap is proved by. Child only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch

from harness.checkpoint.identity import CONFIG_BOOKKEEPING, TOKENIZER_FILES
from harness.checkpoint.read import Checkpoint
from harness.errors import HarnessError
from harness.evaluate.engines import LoadError
from harness.evaluate.engines.loading import line, read_model

TEMPLATES = ("chat_template.jinja", "chat_template.json")
SMALL = 256 << 20  # bytes of weights up to which transformers computes the canary's reference
GENERATED = 8  # tokens of a canary
SEEDS = (1, 2, 3)  # a canary prompt each


def opened(checkpoint: str) -> Checkpoint:
    """The headers of a checkpoint; LoadError for what is none."""
    if not (Path(checkpoint) / "config.json").is_file():
        raise LoadError("it has no config.json", "name a folder with a model in transformers' layout")
    try:
        return Checkpoint.open(checkpoint)
    except HarnessError as error:
        raise LoadError(error.message, error.hint) from error


def identity(model: Checkpoint, dtype: str) -> dict[str, Any]:
    """What two checkpoints must have in common to run in one engine, by name. `dtype` is the engine's own;
    under `auto` the checkpoint's counts."""
    ignored = {*CONFIG_BOOKKEEPING, "use_cache"}
    found = {f"config `{k}`": v for k, v in model.config.items() if k not in ignored}
    if dtype == "auto":
        found["dtype"] = model.config.get("dtype", model.config.get("torch_dtype"))
    found["end token"] = _json(model.path / "generation_config.json").get("eos_token_id")
    for name in TOKENIZER_FILES:
        if name not in TEMPLATES and (model.path / name).is_file():
            found[f"file `{name}`"] = _content(model.path / name)
    for name, info in model.tensors.items():
        found[f"tensor `{name}`"] = f"{info.dtype} {list(info.shape)}"
    return found


def difference(one: dict[str, Any], other: dict[str, Any]) -> str | None:
    """The first thing in which two identities differ, None when they do not."""
    for name in [*one, *other]:
        if one.get(name) != other.get(name):
            return name
    return None


def check_complete(model: Checkpoint) -> None:
    """LoadError when tensors are missing or of other shapes than config.json says: vLLM would go on with what
    was in memory. Models whose stored names transformers maps to others are left to vLLM's own check."""
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    if get_checkpoint_conversion_mapping(model.config.get("model_type")):
        return
    try:
        config = AutoConfig.from_pretrained(model.path)
        with torch.device("meta"):
            empty = AutoModelForCausalLM.from_config(config)
    except (ValueError, KeyError, OSError, AttributeError, ImportError) as error:
        raise LoadError(f"its config.json: {line(error)}", "a model that transformers knows") from error
    tied = set(empty.all_tied_weights_keys) if model.tied else set()
    wanted = {name: tuple(t.shape) for name, t in empty.state_dict().items() if name not in tied}
    held = {name: info.shape for name, info in model.tensors.items()}
    misfit = "the weights do not belong to this config.json"
    missing = sorted(wanted.keys() - held.keys())
    if missing:
        raise LoadError(f"{len(missing)} missing tensors ({', '.join(missing[:3])})", misfit)
    unlike = [name for name, shape in wanted.items() if held[name] != shape]
    if unlike:
        first, is_, said = unlike[0], list(held[unlike[0]]), list(wanted[unlike[0]])
        raise LoadError(f"{len(unlike)} tensors of another shape (`{first}`: {is_}, not {said})", misfit)


class Canary:
    """Fixed prompts, longer than a block of the key-value cache, that a running engine goes on from;
    transformers says from the files alone how likely what it wrote was. `noise` is how far the two are apart
    in an engine that was started on the checkpoint."""

    def __init__(self, lm: Any, model: Checkpoint) -> None:
        config = lm.model.llm_engine.vllm_config
        block = config.cache_config.block_size or 16
        self.length = max(1, min(block + 16, lm.max_length - GENERATED - 1))
        self.small = sum(info.nbytes for info in model.tensors.values()) <= SMALL
        self.words = config.model_config.get_vocab_size()
        self.noise = self.deviation(lm, model)

    def deviation(self, lm: Any, model: Checkpoint) -> float | None:
        """The largest difference between a token's two logprobs, nats; None for a model too large for it."""
        if not self.small:
            return None
        written = [(tokens, *lm.go_on(tokens, GENERATED)) for tokens in self._prompts()]
        reference = read_model(_classes(), str(model.path), {"device": "cpu", "dtype": "float32"}, "")
        return max(_apart(reference, *one) for one in written)

    def allowed(self) -> float:
        """Far below what another model's weights would change, above what rounding does."""
        return max(1e-3, 4 * (self.noise or 0.0))

    def _prompts(self) -> list[list[int]]:
        draws = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        return [torch.randint(0, self.words, (self.length,), generator=draw).tolist() for draw in draws]


def _classes() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM


@torch.inference_mode()
def _apart(reference: Any, prompt: list[int], written: list[int], logprobs: list[float]) -> float:
    logits = reference(torch.tensor([prompt + written])).logits[0, len(prompt) - 1 : -1].float()
    theirs = torch.log_softmax(logits, -1).gather(1, torch.tensor(written)[:, None])[:, 0]
    return float((theirs - torch.tensor(logprobs)).abs().max())


def _content(path: Path) -> str:
    if (
        path.name == "tokenizer_config.json"
    ):  # the template in it is rendered by the checkpoint's own tokenizer
        data = {k: v for k, v in _json(path).items() if k not in ("chat_template", "name_or_path")}
        return json.dumps(data, sort_keys=True)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise LoadError(f"{path.name} cannot be read: {line(error)}", f"check {path}") from error
    return found if isinstance(found, dict) else {}
