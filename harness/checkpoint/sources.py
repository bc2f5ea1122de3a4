"""Models as people keep them: folders of safetensors, `.bin` checkpoints, LoRA adapters.

The last two are made into folders of safetensors in the store, once per content. `resolve` finds out which
kind a folder is and where its safetensors will be, without torch; `make` makes them."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from harness.checkpoint import lora
from harness.checkpoint.identity import (
    GENERATION_FILE,
    TOKENIZER_FILES,
    fingerprint,
    fingerprint_files,
    present,
    stamp,
)
from harness.checkpoint.read import label_of
from harness.errors import HarnessError
from harness.store import Folder, digest, slug

BIN = "pytorch_model.bin"
INDEX = "pytorch_model.bin.index.json"


@dataclass(frozen=True)
class Source:
    """A model: `origin` is the folder that was named, `path` the folder of safetensors it is read from,
    `mark` its content hash (the same before and after it is made). `folder` is where it is made, None if it
    is used as it is; `on` is the model that an adapter is applied to."""

    origin: Path
    path: Path
    mark: str
    kind: Literal["safetensors", "bin", "adapter"] = "safetensors"
    folder: Folder | None = None
    on: Source | None = None
    warnings: tuple[str, ...] = ()

    @property
    def ready(self) -> bool:
        """Whether `path` can be read now."""
        return self.folder is None or (self.folder.complete and self.path.is_dir())

    @property
    def label(self) -> str:
        """A name to print, of what was named rather than of the folder in the store."""
        return label_of(self.origin)


def resolve_family(
    base: Path,
    experts: Mapping[str, tuple[Path, Path | None]],
    converted: Path,
    cache: Path | None,
    hashed: bool = True,
) -> dict[str, Source]:
    """role -> source, `base` first. `experts` gives each model's folder, and the model that its adapter is
    applied to (None: the base). With `hashed` False the mark of a folder of safetensors is that of its files'
    sizes and times, which costs no read; not where there is an adapter.

    Raises `HarnessError` for folders that are no model, and for `on` without an adapter."""
    if any(is_adapter(path) for path, _ in experts.values()):
        hashed = True
    found = {"base": resolve(base, converted, cache, hashed=hashed)}
    for role, (path, on) in experts.items():
        if on is not None and not is_adapter(path):
            raise HarnessError(
                f"expert `{role}` has `on: {on}` and {path} is no adapter (it has no adapter_config.json)",
                "leave `on` out",
            )
        under = found["base"] if on is None else resolve(on, converted, cache, found["base"])
        found[role] = resolve(path, converted, cache, under, hashed)
    return found


def resolve_one(path: Path, base: Callable[[], Path], converted: Path, cache: Path | None) -> Source:
    """A model outside a family; an adapter is taken to be one of the model in the folder `base()`."""
    on = resolve(base(), converted, cache) if is_adapter(path) else None
    return resolve(path, converted, cache, on)


def resolve(
    path: Path, converted: Path, cache: Path | None, on: Source | None = None, hashed: bool = True
) -> Source:
    """What the model at `path` is. `converted` is the store's folder for what is made, `cache` that of
    `fingerprint`; `hashed` as for `resolve_family`.

    Raises `HarnessError` for a folder that is no model or a kind that cannot be read."""
    if is_adapter(path):
        return _adapter(path, converted, cache, on)
    if any(path.glob("model*.safetensors*")) or not is_bin(path):
        return Source(path, path, fingerprint(path, cache) if hashed else stamp(path))
    files = [*bin_files(path), *_texts(path)]
    mark = digest({"bin": fingerprint_files(path, files, cache)})
    return _made("bin", path, mark, converted)


def is_adapter(path: Path) -> bool:
    return (path / "adapter_config.json").is_file()


def is_bin(path: Path) -> bool:
    return (path / BIN).is_file() or (path / INDEX).is_file() or any(path.glob("pytorch_model-*.bin"))


def _adapter(path: Path, converted: Path, cache: Path | None, on: Source | None) -> Source:
    whole = [
        name
        for name in ("model.safetensors", "model.safetensors.index.json", BIN, INDEX)
        if (path / name).is_file()
    ]
    if whole:
        raise HarnessError(
            f"{path} holds both an adapter (adapter_config.json) and a whole model ({whole[0]})",
            "keep each in a folder of its own, and name the one that is meant",
        )
    if on is None:
        raise HarnessError(
            f"{path} is a LoRA adapter, not a whole model", "name the model it was trained on as the base"
        )
    config = lora.read(path)
    files = ["adapter_config.json", lora.WEIGHTS, *_texts(path)]
    mark = digest({"adapter": fingerprint_files(path, files, cache), "on": on.mark})
    said = lora.other_base(config, on.label)
    return _made("adapter", path, mark, converted, on, (f"{label_of(path)}: {said}",) if said else ())


def _made(
    kind: Any,
    path: Path,
    mark: str,
    converted: Path,
    on: Source | None = None,
    warnings: tuple[str, ...] = (),
) -> Source:
    folder = Folder(converted / slug(f"{kind}--{path.name}", {}, mark))
    return Source(path, folder.path / "model", mark, kind, folder, on, warnings)


def _texts(path: Path) -> list[str]:
    return present(path, ("config.json", *TOKENIZER_FILES, GENERATION_FILE))


def bin_files(path: Path) -> dict[str, set[str] | None]:
    """File name -> the tensors that the index says it holds (None without an index)."""
    if (path / BIN).is_file():
        return {BIN: None}
    index = path / INDEX
    if not index.is_file():
        names = sorted(file.name for file in path.glob("pytorch_model-*.bin"))
        raise HarnessError(
            f"{path} has {len(names)} shards ({names[0]}, ...) and no {INDEX}", "download the index"
        )
    try:
        places = {
            str(name): str(file) for name, file in json.loads(index.read_text("utf-8"))["weight_map"].items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise HarnessError(
            f"{index} is truncated or corrupt: no `weight_map` can be read ({type(error).__name__})",
            "download the file again",
        ) from error
    found: dict[str, set[str] | None] = {}
    for shard in sorted(set(places.values())):
        if Path(shard).name != shard or not (path / shard).is_file():
            raise HarnessError(f"shard {path / shard} is missing", f"{INDEX} names it: download it again")
        found[shard] = {name for name, file in places.items() if file == shard}
    return found


def make(source: Source) -> list[str]:
    """Make a source's safetensors unless they are there; what is to be said of it. Imports torch if work is
    left.

    Raises `HarnessError` for files that are damaged, hold code, or do not fit; nothing then looks finished.
    """
    said = [*(make(source.on) if source.on else ()), *source.warnings]
    if source.folder is None:
        return said
    if not source.ready:
        recipe = {"recipe": "Converted", "kind": source.kind, "key": source.mark, "from": str(source.origin)}
        recipe |= {"on": source.on.mark} if source.on else {}
        with source.folder.working(recipe):
            if not source.ready:  # another process may have made it while this one waited
                complete(source.folder, source.path, lambda part: _convert(source, part))
    return [*said, *source.folder.done()["warnings"]]


def complete(folder: Folder, path: Path, write: Any) -> None:
    """Have `write(part)` fill a private folder that then becomes `path`, whole or not at all; its record
    completes `folder`."""
    part = folder.path / "part"
    for left in (part, path):
        shutil.rmtree(left, ignore_errors=True)
    part.mkdir()
    try:
        record = write(part)
        os.rename(part, path)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    folder.finish(record)


def _convert(source: Source, part: Path) -> dict[str, Any]:
    if source.kind == "bin":
        from harness.checkpoint import bins

        record = bins.convert(source.origin, bin_files(source.origin), part)
    else:
        from harness.checkpoint import adapters

        record = adapters.apply(source.origin, source.on.path, part)
    _copy_texts([source.on.path, source.origin] if source.on else [source.origin], part)
    return record


def _copy_texts(origins: Iterable[Path], to: Path) -> None:
    """Config, tokenizer, templates and the model's own code; later origins go over earlier ones, but an
    adapter has no config of its own."""
    for origin in origins:
        names = [name for name in _texts(origin) if not (name == "config.json" and (to / name).is_file())]
        names += [file.name for file in origin.glob("*.py")] if (origin / "config.json").is_file() else []
        for name in names:
            shutil.copyfile(origin / name, to / name)
        templates = origin / "additional_chat_templates"
        if templates.is_dir():
            shutil.copytree(templates, to / templates.name, dirs_exist_ok=True)
