"""The implementation details: facts of a plan, in whole sentences, and nothing that is not known."""

import copy
import json
import re
from pathlib import Path

import boards
import pytest
import yaml

from harness import registry
from harness.board import Board, make_board
from harness.details import details_of
from harness.family import load_family, parse_family
from harness.planner import make_plan
from harness.store import Store
from harness.typeset import paragraphs

FAMILIES = Path(__file__).parent.parent.parent / "harness" / "families"


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    return make_plan(
        load_family("tiny-safety"), Store(tmp_path_factory.mktemp("r"), "tiny-safety"), prepare=True
    )


def prose(board):
    return "\n".join(text for _, text in paragraphs(board))


def test_the_details_of_a_plan_are_the_familys(plan):
    told = details_of(plan)
    given = yaml.safe_load((FAMILIES / "tiny-safety.yaml").read_text())
    assert [m["model"] for m in told["models"]] == ["tiny/base", "tiny/reasoning", "tiny/safety"]
    assert not any(m["hub"] for m in told["models"]), "a folder beside the family is not on the hub"
    wanted = [{k: v for k, v in (spec or {}).items() if k != "method"} for spec in given["methods"].values()]
    assert [m["settings"] for m in told["merges"]] == wanted
    assert [t["name"] for t in told["tasks"]] == given["tasks"]
    assert {(c["role"], c["n"], c["max_tokens"]) for c in told["calibration"]} == {
        ("reasoning", 100, 512),
        ("task", 100, 512),
    }
    assert told["calibration"][0]["for"] == [m["row"] for m in told["merges"] if m["statistics"]]
    assert told["engines"] == [{"engine": plan.engine, "dtype": "float32"}] and told["seed"] == 0
    assert json.loads(json.dumps(told)) == told


def test_a_board_carries_them(plan):
    board = make_board(plan)
    assert board.details == details_of(plan)
    text = prose(board)
    assert "The base model is `tiny/base` (a local checkpoint)." in text
    assert "TIES (arXiv:2306.01708) with density = 0.4 and scale = 1.5; TIES (paper) with" in text
    assert "Linear (arXiv:2203.05482) without settings of its own" in text


def test_pinned_and_unpinned_revisions_are_told_apart(tmp_path):
    file = tmp_path / "mine.yaml"
    spec = yaml.safe_load((FAMILIES / "tiny-safety.yaml").read_text())
    for key in ("reasoning", "task"):
        spec["calibration"][key]["data"] = "rows.jsonl"
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 100)
    spec["base"] = str(FAMILIES / "tiny/base")
    spec["experts"] = {"reasoning": str(FAMILIES / "tiny/reasoning"), "task": str(FAMILIES / "tiny/safety")}
    spec["calibration"]["task"]["seed"] = 3
    spec["methods"] = {"reasonany": None}
    file.write_text(yaml.safe_dump(spec))
    store = Store(tmp_path / "r", "mine")
    plan = make_plan(parse_family(file), store, prepare=True)
    (store.root / "family.lock.yaml").write_text(
        yaml.safe_dump({"models": {"base": {"model": "org/base", "revision": "c0ffee", "sha256": "ab" * 32}}})
    )
    text = prose(Board("f", "t", [], [], [], details=details_of(plan)))
    assert "The base model is `org/base` (revision `c0ffee`)." in text
    assert "are 100 rows (seed 3) of `rows.jsonl`" in text and "ReasonAny (arXiv:2601.05560) without" in text


def test_what_is_not_known_is_not_told():
    assert paragraphs(Board("f", "t", [], [], [])) == []
    told = copy.deepcopy(boards.DETAILS)
    for gone in ("merges", "calibration", "decoding", "chat_template", "versions", "engines", "seed"):
        del told[gone]
    headings = [heading for heading, _ in paragraphs(Board("f", "t", [], [], [], details=told))]
    assert headings == ["Models", "Benchmarks"]


@pytest.mark.parametrize("board", [boards.rich, boards.wide, boards.hostile])
def test_sentences_are_whole(board):
    for heading, text in paragraphs(board()):
        assert text.endswith(".") and not re.search(r"\bNone\b|\bnull\b|\(\)|  |\.\.|,\.| ,|\{\}", text), (
            heading
        )
        assert text.count("(") == text.count(")") or board is boards.hostile


def test_decoding_says_who_decodes_how():
    told = copy.deepcopy(boards.DETAILS)
    text = prose(Board("f", "t", [], [], [], details=told))
    assert "The base model and the safety expert decode greedily with at most 4096 new tokens." in text
    assert (
        "The reasoning expert and the merges decode by sampling at temperature 0.6 and top-p 0.95 with"
        in text
    )
    told["tasks"][1]["own_decoding"] = True
    assert "Whatever the model, SafeChain is decoded greedily." in prose(
        Board("f", "t", [], [], [], details=told)
    )
    told["decoding"] = [{"rows": ["base", "reasoning", "merges"], "settings": {}}]
    text = prose(Board("f", "t", [], [], [], details=told))
    assert "All models decode as each benchmark says: GSM8K greedily with at most 4096 new tokens and" in text


def test_no_details_no_files(tmp_path):
    assert registry.report("details")(Board("f", "t", [], [], []), tmp_path) == []
    assert not list(tmp_path.iterdir())
