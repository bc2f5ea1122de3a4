"""Families that extend families: what is inherited, where an error is told, whose folder a path starts at."""

import pytest

from harness.errors import HarnessError
from harness.family import load_family, parse_family
from harness.family.members import Calibration

PARENT = """\
title: parent
base: ./models/base
experts:
  reasoning: ./models/r1
  task: {model: org/task, label: bio}
calibration:
  task: {data: rows.jsonl, text: "{a}{eos}{b}", official: {data: other.jsonl}}
calibration_sets:
  task:
    wide: {data: wide.jsonl, text: "{a}", n: 5}
tasks: [tiny_chain]
generation:
  merge: {max_gen_toks: 64, do_sample: false}
methods:
  ties: {density: 0.2, scale: 0.5}
  dare: {density: 0.1}
"""


@pytest.fixture
def files(tmp_path):
    """files(text, name) writes a family file; the parent's lies in a folder of its own."""
    (tmp_path / "lib" / "models" / "base").mkdir(parents=True)

    def write(text, name="child.yaml"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    write(PARENT, "lib/parent.yaml")
    return write


def child(files, text):
    return parse_family(files(f"extends: lib/parent.yaml\n{text}"))


def test_mappings_are_merged_key_by_key_and_all_else_replaced(files):
    text = "title: mine\ntasks: [tiny_facts]\ngeneration: {merge: {max_gen_toks: 8}}\n"
    family = child(files, text + "methods: {ties: {scale: 1}}")
    assert (family.name, family.title, family.tasks) == ("child", "mine", ["tiny_facts"])
    assert family.generation_for("merge") == {"max_gen_toks": 8, "do_sample": False}
    assert [(r.label, r.settings) for r in family.rows()] == [
        ("ties", {"density": 0.2, "scale": 1}),
        ("dare", {"density": 0.1}),
    ]
    assert family.label("task") == "bio" and family.roles == ("reasoning", "task")


def test_an_inherited_row_is_left_out_with_false(files):
    assert [row.label for row in child(files, "methods: {ties: false}").rows()] == ["dare"]


def test_paths_start_at_the_file_that_names_them(files, tmp_path):
    family = child(files, "experts: {reasoning: ./r1}\n")
    assert family.base == str(tmp_path / "lib" / "models" / "base")
    assert family.model_path("base") == tmp_path / "lib" / "models" / "base"
    with pytest.raises(HarnessError) as caught:
        family.model_path("reasoning")
    assert str(tmp_path / "r1") in caught.value.message
    rows = family.calibration["task"]
    assert rows.data == str(tmp_path / "lib" / "rows.jsonl")
    assert rows.in_profile("official").data == str(tmp_path / "lib" / "other.jsonl")
    assert family.experts["task"].model == "org/task"


def test_a_model_takes_the_place_of_an_inherited_recipe_and_the_other_way_round(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("extends: qwen7b-safety\nexperts: {task: {model: ./safe}}\n")
    task = parse_family(path).experts["task"]
    assert (task.model, task.train, task.label) == ("./safe", None, "safety")
    path.write_text("extends: qwen7b-biomedicine\nexperts: {task: {train: {base: org/b, data: d.jsonl}}}\n")
    task = parse_family(path).experts["task"]
    assert task.model is None and task.train.base == "org/b"


def test_files_of_files_are_followed(files, tmp_path):
    files("extends: parent\ntitle: middle\n", "lib/middle.yaml")
    family = parse_family(files("extends: lib/middle.yaml\nseed: 3\n"))
    assert (family.title, family.seed) == ("middle", 3)
    assert family.base == str(tmp_path / "lib" / "models" / "base")


def test_bases_are_no_families(workdir):
    from harness import registry

    assert not [name for name in registry.find("families") if name.startswith("_")]
    with pytest.raises(HarnessError, match="no family is called `_safety`"):
        load_family("_safety")


@pytest.mark.parametrize(
    ("parent", "text", "at", "hint"),
    [
        ("tasks:", "base: x/y", "lib/parent.yaml:11: unknown key `taks`", "`tasks`"),
        ("label: bio", "base: x/y", "lib/parent.yaml:5: unknown key `experts.task.lable`", "`label`"),
        ("seed: 1", "seed: many", "child.yaml:2: `seed` is 'many'", ""),
        ("", "methods: {ties: 3}", "child.yaml:2: `methods.ties", ""),
        ("", "calibration: {task: {txt: y}}", "child.yaml:2: unknown key `calibration.task.txt`", "text"),
        ("", "calibration: {task: wyde}", "child.yaml:2: `task` has no calibration set", "`wide`"),
        ("", "calibration: {reasoning: wide}", "`reasoning` has no calibration set", "calibration_sets"),
        ("", "experts: {task: {on: x/y, train: {base: a/b, data: c.jsonl}}}", "child.yaml:2", ""),
        ("", "rows: {bio: org/x}", "another row's label", ""),
        ("", "rows: {ties: org/x}", "another row's label", ""),
        ("", "paper: qwen8b", "child.yaml:2: `paper` is 'qwen8b'", ""),
        ("", "name: x", "child.yaml:2: key `name` is not yours", ""),
    ],
)  # fmt: skip
def test_errors_name_the_file_and_line_that_hold_the_key(files, parent, text, at, hint):
    typos = {"tasks:": "taks:", "label: bio": "lable: bio"}
    files(PARENT.replace(parent, typos.get(parent, parent)) if parent else PARENT, "lib/parent.yaml")
    with pytest.raises(HarnessError) as caught:
        child(files, text)
    assert at in caught.value.message, caught.value.message
    assert hint in caught.value.hint and caught.value.hint


@pytest.mark.parametrize(
    ("name", "fact", "hint"),
    [
        ("qwen7b-safty", "child.yaml:1: no family is called `qwen7b-safty`", "did you mean `qwen7b-safety`?"),
        ("./gone.yaml", "child.yaml:1: no family file at", "starts at the file"),
        ("[a, b]", "child.yaml:1: `extends` is ['a', 'b']", "a family's name"),
        ("child", "goes in a circle: child.yaml → child.yaml", "another one"),
    ],
)
def test_what_cannot_be_extended(files, name, fact, hint):
    with pytest.raises(HarnessError) as caught:
        parse_family(files(f"extends: {name}\n"))
    assert fact in caught.value.message and hint in caught.value.hint


def test_a_circle_is_told_with_all_its_files(files):
    files("extends: b\n", "lib/a.yaml")
    b = files("extends: c\n", "lib/b.yaml")
    files("extends: b\n", "lib/c.yaml")
    with pytest.raises(HarnessError, match="b.yaml → c.yaml → b.yaml"):
        parse_family(b.parent / "a.yaml")


def test_a_calibration_set_is_chosen_by_name(files, tmp_path):
    chosen = child(files, "calibration: {task: wide}").calibration["task"]
    assert chosen == Calibration(data=str(tmp_path / "lib" / "wide.jsonl"), text="{a}", n=5)
    family = child(files, "seed: 1")
    assert family.with_calibration("task", "wide").calibration["task"] == chosen
    with pytest.raises(HarnessError, match="no calibration set called `wyde`"):
        family.with_calibration("task", "wyde")


def test_revisions_stand_behind_the_name(files):
    from harness.family.pins import pins

    told = pins(child(files, "base: org/base@v1.0\nrows: {old: org/merge}"))
    assert told["base"] == "org/base @ v1.0" and told["row old"] == "org/merge, not pinned"
    assert told["task"] == "org/task, not pinned" and told["reasoning"].endswith("models/r1")
