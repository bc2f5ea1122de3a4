"""Fetches benchmarks into the local copy, at the pinned revision where there is one."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.data.source import Source, local_files, missing
from harness.errors import HarnessError
from harness.store import reachable, write_text

RAW = "https://raw.githubusercontent.com"  # HARNESS_GITHUB_RAW names a mirror
SOURCE_FILE = "SOURCE.json"  # beside the data: where it came from, and the hash of every file
SECONDS = 60


def fetch(source: Source, split: str | None = None) -> list[Path]:
    """Fill the local copy of a benchmark (of one split); the files it now has.

    A file is complete or absent. Raises HarnessError when it cannot be obtained; no network is used under
    HF_HUB_OFFLINE=1.
    """
    splits = list(source.files) if split is None else [split]
    if not source.address:
        raise missing(source, splits[0], "")
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        raise missing(source, splits[0], "HF_HUB_OFFLINE is set, so nothing is fetched")
    with reachable(source.folder):
        source.folder.mkdir(parents=True, exist_ok=True)
        revision = source.revision
        if source.hub:
            revision = _hub(source, splits)
        elif source.github:
            for name in splits:
                _github(source, name)
        else:
            _download(source, splits[0], source.url or "", source.folder)
        found = [path for name in splits for path in local_files(source, name)]
        if not found:
            raise missing(source, splits[0], "what is published there has none of these files")
        _note(source, revision, found)
    return found


def _hub(source: Source, splits: Iterable[str]) -> str:
    """A hub data set's files of these splits; the commit they were taken from."""
    from huggingface_hub import HfApi, snapshot_download

    patterns = [name for split in splits for name in source.files[split]]
    try:
        commit = HfApi().dataset_info(source.hub, revision=source.revision).sha
        wanted = {"allow_patterns": [*patterns, "README.md"], "local_dir": source.folder}
        snapshot_download(source.hub, repo_type="dataset", revision=commit, **wanted)
    except Exception as error:  # the hub client has many exception types; all mean: not obtained
        raise missing(source, next(iter(splits)), _line(error)) from error
    return commit


def _github(source: Source, split: str) -> None:
    """A split's files from a repository; of several layouts, the first that is there."""
    root = os.environ.get("HARNESS_GITHUB_RAW", RAW)
    last: HarnessError | None = None
    for name in source.files[split]:
        if "*" in name:
            continue
        try:
            _download(
                source,
                split,
                f"{root}/{source.github}/{source.revision or 'HEAD'}/{name}",
                source.folder / name,
            )
        except HarnessError as error:
            last = error
        else:
            return
    raise last or missing(source, split, "its files are not listed one by one")


def _download(source: Source, split: str, url: str, to: Path) -> None:
    """One file to `to`; a zip is unpacked into the folder `to`."""
    import requests

    with tempfile.TemporaryDirectory(dir=source.folder, prefix=".part-") as made:
        part = Path(made) / "part"
        try:
            with requests.get(url, stream=True, timeout=SECONDS) as answer, part.open("wb") as file:
                answer.raise_for_status()
                for chunk in answer.iter_content(1 << 20):
                    file.write(chunk)
        except requests.RequestException as error:
            raise missing(source, split, _line(error)) from error
        if not to.is_dir():
            to.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, to)
        elif zipfile.is_zipfile(part):
            with zipfile.ZipFile(part) as archive:
                archive.extractall(to)  # names that lead out of the folder are cut by zipfile
        else:
            os.replace(part, to / url.rpartition("/")[2])


def _note(source: Source, revision: str | None, files: Iterable[Path]) -> None:
    sums = {str(path.relative_to(source.folder)): sha256(path) for path in files}
    told = {"address": source.hub or source.github or source.url, "revision": revision}
    known = fetched(source)
    sums = {**known.get("files", {}), **sums}
    write_text(source.folder / SOURCE_FILE, json.dumps({**told, "files": sums}, indent=1) + "\n")


def fetched(source: Source) -> dict[str, Any]:
    """What was noted when the local copy was fetched; {} for one that was laid there by hand."""
    try:
        return json.loads((source.folder / SOURCE_FILE).read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError):
        return {}


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _line(error: Exception) -> str:
    return (next(iter(str(error).strip().splitlines()), "") or type(error).__name__)[:200]
