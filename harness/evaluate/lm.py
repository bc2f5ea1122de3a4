"""lm-eval's views of a model: a chat template while requests are built, answers while they are scored.

Heavy: imports lm-eval.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from harness.errors import HarnessError
from harness.evaluate.engine import Engine
from harness.evaluate.store import ResponseStore, canonical
from harness.task import THINK_OPEN, opens_thinking

TEMPLATE_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                  "special_tokens_map.json", "added_tokens.json")  # fmt: skip


class ChatTemplate:
    """A model's chat template. `known` holds what was rendered by the same template before; all that one
    task asked for is in `rendered`, by canonical request."""

    def __init__(
        self, engine: Engine, checkpoint: Path, template: str, store: ResponseStore, known: dict[str, str]
    ) -> None:
        self._engine, self._checkpoint, self._template = engine, checkpoint, template
        self._store, self._known = store, known
        self.rendered: dict[str, str] = {}
        self.waited = 0.0  # seconds spent on the engine

    def __call__(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        request = canonical({"kind": "render", "messages": chat_history, "generate": add_generation_prompt,
                             "template": self._template})  # fmt: skip
        if request not in self._known:
            key = self._store.key(request)
            stored, begun = self._store.get([key]), time.perf_counter()
            self._known[request] = (
                stored[key]
                if key in stored
                else self._engine.render(self._checkpoint, chat_history, add_generation_prompt)
            )
            self.waited += time.perf_counter() - begun
        self.rendered[request] = self._known[request]
        return self._known[request]


class AnsweredLM(LM):
    """lm-eval's model interface over answers that are there: by lm-eval's type of request, in its order.

    `ahead` is shown all (row, response) pairs before lm-eval scores them one by one.
    """

    def __init__(
        self,
        answers: dict[str, list[dict[str, Any]]],
        ahead: Callable[[list[tuple[dict, str]]], None] | None = None,
    ) -> None:
        super().__init__()
        self._answers, self._ahead = answers, ahead

    def _of(self, kind: str, requests: list[Instance]) -> Iterator[tuple[Instance, dict[str, Any]]]:
        return zip(requests, self._answers[kind], strict=True)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        # A response that begins inside the thinking gets its `<think>` back, so that scorers see it.
        texts = [
            (THINK_OPEN if opens_thinking(request.args[0]) else "") + answer["text"]
            for request, answer in self._of("generate_until", requests)
        ]
        if self._ahead is not None:
            self._ahead([(r.doc, text) for r, text in zip(requests, texts, strict=True)])
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return [(told["logprob"], told["greedy"]) for _, told in self._of("loglikelihood", requests)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        return [told["logprob"] for _, told in self._of("loglikelihood_rolling", requests)]


def template_identity(checkpoint: Path) -> str:
    """sha256 (hex) of the files that decide how a chat becomes a prompt."""
    found = hashlib.sha256()
    for name in TEMPLATE_FILES:
        path = checkpoint / name
        if path.is_file():
            found.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    if not checkpoint.is_dir():
        raise HarnessError(f"checkpoint {checkpoint} is not a folder", "merge again, or correct the path")
    return found.hexdigest()
