from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from harness import registry
from harness.checkpoint import Checkpoint
from harness.family import load_family
from harness.merge import Inputs, Job, merge
from harness.method import configure
from harness.scores import load_rows

SMALL = {"steps": 6, "batch_size": 4, "learning_rate": 1e-3, "max_tokens": 24, "warmup": 0.2}


class Bigram(torch.nn.Module):
    """The logits after a token depend on that token alone: a language model whose truth is a table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = torch.nn.Parameter(table.clone())  # [vocabulary, vocabulary]
        self.bias = torch.nn.Parameter(torch.zeros(table.shape[1]))
        text = SimpleNamespace(vocab_size=table.shape[1])
        self.config = SimpleNamespace(get_text_config=lambda: text)
        self.device = torch.device("cpu")

    def forward(self, input_ids, attention_mask, use_cache):
        assert attention_mask.shape == input_ids.shape and not use_cache
        return SimpleNamespace(logits=self.table[input_ids] + self.bias)


@pytest.fixture(scope="session")
def family():
    return load_family("tiny-safety")


@pytest.fixture(scope="session")
def inputs(family):
    experts = {role: Checkpoint.open(family.model_path(role)) for role in family.roles}
    return Inputs(Checkpoint.open(family.model_path("base")), experts, family.model_path("reasoning"))


@pytest.fixture(scope="session")
def rows(family):
    return {role: load_rows(family.calibration[role], family.folder)[:8] for role in family.roles}


def fused(inputs, rows, to: Path, settings, progress=None, **job):
    """Merge by FuseLLM into `to`; the record."""
    method = configure(registry.method("fusellm"), settings)
    job = Job(method, to, rows=rows, recipe={"method": "fusellm"}, **job)
    return merge(inputs, [job], threads=1, progress=progress)[0]


@pytest.fixture
def fuse(inputs, rows):
    """fuse(folder, **settings) -> record; `inputs`, `rows` and fields of the job may be given
    (`dtype` is the stored one, `training` the method's)."""

    def run(to: Path, inputs=inputs, rows=rows, progress=None, training="float32", **given):
        job = {name: given.pop(name) for name in ("seed", "dtype", "replace") if name in given}
        return fused(inputs, rows, to, {**SMALL, "dtype": training, **given}, progress, **job)

    return run
