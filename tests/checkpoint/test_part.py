"""The private folder belongs to whoever holds its lock, from the first file to the wanted name."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from harness.checkpoint import part
from harness.checkpoint.part import Part
from harness.errors import HarnessError
from harness.store import reachable
from harness.train.work import CURVE, Work


def refused(to: Path) -> bool:
    """Whether another one cannot have the folder now."""
    other = Part(to, "other")
    try:
        other.lock()
    except HarnessError as error:
        assert "another process is writing" in error.message
        return True
    other.unlock()
    return False


def finish(held: Part) -> None:
    os.rename(held.path, held.to)
    held.named()


def once(monkeypatch, place, name, happens, after=False):
    """`happens` before (or `after`) the first call of a function."""
    real, left = getattr(place, name), [happens]

    def call(*args, **kwargs):
        todo = left and left.pop()
        if todo and not after:
            todo()
        made = real(*args, **kwargs)
        if todo and after:
            todo()
        return made

    monkeypatch.setattr(place, name, call)


def test_what_is_not_held_is_not_discarded(tmp_path):
    first, second = Part(tmp_path / "out", "key"), Part(tmp_path / "out", "key")
    first.lock()
    first.begin()
    with pytest.raises(HarnessError, match="another process"):
        second.lock()
    second.discard()
    assert first.resumable() and refused(tmp_path / "out")
    first.discard()
    first.discard()
    assert not list(tmp_path.iterdir())


def test_it_is_held_until_it_is_discarded(tmp_path, monkeypatch):
    held = Part(tmp_path / "out", "key")
    held.lock()
    (held.path / "model").mkdir()
    seen = []
    once(monkeypatch, part.shutil, "rmtree", lambda: seen.append(refused(tmp_path / "out")))
    held.discard()
    assert seen == [True] and not list(tmp_path.iterdir())


def test_a_folder_that_another_takes_while_it_is_discarded_is_left_to_it(tmp_path, monkeypatch):
    held, other = Part(tmp_path / "out", "key"), Part(tmp_path / "out", "other")
    held.lock()
    once(monkeypatch, Path, "rmdir", other.lock)
    held.discard()
    other.begin()
    assert other.resumable() and refused(tmp_path / "out")


@pytest.mark.parametrize("end", [finish, Part.discard])
@pytest.mark.parametrize("moment", ["mkdir", "open", "flock"])
def test_a_lock_that_went_with_its_folder_is_none(tmp_path, monkeypatch, moment, end):
    first, second = Part(tmp_path / "out", "key"), Part(tmp_path / "out", "key")
    first.lock()
    place = part.fcntl if moment == "flock" else Path
    once(monkeypatch, place, moment, lambda: end(first), after=moment != "flock")
    second.lock()
    assert second.path.is_dir() and refused(tmp_path / "out")
    assert (tmp_path / "out").exists() == (end is finish)
    assert end is not finish or not list((tmp_path / "out").iterdir())


def test_what_cannot_be_a_folder_is_tried_for_a_while_only(tmp_path):
    (tmp_path / ".out.part").write_text("")
    with pytest.raises(FileExistsError):
        Part(tmp_path / "out", "key").lock()
    assert not (tmp_path / "out").exists()


def full(path: Path) -> None:
    with reachable(path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_training_that_the_disk_ended_is_kept(tmp_path):
    for fails in (lambda: full(tmp_path), lambda: (_ for _ in ()).throw(OSError("of any kind"))):
        with pytest.raises((HarnessError, OSError)), Work(tmp_path / "out", "key") as work:
            (work.training / "state").touch()
            fails()
        assert (work.training / "state").exists() and not refused(tmp_path / "out")
    with pytest.raises(HarnessError, match="for good"), Work(tmp_path / "out", "key") as work:
        assert (work.training / "state").exists()
        raise HarnessError("for good", "")
    assert not list(tmp_path.iterdir())


def test_a_training_is_held_until_it_is_deleted(tmp_path, monkeypatch):
    seen = []
    with pytest.raises(HarnessError, match="for good"), Work(tmp_path / "out", "key"):
        once(monkeypatch, part.shutil, "rmtree", lambda: seen.append(refused(tmp_path / "out")))
        raise HarnessError("for good", "")
    with Work(tmp_path / "out", "key") as work:
        work.model.mkdir()
        (work.training / CURVE).touch()
        once(monkeypatch, part.shutil, "rmtree", lambda: seen.append(refused(tmp_path / "out")))
        work.finish({"steps": 3})
    assert seen == [True, True] and [path.name for path in tmp_path.iterdir()] == ["out"]
    assert Work(tmp_path / "out", "key").finished == {"steps": 3}


def test_a_training_sees_what_was_finished_just_before(tmp_path):
    (tmp_path / "out").mkdir()
    for key, said in (("key", "another process has just made"), ("other", "already holds")):
        Part(tmp_path / "out", "key").mark(tmp_path / "out", {"steps": 3})
        with pytest.raises(HarnessError, match=said), Work(tmp_path / "out", key):
            pytest.fail("trained again")
        assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with Work(tmp_path / "out", "other", replace=True) as work:
        assert work.training.is_dir()
