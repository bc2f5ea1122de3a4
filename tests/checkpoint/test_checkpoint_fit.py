"""Which experts fit a base."""

from __future__ import annotations

import pytest
import torch

from harness.checkpoint import Checkpoint, check_fit, matched
from harness.errors import HarnessError
from tests import helpers_checkpoints as tiny

UNTIED = {**tiny.CONFIG, "tie_word_embeddings": False}


@pytest.fixture
def make(tmp_path):
    def made(name, tensors=None, config=tiny.CONFIG):
        return Checkpoint.open(tiny.write(tmp_path / name, tensors or tiny.weights(config), config))

    return made


def test_a_fine_tune_fits_without_a_word(make):
    assert check_fit(make("base"), {"one": make("one"), "two": make("two")}) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rope_theta": 1e6}, "rope_theta 1000000.0"),
        ({"rms_norm_eps": 1e-5}, "rms_norm_eps 1e-05"),
        (
            {"rope_theta": None, "rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
            "rope_theta 500000.0",
        ),
        ({"rope_scaling": {"rope_type": "yarn", "factor": 4}}, "rope_scaling"),
        ({"eos_token_id": [2, 3]}, "eos_token_id"),
        ({"num_attention_heads": 8, "num_key_value_heads": 4}, "num_attention_heads 8"),
        ({"dtype": "float16", "torch_dtype": "float16"}, "dtype 'float16'"),
        ({"model_type": "llama"}, "model_type"),
    ],
)
def test_suspicious_settings_are_warnings(make, change, said):
    config = {key: value for key, value in {**tiny.CONFIG, **change}.items() if value is not None}
    found = check_fit(make("base"), {"math": make("expert", tiny.weights(tiny.CONFIG), config)})
    assert found and any(said in line for line in found) and all("`math`" in line for line in found)


def test_the_two_spellings_of_rope_are_one(make):
    config = {key: value for key, value in tiny.CONFIG.items() if key != "rope_theta"}
    config["rope_parameters"] = {"rope_theta": 10000.0, "rope_type": "default"}
    assert check_fit(make("base"), {"one": make("expert", tiny.weights(tiny.CONFIG), config)}) == []


def test_misfits_list_tensors_and_both_shapes(make):
    wide = {**tiny.CONFIG, "hidden_size": 32}
    with pytest.raises(HarnessError) as caught:
        check_fit(make("base"), {"one": make("one"), "odd": make("odd", config=wide)})
    assert (
        "`odd`" in caught.value.message and "[3000, 32] where the base has [3000, 64]" in caught.value.message
    )
    assert caught.value.message.count("where the base has") == 5 and "more" in caught.value.message
    larger = {**tiny.CONFIG, "vocab_size": 3010}
    with pytest.raises(HarnessError) as caught:
        check_fit(make("base2"), {"odd": make("larger", config=larger)})
    assert "vocabular" in caught.value.hint
    deep = {**tiny.CONFIG, "num_hidden_layers": 3}
    with pytest.raises(HarnessError, match="is missing"):
        check_fit(make("deep", config=deep), {"shallow": make("shallow")})
    with pytest.raises(HarnessError, match="is not in the base"):
        check_fit(make("shallow2"), {"deep": make("deep2", config=deep)})


def test_whole_numbers_for_weights_do_not_fit(make):
    tensors = tiny.weights(tiny.CONFIG)
    tensors["model.norm.weight"] = torch.arange(64)
    with pytest.raises(HarnessError, match="I64"):
        check_fit(make("base"), {"one": make("one", tensors)})


def test_a_base_needs_a_config(tmp_path):
    base = Checkpoint.open(tiny.write(tmp_path / "base", tiny.weights(tiny.CONFIG), config=None))
    with pytest.raises(HarnessError, match=r"config\.json"):
        check_fit(base, {})


def test_heads_and_ties(make):
    tied, untied = tiny.weights(tiny.CONFIG), tiny.weights(UNTIED)
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    # a tied expert of an untied base: its embedding is its head
    base, expert = make("untied", untied, UNTIED), make("tied", tied)
    assert matched(base, expert, "x")[head].start == expert.tensors[embedding].start
    assert any("tie_word_embeddings" in line for line in check_fit(base, {"x": expert}))
    # an untied expert of a tied base: fits when its head is a copy of its embedding, else not
    copied = make("copied", {**tied, head: tied[embedding].clone()}, UNTIED)
    assert head not in matched(make("tied base"), copied, "x")
    with pytest.raises(HarnessError, match=r"lm_head\.weight.*not in the base"):
        matched(make("tied base 2"), make("own head", untied, UNTIED), "x")
    # a tied base that stores the copy: it is left out
    stored = make("stored", {**tied, head: tied[embedding].clone()})
    assert stored.tied and head not in matched(stored, make("plain"), "x")
