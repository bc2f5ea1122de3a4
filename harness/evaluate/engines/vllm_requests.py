"""lm-eval's class for vLLM, fed continuously and answering as each request finishes. Child process only.

What is asked is lm-eval's own: its tokens, its windows, its reading of logprobs and of generation settings,
in its order. So answers are what `lm_eval --model vllm` gets from the same engine.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence

from lm_eval.models.utils import maybe_truncate, postprocess_generated_text
from lm_eval.models.vllm_causallms import VLLM
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
from vllm import RequestOutput, SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind

from harness.evaluate.choice import IDLE, unsupported
from harness.evaluate.engines import LoadError
from harness.evaluate.engines.chunks import Chunks, Emit

Asked = tuple[list[int], SamplingParams]
Pair = tuple[list[int], list[int]]  # tokens of a context and of its continuation


class StreamingVLLM(VLLM):
    """lm-eval's VLLM whose engine is stepped here. `max_num_seqs` is the engine's own."""

    def generate(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """See `engines/__init__.py`."""
        contexts = self.tok_encode([r["context"] for _, r in requests])
        order = sorted(range(len(requests)), key=lambda i: (-len(contexts[i]), requests[i][1]["context"]))
        made = [self._sampled(contexts[i], requests[i][1]) for i in order]
        with Chunks(emit) as out:
            for at, output in self._run([(tokens, params) for tokens, params, _ in made]):
                (answer,) = output.outputs
                if answer.finish_reason not in ("stop", "length"):
                    raise RuntimeError(f"vLLM ended a request with `{answer.finish_reason}`")
                text = postprocess_generated_text(answer.text, made[at][2], None)
                facts = {"tokens": len(answer.token_ids), "finish": answer.finish_reason}
                out.add(requests[order[at]][0], {"text": text, **facts})

    def score(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """Log-likelihoods of continuations."""
        pairs = [self._pair(r["context"], r["continuation"]) for _, r in requests]
        with Chunks(emit) as out:
            for at, (logprob, greedy) in self._scored(pairs):
                out.add(requests[at][0], {"logprob": logprob, "greedy": greedy})

    def score_rolling(self, requests: list[tuple[int, dict]], emit: Emit) -> None:
        """Log-likelihoods of whole documents, cut into windows of `max_length - 2` tokens as lm-eval does."""
        pairs, owners, counts = [], [], []
        for owner, (_, request) in enumerate(requests):
            tokens = self.tok_encode(request["text"])
            windows = get_rolling_token_windows(
                token_list=tokens,
                prefix_token=self.prefix_token_id,
                max_seq_len=self.max_length - 2,
                context_len=1,
            )
            own = [make_disjoint_window(window) for window in windows]
            pairs += own
            owners += [owner] * len(own)
            counts.append((len(own), len(tokens)))
        parts: dict[int, dict[int, float]] = {owner: {} for owner in range(len(requests))}
        with Chunks(emit) as out:
            for owner in [owner for owner, (windows, _) in enumerate(counts) if not windows]:
                out.add(requests[owner][0], {"logprob": 0.0, "tokens": 0})  # an empty document
            for at, (logprob, _) in self._scored(pairs):
                owner = owners[at]
                parts[owner][at] = logprob
                if len(parts[owner]) == counts[owner][0]:  # in the order of the text, as lm-eval adds up
                    total = sum(value for _, value in sorted(parts.pop(owner).items()))
                    out.add(requests[owner][0], {"logprob": total, "tokens": counts[owner][1]})

    def _sampled(self, tokens: list[int], request: dict) -> tuple[list[int], SamplingParams, list[str]]:
        """(tokens of the prompt, cut on the left where they leave no room; how to sample; stop strings)"""
        asked = request["kwargs"]
        for name in unsupported(asked):
            raise LoadError(f"vLLM cannot generate with `{name}: {asked[name]}`", "`--engine hf`")
        asked = {name: value for name, value in asked.items() if name not in IDLE}
        end = self.tokenizer.decode(self.eot_token_id) or self.tokenizer.eos_token
        settings, until, count = self.modify_gen_kwargs(asked, end, self.max_gen_toks)
        if count >= self.max_length:
            raise LoadError(
                f"{count} new tokens leave no room for a prompt in the model's {self.max_length}",
                "lower `max_gen_toks` under `generation:`",
            )
        tokens, count = maybe_truncate(tokens, max_gen_toks=count, max_model_len=self.max_length)
        if settings.get("temperature", 1.0) > 0:
            settings["seed"] = _seed(request)
        stops = [term for term in until if term]
        final = RequestOutputKind.FINAL_ONLY
        return tokens, SamplingParams(max_tokens=count, stop=stops, output_kind=final, **settings), until

    def _pair(self, context: str, continuation: str) -> Pair:
        """As `TemplateLM.loglikelihood` encodes one."""
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[0] == self.prefix_token_id:
            return tokens[:1], tokens[1:]
        return [self.prefix_token_id], tokens

    def _scored(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, tuple[float, bool]]]:
        room = self.max_length - 1  # vLLM generates a token always
        whole = [context + continuation for context, continuation in pairs]
        order = sorted(range(len(pairs)), key=lambda i: (-len(whole[i]), whole[i]))
        params = SamplingParams(
            temperature=0,
            prompt_logprobs=1,
            max_tokens=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
        )
        inputs = [whole[i][-room:] for i in order]
        for at, output in self._run([(tokens, params) for tokens in inputs]):
            index = order[at]
            context = len(pairs[index][0]) - max(0, len(whole[index]) - room)
            yield index, self._parse_logprobs(tokens=inputs[at], outputs=output, ctxlen=context)

    def go_on(self, tokens: list[int], count: int) -> tuple[list[int], list[float]]:
        """What the model says after a prompt, greedily, `count` tokens; and their logprobs."""
        final = RequestOutputKind.FINAL_ONLY
        params = SamplingParams(
            temperature=0, max_tokens=count, ignore_eos=True, logprobs=0, detokenize=False, output_kind=final
        )
        ((_, output),) = self._run([(tokens, params)])
        (answer,) = output.outputs
        said = list(answer.token_ids)
        return said, [row[token].logprob for token, row in zip(said, answer.logprobs, strict=True)]

    def _run(self, asked: Sequence[Asked]) -> Iterator[tuple[int, RequestOutput]]:
        """Finished requests as they finish. The queue is kept so long that vLLM fills every step as if it had
        all."""
        engine = self.model.llm_engine
        queued, room = 0, 2 * engine.vllm_config.scheduler_config.max_num_seqs
        while True:
            while queued < len(asked) and engine.get_num_unfinished_requests() < room:
                tokens, params = asked[queued]
                engine.add_request(str(queued), TokensPrompt(prompt_token_ids=tokens), params)
                queued += 1
            if not engine.has_unfinished_requests():
                return
            for output in engine.step():
                if output.finished:
                    yield int(output.request_id), output


def _seed(request: dict) -> int:
    """The same request draws the same tokens, whatever runs beside it."""
    text = repr((request["seed"], request["context"])).encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:8], "big") >> 1
