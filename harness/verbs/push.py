"""`harness push ROW --to org/name`: a merge of the store, with its card, to the hub.

The token is the hub client's own (HF_TOKEN, or `hf auth login`); it is neither printed nor kept."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from harness import hub, registry
from harness import tasks as tasks_of
from harness.checkpoint import fingerprint
from harness.checkpoint.identity import GENERATION_FILE, TOKENIZER_FILES
from harness.collapse import reasons
from harness.errors import HarnessError, nearest
from harness.family import Family, load_family
from harness.steps import KEPT
from harness.store import Folder, Store
from harness.verbs.estimate import size

NAME = re.compile(r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$")
BESIDE = {"config.json", "README.md", GENERATION_FILE, *TOKENIZER_FILES, "model.safetensors.index.json"}
FORCE = "`--force` pushes it all the same"


@dataclass(frozen=True)
class Merge:
    """A merge in the store: its run folder, the label it was made under, its recipe."""

    folder: Folder
    label: str
    recipe: dict[str, Any]

    @property
    def shown(self) -> str:
        """The label as the table has it."""
        method = str(self.recipe.get("method"))
        try:
            title = registry.method(method).title
        except HarnessError:  # a file that is no longer here
            return self.label
        return re.sub(rf"^{re.escape(method)}(?=$| )", title, self.label)

    @property
    def model(self) -> Path:
        return self.folder.path / "model"


def push(
    row: str,
    to: str,
    family: str,
    results: Path,
    *,
    private: bool,
    force: bool = False,
    dry_run: bool = False,
) -> int:
    """Upload the merge `row` (a label, or its folder's name) as the repository `to`; 0."""
    if not NAME.match(to):
        raise HarnessError(f"`{to}` is no repository's name", "write `--to org/name`")
    loaded = load_family(family)
    merge = _find(Store(results, loaded.name), row)
    files = _files(merge)
    doubts = list(_doubts(loaded, Store(results, loaded.name), merge))
    if doubts and not force:
        raise HarnessError(
            f"`{merge.label}` {doubts[0].message}", f"{doubts[0].hint}; {FORCE}".removeprefix("; ")
        )
    for doubt in doubts:
        click.echo(f"forced although `{merge.label}` {doubt.message}")
    total = sum(path.stat().st_size for path in files)
    kind = "private" if private else "public"
    click.echo(f"{merge.label} → {hub.endpoint()}/{to} ({kind}): {len(files)} files, {size(total)}")
    for path in files:
        click.echo(f"  {path.relative_to(merge.model)}  {size(path.stat().st_size)}")
    if dry_run:
        click.echo("nothing was uploaded (--dry-run)")
        return 0
    click.echo(f"pushed: {_upload(merge, to, files, private, force)}")
    return 0


def _find(store: Store, row: str) -> Merge:
    merges = list(_merges(store))
    found = [m for m in merges if row in (m.label, m.shown, m.folder.path.name)]
    if not found:
        known = {m.label for m in merges}
        hint = nearest(row, known) if known else "`harness compare` makes them"
        raise HarnessError(f"no merge in {store.root} is called `{row}`", hint)
    whole = [m for m in found if m.folder.complete] or found
    if len(whole) > 1:
        names = ", ".join(f"`{m.folder.path.name}`" for m in whole)
        raise HarnessError(f"{len(whole)} merges in {store.root} are called `{row}`", f"name one: {names}")
    return whole[0]


def _merges(store: Store) -> Iterator[Merge]:
    for path in sorted((store.root / "models").glob("*/recipe.yaml")):
        folder = Folder(path.parent)
        recipe = folder.recipe()
        if isinstance(recipe, dict) and recipe.get("recipe") == "MergeRecipe":
            yield Merge(folder, str(recipe.get("label")), recipe)


def _files(merge: Merge) -> list[Path]:
    """What belongs to the model, weights last. Raises HarnessError where it has no weights."""
    held = sorted(path for path in merge.model.rglob("*") if path.is_file()) if merge.model.is_dir() else []
    weights = [path for path in held if path.suffix == ".safetensors"]
    if not weights or not (merge.model / "config.json").is_file():
        if merge.folder.done().get(KEPT) is False:
            raise HarnessError(
                f"`{merge.label}` has no weights: they were not kept (`--keep-weights none`)",
                f'`harness merge "{merge.label}" --to DIR` writes them',
            )
        hint = (
            "`harness compare` makes them"
            if merge.folder.failed is None
            else f"it failed: {merge.folder.failed}"
        )
        raise HarnessError(f"`{merge.label}` has no weights in {merge.model}", hint)
    beside = [p for p in held if p.name in BESIDE or p.suffix in (".py", ".jinja")]
    return [*beside, *weights]


def _doubts(family: Family, store: Store, merge: Merge) -> Iterator[HarnessError]:
    """Why it had better not be published."""
    done = merge.folder.done()
    if not done:
        why = f": {merge.folder.failed}" if merge.folder.failed else ""
        yield HarnessError(f"is not finished{why}", "`harness compare` goes on with it")
    elif done.get("fingerprint") != fingerprint(merge.model, store.fingerprints):
        yield HarnessError(
            "was changed since it was merged", f"`harness clean --rows` makes {merge.label} anew"
        )
    if why := collapsed(family, store, merge):
        yield HarnessError(f"has collapsed: {'; '.join(why)}", "")


def collapsed(family: Family, store: Store, merge: Merge) -> list[str]:
    """Why its stored evaluations say that it is broken, next to the base's; [] where they do not."""
    base = next((f for f in _references(store) if f.recipe().get("model") == merge.recipe.get("base")), None)
    mine, theirs = _records(merge.folder), _records(base) if base else {}
    said: list[str] = []
    for limit, records in mine.items():
        files = {name: tasks_of.named([name])[0] for name in records}
        said += reasons(family.collapse, files, records, theirs.get(limit, {}))
    return list(dict.fromkeys(said))


def _references(store: Store) -> Iterator[Folder]:
    for path in sorted((store.root / "models").glob("*/recipe.yaml")):
        if Folder(path.parent).recipe().get("recipe") == "ReferenceRecipe":
            yield Folder(path.parent)


def _records(folder: Folder) -> dict[Any, dict[str, Any]]:
    """limit -> task -> what its evaluation recorded."""
    found: dict[Any, dict[str, Any]] = {}
    for path in sorted(folder.path.glob("evals/*/recipe.yaml")):
        one = Folder(path.parent)
        recipe = one.recipe()
        if one.complete and recipe.get("recipe") == "EvalRecipe":
            found.setdefault(recipe.get("limit"), {})[recipe["task"]] = one.done()
    return found


def _upload(merge: Merge, to: str, files: list[Path], private: bool, force: bool) -> str:
    """The address of the commit."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise HarnessError("there is no login for the hub", "`hf auth login`, or set HF_TOKEN")
    told = hub.look(to)
    if told.state == "unreachable":
        raise HarnessError(f"cannot push to `{to}`: {told.reason}", told.hint)
    if any(name.endswith(".safetensors") for name in told.files) and not force:
        raise HarnessError(f"`{to}` holds weights already", f"choose another name; {FORCE}")
    names = [str(path.relative_to(merge.model)) for path in files]
    try:
        client = hub.api()
        client.create_repo(to, private=private, exist_ok=True)
        message = f"{merge.label}, merged with merge-harness"
        done = client.upload_folder(
            repo_id=to, folder_path=merge.model, allow_patterns=names, commit_message=message
        )
    except Exception as error:  # the client raises errors of its own, of httpx and of the system
        raise _told(error, to) from error
    return str(getattr(done, "commit_url", done))


def _told(error: Exception, to: str) -> HarnessError:
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError) and error.response is not None:
        code = error.response.status_code
        said = error.server_message or error.response.reason_phrase
        hint = {
            401: "`hf auth login` with a token that may write",
            403: f"the token may not write to `{to.split('/')[0]}`: use one that may, or another name",
            409: "choose another name",
        }.get(code, "the same command tries again; what was uploaded is not sent twice")
        return HarnessError(f"the hub refuses `{to}` (HTTP {code}: {said})", hint)
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return HarnessError(f"cannot push to `{to}`: {reason}", "check the network; the same command goes on")
