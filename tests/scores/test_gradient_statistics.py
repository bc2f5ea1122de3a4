"""The hooked, folded statistics against a plain loop that keeps every sample's gradients."""

import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from harness import HarnessError
from harness.checkpoint import Checkpoint
from harness.scores import compute
from tests.scores.conftest import ROWS

KINDS = ("gradient", "snip", "fisher", "snip_squared")
FORMULA = {
    "gradient": lambda g, w: g.abs(),
    "snip": lambda g, w: (g * w).abs(),
    "fisher": lambda g, w: g**2,
    "snip_squared": lambda g, w: (g * w) ** 2,
}


def read(folder):
    return load_file(folder / "model.safetensors")


def plain_loop(folder, rows, loss_on, max_tokens=512):
    """name -> [samples, ...] gradients by transformers' own loss, and name -> weight."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    gradients = {name: [] for name, _ in model.named_parameters()}
    for row in rows:
        text = row["text"] if "text" in row else row["prompt"] + row["completion"]
        tokens = tokenizer(text, return_tensors="pt")["input_ids"][:, :max_tokens]
        labels = tokens.clone()
        if loss_on == "completion":
            labels[:, : len(tokenizer(row["prompt"])["input_ids"])] = -100
        model.zero_grad()
        model(input_ids=tokens, labels=labels).loss.backward()
        for name, parameter in model.named_parameters():
            gradients[name].append(parameter.grad.clone())
    return {n: torch.stack(g) for n, g in gradients.items()}, {
        n: p.detach() for n, p in model.named_parameters()
    }


@pytest.mark.parametrize("loss_on", ["all", "completion"])
@pytest.mark.parametrize(("kind", "tied"), [("qwen2", True), ("llama", False)])
def test_all_kinds_equal_the_plain_loop(checkpoint, tmp_path, kind, tied, loss_on):
    folder = checkpoint(kind, tied)
    facts = compute(folder, ROWS, kind=KINDS, to={k: tmp_path / k for k in KINDS}, loss_on=loss_on)
    gradients, weights = plain_loop(folder, ROWS, loss_on)
    assert facts["samples"] == len(ROWS) and set(facts["zero_share"]) == set(KINDS)
    for statistic in KINDS:
        found = read(tmp_path / statistic)
        assert set(found) == set(weights) and ("lm_head.weight" in found) is not tied
        for name, mean in found.items():
            expected = FORMULA[statistic](gradients[name], weights[name]).mean(0)
            assert mean.dtype == torch.float32
            torch.testing.assert_close(mean, expected, rtol=2e-5, atol=1e-7 * float(expected.max()))


def test_the_mean_is_of_samples_not_of_a_batch(model_folder, tmp_path):
    """Averaging gradients before taking absolute values is a different, smaller number."""
    compute(model_folder, ROWS, to=tmp_path)
    gradients, _ = plain_loop(model_folder, ROWS, "all")
    found = read(tmp_path)
    batched = {name: g.mean(0).abs() for name, g in gradients.items()}
    assert all(bool((found[name] >= batched[name] - 1e-6).all()) for name in found)
    assert sum(found[n].sum() for n in found) > 1.05 * sum(batched[n].sum() for n in found)


def test_text_and_prompt_plus_completion_are_one(model_folder, tmp_path):
    compute(model_folder, ROWS, to=tmp_path / "pairs")
    compute(model_folder, [{"text": r["prompt"] + r["completion"]} for r in ROWS], to=tmp_path / "text")
    assert (tmp_path / "pairs/model.safetensors").read_bytes() == (
        tmp_path / "text/model.safetensors"
    ).read_bytes()


def test_one_kind_alone_equals_the_same_kind_among_others(model_folder, tmp_path):
    compute(model_folder, ROWS, kind=KINDS, to={k: tmp_path / k for k in KINDS})
    for kind in KINDS:
        compute(model_folder, ROWS, kind=kind, to=tmp_path / f"{kind}-alone")
        alone = (tmp_path / f"{kind}-alone/model.safetensors").read_bytes()
        assert alone == (tmp_path / kind / "model.safetensors").read_bytes()


def test_the_bytes_do_not_depend_on_threads(model_folder, tmp_path):
    for threads in (1, 2):
        compute(model_folder, ROWS, to=tmp_path / str(threads), threads=threads)
    assert (tmp_path / "1/model.safetensors").read_bytes() == (tmp_path / "2/model.safetensors").read_bytes()


def test_text_is_cut_at_max_tokens(model_folder, tmp_path):
    facts = compute(model_folder, ROWS, to=tmp_path, max_tokens=5)
    gradients, _ = plain_loop(model_folder, ROWS, "all", max_tokens=5)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    lengths = [len(tokenizer(row["prompt"] + row["completion"])["input_ids"]) for row in ROWS]
    assert facts["tokens"] == sum(min(5, n) for n in lengths) < sum(lengths)
    for name, mean in read(tmp_path).items():
        torch.testing.assert_close(mean, gradients[name].abs().mean(0), rtol=2e-5, atol=1e-7)


def test_unseen_tokens_have_exactly_zero_gradient_in_an_untied_embedding(checkpoint, tmp_path):
    folder = checkpoint("llama", False)
    facts = compute(folder, ROWS, to=tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    seen = {token for row in ROWS for token in tokenizer(row["prompt"] + row["completion"])["input_ids"]}
    table = read(tmp_path)["model.embed_tokens.weight"]
    unseen = [i for i in range(len(table)) if i not in seen]
    assert table[unseen].abs().max() == 0 and len(unseen) > 100
    elements = sum(t.numel() for t in read(tmp_path).values())
    assert facts["zero_share"]["gradient"] >= len(unseen) * table.shape[1] / elements


def test_it_opens_as_a_checkpoint_with_the_names_of_its_model(model_folder, tmp_path):
    compute(model_folder, ROWS, to=tmp_path)
    scores, model = Checkpoint.open(tmp_path), Checkpoint.open(model_folder)
    assert {n: i.shape for n, i in scores.tensors.items()} == {n: i.shape for n, i in model.tensors.items()}
    assert {info.dtype for info in scores.tensors.values()} == {"F32"}


def test_sums_in_bfloat16_lose_digits_and_float32_is_the_default(model_folder, tmp_path):
    compute(model_folder, ROWS, to=tmp_path / "full")
    compute(model_folder, ROWS, to=tmp_path / "half", accumulate="bfloat16")
    full, half = read(tmp_path / "full"), read(tmp_path / "half")
    name = "model.layers.0.mlp.up_proj.weight"
    assert half[name].dtype == torch.float32 and not torch.equal(half[name], full[name])
    torch.testing.assert_close(half[name], full[name], rtol=2e-2, atol=1e-6)


def test_gradients_are_freed_as_they_come(model_folder, tmp_path, monkeypatch):
    """No parameter still holds a gradient once its hook has run."""
    from harness.scores import gradients

    seen, load = [], gradients._load
    monkeypatch.setattr(gradients, "_load", lambda *args: seen.append(load(*args)) or seen[-1])
    left = []

    def count(done, n):
        left.append(sum(p.grad is not None for p in seen[0].parameters()))

    compute(model_folder, ROWS, to=tmp_path, progress=count)
    assert left == [0] * len(ROWS)


@pytest.mark.parametrize(("rows", "settings", "message"), [
    ([ROWS[0], {"text": "a"}], {}, "calibration row 1 has 1 tokens"),
    ([{"text": ""}], {}, "calibration row 0 has 0 tokens"),
    ([{"text": "no completion"}], {"loss_on": "completion"}, "calibration row 0 has none"),
    ([ROWS[3]], {"loss_on": "completion", "max_tokens": 4}, "row 0 has no token of its completion"),
    ([], {}, "there are no calibration rows"),
])  # fmt: skip
def test_rows_that_cannot_be_scored_are_named(model_folder, tmp_path, rows, settings, message):
    with pytest.raises(HarnessError) as caught:
        compute(model_folder, rows, to=tmp_path, **settings)
    assert message in caught.value.message and caught.value.hint
    assert not list(tmp_path.glob("*.safetensors"))


def broken(folder, tmp_path, change):
    """A copy of a checkpoint with `change(tensors)` made to its weights."""
    copy = tmp_path / "broken"
    copy.mkdir()
    for file in folder.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    tensors = load_file(copy / "model.safetensors")
    change(tensors)
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    return copy


def test_weights_that_are_missing_are_not_made_up(model_folder, tmp_path):
    copy = broken(model_folder, tmp_path, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    with pytest.raises(
        HarnessError, match="lacks weights of its architecture: model.layers.1.mlp.up_proj.weight"
    ):
        compute(copy, ROWS, to=tmp_path / "to")


def test_a_loss_that_is_not_finite_names_its_row(model_folder, tmp_path):
    copy = broken(model_folder, tmp_path, lambda t: t["model.norm.weight"].fill_(float("inf")))
    with pytest.raises(HarnessError, match="loss of calibration row 0 is nan"):
        compute(copy, ROWS, to=tmp_path / "to")


def test_importing_scores_does_not_import_torch():
    loaded = "*(m in sys.modules for m in ('torch', 'datasets'))"
    code = f"import sys, harness.scores, harness.selection; print({loaded})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]
