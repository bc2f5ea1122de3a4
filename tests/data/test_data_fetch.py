"""Fetching against a server that plays the hub and GitHub: what is fetched, and every way it can fail."""

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hub_stub import COMMIT, jsonl, zipped

from harness.data import Source, load, local_files, places
from harness.data import fetch as fetching
from harness.data.fetch import changed, fetch, published
from harness.data.identity import identity
from harness.data.record import fetched
from harness.errors import HarnessError

ROWS = [{"question": f"how many {n}?", "answer": str(n)} for n in range(40)]
OTHER = "f" * 40
NEW = {"question": "?", "answer": "0"}


def same(row):
    return row


def put(stub, repo, files):
    stub.files = {(repo, name): data for name, data in files.items()}


@pytest.fixture(autouse=True)
def forgetful(monkeypatch):
    monkeypatch.setattr(fetching, "_silent", {})


def hub(repo="org/good", **changes):
    files = {"test": ["test.jsonl", "main/test-*.jsonl"]}
    given = {"benchmark": "sums", "hub": repo, "files": files, "fields": ["question"], "id": "question"}
    return Source.of(given | changes)


def refusal(source, action=fetch):
    begun = time.perf_counter()
    with pytest.raises(HarnessError) as error:
        action(source)
    assert time.perf_counter() - begun < 5
    assert len(str(error.value).splitlines()) == 2
    assert not local_files(source, "test") and not fetched(source.folder)
    return error.value


def test_a_hub_data_set_is_fetched_once_with_its_commit(online, copy):
    more = {"train.jsonl": b"{}", "README.md": b"#"}
    put(online, "org/good", {"main/test-0.jsonl": jsonl(ROWS), "main/test-1.jsonl": jsonl([NEW]), **more})
    told = fetch(hub())
    assert (told.how, told.revision) == ("fetched", COMMIT)
    assert [path.name for path in told.files] == ["test-0.jsonl", "test-1.jsonl"]
    assert load(hub(), "test", same) == [*ROWS, NEW]
    record = json.loads((copy / "sums" / ".source.json").read_text())["files"]
    assert set(record) == {"main/test-0.jsonl", "main/test-1.jsonl"}
    assert {(entry["from"], entry["revision"]) for entry in record.values()} == {("org/good", COMMIT)}
    lying = {path.name for path in (copy / "sums").rglob("*") if path.is_file()}
    assert lying == {".source.json", "test-0.jsonl", "test-1.jsonl"}
    online.asked.clear()
    assert fetch(hub()).how == "already here"
    assert online.asked == ["GET /api/datasets/org/good"], "an unpinned one is asked for its commit"
    online.asked.clear()
    assert fetch(hub(revision=COMMIT)).how == "already here" and not online.asked


def test_the_first_layout_that_is_published_is_fetched(online, copy):
    online.files = {("org/good", name): jsonl(ROWS) for name in ("main/test-0.jsonl", "test.jsonl")}
    assert [path.name for path in fetch(hub()).files] == ["test.jsonl"]


def test_a_pinned_revision_is_fetched_by_a_run_and_an_unpinned_one_is_not(online, copy):
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    error = refusal(hub(), lambda source: load(source, "test", same))
    assert "not pinned" in error.message and "`harness data fetch sums`" in error.hint and not online.asked
    before = identity(hub(revision=COMMIT))
    assert len(load(hub(revision=COMMIT), "test", same)) == 40
    assert identity(hub(revision=COMMIT)) == before, "so that results are found again"
    (copy / "sums" / "test.jsonl").write_bytes(jsonl(ROWS[1:]))
    assert identity(hub(revision=COMMIT)) != before and changed(hub(), "test")


def test_another_revision_replaces_what_was_fetched(online, copy):
    put(online, "org/good", {f"main/test-{n}.jsonl": jsonl([ROWS[n]]) for n in range(2)})
    fetch(hub())
    online.commit, online.files = OTHER, {("org/good", "main/test-0.jsonl"): jsonl(ROWS[:3])}
    told = fetch(hub())
    assert told.revision == OTHER and [path.name for path in told.files] == ["test-0.jsonl"]
    assert len(load(hub(), "test", same)) == 3


def test_a_changed_file_is_fetched_anew(online, copy):
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    fetch(hub())
    (copy / "sums" / "test.jsonl").write_text("mine")
    assert changed(hub(), "test") and fetch(hub(revision=COMMIT)).how == "fetched"
    assert not changed(hub(), "test") and len(load(hub(), "test", same)) == 40


def test_what_was_laid_there_by_hand_is_left_alone(online, copy):
    (copy / "sums").mkdir(parents=True)
    (copy / "sums" / "test.jsonl").write_bytes(jsonl(ROWS[:2]))
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    assert fetch(hub()).how == "laid there by hand" and not online.asked
    assert len(load(hub(revision=COMMIT), "test", same)) == 2 and not online.asked


@pytest.mark.parametrize(
    "source, told",
    [
        (hub("org/gone"), "no such data set"),
        (hub("org/gated"), "access must be granted"),
        (hub("locked-org/good"), "access must be granted"),
        (hub("org/forbidden"), "HTTP 403"),
        (hub("org/broken"), "HTTP 500"),
        (hub(revision=OTHER), "no such revision"),
        (hub(files={"test": ["other.jsonl"]}), "it has no other.jsonl"),
    ],
    ids=["404", "401", "gated file", "403", "500", "revision", "no file"],
)
def test_what_the_hub_refuses_is_told_at_once(online, copy, source, told):
    online.files = {(repo, "test.jsonl"): jsonl(ROWS) for repo in ("org/good", "locked-org/good")}
    error = refusal(source)
    assert told in error.message and source.hub in error.message and str(copy / "sums") in error.message
    assert "harness data fetch" in error.hint and "HARNESS_DATA" in error.hint


def test_a_place_that_does_not_answer_is_waited_for_once(online, copy, monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as listening:  # it accepts, and says nothing
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{listening.getsockname()[1]}")
        monkeypatch.setattr(places, "CONNECT", 0.5)
        assert "does not answer" in refusal(hub()).message
        begun = time.perf_counter()
        assert "does not answer" in refusal(hub("org/other", benchmark="other")).message
        assert time.perf_counter() - begun < 0.1


def test_a_place_that_cannot_be_reached(online, copy, monkeypatch):
    from huggingface_hub import constants

    with socket.create_server(("127.0.0.1", 0)) as closed:
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", nowhere)
    monkeypatch.setenv("HARNESS_GITHUB_RAW", nowhere)
    assert "cannot be reached" in refusal(hub()).message
    assert "cannot be reached" in refusal(hub(), published).message
    github = Source("code", {"test": ["a.jsonl"]}, github="o/r", revision=COMMIT)
    assert "cannot be reached" in refusal(github).message
    assert (
        "cannot be reached" in refusal(Source("web", {"test": ["a.jsonl"]}, url=f"{nowhere}/a.jsonl")).message
    )


def test_whether_it_is_published_is_asked_without_a_download(online, copy):
    files = {"test": ["a.jsonl", "test.jsonl"]}
    online.files = {(repo, "test.jsonl"): jsonl(ROWS) for repo in ("org/good", "o/r", "web/web")}
    code = Source("code", files, github="o/r", revision=COMMIT)
    web = Source("web", files, url=f"{online.url}/test.jsonl")
    for source in (hub(), code, web):
        published(source)
    assert not [line for line in online.asked if line.startswith("GET") and line.endswith(".jsonl")]
    assert not copy.exists()
    for source in (hub("org/gone"), Source("c", files, github="o/gone", revision=COMMIT)):
        refusal(source, published)
    assert "it is not there" in refusal(Source("w", files, url=f"{online.url}/no.jsonl"), published).message
    assert "has no b.jsonl" in refusal(hub(files={"test": "b.jsonl"}), published).message


def test_offline_touches_no_network_and_no_disk(online, copy, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for source in (hub(), hub(revision=COMMIT), Source("web", {"test": ["a.jsonl"]}, url=f"{online.url}/a")):
        assert "HF_HUB_OFFLINE is set" in refusal(source).message
    assert not online.asked and not copy.exists()


def test_a_cut_connection_is_no_complete_file(online, copy, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between the hub client's own tries
    online.files = {(repo, "test.jsonl"): jsonl(ROWS) for repo in ("org/good", "o/r", "web/web")}
    online.faults, files = {"test.jsonl": "cut"}, {"test": ["test.jsonl"]}
    code = Source("code", files, github="o/r", revision=COMMIT)
    for source in (hub(), code, Source("web", files, url=f"{online.url}/test.jsonl")):
        assert "the connection was cut" in refusal(source).message
    online.faults.clear()
    assert fetch(hub()).how == "fetched" and len(load(hub(), "test", same)) == 40


def test_a_file_of_another_content_than_published_is_refused(online, copy, monkeypatch):
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    monkeypatch.setattr(places, "git_hash", lambda path: "another")
    assert "does not have the hash" in refusal(hub()).message


@pytest.mark.slow
def test_a_killed_fetch_leaves_nothing_that_looks_complete_and_goes_on(stub, copy):
    stub.files = {("org/good", f"main/test-{n}.jsonl"): jsonl([ROWS[n]]) for n in range(3)}
    stub.faults = {"main/test-2.jsonl": "hang"}
    code = (
        "from harness.data import Source; from harness.data.fetch import fetch;"
        "fetch(Source('sums', {'test': ['main/test-*.jsonl']}, hub='org/good'))"
    )
    env = {
        **os.environ,
        "HF_ENDPOINT": stub.url,
        "HF_HUB_OFFLINE": "0",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    child = subprocess.Popen([sys.executable, "-c", code], env=env)
    wanted = f"GET /datasets/org/good/resolve/{COMMIT}/main/test-2.jsonl"
    done = [copy / ".fetch" / "sums" / "main" / f"test-{n}.jsonl" for n in range(2)]
    while wanted not in stub.asked or not all(path.exists() for path in done):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    source = Source("sums", {"test": ["main/test-*.jsonl"]}, hub="org/good")
    assert local_files(source, "test") == [] and not source.folder.exists()
    stub.faults.clear()
    stub.asked.clear()
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert len(load(source, "test", same)) == 3
    again = [line for line in stub.asked if line.startswith("GET /datasets")]
    assert again == [wanted], "what was complete is not asked for again"
    assert not (copy / ".fetch" / "sums").exists()


def test_killed_while_moving_in_is_told(online, copy, monkeypatch):
    online.files = {("org/good", f"main/test-{n}.jsonl"): jsonl([ROWS[n]]) for n in range(3)}
    real, moved = os.replace, []

    def replace(old, new):
        if ".part" in str(old):
            moved.append(new)
            if len(moved) == 2:
                raise KeyboardInterrupt
        return real(old, new)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        fetch(hub())
    with pytest.raises(HarnessError, match="is missing, which was fetched with test-0.jsonl") as error:
        local_files(hub(), "test")
    assert "harness data fetch sums" in error.value.hint
    assert fetch(hub()).how == "fetched" and len(local_files(hub(), "test")) == 3


def test_two_fetches_at_once_are_one(online, copy):
    from concurrent.futures import ThreadPoolExecutor

    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(lambda _: fetch(hub(revision=COMMIT)).how, range(2)))
    assert told == ["already here", "fetched"]
    assert sum(line.startswith("GET /datasets") for line in online.asked) == 1


def test_a_repository_by_name_and_by_pattern(online, copy):
    online.files = {("o/r", f"data/{name}.json"): b'[{"a": 1}]' for name in ("one", "two")}
    named = Source("code", {"test": ["absent.json", "data/one.json"]}, github="o/r", revision=COMMIT)
    assert [path.name for path in fetch(named).files] == ["one.json"]
    assert not any("api.github" in line for line in online.asked), "a pinned file needs no listing"
    every = Source("all", {"test": ["data/*.json"]}, github="o/r")
    assert [path.name for path in fetch(every).files] == ["one.json", "two.json"]
    assert {entry["revision"] for entry in fetched(every.folder).values()} == {COMMIT}
    assert "HTTP 500" in refusal(Source("x", {"test": ["a.json"]}, github="o/broken")).message
    assert "has no absent.json" in refusal(Source("y", {"test": ["absent.json"]}, github="o/r")).message


def test_a_zip_gives_the_files_of_the_layout_alone(online, copy):
    online.files = {
        ("web/web", "data.zip"): zipped({"data/dev.json": b'[{"a": 1}]', "data/train.json": b"[]"})
    }
    source = Source("web", {"dev": ["data/dev.json", "dev.json"]}, url=f"{online.url}/data.zip")
    assert fetch(source).how == "fetched" and load(source, "dev", same) == [{"a": 1}]
    assert not (copy / "web" / "data" / "train.json").exists()
    plain = Source("plain", {"dev": ["dev.json"]}, url=f"{online.url}/dev.json?raw=true")
    online.files[("web/web", "dev.json")] = b'[{"a": 2}]'
    assert [path.name for path in fetch(plain).files] == ["dev.json"]


@pytest.mark.parametrize(
    "name", ["../../evil.json", "/tmp/evil.json", "data/../../evil.json", ".evil.json", "a//evil.json"]
)
def test_a_zip_writes_nothing_outside(online, copy, name):
    online.files = {("web/web", "data.zip"): zipped({name: b"[1]", "data/dev.json": b'[{"a": 1}]'})}
    source = Source("web", {"dev": ["**"]}, url=f"{online.url}/data.zip")
    assert [path.name for path in fetch(source).files] == ["dev.json"]
    assert not list(copy.parent.rglob("evil.json")) and not Path("/tmp/evil.json").exists()


def test_a_link_in_a_zip_is_no_link(online, copy, tmp_path):
    entry = zipfile.ZipInfo("data/dev.json")
    entry.external_attr = 0o120777 << 16
    online.files = {("web/web", "data.zip"): zipped({"x.txt": b"x"})}
    with zipfile.ZipFile(tmp_path / "links.zip", "w") as archive:
        archive.writestr(entry, "/etc/passwd")
    online.files = {("web/web", "data.zip"): (tmp_path / "links.zip").read_bytes()}
    (path,) = fetch(Source("web", {"dev": ["data/dev.json"]}, url=f"{online.url}/data.zip")).files
    assert not path.is_symlink() and path.read_text() == "/etc/passwd"


def test_bombs_and_broken_zips(online, copy, monkeypatch):
    monkeypatch.setattr(places, "MOST", 1 << 20)
    source = Source("web", {"test": ["dev.json"]}, url=f"{online.url}/data.zip")
    online.files = {("web/web", "data.zip"): zipped({"dev.json": b"0" * (2 << 20)})}
    assert "unpacks to more than 1 MiB" in refusal(source).message
    online.files = {("web/web", "data.zip"): b"0" * (2 << 20)}
    assert "more than 1 MiB" in refusal(source).message
    whole = zipped({"dev.json": b'[{"a": 1}]' * 50})
    at = whole.index(b"dev.json") + 12
    online.files = {("web/web", "data.zip"): whole[:at] + b"\0\0\0" + whole[at + 3 :]}
    assert "cannot be unpacked" in refusal(source).message


def test_no_address_says_how_to_obtain_it(copy):
    source = Source("closed", {"test": ["a.json"]}, hint="ask its authors")
    error = refusal(source)
    assert error.hint.startswith("ask its authors;") and str(copy) in error.hint and not copy.exists()


def test_a_folder_that_cannot_be_written(online, tmp_path, monkeypatch):
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path / "file"))
    error = refusal(hub())
    assert str(tmp_path / "file") in error.message and "HARNESS_DATA" in error.hint
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "which is a file" in refusal(hub()).message


def test_a_linked_folder_is_filled_through_the_link(online, copy, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    copy.mkdir()
    (copy / "sums").symlink_to(tmp_path / "elsewhere")
    online.files = {("org/good", "test.jsonl"): jsonl(ROWS)}
    fetch(hub())
    assert (tmp_path / "elsewhere" / "test.jsonl").is_file() and (copy / "sums").is_symlink()


def test_gz_survives_a_fetch_as_it_is(online, copy):
    online.files = {("o/r", "data/a.jsonl.gz"): gzip.compress(jsonl(ROWS))}
    source = Source("code", {"test": ["data/a.jsonl.gz"]}, github="o/r", revision=COMMIT)
    assert len(load(source, "test", same)) == 40


def test_deleted_data_is_missing_and_a_deleted_part_is_told(online, copy):
    online.files = {("org/good", f"main/test-{n}.jsonl"): jsonl([ROWS[n]]) for n in range(2)}
    fetch(hub())
    (copy / "sums" / "main" / "test-1.jsonl").unlink()
    with pytest.raises(HarnessError, match="test-1.jsonl is missing"):
        identity(hub())
    shutil.rmtree(copy / "sums" / "main")
    assert local_files(hub(), "test") == []
