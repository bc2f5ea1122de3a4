"""What the hub says: open, gated, missing, another revision, no network; each with what to do."""

import time

import pytest

from harness import hub
from harness.costs import sizes
from tests.spending.conftest import COMMIT

CONFIG = b"""{"model_type": "qwen2", "hidden_size": 64, "intermediate_size": 192, "num_hidden_layers": 2,
"vocab_size": 3000, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": false}"""


@pytest.fixture
def model(online):
    files = {"config.json": CONFIG, "model.safetensors": b"w" * 1000, "pytorch_model.bin": b"w" * 1000}
    online.models["org/open"] = {"files": files, "dtypes": {"BF16": 500}}
    online.models["org/gated"] = {"files": files, "gated": "manual"}
    return online


def test_an_open_repository(model):
    found = hub.look("org/open")
    assert (found.state, found.commit, found.dtypes) == ("open", COMMIT, {"BF16": 500})
    assert hub.weights(found) == {
        "config.json": len(CONFIG),
        "model.safetensors": 1000,
    }  # not the .bin as well


def test_its_size_is_the_hubs(model):
    size = sizes.of_repository("org/open", hub.look("org/open"))
    assert (size.parameters, size.nbytes, size.layers, size.how) == (500, 1000, 2, "the hub's figures")


def test_a_gated_repository_with_and_without_access(model, monkeypatch):
    found = hub.look("org/gated")
    assert found.state == "gated" and "gated" in found.reason and "hf auth login" in found.hint
    assert found.files["model.safetensors"] == 1000  # what is public stays known
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert hub.look("org/gated").state == "open"


def test_a_missing_repository_and_a_missing_revision(model):
    assert hub.look("org/none").state == "missing"
    found = hub.look("org/open@" + "2" * 40)
    assert found.state == "no revision" and "2222" in found.reason and "commits" in found.hint


def test_where_nobody_answers_one_question_is_asked(unreachable, monkeypatch):
    monkeypatch.setattr(hub, "SECONDS", 1.0)
    begun = time.monotonic()
    found = hub.look_all([(f"org/model-{i}", "model") for i in range(20)])
    assert {one.state for one in found.values()} == {"unreachable"}
    assert "127.0.0.1:9 cannot be reached" in found["org/model-0", "model"].reason
    assert time.monotonic() - begun < 3


def test_offline_nothing_is_asked(model, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    model.asked.clear()
    assert hub.look("org/open").state == "unreachable" and not model.asked


def test_logins(model, monkeypatch):
    assert hub.login()[0] == "missing"
    monkeypatch.setenv("HF_TOKEN", "hf_good")
    assert hub.login() == ("ok", "someone")
    monkeypatch.setenv("HF_TOKEN", "hf_bad")
    state, detail = hub.login()
    assert state == "refused" and "hf_bad" not in detail


def test_a_bad_id_is_missing_and_the_hub_is_asked_on(model):
    found = hub.look("org/a--b")
    assert found.state == "missing" and "`org/a--b` is no id" in found.reason and found.hint == "check the id"
    assert hub.look("org/open").state == "open"
