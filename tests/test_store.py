"""Run folders are complete or absent; recipes are classified; errors of the file system are told."""

import dataclasses
import os
import shutil
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from harness import recipe
from harness.errors import HarnessError
from harness.store import LEFT, Folder, Store, abandoned, digest, slug, whole, write_text


def test_a_folder_is_complete_only_once_finished(tmp_path):
    folder = Folder(tmp_path / "step")
    with folder.working({"kind": "x"}):
        assert not folder.complete
        folder.finish({"seconds": 1.0})
    assert folder.complete and folder.done() == {"seconds": 1.0} and folder.recipe() == {"kind": "x"}


def test_a_failure_leaves_its_reason_and_the_next_try_clears_it(tmp_path):
    folder = Folder(tmp_path / "step")
    with pytest.raises(ZeroDivisionError), folder.working({}):
        _ = 1 / 0
    assert folder.failed == "ZeroDivisionError: division by zero" and not folder.complete
    with folder.working({}):
        folder.finish({})
    assert folder.failed is None and folder.complete


def test_killed_while_working_the_folder_is_not_complete_and_not_locked(tmp_path):
    script = textwrap.dedent(f"""
        import os, pathlib
        from harness.store import LEFT, Folder
        with Folder(pathlib.Path({str(tmp_path / "step")!r})).working({{"a": 1}}):
            os.kill(os.getpid(), 9)
    """)
    assert subprocess.run([sys.executable, "-c", script], cwd=os.getcwd()).returncode == -9
    folder = Folder(tmp_path / "step")
    assert not folder.complete
    with folder.working({"a": 1}):  # would wait for ever if the dead process still held it
        folder.finish({})


def test_two_processes_take_turns(tmp_path):
    script = textwrap.dedent(f"""
        import pathlib, time
        from harness.store import LEFT, Folder
        folder = Folder(pathlib.Path({str(tmp_path / "step")!r}))
        log = pathlib.Path({str(tmp_path / "log")!r})
        with folder.working({{}}):
            with log.open("a") as f: f.write("in ")
            time.sleep(0.2)
            with log.open("a") as f: f.write("out ")
    """)
    both = [subprocess.Popen([sys.executable, "-c", script]) for _ in range(2)]
    assert [p.wait() for p in both] == [0, 0]
    assert (tmp_path / "log").read_text() == "in out in out "


def test_the_key_depends_on_content_not_on_order():
    assert digest({"a": 1, "b": 0.1}) == digest({"b": 0.1, "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})


def test_slug_is_readable_and_safe():
    assert slug("ties", {"scale": 1.0, "density": 0.2}, "52873946ff") == "ties--density=0.2,scale=1--52873946"
    assert "/" not in slug("../x", {"a": "b/c"}, "0" * 64)


@pytest.mark.parametrize("made", recipe.RECIPES)
def test_every_recipe_field_is_identity_or_recorded(made):
    fields = {f.name for f in dataclasses.fields(made)}
    assert fields == {*made.IDENTITY, *made.RECORDED}
    assert not set(made.IDENTITY) & set(made.RECORDED)


def test_recorded_fields_do_not_move_the_key_and_identity_fields_do():
    made = recipe.ReferenceRecipe("base", "m", "here")
    assert recipe.key(made) == recipe.key(dataclasses.replace(made, role="x", checkpoint="there"))
    one = recipe.EvalRecipe("t", "standard", "p", "s", "test", {}, True, None, 1, 0)
    # the key from before the engine was part of it: what `hf` answered in float32 is still found
    assert recipe.key(one) == "c56b35df94d245a09d9a4a95ff76a047c9f2760b3e6565314ee8cd4aa3af6128"
    for field, other in {
        "engine": "vllm",
        "numerics": {"dtype": "checkpoint"},
        "task": "u",
        "limit": 5,
        "repeats": 4,
        "generation": {"top_p": 0.9},
        "scorer": "x",
    }.items():
        assert recipe.key(one) != recipe.key(dataclasses.replace(one, **{field: other}))


def test_comments_and_docstrings_do_not_move_a_plugins_hash(tmp_path):
    one, two, three = (tmp_path / f"{n}.py" for n in "abc")
    one.write_text('"""Doc."""\ndef f():\n    """Inner."""\n    return 1\n')
    two.write_text('"""Other."""\n# a comment\ndef f():\n    "words"\n    return (1)\n')
    three.write_text("def f():\n    return 2\n")
    assert recipe.code_hash(one) == recipe.code_hash(two) != recipe.code_hash(three)


@pytest.mark.parametrize("place", ["file", "/proc/nothing"])
def test_an_unwritable_store_is_told_before_any_work(tmp_path, place):
    (tmp_path / "file").write_text("a file where the folder should be")
    with pytest.raises(HarnessError) as caught:
        Store(tmp_path / place, "tiny-safety").prepare()
    assert "cannot write" in caught.value.message and "--results" in caught.value.hint


def test_a_folder_that_is_deleted_while_it_is_waited_for_is_made_anew(tmp_path):
    folder, waits = Folder(tmp_path / "step"), threading.Event()

    def work():
        with folder.working({"key": "a"}, waits.set):
            folder.finish({})

    with ThreadPoolExecutor(1) as pool:
        with Folder(tmp_path / "step").working({"key": "a"}):
            waiting = pool.submit(work)
            assert waits.wait(20)
            shutil.rmtree(folder.path)  # as `harness clean` does, which holds the lock
        waiting.result(20)
    assert folder.complete and folder.recipe() == {"key": "a"}


def test_many_may_look_at_once_whether_a_store_can_be_written(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: Store(tmp_path, "tiny-safety").prepare(), range(400)))
    assert not list((tmp_path / "tiny-safety").iterdir())


def test_a_file_that_two_write_at_once_is_one_of_both(tmp_path):
    texts = [letter * 100_000 for letter in "ab"]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda at: write_text(tmp_path / "told.txt", texts[at % 2]), range(100)))
    assert (tmp_path / "told.txt").read_text() in texts
    assert [path.name for path in tmp_path.iterdir()] == ["told.txt"]


def test_what_is_half_written_is_told_from_what_a_kill_left(tmp_path):
    script = textwrap.dedent(f"""
        import os, pathlib
        from harness.store import whole
        with whole(pathlib.Path({str(tmp_path / "lost.txt")!r})) as part:
            part.write_text("half")
            os.kill(os.getpid(), 9)
    """)
    assert subprocess.run([sys.executable, "-c", script], cwd=os.getcwd()).returncode == -9
    (left,) = tmp_path.iterdir()
    earlier = time.time() - LEFT - 1
    with whole(tmp_path / "kept.txt") as part:
        part.write_text("whole")
        assert list(abandoned(tmp_path)) == []
        os.utime(left, (earlier, earlier))
        assert list(abandoned(tmp_path)) == [left]
        left.unlink()
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
