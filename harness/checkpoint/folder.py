"""What makes a folder of weights a model: config, tokenizer, chat template, generation config, card."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from harness.checkpoint.identity import GENERATION_FILE, TOKENIZER_FILES, present
from harness.checkpoint.read import FLOATS, Checkpoint
from harness.store import write_text


def complete(
    folder: Path,
    base: Checkpoint,
    experts: Mapping[str, Checkpoint],
    donor: Path,
    dtypes: Iterable[str],
    method: str,
    recipe: Mapping[str, Any],
) -> list[str]:
    """Add to the weights in `folder` everything that loading them takes; config.json comes last.

    The config (and the model's own code, if it has any) is the base's; tokenizer, chat template and
    generation config all come from `donor`. `dtypes` are the dtype codes of the written tensors.
    Returns warnings.
    """
    names = present(donor, (*TOKENIZER_FILES, GENERATION_FILE))
    for name in names:
        shutil.copyfile(donor / name, folder / name)
    templates = donor / "additional_chat_templates"
    if templates.is_dir():
        shutil.copytree(templates, folder / templates.name, dirs_exist_ok=True)
    if "auto_map" in base.config:
        for code in sorted(base.path.glob("*.py")):
            shutil.copyfile(code, folder / code.name)
    write_text(folder / "README.md", card(base, experts, method, recipe))
    write_text(
        folder / "config.json", json.dumps(merged_config(base, dtypes), indent=2, ensure_ascii=False) + "\n"
    )
    if not any(name.startswith(("tokenizer", "vocab", "spiece")) for name in names):
        return [f"{donor} has no tokenizer, so the merged model has none"]
    return []


def merged_config(base: Checkpoint, dtypes: Iterable[str]) -> dict[str, Any]:
    """The base's config with the dtype that most of the written tensors have."""
    config = dict(base.config)
    codes = Counter(code for code in dtypes if code in FLOATS)
    key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
    if codes:
        config[key] = FLOATS[codes.most_common(1)[0][0]]
    return config


def card(base: Checkpoint, experts: Mapping[str, Checkpoint], method: str, recipe: Mapping[str, Any]) -> str:
    """The model card (README.md): the hub's tags, what was merged, and the recipe."""
    import yaml

    from harness import __version__

    front = {
        "base_model": [base.label, *(expert.label for expert in experts.values())],
        "base_model_relation": "merge",
        "library_name": "transformers",
        "tags": ["merge", "merge-harness", method],
    }
    inputs = "\n".join(f"| {role} | `{model.label}` |" for role, model in {"base": base, **experts}.items())
    text = (
        yaml.safe_dump(_plain(recipe), sort_keys=False, allow_unicode=True)
        if recipe
        else f"method: {method}\n"
    )
    return (
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n# {base.label} merged by {method}\n\n"
        f"Made with merge-harness {__version__}.\n\n| role | model |\n|---|---|\n{inputs}\n\n"
        f"## Recipe\n\n```yaml\n{text}```\n"
    )


def _plain(value: Any) -> Any:
    """`value` in the types that YAML's safe dumper knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)
