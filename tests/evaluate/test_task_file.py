"""Task files: what enters which hash, and errors that name file, line and key."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.evaluate.task_file import load_task

TASKS = Path(__file__).parents[2] / "tasks"


@pytest.fixture
def task(tmp_path):
    for suffix in (".yaml", ".py"):
        shutil.copy(TASKS / f"tiny_chain{suffix}", tmp_path)
    return tmp_path / "tiny_chain.yaml"


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return hashes(path.with_suffix(".yaml"))


def hashes(path):
    found = load_task(path)
    return found.prompt_hash, found.score_hash


def test_columns_and_header(task):
    found = load_task(task)
    (column,) = found.columns
    assert (found.name, column.key, column.title, column.group, column.kind) == (
        "tiny_chain",
        "accuracy",
        "chain",
        "Reasoning",
        "accuracy",
    )
    assert column.higher_is_better and found.uses_generation
    refusal = load_task(TASKS / "tiny_refusal.yaml").columns
    assert [(c.key, c.title) for c in refusal] == [("refused", "refusal"), ("complied", "compliance")]
    prose = load_task(TASKS / "tiny_prose.yaml")
    assert prose.columns[0].kind == "perplexity" and not prose.columns[0].higher_is_better
    assert not prose.uses_generation


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("tiny_chain.yaml", "title: chain", "title: another"),
        ("tiny_chain.yaml", "licence: Apache-2.0", "licence: MIT"),
        ("tiny_chain.yaml", "# A chain of", "# chains of"),
        ("tiny_chain.yaml", "version: 1", "version: 2"),
        ("tiny_chain.py", "    found = ANSWER", "    # how strict it is\n    found = ANSWER"),
        ("tiny_chain.py", '"""Strict scoring', '"""Very strict scoring'),
        (
            "tiny_chain.py",
            "def chains(split: str) -> list[dict]:",
            'def chains(split: str) -> list[dict]:\n    """Rows."""',
        ),
        ("tiny_chain.py", "import re\n", "import re\nimport math  # unused\n"),
    ],
)
def test_texts_comments_and_layout_enter_no_hash(task, name, old, new):
    before = hashes(task)
    assert edit(task.parent / name, old, new) == before


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("tiny_chain.py", "fullmatch", "search"),
        ("tiny_chain.py", "answer ([0-9]+)", "answer ([0-9]*)"),
        ("tiny_chain.py", '@scorer("accuracy")', '@scorer("exact")'),
        (
            "tiny_chain.yaml",
            "aggregation: mean, higher_is_better: true",
            "aggregation: median, higher_is_better: true",
        ),
    ],
)
def test_scoring_enters_the_score_hash_only(task, name, old, new):
    prompts, scores = hashes(task)
    found = edit(task.parent / name, old, new)
    assert found[0] == prompts and found[1] != scores


@pytest.mark.parametrize(
    "name, old, new",
    [
        ("tiny_chain.yaml", "doc_to_text: question", 'doc_to_text: "{{question}} think"'),
        ("tiny_chain.yaml", "max_gen_toks: 64", "max_gen_toks: 65"),
        ("tiny_chain.yaml", "test_split: test", "test_split: validation"),
        ("tiny_chain.py", 'data.rows("chain", split)', 'data.rows("chain", split)[:50]'),
        ("tiny_chain.py", 'data.rows("chain", split)', 'data.rows("chain", split, seed=1)'),
    ],
)
def test_requests_enter_both_hashes(task, name, old, new):
    prompts, scores = hashes(task)
    found = edit(task.parent / name, old, new)
    assert found[0] != prompts and found[1] != scores


def test_generated_data_enters_by_content(task, monkeypatch):
    from harness.families.tiny import data

    before = hashes(task)
    real = data.rows
    monkeypatch.setattr(
        data, "rows", lambda *a, **k: [*real(*a, **k)[:-1], {"question": "?", "answer": "1", "trace": ""}]
    )
    assert hashes(task)[0] != before[0]
    monkeypatch.undo()
    assert hashes(task) == before


def test_the_folder_does_not_matter(task):
    assert hashes(task) == hashes(TASKS / "tiny_chain.yaml")


def test_include_is_followed(task):
    (task.parent / "shared.yaml").write_text(task.read_text())
    before = hashes(task)
    task.write_text("include: shared.yaml\ntask: harness_tiny_chain\n")
    assert hashes(task) == before
    (task.parent / "shared.yaml").write_text("include: tiny_chain.yaml\n")
    with pytest.raises(HarnessError, match="leads back"):
        load_task(task)


@pytest.mark.parametrize(
    "old, new, message, hint",
    [
        ("task: harness_tiny_chain", "task: [1", r"tiny_chain\.yaml:4: ", "quotes"),
        (
            "task: harness_tiny_chain",
            "task: gsm8k",
            r"tiny_chain\.yaml:3: `task` is 'gsm8k'",
            "harness_tiny_chain",
        ),
        ("    title: chain\n", "", r"yaml:18: `metadata\.harness\.title` is None", "text"),
        (
            "    title: chain",
            "    titel: x\n    title: chain",
            r"yaml:19: `metadata\.harness\.titel` is not known",
            "`title`",
        ),
        (
            "higher_is_better: true\n",
            "higher_is_better: yess\n",
            r"`metadata\.harness\.higher_is_better` is 'yess'",
            "true or false",
        ),
        ("  harness:", "  harnes:", r"`metadata\.harness` is missing", "title"),
        (
            "output_type: generate_until",
            "output_type: generate",
            r"yaml:7: `output_type` is 'generate'",
            "generate_until",
        ),
        ("until: [], ", "", r"yaml:10: `generation_kwargs\.until` is missing", "until"),
        ("tiny_chain.score", "tiny_chain.scores", "tiny_chain.scores` does not exist", "`score`"),
        ("tiny_chain.chains", "tiny_chain.chain", "tiny_chain.chain` does not exist", "`chains`"),
    ],
)
def test_malformed_tasks_name_file_line_and_key(task, old, new, message, hint):
    with pytest.raises(HarnessError, match=message) as error:
        edit(task, old, new)
    assert hint in error.value.hint and str(task) in error.value.message


@pytest.mark.parametrize(
    "code, message",
    [
        ("def chains(:\n", r"tiny_chain\.py:1: "),
        (
            "import nothing_of_the_kind\ndef chains(): 0\ndef score(): 0\n",
            "does not run: ModuleNotFoundError",
        ),
    ],
)
def test_a_broken_python_file_is_named(task, code, message):
    task.with_suffix(".py").write_text(code)
    with pytest.raises(HarnessError, match=message):
        hashes(task)


def test_a_split_that_is_not_there(task):
    assert load_task(task).split("validation") == "validation"
    edit(task, "validation_split: validation\n", "")
    with pytest.raises(HarnessError, match="no split `validation`"):
        load_task(task).split("validation")


def test_reading_tasks_is_light():
    code = (
        f"import sys; from harness.evaluate import load_task, Evaluator; Evaluator()\n"
        f"t = load_task({str(TASKS / 'tiny_refusal.yaml')!r}); t.score_hash\n"
        "heavy = {'torch', 'transformers', 'lm_eval', 'datasets', 'pyarrow', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=TASKS.parent)


def test_what_a_scorer_uses_of_ours_is_part_of_its_hash(monkeypatch):
    """A change in how answers are read re-scores what is stored."""
    from harness.evaluate import syntax
    from harness.registry import BUILT_IN

    path = BUILT_IN / "tasks" / "gsm8k.yaml"
    text = syntax.source(path.parent, "gsm8k.score", path)
    assert f"# harness.answers: {syntax._hash('harness.answers')}" in text
    assert "# harness" not in syntax.source(path.parent, "tiny_chain.chains", path)
    before = load_task(path).score_hash
    monkeypatch.setattr(syntax, "_hash", lambda room: "another")
    assert load_task(path).score_hash != before
    assert load_task(path).prompt_hash == load_task(path).prompt_hash
