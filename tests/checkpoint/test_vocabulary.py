"""Rows of different vocabularies are matched by token: against a merge done token by token in
dictionaries."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from harness import registry
from harness.checkpoint import Checkpoint, check_fit, matched
from harness.checkpoint.align import align, align_scores
from harness.checkpoint.vocabulary import Vocabulary, arrange, read_tokens
from harness.errors import HarnessError
from harness.merge import Inputs, Job, merge
from harness.method import configure
from tests import helpers_checkpoints as tiny

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
CONFIG = {**tiny.CONFIG, "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
SCALE = 0.7


def write(path, tokens, rows, seed, tied=True, dtype=torch.bfloat16):
    """A model whose tokenizer numbers `tokens` in order; a token may be None, which leaves a hole. The last
    one is an added token."""
    config = {**CONFIG, "vocab_size": rows, "tie_word_embeddings": tied}
    tiny.write(path, tiny.weights(config, seed, dtype), config)
    ids = {token: i for i, token in enumerate(tokens) if token is not None}
    *plain, last = ids
    added = [{"id": ids[last], "content": last, "special": True}]
    model = {"type": "WordLevel", "vocab": {token: ids[token] for token in plain}, "unk_token": plain[0]}
    (path / "tokenizer.json").write_text(
        json.dumps({"version": "1.0", "added_tokens": added, "model": model})
    )
    return path


BASE = ["a", "b", "c", "d", "<end>"]
ONE = ["d", "c", "b", "x", None, "<end>"]  # lacks a, has x, other order, a hole
TWO = ["a", "b", "c", "d", "<end>", "x", "y"]  # the base's and two more: donor of a union


@pytest.fixture(params=[True, False], ids=["tied", "untied"])
def models(request, tmp_path):
    """Base with two rows of padding, and experts of other vocabularies, dtypes and ties."""
    return {
        "base": Checkpoint.open(write(tmp_path / "base", BASE, 7, 0, request.param)),
        "one": Checkpoint.open(write(tmp_path / "one", ONE, 6, 1, True, torch.float32)),
        "two": Checkpoint.open(write(tmp_path / "two", TWO, 9, 2, request.param)),
    }


PRINTS = {"base": "0", "one": "1", "two": "2"}


def rows_of(model):
    """token -> row, of the embedding and of what serves as head, float32."""
    held, ids = load_file(model.path / "model.safetensors"), read_tokens(model.path)
    head = held.get(HEAD, held[EMBEDDING])
    return {
        name: {token: tensor[i].float() for token, i in ids.items() if i < len(tensor)}
        for name, tensor in ((EMBEDDING, held[EMBEDDING]), (HEAD, head))
    }


def expected(models, rule, tokens, name):
    """base + SCALE * sum of task vectors, token by token; token -> row."""
    rows = {role: rows_of(model)[name] for role, model in models.items()}
    found = {}
    for token in tokens:
        holders = [rows[role][token] for role in ("one", "two") if token in rows[role]]
        start = rows["base"].get(token)
        if start is None:
            start = (sum(holders) / len(holders)).bfloat16().float()
        if rule == "intersect" and any(token not in held for held in rows.values()):
            holders = []
        found[token] = start + SCALE * sum(((row - start) for row in holders), torch.zeros(8))
    return found


@pytest.mark.parametrize("rule", ["base", "intersect", "union"])
def test_a_merge_goes_by_token(models, rule, tmp_path):
    donor = "two" if rule == "union" else "base"
    made = align(models, rule, donor, PRINTS, tmp_path / "converted")
    assert not any("vocab_size" in line for line in check_fit(made.base, made.experts))
    method = configure(registry.method("task_arithmetic"), {"scale": SCALE})
    job = Job(method, tmp_path / "out", dtype="float32")
    merge(Inputs(made.base, made.experts, models[donor].path), [job], threads=1)
    merged, ids = load_file(tmp_path / "out" / "model.safetensors"), read_tokens(tmp_path / "out")
    assert ids == read_tokens(models[donor].path)
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    names = [name for name in (EMBEDDING, HEAD) if name in merged]
    assert (HEAD in names) != models["base"].tied
    for name in names:
        assert len(merged[name]) == config["vocab_size"] == (9 if rule == "union" else 7)
        for token, row in expected(models, rule, ids, name).items():
            assert torch.allclose(merged[name][ids[token]], row, rtol=0, atol=1e-6), (name, token)
        padding = load_file(models["base"].path / "model.safetensors")[name][len(ids) : 7]
        assert torch.equal(merged[name][len(ids) : 7], padding.float())
    other = "model.layers.0.mlp.up_proj.weight"  # what is no vocabulary is merged as ever
    held = {role: load_file(m.path / "model.safetensors")[other].float() for role, m in models.items()}
    sums = held["base"] + SCALE * (held["one"] + held["two"] - 2 * held["base"])
    assert torch.allclose(merged[other], sums, rtol=0, atol=1e-6)


def test_a_token_that_an_expert_lacks_has_no_task_vector_and_is_counted(models, tmp_path):
    made = align(models, "base", "base", PRINTS, tmp_path)
    (name,) = {EMBEDDING} & matched(made.base, made.experts["one"], "one").keys()
    info = made.experts["one"].tensors[name]
    assert info.dtype == "F32" and info.shape == (7, 8)
    rows = load_file(info.file)[EMBEDDING]
    start = load_file(models["base"].path / "model.safetensors")[EMBEDDING].float()
    assert torch.equal(rows[[0, 5, 6]], start[[0, 5, 6]])  # `a`, and the padding
    assert any(
        "`one`" in note and "1 of the base's 5 tokens" in note and "`a`" in note for note in made.notes
    )
    assert any("`two`" in note and "left out: `x`, `y`" in note for note in made.notes)


def test_equal_vocabularies_are_not_touched(tmp_path):
    paths = {role: write(tmp_path / role, BASE, 7, seed) for seed, role in enumerate(("base", "one", "two"))}
    models = {role: Checkpoint.open(path) for role, path in paths.items()}
    for rule in ("error", "base", "intersect", "union"):
        made = align(models, rule, "one", PRINTS, tmp_path / "converted")
        assert made.base is models["base"] and made.experts == {r: models[r] for r in ("one", "two")}
        assert made.notes == () and not (tmp_path / "converted").exists()


def test_only_the_padding_differs(tmp_path):
    """Qwen pads its smaller and larger models to different numbers of rows."""
    models = {
        "base": Checkpoint.open(write(tmp_path / "base", BASE, 7, 0)),
        "one": Checkpoint.open(write(tmp_path / "one", BASE, 6, 1)),
    }
    with pytest.raises(HarnessError) as caught:
        check_fit(models["base"], {"one": models["one"]})
    assert "vocab: base" in caught.value.hint and "[6, 8] where the base has [7, 8]" in caught.value.message
    made = align(models, "base", "one", PRINTS, tmp_path / "converted")
    assert made.notes == () and made.experts["one"].tensors[EMBEDDING].shape == (7, 8)


def test_statistics_move_with_the_rows(models, tmp_path):
    made = align(models, "union", "two", PRINTS, tmp_path / "converted")
    for role in ("base", "one"):
        path = tmp_path / f"scores-{role}"
        path.mkdir()
        rows = len(load_file(models[role].path / "model.safetensors")[EMBEDDING])
        save_file({EMBEDDING: torch.arange(rows * 8.0).view(rows, 8) + 1}, path / "scores.safetensors")
        found = align_scores(made, role, Checkpoint.open(path), "k", tmp_path / "converted")
        moved, ids = load_file(found.tensors[EMBEDDING].file)[EMBEDDING], read_tokens(models[role].path)
        for token, i in read_tokens(models["two"].path).items():
            assert moved[i, 0] == (ids[token] * 8 + 1 if token in ids else 0)
    same = Checkpoint.open(path)
    assert align_scores(align(models, "error", "two", PRINTS, tmp_path), "one", same, "k", tmp_path) is same


REFUSED = {
    "the donor's ids are not the base's": ("base", "two", "set `tokenizer: base`"),
    "nobody has all tokens": ("union", "base", "lacks 2, such as `x`, `y`"),
    "the donor numbers the base's tokens otherwise": ("union", "one", "lacks"),
}


@pytest.mark.parametrize(("rule", "donor", "said"), REFUSED.values(), ids=REFUSED)
def test_a_tokenizer_that_would_number_the_rows_otherwise_is_refused(models, rule, donor, said, tmp_path):
    with pytest.raises(HarnessError) as caught:
        align(models, rule, donor, PRINTS, tmp_path / "converted")
    assert said in str(caught.value) and not (tmp_path / "converted").exists()


def test_a_union_never_moves_the_base_s_ids():
    with pytest.raises(HarnessError, match="otherwise, such as `a`, `b`"):
        arrange(
            "union",
            Vocabulary({"a": 0, "b": 1}, 2),
            {"x": Vocabulary({"b": 0, "a": 1, "c": 2}, 3)},
            "x",
            {"b": 0, "a": 1, "c": 2},
        )


def test_a_vocabulary_must_be_readable(models, tmp_path):
    tokenizer = models["one"].path / "tokenizer.json"
    for text in ("{", "[]", '{"model": {}}', '{"model": {"vocab": 3}}', '{"model": {"vocab": [[]]}}'):
        tokenizer.write_text(text)
        with pytest.raises(HarnessError, match=r"tokenizer\.json is damaged"):
            align(models, "base", "base", PRINTS, tmp_path)
    tokenizer.unlink()
    with pytest.raises(HarnessError, match=r"`one` \(one\) has no tokenizer\.json"):
        align(models, "base", "base", PRINTS, tmp_path)
    assert align(models, "error", "base", PRINTS, tmp_path).experts["one"] is models["one"]


def test_unigram_vocabularies_are_lists(tmp_path):
    (tmp_path / "tokenizer.json").write_text(
        json.dumps({"model": {"type": "Unigram", "vocab": [["<unk>", 0], ["a", -1.5]]}, "added_tokens": None})
    )
    assert read_tokens(tmp_path) == {"<unk>": 0, "a": 1}


def test_the_tiny_family_s_own_tokenizer_is_read_as_the_library_reads_it():
    from pathlib import Path

    from tokenizers import Tokenizer

    from harness.families import tiny as family

    folder = Path(family.__file__).parent / "base"
    wanted = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab(with_added_tokens=True)
    assert read_tokens(folder) == wanted


def test_what_was_written_is_kept_and_written_again_when_deleted(models, tmp_path):
    first = align(models, "base", "base", PRINTS, tmp_path / "converted")
    file = first.experts["one"].tensors[EMBEDDING].file
    stamp = file.stat().st_mtime_ns
    again = align(models, "base", "base", PRINTS, tmp_path / "converted")
    assert again.experts["one"] == first.experts["one"] and file.stat().st_mtime_ns == stamp
    other = align(models, "base", "base", {**PRINTS, "one": "9"}, tmp_path / "converted")
    assert other.experts["one"].tensors[EMBEDDING].file != file
    shutil.rmtree(file.parent)
    align(models, "base", "base", PRINTS, tmp_path / "converted")
    assert file.is_file()


tokens = st.lists(st.sampled_from("abcdefgh"), min_size=1, unique=True)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tokens, tokens, tokens, st.integers(0, 3), st.integers(0, 9))
def test_every_row_is_that_of_its_token(base, one, two, padding, rows):
    """Rows may be fewer than tokens, too: a token without a row counts as one that the model lacks."""
    numbered = {
        name: {t: i for i, t in enumerate(ts)} for name, ts in (("base", base), ("one", one), ("two", two))
    }
    start = Vocabulary(numbered["base"], len(base) + padding)
    experts = {"one": Vocabulary(numbered["one"], rows), "two": Vocabulary(numbered["two"], len(two))}
    for rule in ("base", "intersect"):
        found = arrange(rule, start, experts, "base", numbered["base"])
        shared = {t for t in base if all(e.row(t) >= 0 for e in experts.values())}
        for role, sources in found.sources.items():
            for index, source in enumerate(sources):
                token = base[index] if index < len(base) else None
                merged = token is not None and (rule == "base" or token in shared)
                assert source == (experts[role].row(token) if merged else -1)
        for role in experts.keys() - found.sources.keys():
            assert dict(experts[role].ids) == numbered["base"] and experts[role].rows == start.rows
