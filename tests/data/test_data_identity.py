"""Where the local copy is looked for, and the hash of what is read."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.data import Source, home, load, local_files
from harness.data import identity as module
from harness.data.identity import CACHE, identity
from harness.errors import HarnessError

ROOT = Path(__file__).parents[2]
SOURCE = Source("sums", {"test": ["test.jsonl", "main/*.jsonl"]}, hub="org/sums")


@pytest.fixture
def put(copy):
    def write(name, text, age=100):
        path = copy / "sums" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        os.utime(path, (time.time() - age,) * 2)
        return path

    return write


@pytest.fixture
def hashed(monkeypatch):
    """The files that were read to be hashed."""
    read, real = [], module.sha256
    monkeypatch.setattr(module, "sha256", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr(module, "SETTLED", -1)  # the times of change of files just written are now
    return read


def test_a_hash_is_kept_until_the_file_changes(put, copy, hashed):
    path = put("test.jsonl", "one")
    first = identity(SOURCE)
    assert identity(SOURCE) == first and hashed == ["test.jsonl"]
    put("test.jsonl", "two")  # of the same size and time
    second = identity(SOURCE)
    assert second != first and len(hashed) == 2
    path.with_name("new").write_text("six")
    os.utime(path.with_name("new"), ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    os.replace(path.with_name("new"), path)
    assert identity(SOURCE) != second and len(hashed) == 3
    assert list(json.loads((copy / CACHE).read_text())) == [str(path)]


def test_a_file_that_may_still_change_is_not_kept(put, copy, monkeypatch):
    monkeypatch.setattr(module, "SETTLED", 60)
    put("test.jsonl", "one", age=0)
    identity(SOURCE)
    assert not (copy / CACHE).exists()


def test_adding_and_deleting_data(put, copy):
    published = identity(SOURCE)
    assert published == {"test": {"at": "org/sums", "revision": None}} and not copy.exists()
    put("main/a.jsonl", "a")
    one = identity(SOURCE)
    put("main/b.jsonl", "b")
    assert identity(SOURCE) not in (published, one)
    put("test.jsonl", "a")
    assert set(identity(SOURCE)["test"]) == {"test.jsonl"}, "the first layout wins"
    (copy / "sums" / "test.jsonl").unlink()
    (copy / "sums" / "main" / "b.jsonl").unlink()
    assert identity(SOURCE) == one


def test_files_of_one_name_are_told_apart(put):
    source = Source("sums", {"test": ["*/test.csv"]})
    put("a/test.csv", "a")
    put("b/test.csv", "b")
    both = identity(source)
    assert set(both["test"]) == {"a/test.csv", "b/test.csv"}
    put("a/test.csv", "c")
    assert identity(source) != both


def test_the_folder_itself_does_not_matter(put, copy, tmp_path, monkeypatch):
    put("test.jsonl", "one")
    here = identity(SOURCE)
    copy.rename(tmp_path / "moved")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "moved"))
    assert identity(SOURCE) == here


@pytest.mark.parametrize("text", ["", "[1]", "{", '{"/x": "y"}', "\udcff", '{"PATH": ["a", 1]}'])
def test_a_broken_cache_is_no_cache(put, copy, text):
    path = put("test.jsonl", "one")
    wanted = identity(SOURCE)
    (copy / CACHE).write_bytes(text.replace("PATH", str(path)).encode("utf-8", "surrogateescape"))
    assert identity(SOURCE) == wanted


def test_a_folder_that_cannot_be_written_is_read(put, copy, monkeypatch):
    put("test.jsonl", "one")

    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(module, "write_text", refuse)
    monkeypatch.setattr(module, "SETTLED", -1)
    assert identity(SOURCE)["test"]["test.jsonl"] and not (copy / CACHE).exists()


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rm", "true"], capture_output=True).returncode, reason="no mounts"
)
def test_a_read_only_mount_is_read(put, copy):
    put("test.jsonl", '{"a": 1}\n')
    code = (
        "from harness.data import *; from harness.data.identity import identity;"
        "s = Source('sums', {'test': ['test.jsonl']});"
        "print(identity(s)['test']['test.jsonl'][:4], load(s, 'test', lambda row: row))"
    )
    read_only = f"mount --bind {copy} {copy} && mount -o remount,ro,bind {copy} && ! touch {copy}/x"
    script = f'{read_only} && {sys.executable} -c "{code}"'
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split(" ", 1)[1] == "[{'a': 1}]\n", done.stderr


def test_a_dead_link_and_a_folder_are_errors_of_two_lines(put, copy):
    path = put("other", "")
    path.with_name("test.jsonl").symlink_to("gone")
    with pytest.raises(HarnessError, match="test.jsonl cannot be read"):
        identity(SOURCE)
    path.with_name("test.jsonl").unlink()
    path.with_name("test.jsonl").mkdir()
    with pytest.raises(HarnessError, match="test.jsonl cannot be read: Is a directory"):
        identity(SOURCE)


def test_many_processes_at_once(put, copy):
    for n in range(20):
        put(f"main/{n}.jsonl", str(n))
    code = (
        "from harness.data import Source, identity as m; m.SETTLED = -1;"
        "print(sorted(m.identity(Source('sums', {'test': ['main/*.jsonl']}))['test'].items()))"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT) for _ in range(4)
    ]
    assert len({child.communicate()[0] for child in children}) == 1
    assert all(child.returncode == 0 for child in children)
    assert len(json.loads((copy / CACHE).read_text())) == 20
    assert [path.name for path in copy.iterdir()].count(CACHE) == 1 and len(list(copy.iterdir())) == 2


def test_where_the_data_is_looked_for(monkeypatch, tmp_path):
    monkeypatch.delenv("HARNESS_DATA", raising=False)
    assert home() == Path("~/.cache/harness/data").expanduser()
    monkeypatch.chdir(tmp_path)
    for given, wanted in (
        ("mine", tmp_path / "mine"),
        ("~/d", Path.home() / "d"),
        ("", Path("~/.cache/harness/data").expanduser()),
    ):
        monkeypatch.setenv("HARNESS_DATA", given)
        assert home() == wanted


def test_a_relative_folder_holds_after_a_change_of_folder(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HARNESS_DATA", "mine")
    (tmp_path / "mine" / "sums").mkdir(parents=True)
    (tmp_path / "mine" / "sums" / "test.jsonl").write_text("{}\n")
    (path,) = local_files(SOURCE, "test")
    assert path.is_absolute() and load(SOURCE, "test", lambda row: row) == [{}]


@pytest.mark.parametrize("kind", ["absent", "file", "empty"])
def test_a_home_without_data(copy, kind):
    if kind == "file":
        copy.write_text("")
    elif kind == "empty":
        copy.mkdir()
    source = Source("sums", {"test": ["test.jsonl", "main/*.jsonl"]}, hub="org/sums", revision="a" * 40)
    assert identity(source)["test"] == {"at": "org/sums", "revision": "a" * 40}
    with pytest.raises(HarnessError) as error:
        load(source, "test", lambda row: row)
    fact = "which is a file" if kind == "file" else "has no test.jsonl or main/*.jsonl"
    assert (
        fact in error.value.message
        and "org/sums @ aaaaaaaaaaaa: HF_HUB_OFFLINE is set" in error.value.message
    )
    assert "harness data fetch sums" in error.value.hint and str(copy) in error.value.hint


def test_names_with_brackets_are_no_patterns(copy):
    folder = copy / "sums"
    folder.mkdir(parents=True)
    for name in ("[ab].jsonl", "a.jsonl"):
        (folder / name).write_text("{}\n")
    source = Source("sums", {"test": ["[ab].jsonl"], "star": ["[ab]*.jsonl"]})
    assert [p.name for split in ("test", "star") for p in local_files(source, split)] == ["[ab].jsonl"] * 2
