"""The places benchmarks are published at: a hub data set, a GitHub repository, one file or zip at a URL.

Each tells its commit, which files a pattern stands for, and writes one file, whole and verified.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from harness.data.record import sha256
from harness.data.source import Source, matching

RAW = "https://raw.githubusercontent.com"  # HARNESS_GITHUB_RAW names a mirror
API = "https://api.github.com"  # HARNESS_GITHUB_API names a mirror
CONNECT, SILENCE = 10, 60  # seconds until a server that does not answer is given up
MOST = 8 << 30  # bytes of one download, and of what a zip is unpacked to


class NotObtained(Exception):
    """A place does not give a file; the text says why. `unreachable`: nothing there answers."""

    @property
    def unreachable(self) -> bool:
        return str(self) in (UNREACHABLE, NO_ANSWER)


class Place(Protocol):
    """Where files come from. All raise NotObtained."""

    commit: str | None
    at_once: int  # files

    def names(self, pattern: str) -> list[str]:
        """The published files that a pattern stands for."""

    def get(self, name: str, stage: Path) -> None:
        """Write a file to `stage / name`."""


def place_of(source: Source, stage: Path) -> Place:
    """The place of a source that has an address."""
    if source.hub:
        return Hub(source.hub, source.revision)
    if source.github:
        return GitHub(source.github, source.revision)
    return Url(source.url or "", source.revision, stage)


class Hub:
    """A data set of the hub."""

    at_once = 8

    def __init__(self, name: str, revision: str | None) -> None:
        from huggingface_hub import HfApi
        from huggingface_hub.utils import disable_progress_bars

        if not sys.stderr.isatty():
            disable_progress_bars()
        with _hub_errors():
            told = HfApi().dataset_info(name, revision=revision, files_metadata=True, timeout=CONNECT)
        self.name, self.commit = name, told.sha
        self.files = {file.rfilename: file for file in told.siblings or ()}

    def names(self, pattern: str) -> list[str]:
        return matching(pattern, self.files)

    def get(self, name: str, stage: Path) -> None:
        from huggingface_hub import hf_hub_download

        with _hub_errors():
            given = {"repo_type": "dataset", "revision": self.commit, "local_dir": stage}
            path = Path(hf_hub_download(self.name, name, **given))
        told = self.files[name]
        wanted, found = (told.lfs.sha256, sha256(path)) if told.lfs else (told.blob_id, git_hash(path))
        if wanted not in (None, found):
            path.unlink()  # or it would be taken for complete the next time
            raise NotObtained(f"`{name}` does not have the hash that is published")


class GitHub:
    """A repository. Its API is asked only for what is not pinned or listed by name."""

    at_once = 4

    def __init__(self, name: str, revision: str | None) -> None:
        self.name = name
        self.raw = os.environ.get("HARNESS_GITHUB_RAW", RAW)
        self.api = f"{os.environ.get('HARNESS_GITHUB_API', API)}/repos/{name}"
        self.commit = revision or str(_json(f"{self.api}/commits/HEAD").get("sha"))

    @cached_property
    def tree(self) -> list[str]:
        told = _json(f"{self.api}/git/trees/{self.commit}?recursive=1")
        if told.get("truncated"):
            raise NotObtained("the repository has too many files to be listed")
        return [entry["path"] for entry in told.get("tree", ()) if entry.get("type") == "blob"]

    def names(self, pattern: str) -> list[str]:
        if "*" in pattern:
            return matching(pattern, self.tree)
        return [pattern] if exists(self._url(pattern)) else []

    def get(self, name: str, stage: Path) -> None:
        download(self._url(name), stage / name)

    def _url(self, name: str) -> str:
        return f"{self.raw}/{self.name}/{self.commit}/{quote(name)}"


class Url:
    """One file, which may be a zip that holds the wanted ones."""

    at_once = 1

    def __init__(self, url: str, revision: str | None, stage: Path) -> None:
        self.commit, self.file, self.unpacked = revision, stage / ".download", 0
        download(url, self.file)
        self.zipped = zipfile.is_zipfile(self.file)

    def names(self, pattern: str) -> list[str]:
        if not self.zipped:
            return [] if "*" in pattern else [pattern]
        with _zip_errors(), zipfile.ZipFile(self.file) as archive:
            return matching(pattern, archive.namelist())

    def get(self, name: str, stage: Path) -> None:
        """Names that lead out of a folder match no pattern, so none is asked for."""
        to = stage / name
        to.parent.mkdir(parents=True, exist_ok=True)
        if not self.zipped:
            shutil.copyfile(self.file, to)
            return
        with _zip_errors(), zipfile.ZipFile(self.file) as archive:
            self.unpacked += archive.getinfo(name).file_size
            if self.unpacked > MOST:
                raise NotObtained(f"the zip unpacks to more than {MOST >> 20} MiB")
            with archive.open(name) as packed, to.open("wb") as file:  # reads no more than the size it tells
                shutil.copyfileobj(packed, file, 1 << 20)


def git_hash(path: Path) -> str:
    """The name that git gives to a file's content."""
    made = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            made.update(piece)
    return made.hexdigest()


def download(url: str, to: Path) -> None:
    """The bytes at a URL, into a new file; NotObtained when they are not there or not complete."""
    to.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with _web_errors(), _asked("get", url, stream=True) as answer, to.open("wb") as file:
        for chunk in answer.iter_content(1 << 20):
            size += len(chunk)
            if size > MOST:
                raise NotObtained(f"{url} gives more than {MOST >> 20} MiB")
            file.write(chunk)


def _json(url: str) -> dict[str, Any]:
    with _web_errors(), _asked("get", url) as answer:
        return answer.json()


def exists(url: str) -> bool:
    """Whether there is a file at a URL."""
    try:
        with _web_errors(), _asked("head", url, allow_redirects=True):
            return True
    except NotObtained as error:
        if str(error).startswith("HTTP 404"):
            return False
        raise


def _asked(verb: str, url: str, **given: Any) -> Any:
    import requests

    answer = requests.request(verb, url, timeout=(CONNECT, SILENCE), **given)
    if not answer.ok:
        raise NotObtained(f"HTTP {answer.status_code} {answer.reason} for {url}")
    return answer


@contextlib.contextmanager
def _web_errors() -> Iterator[None]:
    import requests

    try:
        yield
    except requests.RequestException as error:
        raise NotObtained(reason(error)) from error


@contextlib.contextmanager
def _hub_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the hub's client has many exception types; all mean: not obtained
        raise NotObtained(reason(error)) from error


@contextlib.contextmanager
def _zip_errors() -> Iterator[None]:
    try:
        yield
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:  # also: encrypted
        raise NotObtained(f"the zip cannot be unpacked: {error}") from error


def reason(error: BaseException) -> str:
    """Why data was not obtained, in one line, from whatever a client raised."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    names = {kind.__name__ for one in chain for kind in type(one).__mro__}
    for name, told in TOLD.items():
        if name in names:
            return told
    for one in chain:
        status = getattr(getattr(one, "response", None), "status_code", None)
        if status:
            return f"HTTP {status}"
    text = str(chain[0]).strip().splitlines()
    return (text[0] if text else type(chain[0]).__name__)[:200]


UNREACHABLE, NO_ANSWER, CUT = "it cannot be reached", "it does not answer", "the connection was cut"
TOLD = {  # by exception, most telling first; the names are those of huggingface_hub, httpx and requests
    "OfflineModeIsEnabled": "HF_HUB_OFFLINE is set",
    "GatedRepoError": "access must be granted there; then log in with `hf auth login`",
    "RevisionNotFoundError": "there is no such revision",
    "RepositoryNotFoundError": "there is no such data set, or a login is needed (`hf auth login`)",
    "RemoteEntryNotFoundError": "a file of it is missing there",
    "ConnectTimeout": NO_ANSWER,
    "ReadTimeout": NO_ANSWER,
    "ConnectError": UNREACHABLE,
    "RemoteProtocolError": CUT,
    "ChunkedEncodingError": CUT,
    "ConnectionError": UNREACHABLE,
}
