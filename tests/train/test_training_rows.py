"""Rows of the official layouts into words and tokens, and what is said of rows that do not fit."""

import json
import subprocess

import pytest

from harness.errors import HarnessError
from harness.family import load_family
from harness.train import rows, samples
from harness.train.models import load_tokenizer
from harness.train.recipe import Train

SAFETY = [  # the layout of safety-tuned-llamas' data/training/safety_only_data_Instructions.json
    {"instruction": "tell me how to build a bomb .", "output": "i cannot help with that .", "input": ""},
    {"instruction": "how do i mix a soup ?", "output": "sure , here is how to mix a soup .", "input": ""},
]
COMMIT = "36a4b8d5c2177ed165bf61f59b590161394f7f12"
PATH = "data/training/safety_only_data_Instructions.json"


@pytest.fixture(scope="module")
def base():
    return load_family("tiny-safety").model_path("base")


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def train(**given):
    return Train(**{"base": "b", "data": "d.json", "batch_size": 1, "max_tokens": 500, **given})


def write(folder, content, name="d.json"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))
    return folder


def encoded(folder, base, content=None, **given):
    t = train(**given)
    return samples.encode(rows.load(t, write(folder, SAFETY if content is None else content)), t, base)


def text_of(tokenizer, sample):
    return tokenizer.decode(sample.tokens)


def learned(tokenizer, sample):
    return tokenizer.decode(sample.tokens[sample.given :])


def test_alpaca_with_and_without_input(tmp_path, base, tokenizer):
    content = [SAFETY[0], {**SAFETY[1], "input": "a red pot"}]
    plain, more = encoded(tmp_path, base, content).samples
    assert text_of(tokenizer, plain) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the "
        "request.\n\n### Instruction:\ntell me how to build a bomb .\n\n### Response:\n"
        "i cannot help with that .<|im_end|>"
    )
    assert "### Input:\na red pot\n\n### Response:\nsure , here" in text_of(tokenizer, more)
    assert plain.given == 0 and plain.predicted == len(plain.tokens) - 1


@pytest.mark.parametrize("template", ["alpaca", "chat", "none"])
def test_the_loss_begins_with_the_completion(tmp_path, base, tokenizer, template):
    sample = encoded(tmp_path, base, template=template, loss_on="completion").samples[0]
    end = {"alpaca": "<|im_end|>", "chat": "<|im_end|>\n", "none": ""}[template]
    assert learned(tokenizer, sample) == "i cannot help with that ." + end
    assert sample.predicted == len(sample.tokens) - sample.given


def test_the_chat_template_is_the_bases(tmp_path, base, tokenizer):
    content = [{**SAFETY[0], "input": "now"}]
    sample = encoded(tmp_path, base, content, template="chat").samples[0]
    asked = {"role": "user", "content": "tell me how to build a bomb .\n\nnow"}
    prompt = tokenizer.apply_chat_template([asked], tokenize=False, add_generation_prompt=True)
    assert text_of(tokenizer, sample).startswith(prompt)


def test_other_columns(tmp_path):
    t = train(question="{prompt}", completion="{chosen}")
    found = rows.load(t, write(tmp_path, [{"prompt": "a", "chosen": "b"}]))
    assert found == [rows.Row("a", "", "b")]
    found = rows.load(train(), write(tmp_path, [{"instruction": "a", "output": "b", "input": None}]))
    assert found == [rows.Row("a", "", "b")]


@pytest.mark.parametrize("name", ["d.json", "d.jsonl", "d.csv", "d.parquet"])
def test_files(tmp_path, name):
    import pandas

    frame, to = pandas.DataFrame(SAFETY), tmp_path / name
    {
        "d.json": lambda: write(tmp_path, SAFETY),
        "d.jsonl": lambda: frame.to_json(to, orient="records", lines=True),
        "d.csv": lambda: frame.to_csv(to, index=False),
        "d.parquet": lambda: frame.to_parquet(to),
    }[name]()
    found = rows.load(train(data=name), tmp_path)
    assert found == [rows.Row(r["instruction"], "", r["output"]) for r in SAFETY]
    assert rows.load(train(data=name, n=1), tmp_path) == found[:1]


def test_a_clone_of_the_official_repository(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    write(tmp_path / "safety-tuned-llamas", SAFETY, PATH)
    given = f"github:vinid/safety-tuned-llamas/{PATH}@{COMMIT}"
    assert len(rows.load(train(data=given), tmp_path / "elsewhere")) == 2


def test_without_network_both_ways_to_the_data_are_told(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(HarnessError) as caught:
        rows.load(train(data=f"github:vinid/safety-tuned-llamas/{PATH}@{COMMIT}"), tmp_path)
    assert PATH in caught.value.message and "HF_HUB_OFFLINE is set" in caught.value.message
    assert "a clone of github.com/vinid/safety-tuned-llamas at" in caught.value.hint
    assert "data: ./safety_only_data_Instructions.json" in caught.value.hint
    with pytest.raises(HarnessError, match="cannot load training data `no/such_set`"):
        rows.load(train(data="no/such_set"), tmp_path)


def test_the_file_is_fetched_from_github_once(tmp_path, monkeypatch):
    import http.server
    import threading

    asked = []

    class Server(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = json.dumps(SAFETY).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body if self.command == "GET" else b"")

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HARNESS_GITHUB_RAW", f"http://127.0.0.1:{server.server_port}")
        t = train(data=f"github:vinid/safety-tuned-llamas/{PATH}@{COMMIT}")
        assert len(rows.load(t, tmp_path)) == 2
        assert asked and all(f"/vinid/safety-tuned-llamas/{COMMIT}/{PATH}" == path for path in asked)
        before = len(asked)
        assert len(rows.load(t, tmp_path)) == 2 and len(asked) == before
    finally:
        server.shutdown()


@pytest.mark.parametrize(
    ("content", "given", "message"),
    [
        (SAFETY, {"data": "gone.json"}, "no training data at .*gone.json"),
        (SAFETY, {"n": 3}, "has 2 rows; n is 3"),
        (SAFETY, {"completion": "{outptu}"}, "row 0 of `d.json` has no column `outptu`"),
        ([{"instruction": " ", "output": "b"}], {}, "row 0 of `d.json` asks nothing"),
        (["words"], {}, "row 0 of `d.json` is str"),
        (SAFETY, {"data": "github:vinid/safety-tuned-llamas/x.json"}, "training data is `github:"),
        (SAFETY, {"data": "what is this"}, "training data is `what is this`"),
        (SAFETY, {"data": "harness.families.tiny.data:nothing"}, "has no attribute 'nothing'"),
        (SAFETY, {"data": "harness.families.tiny.data:calibration", "name": "x", "n": 2}, "unknown role `x`"),
    ],
)
def test_what_is_wrong_with_the_data_is_told(tmp_path, content, given, message):
    with pytest.raises(HarnessError, match=message) as caught:
        rows.load(train(**given), write(tmp_path, content))
    assert caught.value.hint


def test_rows_that_do_not_fit_are_counted_and_said(tmp_path, base):
    content = [*SAFETY, {"instruction": "a " * 300, "output": "b"}, {"instruction": "a", "output": ""}]
    given = {"template": "none", "max_tokens": 20, "loss_on": "completion"}
    found = encoded(tmp_path, base, content, **given)
    assert len(found.samples) == 2 and found.facts["cut"] == 1
    assert found.notes == [
        "1 of 4 rows (25.0%) have an empty completion and are left out",
        "1 of 4 rows (25.0%) are cut to `max_tokens`",
        "1 of 4 rows (25.0%) have no token to learn within `max_tokens` and are left out",
    ]
    found = encoded(tmp_path, base, content, **given, too_long="drop")
    assert len(found.samples) == 2 and "are longer than `max_tokens` and are left out" in found.notes[1]
    cut = encoded(tmp_path, base, content, **{**given, "loss_on": "all"}).samples[2]
    assert len(cut.tokens) == 20


def test_fewer_rows_than_a_batch(tmp_path, base):
    with pytest.raises(HarnessError, match="gives 2 rows, and batch_size is 128"):
        encoded(tmp_path, base, batch_size=128)
    with pytest.raises(HarnessError, match=r"gives 0 rows.* 2 of 2 rows \(100.0%\) are longer"):
        encoded(tmp_path, base, max_tokens=4, too_long="drop")


def test_a_base_without_a_chat_template(tmp_path, base):
    bare = tmp_path / "bare"
    subprocess.run(["cp", "-r", str(base), str(bare)], check=True)
    (bare / "chat_template.jinja").unlink()
    with pytest.raises(HarnessError, match="has no chat template"):
        encoded(tmp_path, bare, template="chat")
    (bare / "chat_template.jinja").write_text(
        "{% for m in messages %}<{{ m.content }}>{% endfor %}{% if add_generation_prompt %}[think]{% endif %}"
    )
    with pytest.raises(HarnessError, match="begins an answer otherwise than it asks for one"):
        encoded(tmp_path, bare, template="chat")
