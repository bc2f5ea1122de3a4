"""The `hf` engine: lm-eval's own HFLM, so that its numbers are lm-eval's. Runs in the child process only.

HFLM is subclassed where it forgets something: how many tokens a response has and why it ended, and the
answers of a batch as soon as the batch is done (its cache hook reports them; here the hook hands them on).
"""

from __future__ import annotations

import bisect
import hashlib
import json
import time
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import torch
from lm_eval import utils
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM

from harness.evaluate.engines import LoadError
from harness.evaluate.engines.loading import device_of, facts, line, read_model

Emit = Callable[[list[tuple[int, Any]]], None]
NEUTRAL = {"repetition_penalty": 1.0, "top_k": 0, "no_repeat_ngram_size": 0}
SMALL = 100_000_000  # parameters up to which 128 sequences at once are no burden anywhere


class Engine:
    """See `engines/__init__.py`. Settings: device, dtype, batch_size, threads; `auto`, None: chosen here."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = settings
        if settings["threads"]:
            torch.set_num_threads(settings["threads"])
        self.device = device_of(settings)
        self.lm: StreamingHFLM | None = None

    def load(self, checkpoint: str) -> dict[str, Any]:
        begun = time.perf_counter()
        self.lm = None  # the old model's memory is free before the new one is read
        misfit = "the weights do not belong to this config.json"
        model = read_model(AutoModelForCausalLM, checkpoint, self.settings, misfit)
        count = sum(p.numel() for p in model.parameters())
        batch = self.settings["batch_size"] or (128 if count <= SMALL else 8)
        try:
            self.lm = StreamingHFLM(model, batch_size=batch)
        except (OSError, ValueError, KeyError) as error:
            fact = f"its tokenizer does not load: {line(error)}"
            raise LoadError(fact, f"check {checkpoint}/tokenizer.json") from error
        return facts(model, batch, self.device, time.perf_counter() - begun)

    def render(self, messages: list[dict], add_generation_prompt: bool) -> str:
        if self.lm.tokenizer.chat_template is None:
            raise LoadError("its tokenizer has no chat template", "set `chat_template: false` in the family")
        return self.lm.apply_chat_template(messages, add_generation_prompt=add_generation_prompt)

    def generate(self, requests: list, emit: Emit) -> None:
        asked = [(i, (r["context"], r["kwargs"]), r["seed"]) for i, r in requests]
        self.lm.stream("generate_until", asked, emit)

    def loglikelihood(self, requests: list, emit: Emit) -> None:
        asked = [(i, (r["context"], r["continuation"]), None) for i, r in requests]
        self.lm.stream("loglikelihood", asked, emit)

    def loglikelihood_rolling(self, requests: list, emit: Emit) -> None:
        self.lm.stream("loglikelihood_rolling", [(i, (r["text"],), None) for i, r in requests], emit)


class StreamingHFLM(HFLM):
    """HFLM that hands on the answers of each batch when it is done. The batches are HFLM's own."""

    def stream(self, kind: str, requests: list[tuple[int, tuple, Any]], emit: Emit) -> None:
        """Answer (index, arguments, seed) requests with HFLM's method `kind`."""
        self._emit, self._done, self._facts = emit, [], deque()
        self._waiting, self._seeds = defaultdict(deque), defaultdict(deque)
        for index, arguments, seed in requests:
            self._waiting[_identity(arguments)].append(index)
            self._seeds[arguments[0]].append(seed)
        self._documents = deque()
        if kind == "loglikelihood_rolling":
            self._documents.extend((index, *self._windows(text)) for index, (text,), _ in requests)
            self._sum, self._seen = 0, 0
        self.set_cache_hook(self)  # ours is `add_partial`
        getattr(self, kind)([Instance(kind, {}, args, 0) for _, args, _ in requests], disable_tqdm=True)
        self._flush()

    def _flush(self) -> None:
        if self._done:
            self._emit(self._done)
            self._done = []

    def add_partial(self, kind: str, arguments: tuple, answer: Any) -> None:
        """HFLM's cache hook: one answer, in the order of its batch."""
        if kind == "loglikelihood_rolling":  # comes when all are done; `_loglikelihood_tokens` knows earlier
            return
        if kind == "generate_until":
            tokens, finish = self._facts.popleft()
            value: dict[str, Any] = {"text": answer, "tokens": tokens, "finish": finish}
        else:
            value = {"logprob": answer[0], "greedy": answer[1]}
        self._done.append((self._waiting[_identity(arguments)].popleft(), value))

    def tok_batch_encode(self, strings: list[str], *args: Any, **kwargs: Any) -> Any:
        self._contexts = strings
        return super().tok_batch_encode(strings, *args, **kwargs)

    def _model_generate(self, context: torch.Tensor, max_length: int, stop: list[str], **kwargs: Any) -> Any:
        self._flush()
        seeds = [self._seeds[text].popleft() for text in self._contexts]
        if kwargs.get("do_sample"):  # the same batch draws the same tokens, whatever ran before it
            text = repr((seeds, self._contexts)).encode()
            torch.manual_seed(int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1)
        for name, neutral in NEUTRAL.items():  # else the checkpoint's generation_config.json would decide
            if name != "top_k" or kwargs.get("do_sample"):
                kwargs.setdefault(name, neutral)
        out = super()._model_generate(context=context, max_length=max_length, stop=stop, **kwargs)
        self._facts.extend(self._facts_of(row, stop) for row in out[:, context.shape[1] :].tolist())
        return out

    def _facts_of(self, row: list[int], stop: list[str]) -> tuple[int, str]:
        """(tokens generated, the end token included; why it ended: `stop` or `length`)."""
        ends = self.model.generation_config.eos_token_id
        ends = {*(ends if isinstance(ends, list) else [ends]), self.eot_token_id}
        length = next((place + 1 for place, token in enumerate(row) if token in ends), None)
        row = row[:length]

        def stopped(count: int) -> bool:
            text = self.tok_decode(row[:count])
            return any(term in text for term in stop if term)

        if stopped(len(row)):
            return bisect.bisect_left(range(len(row)), True, key=stopped), "stop"
        return len(row), "length" if length is None else "stop"

    def _model_call(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        self._flush()
        return super()._model_call(*args, **kwargs)

    def _windows(self, text: str) -> tuple[int, int]:
        """(windows that HFLM cuts a document into, its tokens)."""
        tokens = self.tok_encode(text)
        windows = utils.get_rolling_token_windows(
            token_list=tokens, prefix_token=self.prefix_token_id, max_seq_len=self.max_length, context_len=1
        )
        return sum(1 for _ in windows), len(tokens)

    def _loglikelihood_tokens(self, requests: list, **kwargs: Any) -> list[tuple[float, bool]]:
        answers = super()._loglikelihood_tokens(requests, **{**kwargs, "disable_tqdm": True})
        if self._documents:  # windows come in the order of the documents
            for logprob, _ in answers:
                self._finish_documents()
                self._sum, self._seen = self._sum + logprob, self._seen + 1
            self._finish_documents()
        return answers

    def _finish_documents(self) -> None:
        while self._documents and self._documents[0][1] == self._seen:
            index, _, tokens = self._documents.popleft()
            self._done.append((index, {"logprob": self._sum, "tokens": tokens}))
            self._sum, self._seen = 0, 0


def _identity(arguments: tuple) -> str:
    return json.dumps(arguments, sort_keys=True)
