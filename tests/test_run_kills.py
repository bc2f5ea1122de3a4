"""A comparison that is killed at random moments goes on where it stopped (`benchmarks/kills.py`)."""

import json
import os
import random

import pytest

from benchmarks import kills

KILLS, SEED = int(os.environ.get("HARNESS_KILLS", "2")), int(os.environ.get("HARNESS_KILL_SEED", "7"))
ENGINES = ["hf", pytest.param("vllm", marks=pytest.mark.vllm)]


@pytest.fixture(scope="module", params=ENGINES)
def undisturbed(tmp_path_factory, request):
    """(the engine, a comparison that nobody killed)"""
    if request.param == "vllm":
        pytest.importorskip("vllm")
    return request.param, kills.reference(tmp_path_factory.mktemp("undisturbed"), request.param)


@pytest.mark.slow
@pytest.mark.parametrize("what", list(kills.LIFE))
def test_killed_at_random_moments_it_goes_on_where_it_stopped(undisturbed, tmp_path, what):
    engine, usual = undisturbed
    if what == "nursery" and engine != "hf":
        pytest.skip("only hf engines are forked")
    draw = random.Random(f"{what} {SEED}")
    said = list(kills.campaign(tmp_path, engine, what, KILLS, usual, draw))
    print(*said, sep="\n")
    assert usual.noise or all(line.endswith("apart: []") for line in said)


@pytest.mark.slow
def test_what_was_asked_again_done_again_or_lost_is_seen(tmp_path):
    """The checks themselves: a step and responses that are taken away from a complete comparison."""
    run = kills.Run(tmp_path / "one")
    assert run.start().wait() == 0
    usual = kills.Undisturbed(run.table(), 0.0, len(run.stored()), [])
    hit = kills.now(run)
    assert run.start().wait() == 0 and kills.check(run, [hit], usual) == []
    (step,) = run.store.glob("models/linear--*/evals/tiny_chain--????????")
    model = json.loads((step / "done.json").read_text())["fingerprint"]
    for path in (step / "done.json", *run.store.glob(f"responses/{model[:16]}/tiny_chain.sqlite*")):
        path.unlink()
    with pytest.raises(AssertionError, match=r"asked again 0, lost [1-9]"):
        kills.check(run, [hit], usual)
    assert run.start().wait() == 0
    # lost: those of the probe, which lay in the same file, and whose step is complete
    with pytest.raises(AssertionError, match=r"done again \[.*tiny_chain.*\], asked again [1-9]\d*, "):
        kills.check(run, [hit], usual)
