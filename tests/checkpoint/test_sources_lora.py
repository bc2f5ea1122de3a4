"""LoRA adapters: what PEFT's own `merge_and_unload` makes of them, within one ulp; and what is refused."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness.checkpoint import Checkpoint, lora, sources
from harness.errors import HarnessError
from tests import helpers_checkpoints as tiny

CONFIG = {
    **tiny.CONFIG,
    "vocab_size": 50,
    "hidden_size": 16,
    "intermediate_size": 24,
    "tie_word_embeddings": False,
}
TIED = {**CONFIG, "tie_word_embeddings": True}
MODULES = ["q_proj", "v_proj", "down_proj"]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return tiny.write(tmp_path_factory.mktemp("models") / "base", tiny.weights(CONFIG), CONFIG)


def trained(base, to, dtype=torch.bfloat16, **settings):
    """An adapter of `base` as PEFT saves it, with random weights; and the tensors PEFT merges it into."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    settings = {"r": 4, "lora_alpha": 6, "target_modules": MODULES, **settings}
    model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
    draw = torch.Generator().manual_seed(5)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = (torch.randn(parameter.shape, generator=draw) * 0.1).to(parameter.dtype)
    model.save_pretrained(to)
    merged = {name: tensor.clone() for name, tensor in model.merge_and_unload().state_dict().items()}
    return to, merged


def applied(adapter, base, store):
    on = sources.resolve(base, store / "converted", None)
    source = sources.resolve(adapter, store / "converted", None, on)
    said = sources.make(source)
    return {n: t for file in source.path.glob("*.safetensors") for n, t in load_file(file).items()}, said


def ulps(found, wanted, start):
    """Largest distance in bf16 ulps of max(|W|, |result|)."""
    size = torch.maximum(start.float().abs(), wanted.float().abs()).clamp(min=2.0**-100)
    ulp = torch.exp2(torch.floor(torch.log2(size)) - 7)
    return ((found.float() - wanted.float()).abs() / ulp).max().item()


SETTINGS = {
    "plain": {},
    "rank-stabilised": {"use_rslora": True},
    "patterns": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.down_proj": 3},
        "alpha_pattern": {".*v_proj": 20},
    },
    "anchored patterns": {"rank_pattern": {"^model.layers.0.self_attn.q_proj": 1}, "use_rslora": True},
    "whole modules": {"modules_to_save": ["lm_head", "embed_tokens"]},
    "embedding and head": {"target_modules": ["embed_tokens", "lm_head", "o_proj"]},
    "biases": {"bias": "lora_only"},
    "every linear layer": {"target_modules": "all-linear"},
    "some layers": {"layers_to_transform": [1]},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_as_peft_merges_it(base, tmp_path, settings):
    adapter, wanted = trained(base, tmp_path / "adapter", **settings)
    found, said = applied(adapter, base, tmp_path)
    start = load_file(base / "model.safetensors")
    assert found.keys() == start.keys() == wanted.keys()
    assert said == []
    changed = 0
    for name, tensor in found.items():
        assert tensor.dtype == torch.bfloat16 and tensor.shape == start[name].shape
        assert ulps(tensor, wanted[name], start[name]) <= 1, name
        changed += not torch.equal(tensor, start[name])
    assert 0 < changed and changed == sum(not torch.equal(wanted[n], start[n]) for n in start)


def test_in_float32_it_is_the_same_to_the_last_bits(tmp_path):
    start = {name: tensor.float() for name, tensor in tiny.weights(CONFIG).items()}
    base = tiny.write(tmp_path / "base", start, CONFIG)
    adapter, wanted = trained(base, tmp_path / "adapter", torch.float32)
    found, _ = applied(adapter, base, tmp_path)
    assert all(torch.allclose(found[n], wanted[n], rtol=0, atol=1e-6) for n in start)


def test_conv1d_layers_are_transposed(tmp_path):
    """GPT-2 stores its weights [in, out]."""
    from transformers import AutoModelForCausalLM, GPT2Config

    config = GPT2Config(vocab_size=30, n_positions=8, n_embd=8, n_layer=1, n_head=2)
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "base")
    adapter, wanted = trained(
        tmp_path / "base", tmp_path / "adapter", torch.float32, target_modules=["c_attn"], fan_in_fan_out=True
    )
    assert json.loads((adapter / "adapter_config.json").read_text())["fan_in_fan_out"] is True
    found, _ = applied(adapter, tmp_path / "base", tmp_path)
    stored = Checkpoint.open(tmp_path / "base").tensors
    assert stored and found.keys() == stored.keys()
    for name in stored:
        assert torch.allclose(found[name], wanted[name], rtol=0, atol=1e-6), name


def test_blocks_of_rows_do_not_matter_much(base, tmp_path, monkeypatch):
    from harness.checkpoint import adapters

    adapter, wanted = trained(base, tmp_path / "adapter")
    monkeypatch.setattr(adapters, "BLOCK", 40)
    found, _ = applied(adapter, base, tmp_path)
    start = load_file(base / "model.safetensors")
    assert all(ulps(found[n], wanted[n], start[n]) <= 1 for n in start)


def test_an_adapter_brings_its_tokenizer_and_the_base_the_rest(base, tmp_path):
    adapter, _ = trained(base, tmp_path / "adapter")
    (adapter / "chat_template.jinja").write_text("of the adapter")
    applied(adapter, base, tmp_path)
    (model,) = tmp_path.glob("converted/adapter--*/model")
    assert (model / "chat_template.jinja").read_text() == "of the adapter"
    assert Checkpoint.open(model).config == CONFIG
    assert (model / "tokenizer_config.json").read_text() == (base / "tokenizer_config.json").read_text()


def test_what_it_is_applied_to_is_part_of_what_it_is(base, tmp_path):
    adapter, _ = trained(base, tmp_path / "adapter")
    other = tiny.write(tmp_path / "other", tiny.weights(CONFIG, seed=9), CONFIG)
    found = sources.resolve_family(
        base, {"a": (adapter, None), "b": (adapter, other)}, tmp_path / "converted", None
    )
    assert len({source.mark for source in found.values()}) == 3 and found["b"].on.origin == other
    assert (
        found["a"].warnings == () and "names" in found["b"].warnings[0] and "`on:`" in found["b"].warnings[0]
    )
    for source in found.values():
        sources.make(source)
    assert not torch.equal(
        load_file(found["a"].path / "model.safetensors")["model.norm.weight"],
        load_file(found["b"].path / "model.safetensors")["model.norm.weight"],
    )
    with pytest.raises(HarnessError, match="no adapter"):
        sources.resolve_family(base, {"a": (other, base)}, tmp_path / "converted", None)


def test_a_tied_embedding_changes_the_head_and_that_is_said(tmp_path):
    base = tiny.write(tmp_path / "base", tiny.weights(TIED), TIED)
    adapter, _ = trained(base, tmp_path / "adapter", target_modules=["embed_tokens", "q_proj"])
    _, said = applied(adapter, base, tmp_path)
    assert len(said) == 1 and "head changes with it" in said[0]


def tensors(folder, change):
    held = load_file(folder / lora.WEIGHTS)
    change(held)
    save_file(held, folder / lora.WEIGHTS)


def config(folder, **changes):
    file = folder / "adapter_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


KEY = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
REFUSED = {
    "dora": (lambda f: config(f, use_dora=True), "use_dora"),
    "pissa": (lambda f: config(f, init_lora_weights="pissa"), "pissa"),
    "replicated layers": (lambda f: config(f, layer_replication=[[0, 1]]), "layer_replication"),
    "trained tokens": (lambda f: config(f, trainable_token_indices=[3]), "trainable_token_indices"),
    "bias of B": (lambda f: config(f, lora_bias=True), "lora_bias"),
    "a setting of tomorrow": (lambda f: config(f, use_quantum=True), "use_quantum"),
    "another kind": (lambda f: config(f, peft_type="IA3"), "IA3"),
    "no rank": (lambda f: config(f, r=None), "incomplete"),
    "rank 0": (lambda f: config(f, r=0), "rank below 1"),
    "another rank": (lambda f: config(f, r=8), "says rank 8"),
    "a broken pattern": (lambda f: config(f, rank_pattern={"(": 2}), "damaged"),
    "not json": (lambda f: (f / "adapter_config.json").write_text("{"), "not a JSON object"),
    "a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "not a JSON object"),
    "no weights": (lambda f: (f / lora.WEIGHTS).unlink(), "no adapter_model.safetensors"),
    "no tensors": (lambda f: tensors(f, lambda h: h.clear()), "no tensor"),
    "half a pair": (lambda f: tensors(f, lambda h: h.pop(KEY)), "half a pair"),
    "magnitudes": (
        lambda f: tensors(
            f, lambda h: h.update({KEY.replace("A.weight", "magnitude_vector"): torch.ones(16)})
        ),
        "magnitude_vector",
    ),
    "other shapes": (lambda f: tensors(f, lambda h: h.update({KEY: torch.ones(4, 17)})), r"\[16, 17\] where"),
    "another model": (
        lambda f: tensors(f, lambda h: h.update({KEY.replace("0.self", "9.self"): h.pop(KEY)})),
        "half a pair",
    ),
    "a module of its own": (
        lambda f: tensors(f, lambda h: h.update({"base_model.model.score.weight": torch.ones(2)})),
        "score.weight",
    ),
    "more tokens": (
        lambda f: tensors(
            f, lambda h: h.update({"base_model.model.model.embed_tokens.weight": torch.ones(51, 16)})
        ),
        r"\[51, 16\] where base has \[50, 16\]",
    ),
    "truncated": (
        lambda f: (f / lora.WEIGHTS).write_bytes((f / lora.WEIGHTS).read_bytes()[:-9]),
        "truncated or corrupt",
    ),
    "a whole model beside it": (lambda f: (f / "model.safetensors").write_bytes(b""), "both an adapter"),
}


@pytest.fixture(scope="module")
def adapter(base, tmp_path_factory):
    return trained(base, tmp_path_factory.mktemp("adapters") / "adapter")[0]


@pytest.mark.parametrize(("damage", "said"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_applied_exactly_is_named(base, adapter, tmp_path, damage, said):
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    damage(copy)
    with pytest.raises(HarnessError, match=said):
        applied(copy, base, tmp_path)
    assert not list(tmp_path.glob("converted/*/model")) and not list(tmp_path.glob("converted/*/done.json"))


def test_a_head_of_a_tied_base_is_refused(adapter, tmp_path):
    base = tiny.write(tmp_path / "base", tiny.weights(TIED), TIED)
    copy = shutil.copytree(adapter, tmp_path / "adapter")
    tensors(copy, lambda held: held.update({"base_model.model.lm_head.weight": torch.ones(50, 16)}))
    with pytest.raises(HarnessError, match="head of base is its embedding"):
        applied(copy, base, tmp_path)
