"""The model as lm-eval sees it in the parent: answers come from the response store, or else from the engine.

Heavy: imports lm-eval.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from harness.errors import HarnessError
from harness.evaluate.engine import Engine
from harness.evaluate.store import ResponseStore
from harness.task import THINK_OPEN, opens_thinking

TEMPLATE_FILES = ("tokenizer_config.json", "chat_template.jinja", "chat_template.json",
                  "special_tokens_map.json", "added_tokens.json")  # fmt: skip


class StoredLM(LM):
    """lm-eval's model interface over a response store and an engine.

    `numerics` names what changes an answer besides model and request (engine, dtype). After the run,
    `answers[task name, doc_id]` holds each document's answers in the order of its requests. `ahead` is shown
    all (row, response) pairs before lm-eval scores them one by one.
    """

    def __init__(
        self,
        engine: Engine,
        store: ResponseStore,
        checkpoint: Path,
        *,
        numerics: dict[str, Any],
        seed: int,
        progress: Callable[[int, int], None],
        prompts: dict[str, str],
        ahead: Callable[[list[tuple[dict, str]]], None] | None = None,
    ) -> None:
        super().__init__()
        self.engine, self.store, self.checkpoint = engine, store, checkpoint
        self.numerics, self.seed, self.progress = numerics, seed, progress
        self.generated = self.from_store = 0
        self.waited = 0.0  # seconds spent on the engine
        self.answers: dict[tuple[str, int], list[tuple[Instance, dict]]] = {}
        self._ahead = ahead
        self._prompts, self._template = prompts, template_identity(checkpoint)
        self._rendered: list[tuple[str, dict, str]] = []

    @property
    def tokenizer_name(self) -> str:
        return self._template

    def apply_chat_template(self, chat_history: list[dict], add_generation_prompt: bool = True) -> str:
        """A chat as this model's prompt. Merges of a family share a template: each chat is rendered once."""
        request = {"kind": "render", "messages": chat_history, "generate": add_generation_prompt,
                   "template": self._template}  # fmt: skip
        shared = json.dumps(request, sort_keys=True)
        if shared not in self._prompts:
            key = self.store.key(request)
            known = self.store.get([key])
            if key in known:
                self._prompts[shared] = known[key]
            else:
                begun = time.perf_counter()
                text = self.engine.render(self.checkpoint, chat_history, add_generation_prompt)
                self.waited += time.perf_counter() - begun
                self._prompts[shared] = text
                self._rendered.append((key, request, text))
        return self._prompts[shared]

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked = [{"context": context, "kwargs": kwargs} for context, kwargs in (r.args for r in requests)]
        answers = self._ask("generate", requests, asked)
        # A response that begins inside the thinking gets its `<think>` back, so that scorers see it.
        texts = [
            (THINK_OPEN if opens_thinking(request["context"]) else "") + answer["text"]
            for request, answer in zip(asked, answers, strict=True)
        ]
        if self._ahead is not None:
            begun = time.perf_counter()
            self._ahead([(r.doc, text) for r, text in zip(requests, texts, strict=True)])
            self.scoring = time.perf_counter() - begun
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        asked = [{"context": context, "continuation": text} for context, text in (r.args for r in requests)]
        answers = self._ask("loglikelihood", requests, asked)
        return [(answer["logprob"], answer["greedy"]) for answer in answers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        asked = [{"text": text} for (text,) in (r.args for r in requests)]
        return [answer["logprob"] for answer in self._ask("loglikelihood_rolling", requests, asked)]

    def _ask(self, kind: str, instances: list[Instance], asked: list[dict]) -> list[dict]:
        requests = self._identified(kind, asked)
        keys = [self.store.key(request) for request in requests]
        answers = self.store.get(keys)
        missing = [i for i, key in enumerate(keys) if key not in answers]
        self.from_store += len(keys) - len(missing)
        self.progress(len(keys) - len(missing), len(keys))
        begun = time.perf_counter()
        sent = [asked[i] | {"seed": [self.seed, requests[i]["repeat"]]} for i in missing]
        for part in self.engine.run(self.checkpoint, kind, sent) if sent else ():
            rows = [(missing[index], answer) for index, answer in part]
            self.store.put(self._rendered + [(keys[i], requests[i], answer) for i, answer in rows])
            self._rendered = []
            answers |= {keys[i]: answer for i, answer in rows}
            self.generated += len(rows)
            self.progress(len(keys) - len(missing) + self.generated, len(keys))
        self.waited += time.perf_counter() - begun
        for instance, key in zip(instances, keys, strict=True):
            self.answers.setdefault((instance.task_name, instance.doc_id), []).append(
                (instance, answers[key])
            )
        return [answers[key] for key in keys]

    def _identified(self, kind: str, asked: list[dict]) -> list[dict]:
        """The canonical requests. A request that occurs more than once (repeats) is asked as often; a seed
        belongs to a request only where something is drawn."""
        seen: Counter[str] = Counter()
        found = []
        for request in asked:
            text = json.dumps(request, sort_keys=True)
            drawn = {"seed": self.seed} if request.get("kwargs", {}).get("do_sample") else {}
            found.append({"kind": kind, **request, **self.numerics, **drawn, "repeat": seen[text]})
            seen[text] += 1
        return found


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
