"""One task of one model on its way: what it asks, what is stored of that, what it scores. Light at import."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from harness.evaluate.store import ResponseStore

if TYPE_CHECKING:
    from harness.evaluate import EvalRequest, Evaluator

# lm-eval's types of request -> the engine's
KINDS = {"generate_until": "generate", "loglikelihood": "loglikelihood",
         "loglikelihood_rolling": "loglikelihood_rolling"}  # fmt: skip


class TaskRun:
    """`done` of `total` requests are answered, with `tokens` generated; `open` until it is complete or given
    up. Only `record` may be called in another thread than the one that made it."""

    def __init__(self, request: EvalRequest, evaluator: Evaluator) -> None:
        from harness.evaluate.building import asked_by
        from harness.evaluate.lm import ChatTemplate, template_identity
        from harness.evaluate.measure import log_to

        begun = time.perf_counter()
        self.request, self.numerics, self.open = request, evaluator._numerics, True
        identity = template_identity(request.model)
        self.store = ResponseStore(request.responses, request.fingerprint)
        try:
            chats = None
            if request.chat_template:
                known = evaluator._prompts
                chats = ChatTemplate(evaluator.engine, request.model, identity, self.store, known)
            with log_to(request.folder / "log.txt"):
                template = identity if chats else None
                self.asked = asked_by(request, self.numerics, template, chats, evaluator._tasks)
            self._keys = {
                kind: [self.store.key(question.text) for question in questions]
                for kind, questions in self.asked.questions.items()
            }
            self._texts = {
                key: question.text
                for kind, questions in self.asked.questions.items()
                for key, question in zip(self._keys[kind], questions, strict=True)
            }
            self._answers = self.store.get(self._texts)
        except BaseException:
            self.store.close()
            raise
        waited = chats.waited if chats else 0.0
        self.seconds = {"task": time.perf_counter() - begun - waited, "engine": waited}
        self.total = sum(map(len, self._keys.values()))
        self.from_store, self.tokens = len(self._answers), _generated(self._answers)

    @property
    def done(self) -> int:
        return len(self._answers)

    def missing(self, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
        """(key, what the engine is asked) of the requests of one of the engine's kinds without an answer."""
        for theirs, questions in self.asked.questions.items():
            if KINDS[theirs] == kind:
                for key, question in zip(self._keys[theirs], questions, strict=True):
                    if key not in self._answers:
                        yield key, question.body

    def keep(self, answers: Mapping[str, Any]) -> None:
        """Store answers by key. HarnessError where that fails; then none of them is."""
        rows = []
        if self.done == self.from_store:  # the first time: what they rest on is stored beside them
            rows += [(self.store.key(text), text, prompt) for text, prompt in self.asked.rendered.items()]
        rows += [(key, self._texts[key], answer) for key, answer in answers.items()]
        self.store.put(rows)
        self._answers |= answers
        self.tokens += _generated(answers)

    def close(self) -> None:
        """Nothing more is asked or stored."""
        self.open = False
        self.store.close()

    def record(self, engine: dict[str, Any]) -> dict[str, Any]:
        """Score it, and write its samples and log; see `Evaluator.evaluate`."""
        from harness.evaluate.measure import log_to, scored

        answers = {kind: [self._answers[key] for key in keys] for kind, keys in self._keys.items()}
        with log_to(self.request.folder / "log.txt") as log:
            record = scored(self.request, self.asked, answers)
            record |= {"generated": self.total - self.from_store, "from_store": self.from_store}
            spent = self.seconds | record["seconds"]
            spent["all"] = sum(spent.values())
            record["seconds"] = {name: round(value, 4) for name, value in spent.items()}
            record["engine"] = {**self.numerics, **{k: v for k, v in engine.items() if k != "seconds"}}
            log.info(
                "%s on %s: %d generated, %d from store; %s",
                self.request.task.name,
                self.request.model,
                record["generated"],
                record["from_store"],
                record["metrics"],
            )
        return record


def _generated(answers: Mapping[str, Any]) -> int:
    return sum(answer["tokens"] for answer in answers.values() if "text" in answer)
