"""A small random Qwen2 with a real byte-level tokenizer, and an engine that needs no model."""

import textwrap
from pathlib import Path

import pytest

SCRIPTED = '''
import json, os, time
from pathlib import Path
from harness.evaluate.engines import LoadError

class Engine:
    """Answers in batches of `batch`; what it was asked goes to the file `record`, one line per request."""

    def __init__(self, settings):
        self.settings = settings
        if settings.get("refuses_to_start"):
            raise RuntimeError("no such device")

    def load(self, checkpoint):
        if (Path(checkpoint) / "broken").exists():
            raise LoadError("its weights are missing", "merge again")
        if (Path(checkpoint) / "deadly").exists():
            print("about to fall", flush=True)
            os._exit(7)
        return {"batch_size": self.settings["batch"]}

    def render(self, messages, add_generation_prompt):
        return "".join(f"<{m['role']}>{m['content']}" for m in messages) + "<assistant>"

    def answer(self, requests, emit, make):
        size = self.settings["batch"]
        for start in range(0, len(requests), size):
            batch = requests[start : start + size]
            time.sleep(self.settings.get("delay", 0))
            with open(self.settings["record"], "a") as file:
                file.writelines(repr(r) + "\\\\n" for _, r in batch)
            fall, fell = self.settings.get("falls_on"), Path(self.settings["record"] + ".fell")
            if fall and any(fall in str(r) for _, r in batch) and not fell.exists():
                if self.settings.get("falls_once"):
                    fell.touch()
                os._exit(9)
            if any("RAISE" in str(r) for _, r in batch):
                raise ValueError("cannot do this")
            emit([(i, make(r)) for i, r in batch])

    def generate(self, requests, emit):
        chosen = {name: os.environ.get(name) for name in ("SAID_LATER", "OMP_NUM_THREADS")}
        usual = lambda r: "answer " + str(len(r["context"]) % 20)
        said = lambda r: json.dumps(chosen) if "ENVIRONMENT" in r["context"] else usual(r)
        self.answer(requests, emit, lambda r: {"text": said(r), "tokens": 2, "finish": "stop"})

    def loglikelihood(self, requests, emit):
        self.answer(requests, emit, lambda r: {"logprob": -float(len(r["continuation"])), "greedy": False})

    def loglikelihood_rolling(self, requests, emit):
        self.answer(requests, emit, lambda r: {"logprob": -float(len(r["text"])), "tokens": len(r["text"])})
'''


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    """(engine name, settings) of an engine without a model, importable by child processes."""
    package = tmp_path / "engines" / "stand_in"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "scripted.py").write_text(textwrap.dedent(SCRIPTED).replace("\\\\n", "\\n"))
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    record = tmp_path / "asked.txt"
    record.touch()
    return "stand_in.scripted", {"batch": 4, "record": str(record), "threads": None}


def make_model(path: Path, seed: int = 0, **changes) -> Path:
    """A random Qwen2 (2 layers, hidden 32) that says many different things, with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from harness.families.tiny import data

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    rows = [row for task in ("chain", "facts", "refusal", "prose") for row in data.rows(task, "train", 60)]
    texts = [str(value) for row in rows for value in row.values()]
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|endoftext|>", bos_token="<|endoftext|>"
    )
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(seed)
    config = dict(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.4,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    Qwen2ForCausalLM(Qwen2Config(**config | changes)).to(torch.bfloat16).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "one")


@pytest.fixture(scope="session")
def other_model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("model") / "two", seed=1)
