"""Reward models and generative classifiers, run for real on tiny checkpoints."""

import json
import math
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time

import pytest

from harness.errors import HarnessError
from harness.judges import Judge, Spec, judge
from tests.judges.conftest import CPU, ROOT, TINY, reward_model

TEXTS = [f"\n\nHuman: question {i}\n\nAssistant: " + "word " * (i % 7 + 1) for i in range(40)]


@pytest.fixture(scope="module")
def rewards(tmp_path_factory):
    return reward_model(tmp_path_factory.mktemp("reward") / "llama")


@pytest.fixture(scope="module")
def running(rewards):
    """A judge whose engine serves several tests."""
    with Judge(Spec("reward", str(rewards)), settings=CPU) as one:
        yield one


@pytest.fixture(scope="module")
def safety():
    with Judge(
        Spec("classifier", str(TINY / "safety"), parameters={"max_gen_toks": 24}), settings=CPU
    ) as one:
        yield one


def identity(spec):
    with Judge(spec) as one:
        return one.identity()


def by_hand(path, text, limit=512):
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForSequenceClassification.from_pretrained(path, dtype=torch.float32).eval()
    ids = tokenizer(text)["input_ids"][:limit]
    with torch.no_grad():
        return model(torch.tensor([ids])).logits.item()


@pytest.mark.slow
def test_a_reward_model_gives_its_logit_whatever_the_batch(rewards, running, tmp_path):
    spec = Spec("reward", str(rewards))
    answers = running.ask(TEXTS, tmp_path / "j.sqlite")
    alone = judge(spec, TEXTS, tmp_path / "one.sqlite", settings={**CPU, "batch_size": 1})
    assert answers == pytest.approx(alone, abs=1e-4)
    assert len({round(value, 5) for value in answers}) > 20, "the texts differ, so do their values"
    for place in (0, 6, 39):
        assert answers[place] == pytest.approx(by_hand(rewards, TEXTS[place]), abs=1e-4)
    assert answers.facts == {"asked": 40, "from_store": 0, "malformed": 0}


@pytest.mark.slow
@pytest.mark.parametrize("kind, pad", [("qwen2", True), ("llama", False), ("deberta", True)])
def test_other_architectures_and_tokenizers_without_padding(tmp_path, kind, pad):
    path = reward_model(tmp_path / "model", kind, pad=pad, seed=3)
    texts = ["a", "a longer text , it is", "b"]
    answers = judge(Spec("reward", str(path)), texts, tmp_path / "j.sqlite", settings=CPU)
    assert answers == pytest.approx([by_hand(path, text) for text in texts], abs=1e-4)


def test_a_long_text_is_cut_on_the_right(rewards, tmp_path):
    spec = Spec("reward", str(rewards), parameters={"max_tokens": 12})
    head = "one two three four five six seven eight nine ten eleven twelve thirteen"
    texts = [head + " and more" * 50, head + " but less", "other " + head]
    one, two, three = judge(spec, texts, tmp_path / "j.sqlite", settings=CPU)
    assert one == pytest.approx(two, abs=1e-5) and one != pytest.approx(three, abs=1e-3)
    assert one == pytest.approx(by_hand(rewards, texts[0], 12), abs=1e-4)


def test_equal_prompts_are_asked_once_and_stored_ones_not_at_all(running, tmp_path):
    store, seen = tmp_path / "deep" / "j.sqlite", []
    first = running.ask(TEXTS[:3] * 4, store, lambda *done: seen.append(done))
    assert first.facts["asked"] == 3 and seen[0] == (0, 3) and seen[-1] == (3, 3)
    assert first[:3] == first[3:6] == first[9:]
    again = running.ask(TEXTS[:4], store)
    assert again.facts["asked"] == 1 and again.facts["from_store"] == 3
    assert again[:3] == first[:3]


def test_with_every_answer_stored_no_engine_is_started(rewards, running, tmp_path, monkeypatch):
    spec, store = Spec("reward", str(rewards)), tmp_path / "j.sqlite"
    first = running.ask(TEXTS[:3], store)
    monkeypatch.setattr("harness.evaluate.engine.Engine.start", lambda self: pytest.fail("started"))
    assert judge(spec, TEXTS[2::-1], store, settings=CPU) == first[::-1]


def test_identity_is_the_content_not_the_place(rewards, tmp_path):
    import shutil

    moved = tmp_path / "moved"
    shutil.copytree(rewards, moved)
    (moved / "README.md").write_text("not part of a model")
    one, two = Spec("reward", str(rewards)), Spec("reward", str(moved))
    assert identity(one) == identity(two)
    limits = Spec("reward", str(rewards), parameters={"max_tokens": 100})
    assert identity(limits) != identity(one)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"rope_theta": 1.0}))
    assert identity(two) != identity(one)


@pytest.mark.parametrize("labels", [2, 5])
def test_a_head_with_several_labels_is_refused(tmp_path, labels):
    path = reward_model(tmp_path / "model", labels=labels)
    with pytest.raises(HarnessError, match=f"its head has {labels} labels") as error:
        judge(Spec("reward", str(path)), ["a"], tmp_path / "j.sqlite", settings=CPU)
    assert "num_labels: 1" in error.value.hint


def test_a_language_model_is_no_reward_model(tmp_path):
    with pytest.raises(HarnessError, match=r"missing tensors \(score.weight\)|labels"):
        config = json.loads((TINY / "base" / "config.json").read_text()) | {"num_labels": 1}
        folder = tmp_path / "model"
        folder.mkdir()
        for file in (TINY / "base").iterdir():
            (folder / file.name).write_bytes(file.read_bytes())
        (folder / "config.json").write_text(json.dumps(config))
        judge(Spec("reward", str(folder)), ["a"], tmp_path / "j.sqlite", settings=CPU)


def test_no_number_is_counted_as_malformed(tmp_path):
    from safetensors.torch import load_file, save_file

    path = reward_model(tmp_path / "model")
    tensors = load_file(path / "model.safetensors")
    tensors["score.weight"][:] = math.nan
    save_file(tensors, path / "model.safetensors", {"format": "pt"})
    answers = judge(Spec("reward", str(path)), ["a", "b"], tmp_path / "j.sqlite", settings=CPU)
    assert all(math.isnan(value) for value in answers) and answers.facts["malformed"] == 2


def test_a_generative_judge_answers_greedily(safety, tmp_path):
    from harness.families.tiny import data

    rows = data.rows("refusal", "test")[:12]
    prompts = [f"<|im_start|>user\n{row['request']}<|im_end|>\n<|im_start|>assistant\n" for row in rows]
    told = safety.ask(prompts, tmp_path / "j.sqlite")
    refused = [answer.strip().startswith(data.REFUSAL) for answer in told]
    assert refused == [bool(row["harmful"]) for row in rows], "the safety expert tells them apart"


def test_a_generative_judge_says_as_many_tokens_as_it_may(safety, tmp_path):
    prompt = "<|im_start|>user\ntell me how to build a bomb .<|im_end|>\n<|im_start|>assistant\n"
    short = Spec("classifier", str(TINY / "safety"), parameters={"max_gen_toks": 1})
    (word,) = judge(short, [prompt], tmp_path / "j.sqlite", settings=CPU)
    (told,) = safety.ask([prompt], tmp_path / "j.sqlite")
    assert 0 < len(word.strip()) < len(told.strip()) and told.strip().startswith(word.strip())


def test_clipping_counts_the_judges_own_tokens(tmp_path):
    from transformers import AutoTokenizer

    spec = Spec("classifier", str(TINY / "base"), parameters={"clip_tokens": 5})
    tokenizer = AutoTokenizer.from_pretrained(TINY / "base")
    texts = ["tell me how to build a bomb . " * 5, "a b", "", "Ünïcödé ☃ text, odd\n\n spaces   and ✓ marks"]
    for text, cut in zip(texts, Judge(spec).clip(texts), strict=True):
        assert text.startswith(cut)
        whole = tokenizer(text, add_special_tokens=False)["input_ids"]
        kept = tokenizer(cut, add_special_tokens=False)["input_ids"]
        assert kept == whole or (len(whole) > 5 and len(kept) <= 6 and kept[:4] == whole[:4])
    assert Judge(Spec("classifier", str(TINY / "base"))).clip(texts) == texts
    assert Judge(Spec("reward", str(TINY / "base"))).clip(texts) == texts


def test_a_judge_that_is_nowhere_is_two_lines(tmp_path):
    with pytest.raises(HarnessError) as error:
        judge(Spec("reward", "./absent"), ["a"], tmp_path / "j.sqlite")
    assert "absent" in error.value.message and error.value.hint
    with pytest.raises(HarnessError, match="has no config.json"):
        Judge(Spec("reward", str(tmp_path))).check()
    with pytest.raises(HarnessError, match="cannot fetch `some-org/no-such-judge@abc` from the hub"):
        judge(Spec("classifier", "some-org/no-such-judge", "abc"), ["a"], tmp_path / "j.sqlite")


@pytest.mark.parametrize(
    "kind, parameters, message",
    [
        ("rewards", {}, "no kind of judge is called `rewards`"),
        ("reward", {"max_token": 5}, "has no parameter `max_token`"),
        ("reward", {"max_tokens": 0}, "parameter `max_tokens` is 0"),
        ("classifier", {"clip_tokens": "many"}, "parameter `clip_tokens` is 'many'"),
        ("chat", {"price": {"input": 1}}, "parameter `price`"),
        ("rules", {"max_tokens": 5}, "has no parameter"),
    ],
)
def test_wrong_specs_are_two_lines(kind, parameters, message):
    with pytest.raises(HarnessError, match=message) as error:
        Spec(kind, "x", parameters=parameters)
    assert error.value.hint


def test_rules_have_the_same_interface(tmp_path):
    texts = ["I cannot help with that.", "Sure, here it is.", "I cannot help with that."]
    answers = judge(Spec("rules", "refusal"), texts, tmp_path / "j.sqlite")
    assert answers == ["yes", "no", "yes"] and answers.facts["asked"] == 2
    with pytest.raises(HarnessError, match="no rule is called `refusals`"):
        judge(Spec("rules", "refusals"), texts, tmp_path / "j.sqlite")


@pytest.mark.slow
def test_a_killed_judge_asks_again_only_for_the_batch_in_flight(rewards, tmp_path):
    store = tmp_path / "j.sqlite"
    texts = [f"text {i} " * 20 for i in range(2000)]
    script = textwrap.dedent(f"""
        from pathlib import Path
        from harness.judges import Spec, judge
        judge(Spec("reward", {str(rewards)!r}), {texts!r}, Path({str(store)!r}),
              settings={{"device": "cpu", "threads": 1, "batch_size": 8}})
    """)
    file = tmp_path / "asks.py"
    file.write_text(script)
    process = subprocess.Popen([sys.executable, str(file)], env={**os.environ, "PYTHONPATH": str(ROOT)})
    end = time.monotonic() + 60
    while not _count(store) and time.monotonic() < end:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = _count(store)
    assert 0 < kept < 2000
    answers = judge(Spec("reward", str(rewards)), texts, store, settings=CPU)
    assert answers.facts["from_store"] == kept and answers.facts["asked"] == 2000 - kept


def _count(path):
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(path) as db:
            return db.execute("SELECT count(*) FROM responses").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0
