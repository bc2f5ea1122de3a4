"""The hf engine's own loop against transformers' and lm-eval's: the same tokens, for less work."""

import sys

import pytest
import torch

from harness.evaluate.engines import LoadError

PROMPTS = [
    "a red lamp",
    "start 7 add 3",
    "what is the colour of the old lamp in the house ?",
    "x",
    "tell me how",
]
BATCH = 8
ENDS = ["e", "zz"]  # the model is random, and says its end token hardly ever


def lm_of(path, batch=BATCH):
    from transformers import AutoModelForCausalLM

    from harness.evaluate.engines.hf_requests import StreamingHFLM

    torch.set_num_threads(1)
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32).eval()
    return StreamingHFLM(model, batch_size=batch)


@pytest.fixture(scope="module")
def lm(model):
    return lm_of(model)


def asking(contexts, seed=0, **settings):
    kwargs = {"until": [], "do_sample": False, "max_gen_toks": 40, **settings}
    return [{"context": text, "kwargs": kwargs, "seed": [seed, 0]} for text in contexts]


def answers(lm, requests, kind="generate"):
    found = {}

    def emit(part):
        for index, answer in part:
            assert index not in found, "answered twice"
            found[index] = answer

    getattr(lm, kind)(list(enumerate(requests)), emit)
    return [found[i] for i in range(len(requests))]


def reference(lm, requests):
    """What lm-eval's own class says."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    theirs = HFLM(lm.model, batch_size=lm.batch_size)
    calls = [Instance("generate_until", {}, (r["context"], dict(r["kwargs"])), 0) for r in requests]
    return theirs.generate_until(calls, disable_tqdm=True)


class Work:
    """Counts the sequences that pass the model."""

    def __init__(self, lm, monkeypatch, fails=lambda size: False):
        self.lines, forward = 0, lm.model.forward

        def counted(input_ids=None, **given):
            self.lines += input_ids.shape[0]
            if fails(input_ids.shape[0]):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(input_ids=input_ids, **given)

        monkeypatch.setattr(lm.model, "forward", counted)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"until": ["e"]},
        {"until": [" the", "lamp\n", "<|im_end|>"]},
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 2},
        {"min_new_tokens": 5},
        {"num_beams": 3},
        {"max_gen_toks": 1},
    ],
    ids=str,
)
def test_texts_are_those_of_lm_evals_class(lm, settings):
    requests = asking([*PROMPTS, *(f"{p} {p}" for p in PROMPTS)], **settings)
    texts = [answer["text"] for answer in answers(lm, requests)]
    assert texts == reference(lm, requests)
    assert len(set(texts)) > 3, "the model says different things, so equality means something"


def test_sequences_that_have_ended_are_computed_no_further(lm, monkeypatch):
    requests = asking([f"{p} {i}" for p in PROMPTS for i in range(BATCH)], max_gen_toks=60, until=ENDS)
    work = Work(lm, monkeypatch)
    found = answers(lm, requests)
    lengths = [answer["tokens"] for answer in found]
    assert min(lengths) < 10 and max(lengths) > 40, "they end at very different times"
    wasted = work.lines / sum(lengths) - 1
    assert wasted < 0.15, f"{wasted:.0%} of the sequences computed were of no use"
    assert [answer["finish"] for answer in found] == ["length" if n == 60 else "stop" for n in lengths]


def test_answers_come_as_sequences_end_not_as_batches_do(lm, monkeypatch):
    from harness.evaluate.engines import chunks

    monkeypatch.setattr(chunks, "COUNT", 1)
    requests = asking([f"{p} {i}" for i in range(2) for p in PROMPTS[:4]], max_gen_toks=60, until=ENDS)
    work, seen = Work(lm, monkeypatch), []
    lm.generate(list(enumerate(requests)), lambda part: seen.append((work.lines, [i for i, _ in part])))
    assert sorted(i for _, part in seen for i in part) == list(range(8))
    assert len({lines for lines, _ in seen}) > 3, "at different steps of the one batch"


def test_what_is_drawn_depends_on_seed_and_request_alone(lm):
    settings = {"do_sample": True, "temperature": 1.0, "top_p": 0.9, "max_gen_toks": 20}
    requests = asking(PROMPTS * 2, **settings)
    for place, request in enumerate(requests):
        request["seed"] = [0, place // len(PROMPTS)]  # the second half are repeats
    together = [answer["text"] for answer in answers(lm, requests)]
    alone = [answers(lm, [request])[0]["text"] for request in requests]
    assert together == alone
    assert answers(lm, requests[3:7]) == answers(lm, requests)[3:7]
    assert all(a != b for a, b in zip(together[:5], together[5:], strict=True))
    assert together != [answer["text"] for answer in answers(lm, asking(PROMPTS * 2, 1, **settings))]


def test_drawn_tokens_follow_the_distribution():
    from harness.evaluate.engines.hf_decoding import _draw, seeded

    wanted = torch.tensor([0.5, 0.0, 0.3, 0.2, 0.0])
    scores = wanted.log().expand(20_000, 5)
    uniform = torch.rand(20_000, generator=seeded("any"), dtype=torch.float64)
    counts = torch.bincount(_draw(scores, uniform), minlength=5) / 20_000
    assert counts[1] == counts[4] == 0, "what has no chance is never drawn"
    assert (counts - wanted).abs().max() < 4 * 0.5 / 20_000**0.5
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert _draw(scores[:2], edges).tolist() == [0, 3]


@pytest.mark.parametrize("kind", ["generate", "score", "score_rolling"])
def test_a_batch_that_does_not_fit_is_made_smaller(model, monkeypatch, kind):
    lm = lm_of(model)
    texts = [f"{i} {p}" for p in PROMPTS for i in range(4)]
    requests = {
        "generate": asking(texts, max_gen_toks=12),
        "score": [{"context": text, "continuation": " lamp old"} for text in texts],
        "score_rolling": [{"text": text} for text in texts],
    }[kind]
    whole = answers(lm, requests, kind)
    limited = lm_of(model)
    sizes = []
    Work(limited, monkeypatch, lambda size: sizes.append(size) or size > 3)
    found = answers(limited, requests, kind)
    assert limited.batch_size == 2 and sizes.count(8) == 1 and max(sizes[2:]) <= 4
    if kind == "generate":
        assert found == whole
    else:
        for one, other in zip(found, whole, strict=True):
            assert one["logprob"] == pytest.approx(other["logprob"], rel=1e-5)


def test_memory_that_ends_in_the_middle_asks_for_what_is_left_alone(model, monkeypatch):
    from harness.evaluate.engines import chunks

    monkeypatch.setattr(chunks, "COUNT", 1)
    lm = lm_of(model)
    requests = asking([f"{p} {i}" for p in PROMPTS[:2] for i in range(4)], max_gen_toks=60, until=ENDS)
    whole = answers(lm, requests)
    calls = []
    limited = lm_of(model)
    Work(limited, monkeypatch, lambda size: calls.append(size) or len(calls) == 8)
    assert answers(limited, requests) == whole, "and `answers` checks that nothing is answered twice"
    assert limited.batch_size == 4
    assert calls[8] < 8, "those that had ended are not asked again"


def test_one_sequence_that_does_not_fit_is_an_error(model, monkeypatch):
    lm = lm_of(model)
    Work(lm, monkeypatch, lambda size: True)
    with pytest.raises(torch.OutOfMemoryError):
        answers(lm, asking(PROMPTS))


def test_log_likelihoods_are_lm_evals_to_the_digit(lm, monkeypatch):
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    pairs = [
        *(
            (f"the colour of the {thing} is", f" {colour}")
            for thing in ("lamp", "old house")
            for colour in "red"
        ),
        *((p, c) for p in PROMPTS for c in (" yes", " no , it is not", " a b c d e f")),
        ("", "start of text"),
        ("trailing space ", "word"),
        ("long " * 400, " end of it"),
        ("a" * 3, " " + "b c " * 200),
    ]
    theirs = HFLM(lm.model, batch_size=BATCH).loglikelihood(
        [Instance("loglikelihood", {}, pair, 0) for pair in pairs], disable_tqdm=True
    )
    work = Work(lm, monkeypatch)
    requests = [{"context": context, "continuation": text} for context, text in pairs]
    ours = [(a["logprob"], a["greedy"]) for a in answers(lm, requests, "score")]
    assert ours == theirs
    assert work.lines < len(pairs), "choices of one token share a pass"


def test_only_the_logits_that_are_scored_are_computed(lm):
    seen = []
    hook = lm.model.lm_head.register_forward_hook(lambda module, given, out: seen.append(out.shape[1]))
    answers(lm, [{"context": "long " * 80, "continuation": continuation} for continuation in "ab"], "score")
    hook.remove()
    assert seen == [len(lm.tok_encode("a"))] == [1], "one position, in one pass for both"


@pytest.mark.parametrize("text, why", [("", "no tokens"), (" b c" * 600, "512")])
def test_a_continuation_that_cannot_be_scored_is_said(lm, text, why):
    with pytest.raises(ValueError, match=why):
        answers(lm, [{"context": "a", "continuation": text}], "score")


def test_no_room_for_a_prompt_is_said(lm):
    with pytest.raises(LoadError) as error:
        answers(lm, asking(PROMPTS, max_gen_toks=512))
    assert "512 new tokens" in error.value.args[0] and "max_gen_toks" in error.value.args[1]


def test_each_text_is_tokenised_once(lm, monkeypatch):
    counted, tokenizer = [], type(lm.tokenizer)
    encode = tokenizer._encode_plus

    def _encode_plus(self, text, *args, **given):
        counted.extend([text] if isinstance(text, str) else text)
        return encode(self, text, *args, **given)

    monkeypatch.setattr(tokenizer, "_encode_plus", _encode_plus)
    requests = [{"context": p, "continuation": f" {c}"} for p in PROMPTS for c in "abcd"]
    answers(lm, requests, "score")
    assert sorted(counted) == sorted([*PROMPTS, *(f"{p} {c}" for p in PROMPTS for c in "abcd")])


def test_nothing_of_this_is_imported_with_the_package():
    import subprocess

    code = "import sys, harness.evaluate.row; sys.exit(any(m in sys.modules for m in ('torch', 'lm_eval')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
