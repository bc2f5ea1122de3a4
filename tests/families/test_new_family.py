"""`harness new family`: what is written passes as a family; what would not is told and leaves no file."""

import shutil
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.family import load_family, parse_family
from harness.planner import make_plan
from harness.store import Store
from harness.verbs.new_family import Wanted, new_family, pairs, reference


@pytest.fixture
def here(workdir):
    """A working folder with models and rows of one's own."""
    import harness.families.tiny as tiny

    for name in ("base", "reasoning"):
        shutil.copytree(Path(tiny.__file__).parent / name, workdir / "models" / name)
    rows = "".join(f'{{"question": "q{i}?", "answer": "a{i}"}}\n' for i in range(100))
    (workdir / "rows.jsonl").write_text(rows)
    return workdir


def given(**more):
    return Wanted(base="models/base", experts={"reasoning": "models/reasoning"}, **more)


def test_the_file_is_found_by_name_and_plans(here):
    wanted = given(title="mine: all", calibration={"reasoning": "rows.jsonl"}, tasks=["tiny_chain"])
    path = new_family("mine", None, wanted)
    assert path == Path("families/mine.yaml") and reference(path) == "mine"
    family = load_family("mine")
    assert family.title == "mine: all" and family.model_path("base") == here / "models" / "base"
    rows = family.calibration["reasoning"]
    assert (rows.text, rows.completion) == ("{question}{answer}", "{answer}")
    plan = make_plan(family, Store(here / "results", "mine"), methods=["task_arithmetic"])
    assert [row.label for row in plan.rows] == ["base", "reasoning", "Task Arithmetic"]
    text = path.read_text()
    assert text.count("#") >= 8 and "docs/families.md" in text


def test_it_builds_on_another_family(here):
    path = new_family("own", None, Wanted(extends="qwen7b-safety", base="models/base"))
    family = parse_family(path)
    assert family.base == "../models/base" and family.paper == "qwen7b-safety" and len(family.rows()) == 10
    second = new_family("second", here / "second.yaml", Wanted(extends=str(path), title="2"))
    assert parse_family(second).model_path("base") == here / "models" / "base"


def test_absolute_paths_and_hub_ids_stay_as_they_are(here):
    experts = {"reasoning": "org/r1@v2", "task": str(here / "models" / "reasoning")}
    family = parse_family(new_family("mine", None, Wanted(base="org/base", experts=experts)))
    assert {role: e.model for role, e in family.experts.items()} == experts and family.base == "org/base"


def test_what_is_lacking_is_asked_where_a_person_can_answer(here):
    answers = {
        "base": "models/base",
        "reasoning expert": "models/reasoning",
        "tasks": "tiny_chain, tiny_facts",
    }

    def ask(question, default):
        return next((told for start, told in answers.items() if question.startswith(start)), default)

    family = parse_family(new_family("mine", None, Wanted(), ask))
    assert (family.title, family.roles) == ("mine", ("reasoning",)) and family.calibration == {}
    assert family.tasks == ["tiny_chain", "tiny_facts"]


@pytest.mark.parametrize(
    ("name", "wanted", "fact", "hint"),
    [
        ("zz", Wanted(), "`zz` lacks --base and --expert", "--extends"),
        ("a/b", given(), "cannot be called `a/b`", "letters"),
        ("_zz", given(), "cannot be called `_zz`", "letters"),
        ("qwen7b-safety", given(), "is called `qwen7b-safety` already", "--extends qwen7b-safety"),
        ("zz", Wanted(base="./gone", experts={"task": "a/b"}), "no checkpoint at", "hub id"),
        ("zz", Wanted(extends="tiny-safty"), "no family is called `tiny-safty`", "`tiny-safety`"),
        ("zz", given(tasks=["gsm8"]), "no task is called `gsm8`", "`gsm8k`"),
        ("zz", given(calibration={"bio": "a/b"}), "names the role 'bio'", ""),
        ("zz", Wanted(base="a/b", experts={"base": "a/b"}), "cannot be called `base`", ""),
    ],
)
def test_what_is_no_family_is_told_and_not_left_behind(here, name, wanted, fact, hint):
    with pytest.raises(HarnessError) as caught:
        new_family(name, None, wanted)
    assert fact in caught.value.message and hint in caught.value.hint and caught.value.hint
    assert not list(here.glob("families/*"))


def test_nothing_is_overwritten(here):
    path = new_family("mine", None, given())
    before = path.read_bytes()
    for name in ("mine", "other"):
        with pytest.raises(HarnessError, match="exists"):
            new_family(name, path, given())
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["no sign", "=x", "role=", "two words=x"])
def test_options_by_role_are_checked(text):
    with pytest.raises(HarnessError, match="is not ROLE=VALUE"):
        pairs([text], "--expert")


def test_a_role_is_given_once():
    assert pairs(["task=a/b", "reasoning=c=d"], "--expert") == {"task": "a/b", "reasoning": "c=d"}
    with pytest.raises(HarnessError, match="given twice"):
        pairs(["task=a", "task=b"], "--expert")


@pytest.mark.parametrize("name", ["no", "on", "true", "1.5", "a: b", "x # y", '"q"', "null", "ü"])
def test_any_title_comes_back_as_it_was(here, name):
    assert parse_family(new_family("mine", None, given(title=name))).title == name
