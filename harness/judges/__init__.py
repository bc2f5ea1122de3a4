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

__all__ = ["KINDS", "JudgeError", "Judgements", "Spec", "clip", "identity", "judge"]

ENGINE = {"device": "auto", "dtype": "auto", "batch_size": None, "threads": None}


class Judgements(list):
    """The answers in the order of the prompts, with what they took.

    `facts`: `asked` (now) and `from_store` count different prompts; `malformed` those of them whose answer is
    empty, filtered or no number; of a chat judge also `models` (the names that answered), `tokens_in`,
    `tokens_out` and `cost` (US dollars) of all of them, stored ones included, None where the server or the
    price table does not say.
    """

    facts: dict[str, Any]


def judge(
    spec: Spec,
    prompts: Sequence[Any],
    store_path: Path,
    progress: Callable[[int, int], None] | None = None,
    *,
    settings: dict[str, Any] | None = None,
    log: Path | None = None,
) -> Judgements:
    """The judge's answer to each prompt: a float from `reward`, a str from the other kinds.

    A prompt is a str; of a `chat` judge also a list of {"role", "content"} messages. Equal prompts are asked
    once, and answers in the SQLite file at `store_path` not at all; each is stored as it arrives. `settings`
    are the engine's (device, dtype, batch_size, threads) for a judge that runs here; its output goes to
    `log`. `progress(done, all)` counts different prompts. Raises HarnessError for a judge that cannot be
    used, JudgeError or EvaluationError when it stops answering.
    """
    with reachable(store_path):
        store_path.parent.mkdir(parents=True, exist_ok=True)
    backend = _backend(spec, settings, log, store_path.parent)
    store = ResponseStore(store_path, digest(backend.identity()))
    try:
        keys = [store.key({"prompt": prompt}) for prompt in prompts]
        wanted = dict(zip(keys, prompts, strict=True))
        known = store.get(wanted)
        missing = [key for key in wanted if key not in known]
        done = len(known)
        tell = progress or (lambda done, total: None)
        tell(done, len(wanted))
        for part in backend.ask([wanted[key] for key in missing]) if missing else ():
            store.put([(missing[i], {"prompt": wanted[missing[i]]}, answer) for i, answer in part])
            known |= {missing[i]: answer for i, answer in part}
            tell(len(known), len(wanted))
    finally:
        store.close()
        backend.close()
    found = Judgements(backend.plain(known[key]) for key in keys)
    found.facts = {"asked": len(missing), "from_store": done, **backend.facts(list(known.values()))}
    return found


def identity(spec: Spec, cache: Path | None = None, settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """All that an answer depends on besides the prompt: kind, the model's content hash or API name and
    address, parameters. Whatever only decides how fast or how patiently is asked is left out.

    A model of the hub is fetched for it. `cache`: a folder that keeps the hashes of unchanged files.
    """
    backend = _backend(spec, settings, None, cache)
    try:
        return backend.identity()
    finally:
        backend.close()


def clip(spec: Spec, texts: Sequence[str]) -> list[str]:
    """Each text's first `clip_tokens` tokens by the judge's own tokenizer; all without the parameter."""
    if spec.kind != "classifier" or spec.setting("clip_tokens") is None:
        return list(texts)
    from harness.judges.local import clipped

    return clipped(spec, texts)


def _backend(spec: Spec, settings: dict[str, Any] | None, log: Path | None, cache: Path | None) -> Any:
    if spec.kind == "chat":
        from harness.judges.chat import Chat

        return Chat(spec)
    if spec.kind == "rules":
        from harness.judges.rules import Rules

        return Rules(spec)
    from harness.judges.local import Local

    return Local(spec, {**ENGINE, **(settings or {})}, log, cache)
