"""From the name of a model or data set to what can be read: a local path, the hub's cache, or a download.

Nothing is downloaded before the hub has said that it can be: a repository without access, or a hub that does
not answer, is told in seconds.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness import hub
from harness.errors import HarnessError

OR_LOCAL = "; or give a local path"


def local(ref: str, folder: Path) -> Path | None:
    """The folder that `ref` names, relative to `folder`; None for a hub id.

    Raises HarnessError for what is neither."""
    path = Path(os.path.expanduser(ref))
    path = path if path.is_absolute() else folder / path
    if path.is_dir():
        return path.resolve()
    if ref.startswith((".", "/", "~")) or not hub.HUB_ID.match(ref):
        raise HarnessError(
            f"no checkpoint at {path}", "a folder with config.json and *.safetensors, or a hub id `org/name`"
        )
    return None


def model_path(ref: str, folder: Path) -> Path:
    """The folder of a checkpoint: a path (relative to `folder`), or a hub id, fetched or cached."""
    found = local(ref, folder)
    if found is not None:
        return found
    held = hub.cached(ref)
    if held is not None and (hub.offline() or hub.look(ref).state == "unreachable"):
        return held
    check(ref)
    try:
        found = _snapshot(ref, "*.safetensors")
        # only then: repositories that have both hold the same weights twice
        return found if any(found.glob("*.safetensors")) else _snapshot(ref, "pytorch_model*.bin")
    except Exception as error:  # the client's exception types are many; all mean: not obtained
        text = next(iter(str(error).strip().splitlines()), "") or type(error).__name__
        raise HarnessError(
            f"cannot fetch `{ref}` from the hub: {text}",
            "the same command goes on where the download stopped",
        ) from error


def check(ref: str, kind: str = "model") -> None:
    """Raise HarnessError when the hub id `ref` (`kind`: model or dataset) is neither cached nor can be
    fetched. Downloads nothing."""
    if hub.cached(ref) if kind == "model" else data_cached(ref):
        return
    found = hub.look(ref, kind)
    if found.state == "open":
        return
    to = found.name.partition("/")[2]
    what = f"hf download {found.name}" + (f" --revision {found.revision}" if found.revision else "")
    if kind == "dataset":  # the loader of data sets does not read the hub's cache of files
        what += f" --repo-type dataset --local-dir {to}"
    hint = f"`{what}` where there is network"
    raise HarnessError(
        f"cannot fetch `{ref}` from the hub: {found.reason}",
        (hint if found.state == "unreachable" else found.hint) + OR_LOCAL,
    )


def data_cached(ref: str) -> bool:
    """Whether a hub data set was loaded before on this machine."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    root = Path(os.environ.get("HF_DATASETS_CACHE") or home / "datasets").expanduser()
    return (root / hub.split(ref)[0].replace("/", "___")).is_dir()


def _snapshot(ref: str, weights: str) -> Path:
    from huggingface_hub import snapshot_download

    name, revision = hub.split(ref)
    return Path(
        snapshot_download(
            name, revision=revision, allow_patterns=[weights, *hub.KEPT], endpoint=hub.endpoint()
        )
    )
