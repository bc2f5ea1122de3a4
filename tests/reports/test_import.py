"""`harness import`: what of lm-eval's files becomes a row, and what is refused before anything is written."""

import base64
import copy
import hashlib
import json
import math
import re
import zlib
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from harness.board import BoardRow, mixing
from harness.board.cells import headings_of
from harness.board.imported import imported_rows
from harness.cli import main
from harness.errors import HarnessError
from harness.store import Store
from harness.tasks import named
from tests.helpers_lm_eval import evaluated

DATE = "2026-11-25T11-04-00.768872"
# As lm-eval 0.4.13 writes them, shortened.
FILE = {
    "results": {
        "harness_tiny_chain": {"name": "harness_tiny_chain", "alias": "harness_tiny_chain", "sample_len": 4,
                               "accuracy,none": 0.75, "accuracy_stderr,none": 0.25,
                               "unparsed,none": 0.0, "unparsed_stderr,none": 0.0},
        "harness_tiny_facts_mc": {"alias": "harness_tiny_facts_mc", "acc,none": 1.0,
                                  "acc_stderr,none": "N/A"},
        "tiny_facts": {"alias": "tiny_facts", "accuracy,none": 0.5},
    },
    "group_subtasks": {},
    "configs": {"harness_tiny_chain": {"repeats": 1}},
    "n-samples": {"harness_tiny_chain": {"original": 200, "effective": 4},
                  "harness_tiny_facts_mc": {"original": 150, "effective": 4},
                  "tiny_facts": {"original": 150, "effective": 4}},
    "config": {"model": "hf", "model_args": {"pretrained": "/x/reasoning", "dtype": "float32"},
               "model_dtype": "torch.float32", "limit": 4.0},
    "model_name": "/x/our-model",
    "chat_template": "{{ messages }}",
}  # fmt: skip
CHAIN, CHOICE = "harness_tiny_chain", "harness_tiny_facts_mc"


def sample(number, right, text="answer 3"):
    arguments = {"gen_args_0": {"arg_0": f"question {number}", "arg_1": {"until": []}}}
    return {"doc_id": number, "target": "3", "arguments": arguments, "resps": [[text]], "filter": "none",
            "filtered_resps": [text], "metrics": ["accuracy"], "accuracy": right}  # fmt: skip


def choices(number):
    arguments = {f"gen_args_{i}": {"arg_0": "capital ?", "arg_1": word} for i, word in enumerate("ab")}
    return {"doc_id": number, "target": "0", "arguments": arguments, "resps": [],
            "filtered_resps": [["-0.5", "True"], ["-3.25", "False"]], "filter": "none", "metrics": ["acc"],
            "acc": 1.0}  # fmt: skip


@pytest.fixture
def theirs(tmp_path):
    """A folder with a result file and samples; writes what it is given."""

    def write(told=FILE, lines=None, date=DATE):
        folder = tmp_path / "out"
        folder.mkdir(exist_ok=True)
        path = folder / f"results_{date}.json"
        path.write_text(told if isinstance(told, str) else json.dumps(told))
        given = lines or {CHAIN: [sample(i, float(i > 0)) for i in range(4)],
                          CHOICE: [choices(i) for i in range(4)]}  # fmt: skip
        for task, rows in given.items():
            text = rows if isinstance(rows, str) else "\n".join(map(json.dumps, rows)) + "\n"
            (folder / f"samples_{task}_{date}.jsonl").write_text(text)
        return path

    return write


def take(path, results, *more):
    given = ("import", path, "--results", results, *more)
    return CliRunner().invoke(main, list(map(str, given)))


def rows(results, *tasks):
    store = Store(results, "tiny-safety")
    return imported_rows(store, headings_of(named(tasks or ("tiny_chain", "tiny_facts", "tiny_facts_mc"))))


def changed(*keys, to):
    """FILE with another value at a place; `...` removes it."""
    told = copy.deepcopy(FILE)
    place = told
    for key in keys[:-1]:
        place = place[key]
    if to is ...:
        del place[keys[-1]]
    else:
        place[keys[-1]] = to
    return told


def test_what_is_announced_is_what_the_row_has(theirs, tmp_path):
    done = take(theirs(), tmp_path)
    assert done.exit_code == 0, done.output
    assert "row `our-model` (‡): tiny_chain (accuracy), tiny_facts_mc (acc)" in done.output
    assert "left out, as no column of the table: tiny_facts" in done.output
    (row,) = rows(tmp_path)
    assert row.imported and row.label == "our-model" and set(row.cells) == {
        ("tiny_chain", "accuracy"), ("tiny_facts_mc", "acc")}  # fmt: skip
    chain, choice = row.cells["tiny_chain", "accuracy"], row.cells["tiny_facts_mc", "acc"]
    assert (chain.value, chain.stderr, chain.n) == (0.75, 0.25, 4) and choice.stderr is None
    template = hashlib.sha256(FILE["chat_template"].encode()).hexdigest()
    assert chain.settings == {"engine": "hf", "chat template": template, "limit": 4, "split": "test",
                              "dtype": "float32", "repeats": 1}  # fmt: skip


def test_samples_are_as_ours(theirs, tmp_path):
    assert take(theirs(), tmp_path).exit_code == 0
    (row,) = rows(tmp_path)
    read = {task: pq.read_table(f"{cell.folder}/samples.parquet").to_pylist()
            for (task, _), cell in row.cells.items()}  # fmt: skip
    first = {"doc_id": 0, "filter": "none", "prompt": "question 0", "target": "3", "response": "answer 3",
             "finish": "not told", "accuracy": 0.0}  # fmt: skip
    assert read["tiny_chain"][0] == first and len(read["tiny_chain"]) == 4
    assert json.loads(read["tiny_facts_mc"][0]["response"]) == [
        {"text": "a", "logprob": -0.5}, {"text": "b", "logprob": -3.25}]  # fmt: skip


def test_older_samples_are_read_too(theirs, tmp_path):
    old = {**sample(0, 1.0), "arguments": [["question 0", {"until": []}]], "resps": [["one", "two"]]}
    assert take(theirs(lines={CHAIN: [old]}), tmp_path).exit_code == 0
    (row,) = rows(tmp_path, "tiny_chain")
    (line,) = pq.read_table(f"{row.cells['tiny_chain', 'accuracy'].folder}/samples.parquet").to_pylist()
    assert (line["prompt"], line["response"]) == ("question 0", "one")
    assert json.loads(line["responses"]) == ["one", "two"]


def test_lm_evals_own_task_is_no_column_of_ours(theirs, tmp_path):
    only = {**FILE, "results": {"tiny_chain": FILE["results"][CHAIN]}}
    done = take(theirs(only), tmp_path)
    assert done.exit_code == 2 and "none of the family's tasks" in done.output and CHAIN in done.output
    assert not (tmp_path / "tiny-safety").exists()


def test_other_tasks_can_be_named(theirs, tmp_path):
    told = {"results": {"arc_easy": {"acc,none": 0.5, "acc_norm,none": 0.25}}, "model_name": "org/m",
            "n-samples": {"arc_easy": {"original": 9, "effective": 8}}}  # fmt: skip
    assert take(theirs(told), tmp_path).exit_code == 2
    done = take(theirs(told), tmp_path, "--tasks", "lm_eval:arc_easy")
    assert done.exit_code == 0 and "lm_eval:arc_easy (acc_norm)" in done.output
    assert "without samples" in done.output and "--tasks lm_eval:arc_easy`, with" in done.output
    (row,) = rows(tmp_path, "lm_eval:arc_easy")
    (cell,) = row.cells.values()
    assert (row.label, cell.value, cell.n) == ("org/m", 0.25, 8) and set(cell.settings) == {"split"}


@pytest.mark.parametrize(
    ("args", "loaded", "dtype"),
    [
        ({"dtype": "torch.bfloat16"}, "torch.bfloat16", "bfloat16"),
        ({"dtype": "auto"}, "torch.bfloat16", "checkpoint"),
        ({}, "torch.float32", "float32"),
        ("pretrained=x,dtype=float16,revision=main", None, "float16"),
        ("pretrained=x", None, None),
    ],
)
def test_dtypes_are_told_as_ours(theirs, tmp_path, args, loaded, dtype):
    told = changed("config", to={"model_args": args, "model_dtype": loaded})
    assert take(theirs(told), tmp_path).exit_code == 0
    assert rows(tmp_path)[0].cells["tiny_chain", "accuracy"].settings.get("dtype") == dtype


@pytest.mark.parametrize(("limit", "expected"), [(None, None), (20.0, 20), (0.25, "0.25 of the items")])
def test_the_limit_is_what_was_asked_for(theirs, tmp_path, limit, expected):
    assert take(theirs(changed("config", "limit", to=limit)), tmp_path).exit_code == 0
    assert rows(tmp_path)[0].cells["tiny_chain", "accuracy"].settings["limit"] == expected


def test_a_group_counts_the_items_of_its_tasks(theirs, tmp_path):
    told = {"results": {"g": {"acc_norm,none": 0.5}}, "group_subtasks": {"g": ["h", "c"], "h": ["a", "b"]},
            "n-samples": {name: {"effective": n} for name, n in (("a", 2), ("b", 3), ("c", 5))}}  # fmt: skip
    from harness.board.lm_eval_file import ResultFile

    file = ResultFile(theirs(told, {"a": [choices(0)], "b": [choices(0)], "c": [choices(1)]}))
    assert file.metric("g", "acc_norm,none", "accuracy") == {"value": 0.5, "stderr": None, "n": 10}
    assert [(line["task"], line["doc_id"]) for line in file.samples("g")] == [("a", 0), ("b", 0), ("c", 1)]


def test_an_import_replaces_the_row_and_all_its_samples(theirs, tmp_path):
    assert take(theirs(), tmp_path).exit_code == 0
    later = {**FILE, "results": {CHAIN: FILE["results"][CHAIN]}}
    path = theirs(later, {CHAIN: [sample(0, 1.0)]}, "2027-01-01T00-00-00.0")
    done = take(path, tmp_path)
    assert done.exit_code == 0 and f"it replaces the row that was imported from results_{DATE}" in done.output
    (row,) = rows(tmp_path)
    assert set(row.cells) == {("tiny_chain", "accuracy")}
    folder = tmp_path / "tiny-safety" / "imported"
    assert [path.parent.name for path in folder.rglob("samples.parquet")] == ["tiny_chain"]
    assert len([path for path in folder.iterdir() if path.name != ".lock"]) == 1
    assert [path.name for path in folder.parent.iterdir()] == ["imported"]


@pytest.mark.parametrize("label", ["base", "reasoning", "safety", "ties", "TIES", "DARE (paper)", " TIES\n"])
def test_a_label_that_is_taken_is_refused(theirs, tmp_path, label):
    done = take(theirs(), tmp_path, "--as", label)
    assert done.exit_code == 2 and f"another row is called `{label.strip()}`" in done.output
    assert "--as" in done.output and not (tmp_path / "tiny-safety").exists()


def test_another_models_row_is_not_replaced(theirs, tmp_path):
    assert take(theirs(), tmp_path, "--as", "fine").exit_code == 0
    other = theirs({**FILE, "model_name": "other"}, date="2027-01-01T00-00-00.0")
    done = take(other, tmp_path, "--as", "fine")
    assert done.exit_code == 2 and "`fine` is the row of our-model" in done.output and "--as" in done.output
    assert take(other, tmp_path).exit_code == 0 and len(rows(tmp_path)) == 2


@pytest.mark.parametrize("label", ["", " ", "\t\n"])
def test_a_blank_label_is_refused(theirs, tmp_path, label):
    done = take(theirs(), tmp_path, "--as", label)
    assert done.exit_code == 2 and "is no label" in done.output


SCORE, N = ("results", CHAIN, "accuracy,none"), ("n-samples", CHAIN)
BROKEN = [
    ("", "is no JSON"),
    ("\x00\xff", "is no JSON"),
    ("[" * 100_000, "is no JSON"),
    ('{"results": {"a"', "is no JSON"),
    ("[]", "is no result file"),
    ("null", "is no result file"),
    ("3", "is no result file"),
    (changed("results", to=[]), "is no result file"),
    (changed("results", to={}), "but nothing"),
    (changed("n-samples", to=...), "is no result file"),
    (changed("n-samples", to=[]), "`n-samples` is []"),
    (changed(*N, to=...), f"`n-samples.{CHAIN}.effective` is missing"),
    (changed(*N, to=7), f"`n-samples.{CHAIN}.effective` is missing"),
    (changed(*N, to={"effective": "many"}), f"`n-samples.{CHAIN}.effective` is 'many'"),
    (changed(*N, to={"effective": 0}), "no number of items"),
    (changed(*N, to={"effective": True}), "no number of items"),
    (changed("results", CHAIN, to=None), f"`results.{CHAIN}` is None"),
    (changed("results", CHAIN, to=[1]), f"`results.{CHAIN}` is [1]"),
    (changed(*SCORE, to=math.nan), f"`results.{CHAIN}.accuracy,none` is nan"),
    (changed(*SCORE, to=math.inf), "no finite number"),
    (changed(*SCORE, to=10**400), "no finite number"),
    (json.dumps(FILE).replace("0.75", "1" + "0" * 5000), "is no JSON"),
    (changed(*SCORE, to="0.75"), "is '0.75', which is no number"),
    (changed(*SCORE, to=True), "is True, which is no number"),
    (changed(*SCORE, to=None), "is None, which is no number"),
    (changed(*SCORE, to={}), "is {}, which is no number"),
    (changed(*SCORE, to=75.0), "is 75, and a share lies between 0 and 1"),
    (changed("results", CHAIN, "accuracy_stderr,none", to=math.nan), "accuracy_stderr,none` is nan"),
    (changed("results", CHAIN, "accuracy_stderr,none", to=-1), "below 0"),
    (changed("config", to=[]), "`config` is []"),
    (changed("config", "limit", to="20"), "`config.limit` is '20'"),
    (changed("config", "limit", to=-3), "`config.limit` is -3"),
    (changed("config", "limit", to=2.5), "`config.limit` is 2.5"),
    (changed("configs", to="x"), "`configs` is 'x'"),
    (changed("group_subtasks", to=[CHAIN]), "`group_subtasks` is"),
    (changed("group_subtasks", to={CHAIN: [CHAIN]}), f"`group_subtasks.{CHAIN}` is"),
    (changed("group_subtasks", to={CHAIN: [3]}), "not a list of tasks"),
]


@pytest.mark.parametrize(("told", "message"), BROKEN)
def test_a_malformed_file_is_told_in_two_lines_before_anything_is_written(theirs, tmp_path, told, message):
    done = take(theirs(told), tmp_path)
    assert done.exit_code == 2 and message in done.output and done.exception.__class__ is SystemExit
    assert len(done.output.splitlines()) == 2 and "hint: " in done.output
    assert not (tmp_path / "tiny-safety").exists()


GOOD = json.dumps(sample(0, 1.0))
SAMPLES = [
    (GOOD + "\n" + GOOD[:40], ":2: is no JSON"),
    ("[]", ":1: is []"),
    ("[" * 100_000, ":1: is no JSON"),
    (json.dumps({**sample(0, 1.0), "doc_id": "x"}), "`doc_id` is 'x'"),
    (json.dumps({**sample(0, 1.0), "doc_id": 2**63}), "no item's number"),
    (json.dumps({**sample(0, 1.0), "metrics": "accuracy"}), "`metrics` is 'accuracy'"),
    (json.dumps({**sample(0, 1.0), "metrics": [{}]}), "`metrics` is [{}]"),
    (json.dumps(sample(0, 10**400)), "too large"),
    (GOOD + "\n" + GOOD, ":2: item 0 stands there twice"),
]


@pytest.mark.parametrize(("text", "message"), SAMPLES)
def test_malformed_samples_are_told_with_their_line(theirs, tmp_path, text, message):
    done = take(theirs(lines={CHAIN: text}), tmp_path)
    assert done.exit_code == 2 and message in done.output and f"samples_{CHAIN}" in done.output
    assert len(done.output.splitlines()) == 2 and not (tmp_path / "tiny-safety").exists()


@pytest.mark.parametrize(
    "line",
    [{}, {"arguments": None}, {"arguments": 3}, {"arguments": [[]]}, {"arguments": {"a": 1}},
     {"resps": 3}, {"filtered_resps": "x", "resps": None}, {"target": {"a": 1}}, {"accuracy": "x"}],
)  # fmt: skip
def test_odd_samples_are_taken_as_far_as_they_go(theirs, tmp_path, line):
    done = take(theirs(lines={CHAIN: [{"doc_id": 0, **line}]}), tmp_path)
    assert done.exit_code == 0, done.output


def test_a_damaged_row_of_the_store_is_told(theirs, tmp_path):
    assert take(theirs(), tmp_path).exit_code == 0
    (file,) = tmp_path.rglob("row.json")
    file.write_text("{")
    done = take(theirs(), tmp_path)
    assert done.exit_code == 2 and "row.json cannot be read" in done.output


def test_a_row_that_does_not_fit_is_named_with_how_to_delete_it(theirs, tmp_path):
    assert take(theirs(), tmp_path).exit_code == 0
    (row,) = rows(tmp_path, "tiny_chain")
    ours = BoardRow("base", "base", None, {}, "", copy.deepcopy(row.cells))
    (cell,) = ours.cells.values()
    cell.settings["limit"], cell.imported = 9, False
    with pytest.raises(HarnessError) as caught:
        mixing.check(headings_of(named(["tiny_chain"])), [ours, row])
    assert "limit 4 instead of 9" in caught.value.message
    assert "`harness clean --rows 'our-model'` deletes what was imported" in caught.value.hint


def test_an_imported_row_can_be_deleted(theirs, tmp_path):
    for label in ("one", "two"):
        assert take(theirs(), tmp_path, "--as", label).exit_code == 0
    clean = ["clean", "--results", str(tmp_path), "--rows"]
    done = CliRunner().invoke(main, [*clean, "one"])
    assert done.exit_code == 0 and "1 folders" in done.output
    assert [row.label for row in rows(tmp_path)] == ["two"]
    assert CliRunner().invoke(main, [*clean, "one"]).exit_code == 2


@pytest.mark.slow
def test_what_lm_eval_writes_is_seen_in_table_and_page(tmp_path, monkeypatch):
    file = evaluated(tmp_path / "out", "harness_tiny_refusal,harness_tiny_facts_mc", 4)
    monkeypatch.chdir(tmp_path)
    asked = ("--methods", "linear", "--tasks", "tiny_refusal,tiny_facts_mc", "--limit", "4")
    assert CliRunner().invoke(main, ["compare", *asked]).exit_code == 0
    taken = take(file, "results", "--as", "theirs")
    assert taken.exit_code == 0 and "tiny_refusal (refused), tiny_refusal (complied)" in taken.output
    assert "without samples" not in taken.output
    shown = CliRunner().invoke(main, ["report", *asked])
    assert shown.exit_code == 0, shown.output
    report = Path("results/tiny-safety/report")
    for text in (shown.output, (report / "table.md").read_text()):
        line = next(one for one in text.splitlines() if "theirs" in one)
        assert "‡" in line and "100.0" in line and "best" not in line
    assert "imported; its file does not tell: profile, task definition" in shown.output
    found = re.findall(r'id="block-([^"]+)">([^<]+)<', (report / "index.html").read_text())
    blocks = {name: zlib.decompress(base64.b64decode(text), -15).decode() for name, text in found}
    assert json.loads(blocks["t0-index"])["rows"][-1] == "theirs"
    for block in ("t0-0", "t1-0"):  # the same questions, and the same answers as the reasoning expert's here
        for item in json.loads(blocks[block]):
            assert len(item["prompts"]) == 1
            ours, others = item["answers"][1], item["answers"][-1]
            assert others.get("texts") == ours.get("texts")
            assert [c[0] for c in others.get("choices", [])] == [c[0] for c in ours.get("choices", [])]
