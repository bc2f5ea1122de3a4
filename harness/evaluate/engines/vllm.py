"""The `vllm` engine: one running vLLM for all checkpoints of one config. Runs in the child process only.

The first checkpoint starts it; another of the same config, tokenizer, names, shapes and dtypes is swapped in.
A swap counts only when it is proved: the live weights are those of a fresh load, bit for bit (`vllm_worker`),
and the canary's tokens are as likely as transformers says (`vllm_swap`). Whatever is not proved, and every
checkpoint of another config, asks for a new process.
"""

from __future__ import annotations

import os
import time
from typing import Any

# Read when vLLM is imported: the engine lives in this process, which is a child already; nothing is reported
# to anyone; the system places the threads, for cores may be shared.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_NO_USAGE_STATS"] = "1"
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from harness.evaluate.lm_eval_cli import name_vllm  # noqa: E402

name_vllm()  # before lm-eval's class is imported

import torch  # noqa: E402
import vllm  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from harness.checkpoint.read import HEAD, Checkpoint  # noqa: E402
from harness.evaluate.engines import LoadError  # noqa: E402
from harness.evaluate.engines.chunks import Emit  # noqa: E402
from harness.evaluate.engines.loading import line  # noqa: E402
from harness.evaluate.engines.vllm_requests import StreamingVLLM  # noqa: E402
from harness.evaluate.engines.vllm_swap import (  # noqa: E402
    Canary,
    check_complete,
    difference,
    identity,
    opened,
)

WORKER = "harness.evaluate.engines.vllm_worker.Swap"
STEP_TOKENS = 2048  # of a step on a GPU: logits of that many prompt tokens fit what vLLM leaves free


class Engine:
    """See `engines/__init__.py`. Settings: those of `EngineSettings`, device, threads."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings, self.cpu = settings, current_platform.is_cpu()
        if settings.get("device") == "cpu" and not self.cpu:
            raise RuntimeError("the installed vLLM runs on GPUs only: `--device cpu` needs the CPU build")
        self.dtype = settings.get("dtype") or "auto"
        if self.dtype == "auto" and self.cpu:
            self.dtype = "float32"  # as `hf`
        eager = settings.get("eager")
        self.eager = self.cpu if eager is None else eager
        if self.cpu and self.eager:  # else single operations are compiled at their first use, for seconds
            torch._dynamo.config.disable = True
        self.lm: StreamingVLLM | None = None
        self.spoiled: str | None = None  # why this process can serve no more

    def load(self, checkpoint: str) -> dict[str, Any]:
        """Start on the checkpoint, or swap it in; {"restart": why} when only a new process can have it."""
        begun = time.perf_counter()
        model = opened(checkpoint)
        wanted = identity(model, self.dtype)
        unlike = difference(wanted, self.identity) if self.lm else ""
        if unlike is not None:
            check_complete(model)
        if self.spoiled:
            return {"restart": self.spoiled}
        if self.lm is None:
            self._start(model)
        elif unlike:
            return {"restart": f"{unlike} is not as in the running engine"}
        elif why := self._swap(model):
            self.spoiled = f"the swap to {checkpoint} is not proved: {why}"
            return {"restart": self.spoiled, "warning": True}
        self.identity, self.checkpoint, self.template = wanted, checkpoint, None
        return self._facts(model, time.perf_counter() - begun)

    def _start(self, model: Checkpoint) -> None:
        self.spoiled = "an earlier start failed"
        parallel = self.settings.get("tensor_parallel") or 1
        own = {"gpu_memory_utilization": self.settings.get("memory_fraction") or 0.9}
        if self.cpu:
            own = {"kv_cache_memory_bytes": (self.settings.get("kv_cache_gib") or 1) << 30}
            # A prompt in pieces makes vLLM rewind the request's generator, which CPU generators cannot do.
            own["enable_chunked_prefill"] = False
        else:
            own["max_num_batched_tokens"] = STEP_TOKENS
        try:
            self.lm = StreamingVLLM(
                str(model.path),
                dtype=self.dtype,
                max_model_len=self.settings.get("max_model_len"),
                tensor_parallel_size=parallel,
                distributed_executor_backend="uni" if parallel == 1 else "mp",
                max_num_seqs=self.settings.get("batch_size") or 256,
                enforce_eager=self.eager,
                worker_extension_cls=WORKER,
                disable_log_stats=True,
                **own,
            )
            self.canary = Canary(self.lm, model)
        except LoadError:
            raise
        except Exception as error:  # vLLM's, torch's, transformers': their types are many
            hint = "`max_model_len`, `memory_fraction` or `kv_cache_gib` under `engine:`, if memory is short"
            raise LoadError(f"vLLM does not start: {line(error)}", hint) from error
        self.spoiled, self.swapped, self.deviation = None, False, self.canary.noise

    def _swap(self, model: Checkpoint) -> str | None:
        """Bring other weights in. Returns what is wrong with them, None when the proof holds."""
        engine, path = self.lm.model, str(model.path.resolve())
        try:
            moved = engine.collective_rpc("harness_swap", args=(path,))
            if not engine.reset_prefix_cache():
                return "the prefix cache was not emptied"
            unlike = engine.collective_rpc("harness_differences", args=(path,))
            self.deviation = self.canary.deviation(self.lm, model)
        except Exception as error:  # of vLLM's loader, or of its engine, which then cannot go on
            return line(error)
        for what, names in (("memory moved", moved), ("unlike a fresh load", unlike)):
            if names := [name for worker in names for name in worker]:
                return f"{what}: {', '.join(names[:3])}"
        if self.deviation is not None and not self.deviation <= self.canary.allowed():
            return f"the canary is off by {self.deviation:.3g} nats (at the start {self.canary.noise:.3g})"
        self.swapped = True
        return None

    def _facts(self, model: Checkpoint, seconds: float) -> dict[str, Any]:
        tensors = model.tensors.items()
        return {
            "batch_size": self.lm.model.llm_engine.vllm_config.scheduler_config.max_num_seqs,
            "dtype": str(self.lm.model.llm_engine.model_config.dtype).removeprefix("torch."),
            "device": "cpu" if self.cpu else "cuda",
            "parameters": sum(info.numel for name, info in tensors if not (name == HEAD and model.tied)),
            "max_model_len": self.lm.max_length,
            "vllm": vllm.__version__,
            "swapped": self.swapped,
            "canary": self.deviation,
            "seconds": seconds,
        }

    def render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        if self.template is None:  # tokenizers of one engine are alike but for the template
            self.template = AutoTokenizer.from_pretrained(self.checkpoint).chat_template
        if self.template is None:
            raise LoadError("its tokenizer has no chat template", "set `chat_template: false` in the family")
        self.lm.hf_chat_template = self.template
        return self.lm.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)

    def generate(self, requests: list, emit: Emit) -> None:
        self.lm.generate(requests, emit)

    def loglikelihood(self, requests: list, emit: Emit) -> None:
        self.lm.score(requests, emit)

    def loglikelihood_rolling(self, requests: list, emit: Emit) -> None:
        self.lm.score_rolling(requests, emit)
