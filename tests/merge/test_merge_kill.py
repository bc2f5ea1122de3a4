"""A killed merge never looks finished, and goes on where it was."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from harness import merge_method, param
from harness.checkpoint import Checkpoint, fingerprint
from harness.errors import HarnessError
from harness.merge import Job, merge
from tests.merge import slow_merges as slow
from tests.merge.test_merge_exact import digests

KILL = {"after": None}
SEEN: list[tuple[str, int]] = []
LOCK = threading.Lock()


@merge_method("test_fatal", title="dies after so many blocks")
class Fatal:
    keep: float = param(0.3, "share")

    prepare = slow.Trim.prepare
    end, scope, ties, at_least, narrow = "highest", "global", "exact", 0, False

    def merge(self, group, cuts):
        with LOCK:
            SEEN.append((group.name, group.offset))
            if KILL["after"] is not None and len(SEEN) > KILL["after"]:
                os.kill(os.getpid(), signal.SIGKILL)
        return slow.Trim.merge(self, group, cuts)


@pytest.fixture(autouse=True)
def alive():
    KILL["after"] = None
    SEEN.clear()


def killed(inputs, to, after: int, **options) -> None:
    """Run the merge in a process that kills itself after so many blocks."""
    child = os.fork()
    if child == 0:
        try:
            SEEN.clear()
            KILL["after"] = after
            merge(inputs, [Job(Fatal(), to)], **options)
        finally:
            os._exit(3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("after", [0, 1, 7, 20])
def test_resume_gives_the_same_bytes_and_repeats_no_finished_tensor(inputs, tmp_path, after, threads):
    merge(inputs, [Job(Fatal(), tmp_path / "whole")], block=65536, shard_bytes=200_000)
    blocks = len(SEEN)
    killed(inputs, tmp_path / "out", after, block=65536, shard_bytes=200_000, threads=threads)
    assert not (tmp_path / "out").exists()
    SEEN.clear()
    record = merge(inputs, [Job(Fatal(), tmp_path / "out")], block=65536, shard_bytes=200_000)[0]
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")
    assert fingerprint(tmp_path / "out") == fingerprint(tmp_path / "whole")
    if after >= 7:  # the embedding takes the first three blocks
        assert record["resumed"] > 0 and len(SEEN) < blocks
    assert not list(tmp_path.glob(".*"))


def test_two_kills_in_a_row(inputs, tmp_path):
    merge(inputs, [Job(Fatal(), tmp_path / "whole")], threads=1)
    killed(inputs, tmp_path / "out", 5, threads=1)
    killed(inputs, tmp_path / "out", 5, threads=1)
    record = merge(inputs, [Job(Fatal(), tmp_path / "out")], threads=1)[0]
    assert record["resumed"] == 10
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_work_of_other_settings_is_not_continued(inputs, tmp_path):
    killed(inputs, tmp_path / "out", 9, threads=1)
    record = merge(inputs, [Job(Fatal(keep=0.1), tmp_path / "out")], threads=1)[0]
    merge(inputs, [Job(Fatal(keep=0.1), tmp_path / "whole")], threads=1)
    assert record["resumed"] == 0 and digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_changed_input_starts_anew(inputs, family, tmp_path):
    killed(inputs, tmp_path / "out", 9, threads=1)
    file = family / "one" / "model.safetensors"
    os.utime(file)
    again = type(inputs)(
        inputs.base, {role: Checkpoint.open(family / role) for role in ("one", "two")}, inputs.donor
    )
    assert merge(again, [Job(Fatal(), tmp_path / "out")])[0]["resumed"] == 0


def test_a_torn_journal_line_is_not_believed(inputs, tmp_path):
    killed(inputs, tmp_path / "out", 9, threads=1)
    journal = tmp_path / ".out.part" / ".journal"
    lines = journal.read_bytes().splitlines()
    journal.write_bytes(b"\n".join(lines))  # without its end, the last line is half a line
    record = merge(inputs, [Job(Fatal(), tmp_path / "out")], threads=1)[0]
    merge(inputs, [Job(Fatal(), tmp_path / "whole")], threads=1)
    assert record["resumed"] == len(lines) - 1
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


def test_a_finished_merge_is_not_done_again(inputs, tmp_path):
    first = merge(inputs, [Job(Fatal(), tmp_path / "out")])[0]
    SEEN.clear()
    assert merge(inputs, [Job(Fatal(), tmp_path / "out")])[0]["seconds"] == first["seconds"]
    assert not SEEN


def test_a_folder_that_holds_something_else_is_left_alone(inputs, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").write_text("")
    with pytest.raises(HarnessError, match="already holds"):
        merge(inputs, [Job(slow.Add(), tmp_path / "out")])
    assert (tmp_path / "out" / "thesis.tex").exists()
    merge(inputs, [Job(slow.Add(), tmp_path / "out", replace=True)])
    assert (tmp_path / "out" / "config.json").exists() and not (tmp_path / "out" / "thesis.tex").exists()


def test_two_processes_cannot_write_one_folder(inputs, tmp_path):
    import fcntl

    (tmp_path / ".out.part").mkdir()
    with (tmp_path / ".out.part" / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(HarnessError, match="another process"):
            merge(inputs, [Job(slow.Add(), tmp_path / "out")])


def test_a_resumed_merge_in_company_does_only_what_it_lacks(inputs, tmp_path):
    killed(inputs, tmp_path / "out", 9, threads=1)
    jobs = [Job(Fatal(), tmp_path / "out"), Job(slow.Add(), tmp_path / "add")]
    resumed, fresh = merge(inputs, jobs, threads=1)
    assert (resumed["resumed"], fresh["resumed"]) == (9, 0)
    assert len(SEEN) == len(inputs.base.tensors) - 9
    merge(inputs, [Job(slow.Add(), tmp_path / "alone")])
    assert digests(tmp_path / "add") == digests(tmp_path / "alone")


def test_another_seed_or_dtype_is_another_merge(inputs, tmp_path):
    merge(inputs, [Job(Fatal(), tmp_path / "out")])
    for other in ({"seed": 1}, {"dtype": "float32"}):
        with pytest.raises(HarnessError, match="already holds"):
            merge(inputs, [Job(Fatal(), tmp_path / "out", **other)])
