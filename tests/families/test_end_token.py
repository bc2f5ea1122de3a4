"""`{eos}` in a calibration text is the end token of the tokenizer that reads it; where the answer begins."""

import json

import pytest

from harness.endmark import END
from harness.errors import HarnessError
from harness.family.members import Calibration
from harness.scores.calibration import load_rows
from harness.scores.samples import IGNORED, encode


@pytest.fixture
def rows(tmp_path):
    def load(row, **spec):
        (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
        return load_rows(Calibration(data="rows.jsonl", n=1, **spec), tmp_path)

    return load


def test_each_tokenizer_reads_its_own_end(rows, stand_ins, tmp_path):
    from transformers import AutoTokenizer

    read = rows({"q": "one plus two", "a": "is three"}, text="{q}{eos}{a}", completion="{a}")
    ends = {}
    for eos in ("<|im_end|>", "<|im_start|>"):
        tokenizer = AutoTokenizer.from_pretrained(stand_ins / "llama" / "task")
        tokenizer.eos_token = eos
        tokenizer.save_pretrained(tmp_path / eos[2:-2])
        (sample,) = encode(read, tmp_path / eos[2:-2], 64, "completion")
        assert sample.tokens.count(tokenizer.eos_token_id) == 1
        assert sample.tokens == tokenizer(f"one plus two{eos}is three")["input_ids"]
        learnt = [t for t in sample.labels if t != IGNORED]
        assert tokenizer.decode(learnt) == "is three"
        ends[eos] = tokenizer.eos_token_id
    assert len(set(ends.values())) == 2


def test_a_tokenizer_without_an_end_is_told(rows, stand_ins, tmp_path):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(stand_ins / "llama" / "task")
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path / "endless")
    with pytest.raises(HarnessError, match="has no end token"):
        encode(rows({"q": "a b c d", "a": "e"}, text="{q}{eos}{a}"), tmp_path / "endless", 64, "all")
    assert encode(rows({"q": "a b c d"}, text="{q}"), tmp_path / "endless", 64, "all")


def test_the_mark_cannot_come_from_the_data(rows):
    with pytest.raises(HarnessError, match="U\\+FDD0"):
        rows({"q": f"a{END}b"}, text="{q}")


def test_the_last_turn_of_a_dialogue_is_the_completion(rows):
    chosen = "\n\nHuman: hi\n\nAssistant: hello\n\nHuman: and\n\nAssistant: no"
    (row,) = rows({"chosen": chosen}, text="{chosen}", completion_after="\n\nAssistant:")
    assert row == {"prompt": chosen.removesuffix(" no"), "completion": " no"}
    for bad in ("\n\nHuman: hi", "\n\nHuman: hi\n\nAssistant: "):
        with pytest.raises(HarnessError, match="has nothing behind"):
            rows({"chosen": bad}, text="{chosen}", completion_after="\n\nAssistant:")


def test_a_data_sets_folder_is_read_as_on_the_hub(tmp_path):
    folder = tmp_path / "FinanceQA" / "data"
    folder.mkdir(parents=True)
    (folder / "test-00000-of-00001.jsonl").write_text('{"question": "q", "answer": "a"}\n' * 3)
    spec = Calibration(data="FinanceQA", split="test", text="{question}{answer}", n=2)
    assert load_rows(spec, tmp_path) == [{"text": "qa"}] * 2


def test_the_official_form_may_read_other_data():
    rows = Calibration(data="a.jsonl", text="{q}{eos}{a}", completion="{a}", n=7,
                       official={"data": "b.jsonl", "text": "{Q}", "completion": None})  # fmt: skip
    official = rows.in_profile("official")
    assert (official.data, official.text, official.completion, official.n) == ("b.jsonl", "{Q}", None, 7)
    assert rows.in_profile("paper") is rows
