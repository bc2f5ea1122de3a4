"""Official files as they come, and malformed ones: two lines that name file, row and field."""

import gzip
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from harness.data import Source, load
from harness.data.parse import content_of, rows_of, stream
from harness.data.read import count
from harness.errors import HarnessError

ROWS = [{"id": str(n), "question": f"Wie groß?\u2028{n}", "answer": n, "tags": ["a", "b"]} for n in range(3)]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def same(row):
    return row


def dump(row):
    return json.dumps(row, ensure_ascii=False)


@pytest.fixture
def put(copy):
    folder = copy / "sums"
    folder.mkdir(parents=True)

    def write(name, data):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return folder / name

    return write


def sums(name="test.jsonl", **changes):
    given = {"fields": ("question", "answer"), "id": "id"} | changes
    return Source("sums", {"test": [name]}, **given)


def told(source, row=same, whole=False):
    with pytest.raises(HarnessError) as error:
        load(source, "test", row, whole)
    assert len(str(error.value).splitlines()) == 2 and error.value.hint
    return error.value.message


LINES = "".join(dump(row) + "\n" for row in ROWS)
PACKED = gzip.compress(LINES.encode(), mtime=0)  # no time in it: it is part of the names of tests
CSV = 'id,question,answer\r\n0,"one, ""two""\r\nthree",1\r\n1,zwei,2\r\n'


@pytest.mark.parametrize(
    "name, data",
    [
        ("test.jsonl", LINES),
        ("test.jsonl", LINES.replace("\n", "\r\n").encode()),
        ("test.jsonl", b"\xef\xbb\xbf" + LINES.encode()),
        ("test.jsonl", "\n" + LINES.rstrip("\n") + "\n\n  \n"),
        ("test.jsonl.gz", PACKED),
        ("test.json", "\ufeff" + json.dumps(ROWS, indent=1)),
        ("test.json", LINES),
        ("test.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0)),
        ("TEST.JSON", json.dumps(ROWS)),
    ],
    ids=["lines", "CRLF", "BOM", "blank lines", "gz", "json BOM", "lines in json", "json gz", "upper case"],
)
def test_the_same_rows_however_they_are_written(put, name, data):
    put(name, data)
    assert load(sums(name), "test", same) == ROWS


def test_csv_tsv_parquet_and_text(put):
    first = {"id": "0", "question": 'one, "two"\r\nthree', "answer": "1"}
    wanted = [first, {"id": "1", "question": "zwei", "answer": "2"}]
    tabs = CSV.replace(",", "\t").replace("one\t", "one,")
    for name, data in (("t.csv", CSV), ("t.csv", "\ufeff" + CSV), ("t.tsv", tabs)):
        put(name, data)
        assert load(sums(name), "test", same) == wanted
    path = put("t.parquet", b"")
    choices = {"text": ["a"], "label": ["A"]}
    nested = [{"id": str(n), "question": "q", "answer": n, "choices": choices} for n in range(3000)]
    pq.write_table(pa.Table.from_pylist(nested), path)
    assert load(sums("t.parquet"), "test", same) == nested
    put("t.txt", "all of it")
    assert rows_of(path.with_name("t.txt")) == [{"text": "all of it"}]


def test_rows_by_key_get_their_key(put):
    path = put("t.json", '{"7": {"a": 1}, "8": {"a": 2}}')
    assert rows_of(path) == [{"a": 1, "_key": "7"}, {"a": 2, "_key": "8"}]
    assert content_of(path) == {"7": {"a": 1}, "8": {"a": 2}}
    assert rows_of(put("one.json", '{"dev": [1], "version": 2}')) == [{"dev": [1], "version": 2}]


def test_several_files_are_read_in_order_of_name(put):
    for n in (1, 0, 2):
        put(f"part-{n}.jsonl", dump(ROWS[n]) + "\n")
    assert load(sums("part-*.jsonl"), "test", same) == ROWS
    put("part-3.jsonl", dump(ROWS[0]))
    message = told(sums("part-*.jsonl"))
    assert 'part-3.jsonl:1: `id` "0" stands already in ' in message and "part-0.jsonl:1" in message


@pytest.mark.parametrize(
    "name, data, fact",
    [
        ("t.jsonl", "", "is empty"),
        ("t.jsonl", " \r\n\t\n", "is empty"),
        ("t.json", "  \n", "is empty"),
        ("t.csv", "", "is empty"),
        ("t.csv", "\n\n", "is empty"),
        ("t.csv", "id,question,answer\n", "holds no rows"),
        ("t.json", "[]", "holds no rows"),
        ("t.json", "{}", "holds no rows"),
        ("t.json", "3", "holds int, not rows"),
        ("t.json", '"text"', "holds str, not rows"),
        ("t.json", '{"a": ', "t.json:1: not JSON"),
        ("t.json", "[1,\n2\n3]", "t.json:3: not JSON"),
        ("t.json", '{"a": {}, "b": {}, "a": {}}', "key `a` stands in rows 1 and 3"),
        ("t.json", "[" * 100_000, "t.json: not JSON"),
        ("t.jsonl", LINES + '{"id": \n', "t.jsonl:4: not JSON"),
        ("t.jsonl", LINES + "1" * 5000 + "\n", "t.jsonl:4: not JSON"),
        ("t.jsonl", LINES + "[1, 2]\n", "t.jsonl:4 is list, not fields with values"),
        ("t.jsonl", LINES + "null\n", "t.jsonl:4 is NoneType, not fields with values"),
        ("t.jsonl", LINES.encode() + b'{"id": "\xe9"}\n', "t.jsonl:4: byte 0xe9 is not UTF-8"),
        ("t.jsonl", LINES.encode("utf-16"), "t.jsonl:1: byte 0xff is not UTF-8"),
        ("t.json", b'[\n{"id": "\xe9"}\n]', "t.json:2: byte 0xe9 is not UTF-8"),
        ("t.csv", b"id,question,answer\n0,q,1\n1,\xfc,2\n", "t.csv:3: byte 0xfc is not UTF-8"),
        ("t.jsonl", LINES + '{"id": "9", "question": "q"}\n', "4: field `answer` is missing; it has `id`,"),
        ("t.jsonl", LINES + '{"id": "9", "question": null}', "t.jsonl:4: field `question` is null"),
        ("t.jsonl", LINES + '{"question": "q", "answer": 1}', "t.jsonl:4: field `id` is missing"),
        ("t.jsonl", LINES + "{}", "t.jsonl:4: field `question` is missing; it has nothing"),
        ("t.jsonl", LINES + dump(ROWS[1]), '`id` "1" stands already in'),
        ("t.csv", "id,question,answer\n0,q,1\n1,q\n", "t.csv row 2 (to line 3): it has 2 columns, the"),
        ("t.csv", "id,question,answer\n0,q,1,2\n", "t.csv row 1 (to line 2): it has 4 columns"),
        ("t.csv", 'id,question,answer\n0,q,"1\n1,q,2\n', "t.csv row 1 (to line 3): unexpected end of data"),
        ("t.csv", "id,id,answer\n0,q,1\n", "two columns are called `id`"),
        ("t.csv", "question,answer\nq,1\n", "t.csv row 1: field `id` is missing; it has `question`"),
        ("t.parquet", b"PAR1 and no more", "t.parquet cannot be read: "),
        ("t.parquet", b"", "t.parquet cannot be read: "),
        ("t.jsonl.gz", b"no gzip", "t.jsonl.gz cannot be read: Not a gzipped file"),
        ("t.jsonl.gz", PACKED[:-30], "t.jsonl.gz cannot be read: "),
        ("t.jsonl.gz", PACKED[:20] + b"\xff" * 40, "t.jsonl.gz cannot be read: "),
        ("t.xlsx", "x", "`.xlsx` files are not read"),
        ("t", "x", "files are not read"),
    ],
)  # fmt: skip
def test_malformed_files(put, name, data, fact):
    path = put(name, data)
    message = told(sums(name))
    assert fact in message and str(path) in message and len(message) < 500


def test_duplicates_name_both_rows(put):
    put("t.jsonl", LINES + dump(ROWS[1]))
    message = told(sums("t.jsonl"))
    assert "t.jsonl:4" in message and "t.jsonl:2" in message
    put("t.json", json.dumps([*ROWS, ROWS[0]]))
    assert "t.json row 4" in (message := told(sums("t.json"))) and "t.json row 1" in message
    put("t.jsonl", LINES + dump({**ROWS[1], "answer": 7}))
    assert len(load(sums("t.jsonl", id=("id", "answer")), "test", same)) == 4
    assert '"1", 1 stands already' in told(sums("t.json", id=("id", "answer"))).replace('"0", 0', '"1", 1')


def test_a_parquet_cut_short_and_a_null_in_one(put):
    path, rows = put("t.parquet", b""), [ROWS[0], {**ROWS[1], "question": None}]
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert "t.parquet row 2: field `question` is null" in told(sums("t.parquet"))
    path.write_bytes(path.read_bytes()[:-40])
    assert "cannot be read" in told(sums("t.parquet"))


@pytest.mark.parametrize("name", ["t.jsonl", "t.json", "t.csv", "t.parquet", "t.jsonl.gz"])
def test_a_folder_and_a_dead_link_in_place_of_a_file(put, name):
    folder = put("other", b"").parent
    (folder / name).mkdir()
    assert str(folder / name) in told(sums(name))
    (folder / name).rmdir()
    (folder / name).symlink_to(folder / "gone")
    message = told(sums(name))
    assert str(folder / name) in message and "cannot be read" in message


def test_a_link_is_followed(put, tmp_path):
    put("other", b"")
    (tmp_path / "real.jsonl").write_text(LINES)
    (tmp_path / "data" / "sums" / "test.jsonl").symlink_to(tmp_path / "real.jsonl")
    assert load(sums(), "test", same) == ROWS


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(put):
    put("test.jsonl", LINES).chmod(0)
    assert "test.jsonl cannot be read: Permission denied" in told(sums())


def test_what_a_tasks_function_raises_is_told_with_the_row(put):
    put("t.jsonl", LINES)

    def at(error):
        def row(given):
            if given["id"] == "1":
                raise error
            return given

        return row

    assert told(sums("t.jsonl"), at(ValueError("no answer"))).endswith("t.jsonl:2: ValueError: no answer")
    assert told(sums("t.jsonl"), at(KeyError("gold"))).endswith("t.jsonl:2: field `gold` is missing")
    assert "t.jsonl:2: ZeroDivisionError" in told(sums("t.jsonl"), at(ZeroDivisionError("x")))
    assert told(sums("t.jsonl"), at(HarnessError("mine", "do this"))) == "mine"
    assert "t.jsonl:1: the task's function returned list" in told(sums("t.jsonl"), lambda row: [row])
    assert "no row of `sums` is left" in told(sums("t.jsonl"), lambda row: None)
    assert load(sums("t.jsonl"), "test", lambda row: row if row["id"] == "2" else None) == ROWS[2:]


def test_a_function_may_ask_for_the_split(put):
    put("t.jsonl", LINES)
    assert load(sums("t.jsonl"), "test", lambda row, split: {"split": split})[0] == {"split": "test"}


def test_whole_files(put):
    put("t.json", json.dumps({"items": ROWS}))
    source = Source("sums", {"test": ["t.json"]}, id="id")
    assert load(source, "test", lambda content, path: content["items"], True) == ROWS
    paths = [put("t.json", json.dumps({"items": ROWS}))]
    assert count(source, "test", paths, lambda content, path: content["items"], True) == 3
    assert "t.json: field `rows` is missing" in told(source, lambda content, path: content["rows"], True)
    assert 'task row 4: `id` "0" stands already' in told(source, lambda c, p: [*c["items"], ROWS[0]], True)
    assert "is str, not fields" in told(source, lambda content, path: ["text"], True)


def test_lines_are_streamed(put, monkeypatch):
    path = put("big.jsonl", LINES * 1000)
    monkeypatch.setattr(Path, "read_bytes", None)
    rows = stream(path)
    assert next(rows) == (f"{path}:1", ROWS[0]) and next(rows)[0] == f"{path}:2"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real rows are not part of the project")
def test_the_real_gsm8k_loads(copy):
    from harness import tasks

    (copy / "gsm8k").mkdir(parents=True)
    (copy / "gsm8k" / "test.jsonl").symlink_to(SHARED / "gsm8k" / "test_first300.jsonl")
    (task,) = tasks.named(["gsm8k"])
    made = load(task.source, "test", task.dataset().row)
    assert len(made) == 300 and all(row["question"] and row["answer"] for row in made)


@pytest.mark.parametrize(
    "given, fact",
    [
        ({"files": {"test": ["a"]}}, "`dataset_kwargs.benchmark` is missing"),
        ({"benchmark": "b"}, "`dataset_kwargs.files` is missing"),
        ({"benchmark": "b", "files": ["a"]}, "`dataset_kwargs.files` of `b` is ['a']"),
        ({"benchmark": "b", "files": {"test": []}}, "`dataset_kwargs.files.test` of `b` is []"),
        ({"benchmark": "b", "files": {"test": [3]}}, "is [3]"),
        ({"benchmark": "b", "files": {"test": ["../a"]}}, "names `../a`"),
        ({"benchmark": "b", "files": {"test": ["/etc/passwd"]}}, "names `/etc/passwd`"),
        ({"benchmark": "../b", "files": {"test": ["a"]}}, "names `../b`"),
        ({"benchmark": "b", "files": {"test": "a"}, "hub": "x/y", "url": "z"}, "names two places"),
        ({"benchmark": "b", "files": {"test": "a"}, "revison": "z"}, "`dataset_kwargs.revison` is not known"),
    ],
)
def test_a_source_that_is_written_wrongly(given, fact):
    with pytest.raises(HarnessError) as error:
        Source.of(given)
    assert fact in error.value.message and error.value.hint
