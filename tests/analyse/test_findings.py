"""What an analysis says: supported, not supported, the opposite; and masks' figures from a given file."""

import pytest

from harness.analyse import forensics
from harness.analyse.gradients import Series, findings, ratio, table
from harness.analyse.gradients import _level as level


def norms(scale, samples=30, layers=4, noise=0.1):
    return [
        {"sample": s, "layer": n, "module": m, "nuclear": scale * (1 + noise * ((s * 7) % 5 - 2)) * (n + 1),
         "frobenius": scale}
        for s in range(samples)
        for n in range(layers)
        for m in ("q_proj", "o_proj")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("scale", "said"),
    [(0.5, "supported here"), (1.0, "not supported here"), (2.0, "the opposite holds here")],
)
def test_the_claim_is_supported_refuted_or_left_open(scale, said):
    spectra = {Series("reasoning", "reasoning"): norms(scale), Series("base", "reasoning"): norms(1.0)}
    level_, steadiness = findings(spectra)
    assert said in str(level_) and level_.effect == pytest.approx(scale)
    assert level_.supported == steadiness.supported == (scale < 1)


def test_other_sets_are_compared_with_the_base_and_with_the_familys_own():
    short = {
        Series("reasoning", "reasoning", "short"): norms(2.0),
        Series("base", "reasoning", "short"): norms(0.1),
    }
    spectra = {Series("reasoning", "reasoning"): norms(0.5), Series("base", "reasoning"): norms(1.0), **short}
    told = {finding.sentence: finding for finding in findings(spectra)}
    base = told["`reasoning` has lower gradients on the set `short` than the base"]
    assert base.verdict == "the opposite holds here" and base.effect == pytest.approx(20)
    own = [f for s, f in told.items() if s.startswith("the set `short` gives")]
    assert [f.effect for f in own] == [pytest.approx(4.0), pytest.approx(0.1)]
    assert own[1].supported and not own[0].supported and "×0.1 [" in own[1].evidence


def test_noise_alone_supports_nothing():
    one, other = norms(1.0), norms(1.0, noise=-0.1)
    effect, (low, high), n = ratio(one, other, level, paired=False)
    assert low < 1 < high and n == 30 and effect == pytest.approx(1.0)


def test_the_table_has_mean_and_mean_absolute_difference():
    (q, _) = table({"base on reasoning": norms(1.0, noise=0.0)})
    assert (q["nuclear"], q["nuclear_mad"], q["layers"], q["samples"]) == (2.5, 1.0, 4, 30)


REASONING = {"selected": 8, "selected_share": 0.08, "removed": 2, "removed_share": 0.2, "energy": 0.5,
             "embeddings_share": 0.25}  # fmt: skip
TASK = {"selected": 4, "selected_share": 0.04, "removed": 2, "removed_share": 1 / 3, "energy": 0.1,
        "embeddings_share": 0.0}  # fmt: skip


def part(elements, **selected):
    return {"elements": elements, "roles": {role: {"selected": n} for role, n in selected.items()}}


TOLD = {
    "masks": True,
    "drops_both": True,
    "total": {"elements": 100, "roles": {"reasoning": REASONING, "task": TASK}},
    "modules": {"embed_tokens": part(40, reasoning=2, task=0), "q_proj": part(60, reasoning=6, task=4)},
    "tensors": {
        "model.embed_tokens.weight": part(40, reasoning=2),
        "model.layers.1.self_attn.q_proj.weight": part(30, reasoning=5),
        "model.layers.1.self_attn.q_proj.bias": part(30, reasoning=1),
    },
}


def test_overlap_is_a_jaccard_index_where_it_is_known():
    assert forensics.jaccard(TOLD["total"]["roles"]) == pytest.approx(2 / 14)
    uneven = {**TOLD["total"]["roles"], "task": {**TOLD["total"]["roles"]["task"], "removed": 3}}
    assert forensics.jaccard(uneven) is None  # a sign election, not an exclusion
    assert [row["jaccard"] for row in forensics.totals("r", TOLD)] == [pytest.approx(2 / 14)] * 2
    kept = {**TOLD, "drops_both": False}  # what is left to both was not taken from them, and is unknown
    assert [row["jaccard"] for row in forensics.totals("r", kept)] == [None, None]


def test_composition_by_module_and_layer_adds_up():
    modules = forensics.composition("r", TOLD, "module")
    mine = [row for row in modules if row["role"] == "reasoning"]
    assert sum(row["of_selected"] for row in mine) == 1 and sum(row["of_elements"] for row in mine) == 1
    layers = {row["layer"]: row for row in forensics.composition("r", TOLD, "layer")}
    assert layers[1]["of_selected"] == 0.75 and layers[1]["selected"] == 0.1 and set(layers) == {"outside", 1}
