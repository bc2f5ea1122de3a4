"""lm-eval's HFLM, answering as each request is done. In the child process only.

What is asked is HFLM's own: its tokens, its order, its batches, its cuts and its reading of logits, so that
answers are what `lm_eval --model hf` gets. Only what it computes and does not use is left out: sequences that
have ended, logits of positions that are not scored, texts tokenised again.
"""

from __future__ import annotations

import bisect
import contextlib
import inspect
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import (
    handle_stop_sequences,
    has_bos_prefix,
    normalize_gen_kwargs,
    postprocess_generated_text,
)
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from harness.evaluate.engines import LoadError
from harness.evaluate.engines.chunks import Chunks, Emit
from harness.evaluate.engines.hf_decoding import Decoder, seeded

# Else the checkpoint's generation_config.json would decide.
NEUTRAL = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0}
NEUTRAL_DRAWN = {**NEUTRAL, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
Pair = tuple[list[int], list[int]]  # tokens of a context and of its continuation
Ended = Callable[[int, list[int]], None]


class StreamingHFLM(HFLM):
    """HFLM for one loaded model. Its batches are made smaller where one does not fit the GPU."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._known: dict[str, list[int]] = {}
        self._keeps = "logits_to_keep" in inspect.signature(self.model.forward).parameters

    def generate(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """See `engines/__init__.py`."""
        groups: dict[str, list[tuple[int, dict]]] = {}
        for index, request in requests:
            settings = json.dumps(request["kwargs"], sort_keys=True)
            groups.setdefault(settings, []).append((index, request))
        with Chunks(emit) as out:
            for group in groups.values():
                self._generate_alike(group, out)

    def _generate_alike(self, requests: list[tuple[int, dict]], out: Chunks) -> None:
        """Requests with the same generation settings, the longest first."""
        settings = normalize_gen_kwargs(requests[0][1]["kwargs"], self.max_gen_toks)
        eos = self.tok_decode(self.eot_token_id, skip_special_tokens=False)
        until = handle_stop_sequences(settings.pop("until", None), eos=eos)
        count = settings.pop("max_gen_toks")
        room = self.max_length - count
        if room <= 0:
            raise LoadError(
                f"{count} new tokens leave no room for a prompt in the model's {self.max_length}",
                "lower `max_gen_toks` under `generation:`",
            )
        contexts = [request["context"] for _, request in requests]
        encoded = self._encoded(contexts)
        left = sorted(range(len(requests)), key=lambda i: (-len(encoded[i]), contexts[i]))
        while left:
            batch, answered = left[: self.batch_size_per_gpu], set()

            def ended(row: int, tokens: list[int], batch: list = batch, answered: set = answered) -> None:
                text = postprocess_generated_text(self.tok_decode(tokens), until, None)
                spent, finish = self._facts_of(tokens, until)
                out.add(requests[batch[row]][0], {"text": text, "tokens": spent, "finish": finish})
                answered.add(batch[row])

            with self._fitting(len(batch)):
                seeds = [repr((requests[i][1]["seed"], contexts[i])) for i in batch]
                self._decode([encoded[i][-room:] for i in batch], seeds, count, until, settings, ended)
            left = [i for i in batch if i not in answered] + left[len(batch) :]

    def _decode(
        self,
        tokens: Sequence[list[int]],
        seeds: list[str],
        count: int,
        until: list[str],
        settings: dict[str, Any],
        ended: Ended,
    ) -> None:
        """One batch; `ended(row, new tokens)` as each row ends."""
        longest, pad = max(map(len, tokens)), self.tokenizer.pad_token_id
        drawn = bool(settings.get("do_sample"))
        asked = {**(NEUTRAL_DRAWN if drawn else NEUTRAL), **settings}
        if not drawn:
            asked.pop("temperature", None)
        asked |= {
            "input_ids": torch.tensor([[pad] * (longest - len(t)) + t for t in tokens]).to(self.device),
            "attention_mask": torch.tensor([[0] * (longest - len(t)) + [1] * len(t) for t in tokens]).to(
                self.device
            ),
            "max_length": longest + count,
            "pad_token_id": pad,
            "use_cache": True,
        }
        with self._computing():
            if asked.get("num_beams", 1) > 1:  # beams of a sequence end together: transformers' own loop
                torch.manual_seed(seeded(*seeds).initial_seed())
                for row, new in enumerate(self.model.generate(**asked)[:, longest:].tolist()):
                    ended(row, new)
                return
            texts = [term for term in until[:-1] if term]  # the last is the end token's
            window = max((len(ids) + 2 for ids in self._encoded(texts)), default=0)

            def stopped(rows: list[list[int]]) -> list[bool]:
                said = self.tokenizer.batch_decode(rows)
                return [any(term in text for term in texts) for text in said]

            decoder = Decoder(count, self.eot_token_id, stopped, window, seeds if drawn else None, ended)
            self.model.generate(**asked, custom_generate=decoder)

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

    def score(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """Log-likelihoods of continuations."""
        texts = [(r["context"], r["continuation"]) for _, r in requests]
        stripped = [context.rstrip() for context, _ in texts]  # `_encode_pair` moves spaces
        self._know([*filter(None, stripped), *(a + b for a, b in texts if a)])
        pairs = [self._pair(*text) for text in texts]
        self._known = {}
        with Chunks(emit) as out:
            for at, (logprob, greedy) in self._scored(pairs):
                out.add(requests[at][0], {"logprob": logprob, "greedy": greedy})

    def score_rolling(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """Log-likelihoods of whole documents, cut into windows; these are batched in their order."""
        pairs, owners, left, sizes = [], [], [], []
        for owner, tokens in enumerate(self._encoded([r["text"] for _, r in requests])):
            windows = get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length,
                context_len=1,
            )
            own = [make_disjoint_window(window) for window in windows]
            pairs += own
            owners += [owner] * len(own)
            left.append(len(own))
            sizes.append(len(tokens))
        values: dict[int, float] = {}
        with Chunks(emit) as out:
            for owner in (owner for owner, count in enumerate(left) if not count):
                out.add(requests[owner][0], {"logprob": 0, "tokens": 0})  # an empty document
            start = 0
            while start < len(pairs):
                size = self.batch_size_per_gpu
                for at, (logprob, _) in self._scored(pairs[start : start + size]):
                    values[start + at], owner = logprob, owners[start + at]
                    left[owner] -= 1
                    if not left[owner]:
                        first = bisect.bisect_left(owners, owner)
                        last = bisect.bisect_right(owners, owner)
                        total = sum(values.pop(i) for i in range(first, last))
                        out.add(requests[owner][0], {"logprob": total, "tokens": sizes[owner]})
                start += size

    def _pair(self, context: str, continuation: str) -> Pair:
        """As `TemplateLM.loglikelihood` encodes one."""
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[0] == self.prefix_token_id:
            return tokens[:1], tokens[1:]
        return [self.prefix_token_id], tokens

    def _scored(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """(index, (log-likelihood, whether greedy decoding gives it)), the longest first. Pairs that
        differ in their last token alone are computed once."""
        groups: dict[tuple, list[int]] = {}
        for at, (context, continuation) in enumerate(pairs):
            if not 0 < len(continuation) <= self.max_length:
                said = (
                    f"{len(continuation)} tokens, the model takes {self.max_length}"
                    if continuation
                    else "no tokens"
                )
                raise ValueError(f"a continuation has {said}")
            groups.setdefault((*context, *continuation[:-1]), []).append(at)
        longest = {key: max(group, key=lambda i: len(pairs[i][1])) for key, group in groups.items()}
        whole = {key: (*pairs[at][0], *pairs[at][1]) for key, at in longest.items()}
        left = sorted(groups, key=lambda key: (-len(whole[key]), whole[key]))
        while left:
            batch, found = left[: self.batch_size_per_gpu], []
            with self._fitting(len(batch)):
                logits = self._logits([pairs[longest[key]] for key in batch])
                for key, rows in zip(batch, logits, strict=True):
                    found += [(at, _read(rows, pairs[at][1])) for at in groups[key]]
                left = left[len(batch) :]
            yield from found

    def _logits(self, pairs: Sequence[Pair]) -> list[torch.Tensor]:
        """Log-probabilities [tokens of the continuation, vocabulary] of each pair, in one forward pass."""
        inputs = [[*context, *continuation][-(self.max_length + 1) : -1] for context, continuation in pairs]
        longest = max(map(len, inputs))
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in inputs]).to(self.device)
        begins = [len(row) - len(pair[1]) for row, pair in zip(inputs, pairs, strict=True)]
        keep = longest - min(begins)
        with self._computing():
            asked = {"logits_to_keep": keep} if self._keeps else {}
            logits = self.model(padded, use_cache=False, **asked).logits[:, -keep:]
            logits = torch.log_softmax(logits, -1, dtype=self.softmax_dtype)
        first = longest - keep
        return [
            rows[begin - first : begin - first + len(pair[1])]
            for rows, begin, pair in zip(logits, begins, pairs, strict=True)
        ]

    def _encoded(self, strings: Sequence[str]) -> list[list[int]]:
        """As `tok_encode`, all at once and each string once."""
        known = dict.fromkeys(strings)
        begin = self.tokenizer.decode(self.prefix_token_id)
        add = {} if self.add_bos_token is None else {"add_special_tokens": self.add_bos_token}
        begun = [string for string in known if has_bos_prefix(string, begin)]
        for group, settings in ((begun, {"add_special_tokens": False}), ([*known.keys() - begun], add)):
            if group:
                known.update(zip(group, self.tokenizer(group, **settings)["input_ids"], strict=True))
        return [known[string] for string in strings]

    def _know(self, strings: Sequence[str]) -> None:
        """Let `tok_encode` find these."""
        self._known = dict(zip(strings, self._encoded(strings), strict=True))

    def tok_encode(self, string: str, *args: Any, **kwargs: Any) -> list[int]:
        if not args and not kwargs and string in self._known:
            return self._known[string]
        return super().tok_encode(string, *args, **kwargs)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        mixed = self.mixed_precision_dtype
        with torch.no_grad(), torch.autocast(self.device.type, dtype=mixed, enabled=mixed is not None):
            yield

    @contextlib.contextmanager
    def _fitting(self, count: int) -> Iterator[None]:
        """Where `count` sequences at once are too many for the GPU, the batches after are half of that."""
        try:
            yield
            return
        except torch.OutOfMemoryError:
            if count == 1:
                raise
        self.batch_size_per_gpu = count // 2
        torch.cuda.empty_cache()


def _read(logprobs: torch.Tensor, continuation: list[int]) -> tuple[float, bool]:
    rows = logprobs[-len(continuation) :]
    tokens = torch.tensor(continuation, device=rows.device)
    return float(rows.gather(1, tokens[:, None]).sum()), bool((rows.argmax(-1) == tokens).all())
