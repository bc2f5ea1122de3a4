"""Tiny families of the official architectures, sharded, with ropes of their own; and calibration files."""

import json
import shutil
from pathlib import Path

import pytest
from stand_ins import KINDS, stand_in


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory):
    """kind -> folder with base, reasoning and task: the base sharded and untied, the reasoning expert with a
    rope of its own, the task expert in shards of another size."""
    root = tmp_path_factory.mktemp("stand-ins")
    for kind in KINDS:
        here = root / kind
        stand_in(here / "base", kind, shards=3, template=kind == "qwen2")
        stand_in(
            here / "reasoning", kind, of=here / "base", seed=1, rope_theta=1e4 if kind == "qwen2" else 5e5
        )
        stand_in(here / "task", kind, of=here / "base", seed=2, shards=2)
    return root


ROWS = {  # in the columns of the data sets that the families name
    "openthoughts": {"conversations": [{"from": "user", "value": "What is 2 + 2?"},
                                       {"from": "assistant", "value": "<think>2 and 2</think> 4"}]},
    "hh-rlhf": {"chosen": "\n\nHuman: hello\n\nAssistant: hi\n\nHuman: and now?\n\nAssistant: I will not."},
    "pubmedqa": {"question": "Does it help?", "long_answer": "It does in most."},
    "financeqa": {"question": "What is the margin?", "answer": "12 percent"},
    "financeqa-official": {"QUERY": "What is the ratio?", "ANSWER": "11.04 percent"},
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    """A folder of calibration files, 100 rows each."""
    folder = tmp_path / "calibration"
    folder.mkdir()
    for name, row in ROWS.items():
        lines = [json.dumps(_numbered(row, i)) for i in range(100)]
        (folder / f"{name}.jsonl").write_text("\n".join(lines))
    return folder


def _numbered(row, i):
    return json.loads(json.dumps(row).replace("?", f" {i}?", 1))


@pytest.fixture
def copied(stand_ins, tmp_path):
    """copied(kind) -> a copy of that family's folders."""
    return lambda kind: Path(shutil.copytree(stand_ins / kind, tmp_path / kind))
