"""A comparison that is killed at random moments goes on where it stopped (`benchmarks/kills.py`)."""

import importlib.util
import os
import random
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parent.parent / "benchmarks" / "kills.py"
KILLS, SEED = int(os.environ.get("HARNESS_KILLS", "2")), int(os.environ.get("HARNESS_KILL_SEED", "7"))


@pytest.fixture(scope="module")
def kills():
    spec = importlib.util.spec_from_file_location("kills", FILE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up there
    spec.loader.exec_module(module)
    module.LIMIT = 8
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def undisturbed(kills, tmp_path_factory):
    return kills.reference(tmp_path_factory.mktemp("undisturbed"), "hf")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["parent", "engine"])
def test_killed_at_random_moments_it_goes_on_where_it_stopped(kills, undisturbed, tmp_path, what):
    expected, seconds, responses, _ = undisturbed
    draw = random.Random(f"{what} {SEED}")
    for index in range(KILLS):
        run = kills.Run(tmp_path / f"kill-{index}", keep=("none", "all")[index % 2])
        when = kills.moment(index, seconds, responses, draw)
        print(kills.round_of(run, what, when, expected, draw))


@pytest.mark.slow
def test_what_was_asked_again_done_again_or_lost_is_seen(kills, undisturbed, tmp_path):
    """The checks themselves: a response or a step that is taken away after the kill is missed."""
    expected, *_ = undisturbed
    run = kills.Run(tmp_path / "one")
    assert run.start().wait() == 0 and kills.differences(run.table(), expected) == []
    stored = run.stored()
    (step,) = run.store.glob("models/linear--*/evals/tiny_chain--????????")
    for path in (step / "done.json", *run.store.glob("responses/*/tiny_chain.sqlite*")):
        path.unlink()
    since = max(entry["at"] for entry in kills.lines(run) if "at" in entry)
    assert run.start().wait() == 0
    again = run.asked(since)
    assert again and again <= set(stored), "what was taken away is asked again, and that is seen"
    assert len(run.asked(0.0)) >= len(again)
