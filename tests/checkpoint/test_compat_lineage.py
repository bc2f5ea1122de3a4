"""What is odd about a family is measured, said and written down."""

from __future__ import annotations

import json
import math

import pytest
import torch

from harness.checkpoint import Checkpoint, compat, lineage
from tests import helpers_checkpoints as tiny

CONFIG = {**tiny.CONFIG, "vocab_size": 2500, "hidden_size": 64}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    base = tiny.weights(CONFIG)
    held = {
        "base": base,
        "one": tiny.tuned(base, 1, torch.float32),
        "two": tiny.tuned(base, 2, torch.float16),
        "stranger": tiny.weights(CONFIG, seed=7),
        "copy": dict(base),
    }
    return {role: Checkpoint.open(tiny.write(root / role, t, CONFIG)) for role, t in held.items()}, held


def flat(tensors):
    return torch.cat([tensors[name].double().flatten() for name in sorted(tensors)])


def test_norms_and_cosines_are_those_of_the_whole_vectors(models, monkeypatch):
    opened, held = models
    roles = ("one", "two", "stranger")
    start = flat(held["base"])
    deltas = {role: flat(held[role]) - start for role in roles}
    seen = []
    for threads, block in ((1, 65_536), (3, 16 * 65_536)):
        monkeypatch.setattr(lineage, "BLOCK", block)
        experts = {role: opened[role] for role in roles}
        seen.append(lineage.lineage(opened["base"], experts, lambda i, n: seen_progress(i, n), threads))
    assert seen[0] == seen[1], "no bit depends on threads or blocks"
    found = seen[0]
    assert math.isclose(found["base_norm"], start.norm().item(), rel_tol=1e-6)
    for role in roles:
        ratio = (deltas[role].norm() / start.norm()).item()
        assert math.isclose(found["relative_norm"][role], ratio, rel_tol=1e-5)
    for pair, cosine in found["cosine"].items():
        a, b = (deltas[role] for role in pair.split(", "))
        assert math.isclose(cosine, (a @ b / a.norm() / b.norm()).item(), abs_tol=1e-6)
    assert list(found["cosine"]) == ["one, two", "one, stranger", "two, stranger"]


def seen_progress(done, total):
    assert 1 <= done <= total


def test_a_stranger_and_a_copy_are_told(models):
    opened, _ = models
    experts = {role: opened[role] for role in ("one", "stranger", "copy")}
    found = lineage.lineage(opened["base"], experts)
    assert 1.3 < found["relative_norm"]["stranger"] < 1.5, "independent weights: about sqrt(2)"
    assert found["relative_norm"]["copy"] == 0 and found["cosine"]["one, copy"] is None
    stranger, copy = compat.lineage_warnings(found, "base")
    assert "`stranger` is evidently not a fine-tune of base" in stranger and "1.4" in stranger
    assert "`copy` is the base itself" in copy


def test_nan_is_not_a_number_in_the_report(models, tmp_path):
    opened, held = models
    tensors = {**held["one"], "model.norm.weight": torch.full((64,), math.nan)}
    broken = Checkpoint.open(tiny.write(tmp_path / "nan", tensors, CONFIG))
    found = lineage.lineage(opened["base"], {"broken": broken})
    assert found["relative_norm"] == {"broken": None} and compat.lineage_warnings(found, "base") == []
    json.dumps(found, allow_nan=False)


def tokenizer(folder, vocab, **config):
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocab}}))
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def test_the_report_names_what_differs(tmp_path):
    base = tiny.write(tmp_path / "base", tiny.weights(CONFIG), CONFIG)
    changed = {**CONFIG, "rms_norm_eps": 1e-5, "rope_theta": 1e6}
    expert = tiny.write(tmp_path / "expert", tiny.weights(CONFIG, dtype=torch.float16), changed)
    tokenizer(base, {"a": 0, "b": 1, "c": 2}, eos_token="b", chat_template="x")
    tokenizer(expert, {"a": 0, "B": 1, "d": 3}, eos_token={"content": "d"}, chat_template="y")
    found = compat.report(Checkpoint.open(base), {"math": Checkpoint.open(expert)})
    compared = found["experts"]["math"]
    assert compared["misfits"] == 0
    assert compared["settings"] == {"rope_theta": (10000.0, 1e6), "rms_norm_eps": (1e-6, 1e-5)}
    assert compared["special_tokens"] == {"eos_token": ["b", "d"]} and compared["chat_template_differs"]
    assert compared["tokens"]["missing"] == {"count": 2, "examples": ["b", "c"]}
    assert compared["tokens"]["extra"]["count"] == 2 and compared["tokens"]["moved"]["count"] == 0
    assert compared["tokens"]["clashes"] == {"count": 1, "examples": [(1, "b", "B")]}
    assert found["models"]["math"]["dtypes"] == {"F16": len(tiny.shapes(CONFIG))}
    assert found["models"]["base"]["embedding_rows"] == 2500 and found["models"]["base"]["tied"]
    (said,) = compat.token_warnings(found)
    assert "1 ids stand for other tokens" in said and "`b` in the base, `B` in the expert" in said
    json.dumps(found, allow_nan=False)


def test_misfits_are_in_the_report_too(tmp_path):
    base = Checkpoint.open(tiny.write(tmp_path / "base", tiny.weights(CONFIG), CONFIG))
    wide = {**CONFIG, "hidden_size": 32}
    wide = Checkpoint.open(tiny.write(tmp_path / "wide", tiny.weights(wide), wide))
    compared = compat.report(base, {"wide": wide})["experts"]["wide"]
    assert compared["misfits"] > 20 and "[2500, 32] where the base has [2500, 64]" in compared["shapes"][0]
    assert compared["missing"] == compared["extra"] == [] and compared["tokens"] is None
