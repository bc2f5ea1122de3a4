"""Which checkpoints may share a running vLLM, and which are refused. Needs no vLLM."""

import json

import pytest

from harness.checkpoint.read import Checkpoint
from harness.evaluate.engines import LoadError
from tests.evaluate.conftest import make_model
from tests.evaluate.helpers_vllm import copy_of


@pytest.fixture(scope="module")
def swap():
    from harness.evaluate.engines import vllm_swap

    return vllm_swap


def unlike(swap, one, other, dtype="float32"):
    mine, theirs = (swap.identity(swap.opened(str(folder)), dtype) for folder in (one, other))
    assert swap.difference(mine, mine) is None
    return swap.difference(mine, theirs)


def changed(model, to, file, **values):
    copy_of(model, to)
    path = to / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    return to


def rewritten(model, to, change):
    from safetensors.torch import load_file, save_file

    copy_of(model, to)
    tensors = change(load_file(to / "model.safetensors"))
    save_file(
        {name: t.contiguous() for name, t in tensors.items()}, to / "model.safetensors", {"format": "pt"}
    )
    return to


def test_other_weights_and_another_template_share_an_engine(swap, model, other_model, tmp_path):
    assert unlike(swap, model, other_model) is None
    assert (
        unlike(swap, model, changed(model, tmp_path / "t", "tokenizer_config.json", chat_template="x"))
        is None
    )
    (tmp_path / "t" / "chat_template.jinja").write_text("{{ messages }}")
    assert unlike(swap, model, tmp_path / "t") is None
    noted = copy_of(model, tmp_path / "noted", transformers_version="4.1", use_cache=False, _name_or_path="x")
    assert unlike(swap, model, noted) is None


@pytest.mark.parametrize(
    ("file", "values", "what"),
    [
        (
            "config.json",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}},
            "config `rope_parameters`",
        ),
        ("config.json", {"max_position_embeddings": 256}, "config `max_position_embeddings`"),
        ("config.json", {"rms_norm_eps": 1e-5}, "config `rms_norm_eps`"),
        ("config.json", {"new_key": None}, None),  # absent and null mean the same
        ("generation_config.json", {"eos_token_id": [2, 0]}, "end token"),
        ("generation_config.json", {"temperature": 0.1}, None),  # requests say it all
        ("tokenizer.json", {"truncation": {"max_length": 3}}, "file `tokenizer.json`"),
        ("tokenizer_config.json", {"add_bos_token": True}, "file `tokenizer_config.json`"),
    ],
)
def test_what_sets_models_apart_is_named(swap, model, tmp_path, file, values, what):
    assert unlike(swap, model, changed(model, tmp_path / "other", file, **values)) == what


def test_names_shapes_and_dtypes_of_tensors_count(swap, model, tmp_path):
    def without_bias(tensors):
        return {k: v for k, v in tensors.items() if "k_proj.bias" not in k}

    lacking = rewritten(model, tmp_path / "lacking", without_bias)
    assert unlike(swap, model, lacking) == "tensor `model.layers.0.self_attn.k_proj.bias`"
    wide = rewritten(model, tmp_path / "wide", lambda tensors: {k: v.float() for k, v in tensors.items()})
    assert unlike(swap, model, wide).startswith("tensor `model.")
    short = rewritten(model, tmp_path / "short", lambda tensors: {k: v[:-1] for k, v in tensors.items()})
    assert unlike(swap, model, short).startswith("tensor `model.")


def test_the_configs_dtype_counts_where_the_engine_takes_it_from_there(swap, model, tmp_path):
    other = copy_of(model, tmp_path / "other", dtype="float16")
    assert unlike(swap, model, other) is None
    assert unlike(swap, model, other, dtype="auto") == "dtype"


@pytest.mark.parametrize("tied", [True, False])
def test_a_whole_checkpoint_is_complete_and_each_missing_tensor_is_seen(swap, tmp_path, tied):
    whole = make_model(tmp_path / "whole", tie_word_embeddings=tied)
    swap.check_complete(Checkpoint.open(whole))
    names = list(Checkpoint.open(whole).tensors)
    assert ("lm_head.weight" in names) != tied
    for number, name in enumerate(names):
        left = rewritten(
            whole,
            tmp_path / str(number),
            lambda tensors, name=name: {k: v for k, v in tensors.items() if k != name},
        )
        with pytest.raises(LoadError) as told:
            swap.check_complete(Checkpoint.open(left))
        assert told.value.args[0] == f"1 missing tensors ({name})"


def test_a_tensor_of_another_shape_is_told_with_both(swap, model, tmp_path):
    name = "model.layers.0.mlp.up_proj.weight"
    cut = rewritten(model, tmp_path / "cut", lambda tensors: {**tensors, name: tensors[name][:-2]})
    with pytest.raises(LoadError) as told:
        swap.check_complete(Checkpoint.open(cut))
    assert told.value.args[0] == f"1 tensors of another shape (`{name}`: [62, 32], not [64, 32])"


def test_what_is_no_checkpoint_is_told(swap, model, tmp_path):
    with pytest.raises(LoadError, match="no config.json"):
        swap.opened(str(tmp_path))
    cut = copy_of(model, tmp_path / "cut")
    (cut / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-5])
    with pytest.raises(LoadError, match="truncated"):
        swap.opened(str(cut))
    broken = copy_of(model, tmp_path / "broken")
    (broken / "generation_config.json").write_text("{")
    with pytest.raises(LoadError, match="generation_config.json cannot be read"):
        swap.identity(swap.opened(str(broken)), "float32")
    strange = copy_of(model, tmp_path / "strange", model_type="no_such_model")
    with pytest.raises(LoadError, match="its config.json"):
        swap.check_complete(Checkpoint.open(strange))
