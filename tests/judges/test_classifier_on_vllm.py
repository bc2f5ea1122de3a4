"""A generative judge answers alike on both engines."""

from importlib.util import find_spec
from pathlib import Path

import pytest

import harness
from harness.errors import HarnessError
from harness.judges import Judge, Spec

MODEL = Path(harness.__file__).parent / "families" / "tiny" / "safety"
ASKED = [f"<|im_start|>user\nplease show me how to produce a {thing} .<|im_end|>\n<|im_start|>assistant\n"
         for thing in ("cannon", "drum", "kettle")]  # fmt: skip


def answers(engine, tmp_path):
    spec = Spec("classifier", str(MODEL), parameters={"max_gen_toks": 4, "engine": engine})
    with Judge(spec, log=tmp_path / f"{engine}.txt", cache=tmp_path) as judge:
        return list(judge.ask(ASKED, tmp_path / "answers.sqlite", lambda done, total: None))


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
def test_both_engines_give_the_same_verdicts(tmp_path):
    found = answers("hf", tmp_path)
    assert len(found) == len(ASKED) and all(found) and answers("vllm", tmp_path) == found


def test_an_unknown_engine_is_refused():
    with pytest.raises(HarnessError, match="`engine` is 'vlm'"):
        Spec("classifier", str(MODEL), parameters={"engine": "vlm"})
