from pathlib import Path

import pytest

from harness.checkpoint import Checkpoint
from harness.merge import Inputs
from tests import helpers_checkpoints as tiny


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """base, one, two (bf16, single files), and the same experts as shards."""
    root = tmp_path_factory.mktemp("family")
    base = tiny.weights(tiny.CONFIG)
    tiny.write(root / "base", base)
    for seed, name in enumerate(("one", "two"), 1):
        expert = tiny.tuned(base, seed)
        tiny.write(root / name, expert)
        tiny.write(root / f"{name}-sharded", expert, shards=3)
    return root


@pytest.fixture(scope="session")
def inputs(family: Path) -> Inputs:
    experts = {role: Checkpoint.open(family / role) for role in ("one", "two")}
    return Inputs(Checkpoint.open(family / "base"), experts, family / "one")


@pytest.fixture
def few_blocks_kept_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the small test models take the way of the large ones: sample, bracket, count."""
    from harness.merge import cut, ranking

    monkeypatch.setattr(ranking, "FEW", 1000)
    monkeypatch.setattr(ranking, "FEW_IN_TENSOR", 1000)
    monkeypatch.setattr(cut, "GLOBAL_SAMPLE", (256, 64))
    monkeypatch.setattr(cut, "TENSOR_SAMPLE", (32, 64))
