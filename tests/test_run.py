"""A plan carried out in this process: weights that are not kept, failures that stay alone, the live line."""

import dataclasses
import io
import shutil
import sqlite3
import threading
from contextlib import contextmanager

import pytest
from rich.console import Console

from harness import screen, spool
from harness.checkpoint import fingerprint
from harness.errors import HarnessError
from harness.evaluate import choice
from harness.evaluations import Numerics
from harness.family import load_family
from harness.planner import make_plan
from harness.recipe import key
from harness.run import Outcome, carry_out, weights
from harness.run.weights import Kept, Volatile, output_bytes, weights_of
from harness.steps import KEPT
from harness.store import Folder, Store

METHODS = ["linear", "task_arithmetic (paper)", "ties (paper)"]


class Told:
    """A screen that remembers."""

    def __init__(self, seen=None):
        self.lines, self.seen = [], seen or (lambda *line: None)

    def note(self, text):
        self.lines.append(("note", text))

    def done(self, *line):
        self.lines.append(line)
        self.seen(*line)

    def failed(self, *line):
        self.lines.append(("failed", *line))

    def now(self, *line):
        self.seen("now", *line)


def plan_in(folder, methods=METHODS, tasks=("tiny_chain",), limit=2, **how):
    family, how = load_family("tiny-safety"), {"engine": "hf", **how}
    store = Store(folder / "results", family.name)
    return make_plan(family, store, methods=methods, tasks=tasks, limit=limit, prepare=True, **how)


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """A folder in the place of shared memory, with room for so many bytes."""
    place = tmp_path / "memory"
    place.mkdir()
    monkeypatch.setattr(spool, "MEMORY", place)
    monkeypatch.setattr(weights, "ROOM", 0)

    def room(nbytes):
        held = lambda: sum(f.stat().st_size for f in place.rglob("*") if f.is_file())  # noqa: E731
        free = lambda where=place: max(0, nbytes - held()) if where == place else 10**12  # noqa: E731
        monkeypatch.setattr(spool, "free", free)
        return place

    return room


def models_in(place):
    folders = {path.parent.name for path in place.rglob("model.safetensors")}
    return {name.removeprefix(".").removesuffix(".part") for name in folders}


def test_waves_fit_half_of_the_memory_and_what_builds_itself_comes_first(tmp_path, memory):
    plan = plan_in(tmp_path, [*METHODS, "fusellm"])
    each, rows = output_bytes(plan), [row for row in plan.rows if row.is_merge]
    memory(4 * each + 10)
    volatile = Volatile(plan, Outcome(Told()))
    waves = volatile.waves(rows)
    methods = [[row.recipe.method for row in wave] for wave in waves]
    assert methods == [["fusellm"], ["linear", "task_arithmetic"], ["ties"]]
    (built,) = volatile.place(waves[0])
    assert built.checkpoint == built.folder.path / "model", "it goes on where a killed run stopped"
    assert all(spool.MEMORY in row.checkpoint.parents for row in volatile.place(waves[1]))
    volatile.close()
    assert Kept().waves(rows) == [rows] and Kept().place(rows) == rows


def test_a_wave_waits_for_room_and_for_the_wave_before_the_last(tmp_path, memory):
    plan = plan_in(tmp_path)
    rows, each = [row for row in plan.rows if row.is_merge], output_bytes(plan)
    memory(2 * each + 10)  # one at once, and one more beside it
    volatile, placed = Volatile(plan, Outcome(Told())), []
    first, second, third = volatile.waves(rows)

    def place(wave):
        thread = threading.Thread(target=lambda: placed.append(volatile.place(wave)))
        thread.start()
        thread.join(0.3)
        return thread

    for wave in (first, second):
        assert not place(wave).is_alive()
        (placed[-1][0].checkpoint).mkdir()
        (placed[-1][0].checkpoint / "model.safetensors").write_bytes(b"x" * each)
    waiting = place(third)
    assert waiting.is_alive() and len(placed) == 2
    volatile.release(first[0])
    waiting.join(5)
    assert len(placed) == 3 and not placed[0][0].checkpoint.exists() and placed[1][0].checkpoint.exists()
    volatile.close()
    assert not models_in(spool.MEMORY)


def test_what_nobody_will_evaluate_is_not_waited_for(tmp_path, memory):
    plan = plan_in(tmp_path)
    memory(2 * output_bytes(plan) + 10)
    volatile = Volatile(plan, Outcome(Told()))
    first, second, third = volatile.waves([row for row in plan.rows if row.is_merge])
    volatile.place(first)
    volatile.place(second)
    volatile.give_up()
    volatile.place(third)
    volatile.close()


@pytest.mark.parametrize(("kept", "stays"), [(True, True), (None, True), (False, False)])
def test_weights_of_an_earlier_run_go_only_if_it_did_not_keep_them(tmp_path, kept, stays):
    plan = plan_in(tmp_path, ["linear"])
    row = plan.rows[-1]
    row.checkpoint.mkdir(parents=True)
    row.folder.finish({"fingerprint": "f"} | ({} if kept is None else {KEPT: kept}))
    with weights_of(plan, "none", Outcome(Told())) as volatile:
        assert volatile.of(row) == row.checkpoint
        volatile.release(row)
    assert row.checkpoint.exists() == stays


def responses(plan):
    found = {}
    for path in sorted((plan.store.root / "responses").glob("*/*.sqlite")):
        with sqlite3.connect(path) as db:
            found |= {(path, *row[:1]): row for row in db.execute("select key, answer, rowid from responses")}
    return found


def values(plan):
    return {step.label: step.folder.done()["metrics"] for step in plan.evals}


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A finished run that keeps no weights, in waves of one, and what lay in memory meanwhile."""
    folder, patch, seen = tmp_path_factory.mktemp("small"), pytest.MonkeyPatch(), []
    place = folder / "memory"
    place.mkdir()
    plan = plan_in(folder)
    each = output_bytes(plan)
    held = lambda: sum(f.stat().st_size for f in place.rglob("*") if f.is_file())  # noqa: E731
    patch.setattr(spool, "MEMORY", place)
    patch.setattr(weights, "ROOM", 0)
    patch.setattr(spool, "free", lambda where=place: max(0, 2 * each + 1000 - held()))
    told = Told(lambda *line: seen.append((line, models_in(place))))
    outcome = carry_out(plan, told, engines=1, keep_weights="none")
    patch.undo()
    return plan, outcome, told, seen, place


def test_nothing_of_the_weights_is_left_and_never_more_lay_there_than_two_waves(small):
    plan, outcome, told, seen, place = small
    assert outcome.exit_code == 0 and not outcome.failed, outcome.failed
    assert max(len(models) for _, models in seen) in (1, 2) and not models_in(place)
    assert sum(line[0] == "merge" for line in told.lines) == 3, "three waves"
    merges = [row for row in plan.rows if row.is_merge]
    assert all(row.folder.complete and not row.has_weights for row in merges)
    assert all(row.folder.done()[KEPT] is False for row in merges)
    assert all((row.folder.path / name).is_file() for row in merges for name in ("masks.json", "recipe.yaml"))
    assert all(step.folder.complete for step in (*plan.evals, *plan.probes))
    assert plan.merges_to_make() == [] and plan.evals_to_make() == []


def test_with_and_without_weights_the_results_are_the_same(small, tmp_path):
    kept = plan_in(tmp_path)
    assert carry_out(kept, Told(), engines=1).exit_code == 0
    assert values(kept) == values(small[0])
    for one, other in zip(kept.rows, small[0].rows, strict=True):
        assert one.folder.done()["fingerprint"] == other.folder.done()["fingerprint"]
        assert not one.is_merge or fingerprint(one.checkpoint) == other.folder.done()["fingerprint"]
    assert not list(kept.store.root.glob("spool/*/*/"))


def test_a_lost_evaluation_is_made_of_the_same_merge_and_nothing_is_asked_again(small, tmp_path, memory):
    shutil.copytree(small[0].store.root, tmp_path / "results" / "tiny-safety")
    plan = plan_in(tmp_path)
    memory(10**12)
    before, answered = {r.folder.path: r.folder.done() for r in plan.rows}, responses(plan)
    lost = next(step for step in plan.evals if step.row.recipe.__class__.__name__ == "MergeRecipe")
    shutil.rmtree(lost.folder.path)
    assert [row.label for row in plan.merges_to_make()] == [lost.row.label]
    told = Told()
    assert carry_out(plan, told, engines=1, keep_weights="none").exit_code == 0
    record = lost.folder.done()
    assert record["generated"] == 0 and record["from_store"] > 0
    assert responses(plan) == answered and values(plan) == values(small[0])
    assert {r.folder.path: r.folder.done() for r in plan.rows} == before
    assert [line[0] for line in told.lines] == ["merge", "eval"] and not models_in(spool.MEMORY)


def test_where_memory_is_short_weights_lie_in_the_store_and_that_is_said(small, tmp_path, memory):
    plan = plan_in(tmp_path, ["linear"])
    memory(output_bytes(plan) * 2 - 1)
    told, seen = Told(), []
    told.seen = lambda *line: seen.extend(models_in(plan.store.root / "spool"))
    assert carry_out(plan, told, engines=1, keep_weights="none").exit_code == 0
    (note,) = [line[1] for line in told.lines if line[0] == "note" and "weights lie in" in line[1]]
    assert str(plan.store.root / "spool") in note and set(seen) == {plan.rows[-1].folder.path.name}
    assert not models_in(plan.store.root / "spool") and not models_in(spool.MEMORY)


def test_a_merge_that_fails_fails_alone_and_leaves_nothing(tmp_path, memory, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(
        "from harness import merge_method\n\n\n@merge_method('mine', title='Mine')\nclass Mine:\n"
        "    def merge(self, group, state):\n        raise RuntimeError('no idea')\n"
    )
    plan = plan_in(tmp_path, ["linear", "./mine.py"])
    place = memory(10**12)
    outcome = carry_out(plan, Told(), engines=1, keep_weights="none")
    assert outcome.exit_code == 1 and [line.split(":")[0] for line in outcome.failed] == ["merge Mine"]
    assert "no idea" in plan.rows[-1].folder.failed and not list(place.rglob("*.safetensors"))
    done = {step.row.label for step in plan.evals if step.folder.complete}
    assert done == {"base", "reasoning", "safety", "Linear"}


def test_a_defect_in_an_engines_thread_ends_the_run(tmp_path, memory, monkeypatch):
    """With waves waiting for rows that nobody evaluates any more, it must not hang."""
    from harness.run import evaluating

    plan = plan_in(tmp_path)
    memory(2 * output_bytes(plan) + 1000)

    def broken(*_):
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(evaluating.RowEvaluation, "ask", broken)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        carry_out(plan, Told(), engines=1, keep_weights="none")
    assert not models_in(spool.MEMORY)


def test_ctrl_c_leaves_no_weights_and_nothing_half_done(tmp_path, memory):
    plan = plan_in(tmp_path, limit=8)
    place = memory(10**12)

    def interrupt(*line):
        if line[:2] == ("now", "merge") and "merge" in line[2].rpartition(", ")[2]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, Told(interrupt), engines=1, keep_weights="none")
    assert not list(place.rglob("*.safetensors"))
    assert not any(row.folder.complete for row in plan.rows if row.is_merge)
    assert carry_out(plan, Told(), engines=1, keep_weights="none").exit_code == 0


def test_steps_are_found_by_the_names_of_their_folders(small):
    plan, again = small[0], plan_in(small[0].store.root.parent.parent)
    named = again.named()
    steps = [*plan.scores, *plan.rows, *plan.probes, *plan.evals, *plan.judges]
    assert len(steps) == len(named)
    for step in steps:
        found = named[str(step.folder.path.relative_to(plan.store.root))]
        assert type(found) is type(step) and key(found.recipe) == key(step.recipe)


def test_a_failure_is_told_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    outcome, told = Outcome(Told()), None
    outcome.fail(Folder(tmp_path / "file" / "x"), "eval", "a / b", HarnessError("no room", "free some"))
    outcome.warn(["odd", "odd"])
    told = outcome.screen.lines
    assert outcome.exit_code == 1 and told == [
        ("failed", "eval", "a / b", "no room\nhint: free some"),
        ("note", "odd"),
    ]


def test_what_computes_is_part_of_an_evaluations_key(monkeypatch, tmp_path):
    family = load_family("tiny-safety")
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    monkeypatch.setattr(choice, "visible_gpus", lambda: [])
    recipes = {
        (engine, gpu): dataclasses.replace(
            plan_in(tmp_path, ["linear"], engine="hf").evals[0].recipe,
            **{f: v for f, v in zip(("engine", "numerics"), _numerics(family, engine, gpu), strict=True)},
        )
        for engine in ("hf", "vllm")
        for gpu in (False, True)
    }
    assert len({key(recipe) for recipe in recipes.values()}) == 4
    own = family.model_copy(update={"engine": family.engine.model_copy(update={"dtype": "float32"})})
    assert Numerics.of(own, "hf", True) == Numerics.of(family, "hf", False)
    long = family.engine.model_copy(update={"max_model_len": 64})
    assert Numerics.of(family.model_copy(update={"engine": long}), "hf") == Numerics.of(family, "hf")
    assert Numerics.of(family.model_copy(update={"engine": long}), "vllm") != Numerics.of(family, "vllm")


def _numerics(family, engine, gpu):
    found = Numerics.of(family, engine, gpu)
    return found.engine, found.settings


def test_beams_are_refused_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(choice, "find_spec", lambda name: object())
    monkeypatch.setattr(choice, "visible_gpus", lambda: [])
    with pytest.raises(HarnessError, match="`num_beams: 4`, which vLLM cannot do"):
        plan_in(tmp_path, ["linear"], tasks=["safety_tuned_paper"], engine="vllm")


@contextmanager
def terminal(monkeypatch):
    """A screen on a terminal, what its live line was, and a clock to be set."""
    shown, clock = screen.Screen(), [0.0]
    shown.console = Console(file=io.StringIO(), force_terminal=True, width=120)
    monkeypatch.setattr(screen.time, "monotonic", lambda: clock[0])
    line = []
    monkeypatch.setattr(shown, "_live", lambda kind, what, share: line.append((kind, what, share)))
    yield shown, line, clock


def test_the_live_line_tells_requests_tokens_a_second_and_what_is_left(monkeypatch):
    with terminal(monkeypatch) as (shown, line, clock):
        shown.now("eval", "base", 40, 200)  # 40 were stored
        assert line[-1] == ("eval", "base", "40/200")
        clock[0] = 10.0
        shown.now("eval", "base", 80, 200, 5000)
        assert line[-1] == ("eval", "base", "80/200 · 500 tokens/s · 30 s left")
        shown.now("eval", "TIES", 0, 100)
        clock[0] = 20.0
        shown.now("eval", "TIES", 10, 100, 1000)
        # 120 are left of the one, at 2 a second; 90 of the other, at 1 a second
        assert line[-1] == ("eval", "base, TIES", "90/300 · 350 tokens/s · 90 s left")
        shown.now("eval", "base", 200, 200, 20000)
        shown.now("eval", "TIES", 20, 100, 2000)
        assert line[-1][:2] == ("eval", "TIES") and line[-1][2].startswith("20/100 · 200 tokens/s")
        shown.failed("eval", "TIES / gsm8k", "no memory")
        shown.now("eval", "Linear", 0, 10)
        assert line[-1] == ("eval", "Linear", "0/10")


def test_the_live_line_is_quiet_where_there_is_no_terminal(monkeypatch, capsys):
    shown = screen.Screen()
    shown.now("eval", "base", 1, 2, 3)
    assert shown._status is None and capsys.readouterr() == ("", "")


@pytest.mark.parametrize(("seconds", "text"), [(40.4, "40 s"), (720, "12 min"), (12600, "3.5 h")])
def test_times_are_spelled_for_people(seconds, text):
    assert screen.spelled(seconds) == text
