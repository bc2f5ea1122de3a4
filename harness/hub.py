"""What the hub says of a repository before anything is downloaded: commit, files and sizes, access. Light.

Nothing here reads weights. A hub that did not answer once is not asked again by this process, so that a list
of ten repositories takes one time limit and not ten.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HUB_ID = re.compile(r"^[\w.-]+/[\w.-]+(@[\w./-]+)?$")
SECONDS = 5.0  # to wait for an answer
KEPT = ("*.json", "*.jinja", "*.model", "*.txt")  # beside the weights, as models are fetched
_silent: dict[str, str] = {}  # endpoint -> why it could not be reached


@dataclass(frozen=True)
class Repository:
    """`state`: `open`, `gated` (no access yet), `missing` (or private), `no revision`, `unreachable`.

    `commit` is what the revision stands for now, None where the hub did not say; `files` maps names to bytes
    (None where unknown); `dtypes` maps the format's dtype codes to numbers of parameters."""

    name: str
    kind: str
    revision: str | None
    state: str
    commit: str | None = None
    files: dict[str, int | None] = field(default_factory=dict)
    dtypes: dict[str, int] = field(default_factory=dict)
    reason: str = ""
    hint: str = ""

    @property
    def known(self) -> bool:
        """Whether the hub said what the repository holds."""
        return self.state in ("open", "gated")


def endpoint() -> str:
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def offline() -> bool:
    """Whether the hub is not to be asked at all."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def api() -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint())


def split(ref: str) -> tuple[str, str | None]:
    """`org/name@revision` as name and revision (None where there is none)."""
    name, _, revision = ref.partition("@")
    return name, revision or None


def look(ref: str, kind: str = "model") -> Repository:
    """What the hub says of `org/name[@revision]`; `kind` is `model` or `dataset`. Never raises for a
    repository that cannot be had: that is its `state`."""
    name, revision = split(ref)
    at = endpoint()
    if offline():
        return _without(name, kind, revision, "HF_HUB_OFFLINE is set, so the hub is not asked")
    if at in _silent:
        return _without(name, kind, revision, _silent[at])
    ask, found = api(), None
    info = ask.model_info if kind == "model" else ask.dataset_info
    try:
        told = info(name, revision=revision, timeout=SECONDS, files_metadata=True)
        found = Repository(name, kind, revision, "open", told.sha, _files(told), _dtypes(told))
        if told.gated:
            ask.auth_check(name, repo_type=kind)
    except Exception as error:  # the client raises errors of its own, of httpx and of the system
        return _explained(error, name, kind, revision, found)
    return found


def look_all(refs: Iterable[tuple[str, str]]) -> dict[tuple[str, str], Repository]:
    """(ref, kind) -> `look`, several at once."""
    wanted = list(dict.fromkeys(refs))
    if not wanted:
        return {}
    first = look(*wanted[0])  # alone: where there is no network, the others need not wait for it
    with ThreadPoolExecutor(8) as pool:
        return {
            wanted[0]: first,
            **dict(zip(wanted[1:], pool.map(lambda w: look(*w), wanted[1:]), strict=True)),
        }


def cached(ref: str) -> Path | None:
    """The folder of a model in the local cache, if it is there whole; nothing is asked of the hub."""
    from huggingface_hub import snapshot_download

    name, revision = split(ref)
    try:
        folder = Path(snapshot_download(name, revision=revision, local_files_only=True))
    except Exception:  # not in the cache, whatever the client calls that
        return None
    adapter = (folder / "adapter_model.safetensors").is_file() and (folder / "adapter_config.json").is_file()
    model = (folder / "config.json").is_file() and _whole(folder)
    return folder if adapter or model else None


def config_of(ref: str, repository: Repository) -> dict[str, Any]:
    """`config.json` of a model on the hub, {} where it cannot be had. A few kilobytes."""
    import json

    from huggingface_hub import hf_hub_download

    if "config.json" not in repository.files or repository.state != "open":
        return {}
    name, revision = split(ref)
    try:
        file = hf_hub_download(name, "config.json", revision=revision, endpoint=endpoint())
        held = json.loads(Path(file).read_text("utf-8"))
    except Exception:  # an estimate does without
        return {}
    return held if isinstance(held, dict) else {}


def login(say: Callable[[str], None] = lambda what: None) -> tuple[str, str]:
    """(state, detail): `ok` with the account's name, `missing` without a token, `refused`, `unreachable`.
    The token itself is never part of it."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HfHubHTTPError

    if get_token() is None:
        return "missing", "no token (HF_TOKEN, or a login)"
    if offline() or endpoint() in _silent:
        return "unreachable", "a token is there; the hub could not be asked whether it is good"
    try:
        return "ok", str(api().whoami().get("name", ""))
    except HfHubHTTPError as error:
        code = error.response.status_code if error.response is not None else "?"
        return "refused", f"the hub refuses the token (HTTP {code})"
    except Exception as error:  # no connection, in any of the client's words
        _silent[endpoint()] = _reason(error)
        return "unreachable", f"a token is there; {_reason(error)}"


def weights(repository: Repository) -> dict[str, int | None]:
    """Files that are fetched to use a model, with their bytes: safetensors, else `.bin`, and what is beside
    them."""
    import fnmatch

    def matching(*patterns: str) -> dict[str, int | None]:
        return {n: s for n, s in repository.files.items() if any(fnmatch.fnmatch(n, p) for p in patterns)}

    return (matching("*.safetensors") or matching("pytorch_model*.bin")) | matching(*KEPT)


def _whole(folder: Path) -> bool:
    import json

    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if (folder / index).is_file():
            shards = set(json.loads((folder / index).read_text("utf-8"))["weight_map"].values())
            return all((folder / shard).is_file() for shard in shards)
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _files(told: Any) -> dict[str, int | None]:
    return {sibling.rfilename: sibling.size for sibling in told.siblings or ()}


def _dtypes(told: Any) -> dict[str, int]:
    held = getattr(told, "safetensors", None)
    return dict(held.parameters) if held is not None else {}


def _without(name: str, kind: str, revision: str | None, reason: str) -> Repository:
    hint = "check the network, or give local paths; HF_HUB_OFFLINE=1 keeps the harness from asking"
    if offline():
        hint = "unset HF_HUB_OFFLINE where there is network, or give local paths"
    return Repository(name, kind, revision, "unreachable", reason=reason, hint=hint)


def _explained(error: Exception, name: str, kind: str, revision: str | None, found: Any) -> Repository:
    from huggingface_hub import errors

    page = f"{endpoint()}/{'datasets/' * (kind == 'dataset')}{name}"
    if isinstance(error, errors.GatedRepoError):
        held = found or Repository(name, kind, revision, "gated")
        hint = f"accept its terms at {page}, then `hf auth login`"
        reason = f"`{name}` is gated, and this login has no access"
        return Repository(name, kind, revision, "gated", held.commit, held.files, held.dtypes, reason, hint)
    if isinstance(error, errors.RevisionNotFoundError):
        reason = f"`{name}` has no revision `{revision}`"
        return Repository(name, kind, revision, "no revision", reason=reason, hint=f"see {page}/commits/main")
    if isinstance(error, errors.HFValidationError):  # told without asking the hub
        reason = f"`{name}` is no id of a {kind}: {_first(error)}"
        return Repository(name, kind, revision, "missing", reason=reason, hint="check the id")
    if isinstance(error, errors.RepositoryNotFoundError):
        reason = f"the hub has no {kind} `{name}`, or it is private and this login may not see it"
        return Repository(
            name, kind, revision, "missing", reason=reason, hint="check the id; `hf auth login`"
        )
    if not isinstance(error, errors.HfHubHTTPError):
        _silent[endpoint()] = _reason(error)
    return _without(name, kind, revision, _reason(error))


def _reason(error: Exception) -> str:
    return f"{endpoint()} cannot be reached: {_first(error)}"


def _first(error: Exception) -> str:
    text = str(error).strip().splitlines()
    return text[0].rstrip(".") if text else type(error).__name__
