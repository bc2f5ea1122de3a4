"""Judges: models and rules that give a verdict on a response, behind one interface.

Answers are stored by (judge identity, prompt), so nothing is asked twice. Light at import: torch and openai
come with the first question.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from harness.evaluate.store import ResponseStore
from harness.judges.spec import KINDS, JudgeError, Spec
from harness.store import digest, reachable

__all__ = ["KINDS", "Judge", "JudgeError", "Judgements", "Spec", "clip", "judge"]

ENGINE = {"device": "auto", "dtype": "auto", "batch_size": None, "threads": None}


class Judgements(list):
    """The answers in the order of the prompts, with what they took.

    `facts`: `asked` (now) and `from_store` count different prompts; `malformed` those of them whose answer is
    empty, filtered or no number; of a chat judge also `models` (the names that answered), `tokens_in`,
    `tokens_out` and `cost` (US dollars) of all of them, stored ones included, None where the server or the
    price table does not say.
    """

    facts: dict[str, Any]


class Judge:
    """A judge that can be asked several times: the model of a judge that runs here is loaded once. A context
    manager.

    `settings` are the engine's (device, dtype, batch_size, threads) for a judge that runs here; what its
    process prints goes to `log`. `cache`: a folder that keeps the hashes of unchanged model files. Raises
    HarnessError for a judge that cannot be used.
    """

    def __init__(
        self,
        spec: Spec,
        *,
        settings: dict[str, Any] | None = None,
        log: Path | None = None,
        cache: Path | None = None,
    ) -> None:
        self.spec = spec
        self._backend = _backend(spec, {**ENGINE, **(settings or {})}, log, cache)
        self._identity: dict[str, Any] | None = None

    def identity(self) -> dict[str, Any]:
        """All that an answer depends on besides the prompt: kind, the model's content hash or API name and
        address, parameters. What only decides how fast or how patiently is asked is left out."""
        if self._identity is None:
            self._identity = self._backend.identity()
        return self._identity

    def ask(
        self, prompts: Sequence[Any], store_path: Path, progress: Callable[[int, int], None] | None = None
    ) -> Judgements:
        """The answer to each prompt: a float from `reward`, a str from the other kinds.

        A prompt is a str; of a `chat` judge also a list of {"role", "content"} messages. Equal prompts are
        asked once, and those answered in the SQLite file at `store_path` not at all; each answer is stored
        as it arrives. `progress(done, all)` counts different prompts. Raises JudgeError or EvaluationError
        when the judge stops answering.
        """
        with reachable(store_path):
            store_path.parent.mkdir(parents=True, exist_ok=True)
        store = ResponseStore(store_path, digest(self.identity()))
        try:
            keys = [store.key({"prompt": prompt}) for prompt in prompts]
            known, asked = self._answers(store, dict(zip(keys, prompts, strict=True)), progress)
        finally:
            store.close()
        found = Judgements(self._backend.plain(known[key]) for key in keys)
        facts = self._backend.facts(list(known.values()))
        found.facts = {"asked": asked, "from_store": len(known) - asked, **facts}
        return found

    def _answers(
        self, store: ResponseStore, wanted: dict[str, Any], progress: Callable[[int, int], None] | None
    ) -> tuple[dict[str, Any], int]:
        """(answer by key, how many were not stored)."""
        tell = progress or (lambda done, total: None)
        known = store.get(wanted)
        missing = [key for key in wanted if key not in known]
        tell(len(known), len(wanted))
        for part in self._backend.ask([wanted[key] for key in missing]) if missing else ():
            store.put([(missing[i], {"prompt": wanted[missing[i]]}, answer) for i, answer in part])
            known |= {missing[i]: answer for i, answer in part}
            tell(len(known), len(wanted))
        return known, len(missing)

    def clip(self, texts: Sequence[str]) -> list[str]:
        """Each text's first `clip_tokens` tokens by the judge's own tokenizer; else all."""
        if self.spec.kind != "classifier" or self.spec.setting("clip_tokens") is None:
            return list(texts)
        return self._backend.clip(texts)

    def check(self) -> None:
        """Raise HarnessError when something is lacking that asking needs: a key, a package, a checkpoint."""
        self._backend.check()

    def close(self) -> None:
        """End the judge's process, if it has one."""
        self._backend.close()

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def judge(
    spec: Spec,
    prompts: Sequence[Any],
    store_path: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    settings: dict[str, Any] | None = None,
    log: Path | None = None,
) -> Judgements:
    """`Judge.ask`, once."""
    with Judge(spec, settings=settings, log=log, cache=store_path.parent) as one:
        return one.ask(prompts, store_path, progress)


def clip(spec: Spec, texts: Sequence[str]) -> list[str]:
    """`Judge.clip`, once."""
    with Judge(spec) as one:
        return one.clip(texts)


def _backend(spec: Spec, settings: dict[str, Any], log: Path | None, cache: Path | None) -> Any:
    if spec.kind == "chat":
        from harness.judges.chat import Chat

        return Chat(spec)
    if spec.kind == "rules":
        from harness.judges.rules import Rules

        return Rules(spec)
    from harness.judges.local import Local

    return Local(spec, settings, log, cache)
