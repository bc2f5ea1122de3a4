"""The zip of `harness export`: everything a reviewer needs, and nothing of the author's machine."""

import base64
import json
import os
import re
import shutil
import zipfile
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml
from click.testing import CliRunner

from harness import registry
from harness.board import Board, Heading
from harness.cli import main
from harness.family import parse_family
from harness.family.pins import references
from harness.store import Store
from harness.verbs import packing
from harness.verbs.portable import Places, family_file, places_of

TINY = Path(__file__).parents[2] / "harness" / "families" / "tiny"
METHOD = '''"""The mean of the task vectors."""

from harness import merge_method, param


@merge_method("mine", title="Mine")
class Mine:
    scale: float = param(1.0, "scaling coefficient", low=0, high=2, noop=0.0)

    def merge(self, group, state):
        return group.base + self.scale * sum(group.deltas.values()) / len(group.deltas)
'''
FAMILY = """\
extends: tiny-safety
title: mine
base: {model}
methods:
  linear:
  "my own": {{method: {method}, scale: 0.5}}
rows: {{earlier: {other}}}
collapse: {{probe: [tiny_chain], n: 2}}
"""
OPTIONS = ("--tasks", "tiny_chain", "--limit", "2")


def run(*given):
    return CliRunner().invoke(main, list(map(str, given)))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder of somebody's with a family, models and a method, and what they compared."""
    folder = tmp_path_factory.mktemp("some one's höme")
    shutil.copytree(TINY / "base", folder / "models" / "base")
    shutil.copytree(TINY / "safety", folder / "old" / "base")
    (folder / "code").mkdir()
    (folder / "code" / "mine.py").write_text(METHOD)
    paths = {"model": folder / "models" / "base", "method": folder / "code" / "mine.py",
             "other": folder / "old" / "base"}  # fmt: skip
    text = FAMILY.format(**{key: json.dumps(str(path), ensure_ascii=False) for key, path in paths.items()})
    (folder / "fam.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = run("compare", "-f", "fam.yaml", "--methods", "linear,my own", *OPTIONS)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def unpacked(home, tmp_path_factory):
    """The export, made from elsewhere than the comparison was."""
    folder = tmp_path_factory.mktemp("unpacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = run("export", "-f", home / "fam.yaml", "--results", home / "results", "--to", "fam.zip")
    assert done.exit_code == 0 and "warning" not in done.output, done.output
    with zipfile.ZipFile(folder / "fam.zip") as packed:
        packed.extractall(folder / "fam")
    return folder / "fam"


def told(path):
    """Everything that a file says, packed or not."""
    if path.suffix == ".parquet":
        return json.dumps(pq.read_table(path).to_pylist(), ensure_ascii=False)
    text = path.read_bytes().decode("utf-8", "replace")
    blocks = re.findall(r'<script type="text/plain"[^>]*>([^<]+)</script>', text)
    return text + "".join(zlib.decompress(base64.b64decode(b), -15).decode() for b in blocks)


def test_nothing_tells_of_the_machine(home, unpacked):
    files = [path for path in unpacked.rglob("*") if path.is_file()]
    texts = {path: told(path) for path in files}
    assert len(files) > 30 and any("höme" in told(path) for path in home.rglob("recipe.yaml"))
    for here in (home.parent, TINY.parents[2], Path.home()):
        spelled = {str(here), json.dumps(str(here))[1:-1], str(here).replace("_", r"\_")}
        found = [path for path, text in texts.items() if any(s + "/" in text for s in spelled)]
        assert not found, here
    assert not [path for path, text in texts.items() if "höme" in text or "h\\u00f6me" in text]
    recipes = [yaml.safe_load(text) for path, text in texts.items() if path.name == "recipe.yaml"]
    assert len(recipes) > 5 and all("host" not in one["made_with"] and one["key"] for one in recipes)


def test_the_users_method_is_packed_as_it_ran(home, unpacked):
    assert (unpacked / "methods" / "mine.py").read_text() == METHOD
    assert "--methods 'my own'" in (unpacked / "commands.sh").read_text()


def test_a_reviewer_can_check_and_use_it(unpacked, monkeypatch):
    monkeypatch.chdir(unpacked)
    checked = run("explain", "--all", "--board", "report/board.json")
    assert checked.exit_code == 0 and " 0 differ" in checked.output, checked.output
    lacking = run("check", "family.yaml")
    assert lacking.exit_code == 2 and "./base" in lacking.output and "schema" not in lacking.output


@pytest.mark.slow
def test_a_row_made_again_from_the_export_is_the_same(unpacked, monkeypatch):
    monkeypatch.chdir(unpacked)
    shutil.copytree(TINY / "base", unpacked / "base")
    shutil.copytree(TINY / "safety", unpacked / "base-1")
    assert run("check", "family.yaml").exit_code == 0
    command = next(line for line in Path("commands.sh").read_text().splitlines() if "my own" in line[5:])
    made = run("compare", "-f", "family.yaml", "--methods", "my own", *OPTIONS, "--results", "again")
    assert "--family family.yaml" in command and made.exit_code == 0, made.output
    (ours,) = (unpacked / "models").glob("mine--*/done.json")
    (theirs,) = (unpacked / "again").rglob("mine--*/done.json")
    assert json.loads(ours.read_text())["fingerprint"] == json.loads(theirs.read_text())["fingerprint"]


@pytest.mark.parametrize("name", registry.find("families"))
def test_every_family_survives_being_packed(name, tmp_path):
    family = parse_family(registry.get("families", name).path)
    (tmp_path / "family.yaml").write_text(family_file(family, places_of(family, tmp_path / "x", {})))
    again = parse_family(tmp_path / "family.yaml")

    def content(of):
        return of.model_dump(exclude={"name", "folder", "base", "experts", "checkpoints"})

    def where(of):
        return {use: (of.folder / ref).resolve() if (of.folder / ref).exists() else ref
                for use, ref in references(of)}  # fmt: skip

    assert content(again) == content(family) and where(again) == where(family)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/me/work/models/a", "models/a"),
        ("in /home/me/work", "in ."),
        ("'/home/me/work.'", "'..'"),
        ("/home/me/x and /home/me.", "~/x and ~."),
        ("/home/meander/x", "/home/meander/x"),
        ("/home/me-too/x", "/home/me-too/x"),
        ("/mnt/home/me/x", "/mnt/home/me/x"),
        ("file:///home/me/x", "file://~/x"),
    ],
)
def test_paths_are_replaced_whole(text, expected):
    assert Places({Path("/home/me"): "~", Path("/home/me/work"): ""}).text(text) == expected


def test_wrapped_and_escaped_paths_are_replaced():
    places = Places({Path("/home/mé and more"): "~"})
    text = yaml.safe_dump({"a": "word " * 14 + "/home/mé and more/x", "/home/mé and more/k": [1]})
    found = places.content("a.yaml", text.encode()).decode()
    assert yaml.safe_load(found) == {"a": "word " * 14 + "~/x", "~/k": [1]}
    packed = places.content("a.json", json.dumps({"a": ["/home/mé and more"]}).encode())
    assert json.loads(packed) == {"a": ["~"]}
    assert places.content("a.json", b'{"half') == b'{"half' and places.content("a.pdf", b"\xff") == b"\xff"


@pytest.mark.parametrize(
    ("to", "message"),
    [
        (".", "is a folder"),
        ("nowhere/x.zip", "there is no folder"),
        ("file/x.zip", "there is no folder"),
        ("pipe", "is no regular file"),
        ("/proc/x.zip", "cannot write /proc/x.zip"),
    ],
)
def test_a_target_that_cannot_be_written_is_told(home, tmp_path, to, message, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    done = run("export", "-f", home / "fam.yaml", "--results", home / "results", "--to", to)
    assert done.exit_code == 2 and message in done.output and "--to" in done.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "pipe"]


def test_a_failure_leaves_no_half_zip(home, tmp_path, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "writestr", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    given = ("-f", home / "fam.yaml", "--results", home / "results", "--to", tmp_path / "x.zip")
    done = run("export", *given)
    assert done.exit_code == 2 and "cannot write" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("board.json", "{"),
        ("board.json", '{"schema": 2, "headings": [], "rows": [3]}'),
        ("rendered.json", "{"),
        ("rendered.json", "[]"),
        ("rendered.json", '{"csv": {"files": ["../../x"]}}'),
        ("rendered.json", None),
    ],
)
def test_a_damaged_report_is_told(home, tmp_path, name, text):
    copied = shutil.copytree(home / "results", tmp_path / "results")
    file = copied / "fam" / "report" / name
    file.unlink() if text is None else file.write_text(text)
    done = run("export", "-f", home / "fam.yaml", "--results", copied, "--to", tmp_path / "x.zip")
    assert done.exit_code == 2 and f"{name} cannot be read" in done.output and "anew" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["results"]


def test_models_of_the_hub_are_called_as_the_family_calls_them(tmp_path):
    family = parse_family(registry.get("families", "qwen7b-safety").path)
    folder = "/data/hub/models--Qwen--Qwen2.5-7B/snapshots/abc"
    places = places_of(family, tmp_path / "qwen7b-safety", {"base": folder, "gone": "/elsewhere"})
    assert places.text(f"on {folder}:") == f"on {family.base}:"
    assert places.text(f"{tmp_path}/qwen7b-safety/converted/x") == "converted/x"


def test_what_is_not_at_hand_is_said(home, tmp_path):
    copied = shutil.copytree(home, tmp_path / "copied")
    (kept,) = copied.rglob("models/mine--*/method.py")
    kept.unlink()
    given = ("export", "-f", copied / "fam.yaml", "--results", copied / "results", "--to", tmp_path / "x.zip")
    found = run(*given)
    assert found.exit_code == 0 and "warning" not in found.output  # where the family names it
    (home / "code" / "mine.py").rename(home / "code" / "gone.py")
    try:
        lost = run(*given)
    finally:
        (home / "code" / "gone.py").rename(home / "code" / "mine.py")
    assert lost.exit_code == 0 and "file of method `mine` that made `my own` is not here" in lost.output


def test_the_users_tasks_are_packed_with_their_parts(home, tmp_path, monkeypatch):
    (tmp_path / "tasks").mkdir()
    texts = {
        "mine_paper.yaml": "include: mine.yaml\ntask: harness_mine_paper\n",
        "mine.yaml": "process_results: !function mine.score\ndoc_to_text: !function other.ask\n",
        "mine.py": "score = 1\n",
        "other.py": "ask = 2\n",
        "unused.py": "",
    }
    for name, text in texts.items():
        (tmp_path / "tasks" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    family = parse_family(home / "fam.yaml")
    names = ("mine_paper", "tiny_chain", "lm_eval:arc_easy", "gone")
    headings = [Heading(name, "m", name, "g", True, "accuracy") for name in names]
    found, lacking = packing.plugins(Board("fam", "t", headings, [], []), Store(tmp_path, "fam"), family)
    assert found == {f"tasks/{name}": text for name, text in texts.items() if name != "unused.py"}
    assert lacking == ["the file of task `gone` is not here, so it is not packed"]


def test_a_row_of_a_file_can_be_deleted(home, tmp_path):
    copied = shutil.copytree(home, tmp_path / "copied")
    text = (copied / "fam.yaml").read_text()
    (copied / "fam.yaml").write_text(text.replace('"my own": {', '"another": {'))
    given = ("clean", "-f", copied / "fam.yaml", "--results", copied / "results", "--rows", "my own")
    done = run(*given)
    assert done.exit_code == 0 and "models/mine--" in done.output, done.output
    assert not list(copied.rglob("models/mine--*")) and list(copied.rglob("models/linear--*"))
