"""Judges behind an OpenAI-compatible chat API: OpenAI's own, or a model served locally."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from typing import Any

from harness.errors import HarnessError
from harness.judges.spec import JudgeError, Spec

OPENAI = "https://api.openai.com/v1"
# These think before they answer, refuse `temperature`, and count their limit in `max_completion_tokens`.
REASONING = re.compile(r"(?:.*/)?(?:o\d|gpt-5(?!-chat))")
SAMPLING = ("temperature", "top_p")


class Chat:
    """A judge of kind `chat`. The key comes from the environment: from the variable that `key_env` names, or
    without `base_url` from OPENAI_API_KEY. Another server is never sent a key that it was not given."""

    def __init__(self, spec: Spec) -> None:
        self.spec, self.body = spec, request_body(spec)
        self.base_url = (spec.setting("base_url") or OPENAI).rstrip("/")
        self._client: Any = None

    def identity(self) -> dict[str, Any]:
        return {"kind": "chat", "model": self.spec.model, "base_url": self.base_url, "request": self.body}

    def ask(self, prompts: Sequence[Any]) -> Iterator[list[tuple[int, dict]]]:
        """Answers as they come, `concurrency` requests at a time. When one fails for good, those under way
        are waited for and handed over before its JudgeError is raised."""
        chats = [_messages(prompt) for prompt in prompts]
        self._client = _client(self.spec, self.base_url, self.body)
        pool = ThreadPoolExecutor(self.spec.setting("concurrency"), thread_name_prefix="judge")
        try:
            places = {pool.submit(self._client.complete, chat): i for i, chat in enumerate(chats)}
            yield from self._collected(places)
        finally:
            self.close()
            pool.shutdown(wait=False, cancel_futures=True)

    def _collected(self, places: dict[Future, int]) -> Iterator[list[tuple[int, dict]]]:
        from harness.judges.api import Stopped

        failure: JudgeError | None = None
        for future in as_completed(places):
            if future.cancelled():
                continue
            try:
                answer = future.result()
            except Stopped:
                continue
            except JudgeError as error:
                failure = failure or error
                self._client.stop.set()
                for other in places:
                    other.cancel()
                continue
            yield [(places[future], answer)]
        if failure is not None:
            raise failure

    def plain(self, answer: dict) -> str:
        return answer["text"]

    def facts(self, answers: list[dict]) -> dict[str, Any]:
        malformed = sum(not answer["text"].strip() for answer in answers)
        counts = {}
        for name in ("tokens_in", "tokens_out"):
            given = [answer[name] for answer in answers]
            counts[name] = None if None in given else sum(given)
        models = sorted({answer["model"] for answer in answers if answer["model"]})
        return {"malformed": malformed, "models": models, **counts, "cost": self._cost(**counts)}

    def _cost(self, tokens_in: int | None, tokens_out: int | None) -> float | None:
        price = self.spec.setting("price")
        if price is None or tokens_in is None or tokens_out is None:
            return None
        return (tokens_in * price["input"] + tokens_out * price["output"]) / 1e6

    def check(self) -> None:
        _client(self.spec, self.base_url, self.body).close()

    def close(self) -> None:
        if self._client is not None:
            self._client.close()


def request_body(spec: Spec) -> dict[str, Any]:
    """The request's fields besides model and messages, as this family of models takes them."""
    given = {name: spec.setting(name) for name in (*SAMPLING, "seed", "reasoning_effort")}
    reasoning = spec.setting("reasoning")
    if reasoning is None:
        reasoning = REASONING.match(spec.model) is not None
    wrong = SAMPLING if reasoning else ("reasoning_effort",)
    for name in wrong:
        if given[name] is not None:
            kind = "a reasoning model" if reasoning else "not a reasoning model"
            raise HarnessError(
                f"judge `{spec.model}` takes no `{name}`: it is {kind}",
                f"leave `{name}` out, or set `reasoning: {str(not reasoning).lower()}` if that is wrong",
            )
    if not reasoning and given["temperature"] is None:
        given["temperature"] = 0
    given["max_completion_tokens" if reasoning else "max_tokens"] = spec.setting("max_tokens")
    given["extra_body"] = dict(spec.setting("extra_body")) or None
    return {name: value for name, value in given.items() if value is not None}


def _messages(prompt: Any) -> list[dict]:
    if isinstance(prompt, str):
        return [{"role": "user", "content": prompt}]
    if isinstance(prompt, list) and prompt and all(isinstance(part, dict) for part in prompt):
        return prompt
    raise HarnessError(
        f"a judge of kind `chat` was asked with {type(prompt).__name__}",
        "its prompt is a str or a list of {role, content} messages",
    )


def _client(spec: Spec, base_url: str, body: dict[str, Any]) -> Any:
    key = _key(spec)
    try:
        from harness.judges.api import Client
    except ModuleNotFoundError as error:
        if error.name != "openai":
            raise
        raise HarnessError(
            f"judge `{spec.model}` needs the package `openai`, which is not installed",
            "pip install 'merge-harness[judges]'",
        ) from error
    return Client(spec, base_url, key, body)


def _key(spec: Spec) -> str | None:
    name = spec.setting("key_env") or (None if spec.setting("base_url") else "OPENAI_API_KEY")
    if name is None:
        return None
    key = os.environ.get(name, "").strip()
    if not key:
        raise HarnessError(
            f"judge `{spec.model}` needs a key, and the environment has no `{name}`",
            f"export {name}=..., name another variable by `key_env`, or a local server by `base_url`",
        )
    return key
