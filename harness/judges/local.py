"""Judges that run here, in a child process: reward models and generative classifiers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from harness.checkpoint.identity import fingerprint_files
from harness.errors import HarnessError
from harness.evaluate.choice import resolve
from harness.evaluate.engine import Engine
from harness.family import model_path
from harness.judges.spec import Spec
from harness.store import digest

CONTENT = (".safetensors", ".bin", ".json", ".model", ".txt", ".jinja")
METHODS = {"reward": "classify", "classifier": "generate"}


class Local:
    """A judge of kind `reward` or `classifier`. Its engine starts with the first question."""

    def __init__(
        self, spec: Spec, settings: dict[str, Any], log: Path | None, cache: Path | None = None
    ) -> None:
        self.spec, self.folder = spec, folder_of(spec)
        self.cache = cache and cache / "fingerprints.json"
        self.method = METHODS[spec.kind]
        name = "reward" if spec.kind == "reward" else resolve(spec.setting("engine"))
        self.engine = Engine(name, settings, log)

    def identity(self) -> dict[str, Any]:
        names = [file.name for file in self.folder.iterdir() if file.suffix in CONTENT]
        content = digest(fingerprint_files(self.folder, names, self.cache))
        length = "max_tokens" if self.spec.kind == "reward" else "max_gen_toks"
        return {
            "kind": self.spec.kind,
            "content": content,
            "dtype": self.engine.settings["dtype"],
            length: self.spec.setting(length),
            **({"engine": "vllm"} if self.engine.name == "vllm" else {}),
        }

    def ask(self, prompts: Sequence[str]) -> Iterator[list[tuple[int, dict]]]:
        for prompt in prompts:
            if not isinstance(prompt, str):
                raise HarnessError(
                    f"a judge of kind `{self.spec.kind}` was asked with {type(prompt).__name__}",
                    "its prompt is one str",
                )
        yield from self.engine.run(self.folder, self.method, [self._request(prompt) for prompt in prompts])

    def _request(self, prompt: str) -> dict[str, Any]:
        if self.spec.kind == "reward":
            return {"text": prompt, "max_tokens": self.spec.setting("max_tokens")}
        kwargs = {"until": [], "do_sample": False, "max_gen_toks": self.spec.setting("max_gen_toks")}
        return {"context": prompt, "kwargs": kwargs, "seed": [0, 0]}

    def plain(self, answer: dict) -> float | str:
        return answer["value"] if self.spec.kind == "reward" else answer["text"]

    def facts(self, answers: list[dict]) -> dict[str, Any]:
        if self.spec.kind == "reward":
            return {"malformed": sum(not math.isfinite(answer["value"]) for answer in answers)}
        return {"malformed": sum(not answer["text"].strip() for answer in answers)}

    def clip(self, texts: Sequence[str]) -> list[str]:
        """Texts cut after `clip_tokens` tokens, at a character of the text: nothing is decoded anew."""
        from transformers import AutoTokenizer

        count = self.spec.setting("clip_tokens")
        tokenizer = AutoTokenizer.from_pretrained(self.folder)
        if not tokenizer.is_fast:
            raise HarnessError(
                f"the tokenizer of judge `{self.spec.model}` does not say where its tokens lie in the text",
                "a folder with `tokenizer.json` is needed for `clip_tokens`",
            )
        cut = []
        for text in texts:
            places = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            cut.append(text if len(places) <= count else text[: max(end for _, end in places[:count])])
        return cut

    def check(self) -> None:
        if not (self.folder / "config.json").is_file():
            raise HarnessError(
                f"judge `{self.spec.model}`: {self.folder} has no config.json",
                "name a folder with a model in transformers' layout, or a hub id",
            )

    def close(self) -> None:
        self.engine.close()


def folder_of(spec: Spec) -> Path:
    """The judge's checkpoint: a folder, or fetched from the hub."""
    if spec.revision and not Path(spec.model).expanduser().is_dir():
        return model_path(f"{spec.model}@{spec.revision}", Path.cwd())
    return model_path(spec.model, Path.cwd())
