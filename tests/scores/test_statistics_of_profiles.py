"""ReasonAny's released scoring, RCP-Merging's votes, several processes, and gradient checkpointing."""

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import HarnessError
from harness.scores import Against, compute
from tests.scores.conftest import ROWS
from tests.scores.test_gradient_statistics import KINDS, broken, plain_loop, read

LENGTH = 24  # of the padded rows


@pytest.mark.parametrize(("kind", "model"), [("gradient", "qwen2"), ("snip", "qwen2"), ("gradient", "llama")])
def test_official_scores_equal_a_plain_loop_in_bfloat16(checkpoint, tmp_path, kind, model):
    """The expert with the base's tokenizer, rows padded to a length, transformers' own loss on every label,
    absolute values added up in bfloat16: equal bit for bit, as the order of samples is the same."""
    base, expert = checkpoint(model, True, seed=0), checkpoint(model, True, seed=1)
    (expert / "tokenizer.json").unlink()  # nobody reads the expert's own
    facts = compute(expert, ROWS, kind=kind, to=tmp_path / "ours", tokenizer_path=base, max_tokens=LENGTH,
                    pad=True, dtype="bfloat16", accumulate="bfloat16")  # fmt: skip
    network = AutoModelForCausalLM.from_pretrained(expert, dtype=torch.bfloat16)
    tokenizer = AutoTokenizer.from_pretrained(base)
    if model == "llama":  # its tokenizer has no padding token
        tokenizer.pad_token = tokenizer.eos_token
    sums = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for row in ROWS:
        text = row["prompt"] + row["completion"]
        coded = tokenizer(text, return_tensors="pt", padding="max_length", max_length=LENGTH, truncation=True)
        network.zero_grad()
        network(**coded, labels=coded["input_ids"]).loss.backward()
        for name, p in network.named_parameters():
            sums[name] += (p.grad if kind == "gradient" else p.grad * p).abs()
    assert facts["tokens"] == LENGTH * len(ROWS)
    found = read(tmp_path / "ours")
    assert set(found) == set(sums)
    for name, total in sums.items():
        assert total.dtype == torch.bfloat16 and torch.equal(found[name], total.float() / len(ROWS)), name


def test_padding_changes_the_scores_and_the_paper_does_not_pad(model_folder, tmp_path):
    compute(model_folder, ROWS, to=tmp_path / "padded", max_tokens=64, pad=True)
    compute(model_folder, ROWS, to=tmp_path / "plain", max_tokens=64)
    name = "model.layers.0.mlp.up_proj.weight"
    padded, plain = read(tmp_path / "padded")[name], read(tmp_path / "plain")[name]
    assert (padded - plain).abs().mean() > 0.1 * plain.abs().mean()


def test_a_token_that_the_model_lacks_is_said(model_folder, tmp_path):
    copy = broken(model_folder, tmp_path, lambda t: None)
    config = (copy / "config.json").read_text().replace('"vocab_size": 320', '"vocab_size": 40')
    (copy / "config.json").write_text(config)
    tensors = load_file(copy / "model.safetensors")
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:40].clone()
    from safetensors.torch import save_file

    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(HarnessError, match="holds the token .* has 40"):
        compute(copy, ROWS, to=tmp_path / "to", tokenizer_path=model_folder)


def fisher_of(folder, to):
    compute(folder, ROWS[:2], kind="snip_squared", to=to)
    return to


@pytest.mark.parametrize("penalty", [0.0, 10.0, 1e7])
def test_votes_equal_a_plain_loop_over_samples(checkpoint, tmp_path, penalty):
    reasoning, task = checkpoint("qwen2", True, seed=0), checkpoint("qwen2", True, seed=1)
    against = Against(reasoning, fisher_of(reasoning, tmp_path / "fisher"), penalty)
    compute(task, ROWS, kind="votes", to=tmp_path / "votes", against=against)
    gradients, weights = plain_loop(task, ROWS, "all")
    start = {n: p.detach() for n, p in AutoModelForCausalLM.from_pretrained(reasoning).named_parameters()}
    fisher, votes, off, total = read(tmp_path / "fisher"), read(tmp_path / "votes"), 0, 0
    for name, g in gradients.items():
        w = weights[name].double()
        s = g.double() * w + penalty * fisher[name].double() * (start[name].double() - w) ** 2
        expected = (s <= 0).double().mean(0)
        near = (s.abs() <= 1e-5 * (g * w).abs().amax()).any(0)  # where float32 may see another sign
        wrong = votes[name].double() != expected
        assert not (wrong & ~near).any()
        off, total = off + int(wrong.sum()), total + wrong.numel()
    assert off <= 1e-3 * total
    shares = torch.cat([v.flatten() for v in votes.values()])
    assert set((shares * len(ROWS)).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_a_larger_penalty_takes_votes_away(checkpoint, tmp_path):
    reasoning, task = checkpoint("qwen2", True, seed=0), checkpoint("qwen2", True, seed=1)
    fisher = fisher_of(reasoning, tmp_path / "fisher")
    for penalty in (0.0, 1e4):
        compute(
            task, ROWS, kind="votes", to=tmp_path / f"{penalty}", against=Against(reasoning, fisher, penalty)
        )
    few, many = read(tmp_path / "10000.0"), read(tmp_path / "0.0")
    assert all(bool((few[n] <= many[n]).all()) for n in many)
    assert sum(int((few[n] < many[n]).sum()) for n in many) > 1000


def test_votes_ask_for_one_architecture(checkpoint, tmp_path):
    reasoning, task = checkpoint("llama", False), checkpoint("qwen2", True)
    fisher = fisher_of(reasoning, tmp_path / "fisher")
    with pytest.raises(HarnessError, match="has no tensor `model.layers.0.self_attn.q_proj.bias`"):
        compute(task, ROWS, kind="votes", to=tmp_path / "votes", against=Against(reasoning, fisher, 1.0))


@pytest.mark.slow
def test_two_processes_give_the_sums_of_one(checkpoint, tmp_path):
    reasoning, task = checkpoint("qwen2", True, seed=0), checkpoint("qwen2", True, seed=1)
    against, kinds = Against(reasoning, fisher_of(reasoning, tmp_path / "fisher"), 10.0), (*KINDS, "votes")
    facts = {}
    for n in (1, 2):
        to = {k: tmp_path / str(n) / k for k in kinds}
        facts[n] = compute(task, ROWS[:3], kind=kinds, to=to, against=against, devices=["cpu"] * n)
    assert facts[1]["samples"] == facts[2]["samples"] == 3 and facts[2]["devices"] == ["cpu", "cpu"]
    assert facts[1]["loss"] == pytest.approx(facts[2]["loss"], rel=1e-6)
    for kind in kinds:
        one, two = read(tmp_path / "1" / kind), read(tmp_path / "2" / kind)
        for name in one:
            if kind == "votes":
                assert torch.equal(one[name], two[name])
            else:
                torch.testing.assert_close(two[name], one[name], rtol=1e-6, atol=1e-12)
    assert not list((tmp_path / "2").glob(".parts-*"))


@pytest.mark.slow
def test_what_goes_wrong_in_another_process_is_said_here(model_folder, tmp_path, monkeypatch):
    """The parent's own model is intact: the second process finds a broken one at the same place."""
    copy = broken(model_folder, tmp_path, lambda t: t["model.norm.weight"].fill_(float("inf")))
    from harness.scores import gradients

    load = gradients._load
    monkeypatch.setattr(gradients, "_load", lambda path, dtype: load(model_folder, dtype))
    with pytest.raises(HarnessError, match="loss of calibration row 1 is nan"):
        compute(copy, ROWS[:2], to=tmp_path / "to" / "it", devices=["cpu", "cpu"])
    assert not list((tmp_path / "to").rglob("*.safetensors")) and not list((tmp_path / "to").glob(".parts-*"))


def test_checkpointing_recomputes_layers_and_changes_no_bit(model_folder, tmp_path, monkeypatch):
    from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

    forward, calls = Qwen2MLP.forward, []
    monkeypatch.setattr(Qwen2MLP, "forward", lambda self, x: calls.append(1) or forward(self, x))
    counts = {}
    for on in (False, True):
        calls.clear()
        compute(
            model_folder, ROWS, kind=KINDS, to={k: tmp_path / str(on) / k for k in KINDS}, checkpointing=on
        )
        counts[on] = len(calls)
    assert counts == {False: 2 * len(ROWS), True: 4 * len(ROWS)}  # two layers, each twice
    for kind in KINDS:
        one, other = (tmp_path / str(on) / kind / "model.safetensors" for on in (False, True))
        assert one.read_bytes() == other.read_bytes()


def test_counters_of_votes_do_not_overflow(model_folder, tmp_path):
    rows = [ROWS[0]] * 32_768
    with pytest.raises(HarnessError, match="32768 calibration rows vote"):
        compute(model_folder, rows, kind="votes", to=tmp_path, against=Against(model_folder, tmp_path, 1.0))
