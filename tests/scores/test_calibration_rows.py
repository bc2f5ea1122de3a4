"""Where calibration text comes from, and what happens when it does not."""

import json

import pytest

from harness import HarnessError
from harness.family import Calibration
from harness.scores import load_rows

ROWS = [{"question": f"q{i} ?", "answer": [{"text": f"a{i}"}], "n": i} for i in range(10)]


def spec(data, **settings):
    return Calibration(**{"data": str(data), "text": "{question} {answer[0][text]}", "n": 3, **settings})


def write(folder, suffix):
    path = folder / f"rows{suffix}"
    if suffix == ".json":
        path.write_text(json.dumps(ROWS))
    elif suffix == ".jsonl":  # a line separator inside a string is not the end of a line
        path.write_text(
            "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS) + "\n\n", encoding="utf-8"
        )
    elif suffix == ".csv":
        path.write_text("\ufeffquestion,answer\r\n" + "".join(f'q{i} ?,"a{i}, ""b"""\r\n' for i in range(10)))
    else:
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_files_are_read_from_their_beginning(tmp_path, suffix):
    write(tmp_path, suffix)
    assert load_rows(spec(f"rows{suffix}"), tmp_path) == [{"text": f"q{i} ? a{i}"} for i in range(3)]


def test_csv(tmp_path):
    path = write(tmp_path, ".csv")
    assert load_rows(spec(path, text="{question}|{answer}"))[1] == {"text": 'q1 ?|a1, "b"'}


def test_line_separators_inside_a_string_do_not_end_a_row(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"question": "a\u2028b\x85c"}, ensure_ascii=False), encoding="utf-8")
    assert load_rows(spec(path, text="{question}", n=1)) == [{"text": "a\u2028b\x85c"}]


def test_a_completion_splits_the_text(tmp_path):
    path = write(tmp_path, ".jsonl")
    rows = load_rows(spec(path, text="{question} so {n}{n}", completion="{n}"))
    assert rows[2] == {"prompt": "q2 ? so 2", "completion": "2"}


def test_a_seed_draws_other_rows_and_always_the_same(tmp_path):
    path = write(tmp_path, ".jsonl")
    one, again, other = (load_rows(spec(path, seed=seed, n=4)) for seed in (1, 1, 2))
    assert one == again != other and len({row["text"] for row in one}) == 4
    assert len({row["text"] for row in load_rows(spec(path, seed=1, n=10))}) == 10


def test_a_function_gets_n_and_seed_and_its_name():
    of = "harness.families.tiny.data:calibration"
    rows = load_rows(
        spec(of, name="reasoning", text="{prompt}{completion}", completion="{completion}", seed=5)
    )
    other = load_rows(
        spec(of, name="reasoning", text="{prompt}{completion}", completion="{completion}", seed=6)
    )
    assert len(rows) == 3 and rows != other and all(set(row) == {"prompt", "completion"} for row in rows)


def test_a_hub_data_set_is_asked_for_by_name_split_and_revision(monkeypatch):
    import datasets

    asked = []

    def load_dataset(*args, **kwargs):
        asked.append((args, kwargs))
        return datasets.Dataset.from_list(ROWS)

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = load_rows(spec("org/data@v1", name="main", split="validation"))
    assert rows[0] == {"text": "q0 ? a0"}
    assert load_rows(spec("org/data", seed=3)) != rows
    assert asked[0] == (("org/data", "main"), {"split": "validation", "revision": "v1"})
    assert asked[1] == (("org/data", None), {"split": "train", "revision": None})


def test_a_hub_data_set_that_cannot_be_had_is_two_lines():
    with pytest.raises(HarnessError) as caught:
        load_rows(spec("no-such-org/no-such-data"))
    assert "cannot load calibration data `no-such-org/no-such-data`" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(("content", "settings", "message"), [
    (None, {}, "no calibration file at"),
    ('{"question": "a"', {}, "rows.jsonl:"),
    ('["a", "b"]', {}, 'row 0 is ["a", "b"]'),
    ('{"frage": "a"}', {"text": "{question}", "n": 1}, "calibration row 0 of"),
    ('{"question": "a"}', {"text": "{question}"}, "has 1 rows; n is 3"),
    ('{"question": " "}', {"text": "{question}", "n": 1}, "calibration row 0 of"),
    ('{"question": "a"}', {"text": "{question[0][x]}", "n": 1}, "does not fit row 0"),
    ('{"question": "a"}', {"text": "{question", "n": 1}, "does not fit row 0"),
    ('{"question": "a", "n": 1}', {"text": "{question}", "completion": "{n}", "n": 1}, "does not end in its"),
])  # fmt: skip
def test_bad_data_is_said_in_two_lines(tmp_path, content, settings, message):
    path = tmp_path / "rows.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(HarnessError) as caught:
        load_rows(spec(path, **settings))
    assert message in caught.value.message and len(str(caught.value).splitlines()) == 2


def test_wrong_encodings_and_shapes_of_files(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes('{"question": "é"}'.encode("latin-1"))
    (tmp_path / "rows.json").write_text('{"data": []}')
    (tmp_path / "rows.parquet").write_bytes(b"not parquet")
    for suffix in (".jsonl", ".json", ".parquet"):
        with pytest.raises(HarnessError) as caught:
            load_rows(spec(tmp_path / f"rows{suffix}"))
        assert f"rows{suffix}" in caught.value.message


@pytest.mark.parametrize(("data", "message", "hint"), [
    ("no_such_package.mod:rows", "cannot import `no_such_package.mod`", "installed"),
    ("harness.families.tiny.data:calibratoin", "has no function `calibratoin`", "`calibration`"),
    ("just some words", "calibration data is `just some words`", "org/name"),
])  # fmt: skip
def test_references_that_lead_nowhere(data, message, hint):
    with pytest.raises(HarnessError) as caught:
        load_rows(spec(data))
    assert message in caught.value.message and hint in caught.value.hint


def test_what_a_generator_refuses_is_passed_on():
    with pytest.raises(HarnessError, match="unknown role `biology`"):
        load_rows(spec("harness.families.tiny.data:calibration", name="biology", text="{prompt}"))
