"""The family schema: what is wrong is told with file, line and key."""

import pytest

from harness.errors import HarnessError
from harness.family import load_family, parse_family

GOOD = """\
title: two experts
base: ./base
experts:
  reasoning: ./r1
  task: {model: ./t, label: safety}
methods:
  ties: {density: 0.2}
  "ties (paper)": {method: ties, density: 0.1}
"""


def write(tmp_path, text, name="fam.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def test_the_tiny_family_loads():
    family = load_family("tiny-safety")
    assert family.roles == ("reasoning", "task") and family.label("task") == "safety"
    assert all(family.model_path(role).is_dir() for role in ("base", *family.roles))


def test_rows_keep_the_files_order_and_take_their_method_from_label_or_key(tmp_path):
    rows = parse_family(write(tmp_path, GOOD)).rows()
    assert [(r.label, r.method, r.settings) for r in rows] == [
        ("ties", "ties", {"density": 0.2}),
        ("ties (paper)", "ties", {"density": 0.1}),
    ]


def test_without_methods_every_method_is_a_row(tmp_path):
    rows = parse_family(write(tmp_path, GOOD.split("methods:")[0])).rows()
    assert {"linear", "ties", "reasonany"} <= {row.method for row in rows}


@pytest.mark.parametrize(
    ("old", "new", "where", "hint"),
    [
        ("title: two", "titel: two", "fam.yaml:1: unknown key `titel`", "`title`"),
        ("label: safety", "lable: safety", "fam.yaml:5: unknown key `experts.task.lable`", "`label`"),
        ("base: ./base\n", "", "key `base` is missing", "`base`"),
        ("base: ./base", "base: [1]", "fam.yaml:2: `base` is [1]", ""),
        ("experts:\n  reasoning: ./r1\n  task: {model: ./t, label: safety}", "experts: {}", "fam.yaml:3", ""),
        ("base: ./base", "base: ./base\ntokenizer: nobody", "'nobody'", ""),
        ("base: ./base", "base: ./base\nbase: ./other", "key `base` stands twice", "line 2"),
        ("title: two experts", "title: [two", "fam.yaml:2:5", ""),
        ("base: ./base", "base: ./base\ncollapse: {ppl_ratio: 0.5}", "`collapse.ppl_ratio` is 0.5", ""),
        ("base: ./base", "base: ./base\ncalibration: {bio: {data: x, text: y}}", "'bio'", ""),
    ],
)
def test_errors_name_file_line_and_key(tmp_path, old, new, where, hint):
    assert old in GOOD
    with pytest.raises(HarnessError) as caught:
        parse_family(write(tmp_path, GOOD.replace(old, new)))
    assert where in caught.value.message, caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint


def test_numbers_in_scientific_form_are_numbers(tmp_path):
    rows = parse_family(write(tmp_path, GOOD.replace("density: 0.2", "density: 1e-2"))).rows()
    assert rows[0].settings == {"density": 0.01}


def test_a_missing_checkpoint_is_told_with_its_path(tmp_path):
    family = parse_family(write(tmp_path, GOOD))
    with pytest.raises(HarnessError) as caught:
        family.model_path("base")
    assert str(tmp_path / "base") in caught.value.message


def test_an_id_that_cannot_be_fetched_is_told_in_two_lines(tmp_path):
    family = parse_family(write(tmp_path, GOOD.replace("./base", "nobody/no-such-model")))
    with pytest.raises(HarnessError) as caught:
        family.model_path("base")
    assert "nobody/no-such-model" in caught.value.message and "\n" not in caught.value.message
