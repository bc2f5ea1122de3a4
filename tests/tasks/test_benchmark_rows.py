"""Rows of each benchmark in its official layout (invented ones), and metrics over many of them."""

import json

import pytest
from real import TASKS, function, rows_of, scored

from harness import HarnessError, tasks
from harness.evaluate.syntax import load_module
from harness.evaluate.task_file import load_task

choice = load_module(TASKS / "_choice.py")


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_DATA", str(tmp_path))
    return tmp_path


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))


def parquet(path, rows):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), path)


def arc_row(name, labels, answer):
    texts = [f"thing {number}" for number in range(len(labels))]
    return {
        "id": name,
        "question": "Which?",
        "choices": {"text": texts, "label": labels},
        "answerKey": answer,
    }


def test_arc_has_three_to_five_options_and_labels_that_are_numbers(home):
    rows = [
        arc_row("a", ["A", "B", "C"], "C"),
        arc_row("b", list("1234"), "4"),
        arc_row("c", list("ABCDE"), "E"),
    ]
    for task, folder in (("arc_c", "ARC-Challenge"), ("arc_e", "ARC-Easy")):
        parquet(home / task / folder / "test-00000-of-00001.parquet", rows)
        three, numbered, five = rows_of(task)
        assert three["listed"] == "A. thing 0\nB. thing 1\nC. thing 2"
        assert scored(task, three, "The answer is D.")["unparsed"]
        assert scored(task, numbered, "The answer is 4.")["accuracy"] == 1.0
        assert scored(task, numbered, "4. thing 3")["accuracy"] == 1.0
        assert scored(task, numbered, "The answer is 3.")["accuracy"] == 0.0
        assert scored(task, five, "Answer: E")["accuracy"] == 1.0


def test_an_answer_that_is_no_option_is_named_with_its_row(home):
    path = home / "arc_c" / "ARC-Challenge" / "test-00000-of-00001.parquet"
    parquet(path, [arc_row("a", list("ABC"), "C"), arc_row("b", list("ABC"), "D")])
    with pytest.raises(HarnessError, match=r"(?s)row 2.*'D' is none of A, B, C"):
        rows_of("arc_c")


GPQA = "Record ID,Question,Correct Answer,Incorrect Answer 1,Incorrect Answer 2,Incorrect Answer 3,Writer\n"


def test_the_order_of_gpqas_options_follows_from_the_question_alone(home):
    lines = [
        f"r{n},Which of {n}?\n,  right {n} ,wrong a,wrong b,wrong c,x".replace("\n", "") for n in range(60)
    ]
    put(home / "gpqa_diamond" / "gpqa_diamond.csv", GPQA + "\n".join(lines) + "\n")
    rows = rows_of("gpqa_diamond")
    put(home / "gpqa_diamond" / "gpqa_diamond.csv", GPQA + "\n".join(lines[::-1]) + "\n")
    assert sorted(rows_of("gpqa_diamond"), key=str) == sorted(rows, key=str)
    assert {row["answer"] for row in rows} == set("ABCD")
    for number, row in enumerate(rows):
        assert row["options"]["ABCD".index(row["answer"])] == f"right {number}"
        assert scored("gpqa_diamond", row, f"**{row['answer']}**")["accuracy"] == 1.0


def test_the_plain_profile_takes_the_last_letter_where_none_is_given_as_the_answer():
    row = choice.choice("Which?", ["w", "x", "y", "z"], "B")
    assert choice.score(row, ["Perhaps B fits"])["unparsed"] == 1.0
    assert choice.score_plain(row, ["Perhaps B fits"])["accuracy"] == 1.0
    assert choice.score_plain(row, [" B"])["accuracy"] == 1.0
    assert choice.score_plain(row, [""]) == {"accuracy": 0.0, "unparsed": 1.0, "unfinished": 0.0}


def test_macro_is_the_mean_of_subjects_and_micro_that_of_rows():
    rows = [{**choice.choice("Which?", ["x", "y"], "A"), "subject": s} for s in ("law", "law", "law", "art")]
    told = [choice.by_subject(row, [answer]) for row, answer in zip(rows, "AABA", strict=True)]
    assert sum(t["accuracy"] for t in told) / 4 == 0.75
    assert choice.macro([t["macro"] for t in told]) == pytest.approx((2 / 3 + 1) / 2)
    assert choice.by_subject(rows[0], ["<think> A"])["macro"] == ("law", 0.0)


def medical(decision, n):
    abstract = {"CONTEXTS": ["We tried.", "It did."], "LABELS": ["AIMS", "RESULTS"], "LONG_ANSWER": "secret"}
    return {"QUESTION": f"Does {n} help?", "final_decision": decision, **abstract}


def test_pubmedqa_is_the_official_test_list(home):
    decisions = {"1": "yes", "2": "no", "3": "maybe"}
    content = {name: medical(said, name) for name, said in decisions.items()}
    put(home / "pubmedqa" / "ori_pqal.json", content)
    with pytest.raises(HarnessError, match="test_ground_truth.json"):
        rows_of("pubmedqa")
    put(home / "pubmedqa" / "test_ground_truth.json", {"3": "maybe", "1": "yes"})
    rows = rows_of("pubmedqa")
    assert [(row["id"], row["answer"]) for row in rows] == [("3", "maybe"), ("1", "yes")]
    assert rows[0]["abstract"] == "AIMS: We tried.\nRESULTS: It did." and "secret" not in str(rows)
    put(home / "pubmedqa" / "test_ground_truth.json", {"3": "perhaps"})
    with pytest.raises(HarnessError, match="`3` is 'perhaps'"):
        rows_of("pubmedqa")


def test_macro_f1_against_a_count_by_hand():
    judged, macro_f1 = function("pubmedqa", "process_results"), load_module(TASKS / "pubmedqa.py").macro_f1
    given = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("maybe", "so what"), ("no", "<think> no")]
    told = [judged({"answer": gold}, [response]) for gold, response in given]
    assert [t["accuracy"] for t in told] == [1.0, 0.0, 1.0, 0.0, 0.0]
    assert [t["unparsed"] for t in told] == [0.0, 0.0, 0.0, 1.0, 0.0]
    yes, no, maybe = 2 * 1 / (2 + 1), 2 * 1 / (2 + 2), 0.0
    assert macro_f1([t["macro_f1"] for t in told]) == pytest.approx((yes + no + maybe) / 3)
    assert macro_f1([("yes", "yes"), ("yes", "yes")]) == 1.0
    assert macro_f1([("yes", "yes", "no"), ("no", "no", "no")]) == pytest.approx((2 / 3 + 4 / 5) / 2)


def turn(index, **more):
    questions, answers = ["sales in 2012?", "and in 2011?", "did they grow?"], [120.0, 96.0, "yes"]
    told = {
        "cur_dial": questions[: index + 1],
        "exe_ans_list": answers,
        "exe_ans": answers[index],
        "turn_ind": index,
    }
    return {"id": "Single_X/2012/page_1.pdf-1", "pre_text": ["before ."], "post_text": ["after ."],
            "table": [["", "2012", "2011"], ["sales", "120", "96"]], "annotation": told, **more}  # fmt: skip


def test_convfinqa_turns_carry_the_conversation_so_far(home):
    put(home / "convfinqa" / "data" / "dev_turn.json", [turn(0), turn(1), turn(2)])
    first, second, third = rows_of("convfinqa")
    assert first["report"] == "before .\n\n|  | 2012 | 2011 |\n| sales | 120 | 96 |\n\nafter ."
    assert first["earlier"] == "" and third["question"] == "did they grow?" and third["answer"] == "yes"
    assert third["earlier"] == "Question: sales in 2012?\nAnswer: 120\nQuestion: and in 2011?\nAnswer: 96\n"
    assert len({row["id"] for row in (first, second, third)}) == 3
    assert scored("convfinqa", second, "From 120 it fell.\n\n\\boxed{96}")["accuracy"] == 1.0
    assert scored("convfinqa_paper", second, "From 120 it fell.\n\n\\boxed{96}")["accuracy"] == 0.0
    assert scored("convfinqa_paper", second, " 96\n")["accuracy"] == 1.0
    assert scored("convfinqa", third, "Yes, by 25 %.")["accuracy"] == 1.0
    assert scored("convfinqa", third, "\\boxed{no}")["accuracy"] == 0.0


LETTERED = {"emotion_identification": "ABC", "entity_disambiguation": "ABC", "financial_facts": "ABC",
            "data_inspection": "ABCD", "financial_terminology": "ABCD", "metric_calculation": "ABCD",
            "value_extraction": "ABCD", "intent_understanding": "ABCDE"}  # fmt: skip


def release(folder):
    for name, labels in LETTERED.items():
        put(
            folder / f"{name}.json",
            [{"id": 1, "question": "选哪个？", **{x: f"第{x}项" for x in labels}, "answer": "B"}] * 2,
        )
    put(folder / "entity_recognition.json", [{"question": "有哪些公司？", "answer": "甲公司、乙公司"}])
    put(folder / "information_security_compliance.json", [{"question": "合规吗？", "answer": "nan"}])


@pytest.mark.parametrize("folder", ["openfindata", "openfindata/openfindata_release"])
def test_openfindata_is_the_mean_of_nine(home, folder):
    release(home / folder)
    rows = rows_of("openfindata")
    assert len(rows) == 17 and {row["subtask"] for row in rows} == {*LETTERED, "entity_recognition"}
    names = next(row for row in rows if not row["labels"])
    others = [row for row in rows if row["labels"]]
    for text in (
        "答案：B",
        "\\boxed{B}",
        "选B。A股上涨",
        "B. 第B项",
        "我认为应当是第二个即B",
        "<think>答案：A</think>\n答案是B",
    ):
        assert all(scored("openfindata", row, text)["accuracy"] == 1.0 for row in others), text
    for text in ("答案：A股", "A", "答案：A。B股上涨", ""):
        assert all(scored("openfindata", row, text)["accuracy"] == 0.0 for row in others), text
    told = [scored("openfindata", row, "答案：B" if row["labels"] else "只有甲公司") for row in rows]
    assert choice.macro([t["macro"] for t in told]) == pytest.approx(8 / 9)
    assert scored("openfindata", names, "甲公司和乙公司")["accuracy"] == 1.0


def test_openfindata_without_one_of_its_files(home):
    release(home / "openfindata")
    (home / "openfindata" / "financial_facts.json").unlink()
    with pytest.raises(HarnessError, match=r"lacks `financial_facts.json`"):
        rows_of("openfindata")


OURS = [
    "gsm8k",
    "math500",
    "aime24",
    "arc_c",
    "arc_e",
    "mmlu",
    "gpqa_diamond",
    "medqa",
    "pubmedqa",
    "convfinqa",
]


@pytest.mark.parametrize("name", [*OURS, "openfindata"])
def test_both_profiles_ask_for_the_same_rows_and_say_what_they_are(home, name):
    standard, paper = load_task(TASKS / f"{name}.yaml"), load_task(TASKS / f"{name}_paper.yaml")
    assert (standard.profile, paper.profile) == ("standard", "paper")
    assert standard.chat_template and not paper.chat_template and paper.own_decoding
    assert standard.source == paper.source and standard.prompt_hash != paper.prompt_hash
    assert paper.config["generation_kwargs"]["max_gen_toks"] == 2048
    assert [column.title for column in standard.columns] == [column.title for column in paper.columns]
    text = (TASKS / f"{name}.yaml").read_text()
    assert "# One datum:" in text and ("revision: null" not in text)


@pytest.mark.parametrize("name", [*OURS, "openfindata"])
def test_missing_data_names_the_folder_and_what_to_do(home, name):
    with pytest.raises(HarnessError) as told:
        rows_of(name)
    assert str(home) in str(told.value) and len(str(told.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("suite", "some"),
    [
        ("reasoning", {"gsm8k", "math500", "aime24", "humaneval", "livecodebench"}),
        ("knowledge", {"arc_c", "arc_e", "mmlu", "gpqa_diamond", "lm_eval:arc_challenge", "lm_eval:mmlu"}),
        ("safety", {"safety_tuned", "advbench", "harmbench", "safechain", "over_refusal"}),
        ("biomedicine", {"pubmedqa", "medqa", "lm_eval:medqa_4options"}),
        ("finance", {"convfinqa", "openfindata"}),
        ("paper", {*OURS, "openfindata", "lm_eval:wikitext"}),
    ],
)
def test_suites(suite, some):
    assert some <= {file.name for file in tasks.named([suite])}


def test_the_paper_profile_of_the_paper_suite():
    found = {file.name for file in tasks.named(["paper"], "paper")}
    assert {f"{name}_paper" for name in OURS} <= found and "lm_eval:wikitext" in found
