"""What a result is made of, and which part of that is its identity.

Every run folder holds its recipe. The fields in `IDENTITY` make the key (and so the folder's name); the
fields in `RECORDED` are only written down, because they must not change a number. Each field of each recipe
stands in exactly one of the two; a test fails until a new one is put somewhere. `SINCE` names fields that
became part of an identity when there were results already, with the value that those have: a recipe with that
value keeps its key.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import hashlib
import inspect
import platform
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.store import digest


@dataclass(frozen=True)
class ScoreRecipe:
    """One gradient statistic: of `model` (content hash), over the rows `data` (content hash `rows`), coded by
    the tokenizer of the model with the hash `tokenizer`. `dtype` is that of weights and gradients,
    `accumulate` that of the sums. `against` is what votes weigh: penalty, model, and the key of its F."""

    kind: str
    role: str
    of: str
    model: str
    rows: str
    max_tokens: int
    loss_on: str
    tokenizer: str
    pad: bool
    dtype: str
    accumulate: str
    against: dict[str, Any] | None
    data: dict[str, Any]

    IDENTITY = (
        "kind",
        "of",
        "model",
        "rows",
        "max_tokens",
        "loss_on",
        "tokenizer",
        "pad",
        "dtype",
        "accumulate",
        "against",
    )
    RECORDED = ("role", "data")

    @property
    def together(self) -> str:
        """Equal for statistics that one backward pass per row gives together."""
        return digest({f: getattr(self, f) for f in self.IDENTITY if f not in ("kind", "of")})


@dataclass(frozen=True)
class ReferenceRecipe:
    """A checkpoint shown as a row of its own."""

    role: str
    model: str
    checkpoint: str

    IDENTITY = ("model",)
    RECORDED = ("role", "checkpoint")


@dataclass(frozen=True)
class MergeRecipe:
    """A merge: method with every parameter, inputs by content hash, scores by key, and by role the content
    hash of the calibration rows it trains on. `plugin` is the hash of a user's method file; a built-in's hash
    is recorded as `code`, so that a change marks the row instead."""

    method: str
    parameters: dict[str, Any]
    seed: int
    base: str
    experts: dict[str, str]
    donor: str
    vocab: str
    scores: dict[str, str]
    rows: dict[str, str]
    plugin: str | None
    code: str
    label: str

    IDENTITY = (
        "method", "parameters", "seed", "base", "experts", "donor",
        "vocab", "scores", "rows", "plugin",
    )  # fmt: skip
    RECORDED = ("code", "label")


@dataclass(frozen=True)
class EvalRecipe:
    """One model on one task. `repeats` is how often each row is asked (avg@k). `numerics` is what of the
    engine changes an answer besides its name: the dtype that it computes in (`checkpoint`: the weights' own),
    and for vLLM the context length and the GPUs that share a model where they are given."""

    task: str
    profile: str
    prompts: str
    scorer: str
    split: str
    generation: dict[str, Any]
    chat_template: bool
    limit: int | None
    repeats: int
    seed: int
    engine: str = "hf"
    numerics: dict[str, Any] = field(default_factory=lambda: {"dtype": "float32"})

    IDENTITY = (
        "task", "profile", "prompts", "scorer", "split", "generation",
        "chat_template", "limit", "repeats", "seed", "engine", "numerics",
    )  # fmt: skip
    RECORDED = ()
    SINCE = {"engine": "hf", "numerics": {"dtype": "float32"}}


@dataclass(frozen=True)
class JudgeRecipe:
    """One judge on the responses of one evaluation (by key). `code` is the source of what it is asked and of
    how its answer is read; `model` is a content hash, a hub id with its revision, or an API's name for it."""

    task: str
    evaluation: str
    kind: str
    model: str
    parameters: dict[str, Any]
    parts: tuple[str, ...]
    code: str
    given: str

    IDENTITY = ("task", "evaluation", "kind", "model", "parameters", "parts", "code")
    RECORDED = ("given",)


RECIPES = (ScoreRecipe, ReferenceRecipe, MergeRecipe, EvalRecipe, JudgeRecipe)


def key(recipe: Any) -> str:
    """sha256 (hex) of a recipe's identity."""
    since = getattr(recipe, "SINCE", {})
    made_of = {name: getattr(recipe, name) for name in recipe.IDENTITY}
    made_of = {name: value for name, value in made_of.items() if name not in since or value != since[name]}
    return digest({"recipe": type(recipe).__name__, **made_of})


def written(recipe: Any) -> dict[str, Any]:
    """The recipe as it is stored: its fields, its key, and the versions it was made with."""
    return {
        "recipe": type(recipe).__name__,
        "key": key(recipe),
        **dataclasses.asdict(recipe),
        "made_with": made_with(),
    }


@functools.cache
def made_with() -> dict[str, str | None]:
    """Versions and host: recorded with every result, part of no key."""
    names = ("merge-harness", "torch", "transformers", "lm_eval", "safetensors", "numpy")
    found: dict[str, str | None] = {}
    for name in names:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return {**found, "python": platform.python_version(), "host": platform.node()}


def code_hash(path: Path) -> str:
    """Hash of a Python file's syntax tree: comments, docstrings and layout do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(getattr(body[0], "value", None), ast.Constant)
            and isinstance(body[0].value.value, str)
        ):
            body[0] = ast.Pass()
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()


def file_of(method: type) -> Path:
    """The file a method class was loaded from."""
    return Path(inspect.getfile(method))
