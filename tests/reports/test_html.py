"""What is written into a page, without a browser: nothing gets out of its data, and all of it is there."""

import base64
import json
import re
import zlib

import helpers_page
import pytest
from helpers_page import ASSETS, HOSTILE, LABELS, make, right, write_board

from harness import page, registry
from harness.page import document, pack
from harness.page.view import letter, probability, view


def unpacked(text):
    return json.loads(zlib.decompress(base64.b64decode(text), -15))


def data_of(html):
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])


def blocks_of(html):
    return dict(re.findall(r'<script type="text/plain" id="block-([\w-]+)">([A-Za-z0-9+/=]*)</script>', html))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    board, report = make(tmp_path_factory.mktemp("results"), texts=HOSTILE)
    paths = registry.report("html")(board, report)
    return board, paths, paths[0].read_text(encoding="utf-8")


def test_one_file_without_any_address(written):
    _, paths, html = written
    assert [path.name for path in paths] == ["index.html"]
    outside = re.sub(r"<script type=.*?</script>", "", html, flags=re.DOTALL)
    assert not re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?(?!data:|#)[a-z]+:""", outside)
    assert "http" not in outside.replace("http-equiv", "").replace("http://www.w3.org/2000/svg", "")


def test_the_policy_runs_our_script_and_no_other(written):
    html = written[2]
    told = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    rules = dict(part.split(" ", 1) for part in told.split("; "))
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in told and "*" not in told and "connect-src" not in told
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1 and document.hashed(scripts[0]) in rules["script-src"]
    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert len(styles) == 1 and document.hashed(styles[0]) in rules["style-src"]
    assert "style=" not in (ASSETS / "page.html").read_text()


def test_no_text_of_a_model_is_markup(written):
    html = written[2]
    for text in ("window.hit", "alert(1)", "example.org", "<b>a note", "<i>family"):
        assert text not in re.sub(r"<script type=.*?</script>", "", html, flags=re.DOTALL).replace(
            "&lt;i&gt;family", ""
        )
    data = re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1]
    assert "<" not in data and data.isascii() and not re.search(r"[\x00-\x1f]", data)
    assert json.loads(data)["boards"][0]["rows"][5]["label"] == LABELS[5]


def test_scripts_of_ours_have_no_way_to_make_markup_of_text():
    for path in ASSETS.glob("*.js"):
        text = path.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text
        )
        assert not re.search(r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(", text)
        assert "</script" not in text
        assert len(text.splitlines()) <= 300


def test_every_answer_is_in_the_page_as_it_was_stored(written):
    board, _, html = written
    data = data_of(html)
    blocks = blocks_of(html)
    task = data["tasks"]["gsm"]
    index = unpacked(blocks[task["index"]])
    items = [item for name in task["blocks"] for item in unpacked(blocks[name])]
    assert index["rows"] == LABELS and index["ids"] == [str(i) for i in range(20)] and len(items) == 20
    for i, text in enumerate(HOSTILE):
        assert [answer["texts"] for answer in items[i]["answers"]] == [[text]] * len(LABELS)
    assert len(task["blocks"]) > 1  # megabytes of text do not lie in one block
    starts = [0]
    for name in task["blocks"][:-1]:
        starts.append(starts[-1] + len(unpacked(blocks[name])))
    assert index["starts"] == starts
    for row, label in enumerate(LABELS):
        values = index["values"]["accuracy"][row]
        assert values == [int(right(label, i)) for i in range(20)]
        assert sum(values) / 20 == board.rows[row].cells["gsm", "accuracy"].value


def test_judges_choices_and_likelihoods(written):
    html = written[2]
    data, blocks = data_of(html), blocks_of(html)
    harm, mc, prose = (unpacked(blocks[data["tasks"][task]["blocks"][0]]) for task in ("harm", "mc", "prose"))
    assert harm[3]["answers"][0]["judged"] == [["answer", "verdict 3 <b>"]]
    assert unpacked(blocks[data["tasks"]["harm"]["index"]])["values"]["attack"][1] == [0] * 20
    assert mc[0]["answers"][1]["choices"] == [["yes", -1.0], ["no", -2.0]]
    assert prose[0]["answers"][0]["loglikelihood"] == "-23.5"


def test_origins_are_told_from_the_familys_folder_on(written):
    found = unpacked(blocks_of(written[2])["origins"])
    assert found["rows"]["base"]["folder"] == "models/m0"
    assert "fingerprint" in found["rows"]["base"]["files"]["done.json"]
    (place,) = found["cells"]["ReasonAny"]["harm/attack"]
    assert place == "models/m4/evals/harm--judge--89abcdef"
    assert "JudgeRecipe" in found["folders"][place]["files"]["recipe.yaml"]
    assert str(written[1][0].parents[2]) not in json.dumps(found)


def test_above_the_limit_answers_lie_beside_the_page_and_older_chunks_go(tmp_path):
    board, report = make(tmp_path)
    (report / "samples").mkdir()
    (report / "samples" / "0123456789abcdef.js").write_text("old")
    (report / "samples" / "mine.js").write_text("not ours")
    index, *chunks = page.write(board, report, ASSETS, largest=1)
    html = index.read_text()
    data = data_of(html)
    names = [name for task in data["tasks"].values() for name in task["blocks"]]
    assert sorted(data["chunks"]) == sorted(names) and not set(names) & set(blocks_of(html))
    assert {path.stem for path in chunks} == set(data["chunks"].values())
    for name in names:
        text = (report / "samples" / f"{data['chunks'][name]}.js").read_text()
        assert re.fullmatch(rf'harnessChunk\("{name}","[A-Za-z0-9+/=]+"\);\n', text)
    assert sorted(p.name for p in (report / "samples").iterdir()) == sorted(
        ["mine.js", *(p.name for p in chunks)]
    )
    assert [p.name for p in page.write(board, report, ASSETS)] == ["index.html"]
    assert [p.name for p in (report / "samples").iterdir()] == ["mine.js"]


def test_the_same_board_gives_the_same_bytes(tmp_path):
    board, report = make(tmp_path)
    first = page.write(board, report, ASSETS)[0].read_bytes()
    assert page.write(board, report, ASSETS)[0].read_bytes() == first


def test_other_families_come_along_and_damaged_ones_are_named(tmp_path):
    board, report = make(tmp_path)
    other, beside = make(tmp_path, family="other")
    write_board(other, beside)
    write_board(board, report)
    (tmp_path / "broken" / "report").mkdir(parents=True)
    (tmp_path / "broken" / "report" / "board.json").write_text('{"schema": 99}')
    html = page.write(board, report, ASSETS)[0].read_text()
    data = data_of(html)
    assert [b["family"] for b in data["boards"]] == ["fam", "other"]
    assert data["unread"] == ["broken"] and data["boards"][1]["page"] is None


def test_cleaned_folders_leave_a_page_without_samples(tmp_path):
    board, report = make(tmp_path)
    for cell in (cell for row in board.rows for cell in row.cells.values()):
        cell.folder = str(tmp_path / "gone")
    html = page.write(board, report, ASSETS)[0].read_text()
    assert data_of(html)["tasks"] == {}


def test_several_responses_to_a_question_and_several_filters(tmp_path):
    board, report = make(tmp_path, items=1)
    folder = report.parent / "models" / "m0" / "evals" / "gsm--01234567"
    (folder / "recipe.yaml").write_text("repeats: 2\n")
    line = {
        "doc_id": 0,
        "prompt": "p",
        "target": "t",
        "response": '["one", "two"]',
        "finish": "stop",
        "tokens": 2,
    }
    lines = [line | {"filter": "strict", "accuracy": 0.5}, line | {"filter": "loose", "accuracy": 1.0}]
    helpers_page.write_samples(lines, folder / "samples.parquet")
    board.headings[0] = helpers_page.Heading("gsm", "accuracy,loose", "GSM8K", "Reasoning", True, "accuracy")
    for row in board.rows:
        row.cells["gsm", "accuracy,loose"] = row.cells.pop(("gsm", "accuracy"))
    html = page.write(board, report, ASSETS)[0].read_text()
    data, blocks = data_of(html), blocks_of(html)
    assert unpacked(blocks[data["tasks"]["gsm"]["blocks"][0]])[0]["answers"][0]["texts"] == ["one", "two"]
    assert unpacked(blocks[data["tasks"]["gsm"]["index"]])["values"]["accuracy,loose"][0] == [1]


def test_over_seeds_an_item_has_all_runs_responses_and_their_mean(tmp_path):
    board, report = make(tmp_path, items=2)
    other, _ = make(tmp_path, family="other", items=2)
    cell = board.rows[0].cells["gsm", "accuracy"]
    second = other.rows[2].cells["gsm", "accuracy"].folder  # of Linear, which has question 1 right
    cell.folders = [cell.folder, second]
    html = page.write(board, report, ASSETS)[0].read_text()
    data, blocks = data_of(html), blocks_of(html)
    answers = [item["answers"][0] for item in unpacked(blocks[data["tasks"]["gsm"]["blocks"][0]])]
    assert ["base ponders 1" in text for text in answers[1]["texts"]] == [True, False]
    assert unpacked(blocks[data["tasks"]["gsm"]["index"]])["values"]["accuracy"][0] == [1, 0.5]
    assert len(unpacked(blocks["origins"])["cells"]["base"]["gsm/accuracy"]) == 2


def test_the_view_prints_what_the_board_prints(tmp_path):
    board, _ = make(tmp_path)
    shown = view(board)
    cell = shown["rows"][4]["cells"]["gsm/accuracy"]
    assert cell["text"] == "75.0" and cell["spread"] == "5.0" and cell["interval"] == "37.5 – 100.0"
    assert cell["paper"] == {"text": "86.3", "difference": "−11.3"}
    assert cell["test"]["better"] and cell["test"]["significant"] and cell["notes"] == ["a"]
    assert cell["test"]["interval"] == "+20.0 – +70.0" and cell["test"]["holm"] == "0.004"
    assert shown["rows"][3]["cells"]["prose/word_perplexity"]["value"] == "Infinity"
    assert "prose/word_perplexity" not in shown["rows"][5]["cells"]
    averages = [column for column in shown["columns"] if column.get("average")]
    assert [(a["group"], a["arrow"]) for a in averages] == [("Reasoning", "↑")]


def test_small_formats():
    assert [letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == ["a", "z", "aa", "az", "ba", "zz", "aaa"]
    assert (probability(0.0004), probability(0.05), probability(None)) == ("< 0.001", "0.050", None)
    assert pack.compact([float("nan"), float("inf"), {1: ("\ud800", "\u2028")}]) == (
        '["NaN","Infinity",{"1":["\\ud800","\\u2028"]}]'
    )
    assert json.loads(pack.embedded(HOSTILE)) == HOSTILE


def test_the_folder_of_assets_is_no_plugin():
    assert registry.find("reports")["html"].path.name == "html.py"
    assert ASSETS.is_dir() and "html" in registry.find("reports")
