"""Norms of gradients against numpy's SVD of the gradients that autograd gives."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import harness
from harness.analyse.spectra import mean_absolute_difference, singular_values, spectra
from harness.checkpoint.pretrained import load_model
from harness.errors import HarnessError
from harness.scores.samples import encode

TINY = Path(harness.__file__).parent / "families" / "tiny"
ROWS = [
    {"prompt": "3 + 4 = ", "completion": "7"},
    {"prompt": "Tom has 2 cats. ", "completion": "He buys 3 more. " * 12},
]


def plain(folder, rows, loss_on):
    """Weight gradients by autograd, one sample at a time."""
    model = load_model(folder, torch.float32).eval()
    found = []
    for index, sample in enumerate(encode(rows, folder, 512, loss_on)):
        model.zero_grad()
        logits = model(input_ids=torch.tensor([sample.tokens])).logits[0, :-1]
        labels = torch.tensor(sample.labels[1:])
        torch.nn.functional.cross_entropy(logits, labels, ignore_index=-100).backward()
        for layer, block in enumerate(model.model.layers):
            for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
                gradient = getattr(block.self_attn, name).weight.grad.double().numpy()
                sigma = np.linalg.svd(gradient, compute_uv=False)
                found.append((index, layer, name, sigma.sum(), np.linalg.norm(gradient)))
    return found


@pytest.mark.parametrize("loss_on", ["all", "completion"])
def test_norms_equal_numpys_svd_of_the_plain_gradients(loss_on):
    wanted = plain(TINY / "base", ROWS, loss_on)
    given = spectra(TINY / "base", ROWS, loss_on=loss_on)
    told = {(n["sample"], n["layer"], n["module"]): (n["nuclear"], n["frobenius"]) for n in given}
    assert len(told) == len(wanted)
    for index, layer, name, nuclear, frobenius in wanted:
        assert told[index, layer, name] == pytest.approx((nuclear, frobenius), rel=1e-4)


@pytest.mark.parametrize("tokens", [3, 8, 40])
def test_factors_have_the_singular_values_of_their_product(tokens):
    generator = torch.Generator().manual_seed(tokens)
    out, inner = torch.randn(tokens, 8, generator=generator), torch.randn(tokens, 13, generator=generator)
    given = singular_values(out, inner).numpy()
    wanted = np.linalg.svd((out.T.double() @ inner.double()).numpy(), compute_uv=False)
    assert np.allclose(np.sort(given)[::-1][: len(wanted)], wanted[: len(given)], atol=1e-10)
    assert given.sum() == pytest.approx(wanted.sum())


def test_frobenius_and_nuclear_bound_each_other():
    for norm in spectra(TINY / "reasoning", ROWS):
        assert norm["frobenius"] <= norm["nuclear"] * (1 + 1e-9)


def test_mean_absolute_difference_is_that_of_the_paper():
    assert mean_absolute_difference([1.0, 3.0, 0.0]) == 2.5 and math.isnan(mean_absolute_difference([1.0]))


def test_a_model_without_separate_projections_is_refused(tmp_path):
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    AutoTokenizer.from_pretrained(TINY / "base").save_pretrained(tmp_path)
    GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=2000)).save_pretrained(tmp_path)
    with pytest.raises(HarnessError, match="no linear layers called q_proj"):
        spectra(tmp_path, ROWS)
